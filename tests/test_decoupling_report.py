"""Table 3's report: groups of classes by frequency, differences by seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stadlib import recipes
from stadlib.recipes.experiment import Experiment
from stadlib.report import tables
from stadlib.study import Record, make_record

COUNTS = {12: 900, 17: 500, 79: 200, 80: 80, 14: 40, 70: 10}


def record(row: Experiment, seed: int, rare: float, frequent: float = 0.0) -> Record:
    """Rare classes have an AP of 0.2 and a gain, frequent ones 0.6."""
    ap = {
        str(action): (0.2 + rare + 0.01 * seed) if count < 100 else 0.6 + frequent
        for action, count in COUNTS.items()
    }
    metrics = {s: {"mAP": 0.5, "AP": ap} for s in ("ava", "kinetics", "ava+kinetics")}
    return make_record(replace(row, seed=seed), metrics, {"device": "cpu"}, Path("run"))


@pytest.fixture
def committed() -> list[Record]:
    rows = recipes.table3()
    gains = {"before": (0.0, 0.0), "after": (0.1, -0.02), "instance": (0.01, 0.0)}
    return [record(rows[name], seed, *gain) for name, gain in gains.items() for seed in range(3)]


def test_thirds_are_by_frequency():
    groups = tables.thirds(COUNTS)
    assert groups == {
        "top third": [12, 17],
        "bottom third": [14, 70],
        "all": [12, 17, 79, 80, 14, 70],
    }
    assert len(tables.thirds(dict.fromkeys(range(60), 1))["top third"]) == 20


def test_the_papers_table_is_as_printed():
    table = tables.paper(3)
    assert table.loc["bottom-20"].item() == "1.05"
    assert table.loc["work on computer"].item() == "-8.85"


def test_reference_pairs_the_seeds_of_every_variant(committed):
    table = tables.reference(3, counts=COUNTS, records=committed)
    assert table.index.tolist() == [*tables.VARIANTS, "after − instance"]
    assert table.loc["after − instance", "bottom third"] == "+9.00 ± 0.00"
    assert table.loc["after", ["top third", "bottom third", "seeds"]].tolist() == [
        "-2.00 ± 0.00", "+10.00 ± 0.00", 3,
    ]  # fmt: skip
    assert table.loc["square-root", "all"] == "not run"
    few = [r for r in committed if r.experiment["seed"] == 1]
    assert (
        tables.reference(3, counts=COUNTS, records=few).loc["instance", "bottom third"] == "+1.00"
    )


def test_three_kinds_of_numbers_stand_apart(committed):
    runs = {"before": committed[0], "after": committed[3]}
    table = tables.beside_paper(runs, table=3, counts=COUNTS, records=committed)
    assert table.loc[("paper", "after")].tolist() == ["-0.16", "1.05", "0.14"]
    assert table.loc[("this run: mini", "after"), "bottom third"] == "+10.00"
    assert table.loc[("reference: mini", "square-root"), "all"] == "not run"
    assert ("this run: mini", "instance") not in table.index


def test_classes_before_and_after(committed):
    table = tables.by_class(3, records=committed)
    assert table.loc[70, ["before", "after", "gain"]].tolist() == pytest.approx([21, 31, 10])
    assert table.loc[12, "gain"] == pytest.approx(-2)
    changed = tables.most_changed(table)
    assert len(changed) == 6 and changed["gain"].is_monotonic_decreasing
    assert tables.by_class(3, "square-root", records=committed).empty


def test_variants_share_everything_but_the_second_stage():
    rows = recipes.table3(scale="paper")
    assert len({row.stage_digest(1) for row in rows.values()}) == 1
    assert len({row.digest for row in rows.values()}) == len(rows)
    second = {name: row.stages[-1] for name, row in rows.items() if name != "before"}
    assert list(second) == list(tables.VARIANTS)
    assert {stage.train for stage in second.values()} == {"classifier"}
    assert second["after"].sampler == "class-balanced"
    assert second["after, new classifier"].start == "previous-but-classifier"

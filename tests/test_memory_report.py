"""Table 2's report: every number comes from records, and what nobody ran is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stadlib import recipes
from stadlib.recipes.experiment import Experiment
from stadlib.report import tables
from stadlib.study import Record, make_record

FIRST, SECOND, THIRD = tables.SHORT
LASTING, SHORT = "79", "4"
NOTHING, AMOUNTS = tables.NOTHING, recipes.memory_ablation()
(ALONE,) = recipes.table1(
    detector="ground-truth", backbone="ir-csn-152", pretrain="K700", frames="32x2", head="t-only",
    memory="no",
)  # fmt: skip


def record(row: Experiment, seed: int, lasting: float, short: float = 0.3) -> Record:
    row = replace(row, seed=seed)
    ap = {LASTING: lasting + 0.01 * seed, SHORT: short}
    metrics = {s: {"mAP": sum(ap.values()) / 2, "AP": ap} for s in ("ava", "kinetics")}
    metrics["ava+kinetics"] = metrics["ava"]
    return make_record(row, metrics, {"device": "cpu"}, Path("run"))


@pytest.fixture
def committed() -> list[Record]:
    rows = recipes.table2(backbone="ir-csn-152") | {"t-only": ALONE, NOTHING: AMOUNTS[0, 0]}
    gain = {FIRST: 0.1, SECOND: 0.2, THIRD: 0.3, "t-only": 0.0}
    gain |= {NOTHING: 0.05}
    return [record(rows[name], seed, 0.4 + gain[name]) for name in gain for seed in range(3)]


def test_the_papers_table_is_as_printed_under_our_names():
    table = tables.paper(2)
    assert table.index.tolist() == list(recipes.TABLE2)
    assert table.loc[THIRD].tolist() == ["A+K", "✓", "×", "✓", "36.88", "33.44"]
    assert table.loc[SECOND, "finetune"] == "×"


def test_strategies_are_told_by_their_words():
    for scale in ("smoke", "mini", "paper"):
        for name, row in recipes.table2(scale=scale).items():
            assert recipes.strategy(row) == name
    assert recipes.strategy(recipes.table1(memory="no")[0]) is None
    (row, *_) = recipes.table1(memory="yes")
    assert recipes.strategy(row) == THIRD


def test_reference_has_a_mean_an_interval_and_the_seeds(committed):
    table = tables.reference(2, records=committed)
    assert table.loc[THIRD, "seeds"] == 3
    assert table.loc[THIRD, "A+K"] == "50.50 ± 1.24"
    assert (
        tables.reference(2, backbone="slowfast-152", records=committed)["A+K"].tolist()
        == ["not run"] * 3
    )


def test_differences_are_paired_by_seed(committed):
    table = tables.differences(2, records=committed)
    gains = table["gain"].xs("A+K", level="source")
    assert gains["empty bank − t-only"] == pytest.approx(15)
    assert gains["new head − new head without memory"] == pytest.approx(7.5)
    assert gains["A first − new head"] == pytest.approx(-5)
    assert (table["high"] - table["low"]).max() == pytest.approx(0, abs=1e-9)  # equal every seed
    by_duration = tables.differences(2, "duration", records=committed)["gain"]
    assert by_duration["empty bank − t-only"].tolist() == pytest.approx([30, 0])


def test_missing_seeds_are_left_out_of_pairs(committed):
    fewer = [r for r in committed if r.experiment["seed"] or recipes.TABLE2[THIRD] is None]
    table = tables.differences(2, records=fewer)
    assert set(table["seeds"]) == {2}


def test_the_amount_is_that_of_the_ablation(committed):
    rows = recipes.memory_ablation()
    some = [record(rows[key], seed, 0.4) for key in ((0, 0), (5, 5)) for seed in range(2)]
    table = tables.amount_effect(records=some)
    assert {key[:2] for key in table.index} == {(0, 0), (5, 5)}
    assert set(table["seeds"]) == {2}
    assert rows[30, 5] == recipes.table2(backbone="ir-csn-152")[SECOND]
    first = {row.stage_digest(1) for row in rows.values()}
    assert len(first) == 1 and len({row.digest for row in rows.values()}) == len(rows)
    assert not rows[0, 0].memory


def test_this_run_stands_beside(committed):
    mine = [record(row, 7, 0.9) for row in recipes.table2(backbone="ir-csn-152").values()]
    table = tables.beside_paper(mine, table=2)
    assert table["this run: mini", "AVA"].tolist() == ["63.50"] * 3
    assert table["paper", "Kinetics"].tolist() == ["28.59", "33.35", "33.44"]


def test_stages_are_told_in_words():
    table = tables.stages(recipes.table2(scale="mini"))
    assert table.loc[(FIRST, 1), "data"] == "ava"
    assert table.loc[(SECOND, 2), "start"] == "previous-backbone"
    assert table.loc[(SECOND, 1), "memory"] == "-"
    decoupled = tables.stages(recipes.table3(scale="mini"))
    assert decoupled.loc[("after", 2), ["train", "sampler"]].tolist() == [
        "classifier", "class-balanced",
    ]  # fmt: skip

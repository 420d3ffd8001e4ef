"""The report never mixes kinds of numbers, and says what was not run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from stadlib import base, recipes
from stadlib.base import ConfigError, InputError
from stadlib.recipes.experiment import Experiment
from stadlib.report import readme, scores, tables
from stadlib.study import Record, make_record, write_record

ACTIONS = (12, 17, 79, 80)
GAIN = {"linear": 0.0, "s-only": 0.04, "t-only": 0.05}


def record(row: Experiment, seed: int = 0, base: float = 0.5) -> Record:
    """A record in which a head gains on the person classes only, a little more with each seed."""
    row = replace(row, seed=seed)
    ap: dict[str, float | None] = {
        str(action): base + 0.01 * seed + (action > 63) * GAIN[row.head] * (1 + 0.1 * seed)
        for action in ACTIONS
    }
    mean = sum(ap.values()) / len(ap)
    ap["4"] = None
    metrics = {
        source: {"mAP": mean + shift, "AP": ap}
        for source, shift in (("ava", 0.0), ("kinetics", -0.1), ("ava+kinetics", 0.01))
    }
    return make_record(row, metrics, {"version": "0.1.0", "device": "cpu"}, Path("run"))


def row_of(head: str, scale: str = "mini") -> Experiment:
    rows = recipes.table1(scale=scale, head=head, backbone="ir-csn-152", pretrain="K700")
    return next(row for row in rows if not row.memory)


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Record]:
    """Five seeds of three heads, as the committed reference."""
    records = [record(row_of(head), seed) for head in GAIN for seed in range(5)]
    for one in records:
        write_record(one, tmp_path / "reference" / f"{one.digest}.json")
    published = base.published_dir
    monkeypatch.setattr(
        tables,
        "published_dir",
        lambda kind: published(kind) if kind == "paper" else tmp_path / kind,
    )
    return records


def test_paper_table_is_as_printed() -> None:
    table = tables.paper(1)
    assert len(table) == 15
    assert table.loc[("ir-CSN-152", "K400+IG65M", "32x2", "Linear", "×"), "A+K"] == "36.20"
    assert table["A+K test"].tolist() == ["-"] * 14 + ["40.67"]
    assert [len(tables.paper(number)) for number in (2, 3, 4)] == [3, 9, 4]
    with pytest.raises(ConfigError, match="table=5; choose from 1, 2, 3, 4"):
        tables.paper(5)


def test_every_recipe_row_is_a_row_of_the_paper() -> None:
    paper = {tuple(word.lower() for word in key) for key in tables.paper(1).index}
    rows = {tables.row_key(record(row).experiment) for row in recipes.table1(scale="mini")}
    assert paper - rows == {("ensemble", "-", "-", "mixed", "-")}
    assert rows < paper


def test_not_run_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "reference_records", lambda folder="": [])
    monkeypatch.setattr(tables, "reference_ensembles", list)
    table = tables.beside_paper([None])
    ours = table.drop(columns=["paper"], level=0)
    assert (ours == "not run").all(axis=None)
    assert len(table) == 15


def test_reference_has_means_intervals_and_seeds(committed: list[Record]) -> None:
    table = tables.reference(1)
    linear = table.loc[("ir-CSN-152", "K700", "32x2", "Linear", "×")]
    assert linear.tolist() == ["52.00 ± 1.96", "42.00 ± 1.96", "53.00 ± 1.96", 5]
    assert (table["seeds"] > 0).sum() == 3
    assert (table.loc[table["seeds"] == 0, ["AVA", "Kinetics", "A+K"]] == "not run").all(axis=None)


def test_committed_ensembles_are_the_last_row(committed: list[Record], tmp_path: Path) -> None:
    assert tables.reference(1).iloc[-1].tolist() == ["not run"] * 3 + [0]
    assert "Our ensemble" not in readme.full_table()
    for seed in range(2):
        content = {"members": {}, "scale": "mini", "seed": seed}
        one = replace(record(row_of("t-only"), seed), experiment=content)
        write_record(one, tmp_path / "reference" / "ensembles" / f"{seed}.json")
    row = tables.reference(1).loc[("ensemble", "-", "-", "mixed", "-")]
    same = [one for one in committed if one.experiment["head"] == "t-only"][:2]
    assert row.tolist() == [*(scores.mean_text(same, source) for source in scores.SOURCES), 2]
    for member in committed[:2] + committed[5:7]:  # two seeds of two heads
        write_record(member, tmp_path / "reference/ensembles/members" / f"{member.digest}.json")
    last = readme.full_table().splitlines()[-1]
    assert last.startswith(
        "Our ensemble averages 2 models of one seed, alone (A+K): ir-csn-152 K700"
    )
    for group in (committed[:2], committed[5:7]):
        head, score = group[0].experiment["head"], scores.mean_text(group, "ava+kinetics")
        assert f"32x2 {head} {score}" in last


def test_reference_takes_only_the_recipes_mini_experiments() -> None:
    row = row_of("t-only")
    longer = replace(row, stages=(replace(row.stages[0], iterations=7),))
    others = [record(row_of("t-only", "smoke")), record(replace(row, flip=False)), record(longer)]
    assert tables.reference(1, records=others)["seeds"].sum() == 0
    assert tables.reference(1, records=[*others, record(row, seed=3)])["seeds"].sum() == 1


def test_no_number_of_ours_in_the_papers_columns(committed: list[Record]) -> None:
    run = record(row_of("t-only", "smoke"), base=0.1)
    table = tables.beside_paper([run])
    titles = list(dict.fromkeys(table.columns.get_level_values(0)))
    assert titles == [
        "paper",
        "reference: mini",
        "this run: smoke",
    ]
    printed = tables.paper(1).drop(columns="A+K test")
    pd.testing.assert_frame_equal(table[titles[0]], printed)
    mine = table[titles[2]]
    assert mine.loc[("ir-CSN-152", "K700", "32x2", "T-only", "×")].tolist() == [
        "12.50",
        "2.50",
        "13.50",
    ]
    assert (mine == "not run").all(axis=1).sum() == 14


def test_scales_are_not_mixed() -> None:
    runs = [record(row_of("t-only", scale)) for scale in ("smoke", "mini")]
    with pytest.raises(InputError, match="records of mini and smoke in one column"):
        tables.beside_paper(runs)


def test_gains_are_paired_by_seed(committed: list[Record]) -> None:
    gains = tables.paired_difference("t-only")
    assert gains.index.tolist() == ["AVA", "Kinetics", "A+K"]
    assert (gains["seeds"] == 5).all()
    assert gains["gain"].tolist() == pytest.approx([3.0] * 3)
    # The seeds' common shift cancels: the interval is far narrower than the one of either head.
    assert (gains["low"] > 2).all()
    assert (gains["high"] - gains["low"] < 1).all()
    by_group = tables.paired_difference("t-only", by="group")["gain"]
    assert by_group.to_dict() == pytest.approx({"pose": 0, "object": 0, "person": 6})
    by_class = tables.paired_difference("s-only", by="class")
    assert by_class.index.tolist() == list(ACTIONS)
    assert by_class.loc[80, ["name", "group"]].tolist() == ["watch (a person)", "person"]


def test_unpaired_records_give_no_gain(committed: list[Record]) -> None:
    runs = [record(row_of("t-only"), 0), record(row_of("linear"), 1)]
    assert scores.paired_difference(runs, "t-only")["seeds"].tolist() == [0, 0, 0]
    other = tables.paired_difference("t-only", backbone="slowfast-152")
    assert other["gain"].isna().all()


def test_experiments_show_what_differs() -> None:
    rows = recipes.table1(scale="mini", head="t-only", pretrain="K700")
    table = tables.experiments(rows).reset_index()
    assert len(table) == len(rows)
    assert table.columns.tolist() == ["backbone", "pretrain", "input", "head", "+M", "iterations"]
    one = tables.experiments(rows[:1]).reset_index()
    assert one.columns.tolist() == ["backbone", "pretrain", "input", "head", "+M"]


def test_a_section_is_rewritten_in_place(committed: list[Record], tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Title\n<!-- results:start -->\nold\n<!-- results:end -->\nThe end.\n")
    readme.rewrite(path, "results", readme.full_table())
    once = path.read_text()
    assert once.startswith("# Title\n") and once.endswith("\nThe end.\n")
    assert "old" not in once
    assert once.count("\n|") == 17
    assert "52.00 ± 1.96" in once
    assert readme.section_of(path, "results") == readme.full_table()
    readme.rewrite(path, "results", readme.full_table())
    assert path.read_text() == once
    path.write_text("# Title\n")
    with pytest.raises(InputError, match=r"README\.md: the lines .* are missing"):
        readme.rewrite(path, "results", "")


def test_provenance_names_every_record() -> None:
    one = record(row_of("t-only"), seed=2)
    table = tables.provenance([one, None])
    assert table.columns.tolist() == [one.digest]
    assert table.loc[["seed", "scale", "device"], one.digest].tolist() == [2, "mini", "cpu"]
    assert tables.provenance([None]).empty


def test_committed_reference_belongs_to_the_recipes() -> None:
    records = tables.reference_records()
    if not records:
        pytest.skip("results/reference holds no record")
    assert tables.reference(1, records=records)["seeds"].sum() > 0
    assert all(json.loads(one.to_json())["scale"] == "mini" for one in records)

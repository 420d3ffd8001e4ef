"""The four reports: kinds of numbers never mix, and a row without records is "not run"."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import nan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reading import make_record

from stadlib import base, recipes, study
from stadlib.base import ConfigError, InputError
from stadlib.evaluation import average_precision
from stadlib.recipes.experiment import Experiment
from stadlib.recipes.scales import DETECTOR_SCALES, DETECTORS
from stadlib.report import publish, scores, tables
from stadlib.report.scores import interval
from stadlib.study import Record

T95 = 4.3027  # two degrees of freedom
HEADS = {"linear": 0.0, "s-only": 0.04, "t-only": 0.05}
FIRST, NEW, EMPTY = recipes.TABLE2
COUNTS = {12: 900, 17: 500, 79: 200, 80: 80, 14: 40, 70: 10}
HEIGHTS = {"v1": 0.30, "v2": 0.31, "v3": 0.33, "ground-truth": 0.40}

Commit = Callable[..., list[Record]]


def record(row: Experiment, seed: int, ap: dict[int, float | None], shift: float = 0.0) -> Record:
    """The APs are those of every source; mAP is their mean, on Kinetics with a shift."""
    known = [value for value in ap.values() if value is not None]
    mean = sum(known) / len(known)
    classes = {str(action): value for action, value in ap.items()}
    means = {"ava": mean, "kinetics": mean + shift, "ava+kinetics": mean + shift / 2}
    metrics = {source: {"mAP": value, "AP": classes} for source, value in means.items()}
    row = replace(row, seed=seed)
    return make_record(row, metrics, {"version": "0.1.0", "device": "cpu"}, Path("run"))


@pytest.fixture
def commit(monkeypatch: pytest.MonkeyPatch) -> Commit:
    """Put records, by folder, in the place of the committed reference."""

    def commit(
        records: list[Record], boxes: dict[str, Record] | None = None, **folders: list[Record]
    ) -> list[Record]:
        content = {"": records, "detectors": list((boxes or {}).values())}
        content |= {name.replace("_", "/"): ones for name, ones in folders.items()}
        reference = base.published_dir("reference")
        content = {reference / name: ones for name, ones in content.items()}
        monkeypatch.setattr(scores, "read_records", lambda folder: content.get(folder, []))
        monkeypatch.setattr(tables, "reference_counts", lambda: pd.Series(COUNTS))
        return records

    return commit


# -------------------------------------------------------------------------------- Student's t


def test_interval_of_five_of_one_and_of_none() -> None:
    half = 2.7764 * sqrt(2.5) / sqrt(5)
    assert interval([1, 2, 3, 4, 5]) == pytest.approx((3, half), rel=1e-4)
    assert interval([0.4]) == pytest.approx((0.4, nan), nan_ok=True)
    assert interval([]) == pytest.approx((nan, nan), nan_ok=True)


def test_covers_the_mean_95_times_in_100() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    covered = [abs(mean) <= half for mean, half in map(interval, draws)]
    assert 0.93 < np.mean(covered) < 0.97


# ---------------------------------------------- the transcription against the paper's own text


SCORES = ["ava", "kinetics", "ava+kinetics"]


def printed(number: int) -> pd.DataFrame:
    return pd.read_csv(base.published_dir("paper") / f"table{number}.csv")


def test_transcribed_table1_is_the_papers() -> None:
    rows, single, ensemble = printed(1), printed(1)[:-1], printed(1).iloc[-1]
    assert not rows.duplicated(["backbone", "pretrain", "input", "head", "memory"]).any()
    assert rows["head"].value_counts().to_dict() == {
        "T-only": 8, "Linear": 3, "S-only": 3, "mixed": 1,
    }  # fmt: skip
    # Joint evaluation is not the mean of two.
    assert (rows["ava+kinetics"] > rows[["ava", "kinetics"]].max(axis=1)).all()
    best = single.loc[single["ava+kinetics"].idxmax()]
    assert best[SCORES].tolist() == [37.95, 35.26, 38.43]
    assert best[["backbone", "input", "memory"]].tolist() == ["ir-CSN-152", "64x1", "yes"]
    assert ensemble[["ava+kinetics", "ava+kinetics_test"]].tolist() == [40.97, 40.67]
    assert single["ava+kinetics_test"].isna().all()
    assert (ensemble[SCORES] > single[SCORES].max()).all()


def test_transcribed_heads_memory_and_time_gain_what_the_text_says() -> None:
    rows = printed(1)
    plain = rows[rows["memory"] == "no"].set_index(["backbone", "pretrain", "input", "head"])
    for score in SCORES:
        by_head = plain[score].unstack("head")
        assert len(by_head) == 3
        assert by_head[["S-only", "T-only"]].gt(by_head["Linear"], axis=0).all(axis=None)
    only_t = rows[rows["head"] == "T-only"]
    short = only_t[only_t["input"].isin(["8x8+32x2", "32x2"])]
    by_memory = short.pivot(index=["backbone", "pretrain"], columns="memory", values="ava+kinetics")
    gains = by_memory["yes"] - by_memory["no"]
    assert len(gains) == 3 and gains.between(0.4, 0.85).all()
    assert gains.max() == pytest.approx(0.8)
    memory = only_t[(only_t["memory"] == "yes") & (only_t["pretrain"] == "K700")]
    for _, pair in memory.groupby("backbone"):  # twice the time
        assert pair["ava+kinetics"].diff().iloc[-1] == pytest.approx(0.65, abs=0.13)


def test_transcribed_tables_2_to_4_fit_the_text_and_table1() -> None:
    rows = printed(2)
    chosen = printed(1).query("backbone == 'SlowFast-152' and input == '8x8+32x2'").iloc[-1]
    assert rows.iloc[-1][["ava", "kinetics"]].tolist() == chosen[["ava", "kinetics"]].tolist()
    assert rows[["ava", "kinetics"]].idxmax().tolist() == [2, 2]
    classes = printed(3).set_index("classes")["difference"]
    assert len(classes) == 9
    assert classes[["bottom-20", "top-20"]].tolist() == [1.05, -0.16]
    assert (classes.idxmax(), classes.idxmin()) == ("cut", "work on computer")
    rows = printed(4).set_index("detector")
    assert len(rows) == 4
    assert rows["kinetics_person_AP"].dropna().tolist() == [77.0, 81.7, 82.3]
    for source, best in (("ava", 43.53), ("kinetics", 48.49)):
        assert rows[source].is_monotonic_increasing and rows.loc["GT", source] == best
    words = "backbone == 'ir-CSN-152' and pretrain == 'K700' and input == '32x2'"
    same = printed(1).query(words + " and head == 'T-only' and memory == 'no'")
    for numbers in (rows.loc["det-v3"], same.iloc[0]):
        assert numbers[["ava", "kinetics"]].tolist() == [36.41, 34.80]


def test_papers_tables_are_as_printed_under_our_names() -> None:
    first, second, third, fourth = (tables.paper(number) for number in (1, 2, 3, 4))
    assert [len(table) for table in (first, second, third, fourth)] == [15, 3, 9, 4]
    rows = {tables.row_key(row.to_dict()) for row in recipes.table1(scale="mini")}
    assert {tuple(map(str.lower, key)) for key in first.index} - rows == {tables.ENSEMBLE}
    assert first.loc[("ir-CSN-152", "K400+IG65M", "32x2", "Linear", "×"), "A+K"] == "36.20"
    assert first["A+K test"].tolist() == ["-"] * 14 + ["40.67"]
    assert second.index.tolist() == list(recipes.TABLE2)
    assert second.loc[EMPTY].tolist() == ["A+K", "✓", "×", "✓", "36.88", "33.44"]
    assert third.loc[["bottom-20", "work on computer"], "mAP@0.5 diff."].tolist() == [
        "1.05", "-8.85",
    ]  # fmt: skip
    assert fourth.index.tolist() == list(tables.PAPER_ROWS)
    assert fourth.loc["det-v2"].tolist() == ["95.1", "36.16", "81.7", "33.84"]
    assert fourth.loc["GT"].tolist() == ["-", "43.53", "-", "48.49"]
    curve = tables.paper_by_detector()
    assert curve.loc[("AVA", "v1"), ["AP", "mAP"]].tolist() == [94.5, 35.72]
    assert curve.loc[("Kinetics", "GT"), ["AP", "mAP"]].tolist() == [100, 48.49]
    for call in (tables.paper, tables.reference):
        with pytest.raises(ConfigError, match="table=5; choose from 1, 2, 3, 4"):
            call(5)


# --------------------------------------------------------------------------------------- Table 1


def row_of(head: str, scale: str = "mini") -> Experiment:
    rows = recipes.table1(scale=scale, head=head, backbone="ir-csn-152", pretrain="K700")
    return next(row for row in rows if not row.memory)


def of_head(head: str, seed: int = 0, base: float = 0.5, scale: str = "mini") -> Record:
    """A head gains on the person classes only, a little more with each seed."""
    ap: dict[int, float | None] = {
        action: base + 0.01 * seed + (action > 63) * HEADS[head] * (1 + 0.1 * seed)
        for action in (12, 17, 79, 80)
    }
    return record(row_of(head, scale), seed, ap | {4: None}, -0.1)


@pytest.fixture
def heads(commit: Commit) -> list[Record]:
    """Five seeds of three heads."""
    return commit([of_head(head, seed) for head in HEADS for seed in range(5)])


@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_rows_without_records_are_not_run(commit: Commit, table: int) -> None:
    commit([])
    shown = tables.beside_paper({} if table > 2 else [None], table)
    if table == 3:
        assert (shown.loc["reference: mini"] == "not run").all(axis=None)
    else:
        ours = shown.drop(columns=["paper"], level=0)
        assert ours.isin(["not run", "-"]).all(axis=None) and len(ours) == len(tables.paper(table))
    assert tables.reference(table)["seeds"].sum() == 0


def test_curves_and_gains_without_records_are_empty(commit: Commit) -> None:
    commit([])
    assert all(tables.by_class(table).empty for table in (3, 4))
    assert all(tables.differences(table).empty for table in (2, 4))
    curves = (tables.amount_effect, tables.by_detector, tables.by_threshold)
    assert all(curve().empty for curve in curves)
    assert (tables.person_boxes().drop(columns="iterations") == "not run").all(axis=None)


def test_reference_has_means_intervals_and_seeds(heads: list[Record]) -> None:
    table = tables.reference(1)
    row = table.loc[("ir-CSN-152", "K700", "32x2", "Linear", "×")]
    assert row.tolist() == ["52.00 ± 1.96", "42.00 ± 1.96", "47.00 ± 1.96", 5]
    assert (table["seeds"] > 0).sum() == 3


def test_committed_ensembles_are_the_last_row(heads: list[Record], commit: Commit) -> None:
    assert tables.reference(1).iloc[-1].tolist() == ["not run"] * 3 + [0]
    assert "Our ensemble" not in publish.full_table()
    same = [one for one in heads if one.experiment["head"] == "t-only"][:2]
    mixed = [replace(one, experiment={"seed": one.experiment["seed"]}) for one in same]
    members = heads[:2] + heads[5:7]  # two seeds of two heads
    commit(heads, ensembles=mixed, ensembles_members=members)
    row = tables.reference(1).loc[tables.ENSEMBLE]
    assert row.tolist() == [*(scores.mean_text(same, source) for source in scores.SOURCES), 2]
    last = publish.full_table().splitlines()[-1]
    assert last.startswith("Our ensemble averages 2 models of one seed, alone (A+K): ir-csn-152")
    for group in (heads[:2], heads[5:7]):
        head, score = group[0].experiment["head"], scores.mean_text(group, "ava+kinetics")
        assert f"32x2 {head} {score}" in last


def test_reference_takes_only_the_recipes_mini_experiments(commit: Commit) -> None:
    row, ap = row_of("t-only"), {12: 0.5}
    longer = replace(row, stages=(replace(row.stages[0], iterations=7),))
    others = [of_head("t-only", scale="smoke"), record(longer, 0, ap)]
    others.append(record(replace(row, flip=False), 0, ap))
    commit(others)
    assert tables.reference(1)["seeds"].sum() == 0
    commit([*others, record(row, 3, ap)])
    assert tables.reference(1)["seeds"].sum() == 1


def test_no_number_of_ours_in_the_papers_columns(heads: list[Record]) -> None:
    table = tables.beside_paper([of_head("t-only", base=0.1, scale="smoke")])
    titles = list(dict.fromkeys(table.columns.get_level_values(0)))
    assert titles == ["paper", "reference: mini", "this run: smoke"]
    pd.testing.assert_frame_equal(table["paper"], tables.paper(1).drop(columns="A+K test"))
    run = table["this run: smoke"]
    key = ("ir-CSN-152", "K700", "32x2", "T-only", "×")
    assert run.loc[key].tolist() == ["12.50", "2.50", "7.50"]
    assert (run == "not run").all(axis=1).sum() == 14


def test_scales_are_not_mixed(heads: list[Record]) -> None:
    runs = [of_head("t-only", scale=scale) for scale in ("smoke", "mini")]
    with pytest.raises(InputError, match="records of mini and smoke in one column"):
        tables.beside_paper(runs)


def test_heads_are_paired_by_seed(heads: list[Record], commit: Commit) -> None:
    words = {"detector": "v3"}
    gains = tables.paired_difference("t-only", **words)
    assert gains.index.tolist() == ["AVA", "Kinetics", "A+K"]
    assert (gains["seeds"] == 5).all()
    assert gains["gain"].tolist() == pytest.approx([3.0] * 3)
    # The seeds' common shift cancels: the interval is far narrower than the one of either head.
    assert (gains["high"] - gains["low"] < 1).all()
    by_group = tables.paired_difference("t-only", by="group", **words)["gain"]
    assert by_group.to_dict() == pytest.approx({"pose": 0, "object": 0, "person": 6})
    by_class = tables.paired_difference("s-only", by="class", **words)
    assert by_class.index.tolist() == [12, 17, 79, 80]
    assert by_class.loc[80, ["name", "group"]].tolist() == ["watch (a person)", "person"]
    assert tables.paired_difference("t-only", backbone="slowfast-152")["gain"].isna().all()
    commit([of_head("t-only", 0), of_head("linear", 1)])
    assert tables.paired_difference("t-only")["seeds"].tolist() == [0, 0, 0]


def test_experiments_show_what_differs() -> None:
    rows = recipes.table1(scale="mini", head="t-only", pretrain="K700")
    table = tables.experiments(rows).reset_index()
    assert len(table) == len(rows)
    assert table.columns.tolist() == ["backbone", "pretrain", "input", "head", "+M", "iterations"]
    assert "iterations" not in tables.experiments(rows[:1])


def test_stages_are_told_in_words() -> None:
    table = tables.stages(recipes.table2(scale="mini") | recipes.table3(scale="mini"))
    assert table.loc[(FIRST, 1), "data"] == "ava"
    assert table.loc[(NEW, 2), "start"] == "previous-backbone"
    assert table.loc[(NEW, 1), "memory"] == "-"
    second = table.loc[("after", 2), ["train", "sampler"]]
    assert second.tolist() == ["classifier", "class-balanced"]


def test_provenance_names_every_record() -> None:
    one = of_head("t-only", seed=2)
    table = tables.provenance([one, None])
    assert table.columns.tolist() == [one.digest]
    assert table.loc[["seed", "scale", "device"], one.digest].tolist() == [2, "mini", "cpu"]
    assert tables.provenance([None]).empty


def test_a_section_is_rewritten_in_place(heads: list[Record], tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Title\n<!-- results:start -->\nold\n<!-- results:end -->\nThe end.\n")
    publish.rewrite(path, "results", publish.full_table())
    once = path.read_text()
    assert once.startswith("# Title\n") and once.endswith("\nThe end.\n")
    assert "old" not in once and "52.00 ± 1.96" in once
    assert once.count("\n|") == 17
    publish.rewrite(path, "results", publish.full_table())
    assert path.read_text() == once
    path.write_text("# Title\n")
    with pytest.raises(InputError, match=r"README\.md: the lines .* are missing"):
        publish.rewrite(path, "results", "")


def test_committed_reference_belongs_to_the_recipes() -> None:
    """The rows of its tables, and nothing else."""
    records = study.read_records(base.published_dir("reference"))
    assert all(json.loads(one.to_json())["scale"] == "mini" for one in records)
    known = {
        one.digest
        for table in (1, 2, 3, 4)
        for of in tables.records_of(table).values()
        for one in of
    }
    rows = [recipes.table1(seed=seed, detector="ground-truth") for seed in range(6)]
    known |= {row.digest for of_seed in rows for row in of_seed}  # 01 shows them beside v3's
    assert {one.digest for one in records} <= known


# --------------------------------------------------------------------------------------- Table 2


@pytest.fixture
def memory(commit: Commit) -> list[Record]:
    """Three seeds of every strategy and of what they are compared with."""
    (alone,) = recipes.table1(
        backbone="ir-csn-152", pretrain="K700", frames="32x2",
        head="t-only", memory="no",
    )  # fmt: skip
    rows = recipes.table2(backbone="ir-csn-152") | {"t-only": alone}
    rows[tables.NOTHING] = recipes.memory_ablation()[0, 0]
    gains = {FIRST: 0.1, NEW: 0.2, EMPTY: 0.3, "t-only": 0.0, tables.NOTHING: 0.05}
    return commit(
        [
            record(rows[name], seed, {79: 0.4 + gain + 0.01 * seed, 4: 0.3})
            for name, gain in gains.items()
            for seed in range(3)
        ]
    )


def test_strategies_are_told_by_their_stages() -> None:
    for scale in ("smoke", "mini", "paper"):
        for name, row in recipes.table2(scale=scale).items():
            assert recipes.strategy(row) == name
    assert recipes.strategy(recipes.table1(memory="no")[0]) is None
    assert recipes.strategy(recipes.table1(memory="yes")[0]) == EMPTY


def test_strategies_beside_the_papers(memory: list[Record]) -> None:
    row = tables.reference(2).loc[EMPTY, ["A+K", "seeds"]]
    assert row.tolist() == ["50.50 ± 1.24", 3]
    other = tables.reference(2, backbone="slowfast-152")
    assert other["A+K"].tolist() == ["not run"] * 3
    rows = recipes.table2(backbone="ir-csn-152").values()
    table = tables.beside_paper([record(row, 7, {79: 0.97, 4: 0.3}) for row in rows], table=2)
    assert table["this run: mini", "AVA"].tolist() == ["63.50"] * 3
    assert table["paper", "Kinetics"].tolist() == ["28.59", "33.35", "33.44"]


def test_strategies_are_paired_by_seed(memory: list[Record], commit: Commit) -> None:
    table = tables.differences(2)
    gains = table["gain"].xs("A+K", level="source")
    assert gains["empty bank − t-only"] == pytest.approx(15)
    assert gains["new head − new head without memory"] == pytest.approx(7.5)
    assert gains["A first − new head"] == pytest.approx(-5)
    assert (table["high"] - table["low"]).max() == pytest.approx(0, abs=1e-9)  # equal every seed
    by_duration = tables.differences(2, "duration")["gain"]
    assert by_duration["empty bank − t-only"].tolist() == pytest.approx([30, 0])
    commit([one for one in memory if one.experiment["seed"]])
    assert set(tables.differences(2)["seeds"]) == {2}


def test_amounts_of_memory_are_those_of_the_ablation(commit: Commit) -> None:
    rows = recipes.memory_ablation()
    commit([record(rows[key], seed, {79: 0.4}) for key in ((0, 0), (5, 5)) for seed in range(2)])
    table = tables.amount_effect()
    assert {key[:2] for key in table.index} == {(0, 0), (5, 5)}
    assert set(table["seeds"]) == {2}
    assert rows[30, 5] == recipes.table2(backbone="ir-csn-152")[NEW]
    assert len({row.stage_digest(1) for row in rows.values()}) == 1
    assert len({row.digest for row in rows.values()}) == len(rows)
    assert not rows[0, 0].memory


# --------------------------------------------------------------------------------------- Table 3


@pytest.fixture
def decoupled(commit: Commit) -> list[Record]:
    """Three seeds: rare classes have an AP of 0.2 and a gain, frequent ones 0.6."""
    rows = recipes.table3()
    gains = {"before": (0.0, 0.0), "after": (0.1, -0.02), "instance": (0.01, 0.0)}
    records = []
    for name, (rare, frequent) in gains.items():
        for seed in range(3):
            low, high = 0.2 + rare + 0.01 * seed, 0.6 + frequent
            ap = {action: low if count < 100 else high for action, count in COUNTS.items()}
            records.append(record(rows[name], seed, ap))
    return commit(records)


def test_thirds_are_by_frequency() -> None:
    groups = tables.thirds(COUNTS)
    assert groups == {"top third": [12, 17], "bottom third": [14, 70], "all": list(COUNTS)}
    assert len(tables.thirds(dict.fromkeys(range(60), 1))["top third"]) == 20


def test_every_variant_is_paired_with_the_first_stage(
    decoupled: list[Record], commit: Commit
) -> None:
    table = tables.reference(3)
    assert table.index.tolist() == [*tables.VARIANTS, "after − instance"]
    assert table.loc["after − instance", "bottom third"] == "+9.00 ± 0.00"
    row = table.loc["after", ["top third", "bottom third", "seeds"]]
    assert row.tolist() == ["-2.00 ± 0.00", "+10.00 ± 0.00", 3]
    assert table.loc["square-root", "all"] == "not run"
    runs = {"before": decoupled[0], "after": decoupled[3]}
    table = tables.beside_paper(runs, table=3)
    assert table.loc[("paper", "after")].tolist() == ["-0.16", "1.05", "0.14"]
    assert table.loc[("this run: mini", "after"), "bottom third"] == "+10.00"
    assert table.loc["this run: mini"].index.tolist() == ["after"]
    commit([one for one in decoupled if one.experiment["seed"] == 1])
    assert tables.reference(3).loc["instance", "bottom third"] == "+1.00"


def test_classes_before_and_after(decoupled: list[Record]) -> None:
    table = tables.by_class(3)
    assert table.loc[70, ["before", "after", "gain"]].tolist() == pytest.approx([21, 31, 10])
    assert table.loc[12, "gain"] == pytest.approx(-2)
    changed = tables.most_changed(table)
    assert len(changed) == 6 and changed["gain"].is_monotonic_decreasing


def test_variants_share_everything_but_the_second_stage() -> None:
    rows = recipes.table3(scale="paper")
    assert len({row.stage_digest(1) for row in rows.values()}) == 1
    assert len({row.digest for row in rows.values()}) == len(rows)
    second = {name: row.stages[-1] for name, row in rows.items() if name != "before"}
    assert list(second) == list(tables.VARIANTS)
    assert {stage.train for stage in second.values()} == {"classifier"}
    assert second["after"].sampler == "class-balanced"
    assert second["after, new classifier"].start == "previous-but-classifier"


# --------------------------------------------------------------------------------------- Table 4


def scored(row: Experiment, seed: int, height: float) -> Record:
    ap: dict[int, float | None] = {12: height, 17: height + 0.1, 80: height - 0.1}
    return record(row, seed, ap, 0.1)


def boxes_of(version: str, ap: float, scale: str = "mini") -> Record:
    """A detector whose recall falls and whose precision rises with the threshold."""
    last = recipes.THRESHOLDS[-1]
    curve = {
        str(least): {"recall": 1 - least, "precision": least if least < last else None}
        for least in average_precision.THRESHOLDS
    }
    quality = {"AP@0.5": ap, "AP@0.75": ap - 0.2, "AP@0.5:0.95": ap - 0.3, "recall@0.5": 0.99}
    metrics = {
        "ava": quality | {"thresholds": curve},
        "kinetics": quality | {"AP@0.5": ap - 0.1, "thresholds": curve},
    }
    return Record({"detector": version}, version, scale, metrics, {})


BOXES = {name: boxes_of(name, ap) for name, ap in (("v1", 0.90), ("v2", 0.95), ("v3", 0.96))}


@pytest.fixture
def detected(commit: Commit) -> list[Record]:
    """Three seeds a row, 0.01 apart; ground truth gains 0.01 more with every seed."""
    rows, records = recipes.table4(), []
    for name, height in HEIGHTS.items():
        step = 0.02 if name == "ground-truth" else 0.01
        records += [scored(rows[name], seed, height + step * seed) for seed in range(3)]
    return commit(records, BOXES)


def test_reference_has_boxes_and_actions(detected: list[Record], commit: Commit) -> None:
    table = tables.reference(4)
    half = T95 * 1 / sqrt(3)  # 30, 31 and 32 %
    assert table.loc["det-v1"].to_dict() == {
        "AVA AP@0.5": "90.00",
        "AVA AP@0.5:0.95": "60.00",
        "AVA mAP@0.5": f"31.00 ± {half:.2f}",
        "Kinetics AP@0.5": "80.00",
        "Kinetics AP@0.5:0.95": "60.00",
        "Kinetics mAP@0.5": f"41.00 ± {half:.2f}",
        "seeds": 3,
    }
    truth = table.loc["GT", ["AVA AP@0.5", "AVA mAP@0.5"]]
    assert truth.tolist() == ["-", f"42.00 ± {2 * half:.2f}"]
    commit([one for one in detected[3:6] if one.experiment["seed"] == 1])
    table = tables.reference(4)
    assert table.loc["det-v2", ["AVA AP@0.5", "AVA mAP@0.5"]].tolist() == ["not run", "32.00"]
    assert table["seeds"].tolist() == [0, 1, 0, 0]


def test_other_scales_backbones_and_uses_do_not_count(commit: Commit) -> None:
    rows = [*recipes.table4(backbone="slowfast-152").values(), recipes.box_uses()["extended"]]
    rows += recipes.table4(scale="smoke").values()
    others = [scored(row, 0, 0.5) for row in rows]
    commit(others, {name: replace(one, scale="smoke") for name, one in BOXES.items()})
    table = tables.reference(4)
    assert table.drop(columns="seeds").isin(["not run", "-"]).all(axis=None)
    assert tables.reference(4, "slowfast-152").loc["det-v1", "AVA mAP@0.5"] == "50.00"


def test_versions_say_what_they_are_trained_on(commit: Commit) -> None:
    commit([], BOXES)
    table = tables.person_boxes()
    assert table.index.tolist() == ["v1", "v2", "v3"]
    full = DETECTOR_SCALES["mini"].iterations
    first, second = (round(full * stage.share) for stage in DETECTORS["v1"])
    assert table.loc["v1", "iterations"] == f"{first} on stills, {second} on ava"
    assert table.loc["v2", ["AVA AP@0.75", "Kinetics AP@0.5"]].tolist() == ["75.00", "85.00"]


def test_boxes_of_a_run_are_measured(detected: list[Record], monkeypatch) -> None:
    measured = []

    def measure(version: str, scale: str, seed: int) -> Record:
        measured.append((version, scale, seed))
        return boxes_of(version, 0.5, scale)

    monkeypatch.setattr(study, "detector_record", measure)
    rows = recipes.table4(scale="smoke")
    runs = {name: scored(rows[name], 0, 0.2) for name in ("v2", "ground-truth")}
    table = tables.beside_paper(runs, table=4)
    assert measured == [("v2", "smoke", 0)]
    assert table["paper"].loc["det-v3", "AVA mAP@0.5"] == "36.41"
    assert table["reference: mini"].loc["det-v2", "AVA AP@0.5"] == "95.00"
    run = table["this run: smoke"]
    assert run.loc["det-v2"].tolist() == ["50.00", "20.00", "40.00", "30.00"]
    assert run.loc["GT"].tolist() == ["-", "20.00", "-", "30.00"]
    assert (run.loc[["det-v1", "det-v3"]] == "not run").all(axis=None)


def test_detectors_are_paired_by_seed(detected: list[Record], commit: Commit) -> None:
    extended = recipes.box_uses()["extended"]
    commit([*detected, *(scored(extended, seed, 0.34 + 0.01 * seed) for seed in (0, 2))])
    table = tables.differences(4)
    comparisons = table.index.get_level_values("comparison").unique().tolist()
    assert comparisons == ["v2 − v1", "v3 − v2", "v3 − v1", "GT − v3", "extended − v3"]
    assert table.loc[("v2 − v1", "AVA")].tolist() == [1, 1, 1, 3]
    half = T95 * 1 / sqrt(3)  # gains of 7, 8 and 9
    assert table.loc[("GT − v3", "A+K")].tolist() == pytest.approx(
        [8, 8 - half, 8 + half, 3], abs=0.01
    )
    assert table.loc[("extended − v3", "Kinetics"), ["gain", "seeds"]].tolist() == [1, 2]


def test_curve_of_ours_ends_at_ground_truth(detected: list[Record], commit: Commit) -> None:
    table = tables.by_detector()
    assert table.loc["AVA", "AP"].tolist() == pytest.approx([90, 95, 96, 100])
    assert table.loc["Kinetics", "AP"].tolist() == pytest.approx([80, 85, 86, 100])
    assert table.loc["AVA", "mAP"].tolist() == pytest.approx([31, 32, 34, 42])
    some = {name: boxes for name, boxes in BOXES.items() if name != "v1"}
    commit([one for one in detected if one.experiment["seed"] == 0], some)
    fewer = tables.by_detector()
    assert fewer.loc["AVA"].index.tolist() == ["v2", "v3", "GT"]  # not measured: not on the axis
    assert fewer["low"].isna().all()


def test_thresholds_have_boxes_and_actions(detected: list[Record], commit: Commit) -> None:
    low, high, used = recipes.THRESHOLDS[0], recipes.THRESHOLDS[-1], 0.35
    uses = recipes.box_uses()
    some = [scored(uses[f"threshold {low}"], seed, 0.3) for seed in range(3)]
    some += [scored(uses[f"threshold {used}"], seed, 0.34) for seed in range(3)]
    commit([*detected, *some], BOXES)
    table = tables.by_threshold()
    assert table.loc["AVA"].index.tolist() == list(average_precision.THRESHOLDS)
    assert set(recipes.THRESHOLDS) < set(average_precision.THRESHOLDS)
    wanted = [100 - 100 * low, 100 * low, 30, 30, 30, 3]
    assert table.loc[("AVA", low)].tolist() == pytest.approx(wanted)
    of_tables = table.loc[("Kinetics", used), ["recall", "mAP", "seeds"]]
    assert of_tables.tolist() == pytest.approx([100 - 100 * used, 44, 3])
    assert table.loc[("AVA", high), ["precision", "mAP"]].isna().all()
    assert table.loc[("AVA", high), "seeds"] == 0
    commit(some[:3])
    without = tables.by_threshold()
    assert without.index.tolist() == [("AVA", low), ("Kinetics", low)]
    assert without["recall"].isna().all()


def test_classes_that_lose_most_come_first(detected: list[Record]) -> None:
    for one in detected:
        boxes, ap = one.experiment["detector"], one.metrics["ava+kinetics"]["AP"]
        if boxes in ("v3", "ground-truth"):
            ap["17"] = 0.2 if boxes == "v3" else 0.5 if one.experiment["seed"] else 0.4
    table = tables.by_class(4)
    assert table.index.tolist() == [17, 12, 80]
    assert table.loc[17, ["gain", "seeds"]].tolist() == pytest.approx([80 / 3, 3])
    assert table.loc[12, "gain"] == pytest.approx(8)
    assert table.loc[80, "group"] == "person"

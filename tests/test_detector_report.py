"""Table 4's report: the paper's numbers, ours, differences by seed, and what thresholds do."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest

from stadlib import recipes, study
from stadlib.base import InputError
from stadlib.evaluation import persons
from stadlib.recipes.experiment import Detections, Experiment
from stadlib.recipes.scales import DETECTOR_SCALES, DETECTORS
from stadlib.report import tables
from stadlib.study import Record, make_record

T95 = 4.3027  # two degrees of freedom
HEIGHTS = {"v1": 0.30, "v2": 0.31, "v3": 0.33, "ground-truth": 0.40}
ACTIONS = {12: 0.0, 17: 0.1, 80: -0.1}


def record(row: Experiment, seed: int, height: float) -> Record:
    """Its mAP on AVA; on Kinetics a tenth more; classes lie round it."""
    metrics = {
        source: {"mAP": mean, "AP": {str(a): mean + more for a, more in ACTIONS.items()}}
        for source, mean in (
            ("ava", height),
            ("kinetics", height + 0.1),
            ("ava+kinetics", height + 0.05),
        )
    }
    return make_record(replace(row, seed=seed), metrics, {"device": "cpu"}, Path("run"))


def measured(version: str, ap: float, scale: str = "mini") -> Record:
    """A detector whose recall falls and whose precision rises with the threshold."""
    quality = {
        "AP@0.5": ap,
        "AP@0.75": ap - 0.2,
        "AP@0.5:0.95": ap - 0.3,
        "recall@0.5": 0.99,
        "thresholds": {
            str(least): {
                "recall": 1 - least,
                "precision": least if least < recipes.THRESHOLDS[-1] else None,
            }
            for least in persons.THRESHOLDS
        },
    }
    metrics = {"ava": quality, "kinetics": {**quality, "AP@0.5": ap - 0.1}}
    return Record({"detector": version}, version, scale, metrics, {})


@pytest.fixture
def committed() -> list[Record]:
    """Three seeds a row, 0.01 apart; ground truth gains 0.01 more with every seed."""
    rows = recipes.table4()
    return [
        record(rows[name], seed, height + 0.01 * seed * (2 if name == "ground-truth" else 1))
        for name, height in HEIGHTS.items()
        for seed in range(3)
    ]


@pytest.fixture
def boxes() -> dict[str, Record]:
    return {name: measured(name, ap) for name, ap in (("v1", 0.90), ("v2", 0.95), ("v3", 0.96))}


def test_the_papers_table_is_as_printed():
    table = tables.paper(4)
    assert table.index.tolist() == list(tables.PAPER_ROWS)
    assert table.loc["det-v2"].tolist() == ["95.1", "36.16", "81.7", "33.84"]
    assert table.loc["GT"].tolist() == ["-", "43.53", "-", "48.49"]
    curve = tables.paper_by_detector()
    assert curve.loc[("AVA", "v1"), ["AP", "mAP"]].tolist() == [94.5, 35.72]
    assert curve.loc[("Kinetics", "GT"), ["AP", "mAP"]].tolist() == [100, 48.49]


def test_reference_has_boxes_and_actions(committed, boxes):
    table = tables.reference(4, records=committed, detectors=boxes)
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
    assert table.loc["GT", "AVA mAP@0.5"] == f"42.00 ± {2 * half:.2f}"
    assert table.loc["GT", "AVA AP@0.5"] == "-"
    few = [r for r in committed if r.experiment["detector"] == "v2" and r.experiment["seed"] == 1]
    table = tables.reference(4, records=few, detectors={})
    assert table.loc["det-v2", ["AVA AP@0.5", "AVA mAP@0.5"]].tolist() == ["not run", "32.00"]
    assert table.loc["det-v3", "Kinetics mAP@0.5"] == "not run"
    assert table["seeds"].tolist() == [0, 1, 0, 0]


def test_other_scales_backbones_and_uses_do_not_count(boxes):
    rows = recipes.table4(scale="smoke") | recipes.table4(backbone="slowfast-152")
    smoke = {name: replace(one, scale="smoke") for name, one in boxes.items()}
    others = [record(row, 0, 0.5) for row in rows.values()]
    others += [record(recipes.table4(scale="smoke")["v3"], 0, 0.5)]
    others += [record(recipes.box_uses()["extended"], 0, 0.5)]
    table = tables.reference(4, records=others, detectors=smoke)
    assert (table.drop(columns="seeds").isin(["not run", "-"])).all(axis=None)
    table = tables.reference(4, records=others, detectors=boxes, backbone="slowfast-152")
    assert table.loc["det-v1", "AVA mAP@0.5"] == "50.00"


def test_versions_say_what_they_are_trained_on(boxes):
    table = tables.person_boxes(boxes)
    assert table.index.tolist() == ["v1", "v2", "v3"]
    full = DETECTOR_SCALES["mini"].iterations
    first, second = (round(full * stage.share) for stage in DETECTORS["v1"])
    assert table.loc["v1", "iterations"] == f"{first} on stills, {second} on ava"
    assert table.loc["v3", "iterations"].endswith(" on ava + kinetics")
    assert table.loc["v2", ["AVA AP@0.75", "Kinetics AP@0.5"]].tolist() == ["75.00", "85.00"]
    assert (tables.person_boxes({}).drop(columns="iterations") == "not run").all(axis=None)


def test_three_kinds_of_numbers_stand_apart(committed, boxes, monkeypatch):
    asked = []

    def look(version: str, scale: str) -> Record:
        asked.append((version, scale))
        return measured(version, 0.5, scale)

    monkeypatch.setattr(study, "detector_record", look)
    rows = recipes.table4(scale="smoke")
    runs = {name: record(rows[name], 0, 0.2) for name in ("v2", "ground-truth")}
    reference = {"records": committed, "detectors": boxes}
    table = tables.beside_paper(runs, table=4, **reference)
    assert asked == [("v2", "smoke")]
    assert table["paper"].loc["det-v3", "AVA mAP@0.5"] == "36.41"
    assert table["reference: mini"].loc["det-v2", "AVA AP@0.5"] == "95.00"
    own = table["this run: smoke"]
    assert own.loc["det-v2"].tolist() == ["50.00", "20.00", "40.00", "30.00"]
    assert own.loc["GT"].tolist() == ["-", "20.00", "-", "30.00"]
    assert (own.loc[["det-v1", "det-v3"]] == "not run").all(axis=None)
    with pytest.raises(InputError, match="mini and smoke in one column"):
        tables.beside_paper(
            {**runs, "v1": committed[0]}, table=4, records=committed, detectors=boxes
        )
    assert "this run" in tables.beside_paper({}, table=4, records=committed, detectors=boxes)


def test_differences_are_paired_by_seed(committed):
    rows = recipes.box_uses()
    extended = [record(rows["extended"], seed, 0.34 + 0.01 * seed) for seed in (0, 2)]
    table = tables.differences(4, records=[*committed, *extended])
    comparisons = table.index.get_level_values("comparison").unique().tolist()
    assert comparisons == ["v2 − v1", "v3 − v2", "v3 − v1", "GT − v3", "extended − v3"]
    assert table.loc[("v2 − v1", "AVA")].tolist() == [1, 1, 1, 3]
    half = round(T95 * 1 / sqrt(3), 2)  # gains of 7, 8 and 9
    gain, low, high, seeds = table.loc[("GT − v3", "A+K")]
    assert (gain, seeds) == (8, 3)
    assert (low, high) == pytest.approx((8 - half, 8 + half), abs=0.01)
    assert table.loc[("extended − v3", "Kinetics"), ["gain", "seeds"]].tolist() == [1, 2]
    assert tables.differences(4, records=[]).empty


def test_curve_of_ours_ends_at_ground_truth(committed, boxes):
    table = tables.by_detector(committed, boxes)
    assert table.loc["AVA", "AP"].tolist() == pytest.approx([90, 95, 96, 100])
    assert table.loc["Kinetics", "AP"].tolist() == pytest.approx([80, 85, 86, 100])
    assert table.loc["AVA", "mAP"].tolist() == pytest.approx([31, 32, 34, 42])
    del boxes["v1"]  # not measured: no place on the axis
    fewer = tables.by_detector([r for r in committed if r.experiment["seed"] == 0], boxes)
    assert fewer.loc["AVA"].index.tolist() == ["v2", "v3", "GT"]
    assert fewer["low"].isna().all()
    assert tables.by_detector([], boxes).empty


def test_thresholds_have_boxes_and_actions(committed, boxes):
    rows = recipes.box_uses()
    low, high, used = recipes.THRESHOLDS[0], recipes.THRESHOLDS[-1], Detections().threshold
    some = [record(rows[f"threshold {low}"], seed, 0.3) for seed in range(3)]
    table = tables.by_threshold([*committed, *some], boxes)
    assert table.loc["AVA"].index.tolist() == list(persons.THRESHOLDS)
    assert set(recipes.THRESHOLDS) < set(persons.THRESHOLDS)
    wanted = [100 - 100 * low, 100 * low, 30, 30, 30, 3]
    assert table.loc[("AVA", low)].tolist() == pytest.approx(wanted)
    of_tables = table.loc[("Kinetics", used), ["recall", "mAP", "seeds"]]
    assert of_tables.tolist() == pytest.approx([100 - 100 * used, 44, 3])
    assert table.loc[("AVA", high), ["precision", "mAP"]].isna().all()
    assert table.loc[("AVA", high), "seeds"] == 0
    without = tables.by_threshold(some, {})
    assert without.index.tolist() == [("AVA", low), ("Kinetics", low)]
    assert without["recall"].isna().all()
    assert tables.by_threshold([], {}).empty


def test_classes_that_lose_most_come_first(committed):
    rows = recipes.table4()
    for seed in range(3):
        for name, ap in (("v3", 0.2), ("ground-truth", 0.5 if seed else 0.4)):
            (mine,) = (r for r in committed if r.digest == replace(rows[name], seed=seed).digest)
            mine.metrics["ava+kinetics"]["AP"]["17"] = ap
    table = tables.by_class(4, records=committed)
    assert table.index.tolist() == [17, 12, 80]
    assert table.loc[17, ["gain", "seeds"]].tolist() == pytest.approx([80 / 3, 3])
    assert table.loc[12, "gain"] == pytest.approx(8)
    assert table.loc[80, "group"] == "person"
    assert tables.by_class(4, records=[]).empty

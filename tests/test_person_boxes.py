"""Quality of person boxes: COCO's AP against its definition, recall and precision by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stadlib.base import ConfigError
from stadlib.cli import main
from stadlib.data.boxes import read_person_boxes
from stadlib.data.rows import COLUMNS, NO_LABEL
from stadlib.evaluation.average_precision import THRESHOLDS, person_ap, quality
from stadlib.study import detector_record

LEFT, RIGHT, NOWHERE = (0.1, 0.1, 0.3, 0.9), (0.6, 0.1, 0.9, 0.9), (0.4, 0.0, 0.5, 0.1)
NEARLY, BESIDE = (0.1, 0.1, 0.31, 0.9), (0.2, 0.1, 0.4, 0.9)  # IoU with LEFT: 0.95 and 1/3


def truth(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame([("v", *row) for row in rows], columns=list(COLUMNS))


def boxes(*rows: tuple) -> pd.DataFrame:
    columns = [name for name in COLUMNS if name != "action_id"]
    return pd.DataFrame([("v", *row) for row in rows], columns=columns)


TRUTH = truth(
    (1.0, *LEFT, 12, 0), (1.0, *LEFT, 80, 0),  # one person, two actions
    (1.0, *RIGHT, 12, 1), (2.0, *LEFT, 11, 0), (3.0, *[None] * 4, NO_LABEL, 0),
)  # fmt: skip
FOUND = boxes(
    (9.0, *LEFT, 0.97),  # a second that ground truth does not name counts for nothing
    (1.0, *LEFT, 0.92),
    (2.0, *BESIDE, 0.82),
    (1.0, *NOWHERE, 0.72),
    (3.0, *RIGHT, 0.62),  # a second that is named as empty counts
    (1.0, *RIGHT, 0.32),
    (1.0, *NEARLY, 0.12),  # a person who was found already
)


def iou(a: tuple, b: tuple) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def by_definition(persons: dict, found: list[tuple[int, tuple, float]], threshold: float) -> float:
    """From the highest score down, each box takes the best free person; 101 points of recall."""
    taken, right = set(), []
    for keyframe, box, _ in sorted(found, key=lambda entry: -entry[2]):
        free = [
            (iou(box, person), place)
            for place, person in enumerate(persons.get(keyframe, []))
            if (keyframe, place) not in taken
        ]
        best, place = max(free, default=(0.0, -1))
        right.append(best >= threshold)
        taken |= {(keyframe, place)} if right[-1] else set()
    recall = np.cumsum(right) / sum(map(len, persons.values()))
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    reached = [precision[recall >= r - 1e-12] for r in np.linspace(0, 1, 101)]
    return float(np.mean([p.max() if len(p) else 0.0 for p in reached]))


def test_equals_the_definition():
    rng = np.random.default_rng(0)
    persons: dict[int, list[tuple]] = {}
    found: list[tuple[int, tuple, float]] = []
    for keyframe in range(40):
        for _ in range(rng.integers(1, 4)):
            corner = rng.random(2) * 0.6
            person = (*corner, *(corner + 0.2 + 0.2 * rng.random(2)))
            persons.setdefault(keyframe, []).append(person)
            for _ in range(rng.integers(0, 3)):
                moved = tuple(np.array(person) + 0.03 * rng.normal(size=4))
                found.append((keyframe, moved, float(rng.random())))
    rows = [(k, *person, 12, 1.0) for k, people in persons.items() for person in people]
    ap = person_ap(truth(*rows), boxes(*((k, *box, score) for k, box, score in found)))
    expected = [by_definition(persons, found, least) for least in np.linspace(0.5, 0.95, 10)]
    assert ap["AP@0.5"] == pytest.approx(expected[0], abs=1e-9)
    assert ap["AP@0.75"] == pytest.approx(expected[5], abs=1e-9)
    assert ap["AP@0.5:0.95"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert 0 < ap["AP@0.5:0.95"] < ap["AP@0.5"] < 1


def test_a_person_is_one_box_whatever_the_actions():
    once = boxes((1.0, *LEFT, 0.9), (1.0, *RIGHT, 0.8), (2.0, *LEFT, 0.8))
    ap = person_ap(TRUTH, once)
    assert ap["AP@0.5:0.95"] == pytest.approx(1.0)
    assert (ap["persons"], ap["boxes"]) == (3, 3)
    each_action = [once.assign(action_id=action, score=once["score"] / action) for action in (1, 2)]
    assert person_ap(TRUTH, pd.concat(each_action)) == ap


def test_no_box_and_no_person():
    report = quality(TRUTH, FOUND.iloc[:0])
    assert report["AP@0.5"] == 0
    assert set(map(str, report["thresholds"].values())) == {"{'recall': 0.0, 'precision': None}"}
    assert np.isnan(person_ap(truth(), FOUND)["AP@0.5"])


def test_numbers_of_a_small_example():
    report = quality(TRUTH, FOUND)
    assert (report["persons"], report["boxes"]) == (3, 6)
    by_hand = {  # hits, boxes
        0.1: (2, 6), 0.15: (2, 5), 0.3: (2, 5), 0.35: (1, 4), 0.6: (1, 4), 0.65: (1, 3),
        0.75: (1, 2), 0.85: (1, 1), 0.9: (1, 1),
    }  # fmt: skip
    for least, (hits, taken) in by_hand.items():
        point = report["thresholds"][str(least)]
        assert point == pytest.approx({"recall": hits / 3, "precision": hits / taken})
    assert report["thresholds"]["0.95"] == {"recall": 0.0, "precision": None}
    assert [*report["thresholds"]] == [str(least) for least in THRESHOLDS]
    # 101 points of recall: 0 to 0.33 at precision 1, to 0.66 at 2 of 5, none further.
    assert report["AP@0.5"] == pytest.approx((34 * 1 + 33 * 2 / 5) / 101)
    assert report["recall@0.5"] == pytest.approx(2 / 3)


def test_the_command_reads_files_of_boxes_and_of_actions(tmp_path, capsys):
    (tmp_path / "gt.csv").write_text("v,0902,0.1,0.1,0.5,0.9,12,0\n")
    words = ["evaluate", "--groundtruth", str(tmp_path / "gt.csv"), "--detections"]
    for name, action in (("boxes", ""), ("actions", "12")):
        path = tmp_path / f"{name}.csv"
        path.write_text(f"v,902,0.1,0.1,0.5,0.9,{action},0.97\n")
        assert main([*words, str(path), "--persons"]) == 0
        assert "AP@0.5:0.95: 100.00 %" in capsys.readouterr().out
    assert main([*words, str(path)]) == 1
    assert "--labels is missing" in capsys.readouterr().err


def test_real_boxes_of_a_public_detector(shared):
    real = read_person_boxes(shared / "data/ava/ava_val_predicted_boxes.zC5Fh2tTS1U_1775-1798.csv")
    ap = person_ap(real.assign(action_id=12), real)
    assert ap["AP@0.5:0.95"] == pytest.approx(1.0)
    assert ap["persons"] == len(real.drop_duplicates(["timestamp", "x1", "y1", "x2", "y2"]))


def test_a_version_is_measured_once():
    record = detector_record("v1", "smoke")
    assert {*record.metrics} == {"ava", "kinetics"} and record.experiment["detector"] == "v1"
    (path,) = record.folder.glob(f"v1_smoke_seed0-{record.digest}.json")
    before = path.stat().st_mtime_ns
    again = detector_record("v1", "smoke")
    assert path.stat().st_mtime_ns == before
    assert (again.metrics, again.experiment) == (record.metrics, record.experiment)
    for report in record.metrics.values():
        recalls = [report["thresholds"][str(least)]["recall"] for least in THRESHOLDS]
        assert report["persons"] > 0
        assert recalls == sorted(recalls, reverse=True) and recalls[0] <= 1
    with pytest.raises(ConfigError, match="detector='v0'; choose from v1, v2, v3"):
        detector_record("v0", "smoke")

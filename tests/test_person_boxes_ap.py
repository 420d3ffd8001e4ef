"""COCO's AP of person boxes against its definition, one box at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stadlib.cli import main
from stadlib.data.rows import COLUMNS, NO_LABEL
from stadlib.evaluation.persons import person_ap

BOX = (0.1, 0.1, 0.5, 0.9)


def frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))


def iou(a: tuple, b: tuple) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def by_definition(truth: dict, found: list[tuple[int, tuple, float]], threshold: float) -> float:
    """From the highest score down, each box takes the best free person; 101 points of recall."""
    taken, right = set(), []
    for keyframe, box, _ in sorted(found, key=lambda entry: -entry[2]):
        free = [
            (iou(box, person), place)
            for place, person in enumerate(truth.get(keyframe, []))
            if (keyframe, place) not in taken
        ]
        best, place = max(free, default=(0.0, -1))
        right.append(best >= threshold)
        taken |= {(keyframe, place)} if right[-1] else set()
    total = sum(map(len, truth.values()))
    recall = np.cumsum(right) / total
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    reached = [precision[recall >= r - 1e-12] for r in np.linspace(0, 1, 101)]
    return float(np.mean([p.max() if len(p) else 0.0 for p in reached]))


def test_equals_the_definition():
    rng = np.random.default_rng(0)
    truth: dict[int, list[tuple]] = {}
    found: list[tuple[int, tuple, float]] = []
    for keyframe in range(40):
        for _ in range(rng.integers(1, 4)):
            corner = rng.random(2) * 0.6
            person = (*corner, *(corner + 0.2 + 0.2 * rng.random(2)))
            truth.setdefault(keyframe, []).append(person)
            for _ in range(rng.integers(0, 3)):
                moved = tuple(np.array(person) + 0.03 * rng.normal(size=4))
                found.append((keyframe, moved, float(rng.random())))
    rows = [("v", k, *person, 12, 1.0) for k, people in truth.items() for person in people]
    guesses = [("v", k, *box, 0, score) for k, box, score in found]
    ap = person_ap(frame(rows), frame(guesses))
    thresholds = np.linspace(0.5, 0.95, 10)
    expected = [by_definition(truth, found, threshold) for threshold in thresholds]
    assert ap["AP@0.5"] == pytest.approx(expected[0], abs=1e-9)
    assert ap["AP@0.75"] == pytest.approx(expected[5], abs=1e-9)
    assert ap["AP@0.5:0.95"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert 0 < ap["AP@0.5:0.95"] < ap["AP@0.5"] < 1


def test_a_person_is_one_box_whatever_it_does():
    truth = frame([("v", 1, *BOX, 12, 7.0), ("v", 1, *BOX, 80, 7.0), ("v", 2, *BOX, 14, 8.0)])
    once = [("v", 1, *BOX, 0, 0.9), ("v", 2, *BOX, 0, 0.8)]
    ap = person_ap(truth, frame(once))
    assert ap["AP@0.5:0.95"] == pytest.approx(1.0)
    assert (ap["persons"], ap["boxes"]) == (2, 2)
    each_action = frame([(*row[:6], action, row[7] / action) for row in once for action in (1, 2)])
    assert person_ap(truth, each_action) == ap


def test_unnamed_keyframes_are_ignored_and_empty_ones_count():
    truth = frame([("v", 1, *BOX, 12, 1.0), ("v", 2, *[np.nan] * 4, NO_LABEL, 1.0)])
    right = ("v", 1, *BOX, 0, 0.5)
    assert person_ap(truth, frame([right, ("v", 3, *BOX, 0, 0.9)]))["AP@0.5"] == pytest.approx(1)
    assert person_ap(truth, frame([right, ("v", 2, *BOX, 0, 0.9)]))["AP@0.5"] == pytest.approx(0.5)


def test_nobody_found_and_nobody_there():
    truth = frame([("v", 1, *BOX, 12, 1.0)])
    assert person_ap(truth, frame([]))["AP@0.5"] == 0
    assert np.isnan(person_ap(frame([]), truth)["AP@0.5"])


def test_the_command_reads_files_of_boxes_and_of_actions(tmp_path, capsys):
    (tmp_path / "gt.csv").write_text("v,0902,0.1,0.1,0.5,0.9,12,0\n")
    (tmp_path / "boxes.csv").write_text("v,902,0.1,0.1,0.5,0.9,,0.97\n")
    (tmp_path / "actions.csv").write_text("v,902,0.1,0.1,0.5,0.9,12,0.97\n")
    for name in ("boxes", "actions"):
        words = ["evaluate", "--persons", "--groundtruth", str(tmp_path / "gt.csv")]
        assert main([*words, "--detections", str(tmp_path / f"{name}.csv")]) == 0
        assert "AP@0.5:0.95: 100.00 %" in capsys.readouterr().out
    assert main([*words[:1], *words[2:], "--detections", str(tmp_path / "actions.csv")]) == 1
    assert "--labels is missing" in capsys.readouterr().err


def test_real_boxes_of_a_public_detector(shared):
    """Predicted boxes of one AVA movie, without ground truth for its seconds: read, none counts."""
    from stadlib.data.boxes import read_person_boxes

    boxes = read_person_boxes(shared / "data/ava/ava_val_predicted_boxes.zC5Fh2tTS1U_1775-1798.csv")
    as_truth = boxes.assign(action_id=12)
    found = person_ap(as_truth, boxes)
    assert found["AP@0.5:0.95"] == pytest.approx(1.0)
    assert found["persons"] == len(boxes.drop_duplicates(["timestamp", "x1", "y1", "x2", "y2"]))

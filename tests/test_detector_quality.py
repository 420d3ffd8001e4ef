"""Recall and precision of person boxes by their least score, and AP, computed by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from stadlib.base import ConfigError
from stadlib.data.rows import COLUMNS, NO_LABEL
from stadlib.evaluation.persons import THRESHOLDS, quality
from stadlib.study import detector_record

LEFT, RIGHT, NOWHERE = (0.1, 0.1, 0.3, 0.9), (0.6, 0.1, 0.9, 0.9), (0.4, 0.0, 0.5, 0.1)
NEARLY, BESIDE = (0.1, 0.1, 0.31, 0.9), (0.2, 0.1, 0.4, 0.9)  # IoU with LEFT: 0.95 and 1/3


def truth(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))


def boxes(*rows: tuple) -> pd.DataFrame:
    columns = [name for name in COLUMNS if name != "action_id"]
    return pd.DataFrame(rows, columns=columns)


TRUTH = truth(
    ("v", 1.0, *LEFT, 12, 0), ("v", 1.0, *LEFT, 80, 0),  # one person, two actions
    ("v", 1.0, *RIGHT, 12, 1), ("v", 2.0, *LEFT, 11, 0), ("v", 3.0, *[None] * 4, NO_LABEL, 0),
)  # fmt: skip
FOUND = boxes(
    ("v", 9.0, *LEFT, 0.97),  # a second that ground truth does not name counts for nothing
    ("v", 1.0, *LEFT, 0.92),
    ("v", 2.0, *BESIDE, 0.82),
    ("v", 1.0, *NOWHERE, 0.72),
    ("v", 3.0, *RIGHT, 0.62),  # a second that is named as empty counts
    ("v", 1.0, *RIGHT, 0.32),
    ("v", 1.0, *NEARLY, 0.12),  # somebody who was found already
)


def test_numbers_of_a_small_example():
    found = quality(TRUTH, FOUND)
    assert (found["persons"], found["boxes"]) == (3, 6)
    by_hand = {  # hits, boxes
        0.1: (2, 6), 0.15: (2, 5), 0.3: (2, 5), 0.35: (1, 4), 0.6: (1, 4), 0.65: (1, 3),
        0.75: (1, 2), 0.85: (1, 1), 0.9: (1, 1),
    }  # fmt: skip
    for least, (hits, taken) in by_hand.items():
        point = found["thresholds"][str(least)]
        assert point["recall"] == pytest.approx(hits / 3)
        assert point["precision"] == pytest.approx(hits / taken)
    assert found["thresholds"]["0.95"] == {"recall": 0.0, "precision": None}
    assert [*found["thresholds"]] == [str(least) for least in THRESHOLDS]
    # 101 points of recall: 0 to 0.33 at precision 1, to 0.66 at 2 of 5, none further.
    assert found["AP@0.5"] == pytest.approx((34 * 1 + 33 * 2 / 5) / 101)
    assert found["recall@0.5"] == pytest.approx(2 / 3)


def test_a_perfect_detector_has_recall_and_precision_1_up_to_its_scores():
    exact = TRUTH.dropna().drop_duplicates(["timestamp", "x1"]).assign(score=0.5)
    found = quality(TRUTH, exact.drop(columns="action_id"))
    for least in THRESHOLDS:
        expected = (1.0, 1.0) if least <= 0.5 else (0.0, None)
        point = found["thresholds"][str(least)]
        assert (point["recall"], point["precision"]) == expected
    assert found["AP@0.5:0.95"] == pytest.approx(1)


def test_no_box_at_all():
    found = quality(TRUTH, FOUND.iloc[:0])
    assert found["AP@0.5"] == 0
    assert set(map(str, found["thresholds"].values())) == {"{'recall': 0.0, 'precision': None}"}


def test_a_version_is_measured_once():
    record = detector_record("v1", "smoke")
    assert {*record.metrics} == {"ava", "kinetics"} and record.experiment["detector"] == "v1"
    (path,) = record.folder.glob(f"v1_smoke-{record.digest}.json")
    before = path.stat().st_mtime_ns
    again = detector_record("v1", "smoke")
    assert path.stat().st_mtime_ns == before
    assert (again.metrics, again.experiment) == (record.metrics, record.experiment)
    for found in record.metrics.values():
        recalls = [found["thresholds"][str(least)]["recall"] for least in THRESHOLDS]
        assert found["persons"] > 0
        assert recalls == sorted(recalls, reverse=True) and recalls[0] <= 1
    with pytest.raises(ConfigError, match="detector='v0'; choose from v1, v2, v3"):
        detector_record("v0", "smoke")

"""Detected persons in the place of annotated ones, and beside them."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stadlib.base import InputError
from stadlib.data.boxes import BOX_COLUMNS, write_person_boxes
from stadlib.data.keyframes import (
    CONFIDENT,
    OTHER,
    SAME,
    Keyframe,
    detected_keyframes,
    detected_seconds,
    detections,
    read_keyframes,
    with_confident,
)
from stadlib.data.layout import AvaLayout

MOMENTS = [("a", 902.0), ("b", 901.0), ("c", 5.016949), ("c", 6.5), ("c", 4.0)]


@pytest.fixture
def layout(tiny_dataset, tmp_path) -> AvaLayout:
    return AvaLayout(shutil.copytree(tiny_dataset, tmp_path / "own"))


def write(layout: AvaLayout, rows: list[tuple], source="kinetics", split="val") -> None:
    boxes = pd.DataFrame(rows, columns=list(BOX_COLUMNS))
    write_person_boxes(boxes, layout.person_boxes("v1", source, split))


def row(video: str, timestamp: float, score: float, left: float = 0.1) -> tuple:
    return video, timestamp, left, 0.2, left + 0.3, 0.9, score


def lefts(keyframe: Keyframe) -> list[float]:
    return [round(float(x), 4) for x in keyframe.boxes[:, 0]]


row_of = st.tuples(st.sampled_from(MOMENTS), st.integers(0, 20), st.integers(0, 60)).map(
    lambda d: row(*d[0], d[1] / 20, d[2] / 100)
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(row_of, max_size=12), st.integers(0, 20).map(lambda k: k / 20))
def test_whoever_reaches_the_threshold_is_there_the_highest_score_first(layout, rows, threshold):
    write(layout, rows)
    found = detected_seconds(layout, "kinetics", "val", "v1", threshold)
    expected: dict[tuple, list] = {}
    for video, timestamp, left, *_, score in rows:
        if score >= threshold:
            expected.setdefault((video, timestamp), []).append((-score, left))
    assert [(k.video, k.timestamp) for k in found] == sorted(expected)
    for keyframe in found:
        own = sorted(expected[keyframe.video, keyframe.timestamp], key=lambda entry: entry[0])
        assert lefts(keyframe) == [round(left, 4) for _, left in own]  # equal scores as in the file
        count = len(own)
        assert keyframe.boxes.dtype == np.float32
        assert keyframe.actions.shape == (count, 60) and not keyframe.actions.any()
        assert keyframe.person_ids.tolist() == [-1] * count and keyframe.source == "kinetics"


def test_annotated_moments_in_the_order_of_their_file_two_column_ones_included(layout):
    """Not in the detector's order, and without the seconds that nobody annotated."""
    annotations = layout.annotations("kinetics", "val")
    annotations.write_text("c,6.500000\nc,7.000000\nc,5.016949,0.3,0.4,0.6,0.9,11\n")
    write(layout, [row("c", 5.016949, 0.9), row("c", 4.0, 0.9), row("c", 6.5, 0.6),
                   row("c", 6.5, 0.8, 0.4), row("c", 5.016949, 0.2)])  # fmt: skip
    found = detected_keyframes(layout, "kinetics", "val", "v1", 0.5)
    assert [(k.timestamp, lefts(k)) for k in found] == [(6.5, [0.4, 0.1]), (5.016949, [0.1])]
    assert not any(k.actions.any() for k in found)


def test_where_nobody_was_found_there_is_no_keyframe(layout):
    write(layout, [row("c", 5.016949, 0.49)])
    assert detected_keyframes(layout, "kinetics", "val", "v1", 0.5) == []
    assert detected_seconds(layout, "kinetics", "val", "v1", 0.5) == []
    write(layout, [])
    assert detected_keyframes(layout, "kinetics", "val", "v1", 0.0) == []


def test_excluded_moments_are_left_out(layout):
    write(layout, [row("a", 902.0, 0.9), row("a", 903.0, 0.9)], "ava", "train")
    found = detected_keyframes(layout, "ava", "train", "v1", 0.5)
    assert [k.timestamp for k in found] == [902.0]


def test_without_a_box_file_there_is_an_answer(layout):
    with pytest.raises(InputError, match=r"boxes/v1_ava_val\.csv: no such file"):
        detected_keyframes(layout, "ava", "val", "v1", 0.5)


# ------------------------------------------------------------------------------- beside annotated


def shifted(box: np.ndarray, iou: float) -> list[float]:
    """The box moved to the right until it overlaps itself by ``iou``."""
    width = box[2] - box[0]
    move = width * (1 - iou) / (1 + iou)
    return [float(v) for v in box + np.array([move, 0, move, 0])]


def test_a_confident_detection_on_a_person_takes_its_actions_and_a_doubtful_one_is_left_out(layout):
    persons = "a,0902,0.1,0.2,0.5,0.9,12,0\na,0902,0.4,0.1,0.9,0.8,80,1\n"
    layout.annotations("ava", "train").write_text(persons)
    (keyframe,) = read_keyframes(layout, "ava", "train")
    one, other = keyframe.boxes
    assert keyframe.actions.any(axis=1).all() and not np.array_equal(*keyframe.actions)
    rows = [
        ("a", 902.0, *shifted(other, SAME + 0.01), 0.99),
        ("a", 902.0, *shifted(one, SAME + 0.01), 0.98),
        ("a", 902.0, *shifted(one, SAME - 0.01), 0.97),
        ("a", 902.0, *shifted(other, OTHER + 0.01), 0.96),
        ("a", 902.0, *shifted(other, OTHER - 0.01), 0.95),
        ("a", 902.0, 0.0, 0.0, 0.05, 0.05, CONFIDENT),
        ("a", 902.0, *one, CONFIDENT - 0.01),
    ]
    write(layout, rows, "ava", "train")
    found = detections(layout, "ava", "train", "v1", CONFIDENT)
    (mixed,) = with_confident([keyframe], found)
    added = [rows[number][2:6] for number in (0, 1, 4, 5)]
    assert np.array_equal(mixed.boxes[:2], keyframe.boxes)
    np.testing.assert_allclose(mixed.boxes[2:], added, atol=1e-6)
    assert np.array_equal(mixed.actions[:4], keyframe.actions[[0, 1, 1, 0]])
    assert not mixed.actions[4:].any()
    assert mixed.person_ids.tolist() == [*keyframe.person_ids, -1, -1, -1, -1]
    assert (mixed.video, mixed.timestamp) == (keyframe.video, keyframe.timestamp)
    write(layout, rows[2:4], "ava", "train")  # nothing but doubt
    found = detections(layout, "ava", "train", "v1", CONFIDENT)
    (mixed,) = with_confident([keyframe], found)
    assert np.array_equal(mixed.boxes, keyframe.boxes)


def test_keyframes_without_a_person_or_a_detection_stay_as_they_are(layout):
    write(layout, [row("c", 6.5, 0.95), row("c", 4.0, 0.95)])
    keyframes = read_keyframes(layout, "kinetics", "val")
    mixed = with_confident(keyframes, detections(layout, "kinetics", "val", "v1", CONFIDENT))
    assert len(mixed) == 2 and all(a is b for a, b in zip(mixed, keyframes, strict=True))

"""Keyframes: annotated rows without loss, detected persons, and every second of a video."""

from __future__ import annotations

import csv
import math
import random
import shutil
from collections import defaultdict
from pathlib import Path

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
    every_second,
    meeting_threshold,
    moments,
    read_annotation_file,
    read_annotations,
    read_keyframes,
    require_agreement,
    with_confident,
)
from stadlib.data.layout import AVA_ACTIONS, AvaLayout, LabelMap, read_label_map
from stadlib.training.memory import one_a_second, second_key, view_key

LABELS = LabelMap(AVA_ACTIONS)
GOOD = "v,0902,0.1,0.2,0.5,0.9,12,0"


@pytest.fixture
def layout(tiny_dataset, tmp_path) -> AvaLayout:
    return AvaLayout(shutil.copytree(tiny_dataset, tmp_path / "own"))


# ------------------------------------------------------------------------------------- annotated


def read(tmp_path: Path, *lines: str) -> list[Keyframe]:
    path = tmp_path / "rows.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return read_annotation_file(path, LABELS, "ava")


def actions_of(keyframe: Keyframe, person: int) -> list[int]:
    return [LABELS.ids[c] for c in np.flatnonzero(keyframe.actions[person])]


def assert_as_row_by_row(keyframes: list[Keyframe], path: Path) -> None:
    """The oracle reads one row after the other."""
    expected: dict = defaultdict(dict)
    with path.open() as file:
        for words in csv.reader(file):
            persons = expected[words[0], f"{float(words[1]):.6f}"]
            if len(words) > 2:
                box = tuple(np.array(words[2:6], np.float32).tolist())
                persons.setdefault(box, set()).add(int(words[6]))
    assert [k.moment for k in keyframes] == list(expected)
    for keyframe, persons in zip(keyframes, expected.values(), strict=True):
        assert list(map(tuple, keyframe.boxes.tolist())) == list(persons)
        for person, ids in enumerate(persons.values()):
            assert actions_of(keyframe, person) == sorted(ids & set(LABELS.ids))


def test_rows_of_one_box_are_one_person(tmp_path):
    lines = [GOOD, "v,902,0.6,0.2,0.9,0.9,14,1", "v,902.0,0.10,0.20,0.50,0.90,80,0", "v,0903"]
    first, second = read(tmp_path, *lines)
    assert first.key == "v,902.000000" and second.key == "v,903.000000"
    assert first.boxes.dtype == np.float32 and first.boxes.shape == (2, 4)
    assert actions_of(first, 0) == [12, 80] and actions_of(first, 1) == [14]
    assert first.person_ids.tolist() == [0, 1] and first.person_ids.dtype == np.int64
    assert second.boxes.shape == (0, 4) and second.actions.shape == (0, 60)


def test_other_classes_make_a_person_and_scores_are_no_ids(tmp_path):
    lines = ["v,1,0.1,0.2,0.5,0.9,2", "v,1,0.6,0.2,0.9,0.9,12,1.0000"]
    (keyframe,) = read(tmp_path, *lines)
    assert not keyframe.actions[0].any() and actions_of(keyframe, 1) == [12]
    assert keyframe.person_ids.tolist() == [-1, -1]
    (tmp_path / "own.csv").write_text("v,1,0.1,0.2,0.5,0.9,90\n")  # a class beyond AVA's
    (keyframe,) = read_annotation_file(tmp_path / "own.csv", LabelMap({90: "juggle"}), "ava")
    assert keyframe.actions.tolist() == [[True]]


def test_fractional_timestamps_stay_apart(tmp_path):
    keyframes = read(tmp_path, "v,5.016949", "v,5.016950", "v,5", "v,0005.016949")
    assert [k.timestamp for k in keyframes] == [5.016949, 5.01695, 5.0]


def test_shuffled_rows_agree_with_the_oracle(tmp_path):
    rng = random.Random(0)
    lines = []
    for _ in range(400):
        box = rng.choice(["0.1,0.2,0.5,0.9", "0.3,0.2,0.50,0.9", "0.300,0.2,0.5,0.9"])
        place = f"{rng.choice('abc')},{rng.choice(['0902', '902.5', '903', '902'])}"
        lines.append(rng.choice([place, f"{place},{box},{rng.randint(1, 80)}"]))
    assert_as_row_by_row(read(tmp_path, *lines), tmp_path / "rows.csv")


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"rows\.csv:1: timestamp"):
        read(tmp_path, "v,x", GOOD, "v,0902,0.9,0.2,0.3,0.9,12", "v", "v,0902,2,2,1,1,99")
    rows, problems = read_annotations(tmp_path / "rows.csv", LABELS, math.inf)
    assert [row for row, _ in sorted(problems.rows)] == [1, 3, 4, 5]
    assert rows["row"].tolist() == [2]
    with pytest.raises(InputError, match=r"rows\.csv: empty file; add"):
        read(tmp_path)


def test_excluded_timestamps_are_left_out(tiny_dataset):
    keyframes = read_keyframes(AvaLayout(tiny_dataset), "ava", "train")
    assert [k.key for k in keyframes] == ["a,902.000000"]
    assert actions_of(keyframes[0], 0) == [12, 80] and not keyframes[0].actions[1].any()


@pytest.mark.parametrize(
    ("other", "fine"),
    [
        ("v,0902,0.1,0.2,0.5,0.9,12", True),
        ("w,0902,0.1,0.2,0.6,0.9,12", True),
        ("v,0902,0.1,0.2,0.6,0.9,12", False),
        ("v,0902,0.1,0.2,0.5,0.9,14", False),
    ],
)
def test_two_files_must_not_contradict_each_other(layout, other, fine):
    layout.annotations("ava", "train").write_text(f"u,0902\n{GOOD}\n")
    layout.annotations("ava", "val").write_text(f"{other}\n")
    if fine:
        require_agreement(layout, "ava")
        return
    with pytest.raises(InputError, match=r"ava_val_v2.2.csv:1: keyframe v,902.0.* keep") as caught:
        require_agreement(layout, "ava")
    assert "ava_train_v2.2.csv:2" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "has_ids", "counts"),
    [
        ("kinetics_val_v1.0.csv", False, (73_845, 31_272)),
        ("ava_val_v2.2.1j20qq1JyX4_0902-1014.csv", True, (341, 110)),
        ("slowfast_predictions.1j20qq1JyX4.groundtruth.csv", False, (555, 215)),
    ],
)
def test_real_files(shared, name, has_ids, counts):
    path = shared / "data" / "ava" / name
    label_map = read_label_map(path.with_name("ava_action_list_v2.2_for_activitynet_2019.pbtxt"))
    rows, problems = read_annotations(path, label_map)
    keyframes = read_annotation_file(path, label_map, "ava")
    assert (len(rows), len(keyframes)) == counts and not problems.rows
    assert_as_row_by_row(keyframes, path)
    assert {bool(i >= 0) for k in keyframes for i in k.person_ids} == {has_ids}


# -------------------------------------------------------------------------------------- detected

MOMENTS = [("a", 902.0), ("b", 901.0), ("c", 5.016949), ("c", 6.5), ("c", 4.0)]


def write(layout: AvaLayout, rows: list[tuple], source="kinetics", split="val", by="v1") -> None:
    boxes = pd.DataFrame(rows, columns=list(BOX_COLUMNS))
    write_person_boxes(boxes, layout.person_boxes(by, source, split))


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
def test_boxes_from_the_threshold_on_highest_score_first(layout, rows, threshold):
    write(layout, rows)
    expected: dict[tuple, list] = {}
    for video, timestamp, left, *_, score in rows:
        if score >= threshold:
            expected.setdefault((video, timestamp), []).append((-score, left))
    keyframes = detected_seconds(layout, "kinetics", "val", "v1", threshold)
    assert [(k.video, k.timestamp) for k in keyframes] == sorted(expected)
    for keyframe in keyframes:
        own = sorted(expected[keyframe.video, keyframe.timestamp], key=lambda entry: entry[0])
        assert lefts(keyframe) == [round(left, 4) for _, left in own]  # equal scores as in the file
        count = len(own)
        assert keyframe.boxes.dtype == np.float32
        assert keyframe.actions.shape == (count, 60) and not keyframe.actions.any()
        assert keyframe.person_ids.tolist() == [-1] * count and keyframe.source == "kinetics"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(row_of, max_size=30, unique_by=lambda r: (*r[:3], r[-1])), st.integers(1, 9))
def test_precision_and_recall_meet_where_boxes_are_as_many_as_persons(layout, rows, persons):
    lines = [f"{MOMENTS[0][0]},{MOMENTS[0][1]},{n / 100},0.2,0.99,0.9,12" for n in range(persons)]
    layout.annotations("kinetics", "val").write_text("\n".join(lines) + "\n")
    write(layout, rows)
    threshold = meeting_threshold(layout, ["kinetics"], "v1")
    scores = sorted((r[-1] for r in rows if r[:2] == MOMENTS[0]), reverse=True)
    if len(scores) <= persons:
        assert threshold == min(scores, default=0.0)
    else:
        kept = [score for score in scores if score >= threshold]
        assert len(kept) >= persons and kept[persons - 1] == threshold


def test_a_threshold_needs_validation_persons(layout):
    layout.annotations("kinetics", "val").write_text("a,902\n")
    write(layout, [row(*MOMENTS[0], 0.1)])
    with pytest.raises(InputError, match="no validation person; give a least score"):
        meeting_threshold(layout, ["kinetics"], "v1")


def test_detected_keyframes_are_the_annotated_ones_in_the_order_of_their_file(layout):
    """Not in the detector's order; two-column ones are included, other seconds are not."""
    annotations = layout.annotations("kinetics", "val")
    annotations.write_text("c,6.500000\nc,7.000000\nc,5.016949,0.3,0.4,0.6,0.9,11\n")
    write(layout, [row("c", 5.016949, 0.9), row("c", 4.0, 0.9), row("c", 6.5, 0.6),
                   row("c", 6.5, 0.8, 0.4), row("c", 5.016949, 0.2)])  # fmt: skip
    keyframes = detected_keyframes(layout, "kinetics", "val", "v1", 0.5)
    assert [(k.timestamp, lefts(k)) for k in keyframes] == [(6.5, [0.4, 0.1]), (5.016949, [0.1])]
    assert not any(k.actions.any() for k in keyframes)
    write(layout, [row("a", 902.0, 0.9), row("a", 903.0, 0.9)], "ava", "train")  # 903: excluded
    keyframes = detected_keyframes(layout, "ava", "train", "v1", 0.5)
    assert [k.timestamp for k in keyframes] == [902.0]


def test_without_boxes_there_is_no_keyframe_and_without_a_file_an_error(layout):
    for rows in ([row("c", 5.016949, 0.49)], []):
        write(layout, rows)
        assert detected_keyframes(layout, "kinetics", "val", "v1", 0.5) == []
        assert detected_seconds(layout, "kinetics", "val", "v1", 0.5) == []
    for read_detected in (detected_keyframes, detected_seconds):
        with pytest.raises(InputError, match=r"boxes/v1_ava_val\.csv: no such file"):
            read_detected(layout, "ava", "val", "v1", 0.5)


def shifted(box: np.ndarray, iou: float) -> list[float]:
    """The box moved to the right until it overlaps itself by ``iou``."""
    width = box[2] - box[0]
    move = width * (1 - iou) / (1 + iou)
    return [float(v) for v in box + np.array([move, 0, move, 0])]


def test_a_confident_box_on_a_person_takes_its_actions_and_a_doubtful_one_is_left_out(layout):
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
    (mixed,) = with_confident([keyframe], detections(layout, "ava", "train", "v1", CONFIDENT))
    added = [rows[number][2:6] for number in (0, 1, 4, 5)]
    assert np.array_equal(mixed.boxes[:2], keyframe.boxes)
    np.testing.assert_allclose(mixed.boxes[2:], added, atol=1e-6)
    assert np.array_equal(mixed.actions[:4], keyframe.actions[[0, 1, 1, 0]])
    assert not mixed.actions[4:].any()
    assert mixed.person_ids.tolist() == [*keyframe.person_ids, -1, -1, -1, -1]
    assert mixed.moment == keyframe.moment
    write(layout, rows[2:4], "ava", "train")  # nothing but doubt
    (mixed,) = with_confident([keyframe], detections(layout, "ava", "train", "v1", CONFIDENT))
    assert np.array_equal(mixed.boxes, keyframe.boxes)


def test_keyframes_without_a_person_or_a_box_stay_as_they_are(layout):
    write(layout, [row("c", 6.5, 0.95), row("c", 4.0, 0.95)])
    keyframes = read_keyframes(layout, "kinetics", "val")
    mixed = with_confident(keyframes, detections(layout, "kinetics", "val", "v1", CONFIDENT))
    assert len(mixed) == 2 and all(a is b for a, b in zip(mixed, keyframes, strict=True))


# ----------------------------------------------------------------------------------- every second


def test_annotated_seconds_stay_and_others_come_from_the_box_file(layout):
    assert [k.moment for k in every_second(layout, "kinetics", "val")] == [("c", "5.016949")]
    seconds = (5.016949, 4.016949, 6.016949, 6.016949)
    write(layout, [row("c", second, 1.0) for second in seconds], by="ground-truth")
    keyframes = every_second(layout, "kinetics", "val")
    assert [round(k.timestamp, 6) for k in keyframes] == [4.016949, 5.016949, 6.016949]
    (annotated, *_) = read_keyframes(layout, "kinetics", "val")
    assert np.array_equal(keyframes[1].boxes, annotated.boxes) and keyframes[1].actions.any()
    assert [len(k.boxes) for k in keyframes] == [1, 1, 2]
    assert not keyframes[0].actions.any() and not keyframes[2].actions.any()


def test_two_keyframes_of_a_second_are_one_to_memory_and_two_to_testing(layout):
    """As ``lxlYez-CJYA`` has them at 459.032327 and 459.037917 in AVA-Kinetics' validation."""
    write(layout, [row("c", 5.016949, 1.0), row("c", 5.032, 1.0)], by="ground-truth")
    keyframes = every_second(layout, "kinetics", "val")
    assert len(keyframes) == 2
    assert [second_key(k) for k in one_a_second(keyframes).values()] == [("c", 5)]
    assert len({view_key(k) for k in keyframes}) == 2


def test_the_miniature_world_has_the_persons_of_every_second(smoke_record):
    from stadlib.base import data_dir
    from stadlib.world import SMOKE

    layout = AvaLayout(data_dir() / f"miniature-{SMOKE.digest}" / "world")
    for source, seconds in (("ava", 12), ("kinetics", SMOKE.clip_seconds)):
        annotated = [k for k in read_keyframes(layout, source, "train") if len(k.boxes)]
        keyframes = every_second(layout, source, "train")
        times = [k.timestamp for k in keyframes if k.video == annotated[0].video]
        assert len(times) == seconds
        assert len({round(t % 1, 5) for t in times}) == 1  # counted from the annotated second
        path = layout.person_boxes("ground-truth", source, "train")
        rows = {line.rsplit(",,", 1)[0] for line in path.read_text().splitlines()}
        for keyframe in annotated:
            clocks = f"{keyframe.timestamp:04.0f}", f"{keyframe.timestamp:.6f}"
            for box in keyframe.boxes:
                corners = ",".join(f"{value:.4f}" for value in box)
                assert rows & {f"{keyframe.video},{clock},{corners}" for clock in clocks}


def test_moments_are_counted_from_an_annotated_second(layout):
    """Video c shows 2.5 to 7.5 on the annotation clock, a and b 900 to 905."""
    seconds = [3.016949, 4.016949, 5.016949, 6.016949, 6.5, 7.016949]  # 6.5 is annotated too
    assert moments(layout, "kinetics", "val") == [("c", second) for second in seconds]
    assert moments(layout, "ava", "val") == [("b", 900.0 + k) for k in range(5)]
    excluded = [("a", t) for t in (900.0, 901.0, 902.0, 904.0)]
    assert moments(layout, "ava", "train") == excluded


def test_moments_follow_the_list_with_videos_without_annotations(layout):
    layout.video_list("kinetics", "val").write_text("d\nc\n")
    source = layout.root / "videos" / "kinetics" / "c.mp4"
    shutil.copyfile(source, source.with_name("d.mp4"))
    found = moments(AvaLayout(layout.root), "kinetics", "val")
    assert [v for v, _ in found] == ["d"] * 5 + ["c"] * 6
    assert [t for v, t in found if v == "d"] == [0.0, 1.0, 2.0, 3.0, 4.0]  # no start is given

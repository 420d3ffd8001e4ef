"""Video mAP: linking and matching against slow definitions, hand-made cases, the command."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data.layout import LabelMap, write_label_map
from stadlib.data.rows import COLUMNS
from stadlib.evaluation.tubes import LEAST, LINK_IOU, MOST, STRICT, video_map

LABELS = LabelMap({1: "run", 4: "jump"})
LEFT, RIGHT = (0.1, 0.1, 0.4, 0.5), (0.6, 0.1, 0.9, 0.5)
RATE = 25


def frame(entries: list[tuple]) -> pd.DataFrame:
    rows = pd.DataFrame(entries, columns=list(COLUMNS))
    return rows.astype(dict.fromkeys(COLUMNS[1:], float) | {"video": object, "action_id": int})


def tube(box, frames, last, action=1, video="film") -> list[tuple]:
    """Rows of a box that stays where it is; ``last`` is a score or a tube's number."""
    return [(video, number / RATE, *box, action, last) for number in frames]


# ------------------------------------------------------------------------- by the definition


def iou(box, other) -> float:
    (x1, y1, x2, y2), (u1, v1, u2, v2) = box, other
    inter = max(0.0, min(x2, u2) - max(x1, u1)) * max(0.0, min(y2, v2) - max(y1, v1))
    return inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter)


def linked(frames: list[list[tuple]]) -> list[list[tuple]]:
    """The tubes of one video and class, lists of (frame, box, score); frames have (box, score)."""
    ended, open_ones = [], []

    def mean(one):
        return sum(score for _, _, score in one) / len(one)

    for number, boxes in enumerate(frames):
        left = sorted((b for b in boxes if b[1] >= LEAST), key=lambda b: -b[1])[:MOST]
        going = []
        for one in sorted(open_ones, key=lambda one: -mean(one)):
            near = [b for b in left if iou(one[-1][1], b[0]) >= LINK_IOU]
            if near:
                best = max(near, key=lambda b: b[1])
                left.remove(best)
                one.append((number, *best))
                going.append(one)
            else:
                ended.append(one)
        open_ones = going + [[(number, *b)] for b in left]
    return [one for one in ended + open_ones if mean(one) >= LEAST]


def tube_iou(one: dict, other: dict) -> float:
    both = one.keys() & other.keys()
    return sum(iou(one[f], other[f]) for f in both) / len(one.keys() | other.keys())


def slow_ap(found: list[tuple], truths: dict[str, list[dict]], least: float, area: str) -> float:
    """AP of (score, video, tube) against tubes by video, as ACT's and MultiSports' scripts say."""
    taken, points = set(), []
    right = 0
    for number, (_, video, one) in enumerate(sorted(found, key=lambda f: -f[0]), 1):
        overlaps = [tube_iou(one, other) for other in truths.get(video, [])]
        if area == "act":
            overlaps = [-1 if (video, k) in taken else o for k, o in enumerate(overlaps)]
        best = int(np.argmax(overlaps)) if overlaps else 0
        if overlaps and overlaps[best] >= least and (video, best) not in taken:
            taken.add((video, best))
            right += 1
        points.append((right / sum(map(len, truths.values())), right / number))
    total, before = 0.0, (0.0, 1.0)
    for number, (recall, precision) in enumerate(points):
        height = (precision + before[1]) / 2
        if area == "voc":
            height = max(p for _, p in points[number:])
        total += (recall - before[0]) * height
        before = (recall, precision)
    return total


def slow_map(truth: pd.DataFrame, found: pd.DataFrame, length: int) -> dict:
    means = {}
    for area, least in product(("voc", "act"), (0.2, *STRICT)):
        aps = []
        for action in LABELS.ids:
            rows = truth[truth["action_id"] == action]
            truths: dict[str, list[dict]] = {}
            for (video, _), part in rows.groupby(["video", "score"]):
                boxes = {round(r.timestamp * RATE): r[3:7] for r in part.itertuples()}
                truths.setdefault(video, []).append(boxes)
            predicted = []
            for video in sorted({*truth["video"]}):
                mine = found[(found["video"] == video) & (found["action_id"] == action)]
                frames: list[list] = [[] for _ in range(length)]
                for row in mine.itertuples():
                    frames[round(row.timestamp * RATE)].append((row[3:7], row.score))
                for one in linked(frames):
                    score = sum(s for _, _, s in one) / len(one)
                    predicted.append((score, video, {f: box for f, box, _ in one}))
            if truths:
                aps.append(slow_ap(predicted, truths, least, area))
        means[area, least] = float(np.mean(aps))
    return means


LENGTH = 5
PLACES = st.tuples(st.integers(0, 3), st.integers(0, 1))


def at(place: tuple[int, int]) -> tuple[float, ...]:
    x, y = 0.08 * place[0], 0.1 * place[1]
    return (x, y, x + 0.3, y + 0.4)


@st.composite
def films(draw) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two videos; boxes on a grid so that many overlap, scores that are all different."""
    truth = [(video, f / RATE, *[np.nan] * 4, -1, 1.0) for video in "ab" for f in range(LENGTH)]
    for number in range(draw(st.integers(1, 5))):
        video, action = draw(st.sampled_from("ab")), draw(st.sampled_from([1, 4]))
        frames = draw(st.sets(st.integers(0, LENGTH - 1), min_size=1))
        truth += [(video, f / RATE, *at(draw(PLACES)), action, number) for f in sorted(frames)]
    count = draw(st.integers(0, 40))
    scores = draw(st.permutations(range(1, 41)))
    found = []
    for score in scores[:count]:
        frame_of = (draw(st.sampled_from("ab")), draw(st.integers(0, LENGTH - 1)) / RATE)
        action = draw(st.sampled_from([1, 4]))
        found.append((*frame_of, *at(draw(PLACES)), action, (score**2 - 0.5) / 1600))
    return frame(truth), frame(found)


@settings(max_examples=30, deadline=None)
@given(films())
def test_video_map_is_that_of_the_slow_definition(films):
    truth, found = films
    expected, report = slow_map(truth, found, LENGTH), video_map(truth, found, LABELS)
    for area in ("voc", "act"):
        assert report[area]["0.2"] == pytest.approx(expected[area, 0.2])
        assert report[area]["0.5"] == pytest.approx(expected[area, 0.5])
        strict = np.mean([expected[area, least] for least in STRICT])
        assert report[area]["0.5:0.95"] == pytest.approx(strict)


# ---------------------------------------------------------------------------------- by hand


def test_right_tubes_have_all_and_half_a_tube_counts_at_half_its_iou():
    truth = frame(tube(LEFT, range(10), 0) + tube(RIGHT, range(10), 1))
    whole = video_map(
        truth, frame(tube(LEFT, range(10), 0.9) + tube(RIGHT, range(10), 0.8)), LABELS
    )
    assert whole["tubes"] == whole["annotated"] == 2
    assert all(mean == pytest.approx(1) for area in ("voc", "act") for mean in whole[area].values())
    half = video_map(truth, frame(tube(LEFT, range(4), 0.9) + tube(RIGHT, range(4), 0.8)), LABELS)
    assert half["voc"] == {"0.2": 1.0, "0.5": 0.0, "0.5:0.95": 0.0}  # 4 of 10 frames: IoU 0.4


def test_the_two_areas_differ_as_documented():
    """A wrong tube before the right one: precision 0, then 1/2 at recall 1."""
    truth = frame(tube(LEFT, range(4), 0))
    found = frame(tube(RIGHT, range(4), 0.9) + tube(LEFT, range(4), 0.8))
    report = video_map(truth, found, LABELS)
    assert report["voc"]["0.5"] == pytest.approx(1 / 2)
    assert report["act"]["0.5"] == pytest.approx((0 + 1 / 2) / 2)


def test_a_tube_ends_where_a_keyframe_has_no_box_or_only_one_elsewhere():
    truth = frame(tube(LEFT, range(9), 0))
    for gap in ([], tube(RIGHT, [4], 0.9), tube(LEFT, [4], LEAST / 2)):
        found = frame(tube(LEFT, [0, 1, 2, 3, 5, 6, 7, 8], 0.9) + gap)
        report = video_map(truth, found, LABELS, shortest=2)
        assert report["tubes"] == 2
        assert report["voc"]["0.2"] == 1.0 and report["voc"]["0.5"] == 0.0  # each IoU 4/9


def test_tubes_of_other_classes_videos_and_unnamed_keyframes_do_not_meet():
    truth = frame(tube(LEFT, range(3), 0) + tube(LEFT, range(3), 0, video="other"))
    first, second = tube(LEFT, [0], 0.9), tube(LEFT, [1], 0.9, action=4)
    third = tube(LEFT, [2], 0.9, video="other") + tube(LEFT, [7], 0.9)  # frame 7 is not named
    assert video_map(truth, frame(first + second + third), LABELS)["tubes"] == 3


def test_a_person_with_two_boxes_in_a_keyframe_is_refused():
    truth = frame(tube(LEFT, range(3), 0) + tube(RIGHT, [2], 0))
    with pytest.raises(InputError, match=r"film,0\.08: two boxes .* column 8"):
        video_map(truth, truth, LABELS)


def test_a_class_without_tubes_is_left_out_and_nothing_is_no_number():
    truth = frame(tube(LEFT, range(3), 0))
    found = frame(tube(LEFT, range(3), 0.5) + tube(RIGHT, range(3), 0.9, action=4))
    assert video_map(truth, found, LABELS)["voc"]["0.5"] == 1.0
    assert video_map(truth, found[:0], LABELS)["voc"]["0.5"] == 0.0
    assert video_map(truth[:0], found, LABELS)["act"]["0.5"] is None


def test_the_command_prints_both_areas(tmp_path, capsys):
    files = {"truth.csv": tube(LEFT, range(4), 0), "found.csv": tube(LEFT, range(4), 0.8)}
    for name, entries in files.items():
        frame(entries).to_csv(tmp_path / name, header=False, index=False)
    write_label_map(tmp_path / "labels.pbtxt", LABELS)
    names = {"groundtruth": "truth.csv", "detections": "found.csv", "labels": "labels.pbtxt"}
    words = [f"--{option}={tmp_path / name}" for option, name in names.items()]
    assert main(["evaluate", *words, "--protocol", "multisports", "--tubes"]) == 0
    printed = capsys.readouterr().out
    assert "1 tubes linked, 1 annotated" in printed
    assert "video mAP, %: @0.2 100.00, @0.5 100.00, @0.5:0.95 100.00 (voc)" in printed
    assert "@0.5:0.95 100.00 (act)" in printed
    assert main(["evaluate", *words, "--tubes", "5"]) == 0
    assert "0 tubes linked, 1 annotated" in capsys.readouterr().out

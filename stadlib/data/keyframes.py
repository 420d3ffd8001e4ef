"""Keyframes: the labelled moments of AVA and AVA-Kinetics, with their persons merged.

An annotation file has a row an action; a person has several actions on the same box. A keyframe
gathers the rows of one (video, timestamp), a person the rows of one box.

Persons as a detector found them, in the place of annotated ones.

Every second of a dataset, annotated or not: what a bank holds and what a detector looks at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.ops import box_iou

from stadlib.base import InputError
from stadlib.data.boxes import read_person_boxes
from stadlib.data.labels import AVA_IDS, LabelMap
from stadlib.data.layout import AVA_SECONDS, SPLITS, AvaLayout
from stadlib.data.rows import CORNERS, contradicting_files, read_annotation_rows
from stadlib.data.video import probe


@dataclass(frozen=True, eq=False)
class Keyframe:
    """The persons of one annotated moment of a video. N may be 0.

    Attributes:
        source: "ava" or "kinetics".
        video: id, the video's file name without suffix.
        timestamp: seconds on the annotation clock (see ``AvaLayout.video_start``).
        boxes: (N, 4) float32, x1 y1 x2 y2 as fractions of width and height, in [0, 1].
        actions: (N, num_actions) bool, columns as in ``LabelMap.ids``.
        person_ids: (N,) int64, -1 where the file gives none.
    """

    source: str
    video: str
    timestamp: float
    boxes: np.ndarray
    actions: np.ndarray
    person_ids: np.ndarray

    @property
    def key(self) -> str:
        """How the official evaluator names it: ``video,%.6f``, so that 0902 = 902.0."""
        return f"{self.video},{self.timestamp:.6f}"


def read_keyframes(layout: AvaLayout, source: str, split: str) -> list[Keyframe]:
    """Keyframes of a split in file order, without its excluded timestamps.

    Raises:
        InputError: the file is missing, or its first wrong row, named.
    """
    path = layout.annotations(source, split)
    keyframes = read_annotation_file(path, layout.label_map(), source)
    excluded = layout.excluded(source, split)
    if not excluded:
        return keyframes
    return [k for k in keyframes if (k.video, f"{k.timestamp:.6f}") not in excluded]


def read_annotation_file(path: Path | str, label_map: LabelMap, source: str) -> list[Keyframe]:
    """Keyframes of one file, in the order of their first rows; persons likewise.

    Of AVA's 80 classes the label map names the evaluated ones. A row with another of the 80 is no
    action but still says that a person is there: its box becomes a person, without any action if
    no other row gives one (an all-zero target). Two-column rows give a keyframe without persons.

    Raises:
        InputError: the file is missing or empty, or its first wrong row: columns, numbers, boxes
            outside [0, 1] or inside out, an id outside 1..80 (and the map), a person of a
            keyframe with two boxes.
    """
    rows, problems = read_annotation_rows(Path(path), known_actions(label_map))
    if problems:
        raise InputError(str(problems[0]))
    return _gather(rows, label_map, source)


def require_agreement(layout: AvaLayout, source: str) -> None:
    """Refuse splits of a source that label the same keyframe differently.

    Raises:
        InputError: the first such keyframe, with both files and rows.
    """
    actions = known_actions(layout.label_map())
    paths = [layout.annotations(source, split) for split in SPLITS]
    tables = {path: read_annotation_rows(path, actions)[0] for path in paths if path.is_file()}
    problems = contradicting_files(tables)
    if problems:
        raise InputError(str(problems[0]))


def known_actions(label_map: LabelMap) -> set[int]:
    """Ids that an annotation file may use: AVA's 80 and whatever else the map names."""
    return {*AVA_IDS, *label_map.ids}


def _gather(rows: pd.DataFrame, label_map: LabelMap, source: str) -> list[Keyframe]:
    """Rows -> keyframes, with whole-table operations: files have up to a million rows."""
    rows = rows.assign(keyframe=rows.groupby(["video", "micros"], sort=False).ngroup())
    first = rows.drop_duplicates("keyframe")
    labelled = rows[rows["action"] >= 0].sort_values("keyframe", kind="stable")
    person_of_row = labelled.groupby(["keyframe", *CORNERS], sort=False).ngroup().to_numpy()
    persons = labelled.iloc[np.unique(person_of_row, return_index=True)[1]]
    actions = np.zeros((len(persons), label_map.num_actions), bool)
    evaluated = labelled["action"].isin(label_map.ids).to_numpy()
    columns = np.searchsorted(label_map.ids, labelled["action"].to_numpy()[evaluated])
    actions[person_of_row[evaluated], columns] = True
    boxes = persons[CORNERS].to_numpy(np.float32)
    ids = persons["person"].to_numpy(np.int64)
    ends = np.searchsorted(persons["keyframe"].to_numpy(), np.arange(len(first)), side="right")
    starts = [0, *ends[:-1].tolist()]
    return [
        Keyframe(source, video, timestamp, boxes[a:b], actions[a:b], ids[a:b])
        for video, timestamp, a, b in zip(
            first["video"].tolist(), first["timestamp"].tolist(), starts, ends.tolist(), strict=True
        )
    ]


# A detection to train on scores this much (98 of 100 such boxes of v3 are persons at mini;
# AlphAction's 0.9 is of a detector that scores higher), and overlaps a person by SAME (SlowFast's
# files) or all by less than OTHER.
CONFIDENT, SAME, OTHER = 0.5, 0.75, 0.5
_CORNERS_detected = ["x1", "y1", "x2", "y2"]
Moment = tuple[str, str]  # video, ``%.6f`` of its second


def detections(
    layout: AvaLayout, source: str, split: str, detector: str, threshold: float
) -> dict[Moment, pd.DataFrame]:
    """A detector's boxes by moment, the highest score first.

    Raises:
        InputError: no such box file, or its first wrong row.
    """
    boxes = read_person_boxes(layout.person_boxes(detector, source, split))
    boxes = boxes[boxes["score"] >= threshold].sort_values("score", ascending=False, kind="stable")
    moments = zip(boxes["video"], boxes["timestamp"].map("{:.6f}".format), strict=True)
    keys = pd.MultiIndex.from_tuples(moments, names=["video", "moment"])
    return dict(list(boxes.set_axis(keys).groupby(level=[0, 1], sort=False))) if len(boxes) else {}


def detected_seconds(
    layout: AvaLayout, source: str, split: str, detector: str, threshold: float
) -> list[Keyframe]:
    """Every second in which the detector found someone, annotated or not; nobody's actions known.

    Returns:
        Keyframes by video and time; a keyframe's persons from the highest score down.
    """
    found = detections(layout, source, split, detector, threshold)
    num_actions = layout.label_map().num_actions
    keyframes = [
        _keyframe(source, video, float(rows["timestamp"].iloc[0]), rows, num_actions)
        for (video, _), rows in found.items()
    ]
    return sorted(keyframes, key=lambda k: (k.video, k.timestamp))


def detected_keyframes(
    layout: AvaLayout, source: str, split: str, detector: str, threshold: float
) -> list[Keyframe]:
    """The annotated moments, two-column ones included, with the persons that were found there.

    They stand in the order of the annotation file; where nobody was found, there is no keyframe.
    A split without such a file has every second of AVA's movies that its list names.
    """
    found = detections(layout, source, split, detector, threshold)
    num_actions = layout.label_map().num_actions
    named = {(video, f"{time:.6f}"): time for video, time in _moments(layout, source, split)}
    return [
        _keyframe(source, moment[0], timestamp, found[moment], num_actions)
        for moment, timestamp in named.items()
        if moment in found
    ]


def _moments(layout: AvaLayout, source: str, split: str) -> list[tuple[str, float]]:
    """The (video, second) pairs of a split that count."""
    if layout.annotations(source, split).is_file():
        return [(k.video, k.timestamp) for k in read_keyframes(layout, source, split)]
    excluded = layout.excluded(source, split)
    listed = [(video, float(s)) for video in layout.videos(source, split) for s in AVA_SECONDS]
    return [(video, t) for video, t in listed if (video, f"{t:.6f}") not in excluded]


def with_confident(keyframes: list[Keyframe], found: dict[Moment, pd.DataFrame]) -> list[Keyframe]:
    """Training keyframes with detections beside the annotated persons (SlowFast, AlphAction).

    A detection that overlaps a person by ``SAME`` takes that one's actions. One that overlaps
    nobody by ``OTHER`` is a person who does nothing that is evaluated. In between it is neither,
    and left out.

    Args:
        keyframes: annotated.
        found: detections by moment, those of a score of ``CONFIDENT`` or more.
    """
    mixed = []
    for keyframe in keyframes:
        rows = found.get((keyframe.video, f"{keyframe.timestamp:.6f}"))
        if rows is None or not len(keyframe.boxes):
            mixed.append(keyframe)
            continue
        boxes = rows[_CORNERS_detected].to_numpy(np.float32)
        iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(keyframe.boxes)).numpy()
        clear = (iou.max(axis=1) >= SAME) | (iou.max(axis=1) < OTHER)
        boxes, iou = boxes[clear], iou[clear]
        actions = keyframe.actions[iou.argmax(axis=1)] & (iou.max(axis=1) >= SAME)[:, None]
        nobody = np.full(len(boxes), -1, np.int64)
        mixed.append(
            replace(
                keyframe,
                boxes=np.concatenate([keyframe.boxes, boxes]),
                actions=np.concatenate([keyframe.actions, actions]),
                person_ids=np.concatenate([keyframe.person_ids, nobody]),
            )
        )
    return mixed


def _keyframe(
    source: str, video: str, timestamp: float, rows: pd.DataFrame, num_actions: int
) -> Keyframe:
    boxes = rows[_CORNERS_detected].to_numpy(np.float32)
    actions = np.zeros((len(rows), num_actions), bool)
    return Keyframe(source, video, timestamp, boxes, actions, np.full(len(rows), -1, np.int64))


_CORNERS_seconds = ["x1", "y1", "x2", "y2"]


def every_second(layout: AvaLayout, source: str, split: str) -> list[Keyframe]:
    """The annotated keyframes with persons, and the seconds of the ground truth's box file.

    The miniature world knows who is there in other than annotated seconds too and writes that
    file; AVA-Kinetics has none. Without it only annotated seconds are there.

    Returns:
        Keyframes by video and time, the annotated ones as they are, the others without actions.

    Raises:
        InputError: the annotations are missing, or the first wrong row of a file.
    """
    annotated = {
        (k.video, f"{k.timestamp:.6f}"): k
        for k in read_keyframes(layout, source, split)
        if len(k.boxes)
    }
    path = layout.person_boxes("ground-truth", source, split)
    if not path.exists():
        return list(annotated.values())
    num_actions = layout.label_map().num_actions
    boxes = read_person_boxes(path)
    found = dict(annotated)
    for (video, timestamp), rows in boxes.groupby(["video", "timestamp"], sort=False):
        corners = rows[_CORNERS_seconds].to_numpy(np.float32)
        actions = np.zeros((len(rows), num_actions), bool)
        nobody = np.full(len(rows), -1, np.int64)
        keyframe = Keyframe(source, video, float(timestamp), corners, actions, nobody)
        found.setdefault((video, f"{timestamp:.6f}"), keyframe)
    return sorted(found.values(), key=lambda k: (k.video, k.timestamp))


def moments(layout: AvaLayout, source: str, split: str) -> list[tuple[str, float]]:
    """(video, second) of everything that a detector should see: the annotated moments and, a whole
    number of seconds from them, all others of each video, in file order.

    Seconds are of the annotation clock. Excluded moments are left out.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    annotated: dict[str, list[float]] = {video: [] for video in layout.videos(source, split)}
    there = layout.annotations(source, split).is_file()  # AVA's test split has none
    for keyframe in read_keyframes(layout, source, split) if there else []:
        annotated.setdefault(keyframe.video, []).append(keyframe.timestamp)
    found = []
    for video, known in annotated.items():
        start = layout.video_start(source, video)
        end = start + probe(layout.video_file(source, video)).duration
        phase = known[0] % 1 if known else start % 1
        first = np.ceil(start - phase - 1e-6)
        others = [round(phase + second, 6) for second in np.arange(first, end - phase)]
        found += [(video, second) for second in sorted({*others, *known})]
    excluded = layout.excluded(source, split)
    return [(video, t) for video, t in found if (video, f"{t:.6f}") not in excluded]

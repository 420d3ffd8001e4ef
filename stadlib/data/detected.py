"""Persons as a detector found them, in the place of annotated ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torchvision.ops import box_iou

from stadlib.data.annotations import Keyframe, read_keyframes
from stadlib.data.layout import AVA_SECONDS, AvaLayout
from stadlib.data.person_boxes import read_person_boxes

# A detection to train on scores this much (98 of 100 such boxes of v3 are persons at mini;
# AlphAction's 0.9 is of a detector that scores higher), and overlaps a person by SAME (SlowFast's
# files) or all by less than OTHER.
CONFIDENT, SAME, OTHER = 0.5, 0.75, 0.5
_CORNERS = ["x1", "y1", "x2", "y2"]
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
        boxes = rows[_CORNERS].to_numpy(np.float32)
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
    boxes = rows[_CORNERS].to_numpy(np.float32)
    actions = np.zeros((len(rows), num_actions), bool)
    return Keyframe(source, video, timestamp, boxes, actions, np.full(len(rows), -1, np.int64))

"""Every second of a dataset in which persons are known, annotated or not: what a bank holds."""

from __future__ import annotations

import numpy as np

from stadlib.data.annotations import Keyframe, read_keyframes
from stadlib.data.layout import AvaLayout
from stadlib.data.person_boxes import read_person_boxes

_CORNERS = ["x1", "y1", "x2", "y2"]


def every_second(layout: AvaLayout, source: str, split: str, detector: str) -> list[Keyframe]:
    """The annotated keyframes with persons, and the seconds of the detector's box file.

    Ground-truth boxes of other than annotated seconds come from a file as well: the miniature
    world writes it, AVA-Kinetics has none. Without it only annotated seconds are there.

    Returns:
        Keyframes by video and time, the annotated ones as they are, the others without actions.

    Raises:
        InputError: a file is missing (but for the ground truth's boxes), or its first wrong row.
    """
    annotated = {
        (k.video, f"{k.timestamp:.6f}"): k
        for k in read_keyframes(layout, source, split)
        if len(k.boxes)
    }
    path = layout.person_boxes(detector, source, split)
    if detector == "ground-truth" and not path.exists():
        return list(annotated.values())
    num_actions = layout.label_map().num_actions
    boxes = read_person_boxes(path)
    found = dict(annotated)
    for (video, timestamp), rows in boxes.groupby(["video", "timestamp"], sort=False):
        corners = rows[_CORNERS].to_numpy(np.float32)
        actions = np.zeros((len(rows), num_actions), bool)
        nobody = np.full(len(rows), -1, np.int64)
        keyframe = Keyframe(source, video, float(timestamp), corners, actions, nobody)
        found.setdefault((video, f"{timestamp:.6f}"), keyframe)
    return sorted(found.values(), key=lambda k: (k.video, k.timestamp))

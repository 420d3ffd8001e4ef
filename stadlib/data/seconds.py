"""Every second of a dataset, annotated or not: what a bank holds and what a detector looks at."""

from __future__ import annotations

import numpy as np

from stadlib.data.annotations import Keyframe, read_keyframes
from stadlib.data.layout import AvaLayout
from stadlib.data.person_boxes import read_person_boxes
from stadlib.data.video import probe

_CORNERS = ["x1", "y1", "x2", "y2"]


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
        corners = rows[_CORNERS].to_numpy(np.float32)
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

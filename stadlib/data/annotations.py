"""Keyframes: the labelled moments of AVA and AVA-Kinetics, with their persons merged.

An annotation file has a row an action; a person has several actions on the same box. A keyframe
gathers the rows of one (video, timestamp), a person the rows of one box.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stadlib.config import InputError
from stadlib.data.annotation_rows import CORNERS, contradicting_files, read_rows
from stadlib.data.layout import SPLITS, AvaLayout
from stadlib.labels import AVA_IDS, LabelMap


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
    rows, problems = read_rows(Path(path), known_actions(label_map))
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
    tables = {path: read_rows(path, actions)[0] for path in paths if path.is_file()}
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

"""The rows of two files that an evaluation looks at: keyframes that count, boxes that stay.

Rules 1 to 3 and 5 of ActivityNet's ``get_ava_performance.py``; 1 to 3 are where other evaluators
differ (:mod:`stadlib.metrics.protocols`):

1. A keyframe is ``video,%.6f`` of its timestamp: 0902, 902 and 902.0 are one.
2. A keyframe counts if any ground-truth row names it, rows of two columns (no label) and rows of
   classes outside the label map included. Detections elsewhere are ignored.
3. Of a keyframe at most 50 detection rows of the label map's classes are kept. They pass through
   a heap ordered by (score, class, y1, x1, y2, x2), which a newcomer enters only if its score is
   strictly greater than the smallest. Boxes with x1 >= x2 or y1 >= y2 are dropped afterwards.
5. Ground truth passes through the same heap, without a cap, its eighth column as the score; this
   decides only which of several equal IoUs is taken.

Legend: K keyframes.
"""

from __future__ import annotations

import heapq
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from stadlib.labels import LabelMap
from stadlib.metrics.protocols import Protocol
from stadlib.metrics.rows import BOX, Rows, table


@dataclass(frozen=True)
class Boxes:
    """Evaluated rows as arrays: keyframe, class, video, action id, score, corners, row.

    ``corners`` is (n, 4); ``row`` counts from the first row of the file.
    """

    key: np.ndarray
    column: np.ndarray
    video: np.ndarray
    action: np.ndarray
    score: np.ndarray
    corners: np.ndarray
    row: np.ndarray

    def at(self, rows: np.ndarray) -> Boxes:
        """These rows (a mask or positions)."""
        return Boxes(*(getattr(self, field.name)[rows] for field in fields(self)))


def evaluated_boxes(
    groundtruth: Rows,
    detections: Rows,
    label_map: LabelMap,
    rules: Protocol,
    excluded: AbstractSet[tuple[str, str]] = frozenset(),
) -> tuple[list[str], Boxes, Boxes]:
    """Rules 1 to 3 and 5: names of the videos, ground truth, and the detections that count.

    Both are sorted by keyframe. Arguments and errors as in :func:`match`.
    """
    truth, found = table(groundtruth), table(detections)
    videos, truth_video, found_video = _common_videos(truth, found)
    truth_key, found_key, out = _keyframes(
        (truth, truth_video), (found, found_video), videos, rules, excluded
    )
    counts_K = np.full(len(out), rules.unnamed_are_wrong)
    counts_K[truth_key] = True
    counts_K &= ~out
    truths = _selected(truth, truth_key, truth_video, label_map, counts_K)
    truths = truths.at(_heap_order(truths))
    boxes = _selected(found, found_key, found_video, label_map, counts_K)
    if (boxes.key[1:] < boxes.key[:-1]).any():  # a file that is in order needs no copy
        boxes = boxes.at(np.argsort(boxes.key, kind="stable"))
    if rules.cap is not None:
        boxes = boxes.at(_pass_heap(boxes, rules.cap))
    x1, y1, x2, y2 = boxes.corners.T
    boxes = boxes.at((x1 < x2) & (y1 < y2))
    return videos, truths, boxes


def _selected(
    rows: pd.DataFrame,
    key: np.ndarray,
    video: np.ndarray,
    label_map: LabelMap,
    counts_K: np.ndarray,
) -> Boxes:
    """The rows whose class is evaluated and whose keyframe counts."""
    actions = rows["action_id"].to_numpy(np.int32)
    ids = np.array(sorted(label_map.ids))
    columns = np.array([label_map.column(action) for action in ids.tolist()], dtype=np.int16)
    place = np.minimum(np.searchsorted(ids, actions), len(ids) - 1)
    kept = np.flatnonzero((ids[place] == actions) & counts_K[key])
    corners = np.empty((len(kept), 4))
    for number, name in enumerate(BOX):
        corners[:, number] = rows[name].to_numpy(np.float64)[kept]
    score = rows["score"].to_numpy(np.float64)[kept]
    named = (key[kept], columns[place[kept]], video[kept], actions[kept])
    return Boxes(*named, score, corners, kept.astype(np.int32))


def _common_videos(
    truth: pd.DataFrame, found: pd.DataFrame
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The videos of both files, and each row's position among them."""
    numbers: dict[str, int] = {}
    codes = []
    for rows in (truth, found):
        video = rows["video"].cat
        table = [numbers.setdefault(name, len(numbers)) for name in video.categories]
        codes.append(np.array(table, dtype=np.int32)[video.codes.to_numpy()])
    return list(numbers), codes[0], codes[1]


def _keyframes(
    truth: tuple[pd.DataFrame, np.ndarray],
    found: tuple[pd.DataFrame, np.ndarray],
    videos: list[str],
    rules: Protocol,
    excluded: AbstractSet[tuple[str, str]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's keyframe, ground truth's first, and (K,) which keyframes are excluded."""
    times = np.concatenate([rows["timestamp"].to_numpy(np.float64) for rows, _ in (truth, found)])
    codes, values = pd.factorize(times)

    def name(second: float | str) -> str:
        return f"{int(float(second)):04d}" if rules.whole_seconds else f"{float(second):.6f}"

    named, names = pd.factorize(np.array([name(value) for value in values], dtype=object))
    place = np.concatenate([truth[1], found[1]], dtype=np.int64) * max(1, len(names))
    place += named[codes]
    key, places = pd.factorize(place)
    key = key.astype(np.int32)
    number = {video: position for position, video in enumerate(videos)}
    moment = {written: position for position, written in enumerate(names)}
    out = [
        number[video] * len(names) + moment[name(second)]
        for video, second in excluded
        if video in number and name(second) in moment
    ]
    split = len(truth[0])
    return key[:split], key[split:], np.isin(places, out)


def _heap_order(truths: Boxes) -> np.ndarray:
    """Rule 5: the order in which the official heap lists the ground truth of a keyframe."""
    y1, x1, y2, x2 = (truths.corners[:, number].tolist() for number in (1, 0, 3, 2))
    entries = zip(truths.score.tolist(), truths.action.tolist(), y1, x1, y2, x2, strict=True)
    heaps: dict[int, list[tuple]] = {}
    for row, (key, entry) in enumerate(zip(truths.key.tolist(), entries, strict=True)):
        heapq.heappush(heaps.setdefault(key, []), (*entry, row))
    listed = (sorted(heap, key=lambda entry: -entry[0]) for heap in heaps.values())
    return np.array([entry[-1] for heap in listed for entry in heap], dtype=np.int64)


def _pass_heap(boxes: Boxes, cap: int) -> np.ndarray:
    """Rule 3 without heaps: which rows a heap of ``cap`` would hold at the end; sorted by key.

    All keyframes of as many rows are looked at together. With f the ``cap``-th highest score, rows
    above f always stay. A row at f enters only among the first ``cap`` rows that reach f; each
    row above f that comes later pushes the smallest such row out.
    """
    starts = np.flatnonzero(np.diff(boxes.key, prepend=-1))
    sizes = np.diff(starts, append=len(boxes.key))
    keep = np.ones(len(boxes.key), dtype=bool)
    for size in np.unique(sizes[sizes > cap]):
        rows = starts[sizes == size][:, None] + np.arange(size)
        scores = boxes.score[rows]
        lowest = np.partition(scores, size - cap, axis=1)[:, size - cap, None]
        reach = scores >= lowest
        keep[rows] = reach
        crowded = reach.sum(axis=1) > cap
        if crowded.any():
            part = (rows[crowded], scores[crowded], lowest[crowded])
            keep[part[0]] = _crowded(boxes, *part, cap)
    return keep


def _crowded(
    boxes: Boxes, rows: np.ndarray, scores: np.ndarray, lowest: np.ndarray, cap: int
) -> np.ndarray:
    """Who stays in keyframes where several rows are tied for the last places."""
    reach, above = scores >= lowest, scores > lowest
    tied = reach & ~above & (np.cumsum(reach, axis=1) <= cap)
    surplus = above.sum(axis=1) + tied.sum(axis=1) - cap
    keyframe, column = np.nonzero(tied)
    row = rows[keyframe, column]
    x1, y1, x2, y2 = boxes.corners[row].T
    order = np.lexsort((x2, y2, x1, y1, boxes.action[row], keyframe))
    keyframe, column = keyframe[order], column[order]
    rank = np.arange(len(order)) - np.searchsorted(keyframe, keyframe)
    tied[keyframe, column] = rank >= surplus[keyframe]
    return above | tied

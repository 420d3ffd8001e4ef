"""Which predictions are right, by the rules of the official evaluator or of four others.

The rules of ActivityNet's ``get_ava_performance.py`` (HEAD), the challenge's:

1. A keyframe is ``video,%.6f`` of its timestamp: 0902, 902 and 902.0 are one.
2. A keyframe counts if any ground-truth row names it, rows of two columns (no label) and rows of
   classes outside the label map included. Predictions elsewhere are ignored.
3. Of a keyframe at most 50 prediction rows of the label map's classes are kept. They pass through a
   heap ordered by (score, class, y1, x1, y2, x2), which a row enters only if its score is strictly
   greater than the smallest. Boxes with x1 >= x2 or y1 >= y2 are dropped afterwards.
4. A prediction looks at the ground-truth box of its class with the highest IoU (float64). It is
   right if that IoU is at least 0.5 and no prediction before it took the same box.
5. Ground truth passes through the same heap, without a cap, its eighth column as the score; this
   decides only which of several equal IoUs is taken.

The official evaluator sorts scores with an unstable sort, so its number for tied scores depends on
the processor. Here equal scores keep the order in which ground truth first names their keyframes
and, inside a keyframe, that of the file: one pair of files, one number. ``ties="official"`` gives
the number of the official evaluator on this machine.

Legend: K keyframes, D predictions, G ground-truth boxes, R pairs of the two, V videos.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from stadlib.base import check_word
from stadlib.data.layout import LabelMap
from stadlib.data.rows import BOX, Rows, table


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The rules in which evaluators differ."""

    cap: int | None = 50  # rows of evaluated classes kept a keyframe, the highest; None: all
    whole_seconds: bool = False  # keyframes are named by ``int(timestamp)``; otherwise ``%.6f``
    # Predictions in keyframes without ground truth are wrong, unless excluded; otherwise ignored.
    unnamed_are_wrong: bool = False
    # A class without predictions has AP 0; otherwise it is left out of the mean, which raises it.
    undetected_count: bool = True


PROTOCOLS: dict[str, Protocol] = {
    "official": Protocol(),
    "acar": Protocol(whole_seconds=True, unnamed_are_wrong=True),
    "slowfast": Protocol(cap=None, whole_seconds=True, unnamed_are_wrong=True),
    # Releases 1.0 to 1.2; those before had slowfast's rules.
    "mmaction2": Protocol(cap=None, whole_seconds=True, undetected_count=False),
    # Of evaluate_multisports.py: keyframes are single frames, all their rows count.
    "multisports": Protocol(cap=None),
}


def protocol(word: str) -> Protocol:
    """The rules of an evaluator; an unknown word is a ConfigError."""
    check_word("protocol", word, tuple(PROTOCOLS))
    return PROTOCOLS[word]


class Boxes(NamedTuple):
    """Evaluated rows as arrays; ``corners`` is (n, 4), ``row`` counts from the file's first."""

    key: np.ndarray  # of the keyframe
    column: np.ndarray  # of the class
    video: np.ndarray
    action: np.ndarray
    score: np.ndarray
    corners: np.ndarray
    row: np.ndarray

    def at(self, rows: np.ndarray) -> Boxes:
        """These rows (a mask or positions)."""
        return Boxes(*(values[rows] for values in self))


def evaluated_boxes(
    groundtruth: Rows,
    detections: Rows,
    label_map: LabelMap,
    rules: Protocol,
    excluded: AbstractSet[tuple[str, str]] = frozenset(),
) -> tuple[list[str], Boxes, Boxes]:
    """Rules 1 to 3 and 5: the videos, ground truth and what counts of predictions, by keyframe."""
    truth, found = table(groundtruth), table(detections)
    videos, video, key, out_K = _keyframes(truth, found, rules, excluded)
    truth_key, found_key = np.split(key, [len(truth)])
    truth_video, found_video = np.split(video, [len(truth)])
    counts_K = np.full(len(out_K), rules.unnamed_are_wrong)
    counts_K[truth_key] = True
    counts_K &= ~out_K
    truths = _selected(truth, truth_key, truth_video, label_map, counts_K)
    listed = np.array([row for rows in _heaps(truths) for row in rows], dtype=np.int64)
    truths = truths.at(listed[np.lexsort((-truths.score[listed], truths.key[listed]))])
    boxes = _selected(found, found_key, found_video, label_map, counts_K)
    if (boxes.key[1:] < boxes.key[:-1]).any():  # a file that is in order needs no copy
        boxes = boxes.at(np.argsort(boxes.key, kind="stable"))
    if rules.cap is not None:
        boxes = boxes.at(_pass_heap(boxes, rules.cap))
    x1, y1, x2, y2 = boxes.corners.T
    return videos, truths, boxes.at((x1 < x2) & (y1 < y2))


def _keyframes(
    truth: pd.DataFrame, found: pd.DataFrame, rules: Protocol, excluded: AbstractSet
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Rule 1: the videos, every row's video and keyframe (ground truth first), (K,) exclusion."""

    def name(second: float | str) -> str:
        return f"{int(float(second)):04d}" if rules.whole_seconds else f"{float(second):.6f}"

    names = (rows["video"].cat for rows in (truth, found))
    both = [column.rename_categories(column.categories.astype(object)) for column in names]
    both = pd.api.types.union_categoricals(both)
    video, videos = both.codes.astype(np.int32), both.categories
    # Few seconds differ: only those are written as text.
    times = np.concatenate([rows["timestamp"].to_numpy(np.float64) for rows in (truth, found)])
    time, seconds = pd.factorize(times)
    moments, names = pd.factorize(np.array([name(second) for second in seconds], dtype=object))
    key, places = pd.factorize(video.astype(np.int64) * len(names) + moments[time])
    out_video = videos.get_indexer([video for video, _ in excluded])
    out_moment = pd.Index(names).get_indexer([name(second) for _, second in excluded])
    named = (out_video >= 0) & (out_moment >= 0)
    out = (out_video * len(names) + out_moment)[named]
    return videos.tolist(), video, key.astype(np.int32), np.isin(places, out)


def _selected(
    rows: pd.DataFrame,
    key: np.ndarray,
    video: np.ndarray,
    label_map: LabelMap,
    counts_K: np.ndarray,
) -> Boxes:
    """The rows whose class is evaluated and whose keyframe counts."""
    actions = rows["action_id"].to_numpy(np.int32)
    column = pd.Index(label_map.ids).get_indexer(actions).astype(np.int16)
    kept = np.flatnonzero((column >= 0) & counts_K[key])
    corners = np.stack([rows[name].to_numpy(np.float64)[kept] for name in BOX], axis=1)
    score = rows["score"].to_numpy(np.float64)[kept]
    named = (key[kept], column[kept], video[kept], actions[kept])
    return Boxes(*named, score, corners, kept.astype(np.int32))


def _heaps(boxes: Boxes, cap: int | None = None) -> Iterator[list[int]]:
    """The rows of each keyframe as the official heap of ``cap`` entries lists them at the end."""
    x1, y1, x2, y2 = boxes.corners.T.tolist()
    named = boxes.key.tolist(), boxes.score.tolist(), boxes.action.tolist()
    heaps: dict[int, list[tuple]] = {}
    for row, (key, *values) in enumerate(zip(*named, y1, x1, y2, x2, strict=True)):
        heap, entry = heaps.setdefault(key, []), (*values, row)
        if cap is None or len(heap) < cap:
            heapq.heappush(heap, entry)
        elif entry[0] > heap[0][0]:
            heapq.heapreplace(heap, entry)
    return ([entry[-1] for entry in heap] for heap in heaps.values())


def _pass_heap(boxes: Boxes, cap: int) -> np.ndarray:
    """Rule 3 without heaps: (D,) which rows a heap of ``cap`` would hold at the end.

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
        if not crowded.any():
            continue
        # Several rows are tied for the last places of these keyframes.
        rows, reach, above = rows[crowded], reach[crowded], (scores > lowest)[crowded]
        tied = reach & ~above & (np.cumsum(reach, axis=1) <= cap)
        surplus = above.sum(axis=1) + tied.sum(axis=1) - cap
        keyframe, column = np.nonzero(tied)
        row = rows[keyframe, column]
        x1, y1, x2, y2 = boxes.corners[row].T
        order = np.lexsort((x2, y2, x1, y1, boxes.action[row], keyframe))
        keyframe, column = keyframe[order], column[order]
        rank = np.arange(len(order)) - np.searchsorted(keyframe, keyframe)
        tied[keyframe, column] = rank >= surplus[keyframe]
        keep[rows] = above | tied
    return keep


@dataclass(frozen=True)
class Matches:
    """The predictions that count, class by class and from the highest score down.

    A class is a position in ``ids``; it owns predictions ``starts[c]`` to ``starts[c + 1]``.
    """

    ids: tuple[int, ...]  # the evaluated actions
    videos: tuple[str, ...]  # (V,) their names
    starts: np.ndarray
    scores: np.ndarray  # (D,)
    hits: np.ndarray  # (D,) whether a prediction is right
    video: np.ndarray  # (D,)
    truth_class: np.ndarray  # (G,)
    truth_video: np.ndarray  # (G,)
    rules: Protocol

    def of_videos(self, names: AbstractSet[str]) -> Matches:
        """The matches in some of the videos, as if no other had been evaluated."""
        inside = np.array([name in names for name in self.videos], dtype=bool)
        kept, truths = inside[self.video], inside[self.truth_video]
        ends = np.concatenate(([0], np.cumsum(kept)))
        parts = {name: getattr(self, name)[kept] for name in ("scores", "hits", "video")}
        parts |= {name: getattr(self, name)[truths] for name in ("truth_class", "truth_video")}
        return replace(self, starts=ends[self.starts], **parts)


def match(
    groundtruth: Rows,
    detections: Rows,
    label_map: LabelMap,
    rules: str = "official",
    *,
    iou: float = 0.5,
    ties: str = "file",
    excluded: AbstractSet[tuple[str, str]] = frozenset(),
) -> Matches:
    """Decide which predictions are right.

    ``groundtruth`` and ``detections`` (with a score in the last column) are CSV files in AVA's
    layout, frames with the same columns, or sequences of either for one joint evaluation. ``rules``
    are a word of :data:`PROTOCOLS`; ``iou`` is the least IoU of a match;
    ``ties`` orders equal scores, ``file`` or ``official`` (see the module); ``excluded`` keyframes
    (video, ``%.6f`` of the timestamp) are not scored.
    """
    applied = protocol(rules)
    check_word("ties", ties, ("file", "official"))
    videos, truths, boxes = evaluated_boxes(groundtruth, detections, label_map, applied, excluded)
    if ties == "official":
        boxes = boxes.at(_official_order(boxes, applied.cap))
    hits, _ = find_hits(truths, boxes, iou)
    # Class by class, from the highest score down.
    if ties == "file":
        order = np.lexsort((-boxes.score, boxes.column))
    else:  # by the very call of the official evaluator
        classes = [np.flatnonzero(boxes.column == c) for c in range(len(label_map.ids))]
        order = np.concatenate([rows[np.argsort(boxes.score[rows])[::-1]] for rows in classes])
    sizes = np.bincount(boxes.column, minlength=len(label_map.ids))
    return Matches(
        ids=tuple(label_map.ids),
        videos=tuple(videos),
        starts=np.concatenate(([0], np.cumsum(sizes))),
        scores=boxes.score[order],
        hits=hits[order],
        video=boxes.video[order],
        truth_class=truths.column,
        truth_video=truths.video,
        rules=applied,
    )


def _official_order(boxes: Boxes, cap: int | None) -> np.ndarray:
    """(D,) the positions of the predictions in the official order.

    Keyframes in the order of their first evaluated row, a keyframe's predictions of a class from
    the highest score down, equal ones as the keyframe's heap lists them.
    """
    # Only keyframes in which a class has equal scores need a heap.
    order = np.lexsort((boxes.score, boxes.column, boxes.key))
    same = np.ones(max(0, len(order) - 1), bool)
    for values in (boxes.key, boxes.column, boxes.score):
        same &= values[order][1:] == values[order][:-1]
    rows = np.flatnonzero(np.isin(boxes.key, boxes.key[order[1:][same]]))
    rows = rows[np.argsort(boxes.row[rows])]
    place = np.zeros(len(boxes.key), np.int64)  # in the heap
    for heap in _heaps(boxes.at(rows), cap):
        place[rows[heap]] = np.arange(len(heap))
    _, first, key = np.unique(boxes.key, return_index=True, return_inverse=True)
    first_row = np.minimum.reduceat(boxes.row, first) if len(first) else first
    return np.lexsort((place, -boxes.score, boxes.column, first_row[key]))


def find_hits(truths: Boxes, boxes: Boxes, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Rule 4: (D,) which predictions are right, and (D,) the box each looked at (0 if none)."""
    hits = np.zeros(len(boxes.key), dtype=bool)
    looked_at = np.zeros(len(boxes.key), dtype=np.int64)
    num_classes = 1 + int(max(truths.column.max(initial=0), boxes.column.max(initial=0)))
    groups = (rows.key.astype(np.int64) * num_classes + rows.column for rows in (boxes, truths))
    box, truth = pairs(*groups)
    if not len(box):
        return hits, looked_at
    # Predictions from the highest score down, each with all boxes of its class in the keyframe.
    order = np.argsort(-boxes.score[box], kind="stable")
    box, truth = box[order], truth[order]
    overlap = overlaps(boxes.corners[box], truths.corners[truth])
    starts = np.flatnonzero(np.diff(box, prepend=-1))
    best = np.maximum.reduceat(overlap, starts)
    highest = np.flatnonzero(overlap == np.repeat(best, np.diff(starts, append=len(box))))
    highest = highest[np.diff(box[highest], prepend=-1) != 0]  # the first of equal ones
    looked_at[box[highest]] = truth[highest]
    right = highest[best >= iou]
    _, earliest = np.unique(truth[right], return_index=True)
    hits[box[right[earliest]]] = True
    return hits, looked_at


def pairs(group_D: np.ndarray, truth_group_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R,) predictions and (R,) boxes of the same group; a prediction's pairs are neighbours."""
    by_group = np.argsort(truth_group_G, kind="stable")
    groups, first, sizes = np.unique(truth_group_G[by_group], return_index=True, return_counts=True)
    if not len(groups):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    place = np.minimum(np.searchsorted(groups, group_D), len(groups) - 1)
    box = np.flatnonzero(groups[place] == group_D)
    place = place[box]
    starts = np.cumsum(sizes[place]) - sizes[place]
    number = np.repeat(np.arange(len(box)), sizes[place])
    return box[number], by_group[first[place][number] + np.arange(len(number)) - starts[number]]


def overlaps(boxes_R4: np.ndarray, others_R4: np.ndarray) -> np.ndarray:
    """IoU of pairs, (R,), in float64; the union is (a1 + a2) - inter.

    Of boxes (N, 1, 4) and (G, 4) it is that of each with each, (N, G).
    """
    (x1, y1, x2, y2), (u1, v1, u2, v2) = (np.moveaxis(x, -1, 0) for x in (boxes_R4, others_R4))
    width = np.maximum(0.0, np.minimum(x2, u2) - np.maximum(x1, u1))
    height = np.maximum(0.0, np.minimum(y2, v2) - np.maximum(y1, v1))
    inter = width * height
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(inter / union, nan=0.0)  # 0 / 0: ground truth of negative area

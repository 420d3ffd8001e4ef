"""Which predictions are right, by the rules of the official evaluator or of three others.

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

**Tie rule.** The official evaluator sorts scores with an unstable sort, so its number for tied
scores depends on the processor. Here equal scores keep the order in which ground truth first names
their keyframes and, inside a keyframe, that of the file: one pair of files, one number.
``ties="official"`` sorts as the official evaluator would on this machine, and gives its number:
keyframes in the order of their first evaluated row, a keyframe's predictions of a class from the
highest score down, equal ones as its heap lists them.

Legend: K keyframes, D predictions, G ground-truth boxes, R pairs of the two, V videos.
"""

from __future__ import annotations

import heapq
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from stadlib.base import check_word
from stadlib.data.labels import LabelMap
from stadlib.data.rows import BOX, Rows, table


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The rules in which evaluators differ.

    Attributes:
        cap: detection rows of evaluated classes kept a keyframe, the highest; None keeps all.
        whole_seconds: keyframes are named by ``int(timestamp)``, so that fractional Kinetics
            timestamps of one second fall together; otherwise by ``%.6f``.
        unnamed_are_wrong: detections in keyframes that no ground-truth row names are false
            positives unless the keyframe is excluded; otherwise they are ignored.
        undetected_count: a class with ground truth and no detection has AP 0; otherwise it is
            left out of the mean, which raises it.
    """

    cap: int | None = 50
    whole_seconds: bool = False
    unnamed_are_wrong: bool = False
    undetected_count: bool = True


PROTOCOLS: dict[str, Protocol] = {
    "official": Protocol(),
    "acar": Protocol(whole_seconds=True, unnamed_are_wrong=True),
    "slowfast": Protocol(cap=None, whole_seconds=True, unnamed_are_wrong=True),
    "mmaction2": Protocol(
        cap=None, whole_seconds=True, unnamed_are_wrong=True, undetected_count=False
    ),
}


def protocol(word: str) -> Protocol:
    """The rules of an evaluator.

    Raises:
        ConfigError: an unknown word; the message names the choices.
    """
    check_word("protocol", word, tuple(PROTOCOLS))
    return PROTOCOLS[word]


def official_arrangement(boxes: Boxes, cap: int | None) -> np.ndarray:
    """The positions of the detections in the official order, (D,)."""
    _, first, key = np.unique(boxes.key, return_index=True, return_inverse=True)
    first_row = np.minimum.reduceat(boxes.row, first) if len(first) else first
    place = _heap_places(boxes, cap)
    return np.lexsort((place, -boxes.score, boxes.column, first_row[key]))


def _heap_places(boxes: Boxes, cap: int | None) -> np.ndarray:
    """(D,) where a detection stands in its keyframe's heap; 0 where no tie makes that matter."""
    place = np.zeros(len(boxes.key), np.int64)
    order = np.lexsort((boxes.score, boxes.column, boxes.key))
    same = np.ones(max(0, len(order) - 1), bool)
    for values in (boxes.key, boxes.column, boxes.score):
        same &= values[order][1:] == values[order][:-1]
    x1, y1, x2, y2 = boxes.corners.T
    for key in np.unique(boxes.key[order[1:][same]]):
        rows = np.flatnonzero(boxes.key == key)
        rows = rows[np.argsort(boxes.row[rows])]
        heap: list[tuple] = []
        for row in rows.tolist():
            entry = (boxes.score[row], boxes.action[row], y1[row], x1[row], y2[row], x2[row], row)
            if cap is None or len(heap) < cap:
                heapq.heappush(heap, entry)
            elif entry[0] > heap[0][0]:
                heapq.heapreplace(heap, entry)
        place[[entry[-1] for entry in heap]] = np.arange(len(heap))
    return place


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


@dataclass(frozen=True)
class Matches:
    """The detections that count, class by class and from the highest score down.

    Attributes:
        ids: the evaluated action ids; a class is a position in it.
        videos: names of the videos, (V,).
        starts: class c owns detections ``starts[c]`` to ``starts[c + 1]``.
        scores: (D,).
        hits: (D,) whether a detection is right.
        video: (D,) video of a detection.
        truth_class: (G,) class of a ground-truth box.
        truth_video: (G,) its video.
        rules: by which it was decided.
    """

    ids: tuple[int, ...]
    videos: tuple[str, ...]
    starts: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    video: np.ndarray
    truth_class: np.ndarray
    truth_video: np.ndarray
    rules: Protocol

    def of_videos(self, names: AbstractSet[str]) -> Matches:
        """The matches in some of the videos, as if no other had been evaluated."""
        inside = np.array([name in names for name in self.videos], dtype=bool)
        kept, truths = inside[self.video], inside[self.truth_video]
        ends = np.concatenate(([0], np.cumsum(kept)))
        return replace(
            self,
            starts=ends[self.starts],
            scores=self.scores[kept],
            hits=self.hits[kept],
            video=self.video[kept],
            truth_class=self.truth_class[truths],
            truth_video=self.truth_video[truths],
        )

    def counts(self) -> dict[str, int]:
        """How many detections count, are right, and how many boxes and videos there are."""
        return {
            "detections": len(self.scores),
            "right": int(self.hits.sum()),
            "boxes": len(self.truth_class),
            "videos": len(np.unique(self.truth_video)),
        }


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
    """Decide which detections are right.

    Args:
        groundtruth: a CSV file in AVA's layout, a frame with the same columns, or a sequence of
            either for one joint evaluation.
        detections: the same, with a score in the last column.
        label_map: the classes that are evaluated.
        rules: ``official``, ``acar``, ``slowfast`` or ``mmaction2``.
        iou: the least IoU of a match.
        ties: ``file`` or ``official``, see above.
        excluded: keyframes (video, ``%.6f`` of the timestamp) that nobody scores.

    Raises:
        InputError: names file, row and column of what cannot be read.
        ConfigError: unknown rules, or another word for ties.
    """
    applied = protocol(rules)
    check_word("ties", ties, ("file", "official"))
    videos, truths, boxes = evaluated_boxes(groundtruth, detections, label_map, applied, excluded)
    if ties == "official":
        boxes = boxes.at(official_arrangement(boxes, applied.cap))
    hits, _ = find_hits(truths, boxes, len(label_map.ids), iou)
    order = _ranking(boxes) if ties == "file" else _unstable_ranking(boxes)
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


def _ranking(boxes: Boxes) -> np.ndarray:
    """Class by class, from the highest score down; equal scores stay in order."""
    order = np.argsort(-boxes.score, kind="stable")
    return order[np.argsort(boxes.column[order], kind="stable")]


def _unstable_ranking(boxes: Boxes) -> np.ndarray:
    """Class by class, by the very call of the official evaluator."""
    classes = np.unique(boxes.column)
    own = [np.flatnonzero(boxes.column == column) for column in classes]
    parts = [rows[np.argsort(boxes.score[rows])[::-1]] for rows in own]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def find_hits(
    truths: Boxes, boxes: Boxes, num_classes: int, iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rule 4: (D,) which detections are right, and (D,) the box each looked at (0 if none)."""
    hits = np.zeros(len(boxes.key), dtype=bool)
    looked_at = np.zeros(len(boxes.key), dtype=np.int64)
    if not len(truths.key):
        return hits, looked_at
    group = truths.key.astype(np.int64) * num_classes + truths.column
    truths_by_group = np.argsort(group, kind="stable")
    groups, first, sizes = np.unique(group[truths_by_group], return_index=True, return_counts=True)
    wanted = boxes.key.astype(np.int64) * num_classes + boxes.column
    place = np.minimum(np.searchsorted(groups, wanted), len(groups) - 1)
    asking = np.flatnonzero(groups[place] == wanted)
    asking = asking[np.argsort(-boxes.score[asking], kind="stable")]
    place = place[asking]
    # One row R a pair: detections from the highest score down, each with all of its group.
    starts = np.cumsum(sizes[place]) - sizes[place]
    detection = np.repeat(np.arange(len(asking)), sizes[place])
    offset = np.arange(len(detection)) - starts[detection]
    truth = truths_by_group[first[place][detection] + offset]
    overlap = overlaps(boxes.corners[asking[detection]], truths.corners[truth])
    best = np.maximum.reduceat(overlap, starts) if len(starts) else overlap
    highest = np.flatnonzero(overlap == best[detection])
    highest = highest[np.diff(detection[highest], prepend=-1) > 0]  # the first of equal ones
    looked_at[asking] = truth[highest]
    right = highest[best >= iou]
    _, earliest = np.unique(truth[right], return_index=True)
    hits[asking[detection[right[earliest]]]] = True
    return hits, looked_at


def overlaps(boxes_R4: np.ndarray, others_R4: np.ndarray) -> np.ndarray:
    """IoU of pairs, (R,), in float64; the union is (a1 + a2) - inter."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes_R4.T, others_R4.T
    width = np.maximum(0.0, np.minimum(x2, u2) - np.maximum(x1, u1))
    height = np.maximum(0.0, np.minimum(y2, v2) - np.maximum(y1, v1))
    inter = width * height
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(inter / union, nan=0.0)  # 0 / 0: ground truth of negative area

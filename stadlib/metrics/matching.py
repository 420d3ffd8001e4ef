"""Which detections are right: decided once, for every keyframe and class at the same time.

Rule 4 of ActivityNet's ``get_ava_performance.py`` (the others: :mod:`stadlib.metrics.evaluated`):

4. A detection looks at the ground-truth box of its class with the highest IoU (float64). It is
   right if that IoU is at least 0.5 and no detection before it took the same box.

**Tie rule.** The official evaluator sorts scores with an unstable sort, so its number for tied
scores depends on the processor. Here equal scores keep the order in which ground truth first names
their keyframes and, inside a keyframe, that of the detection file: one pair of files, one number.
``ties="official"`` sorts as the official evaluator would on this machine, and gives its number;
:func:`tie_interval` says how far any order of equal scores could move the number.

Legend: D detections, G ground-truth boxes, R pairs of the two, V videos.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np

from stadlib.config import check_word
from stadlib.labels import LabelMap
from stadlib.metrics.arrangement import official_arrangement
from stadlib.metrics.evaluated import Boxes, evaluated_boxes
from stadlib.metrics.protocols import Protocol, protocol
from stadlib.metrics.rows import Rows


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

"""Video mAP: predictions linked into tubes, and tubes matched with the annotated ones.

Predictions are linked class by class with the online greedy rule of ACT (Kalogeiton et al., ICCV
2017, section 3.3), which follows Singh et al. (ICCV 2017), for single frames as mmaction2 has it
for MultiSports. At each keyframe the tubes that reach the one before choose in turn, from the
highest mean score down: each takes the free box of the highest score that overlaps its last box by
``LINK_IOU``. A tube that finds none ends, and boxes that are left begin tubes. A tube's score is
the mean of its boxes'. ``MOST`` boxes of a class are looked at in a keyframe, none below ``LEAST``.

A tube's IoU with another is the sum of their boxes' IoUs by the number of keyframes in which
either is. Where keyframes are not all frames, it is over those that there are.

Two conventions of AP are in use. ``voc``, of MultiSports' ``evaluate_multisports.py``: a tube looks
at the annotated one of highest IoU, and is wrong if that is taken; the area is that under the
envelope of precision. ``act``, of ACT and MOC: it looks at those not yet taken; the area is that
under the straight lines between the points of precision and recall, from precision 1 on.

Legend: R boxes, T tubes, D predicted tubes, G annotated tubes, Q pairs of the two.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from stadlib.base import InputError
from stadlib.data.labels import LabelMap
from stadlib.data.rows import Rows, table
from stadlib.evaluation.average_precision import average_precision
from stadlib.evaluation.matching import Boxes, Protocol, evaluated_boxes, overlaps, pairs

LINK_IOU, MOST, LEAST = 0.5, 10, 0.005  # of ACT's and MOC's code
STRICT = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MEASURES = {"0.2": (0.2,), "0.5": (0.5,), "0.5:0.95": STRICT}  # means over these IoUs


class Tubes(NamedTuple):
    """Boxes as tubes; every tube is of one video and class, with a box a keyframe at most."""

    tube: np.ndarray  # (R,) which tube a box is of
    moment: np.ndarray  # (R,) number of its keyframe; those of a video follow each other
    corners: np.ndarray  # (R, 4)
    column: np.ndarray  # (T,) class
    video: np.ndarray  # (T,)
    score: np.ndarray  # (T,)


def video_map(
    groundtruth: Rows,
    detections: Rows,
    label_map: LabelMap,
    *,
    shortest: int = 1,
    excluded: AbstractSet[tuple[str, str]] = frozenset(),
) -> dict:
    """Video mAP of predictions on ground truth whose column 8 numbers the tubes of each video.

    Rows are those of :func:`.matching.match`; keyframes are all that ground truth names. Predicted
    tubes of fewer keyframes than ``shortest`` are left out (ACT and mmaction2: 15 frames). Returns
    ``voc`` and ``act``, each with a mean over classes by :data:`MEASURES` (fractions, None without
    ground truth), and the numbers of ``tubes`` and ``annotated`` ones. InputError where column 8
    numbers no tubes.
    """
    truth, found = table(groundtruth), table(detections)
    found = found[found["score"] >= LEAST]
    rules = Protocol(cap=None)
    _, truths, boxes = evaluated_boxes(truth, found, label_map, rules, excluded)
    # Ground truth's videos are numbered first, in the order of its categories.
    video, second = truth["video"].cat.codes.to_numpy(), truth["timestamp"].to_numpy()
    moments = np.unique(_moment(video, second))
    annotated = annotated_tubes(
        truths, np.searchsorted(moments, _moment(truths.video, second[truths.row]))
    )
    if (bad := _twice(annotated)) is not None:
        row = truths.row[bad]
        name = f"{truth['video'].iloc[row]},{truth['timestamp'].iloc[row]:g}"
        remedy = "give every person of a video a number of its own in column 8"
        raise InputError(f"keyframe {name}: two boxes of one action and person; {remedy}")
    times = found["timestamp"].to_numpy()[boxes.row]
    at = np.searchsorted(moments, _moment(boxes.video, times))
    step = at - np.searchsorted(moments.real, boxes.video)
    linked = link(boxes, at, step, shortest)
    areas = areas_of(linked, annotated, len(label_map.ids))
    return areas | {"tubes": len(linked.score), "annotated": len(annotated.score)}


def _moment(video: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Complex numbers, which sort by video and, inside one, by second at six decimals."""
    return video + 1j * np.round(second, 6)


def annotated_tubes(truths: Boxes, moment: np.ndarray) -> Tubes:
    """The boxes of one video, class and person (column 8, read as the score) as a tube."""
    width = 1 + int(truths.column.max(initial=0))
    group = truths.video.astype(np.int64) * width + truths.column
    tubes, tube = np.unique(group + 1j * truths.score, return_inverse=True)
    video, column = np.divmod(tubes.real.astype(np.int64), width)
    return Tubes(tube, moment, truths.corners, column, video, tubes.imag)


def _twice(tubes: Tubes) -> int | None:
    """A box whose tube has another box in its keyframe, if there is one."""
    order = np.lexsort((tubes.moment, tubes.tube))
    same = np.diff(tubes.tube[order]) + np.abs(np.diff(tubes.moment[order])) == 0
    return int(order[same.argmax() + 1]) if same.any() else None


def link(boxes: Boxes, moment: np.ndarray, step: np.ndarray, shortest: int = 1) -> Tubes:
    """Link boxes (R) of all videos and classes into tubes; ``step`` counts a video's keyframes.

    A tube of one video and class never meets those of others, so all are linked at once. Equal
    scores keep the file's order, equal means that of the tubes' beginning.
    """
    group = boxes.video.astype(np.int64) * (1 + int(boxes.column.max(initial=0))) + boxes.column
    order = np.lexsort((-boxes.score, group, step))
    order = order[_ranks(step[order], group[order]) < MOST]
    step, group, score, corners = (a[order] for a in (step, group, boxes.score, boxes.corners))
    tube, count = np.full(len(order), -1), 0
    sums, sizes = np.zeros(len(order)), np.zeros(len(order), np.int64)
    last = np.empty(0, np.int64)
    ends = np.searchsorted(step, np.arange(int(step.max(initial=-1)) + 2))
    for start, end in pairwise(ends):
        now = np.arange(start, end)
        ours, theirs = pairs(group[last], group[now])
        near = overlaps(corners[last[ours]], corners[now[theirs]]) >= LINK_IOU
        ours, theirs = ours[near], theirs[near]
        of_last = tube[last]
        by_mean = np.lexsort((of_last, -sums[of_last] / sizes[of_last], group[last]))
        turn = np.empty(len(last), np.int64)
        turn[by_mean] = _ranks(group[last[by_mean]])
        taken = in_turn(turn[ours], ours, theirs)
        tube[now[theirs[taken]]] = of_last[ours[taken]]
        new = now[tube[now] < 0]
        tube[new] = count + np.arange(len(new))
        count += len(new)
        sums[tube[now]] += score[now]  # a tube has one box of a keyframe
        sizes[tube[now]] += 1
        last = now
    sums, sizes = sums[:count], sizes[:count]
    first = order[np.unique(tube, return_index=True)[1]]  # a box of each tube
    kept = (sizes >= shortest) & (sums / np.maximum(sizes, 1) >= LEAST)
    inside = kept[tube]
    number = np.cumsum(kept) - 1
    rows, of_tube = order[inside], (boxes.column[first[kept]], boxes.video[first[kept]])
    of_row = number[tube[inside]], moment[rows], boxes.corners[rows]
    return Tubes(*of_row, *of_tube, (sums / np.maximum(sizes, 1))[kept])


def _ranks(*keys: np.ndarray) -> np.ndarray:
    """Numbers from 0 inside each run of rows whose keys are equal."""
    begins = np.ones(len(keys[0]), bool)
    begins[1:] = np.any([np.diff(key) != 0 for key in keys], axis=0)
    starts = np.flatnonzero(begins)
    return np.arange(len(begins)) - np.repeat(starts, np.diff(starts, append=len(begins)))


def in_turn(turn: np.ndarray, chooser: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Positions of the pairs that come about where choosers choose in turn, each once.

    A chooser's pairs are neighbours, what it likes best first. Choosers of one turn do not compete.
    """
    free = np.ones(int(chosen.max(initial=-1)) + 1, bool)
    order, taken = np.argsort(turn, kind="stable"), []
    for part in np.split(order, np.flatnonzero(np.diff(turn[order])) + 1):
        open_ones = part[free[chosen[part]]]
        best = open_ones[np.diff(chooser[open_ones], prepend=-1) != 0]
        free[chosen[best]] = False
        taken.append(best)
    return np.concatenate(taken)


def tube_overlaps(found: Tubes, truths: Tubes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Q,) predicted tubes, annotated tubes and IoUs of those of one class that share a keyframe.

    In the order of the predicted tubes.
    """
    width = 1 + int(max(found.column.max(initial=0), truths.column.max(initial=0)))
    groups = (tubes.moment * width + tubes.column[tubes.tube] for tubes in (found, truths))
    box, truth = pairs(*groups)
    overlap = overlaps(found.corners[box], truths.corners[truth])
    key = found.tube[box].astype(np.int64) * len(truths.score) + truths.tube[truth]
    both, place = np.unique(key, return_inverse=True)
    mine, theirs = np.divmod(both, max(1, len(truths.score)))
    shared, summed = np.bincount(place), np.bincount(place, weights=overlap)
    either = np.bincount(found.tube)[mine] + np.bincount(truths.tube)[theirs] - shared
    return mine, theirs, summed / either


def areas_of(found: Tubes, truths: Tubes, num_classes: int) -> dict[str, dict[str, float | None]]:
    """Mean AP over the classes with annotated tubes, by convention and IoU."""
    mine, theirs, iou = tube_overlaps(found, truths)
    order = np.lexsort((-iou, mine))  # what a tube likes best first
    mine, theirs, iou = mine[order], theirs[order], iou[order]
    first = np.diff(mine, prepend=-1) != 0
    # Equal scores by the tubes' beginning.
    by_group = np.lexsort((-found.score, found.column, found.video))
    turn = np.empty(len(by_group), np.int64)
    turn[by_group] = _ranks(found.video[by_group], found.column[by_group])
    ranking = np.lexsort((-found.score, found.column))
    ends = np.searchsorted(found.column[ranking], np.arange(num_classes + 1))
    counts = np.bincount(truths.column, minlength=num_classes)
    report: dict[str, dict[str, float | None]] = {}
    for area, choices, of_hits in (("voc", first, average_precision), ("act", True, area_of_lines)):
        by_iou = {}
        for least in (0.2, *STRICT):
            able = np.flatnonzero(choices & (iou >= least))
            taken = able[in_turn(turn[mine[able]], mine[able], theirs[able])]
            hits = np.isin(ranking, mine[taken])
            parts = [
                of_hits(hits[ends[c] : ends[c + 1]], counts[c]) for c in np.flatnonzero(counts)
            ]
            by_iou[least] = np.mean(parts) if parts else np.nan
        means = {name: float(np.mean([by_iou[i] for i in ious])) for name, ious in MEASURES.items()}
        report[area] = {name: None if np.isnan(mean) else mean for name, mean in means.items()}
    return report


def area_of_lines(hits: np.ndarray, num_truths: int) -> float:
    """Area under the lines between (recall, precision) of hits from the highest score down."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    means = (precision + np.concatenate(([1.0], precision))[:-1]) / 2
    return float(means[hits].sum() / num_truths)

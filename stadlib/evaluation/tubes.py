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

Legend: R boxes, T tubes, Q pairs of predicted and annotated tubes.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np
import pandas as pd

from stadlib.base import InputError
from stadlib.data.layout import LabelMap
from stadlib.data.rows import Rows, table
from stadlib.evaluation.average_precision import average_precision
from stadlib.evaluation.matching import Protocol, evaluated_boxes, overlaps, pairs

LINK_IOU, MOST, LEAST = 0.5, 10, 0.005  # of ACT's and MOC's code
STRICT = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MEASURES = {"0.2": (0.2,), "0.5": (0.5,), "0.5:0.95": STRICT}  # means over these IoUs


class Tubes(NamedTuple):
    """Boxes as tubes; every tube is of one video and class, with a box a keyframe at most."""

    tube: np.ndarray  # (R,) which tube a box is of
    moment: np.ndarray  # (R,) number of its keyframe
    corners: np.ndarray  # (R, 4)
    group: np.ndarray  # (T,) number of the video times that of classes, plus the class
    score: np.ndarray  # (T,)


def video_map(
    groundtruth: Rows,
    detections: Rows,
    label_map: LabelMap,
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
    found, num_classes = found[found["score"] >= LEAST], label_map.num_actions
    every_row = Protocol(cap=None)
    _, truths, boxes = evaluated_boxes(truth, found, label_map, every_row, excluded)
    times = [rows["timestamp"].to_numpy() for rows in (truth, found)]
    # Complex numbers sort by video and, inside one, by second. Ground truth's videos come first.
    moments = np.unique(truth["video"].cat.codes.to_numpy() + 1j * times[0].round(6))
    numbers, groups = [], []
    for rows, seconds in zip((truths, boxes), times, strict=True):
        seconds_R = seconds[rows.row].round(6)
        numbers.append(np.searchsorted(moments, rows.video + 1j * seconds_R))
        groups.append(rows.video.astype(np.int64) * num_classes + rows.column)
    tubes, tube = np.unique(groups[0] + 1j * truths.score, return_inverse=True)
    key = numbers[0] + 1j * tube
    if len(key) > len(np.unique(key)):
        row = truths.row[pd.Series(key).duplicated().argmax()]
        name = f"{truth['video'].iloc[row]},{truth['timestamp'].iloc[row]:g}"
        remedy = "give every person of a video a number of its own in column 8"
        raise InputError(f"keyframe {name}: two boxes of one action and person; {remedy}")
    group = tubes.real.astype(np.int64)
    annotated = Tubes(tube, numbers[0], truths.corners, group, tubes.imag)
    step = numbers[1] - np.searchsorted(moments.real, boxes.video)
    kept = places(numbers[1] * num_classes + boxes.column, -boxes.score) < MOST
    rows = (groups[1], step, numbers[1], boxes.score, boxes.corners)
    linked = link(*(values[kept] for values in rows), shortest=shortest)
    areas = areas_of(linked, annotated, num_classes)
    return areas | {"tubes": len(linked.score), "annotated": len(tubes)}


def link(group: np.ndarray, step: np.ndarray, moment: np.ndarray, score: np.ndarray,
         corners: np.ndarray, *, shortest: int) -> Tubes:  # fmt: skip
    """Link boxes (R) of all videos and classes into tubes; ``step`` counts a video's keyframes.

    A tube of one video and class never meets those of others, so all are linked at once. Equal
    scores keep the file's order, equal means that of the tubes' beginning.
    """
    order = np.lexsort((-score, group, step))
    tube = np.full(len(order), -1)
    count, last = 0, np.empty(0, np.int64)
    sums, sizes = np.zeros(len(order)), np.zeros(len(order), np.int64)
    for now in np.split(
        order, np.searchsorted(step[order], np.arange(1, 1 + int(step.max(initial=0))))
    ):
        mine, theirs = pairs(group[last], group[now])
        near = overlaps(corners[last[mine]], corners[now[theirs]]) >= LINK_IOU
        mine, theirs = mine[near], theirs[near]
        reaching = tube[last]
        turn = places(group[last], -sums[reaching] / sizes[reaching], reaching)
        taken = in_turn(turn[mine], mine, theirs)
        tube[now[theirs[taken]]] = reaching[mine[taken]]
        new = now[tube[now] < 0]
        tube[new] = count + np.arange(len(new))
        count, last = count + len(new), now
        sums[tube[now]] += score[now]  # a tube has one box of a keyframe
        sizes[tube[now]] += 1
    kept = sizes[:count] >= shortest
    inside = kept[tube]
    group_of = np.empty(count, np.int64)
    group_of[tube] = group
    rows = (np.cumsum(kept) - 1)[tube[inside]], moment[inside], corners[inside]
    return Tubes(*rows, group_of[kept], (sums[:count] / sizes[:count])[kept])


def places(group: np.ndarray, *by: np.ndarray) -> np.ndarray:
    """(n,) the place of each in its group (0 or more), ordered by ``by``, then as it stands."""
    order = np.lexsort((*reversed(by), group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return place


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


def tube_overlaps(found: Tubes, truths: Tubes, num_classes: int) -> tuple[np.ndarray, ...]:
    """(Q,) predicted and annotated tubes of a class that share a keyframe, and their IoUs.

    By predicted tube, the highest IoU first.
    """
    groups = (t.moment * num_classes + t.group[t.tube] % num_classes for t in (found, truths))
    box, truth = pairs(*groups)
    overlap = overlaps(found.corners[box], truths.corners[truth])
    both, place = np.unique(found.tube[box] + 1j * truths.tube[truth], return_inverse=True)
    mine, theirs = both.real.astype(np.int64), both.imag.astype(np.int64)
    shared, summed = np.bincount(place), np.bincount(place, weights=overlap)
    either = np.bincount(found.tube)[mine] + np.bincount(truths.tube)[theirs] - shared
    order = np.lexsort((-summed / either, mine))
    return mine[order], theirs[order], (summed / either)[order]


def areas_of(found: Tubes, truths: Tubes, num_classes: int) -> dict[str, dict[str, float | None]]:
    """Mean AP over the classes with annotated tubes, by convention and IoU."""
    mine, theirs, iou = tube_overlaps(found, truths, num_classes)
    first = np.diff(mine, prepend=-1) != 0
    turn = places(found.group, -found.score)  # equal scores by the tubes' beginning
    column = found.group % num_classes
    ranking = np.lexsort((-found.score, column))
    ends = np.searchsorted(column[ranking], np.arange(num_classes + 1))
    counts = np.bincount(truths.group % num_classes, minlength=num_classes)
    report: dict[str, dict[str, float | None]] = {}
    for area, choices, of_hits in (("voc", first, average_precision), ("act", True, area_of_lines)):
        means = {}
        for least in (0.2, *STRICT):
            able = np.flatnonzero(choices & (iou >= least))
            taken = able[in_turn(turn[mine[able]], mine[able], theirs[able])]
            parts = np.split(np.isin(ranking, mine[taken]), ends[1:-1])
            aps = [of_hits(part, n) for part, n in zip(parts, counts, strict=True) if n]
            means[least] = np.mean(aps) if aps else np.nan
        values = {
            name: np.mean([means[least] for least in ious]) for name, ious in MEASURES.items()
        }
        report[area] = {n: None if np.isnan(v) else float(v) for n, v in values.items()}
    return report


def area_of_lines(hits: np.ndarray, num_truths: int) -> float:
    """Area under the lines between (recall, precision) of hits from the highest score down."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    means = (precision + np.concatenate(([1.0], precision))[:-1]) / 2
    return float(means[hits].sum() / num_truths)

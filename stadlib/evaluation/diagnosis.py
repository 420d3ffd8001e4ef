"""Where AP is lost: an oracle mends one kind of error at a time (TIDE, Bolya et al. 2020).

A false positive of a class is, in this order: a **duplicate** (its best box of the class was taken
by a higher score), a wrong **box** (it overlaps a box of the class by 0.1 or more, too little), a
wrong **label** (it fits a person who does something else), or **background**. A box of the class is
**missed** if no prediction of any class fits it. Mending a wrong box makes it right if nothing else
found its person; mending any other false positive removes it; a missed box is forgiven.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from math import nan

import numpy as np
import pandas as pd

from stadlib.data.layout import LabelMap
from stadlib.data.rows import Rows
from stadlib.evaluation.average_precision import average_precision
from stadlib.evaluation.matching import PROTOCOLS, evaluated_boxes, find_hits, overlaps, pairs

NEAR = 0.1  # the least IoU of a wrong box
KINDS = ("missed", "box", "label", "duplicate", "background")


def diagnose(
    groundtruth: Rows,
    detections: Rows,
    label_map: LabelMap,
    iou: float = 0.5,
    excluded: AbstractSet[tuple[str, str]] = frozenset(),
) -> pd.DataFrame:
    """What AP each class would gain if one kind of error were mended, by the official rules.

    A row an action id with ground truth: ``AP``, the gains by kind (fractions), and ``instead``:
    the commonest action of the same group among the people under the wrong ones of its highest
    scores, as many as the class has boxes.
    """
    official = PROTOCOLS["official"]
    _, truths, boxes = evaluated_boxes(groundtruth, detections, label_map, official, excluded)
    hits, best = find_hits(truths, boxes, iou)
    # Predictions and boxes of one keyframe, whatever their class.
    box, truth = pairs(boxes.key, truths.key)
    overlap = overlaps(boxes.corners[box], truths.corners[truth])
    near = overlap >= min(NEAR, iou)
    box, truth, fits = box[near], truth[near], overlap[near] >= iou
    same_class = boxes.column[box] == truths.column[truth]
    kinds = np.full(len(boxes.key), "background", dtype=object)
    for kind, such in (("label", fits), ("box", same_class), ("duplicate", same_class & fits)):
        kinds[box[such]] = kind  # a later kind overrules an earlier one
    kinds[hits] = ""
    covered = np.isin(np.arange(len(truths.key)), truth[fits])
    taken = np.isin(np.arange(len(truths.key)), best[hits])
    actions = np.array(label_map.ids)[truths.column]
    rows = {}
    for column, action in enumerate(label_map.ids):
        of_class = truths.column == column
        if not of_class.any():
            continue
        mine = np.flatnonzero(boxes.column == column)
        mine = mine[np.argsort(-boxes.score[mine], kind="stable")]
        num_missed = int((of_class & ~covered).sum())
        free = np.where(taken[best[mine]], -1, best[mine])
        gains = _gains(hits[mine], kinds[mine], free, int(of_class.sum()), num_missed)
        # Everybody has a pose: what a class is taken for is another one of its group.
        first = mine[: of_class.sum()]
        confused = actions[truth[fits & np.isin(box, first[~hits[first]])]].tolist()
        same = label_map.group(action)
        alike = Counter(other for other in confused if label_map.group(other) == same)
        instead = label_map.names[alike.most_common(1)[0][0]] if alike else ""
        rows[action] = gains | {"instead": instead}
    table = pd.DataFrame(list(rows.values()), columns=["AP", *KINDS, "instead"])
    return table.set_index(pd.Index(rows, name="action_id", dtype=np.int64))


def _gains(
    hits: np.ndarray, kinds: np.ndarray, free: np.ndarray, num_truths: int, num_missed: int
) -> dict[str, float]:
    """AP of one class and what mending each kind brings.

    ``hits`` and ``kinds`` (D,) go from the highest score down; ``free`` (D,) is the box that a
    prediction is nearest to, -1 where another one found it.
    """
    ap = average_precision(hits, num_truths)
    gains = {"AP": ap}
    for kind in KINDS:
        wrong = kinds == kind
        if kind == "missed":
            left = num_truths - num_missed
            gains[kind] = average_precision(hits, left) - ap if left else nan
        elif kind == "box":
            moved = np.flatnonzero(wrong & (free >= 0))
            _, earliest = np.unique(free[moved], return_index=True)
            mended = hits.copy()
            mended[moved[earliest]] = True
            gains[kind] = average_precision(mended[mended | ~wrong], num_truths) - ap
        else:
            gains[kind] = average_precision(hits[~wrong], num_truths) - ap
    return gains

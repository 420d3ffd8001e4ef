"""Where AP is lost: an oracle mends one kind of error at a time (TIDE, Bolya et al. 2020).

A false positive of a class is, in this order: a **duplicate** (its best box of the class was taken
by a higher score), a wrong **box** (it overlaps a box of the class by 0.1 or more, too little), a
wrong **label** (it fits a person who does something else), or **background**. A box of the class is
**missed** if no detection of any class fits it. Mending a wrong box makes it right if nothing else
found its person; mending any other false positive removes it; a missed box is forgiven.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from math import nan

import numpy as np
import pandas as pd

from stadlib.data.labels import LabelMap, group
from stadlib.data.rows import Rows
from stadlib.evaluation.average_precision import average_precision
from stadlib.evaluation.matching import PROTOCOLS, Boxes, evaluated_boxes, find_hits, overlaps

NEAR = 0.1  # the least IoU of a wrong box; below it is another thing
KINDS = ("missed", "box", "label", "duplicate", "background")


def diagnose(
    groundtruth: Rows,
    detections: Rows,
    label_map: LabelMap,
    iou: float = 0.5,
    excluded: AbstractSet[tuple[str, str]] = frozenset(),
) -> pd.DataFrame:
    """What AP each class would gain if one kind of error were mended, by the official rules.

    Args:
        groundtruth: as in :func:`stadlib.evaluation.matching.match`.
        detections: the same, with scores.
        label_map: the classes that are evaluated.
        iou: the least IoU of a match.
        excluded: keyframes that nobody scores.

    Returns:
        A row an action id with ground truth: ``name``, ``AP``, the gains ``missed``, ``box``,
        ``label``, ``duplicate`` and ``background`` (fractions), and ``instead``: what of the
        same group the persons mostly do who are wrong among as many highest scores as the class
        has boxes.
    """
    official = PROTOCOLS["official"]
    _, truths, boxes = evaluated_boxes(groundtruth, detections, label_map, official, excluded)
    hits, best = find_hits(truths, boxes, len(label_map.ids), iou)
    pairs = _pairs(truths, boxes, iou)
    kinds = _kinds(truths, boxes, hits, pairs, iou)
    covered = np.zeros(len(truths.key), dtype=bool)
    covered[pairs["truth"][pairs["iou"] >= iou]] = True
    taken = np.zeros(len(truths.key), dtype=bool)
    taken[best[hits]] = True
    rows = []
    for column, action in enumerate(label_map.ids):
        mine = np.flatnonzero(boxes.column == column)
        mine = mine[np.argsort(-boxes.score[mine], kind="stable")]
        of_class = truths.column == column
        if not of_class.any():
            continue
        row = _gains(
            hits[mine], kinds[mine], best[mine], taken=taken, of_class=of_class, covered=covered
        )
        first = mine[: of_class.sum()]
        wrong = first[~hits[first]]
        instead = _instead(wrong, truths, pairs, label_map, asked=action, iou=iou)
        rows.append(
            {"action_id": action, "name": label_map.name(action), **row, "instead": instead}
        )
    return pd.DataFrame(rows, columns=["action_id", "name", "AP", *KINDS, "instead"]).set_index(
        "action_id"
    )


def _pairs(truths: Boxes, boxes: Boxes, iou: float) -> dict[str, np.ndarray]:
    """Detections and boxes of one keyframe, whatever their class, that are near each other."""
    by_key = np.argsort(truths.key, kind="stable")
    keys, first, sizes = np.unique(truths.key[by_key], return_index=True, return_counts=True)
    if not len(keys):
        return {"detection": np.empty(0, int), "truth": np.empty(0, int), "iou": np.empty(0)}
    place = np.minimum(np.searchsorted(keys, boxes.key), len(keys) - 1)
    asking = np.flatnonzero(keys[place] == boxes.key)
    place = place[asking]
    number = np.repeat(np.arange(len(asking)), sizes[place])
    starts = np.cumsum(sizes[place]) - sizes[place]
    truth = by_key[first[place][number] + np.arange(len(number)) - starts[number]]
    detection = asking[number]
    overlap = overlaps(boxes.corners[detection], truths.corners[truth])
    near = overlap >= min(NEAR, iou)
    return {"detection": detection[near], "truth": truth[near], "iou": overlap[near]}


def _kinds(
    truths: Boxes, boxes: Boxes, hits: np.ndarray, pairs: dict[str, np.ndarray], iou: float
) -> np.ndarray:
    """(D,) the kind of every false positive; "" for the right ones."""
    own = boxes.column[pairs["detection"]] == truths.column[pairs["truth"]]
    fits = pairs["iou"] >= iou
    kinds = np.full(len(boxes.key), "background", dtype=object)
    # Later lines overrule earlier ones.
    for kind, such in (("label", fits), ("box", own), ("duplicate", own & fits)):
        kinds[pairs["detection"][such]] = kind
    kinds[hits] = ""
    return kinds


def _gains(
    hits: np.ndarray,
    kinds: np.ndarray,
    best: np.ndarray,
    *,
    taken: np.ndarray,
    of_class: np.ndarray,
    covered: np.ndarray,
) -> dict[str, float]:
    """AP of one class and what mending each kind brings; detections from the highest score."""
    total = int(of_class.sum())
    ap = average_precision(hits, total)
    gains = {"AP": ap}
    for kind in KINDS:
        wrong = kinds == kind
        if kind == "missed":
            left = total - int((of_class & ~covered).sum())
            gains[kind] = average_precision(hits, left) - ap if left else nan
        elif kind == "box":
            moved = np.flatnonzero(wrong & ~taken[best])
            _, earliest = np.unique(best[moved], return_index=True)
            mended = hits.copy()
            mended[moved[earliest]] = True
            gains[kind] = average_precision(mended[mended | ~wrong], total) - ap
        else:
            gains[kind] = average_precision(hits[~wrong], total) - ap
    return gains


def _instead(
    wrong: np.ndarray,
    truths: Boxes,
    pairs: dict[str, np.ndarray],
    label_map: LabelMap,
    *,
    asked: int,
    iou: float,
) -> str:
    """The commonest action, of the asked one's group, of the persons whom these detections fit."""
    fits = np.isin(pairs["detection"], wrong) & (pairs["iou"] >= iou)
    actions = np.array(label_map.ids)[truths.column[pairs["truth"][fits]]]
    # Everybody has a pose: what a class is taken for is another one of its group.
    alike = [action for action in actions.tolist() if group(action) == group(asked)]
    return label_map.name(Counter(alike).most_common(1)[0][0]) if alike else ""

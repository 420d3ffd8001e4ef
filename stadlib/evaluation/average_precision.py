"""From matches to average precision: the area under the envelope of precision, over all points.

The bootstrap over videos says how sure a number is, without matching again. Keyframes of one video
are alike, so videos are drawn. In a video that is drawn twice every prediction and every box counts
double. That gives the AP of two copies, since copies of one score are neighbours in the ranking.

The AP of person boxes, whatever the people do, is that of pycocotools, COCO's own evaluator.

Where AP is lost is found by mending one kind of error at a time (TIDE, Bolya et al. 2020). A false
positive of a class is, in this order: a **duplicate** (its best box of the class was taken by a
higher score), a wrong **box** (it overlaps a box of the class by 0.1 or more, too little), a wrong
**label** (it fits a person who does something else), or **background**. A box of the class is
**missed** if no prediction of any class fits it. Mending a wrong box makes it right if nothing else
found its person; mending any other false positive removes it; a missed box is forgiven.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stadlib.base import Report
from stadlib.data.layout import LabelMap
from stadlib.data.rows import BOX, NO_LABEL, Rows, keyframe_keys, table
from stadlib.evaluation.matching import (
    PROTOCOLS,
    Matches,
    evaluated_boxes,
    find_hits,
    match,
    overlaps,
    pairs,
)

PERCENTILES = (0.025, 0.975)  # of the resamples: the ends of an interval
MAX_BOXES = 100  # person boxes of a keyframe, the highest scores
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
PERSON = LabelMap({1: "person"})
NEAR = 0.1  # the least IoU of a wrong box
KINDS = ("missed", "box", "label", "duplicate", "background")


@dataclass(frozen=True)
class Result:
    """Frame mAP and the AP of every class, as fractions."""

    mAP: float  # over the classes with ground truth; NaN if there is none
    AP: dict[int, float | None]  # by action id, in the label map's order; None likewise

    def to_json(self) -> dict:
        """Return ``{"mAP": 0.41, "AP": {"12": 0.87}}``, the form a record holds."""
        mean = None if isnan(self.mAP) else self.mAP
        return {"mAP": mean, "AP": {str(action): ap for action, ap in self.AP.items()}}


def frame_map(
    groundtruth: Rows, detections: Rows, label_map: LabelMap, rules: str = "official", **options
) -> Result:
    """Evaluate predictions, with :func:`match`'s options; A+K is both files at once, no mean."""
    return result(match(groundtruth, detections, label_map, rules, **options))


def result(matches: Matches) -> Result:
    """The APs of matched predictions and their mean."""
    aps = class_aps(matches)
    measured = aps[~np.isnan(aps)]
    ap = {a: None if isnan(v) else v for a, v in zip(matches.ids, aps.tolist(), strict=True)}
    return Result(mAP=float(np.mean(measured)) if len(measured) else nan, AP=ap)


def average_precision(
    hits: np.ndarray, num_truths: float, weights: np.ndarray | None = None
) -> float:
    """AP, a fraction, of predictions that stand from the highest score down.

    With ``weights`` (D,), whole numbers, each counts so many times.
    """
    weights, at = np.ones(len(hits)) if weights is None else weights, np.flatnonzero(hits)
    ranked, right = np.cumsum(weights)[at], np.cumsum(weights[at])
    precision = right / np.maximum(ranked, 1.0)  # before the first that counts: 0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * weights[at]).sum() / num_truths)


def class_aps(matches: Matches, weight_V: np.ndarray | None = None) -> np.ndarray:
    """AP of every class, NaN without ground truth; a video may count ``weight_V`` times."""
    weight_V = np.ones(len(matches.videos)) if weight_V is None else weight_V
    truth_weights, num_classes = weight_V[matches.truth_video], len(matches.ids)
    truths = np.bincount(matches.truth_class, weights=truth_weights, minlength=num_classes)
    weights, values = weight_V[matches.video], np.full(num_classes, np.nan)
    for column in np.flatnonzero(truths):
        mine = slice(matches.starts[column], matches.starts[column + 1])
        if mine.stop > mine.start or matches.rules.undetected_count:
            hits = matches.hits[mine]
            values[column] = average_precision(hits, truths[column], weights[mine])
    return values


def tie_interval(matches: Matches) -> tuple[float, float]:
    """The lowest and the highest mAP that any order of equal scores could give."""
    column = np.repeat(np.arange(len(matches.ids)), np.diff(matches.starts))
    ends = []
    for first in (matches.hits, ~matches.hits):  # wrong ones first, right ones first
        order = np.lexsort((first, -matches.scores, column))
        ends.append(result(replace(matches, hits=matches.hits[order])).mAP)
    return ends[0], ends[1]


def bootstrap(
    matches: Matches,
    minus: Matches | None = None,
    *,
    num_resamples: int = 1_000,
    progress: Report = lambda *_: None,
) -> tuple[float, float, float]:
    """An mAP on all videos, with the ends of its 95 % percentile interval, as fractions.

    With ``minus``, other predictions on the same ground truth, it is that of the difference: both
    sides are resampled on the same videos.
    """
    sides = [matches] if minus is None else [matches, minus]
    draws = _resamples(sides, num_resamples, progress)
    means = np.array([[np.nanmean(aps) for aps in draw] for draw in draws])
    low, high = np.nanquantile(means[:, 0] - means[:, 1:].sum(axis=1), PERCENTILES)
    whole = [result(side).mAP for side in sides]
    return whole[0] - sum(whole[1:]), float(low), float(high)


def bootstrap_classes(
    matches: Matches, minus: Matches, *, num_resamples: int = 1_000
) -> dict[int, tuple[float, float, float]]:
    """The difference in AP of every class with ground truth, as :func:`bootstrap` gives it."""
    sides = [matches, minus]
    samples = np.array([np.subtract(*draw) for draw in _resamples(sides, num_resamples)])
    estimates = np.subtract(*map(class_aps, sides))
    differences = {}
    for column, action in enumerate(matches.ids):
        if not np.isnan(estimates[column]):
            low, high = np.nanquantile(samples[:, column], PERCENTILES)
            differences[action] = (float(estimates[column]), float(low), float(high))
    return differences


def _resamples(
    sides: list[Matches], num_resamples: int, progress: Report = lambda *_: None
) -> Iterator[list[np.ndarray]]:
    """For every draw of videos the APs of the classes, one array a side."""
    generator = np.random.default_rng(0)
    first = sides[0]
    named = sorted({first.videos[video] for video in np.unique(first.truth_video)})
    # Videos without ground truth weigh 1: their position is -1, the last one.
    positions = [pd.Index(named, dtype=object).get_indexer(side.videos) for side in sides]
    for number in range(1, num_resamples + 1):
        weights = np.bincount(generator.integers(len(named), size=len(named)), minlength=len(named))
        weights = np.append(weights, 1).astype(np.float64)
        yield [class_aps(side, weights[at]) for side, at in zip(sides, positions, strict=True)]
        progress(number, num_resamples, "resamples")


def person_ap(groundtruth: Rows, boxes: pd.DataFrame) -> dict[str, float]:
    """AP of person boxes: ``AP@0.5``, ``AP@0.75``, ``AP@0.5:0.95``, ``recall@0.5``; two counts.

    Both tables are in AVA's layout. A keyframe counts if ground truth names it. Rows of one
    keyframe and box are one person, whatever the action. Without persons the fractions are NaN.
    """
    truth, found = table(groundtruth), table(boxes.assign(action_id=0))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keyframe_keys(truth)), 1)}
    persons = _coco(truth[truth["action_id"] != NO_LABEL], numbers)
    guesses = _coco(found, numbers)
    counts = {"persons": len(persons), "boxes": len(guesses)}
    if not persons or not guesses:
        nothing = 0.0 if persons else np.nan
        return dict.fromkeys(("AP@0.5", "AP@0.75", "AP@0.5:0.95", "recall@0.5"), nothing) | counts
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        images = [{"id": number} for number in numbers.values()]
        coco.dataset = {"images": images, "categories": [{"id": 1}], "annotations": persons}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(guesses), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MAX_BOXES]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 0]  # IoU, recall
    return {
        "AP@0.5": float(precision[0].mean()),
        "AP@0.75": float(precision[5].mean()),
        "AP@0.5:0.95": float(precision.mean()),
        "recall@0.5": float(evaluation.eval["recall"][0, 0, 0, 0]),
    } | counts


def _coco(rows: pd.DataFrame, numbers: dict[str, int]) -> list[dict]:
    """COCO's annotations, one a box in keyframes that count, with the highest of its scores.

    IoU does not change with corners in fractions of width and height.
    """
    rows = rows.assign(image_id=[numbers.get(key, 0) for key in keyframe_keys(rows)])
    rows = rows.loc[rows["image_id"] > 0, ["image_id", *BOX, "score"]]
    rows = rows.astype(dict.fromkeys((*BOX, "score"), float))
    rows = rows.groupby(["image_id", *BOX], sort=False, as_index=False)["score"].max()
    width, height = rows["x2"] - rows["x1"], rows["y2"] - rows["y1"]
    corners = np.stack([rows["x1"], rows["y1"], width, height], axis=1).tolist()
    rows = rows.assign(id=range(1, len(rows) + 1), category_id=1, iscrowd=0)
    return rows.assign(bbox=corners, area=width * height).to_dict("records")


def quality(groundtruth: pd.DataFrame, boxes: pd.DataFrame) -> dict:
    """:func:`person_ap`, and ``thresholds``: recall and precision by the least score."""
    report = person_ap(groundtruth, boxes)
    labelled = groundtruth["action_id"] != NO_LABEL
    persons = groundtruth[labelled].drop_duplicates(["video", "timestamp", *BOX])
    truth = pd.concat([persons.assign(action_id=PERSON.ids[0]), groundtruth[~labelled]])
    matches = match(truth, boxes.assign(action_id=PERSON.ids[0]), PERSON)
    curve = {}
    for least in THRESHOLDS:
        hits = matches.hits[matches.scores >= least]
        curve[str(least)] = {
            "recall": float(hits.sum()) / max(1, len(persons)),
            "precision": float(hits.mean()) if len(hits) else None,
        }
    return report | {"thresholds": curve}


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
    left = num_truths - num_missed
    gains["missed"] = average_precision(hits, left) - ap if left else nan
    for kind in KINDS[1:]:
        wrong, mended = kinds == kind, hits.copy()
        if kind == "box":
            moved = np.flatnonzero(wrong & (free >= 0))
            _, earliest = np.unique(free[moved], return_index=True)
            mended[moved[earliest]] = True
        gains[kind] = average_precision(mended[mended | ~wrong], num_truths) - ap
    return gains

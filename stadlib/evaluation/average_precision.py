"""From matches to average precision: the area under the envelope of precision, over all points.

The bootstrap over videos says how sure a number is, without matching again. Keyframes of one video
are alike, so videos are drawn. In a video that is drawn twice every prediction and every box counts
double. That gives the AP of two copies, since copies of one score are neighbours in the ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np

from stadlib.data.layout import LabelMap
from stadlib.data.rows import Rows
from stadlib.evaluation.matching import Matches, match

PERCENTILES = (0.025, 0.975)  # of the resamples: the ends of an interval


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
    """Evaluate predictions: :func:`match`, which takes the options, then :func:`result`.

    A+K is both datasets' files at once, not the mean of two results.
    """
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
    ends = []
    for first in (matches.hits, ~matches.hits):  # wrong ones first, right ones first
        hits = matches.hits.copy()
        for column in range(len(matches.ids)):
            mine = slice(matches.starts[column], matches.starts[column + 1])
            hits[mine] = hits[mine][np.lexsort((first[mine], -matches.scores[mine]))]
        ends.append(result(replace(matches, hits=hits)).mAP)
    return ends[0], ends[1]


def bootstrap(
    matches: Matches,
    minus: Matches | None = None,
    *,
    num_resamples: int = 1_000,
    progress: Callable[[int, int, str], None] | None = None,
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
    samples = np.array([np.subtract(*draw) for draw in _resamples(sides, num_resamples, None)])
    estimates = np.subtract(*map(class_aps, sides))
    differences = {}
    for column, action in enumerate(matches.ids):
        if not np.isnan(estimates[column]):
            low, high = np.nanquantile(samples[:, column], PERCENTILES)
            differences[action] = (float(estimates[column]), float(low), float(high))
    return differences


def _resamples(
    sides: list[Matches], num_resamples: int, progress: Callable[[int, int, str], None] | None
) -> Iterator[list[np.ndarray]]:
    """For every draw of videos the APs of the classes, one array a side."""
    generator = np.random.default_rng(0)
    first = sides[0]
    named = sorted({first.videos[video] for video in np.unique(first.truth_video)})
    position = {video: number for number, video in enumerate(named)}
    # The position behind the last is that of videos without ground truth, which weigh 1.
    positions = [[position.get(video, len(named)) for video in side.videos] for side in sides]
    for number in range(1, num_resamples + 1):
        weights = np.bincount(generator.integers(len(named), size=len(named)), minlength=len(named))
        weights = np.append(weights, 1).astype(np.float64)
        yield [class_aps(side, weights[at]) for side, at in zip(sides, positions, strict=True)]
        if progress is not None:
            progress(number, num_resamples, "resamples")

"""From matches to average precision: the area under the envelope of precision, over all points.

How sure a number is: the bootstrap over videos, without matching again.

Keyframes of one video are alike, so videos are drawn, not keyframes. A video that is drawn twice
weighs twice: every detection and every box of it counts double, which gives the same AP as two
copies, since copies of one score stand side by side in the ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np

from stadlib.data.labels import LabelMap, group
from stadlib.data.rows import Rows
from stadlib.evaluation.matching import Matches, match


@dataclass(frozen=True)
class Result:
    """Frame mAP and the AP of every class, as fractions.

    Attributes:
        mAP: mean over the classes with ground truth; NaN if there is none.
        AP: by action id, in the label map's order; None for a class without ground truth.
    """

    mAP: float
    AP: dict[int, float | None]

    def to_json(self) -> dict:
        """Return ``{"mAP": 0.41, "AP": {"12": 0.87}}``, the form a record holds."""
        mean = None if isnan(self.mAP) else self.mAP
        return {"mAP": mean, "AP": {str(action): ap for action, ap in self.AP.items()}}

    def by_group(self) -> dict[str, float]:
        """The mean AP of each of AVA's groups (pose, object, person) that has ground truth."""
        parts: dict[str, list[float]] = {}
        for action, ap in self.AP.items():
            if ap is not None:
                parts.setdefault(group(action), []).append(ap)
        return {name: float(np.mean(values)) for name, values in parts.items()}


def frame_map(
    groundtruth: Rows,
    detections: Rows,
    label_map: LabelMap,
    rules: str = "official",
    *,
    iou: float = 0.5,
    ties: str = "file",
    excluded: AbstractSet[tuple[str, str]] = frozenset(),
) -> Result:
    """Evaluate detections against ground truth: :func:`match`, then :func:`result`.

    A+K is both datasets' files at once, not the mean of two results. Arguments and errors as in
    :func:`stadlib.evaluation.matching.match`.
    """
    how = {"iou": iou, "ties": ties, "excluded": excluded}
    return result(match(groundtruth, detections, label_map, rules, **how))


def result(matches: Matches) -> Result:
    """The APs of matched detections and their mean."""
    num_truths = np.bincount(matches.truth_class, minlength=len(matches.ids))
    ap: dict[int, float | None] = {}
    for column, action in enumerate(matches.ids):
        hits = matches.hits[matches.starts[column] : matches.starts[column + 1]]
        counts = num_truths[column] and (len(hits) or matches.rules.undetected_count)
        ap[action] = average_precision(hits, int(num_truths[column])) if counts else None
    measured = [value for value in ap.values() if value is not None]
    return Result(mAP=float(np.mean(measured)) if measured else nan, AP=ap)


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


def average_precision(hits: np.ndarray, num_truths: int) -> float:
    """AP of detections that stand from the highest score down, as a fraction."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / num_truths)


@dataclass(frozen=True)
class Bootstrap:
    """An mAP, or the difference of two, with its 95 % percentile interval, as fractions.

    Attributes:
        estimate: on all videos.
        low: 2.5 % of the resamples lie below.
        high: 2.5 % of the resamples lie above.
        samples: (num_resamples,) the resampled values.
    """

    estimate: float
    low: float
    high: float
    samples: np.ndarray


def bootstrap(
    matches: Matches | Sequence[Matches],
    minus: Matches | Sequence[Matches] | None = None,
    *,
    num_resamples: int = 1_000,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Bootstrap:
    """Resample the videos that ground truth names, and the seeds where there are several.

    Args:
        matches: of one detection file, or of one a seed; the estimate is then the mean over seeds.
        minus: of other files on the same ground truth, as many; the difference is resampled, both
            sides on the same videos and the same seeds each time.
        num_resamples: draws of as many videos, and of as many seeds, as there are.
        seed: of the draws.
        progress: called with (resamples done, of how many, text).

    Raises:
        ValueError: the two sides have different numbers of seeds.
    """
    sides = _sides(matches, minus)
    samples = np.array(
        [
            np.nanmean(values[0]) - sum(np.nanmean(other) for other in values[1:])
            for values in _resamples(sides, num_resamples, seed, progress)
        ]
    )
    estimates = [float(np.mean([result(part).mAP for part in side])) for side in sides]
    low, high = np.nanquantile(samples, (0.025, 0.975))
    return Bootstrap(estimates[0] - sum(estimates[1:]), float(low), float(high), samples)


def bootstrap_classes(
    matches: Matches | Sequence[Matches],
    minus: Matches | Sequence[Matches],
    *,
    num_resamples: int = 1_000,
    seed: int = 0,
) -> dict[int, tuple[float, float, float]]:
    """The difference in AP of every class, with its 95 % percentile interval, as fractions.

    Args:
        matches: as in :func:`bootstrap`.
        minus: likewise.
        num_resamples: likewise.
        seed: likewise.

    Returns:
        By action id of the classes with ground truth: estimate, low, high.
    """
    sides = _sides(matches, minus)
    drawn = [np.subtract(*values) for values in _resamples(sides, num_resamples, seed, None)]
    whole = [np.mean([_class_aps(part) for part in side], axis=0) for side in sides]
    found = {}
    for column, action in enumerate(sides[0][0].ids):
        estimate = whole[0][column] - whole[1][column]
        samples = np.array([sample[column] for sample in drawn])
        if not np.isnan(estimate):
            low, high = np.nanquantile(samples, (0.025, 0.975))
            found[action] = (float(estimate), float(low), float(high))
    return found


def _sides(
    matches: Matches | Sequence[Matches], minus: Matches | Sequence[Matches] | None
) -> list[list[Matches]]:
    sides = [
        [side] if isinstance(side, Matches) else list(side)
        for side in (matches, minus)
        if side is not None
    ]
    if len({len(side) for side in sides}) > 1:
        raise ValueError("the difference is paired: give both sides as many seeds")
    return sides


def _resamples(
    sides: list[list[Matches]],
    num_resamples: int,
    seed: int,
    progress: Callable[[int, int, str], None] | None,
) -> Iterator[list[np.ndarray]]:
    """For every draw of videos and seeds, a side's AP of each class, mean over seeds."""
    generator = np.random.default_rng(seed)
    ours = sides[0]
    drawn = sorted({ours[0].videos[video] for video in np.unique(ours[0].truth_video)})
    places = [[_places(part, drawn) for part in side] for side in sides]
    for number in range(num_resamples):
        weights = np.bincount(generator.integers(len(drawn), size=len(drawn)), minlength=len(drawn))
        weights = np.append(weights, 1).astype(np.float64)  # the last: videos without ground truth
        seeds = generator.integers(len(ours), size=len(ours)) if len(ours) > 1 else [0]
        yield [
            np.mean([_class_aps(side[k], weights[at[k]]) for k in seeds], axis=0)
            for side, at in zip(sides, places, strict=True)
        ]
        if progress is not None:
            progress(number + 1, num_resamples, "resamples")


def _places(matches: Matches, drawn: list[str]) -> np.ndarray:
    """Of each video its position among the drawn ones; behind them for all others."""
    position = {video: number for number, video in enumerate(drawn)}
    return np.array([position.get(video, len(drawn)) for video in matches.videos], dtype=np.int64)


def _class_aps(matches: Matches, weight_V: np.ndarray | None = None) -> np.ndarray:
    """AP of every class where each video counts ``weight_V`` times; NaN without ground truth."""
    num_classes = len(matches.ids)
    if weight_V is None:
        weight_V = np.ones(len(matches.videos))
    truths = np.bincount(
        matches.truth_class, weights=weight_V[matches.truth_video], minlength=num_classes
    )
    weights = weight_V[matches.video]
    values = np.full(num_classes, np.nan)
    for column in np.flatnonzero(truths):
        mine = slice(matches.starts[column], matches.starts[column + 1])
        hits, weight = matches.hits[mine], weights[mine]
        at = np.flatnonzero(hits)
        if not (len(hits) or matches.rules.undetected_count):
            continue
        ranked = np.cumsum(weight)[at]
        right = np.cumsum(weight[at])
        precision = right / np.maximum(ranked, 1.0)  # nothing ranked yet: weights are whole numbers
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        values[column] = float((envelope * weight[at]).sum() / truths[column])
    return values

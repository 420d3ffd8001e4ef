"""How sure a number is: the bootstrap over videos, without matching again.

Keyframes of one video are alike, so videos are drawn, not keyframes. A video that is drawn twice
weighs twice: every detection and every box of it counts double, which gives the same AP as two
copies, since copies of one score stand side by side in the ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stadlib.metrics.average_precision import result
from stadlib.metrics.matching import Matches


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
    generator = np.random.default_rng(seed)
    sides = [_as_list(side) for side in (matches, minus) if side is not None]
    if len({len(side) for side in sides}) > 1:
        raise ValueError("the difference is paired: give both sides as many seeds")
    ours = sides[0]
    drawn = sorted({ours[0].videos[video] for video in np.unique(ours[0].truth_video)})
    places = [[_places(part, drawn) for part in side] for side in sides]
    samples = np.empty(num_resamples)
    for number in range(num_resamples):
        weights = np.bincount(generator.integers(len(drawn), size=len(drawn)), minlength=len(drawn))
        weights = np.append(weights, 1).astype(np.float64)  # the last: videos without ground truth
        seeds = generator.integers(len(ours), size=len(ours)) if len(ours) > 1 else [0]
        values = [
            np.mean([_weighted_map(side[k], weights[at[k]]) for k in seeds])
            for side, at in zip(sides, places, strict=True)
        ]
        samples[number] = values[0] - sum(values[1:])
        if progress is not None:
            progress(number + 1, num_resamples, "resamples")
    estimates = [float(np.mean([result(part).mAP for part in side])) for side in sides]
    low, high = np.nanquantile(samples, (0.025, 0.975))
    return Bootstrap(estimates[0] - sum(estimates[1:]), float(low), float(high), samples)


def _as_list(side: Matches | Sequence[Matches]) -> list[Matches]:
    return [side] if isinstance(side, Matches) else list(side)


def _places(matches: Matches, drawn: list[str]) -> np.ndarray:
    """Of each video its position among the drawn ones; behind them for all others."""
    position = {video: number for number, video in enumerate(drawn)}
    return np.array([position.get(video, len(drawn)) for video in matches.videos], dtype=np.int64)


def _weighted_map(matches: Matches, weight_V: np.ndarray) -> float:
    """mAP in which every video counts ``weight_V`` times."""
    num_classes = len(matches.ids)
    truths = np.bincount(
        matches.truth_class, weights=weight_V[matches.truth_video], minlength=num_classes
    )
    weights = weight_V[matches.video]
    values = []
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
        values.append(float((envelope * weight[at]).sum() / truths[column]))
    return float(np.mean(values)) if values else np.nan

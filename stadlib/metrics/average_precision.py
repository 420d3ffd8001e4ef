"""From matches to average precision: the area under the envelope of precision, over all points."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np

from stadlib.labels import LabelMap, group
from stadlib.metrics.matching import Matches, match
from stadlib.metrics.rows import Rows


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
    :func:`stadlib.metrics.matching.match`.
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

"""Student's t intervals: known quantiles, and coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stadlib.report.scores import half_width, interval


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062), (4, 2.7764), (11, 2.2010), (30, 2.0423), (1000, 1.9623)]
)
def test_quantiles(degrees: int, quantile: float) -> None:
    assert half_width(degrees + 1, 1) * math.sqrt(degrees + 1) == pytest.approx(quantile, abs=1e-4)


def test_interval_of_five() -> None:
    mean, half = interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert half == pytest.approx(2.7764 * math.sqrt(2.5) / math.sqrt(5), rel=1e-4)


def test_one_value_says_nothing_about_the_spread() -> None:
    mean, half = interval([0.4])
    assert mean == 0.4
    assert math.isnan(half)
    assert all(math.isnan(value) for value in interval([]))


def test_covers_the_mean_95_times_in_100() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    covered = [abs(mean) <= half for mean, half in map(interval, draws)]
    assert 0.93 < np.mean(covered) < 0.97

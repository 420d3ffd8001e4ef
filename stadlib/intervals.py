"""95 % intervals of a mean over seeds (Student's t), without a statistics package."""

from __future__ import annotations

from collections.abc import Iterable
from math import nan, sqrt
from statistics import fmean, stdev

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
_T95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_Z95 = 1.959964


def t95(degrees: int) -> float:
    """Return the two-sided 95 % quantile of Student's t.

    Beyond the table, the first three terms of the Cornish-Fisher expansion around the normal
    quantile (Abramowitz & Stegun 26.7.5), good to 3e-3 there.
    """
    if degrees <= len(_T95):
        return _T95[degrees - 1]
    z = _Z95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % interval.

    The half width is NaN for one value: a single seed says nothing about the others. Both are
    NaN for none. For a paired comparison, pass the differences.
    """
    values = [float(value) for value in values]
    if not values:
        return nan, nan
    if len(values) == 1:
        return values[0], nan
    return fmean(values), t95(len(values) - 1) * stdev(values) / sqrt(len(values))

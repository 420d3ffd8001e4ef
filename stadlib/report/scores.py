"""95 % intervals of a mean over seeds (Student's t), without a statistics package.

Scores of records by source, by group and by class, and what one head gains over another.

Points of mAP@0.5, that is, per cent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import isnan, nan, sqrt
from statistics import fmean, stdev
from typing import Literal

import pandas as pd

from stadlib.base import check_word
from stadlib.data.labels import AVA_ACTIONS, LASTING, group
from stadlib.recipes.experiment import Experiment
from stadlib.study import Record

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


SOURCES = {"ava": "AVA", "kinetics": "Kinetics", "ava+kinetics": "A+K"}
NOT_RUN = "not run"
GROUPS = ("pose", "object", "person")
DURATIONS = ("lasting", "short")


def percent(fraction: float | None) -> float:
    """An AP of a record in %; NaN where the class has no ground truth."""
    return nan if fraction is None else 100 * fraction


def by_source(metrics: dict) -> dict[str, float]:
    """mAP by source, under the paper's names."""
    return {header: percent(metrics[name]["mAP"]) for name, header in SOURCES.items()}


def by_class(metrics: dict, source: str) -> dict[int, float]:
    """AP by action id, of the classes that have ground truth."""
    ap = metrics[source]["AP"]
    return {int(action): percent(value) for action, value in ap.items() if value is not None}


def by_duration(metrics: dict, source: str) -> dict[str, float]:
    """Mean AP of the actions that last (``labels.LASTING``), and of the others."""
    members = defaultdict(list)
    for action, value in by_class(metrics, source).items():
        members[DURATIONS[action not in LASTING]].append(value)
    return {name: fmean(members[name]) for name in DURATIONS if members[name]}


def by_group(metrics: dict, source: str) -> dict[str, float]:
    """Mean AP of AVA's three groups of classes."""
    members = defaultdict(list)
    for action, value in by_class(metrics, source).items():
        members[group(action)].append(value)
    return {name: fmean(members[name]) for name in GROUPS if members[name]}


_BY: dict[str, Callable[[dict, str], dict]] = {
    "source": lambda metrics, _: by_source(metrics),
    "class": by_class,
    "group": by_group,
    "duration": by_duration,
}


def paired_difference(
    records: Iterable[Record],
    head: str,
    baseline: str = "linear",
    by: Literal["source", "class", "group"] = "source",
    source: str = "ava+kinetics",
) -> pd.DataFrame:
    """Return what one head gains over another in mAP points, paired by seed.

    Records are paired where everything but the head is equal; a seed's gain is the mean over its
    pairs, and the interval is Student's t over seeds.

    Args:
        records: of any scales and seeds.
        head: the head that should gain.
        baseline: the head it is compared with.
        by: ``source`` (AVA, Kinetics, A+K), or ``class`` or ``group`` on one ``source``.
        source: of the APs by class or group.

    Returns:
        Columns ``gain``, ``low``, ``high`` (95 %), ``seeds``; by class also ``name``, ``group``.
    """
    return gain_of_pairs(_pairs(list(records), head, baseline), by, source)


def paired_by_seed(
    better: Iterable[Record], plain: Iterable[Record]
) -> list[tuple[int, Record, Record]]:
    """Records of two experiments, those of one seed together: (seed, better, plain)."""
    twins = {record.experiment["seed"]: record for record in plain}
    return [
        (record.experiment["seed"], record, twins[record.experiment["seed"]])
        for record in better
        if record.experiment["seed"] in twins
    ]


def gain_of_pairs(
    pairs: Iterable[tuple[int, Record, Record]],
    by: Literal["source", "class", "group", "duration"] = "source",
    source: str = "ava+kinetics",
) -> pd.DataFrame:
    """Return what the first of each pair gains over the second, in mAP points.

    Args:
        pairs: (seed, better, plain); a seed's gain is the mean over its pairs.
        by: as in :func:`paired_difference`; ``duration`` compares actions that last with others.
        source: likewise.
    """
    check_word("by", by, tuple(_BY))
    check_word("source", source, tuple(SOURCES))
    measure = _BY[by]
    gains: dict = defaultdict(lambda: defaultdict(list))
    for seed, better, plain in pairs:
        ours, theirs = measure(better.metrics, source), measure(plain.metrics, source)
        for key in ours.keys() & theirs.keys():
            gains[key][seed].append(ours[key] - theirs[key])
    order = {
        "source": SOURCES.values(),
        "group": GROUPS,
        "duration": DURATIONS,
        "class": sorted(gains),
    }[by]
    table = pd.DataFrame(
        [_gain([fmean(values) for values in gains[key].values()]) for key in order],
        index=pd.Index(order, name=by),
        columns=["gain", "low", "high", "seeds"],
    )
    if by == "class":
        table.insert(0, "name", [AVA_ACTIONS[action] for action in table.index])
        table.insert(1, "group", [group(action) for action in table.index])
    return table


def _pairs(records: list[Record], head: str, baseline: str) -> Iterable[tuple[int, Record, Record]]:
    """Records of two heads that are equal in everything else."""
    plain = [record for record in records if record.experiment["head"] == baseline]
    for record in records:
        if record.experiment["head"] == head:
            twin = {**record.experiment, "head": baseline}
            for other in plain:
                if other.scale == record.scale and other.experiment == twin:
                    yield record.experiment["seed"], record, other


def _gain(values: list[float]) -> dict:
    mean, half = interval(values)
    return {"gain": mean, "low": mean - half, "high": mean + half, "seeds": len(values)}


def mean_text(records: Iterable[Record], source: str) -> str:
    """``30.75 ± 0.90``: the mean mAP of some seeds in %, and half its 95 % interval."""
    values = [percent(record.metrics[source]["mAP"]) for record in records]
    if not values:
        return NOT_RUN
    mean, half = interval(values)
    return f"{mean:.2f}" if isnan(half) else f"{mean:.2f} ± {half:.2f}"


def of_experiment(experiment: Experiment, records: Iterable[Record]) -> list[Record]:
    """The records of this experiment with any seed.

    Digests are compared, not words: a number of the scale or of a detector's training that was
    changed since makes another experiment.
    """
    records = list(records)
    seeds = {record.experiment["seed"] for record in records}
    wanted = {replace(experiment, seed=seed).digest for seed in seeds}
    return [record for record in records if record.digest in wanted]

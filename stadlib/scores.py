"""Scores of records by source, by group and by class, and what one head gains over another.

Points of mAP@0.5, that is, per cent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from math import nan
from statistics import fmean
from typing import Literal

import pandas as pd

from stadlib.config import check_word
from stadlib.intervals import interval
from stadlib.labels import AVA_ACTIONS, group
from stadlib.records import Record

SOURCES = {"ava": "AVA", "kinetics": "Kinetics", "ava+kinetics": "A+K"}
GROUPS = ("pose", "object", "person")


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
    check_word("by", by, ("source", "class", "group"))
    check_word("source", source, tuple(SOURCES))
    measure = _BY[by]
    gains: dict = defaultdict(lambda: defaultdict(list))
    for seed, better, plain in _pairs(list(records), head, baseline):
        ours, theirs = measure(better.metrics, source), measure(plain.metrics, source)
        for key in ours.keys() & theirs.keys():
            gains[key][seed].append(ours[key] - theirs[key])
    order = {"source": SOURCES.values(), "group": GROUPS, "class": sorted(gains)}[by]
    table = pd.DataFrame(
        [_gain([fmean(values) for values in gains[key].values()]) for key in order],
        index=pd.Index(order, name=by),
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

"""Scores of records by source, by group and by class, their intervals, and gains paired by seed.

Points of mAP@0.5, that is, per cent. Intervals are 95 % of a mean over seeds, Student's t.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from math import isnan, nan, sqrt
from statistics import fmean, stdev
from typing import TypeVar

import pandas as pd
import scipy  # its modules are imported at their first use

from stadlib.base import check_word, published_dir
from stadlib.data.layout import AVA_ACTIONS, LASTING, group
from stadlib.recipes import CHOICES, MEMORY_CHOICES, choices_compared
from stadlib.recipes.experiment import Experiment, from_dict
from stadlib.study import Record, read_records

Key = TypeVar("Key")
SOURCES = {"ava": "AVA", "kinetics": "Kinetics", "ava+kinetics": "A+K"}
NOT_RUN = "not run"
ORDER = {  # of the rows of a table of gains
    "source": tuple(SOURCES.values()),
    "class": (),  # by action id
    "group": ("pose", "object", "person"),
    "duration": ("lasting", "short"),
}


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """The mean and the half width of its interval; the latter is NaN of a single seed."""
    values = [float(value) for value in values]
    if len(values) < 2:
        return (values[0] if values else nan), nan
    quantile = float(scipy.special.stdtrit(len(values) - 1, 0.5 + level / 2))
    return fmean(values), quantile * stdev(values) / sqrt(len(values))


def predicted(values: Iterable[float]) -> tuple[float, float]:
    """Where 95 % of further values lie, by Student's t; NaN of fewer than two."""
    values = list(values)
    mean, half = interval(values)
    half *= sqrt(len(values) + 1)
    return mean - half, mean + half


def against_reference(record: Record) -> str:
    """A run beside the committed replicates of its experiment, source by source, in one line."""
    (others,) = replicates({"": from_dict(record.experiment)}).values()
    if len(others) < 2:
        count = f"{len(others)} replicate" + "s" * (len(others) != 1)
        return f"the reference has {count} of this row; two would bound it"
    parts = []
    for source, header in SOURCES.items():
        low, high = predicted(values_of(others, source))
        (value,) = values_of([record], source)
        word = "inside" if low <= value <= high else "OUTSIDE"
        parts.append(f"{header} {value:.2f} {word} {low:.2f} to {high:.2f}")
    of = f"the 95 % prediction interval of {len(others)} replicates"
    return f"beside {of} of the reference: {', '.join(parts)}"


def percent(fraction: float | None) -> float:
    """An AP of a record in %; NaN where the class has no ground truth."""
    return nan if fraction is None else 100 * fraction


def values_of(records: Iterable[Record], source: str, measure: str = "mAP") -> list[float]:
    """What the records of one row measure on a source, in %, one number a record."""
    return [percent(record.metrics[source][measure]) for record in records]


def bounds(records: Iterable[Record], source: str) -> dict[str, float]:
    """``mAP``, ``low``, ``high`` and ``seeds`` of the records of one row."""
    values = values_of(records, source)
    mean, half = interval(values)
    return {"mAP": mean, "low": mean - half, "high": mean + half, "seeds": len(values)}


def text_of(values: Iterable[float], form: str = ".2f") -> str:
    """``30.75 ± 0.90``: the mean of some seeds and half its interval, or ``not run``."""
    mean, half = interval(values)
    if isnan(mean):
        return NOT_RUN
    return f"{mean:{form}}" + ("" if isnan(half) else f" ± {half:.2f}")


def difference_text(mean: float, low: float, high: float) -> str:
    """``+5.92 (+3.76 to +8.07)``; without an interval the mean alone, or ``not run``."""
    if isnan(mean):
        return NOT_RUN
    return f"{mean:+.2f}" + ("" if isnan(low) else f" ({low:+.2f} to {high:+.2f})")


def mean_text(records: Iterable[Record], source: str, measure: str = "mAP") -> str:
    """The mean of a measure over some seeds in %, and half its interval, as text."""
    return text_of(values_of(records, source, measure))


def markdown(header: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def by_class(metrics: dict, source: str) -> dict[int, float]:
    """AP by action id, of the classes that have ground truth."""
    ap = metrics[source]["AP"]
    return {int(action): percent(value) for action, value in ap.items() if value is not None}


def means(metrics: dict, source: str, by: str) -> pd.Series:
    """mAP by ``source``; on one source AP by ``class``, its mean by ``group``, ``duration``."""
    if by == "source":
        return pd.Series({word: percent(metrics[name]["mAP"]) for name, word in SOURCES.items()})
    aps = pd.Series(by_class(metrics, source), dtype=float)
    if by == "class":
        return aps
    return aps.groupby(group if by == "group" else lambda a: ORDER[by][a not in LASTING]).mean()


def reference_records(folder: str = "") -> list[Record]:
    """The committed records of a folder of ``results/reference``, at mini."""
    records = read_records(published_dir("reference") / folder)
    return [record for record in records if record.scale == "mini"]


def replicates(rows: Mapping[Key, Experiment], *folders: str) -> dict[Key, list[Record]]:
    """The committed records of each row with any seed, by digest: a changed scale is another row.

    Without ``folders`` they are those of the paper's tables and those beyond them.
    """
    reference = published_dir("reference")
    kinds = [read_records(reference / folder) for folder in folders or ("", "beyond")]
    records = {record.digest: record for record in chain(*kinds)}
    seeds = {record.experiment["seed"] for record in records.values()}
    wanted = {name: {replace(row, seed=s).digest for s in seeds} for name, row in rows.items()}
    return {
        name: [record for digest, record in records.items() if digest in digests]
        for name, digests in wanted.items()
    }


def paired_by_seed(better: Iterable[Record], plain: Iterable[Record]) -> list:
    """Records of two experiments, those of one seed together: (seed, better, plain)."""
    twins = {record.experiment["seed"]: record for record in plain}
    pairs = [(record.experiment["seed"], record) for record in better]
    return [(seed, record, twins[seed]) for seed, record in pairs if seed in twins]


def gain_of_pairs(pairs: list, by: str = "source", source: str = "ava+kinetics") -> pd.DataFrame:
    """What the first of each pair gains over the second: ``gain``, ``low``, ``high``, ``seeds``.

    Points; a seed's gain is the mean over its pairs (seed, better, plain). ``by`` is that of
    :func:`means`; by class there are also ``name`` and ``group``.
    """
    check_word("by", by, tuple(ORDER))
    check_word("source", source, tuple(SOURCES))
    both = ([means(side.metrics, source, by) for side in pair] for _, *pair in pairs)
    gains = pd.DataFrame([ours - theirs for ours, theirs in both], [seed for seed, *_ in pairs])
    gains, rows = gains.groupby(level=0).mean(), {}
    for key in ORDER[by] or sorted(gains):
        values = gains[key].dropna() if key in gains else ()
        mean, half = interval(values)
        rows[key] = (mean, mean - half, mean + half, len(values))
    columns = ["gain", "low", "high", "seeds"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis(by)
    if by == "class":
        table.insert(0, "name", [AVA_ACTIONS[action] for action in table.index])
        table.insert(1, "group", [group(action) for action in table.index])
    return table


def choice_records() -> dict[tuple[str, object], list[Record]]:
    """Committed records of what the paper leaves open, by field and word (``recipes.CHOICES``)."""
    return replicates(choices_compared(), "choices")


def choice_effects(compared: Mapping[str, Sequence] = CHOICES | MEMORY_CHOICES) -> pd.DataFrame:
    """What the paper leaves open: the gain of other words over the tables' own, by field and word.

    Committed records at mini on ground-truth boxes, points of mAP on each source, paired by seed; a
    word without a pair has NaN and 0 seeds.
    """
    rows, gains = choice_records(), {}
    for field, (own, *others) in compared.items():
        for word in others:
            pairs = paired_by_seed(rows[field, word], rows[field, own])
            gains[f"{field}: {own}", str(word)] = gain_of_pairs(pairs)
    return pd.concat(gains, names=["field: ours", "instead", "source"])

"""Table 2 and what memory brings: our numbers beside the paper's, and differences by seed.

As in :mod:`stadlib.report`, the paper's numbers, the committed reference and one's own runs never
mix, and what nobody ran reads "not run". mAP@0.5 in % everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from stadlib import recipes
from stadlib.base import published_dir
from stadlib.recipes.experiment import Experiment, from_dict
from stadlib.report import scores
from stadlib.report.scores import SOURCES, interval, percent
from stadlib.study import Record, read_records

HEADS = ("t-only", "s-only")
STRATEGIES = tuple(recipes.TABLE2)
_SHORT = dict(zip(STRATEGIES, ("A first", "new head", "empty bank"), strict=True))
_NOTHING = "new head without memory"
_MARKS = {"yes": "✓", "no": "×"}
_TOLD = {
    "stage1_data": "stage 1",
    "stage1_memory_ava": "+M(A)",
    "stage1_memory_kinetics": "+M(K)",
    "finetune": "finetune",
    "ava": "AVA",
    "kinetics": "Kinetics",
}


def paper_table() -> pd.DataFrame:
    """Return Table 2 as printed, under our names of the strategies.

    The second stage is the same for all: both datasets, memory on both, the backbone frozen.
    """
    path = published_dir("paper") / "table2.csv"
    printed = pd.read_csv(path, dtype=str, keep_default_na=False).replace(_MARKS)
    printed = printed[list(_TOLD)].rename(columns=_TOLD)
    return printed.set_index(pd.Index(STRATEGIES, name="strategy"))


def reference_records() -> list[Record]:
    """The committed records."""
    return read_records(published_dir("reference"))


def reference(
    backbone: str = "ir-csn-152", records: Iterable[Record] | None = None
) -> pd.DataFrame:
    """Return the strategies' committed mini records: mean over seeds and 95 % interval."""
    records = reference_records() if records is None else list(records)
    rows = recipes.table2(scale="mini", backbone=backbone)
    return _table({name: scores.of_experiment(row, records) for name, row in rows.items()})


def beside_paper(runs: Iterable[Record], backbone: str = "ir-csn-152") -> pd.DataFrame:
    """Return the paper's numbers, the reference and these runs, strategy by strategy."""
    runs = list(runs)
    own = {name: [run for run in runs if _strategy(run) == name] for name in STRATEGIES}
    scale = runs[0].scale if runs else "none"
    parts = {
        "paper": paper_table()[["AVA", "Kinetics"]],
        "reference: mini": reference(backbone).drop(columns="seeds"),
        f"this run: {scale}": _table(own).drop(columns="seeds"),
    }
    return pd.concat(parts, axis=1)


def differences(
    by: str = "source", backbone: str = "ir-csn-152", records: Iterable[Record] | None = None
) -> pd.DataFrame:
    """Return what memory and its strategies bring, paired by seed, in points of mAP.

    Args:
        by: ``source``; or ``duration``, ``group`` or ``class`` on both sources jointly.
        backbone: of all the records compared.
        records: the default is the committed reference.

    Returns:
        By comparison and ``by``: ``gain``, ``low``, ``high`` (95 %, Student's t), ``seeds``. What
        nobody ran is left out.
    """
    records = reference_records() if records is None else list(records)
    found = {name: scores.of_experiment(row, records) for name, row in _compared(backbone).items()}
    first, second, third = STRATEGIES
    comparisons = (
        (third, "t-only"),
        (second, "t-only"),
        (second, _NOTHING),
        (third, second),
        (first, second),
        (first, third),
        ("s-only, new head", "s-only, without memory"),
    )
    tables = {
        " − ".join(_SHORT.get(name, name) for name in (better, plain)): scores.gain_of_pairs(
            pairs, by
        )
        for better, plain in comparisons
        if (pairs := scores.paired_by_seed(found[better], found[plain]))
    }
    if not tables:
        return pd.DataFrame(columns=["gain", "low", "high", "seeds"])
    return pd.concat(tables, names=["comparison"]).round(2)


def memory_gain(backbone: str = "ir-csn-152", by: str = "class") -> pd.DataFrame:
    """Return what remembering brings to one and the same backbone's new head, by class or group."""
    records = reference_records()
    rows = _compared(backbone)
    better, plain = (
        scores.of_experiment(rows[name], records) for name in (STRATEGIES[1], _NOTHING)
    )
    return scores.gain_of_pairs(scores.paired_by_seed(better, plain), by)


def amount_effect(
    backbone: str = "ir-csn-152", records: Iterable[Record] | None = None
) -> pd.DataFrame:
    """Return mAP against how much is remembered.

    Returns:
        By (``span`` in seconds, ``persons`` of a second) and source: ``mAP``, ``low``, ``high``
        (95 % over seeds) and ``seeds``; amounts that nobody ran are left out.
    """
    records = reference_records() if records is None else list(records)
    rows = []
    for (span, persons), row in recipes.memory_ablation(backbone=backbone).items():
        found = scores.of_experiment(row, records)
        for source, name in SOURCES.items():
            values = [percent(record.metrics[source]["mAP"]) for record in found]
            if values:
                mean, half = interval(values)
                bounds = {"mAP": mean, "low": mean - half, "high": mean + half}
                where = {"span": span, "persons": persons, "source": name}
                rows.append({**where, **bounds, "seeds": len(values)})
    columns = ["span", "persons", "source", "mAP", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns).set_index(["span", "persons", "source"])


def _compared(backbone: str) -> dict[str, Experiment]:
    """The experiments that :func:`differences` sets against each other, at mini."""
    rows = recipes.table2(scale="mini", backbone=backbone)
    (alone,) = [
        row
        for row in recipes.table1(
            scale="mini", detector="ground-truth", backbone=backbone, head="t-only", memory="no"
        )
        if row.pretrain == "K700"
    ]
    amounts = {head: recipes.memory_ablation(backbone=backbone, head=head) for head in HEADS}
    return rows | {
        "t-only": alone,
        _NOTHING: amounts["t-only"][0, 0],
        "s-only, new head": amounts["s-only"][recipes.SPAN, recipes.REMEMBERED],
        "s-only, without memory": amounts["s-only"][0, 0],
    }


def _strategy(record: Record) -> str | None:
    return recipes.strategy(from_dict(record.experiment))


def _table(groups: dict[str, Sequence[Record]]) -> pd.DataFrame:
    rows = {
        name: {header: scores.mean_text(records, source) for source, header in SOURCES.items()}
        | {"seeds": len({record.experiment["seed"] for record in records})}
        for name, records in groups.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")

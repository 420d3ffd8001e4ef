"""Table 3 and what decoupled training does to frequent and to rare classes.

The paper's numbers, the committed reference and one's own runs never mix, and what nobody ran reads
"not run". Differences in AP@0.5, in points, on AVA, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from statistics import fmean

import pandas as pd

from stadlib import recipes
from stadlib.base import published_dir
from stadlib.data.labels import AVA_ACTIONS
from stadlib.report import scores
from stadlib.report.scores import interval
from stadlib.study import Record, read_records

VARIANTS = ("after", "after, new classifier", "square-root", "repeat-factor", "instance")
_PRINTED = {"top third": "top-20", "bottom third": "bottom-20", "all": "all-60"}
BALANCE = "after − instance"
MOST = 3  # classes that the paper lists as most improved and as most harmed


def paper_table() -> pd.DataFrame:
    """Return Table 3 as printed: groups of classes, then single ones."""
    path = published_dir("paper") / "table3.csv"
    printed = pd.read_csv(path, dtype=str, keep_default_na=False)
    return printed.set_index("classes").rename(columns={"difference": "mAP@0.5 diff."})


def thirds(counts: Mapping[int, int]) -> dict[str, list[int]]:
    """Return the classes by their training instances, the most frequent third first.

    The paper takes the 20 most and the 20 least frequent of 60.
    """
    ranked = sorted(counts, key=lambda action: (-counts[action], action))
    size = len(ranked) // 3
    return {"top third": ranked[:size], "bottom third": ranked[-size:], "all": ranked}


def reference(
    counts: Mapping[int, int],
    backbone: str = "ir-csn-152",
    records: Iterable[Record] | None = None,
) -> pd.DataFrame:
    """Return the committed mini differences to "before": mean over seeds and 95 % interval.

    Args:
        counts: training instances by action id.
        backbone: of the records.
        records: the default is the committed reference.

    Returns:
        A row a variant of the second stage, a column a group of classes, and the seeds. The last
        row is what balancing alone brings: the difference to as much training on data as it comes.
    """
    records = _reference() if records is None else list(records)
    rows = {name: _row(_pairs(name, backbone, records), counts) for name in VARIANTS}
    rows[BALANCE] = _row(_pairs("after", backbone, records, minus="instance"), counts)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("second stage")


def beside_paper(
    runs: Mapping[str, Record],
    counts: Mapping[int, int],
    backbone: str = "ir-csn-152",
    records: Iterable[Record] | None = None,
) -> pd.DataFrame:
    """Return the paper's differences, the reference's, and those of runs of one seed, by name."""
    printed = paper_table()["mAP@0.5 diff."]
    paper = pd.DataFrame(
        {name: [printed[word]] for name, word in _PRINTED.items()}, index=["after"]
    )
    own = {name: _row([(runs[name], runs["before"])], counts) for name in VARIANTS if name in runs}
    parts = {
        "paper": paper,
        "reference: mini": reference(counts, backbone, records),
        f"this run: {runs['before'].scale}": pd.DataFrame.from_dict(own, orient="index"),
    }
    return pd.concat(parts, names=["", "second stage"]).drop(columns="seeds")


def by_class(
    variant: str = "after",
    backbone: str = "ir-csn-152",
    records: Iterable[Record] | None = None,
    source: str = "ava",
) -> pd.DataFrame:
    """Return every class before and after, mean over seeds.

    Returns:
        By action id: ``name``, ``before``, ``after`` (AP in %), ``gain``, ``low``, ``high``.
    """
    records = _reference() if records is None else list(records)
    pairs = _pairs(variant, backbone, records)
    seeds = [(after.experiment["seed"], after, before) for after, before in pairs]
    table = scores.gain_of_pairs(seeds, "class", source)
    sides = ([pair[1] for pair in pairs], [pair[0] for pair in pairs])
    for place, (word, side) in enumerate(zip(("before", "after"), sides, strict=True), 1):
        aps = [scores.by_class(record.metrics, source) for record in side]
        table.insert(place, word, [fmean(ap[a] for ap in aps) for a in table.index])
    return table


def most_changed(changes: pd.DataFrame) -> pd.DataFrame:
    """Return the three most improved and the three most harmed classes, as the paper lists them."""
    ranked = changes.sort_values("gain", ascending=False)
    chosen = pd.concat([ranked.head(MOST), ranked.tail(MOST)])
    columns = [name for name in ("before", "after", "gain", "low", "high") if name in chosen]
    names = [AVA_ACTIONS[action] for action in chosen.index]
    return chosen[columns].set_axis(pd.Index(names, name="class")).astype(float).round(2)


def _reference() -> list[Record]:
    return read_records(published_dir("reference"))


def _pairs(
    variant: str, backbone: str, records: list[Record], minus: str = "before"
) -> list[tuple[Record, Record]]:
    rows = recipes.table3(backbone=backbone)
    after, before = (scores.of_experiment(row, records) for row in (rows[variant], rows[minus]))
    return [pair[1:] for pair in scores.paired_by_seed(after, before)]


def _row(pairs: list[tuple[Record, Record]], counts: Mapping[int, int]) -> dict:
    """Differences of groups of classes as text: ``+1.05 ± 0.40``."""
    aps = [tuple(scores.by_class(r.metrics, "ava") for r in pair) for pair in pairs]
    row: dict[str, object] = {}
    for name, actions in thirds(counts).items():
        values = [
            fmean(after[a] - before[a] for a in actions if a in after and a in before)
            for after, before in aps
        ]
        mean, half = interval(values)
        text = f"{mean:+.2f}" + ("" if isnan(half) else f" ± {half:.2f}")
        row[name] = text if values else scores.NOT_RUN
    return row | {"seeds": len(pairs)}

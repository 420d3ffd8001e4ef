"""The numbers behind the claims by row and measure: the paper's, and ours by seed.

A row of Table 1 is named by its words (``ir-csn-152 K700 32x2 t-only +M``), with ``, ground-truth
boxes`` where it is not scored on v3's; those of the other tables as in :mod:`stadlib.recipes`.
Beside them stand ``ensemble``, ``best single model``, ``new head without memory`` and ``boxes v1``
to ``v3``. ``, test`` is the test split. A measure is a source (mAP), a third of the classes or one
class (AP on AVA), or ``ava AP@0.5`` of person boxes. All in %.

Ours are committed records at ``mini``. Beyond those of the runs: ``ensembles/*.json``, records
whose experiment has the ``seed`` of the members; ``ensembles/members/*.json``, the members' own,
which may be of another machine, and thereby of another pretrained backbone, than the rows; and
``test/*.json``, records of a member or an ensemble, under the same digest, with the metrics of the
test split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

import pandas as pd

from stadlib import detector_quality, recipes, report, scores
from stadlib.decoupling_report import thirds
from stadlib.labels import AVA_ACTIONS
from stadlib.paths import published_dir
from stadlib.records import Record, read_records
from stadlib.scores import SOURCES, percent

Points = dict[tuple[str, str], float]  # by row and measure
_TABLE1 = [" ".join([*row[:4], *["+M"] * row[4]]) for row in recipes.TABLE1]
_TABLE3 = {  # the paper's short words, where ours differ
    "top-20": "top third",
    "bottom-20": "bottom third",
    "all-60": "all",
    "text on cellphone": "text on/look at a cellphone",
    "give/serve to": "give/serve (an object) to (a person)",
    "work on computer": "work on a computer",
}
_TABLE4 = {"det-v1": "v1", "det-v2": "v2", "det-v3": "v3", "GT": "ground-truth"}
_ACTIONS = {name: action for action, name in AVA_ACTIONS.items()}


def printed() -> Points:
    """The paper's numbers. Table 3 prints differences, so "before" is 0 there."""
    points: Points = {}
    tables = [None, *(pd.read_csv(published_dir("paper") / f"table{n}.csv") for n in (1, 2, 3, 4))]
    for name, (_, row) in zip([*_TABLE1, "ensemble"], tables[1].iterrows(), strict=True):
        points |= {(name, source): row[source] for source in SOURCES}
    points["ensemble, test", "ava+kinetics"] = tables[1]["ava+kinetics_test"].iloc[-1]
    for source in SOURCES:
        points["best single model", source] = max(points[name, source] for name in _TABLE1)
    for name, (_, row) in zip(recipes.TABLE2, tables[2].iterrows(), strict=True):
        points |= {(name, source): row[source] for source in ("ava", "kinetics")}
    for word, gain in tables[3].itertuples(index=False):
        measure = _TABLE3.get(word, word)
        points |= {("after", measure): gain, ("before", measure): 0.0}
    for _, row in tables[4].iterrows():
        name = _TABLE4[row["detector"]]
        points |= {(name, source): row[source] for source in ("ava", "kinetics")}
        points[f"boxes {name}", "ava AP@0.5"] = row["ava_person_AP"]
    return points


def committed() -> dict[str, list[Record]]:
    """Our records by row; a row that nobody ran has none, or is not named.

    Raises:
        InputError: a file is not a record, or as :func:`stadlib.report.reference_ensembles`.
    """
    folder = published_dir("reference")
    records = read_records(folder)
    tests = {record.digest: record for record in read_records(folder / "test")}
    found = _runs(records)
    members = [r for r in read_records(folder / "ensembles/members") if r.scale == "mini"]
    found["best single model"] = _best(members)
    found["ensemble"] = report.reference_ensembles()
    found["single models"] = [record for record in members if record.digest in tests]
    for name in ("ensemble", "single models"):
        found[f"{name}, test"] = [tests[r.digest] for r in found[name] if r.digest in tests]
    for version, record in detector_quality.reference_detectors().items():
        found[f"boxes {version}"] = [record]
    return found


def by_seed(records: Iterable[Record], measure: str, counts: Mapping[int, int]) -> dict[int, float]:
    """What records measure, by seed; several of one seed are averaged.

    A seed whose records lack the class is left out.

    Args:
        records: of one row.
        measure: as in the module's text.
        counts: training instances by action id, which make the thirds.
    """
    values: dict[int, list[float]] = {}
    for record in records:
        seed = record.experiment.get("seed", 0)  # a detector has none: there is one of each
        if (value := _value(record, measure, counts)) is not None:
            values.setdefault(seed, []).append(value)
    return {seed: fmean(found) for seed, found in values.items()}


def _value(record: Record, measure: str, counts: Mapping[int, int]) -> float | None:
    if measure in SOURCES:
        return percent(record.metrics[measure]["mAP"])
    if " AP@" in measure:
        source, name = measure.split(" ")
        return percent(record.metrics[source][name])
    ap = scores.by_class(record.metrics, "ava")
    if measure in _ACTIONS:
        return ap.get(_ACTIONS[measure])
    return fmean(ap[action] for action in thirds(counts)[measure] if action in ap)


def _runs(records: list[Record]) -> dict[str, list[Record]]:
    """The records of every row that a recipe names."""
    rows = dict(zip(_TABLE1, recipes.table1(), strict=True))
    truth = recipes.table1(detector="ground-truth")
    rows |= {f"{name}, ground-truth boxes": row for name, row in zip(_TABLE1, truth, strict=True)}
    backbone = "ir-csn-152"
    rows |= recipes.table2(backbone=backbone) | recipes.table3(backbone=backbone)
    rows |= recipes.table4(backbone=backbone)
    rows["new head without memory"] = recipes.memory_ablation(backbone=backbone)[0, 0]
    return {name: scores.of_experiment(row, records) for name, row in rows.items()}


def _best(singles: list[Record]) -> list[Record]:
    """Of each seed the record that validates best: the hardest to beat."""
    best: dict[int, Record] = {}
    for record in sorted(singles, key=lambda r: r.metrics["ava+kinetics"]["mAP"]):
        best[record.experiment["seed"]] = record
    return list(best.values())

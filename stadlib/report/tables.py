"""Our numbers beside the paper's, table by table.

Three kinds of numbers never mix: the paper's (``results/paper``, on AVA-Kinetics), the reference
(``results/reference``, our records at ``mini``) and a run of the reader's own. A column's header
says which it is and at which scale; a row without records reads "not run". mAP@0.5 in % everywhere,
differences in points, intervals of 95 % over seeds (Student's t).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from statistics import fmean

import pandas as pd

from stadlib import recipes, study
from stadlib.base import InputError, check_word, published_dir
from stadlib.data.labels import AVA_ACTIONS
from stadlib.recipes.experiment import Experiment, from_dict
from stadlib.recipes.scales import DETECTOR_SCALES, DETECTORS
from stadlib.report import scores
from stadlib.report.scores import NOT_RUN, SOURCES, bounds, mean_text, percent
from stadlib.study import Record, read_records

Records = Iterable[Record] | None  # None: the committed reference
BACKBONE = "ir-csn-152"  # of the reference for Tables 2 to 4
ROW = ("backbone", "pretrain", "input", "head", "+M")  # the words that name a row of Table 1
ENSEMBLE = ("ensemble", "-", "-", "mixed", "-")
MEMORY = {True: "✓", False: "×"}
FIRST, NEW, EMPTY = recipes.TABLE2
NOTHING = "new head without memory"
SHORT = {FIRST: "A first", NEW: "new head", EMPTY: "empty bank"}
VARIANTS = ("after", "after, new classifier", "square-root", "repeat-factor", "instance")
BALANCE = "after − instance"  # what balancing alone brings
THIRDS = {"top third": "top-20", "bottom third": "bottom-20", "all": "all-60"}
PAPER_ROWS = {"det-v1": "v1", "det-v2": "v2", "det-v3": "v3", "GT": "ground-truth"}
PLACES = {"ava": "AVA", "kinetics": "Kinetics"}
PERSON_AP, PRECISE_AP, ACTION_AP = "AP@0.5", "AP@0.5:0.95", "mAP@0.5"
TABLE4_COLUMNS = [f"{place} {name}" for place in PLACES.values() for name in (PERSON_AP, ACTION_AP)]
USES = ("extended", "product of scores", "trained on both")
COMPARED = {  # rows of a table whose records are paired by seed: better, plain
    2: (
        *((EMPTY, "t-only"), (NEW, "t-only"), (NEW, NOTHING)),
        *((EMPTY, NEW), (FIRST, NEW), (FIRST, EMPTY)),
        ("s-only, new head", "s-only, without memory"),
    ),
    4: (("v2", "v1"), ("v3", "v2"), ("v3", "v1"), ("GT", "v3"), *((use, "v3") for use in USES)),
}

# ----------------------------------------------------------------------------------- the paper's


def paper(table: int) -> pd.DataFrame:
    """Return a table of the paper as printed: text, with "-" where the paper has no number.

    Table 2 stands under our names of its strategies. Their second stage is the same: both datasets,
    memory on both, the backbone frozen.
    """
    check_word("table", table, (1, 2, 3, 4))
    path = published_dir("paper") / f"table{table}.csv"
    printed = pd.read_csv(path, dtype=str, keep_default_na=False)
    printed = printed.replace({"": "-", "yes": MEMORY[True], "no": MEMORY[False]})
    if table == 1:
        headers = {**SOURCES, "memory": "+M", "ava+kinetics_test": "A+K test"}
        return printed.rename(columns=headers).set_index(list(ROW))
    if table == 2:
        headers = {"stage1_data": "stage 1", "stage1_memory_ava": "+M(A)"}
        headers |= {"stage1_memory_kinetics": "+M(K)", "finetune": "finetune"} | PLACES
        printed = printed[list(headers)].rename(columns=headers)
        return printed.set_index(pd.Index(SHORT, name="strategy"))
    if table == 3:
        return printed.set_index("classes").rename(columns={"difference": "mAP@0.5 diff."})
    return printed.set_index("detector").set_axis(TABLE4_COLUMNS, axis=1)


def paper_by_detector() -> pd.DataFrame:
    """Return Table 4 in the form of :func:`by_detector`; the paper gives no intervals."""
    printed = paper(4).replace("-", "100").astype(float).set_axis([*DETECTORS, "GT"])
    tables = {
        place: printed[[f"{place} {PERSON_AP}", f"{place} {ACTION_AP}"]].set_axis(
            ["AP", "mAP"], axis=1
        )
        for place in PLACES.values()
    }
    return pd.concat(tables, names=["source", "detector"]).assign(low=nan, high=nan)


# ----------------------------------------------------------------------------- what is compared


def experiments(rows: Sequence[Experiment]) -> pd.DataFrame:
    """Return the words that name a row of Table 1, and every other field that differs."""
    table = pd.DataFrame([row.to_dict() for row in rows]).rename(columns={"frames": "input"})
    table["+M"] = [MEMORY[row.memory] for row in rows]
    table["stages"] = [" + ".join(str(stage.iterations) for stage in row.stages) for row in rows]
    table = table.rename(columns={"stages": "iterations"})
    differ = [name for name in table if name not in ROW and table[name].astype(str).nunique() > 1]
    return table[[*ROW, *differ]].set_index("backbone")


def stages(rows: dict[str, Experiment]) -> pd.DataFrame:
    """Return the stages of some rows in words: what is trained, where from, on what."""
    table = {
        (name, number): {
            "data": " + ".join(stage.data),
            "memory": " + ".join(stage.memory) or "-",
            "start": stage.start,
            "train": stage.train,
            "sampler": stage.sampler,
            "iterations": stage.iterations,
        }
        for name, row in rows.items()
        for number, stage in enumerate(row.stages, 1)
    }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis(["row", "stage"])


def provenance(records: Iterable[Record | None]) -> pd.DataFrame:
    """Return where the numbers come from, one column a record."""
    rows = [
        {name: record.experiment[name] for name in ("backbone", "head", "detector", "seed")}
        | {"scale": record.scale, "digest": record.digest}
        | record.provenance
        for record in records
        if record is not None
    ]
    return pd.DataFrame(rows).set_index("digest").T if rows else pd.DataFrame()


# -------------------------------------------------------------------------------- the reference


def reference_records(folder: str = "") -> list[Record]:
    """Read the committed records of a folder of ``results/reference``."""
    return read_records(published_dir("reference") / folder)


def reference_ensembles() -> list[Record]:
    """Read the committed ensembles, one a seed, whose experiment names their members.

    Raises:
        InputError: one does not say its seed.
    """
    records = reference_records("ensembles")
    for record in records:
        if "seed" not in record.experiment:
            raise InputError(f"ensemble {record.digest}: no seed; write its members' into it")
    return [record for record in records if record.scale == "mini"]


def reference_rows(**words: str) -> list[Record]:
    """Read the committed records of those rows of Table 1 that match words, as in recipes."""
    records = reference_records()
    rows = recipes.table1(scale="mini", **words)
    return [record for row in rows for record in scores.of_experiment(row, records)]


def reference_counts() -> pd.Series:
    """Read the training instances of each action, by id, in the data of the reference."""
    counts = pd.read_csv(published_dir("reference") / "class_counts.csv", index_col="action_id")
    return counts["ava"] + counts["kinetics"]


def row_key(experiment: dict) -> tuple[str, ...]:
    """The words that name a row of Table 1, in the lower case of the code."""
    memory = any(stage["memory"] for stage in experiment["stages"])
    words = (experiment[name] for name in ("backbone", "pretrain", "frames", "head"))
    return (*(word.lower() for word in words), MEMORY[memory])


def records_of(
    table: int, records: Records = None, backbone: str = BACKBONE
) -> dict[object, list[Record]]:
    """The mini records of every row of a table, and of the rows it is compared with, by name."""
    records = reference_records() if records is None else list(records)
    if table == 1:
        rows = {row_key(row.to_dict()): row for row in recipes.table1(scale="mini")}
    elif table == 2:
        words = {"detector": "ground-truth", "backbone": backbone, "pretrain": "K700"}
        words |= {"head": "t-only", "memory": "no"}
        amounts, other = (
            recipes.memory_ablation(backbone=backbone, head=head) for head in ("t-only", "s-only")
        )
        rows = recipes.table2(scale="mini", backbone=backbone) | {
            "t-only": recipes.table1(scale="mini", **words)[0],
            NOTHING: amounts[0, 0],
            "s-only, new head": other[recipes.SPAN, recipes.REMEMBERED],
            "s-only, without memory": other[0, 0],
        }
    elif table == 3:
        rows = recipes.table3(backbone=backbone)
    else:
        rows = recipes.table4(backbone=backbone) | recipes.box_uses(backbone=backbone)
        rows["GT"] = rows["ground-truth"]
    return {name: scores.of_experiment(row, records) for name, row in rows.items()}


def detectors_of(records: Mapping[str, Record] | None) -> dict[str, Record]:
    """Detector records at mini by version; the default is the committed reference."""
    records = study.reference_detectors() if records is None else records
    return {version: record for version, record in records.items() if record.scale == "mini"}


def reference(
    table: int = 1,
    *,
    backbone: str = BACKBONE,
    records: Records = None,
    detectors: Mapping[str, Record] | None = None,
    counts: Mapping[int, int] | None = None,
) -> pd.DataFrame:
    """Return the committed mini records on a table's rows: mean and 95 % interval over seeds.

    A record counts only if its experiment is the recipe's in every field but the seed. Table 1's
    last row are the committed ensembles. Table 3 has differences to "before" by groups of classes.
    Its last row is what balancing alone brings: the difference to as much training on data as it
    comes.

    Args:
        table: of the paper.
        backbone: of the rows of Tables 2 to 4.
        records: of the rows.
        detectors: records of detectors by version, for Table 4; None: the committed ones.
        counts: training instances by action id, for Table 3; None: the committed ones.
    """
    check_word("table", table, (1, 2, 3, 4))
    groups = records_of(table, records, backbone)
    if table == 1:
        groups[ENSEMBLE] = reference_ensembles() if records is None else []
        return _table1(groups)
    if table == 2:
        return _rows({name: groups[name] for name in SHORT}).rename_axis("strategy")
    if table == 4:
        return _table4(groups, detectors_of(detectors))
    pairs = {name: (groups[name], groups["before"]) for name in VARIANTS}
    pairs[BALANCE] = groups["after"], groups["instance"]
    counts = reference_counts().to_dict() if counts is None else counts
    rows = {name: _thirds_row(*pair, counts) for name, pair in pairs.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("second stage")


def beside_paper(
    runs: Iterable[Record | None] | Mapping[str, Record],
    table: int = 1,
    **options: object,
) -> pd.DataFrame:
    """Return the paper's table, the reference and these runs side by side.

    Args:
        runs: of one scale: any records of Tables 1 and 2, where None stands for a row that was not
            run; of Tables 3 and 4 by the words of ``recipes``. The boxes of Table 4's detectors are
            measured, or the record of having done so is read.
        table: of the paper.
        options: as in :func:`reference`.

    Raises:
        InputError: the records are of several scales.
    """
    records = [run for run in (runs.values() if isinstance(runs, Mapping) else runs) if run]
    scales = sorted({record.scale for record in records})
    if len(scales) > 1:
        raise InputError(f"records of {' and '.join(scales)} in one column; show them one by one")
    ours = reference(table, **options)
    groups = defaultdict(list)
    for record in records if table < 3 else ():
        experiment = record.experiment
        name = row_key(experiment) if table == 1 else recipes.strategy(from_dict(experiment))
        groups[name].append(record)
    if table == 1:
        parts = [paper(1).drop(columns="A+K test"), ours, _table1(groups)]
    elif table == 2:
        own = _rows({name: groups[name] for name in SHORT}).rename_axis("strategy")
        parts = [paper(2)[["AVA", "Kinetics"]], ours, own]
    elif table == 3:
        counts = options.get("counts") or reference_counts().to_dict()
        printed = paper(3)["mAP@0.5 diff."]
        printed = {name: [printed[words]] for name, words in THIRDS.items()}
        names = [name for name in VARIANTS if name in runs]
        rows = {name: _thirds_row([runs[name]], [runs["before"]], counts) for name in names}
        own = pd.DataFrame.from_dict(rows, orient="index")
        parts = [pd.DataFrame(printed, index=["after"]), ours, own]
    else:
        boxes = {
            version: study.detector_record(version, run.scale)
            for version, run in runs.items()
            if version in DETECTORS
        }
        own = _table4({name: [run] for name, run in runs.items()}, boxes)
        parts = [paper(4), ours[TABLE4_COLUMNS], own[TABLE4_COLUMNS]]
    title = f"this run: {scales[0]}" if scales else "this run"
    titles = ("paper", "reference: mini", title)
    if table == 3:
        stacked = dict(zip(titles, parts, strict=True))
        return pd.concat(stacked, names=["", "second stage"]).drop(columns="seeds")
    parts = [part.drop(columns="seeds", errors="ignore") for part in parts]
    return pd.concat(dict(zip(titles, parts, strict=True)), axis=1)


def _rows(groups: Mapping[object, list[Record]]) -> pd.DataFrame:
    """Means of the groups as text, by source, and how many seeds they are of."""
    rows = [
        {header: mean_text(records, source) for source, header in SOURCES.items()}
        | {"seeds": len(records)}
        for records in groups.values()
    ]
    return pd.DataFrame(rows, index=list(groups))


def _table1(groups: Mapping[tuple, list[Record]]) -> pd.DataFrame:
    """Means on the rows of Table 1."""
    index = paper(1).index
    records = {key: groups.get(tuple(word.lower() for word in key), []) for key in index}
    return _rows(records).set_axis(index)


def _thirds_row(after: list[Record], before: list[Record], counts: Mapping[int, int]) -> dict:
    """Differences of groups of classes on AVA as text: ``+1.05 ± 0.40``."""
    pairs = scores.paired_by_seed(after, before)
    aps = [[scores.by_class(record.metrics, "ava") for record in pair[1:]] for pair in pairs]
    row = {}
    for name, actions in thirds(counts).items():
        values = [fmean(a[k] - b[k] for k in actions if k in a and k in b) for a, b in aps]
        row[name] = scores.text_of(values, "+.2f")
    return row | {"seeds": len(pairs)}


def _table4(groups: Mapping[str, list[Record]], boxes: Mapping[str, Record]) -> pd.DataFrame:
    """Rows of Table 4 as text; "-" for the AP of ground-truth boxes, as the paper prints."""
    rows = {}
    for title, name in PAPER_ROWS.items():
        records, row = groups.get(name, []), {}
        for source, place in PLACES.items():
            for measure in (PERSON_AP, PRECISE_AP):
                text = "-" if name == "ground-truth" else _box_text(boxes, name, source, measure)
                row[f"{place} {measure}"] = text
            row[f"{place} {ACTION_AP}"] = mean_text(records, source)
        rows[title] = row | {"seeds": len({record.experiment["seed"] for record in records})}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("detector")


def _box_ap(boxes: Mapping[str, Record], version: str, source: str, name: str) -> float:
    return percent(boxes[version].metrics[source][name]) if version in boxes else nan


def _box_text(boxes: Mapping[str, Record], version: str, source: str, name: str) -> str:
    ap = _box_ap(boxes, version, source, name)
    return NOT_RUN if isnan(ap) else f"{ap:.2f}"


# ---------------------------------------------------------------------------------- differences


def paired_difference(
    head: str,
    baseline: str = "linear",
    by: str = "source",
    records: Records = None,
    **words: str,
) -> pd.DataFrame:
    """Return what a head gains over another, in points, paired by seed, rounded for reading.

    Args:
        head: the head that should gain.
        baseline: the head it is compared with.
        by: ``source``, or ``class`` or ``group`` on both sources jointly.
        records: the default is the committed reference of Table 1's rows, on v3's boxes and on the
            ground truth's.
        words: fields that the records must have, such as ``backbone="ir-csn-152"``.
    """
    if records is None:
        records = [r for boxes in ("v3", "ground-truth") for r in reference_rows(detector=boxes)]
    chosen = [
        record
        for record in records
        if all(record.experiment.get(name) == word for name, word in words.items())
    ]
    return scores.paired_difference(chosen, head, baseline, by).round(2)


def differences(
    table: int, by: str = "source", *, backbone: str = BACKBONE, records: Records = None
) -> pd.DataFrame:
    """Return what the rows of Table 2 or 4 gain over each other, in points, paired by seed.

    Args:
        table: 2 or 4.
        by: ``source``; or ``duration``, ``group`` or ``class`` on both sources jointly.
        backbone: of all the records compared.
        records: of the rows.

    Returns:
        By comparison and ``by``: ``gain``, ``low``, ``high`` (95 %), ``seeds``. Comparisons without
        records are left out.
    """
    check_word("table", table, tuple(COMPARED))
    groups = records_of(table, records, backbone)
    gains = {}
    for better, plain in COMPARED[table]:
        if pairs := scores.paired_by_seed(groups[better], groups[plain]):
            title = f"{SHORT.get(better, better)} − {SHORT.get(plain, plain)}"
            gains[title] = scores.gain_of_pairs(pairs, by)
    if not gains:
        return pd.DataFrame(columns=["gain", "low", "high", "seeds"])
    return pd.concat(gains, names=["comparison"]).round(2)


def by_class(
    table: int,
    variant: str = "after",
    *,
    backbone: str = BACKBONE,
    records: Records = None,
    source: str = "",
) -> pd.DataFrame:
    """Return what the idea of a table brings to every class, paired by seed.

    Args:
        table: 2: memory to one backbone's new head; 3: decoupled training, on AVA; 4: ground-truth
            boxes beside v3's, the largest gain first.
        variant: of Table 3.
        backbone: of the rows.
        records: of the rows.
        source: of the APs; by default both jointly, for Table 3 ``ava``.

    Returns:
        By action id: ``name``, ``group``, ``gain``, ``low``, ``high`` (points, 95 %), ``seeds``;
        for Table 3 also ``before`` and ``after`` (AP in %, mean over seeds).
    """
    groups = records_of(table, records, backbone)
    better, plain = {2: (NEW, NOTHING), 3: (variant, "before"), 4: ("GT", "v3")}[table]
    pairs = scores.paired_by_seed(groups[better], groups[plain])
    source = source or ("ava" if table == 3 else "ava+kinetics")
    gains = scores.gain_of_pairs(pairs, "class", source)
    if table == 4:
        return gains.sort_values("gain", ascending=False)
    for place, word in enumerate(("before", "after"), 1) if table == 3 else ():
        aps = [scores.by_class(pair[3 - place].metrics, source) for pair in pairs]
        gains.insert(place, word, [fmean(ap[action] for ap in aps) for action in gains.index])
    return gains


def thirds(counts: Mapping[int, int]) -> dict[str, list[int]]:
    """Return the classes by their training instances, the most frequent third first.

    The paper takes the 20 most and the 20 least frequent of 60.
    """
    ranked = sorted(counts, key=lambda action: (-counts[action], action))
    size = len(ranked) // 3
    return {"top third": ranked[:size], "bottom third": ranked[-size:], "all": ranked}


def most_changed(changes: pd.DataFrame, count: int = 3) -> pd.DataFrame:
    """Return the most improved and the most harmed classes, as the paper lists them."""
    ranked = changes.sort_values("gain", ascending=False)
    chosen = pd.concat([ranked.head(count), ranked.tail(count)])
    columns = [name for name in ("before", "after", "gain", "low", "high") if name in chosen]
    names = pd.Index([AVA_ACTIONS[action] for action in chosen.index], name="class")
    return chosen[columns].set_axis(names).astype(float).round(2)


# --------------------------------------------------------------------- amounts, boxes, thresholds


def amount_effect(backbone: str = BACKBONE, records: Records = None) -> pd.DataFrame:
    """Return mAP against how much is kept in memory.

    Returns:
        By (``span`` in seconds, ``persons`` of a second) and source: ``mAP``, ``low``, ``high``
        (95 % over seeds) and ``seeds``; amounts without records are left out.
    """
    records = reference_records() if records is None else list(records)
    rows = []
    for (span, persons), row in recipes.memory_ablation(backbone=backbone).items():
        runs = scores.of_experiment(row, records)
        for source, name in SOURCES.items() if runs else ():
            rows.append({"span": span, "persons": persons, "source": name} | bounds(runs, source))
    return _indexed(rows, ["span", "persons", "source"])


def person_boxes(records: Mapping[str, Record] | None = None) -> pd.DataFrame:
    """Return what the detector's versions are trained on, and how good their boxes are, at mini.

    Args:
        records: of detectors by version; None: the committed reference.
    """
    boxes = detectors_of(records)
    full = DETECTOR_SCALES["mini"].iterations
    rows = {}
    for version, trained in DETECTORS.items():
        texts = [f"{round(full * stage.share)} on {' + '.join(stage.data)}" for stage in trained]
        rows[version] = {"iterations": ", ".join(texts)}
        for source, place in PLACES.items():
            for name in (PERSON_AP, "AP@0.75", PRECISE_AP):
                rows[version][f"{place} {name}"] = _box_text(boxes, version, source, name)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("detector")


def by_detector(
    records: Records = None,
    detectors: Mapping[str, Record] | None = None,
    backbone: str = BACKBONE,
) -> pd.DataFrame:
    """Return mAP against how good the boxes are; ground truth's have an AP of 100.

    Returns:
        By source and detector (``v1``, ``v2``, ``v3``, ``GT``): ``AP``, ``mAP``, ``low``, ``high``
        (95 % over seeds), ``seeds``. Rows without records are left out.
    """
    groups, boxes = records_of(4, records, backbone), detectors_of(detectors)
    rows = []
    for source, place in PLACES.items():
        for name in (*DETECTORS, "GT"):
            ap = 100.0 if name == "GT" else _box_ap(boxes, name, source, PERSON_AP)
            if groups[name] and not isnan(ap):
                row = {"source": place, "detector": name, "AP": ap}
                rows.append(row | bounds(groups[name], source))
    return _indexed(rows, ["source", "detector"], ["AP"])


def by_threshold(
    records: Records = None,
    detectors: Mapping[str, Record] | None = None,
    backbone: str = BACKBONE,
) -> pd.DataFrame:
    """Return what is found and what is scored if boxes of v3 below a score are left out.

    Returns:
        By source and threshold: ``recall`` and ``precision`` of the boxes at IoU 0.5 in %, and
        ``mAP``, ``low``, ``high`` (95 % over seeds), ``seeds``. NaN and 0 seeds where one of the
        two is missing; no row where both are.
    """
    groups, boxes = records_of(4, records, backbone), detectors_of(detectors)
    rows = []
    for source, place in PLACES.items():
        curve = boxes["v3"].metrics[source]["thresholds"] if "v3" in boxes else {}
        least = {float(name) for name in curve} | set(recipes.THRESHOLDS)
        for threshold in sorted(least):
            at, runs = curve.get(str(threshold), {}), groups.get(f"threshold {threshold}", [])
            if at.get("recall") or runs:
                row = {"source": place, "threshold": threshold}
                row |= {name: percent(at.get(name)) for name in ("recall", "precision")}
                rows.append(row | bounds(runs, source))
    return _indexed(rows, ["source", "threshold"], ["recall", "precision"])


def _indexed(rows: list[dict], index: list[str], columns: Sequence[str] = ()) -> pd.DataFrame:
    columns = [*index, *columns, "mAP", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns).set_index(index)

"""Our numbers beside the paper's, table by table.

A column's header says whose numbers it has: the paper's (``results/paper``), the reference's
(``results/reference``, our records at ``mini``) or a run's. A row without records reads "not run".
mAP@0.5 in %, differences in points, 95 % intervals over seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import nan
from statistics import fmean

import pandas as pd

from stadlib import recipes, study
from stadlib.base import InputError, check_word, published_dir
from stadlib.data.layout import AVA_ACTIONS
from stadlib.recipes.experiment import Experiment, from_dict
from stadlib.recipes.scales import DETECTOR_SCALES, DETECTORS
from stadlib.report import scores
from stadlib.report.scores import SOURCES, bounds, mean_text, percent, text_of, values_of
from stadlib.study import Record

BACKBONE = "ir-csn-152"  # of the reference for Tables 2 to 4
MEMORY = {True: "✓", False: "×"}
PLACES = {"ava": "AVA", "kinetics": "Kinetics"}
ROW = ("backbone", "pretrain", "input", "head", "+M")  # the words that name a row of Table 1
ENSEMBLE = ("ensemble", "-", "-", "mixed", "-")
FIRST, NEW, EMPTY = recipes.TABLE2
NOTHING = "new head without memory"
SHORT = {FIRST: "A first", NEW: "new head", EMPTY: "empty bank"}
VARIANTS = ("after", "after, new classifier", "square-root", "repeat-factor", "instance")
BALANCE = "after − instance"  # what balancing alone brings
THIRDS = {"top third": "top-20", "bottom third": "bottom-20", "all": "all-60"}
PAPER_ROWS = {"det-v1": "v1", "det-v2": "v2", "det-v3": "v3", "GT": "ground-truth"}
PERSON_AP, PRECISE_AP, ACTION_AP = "AP@0.5", "AP@0.5:0.95", "mAP@0.5"
COMPARED = {  # rows of a table whose records are paired by seed: better, plain
    2: (
        *((EMPTY, "t-only"), (NEW, "t-only"), (NEW, NOTHING)),
        *((EMPTY, NEW), (FIRST, NEW), (FIRST, EMPTY)),
        ("s-only, new head", "s-only, without memory"),
    ),
    4: (
        *(("v2", "v1"), ("v3", "v2"), ("v3", "v1"), ("GT", "v3")),
        *(("extended", "v3"), ("product of scores", "v3"), ("trained on both", "v3")),
    ),
}
HEADERS = {  # of a table of the paper, by the columns of its file
    1: SOURCES | {"memory": "+M", "ava+kinetics_test": "A+K test"},
    2: {"stage1_data": "stage 1", "stage1_memory_ava": "+M(A)", "stage1_memory_kinetics": "+M(K)"}
    | {"finetune": "finetune"}
    | PLACES,
    3: {"difference": "mAP@0.5 diff."},
    4: {f"{source}_person_AP": f"{place} {PERSON_AP}" for source, place in PLACES.items()}
    | {source: f"{place} {ACTION_AP}" for source, place in PLACES.items()},
}


def paper(table: int) -> pd.DataFrame:
    """A table of the paper as printed, as text; "-" stands where the paper has no number."""
    check_word("table", table, tuple(HEADERS))
    path = published_dir("paper") / f"table{table}.csv"
    printed = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=HEADERS[table])
    printed = printed.replace({"": "-", "yes": MEMORY[True], "no": MEMORY[False]})
    if table == 2:
        return printed[list(HEADERS[2].values())].set_index(pd.Index(SHORT, name="strategy"))
    return printed.set_index({1: list(ROW), 3: "classes", 4: "detector"}[table])


def paper_by_detector() -> pd.DataFrame:
    """Table 4 in the form of :func:`by_detector`; the paper gives no intervals."""
    printed = paper(4).replace("-", "100").astype(float).set_axis([*DETECTORS, "GT"])
    parts = {}
    for place in PLACES.values():
        columns = printed[[f"{place} {PERSON_AP}", f"{place} {ACTION_AP}"]]
        parts[place] = columns.set_axis(["AP", "mAP"], axis=1)
    return pd.concat(parts, names=["source", "detector"]).assign(low=nan, high=nan)


def experiments(rows: Sequence[Experiment]) -> pd.DataFrame:
    """The words that name a row of Table 1, and every other field that differs."""
    table = pd.DataFrame([row.to_dict() for row in rows])
    table["+M"] = [MEMORY[row.memory] for row in rows]
    table["stages"] = [" + ".join(str(stage.iterations) for stage in row.stages) for row in rows]
    table = table.rename(columns={"frames": "input", "stages": "iterations"})
    differ = [name for name in table if name not in ROW and table[name].astype(str).nunique() > 1]
    return table[[*ROW, *differ]].set_index("backbone")


def stages(rows: dict[str, Experiment]) -> pd.DataFrame:
    """The stages of some rows in words: what is trained, where from, on what."""
    names = ["data", "memory", "start", "train", "sampler", "iterations"]
    parts = {name: pd.DataFrame(map(vars, row.stages))[names] for name, row in rows.items()}
    table = pd.concat(parts, names=["row", "stage"]).rename(lambda number: number + 1, level=1)
    for name in ("data", "memory"):
        table[name] = table[name].map(" + ".join).replace("", "-")
    return table


def provenance(records: Iterable[Record | None]) -> pd.DataFrame:
    """Where the numbers come from, one column a record."""
    rows = [
        {name: record.experiment[name] for name in ("backbone", "head", "detector", "seed")}
        | {"scale": record.scale, "digest": record.digest}
        | record.provenance
        for record in records
        if record is not None
    ]
    return pd.DataFrame(rows).set_index("digest").T if rows else pd.DataFrame()


def reference_rows(**words: str) -> list[Record]:
    """The committed records of the rows of Table 1 that match words, as in recipes."""
    rows = dict(enumerate(recipes.table1(scale="mini", **words)))
    return [*chain(*scores.replicates(rows).values())]


def reference_counts() -> pd.Series:
    """The training instances of each action, by id, in the data of the reference."""
    counts = pd.read_csv(published_dir("reference") / "class_counts.csv", index_col="action_id")
    return counts["ava"] + counts["kinetics"]


def reference_boxes() -> dict[str, list[Record]]:
    """The committed records of detectors, by version, one a seed."""
    records = scores.reference_records("detectors")
    return {v: [one for one in records if one.experiment["detector"] == v] for v in DETECTORS}


def row_key(experiment: dict) -> tuple[str, ...]:
    """The words that name a row of Table 1, in the lower case of the code."""
    memory = any(stage["memory"] for stage in experiment["stages"])
    words = (experiment[name] for name in ("backbone", "pretrain", "frames", "head"))
    return (*(word.lower() for word in words), MEMORY[memory])


def records_of(table: int, backbone: str = BACKBONE) -> dict[object, list[Record]]:
    """The mini records of every row of a table, and of the rows it is compared with, by name."""
    if table == 1:
        rows = {row_key(row.to_dict()): row for row in recipes.table1(scale="mini")}
    elif table == 2:
        same = {"backbone": backbone}
        words = same | {"pretrain": "K700", "head": "t-only", "memory": "no"}
        amounts = recipes.memory_ablation(**same)
        other = recipes.memory_ablation(**same, head="s-only")
        rows = recipes.table2(scale="mini", **same) | {
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
    return scores.replicates(rows)


def reference(table: int = 1, backbone: str = BACKBONE) -> pd.DataFrame:
    """The committed mini records on a table's rows: mean and 95 % interval over seeds.

    A record counts if its experiment is the recipe's in every field but the seed. Tables 2 to 4 are
    of one backbone. Table 3 has differences to "before", and what balancing alone brings.
    """
    check_word("table", table, tuple(HEADERS))
    groups = records_of(table, backbone)
    if table == 1:
        groups[ENSEMBLE] = scores.reference_records("ensembles")
    return _on_rows(table, groups, reference_boxes())


def beside_paper(
    runs: Iterable[Record | None] | Mapping[str, Record], table: int = 1, backbone: str = BACKBONE
) -> pd.DataFrame:
    """The paper's table, the reference (of a backbone) and these runs (of a scale) side by side.

    For Tables 1 and 2 ``runs`` are any records, None for a row that was not run; for Tables 3 and 4
    they are by the words of ``recipes``. Table 4 measures its detectors' boxes at first use.
    """
    records = [run for run in (runs.values() if isinstance(runs, Mapping) else runs) if run]
    scales = sorted({record.scale for record in records})
    if len(scales) > 1:
        raise InputError(f"records of {' and '.join(scales)} in one column; show them one by one")
    groups, boxes = defaultdict(list), {}
    for record in records if table < 3 else ():
        experiment = record.experiment
        name = row_key(experiment) if table == 1 else recipes.strategy(from_dict(experiment))
        groups[name].append(record)
    if table > 2:
        groups |= {name: [run] for name, run in runs.items()}
    if table == 4:
        names = [name for name in runs if name in DETECTORS]
        words = {name: (runs[name].scale, runs[name].experiment["seed"]) for name in names}
        boxes = {name: [study.detector_record(name, *of)] for name, of in words.items()}
    own = f"this run: {scales[0]}" if scales else "this run"
    parts = {"paper": paper(table), "reference: mini": reference(table, backbone)}
    parts[own] = _on_rows(table, groups, boxes)
    if table == 3:  # below each other: the paper has one row
        changes = {name: [parts["paper"].loc[word].item()] for name, word in THIRDS.items()}
        parts["paper"] = pd.DataFrame(changes, index=["after"])
        parts[own] = parts[own].loc[[name for name in VARIANTS if name in runs]]
        return pd.concat(parts, names=["", "second stage"]).drop(columns="seeds")
    shown = {*SOURCES.values(), *HEADERS[4].values()}
    parts = {title: part[[name for name in part if name in shown]] for title, part in parts.items()}
    return pd.concat(parts, axis=1)


def _on_rows(
    table: int, groups: Mapping[object, list[Record]], boxes: Mapping[str, list[Record]]
) -> pd.DataFrame:
    """One kind of numbers as text on the rows of a table, and how many seeds they are of."""
    if table < 3:
        rows, keys = [], paper(table).index
        for key in keys:
            records = groups.get(tuple(map(str.lower, key)) if table == 1 else key, [])
            row = {header: mean_text(records, source) for source, header in SOURCES.items()}
            rows.append(row | {"seeds": len(records)})
        return pd.DataFrame(rows, index=keys)
    rows = {}
    if table == 3:
        parts = thirds(reference_counts())
        pairs = {name: (name, "before") for name in VARIANTS} | {BALANCE: ("after", "instance")}
        for name, (after, before) in pairs.items():
            twins = scores.paired_by_seed(groups.get(after, []), groups.get(before, []))
            aps = [[scores.by_class(one.metrics, "ava") for one in pair[1:]] for pair in twins]
            rows[name] = {}
            for part, actions in parts.items():
                values = [fmean(a[k] - b[k] for k in actions if k in a and k in b) for a, b in aps]
                rows[name][part] = text_of(values, "+.2f")
            rows[name]["seeds"] = len(twins)
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("second stage")
    for title, name in PAPER_ROWS.items():
        records, row = groups.get(name, []), {}
        for source, place in PLACES.items():
            for measure in (PERSON_AP, PRECISE_AP):  # the paper prints "-" for the ground truth's
                text = mean_text(boxes.get(name, []), source, measure)
                row[f"{place} {measure}"] = "-" if title == "GT" else text
            row[f"{place} {ACTION_AP}"] = mean_text(records, source)
        rows[title] = row | {"seeds": len({record.experiment["seed"] for record in records})}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("detector")


def paired_difference(
    head: str, baseline: str = "linear", by: str = "source", **words: str
) -> pd.DataFrame:
    """What a head gains over another in Table 1's reference, in points, paired by seed.

    ``by`` is source, or class or group (on both sources); words choose records: ``detector="v3"``.
    """
    records = [r for boxes in ("v3", "ground-truth") for r in reference_rows(detector=boxes)]
    chosen = [r for r in records if all(r.experiment.get(k) == word for k, word in words.items())]
    pairs = [
        (better.experiment["seed"], better, plain)
        for better in chosen
        for plain in chosen
        if better.experiment["head"] == head
        and plain.experiment == {**better.experiment, "head": baseline}
    ]
    return scores.gain_of_pairs(pairs, by).round(2)


def differences(table: int, by: str = "source", backbone: str = BACKBONE) -> pd.DataFrame:
    """What the rows of Table 2 or 4 gain over each other: ``gain``, ``low``, ``high``, ``seeds``.

    Points, paired by seed, ``by`` source (or duration, group, class, on both sources jointly).
    Comparisons without records are left out.
    """
    check_word("table", table, tuple(COMPARED))
    groups = records_of(table, backbone)
    gains = {}
    for better, plain in COMPARED[table]:
        if pairs := scores.paired_by_seed(groups[better], groups[plain]):
            title = f"{SHORT.get(better, better)} − {SHORT.get(plain, plain)}"
            gains[title] = scores.gain_of_pairs(pairs, by)
    if not gains:
        return pd.DataFrame(columns=["gain", "low", "high", "seeds"])
    return pd.concat(gains, names=["comparison"]).round(2)


def by_class(table: int, backbone: str = BACKBONE) -> pd.DataFrame:
    """What the idea of a table brings to every class by action id, in points, paired by seed.

    Table 3: decoupled training, on AVA, with ``before`` and ``after``. Table 4: ground-truth boxes
    beside v3's, on both sources, the largest gain first.
    """
    groups = records_of(table, backbone)
    better, plain = {3: ("after", "before"), 4: ("GT", "v3")}[table]
    pairs = scores.paired_by_seed(groups[better], groups[plain])
    gains = scores.gain_of_pairs(pairs, "class", "ava" if table == 3 else "ava+kinetics")
    if table == 3:
        for place, word, one in ((1, "before", 2), (2, "after", 1)):
            aps = [scores.by_class(pair[one].metrics, "ava") for pair in pairs]
            gains.insert(place, word, [fmean(ap[action] for ap in aps) for action in gains.index])
    return gains.sort_values("gain", ascending=False) if table == 4 else gains


def thirds(counts: Mapping[int, int] | pd.Series) -> dict[str, list[int]]:
    """The classes by training instances; the paper takes the first and last 20 of 60."""
    ranked = sorted(counts.keys(), key=lambda action: (-counts[action], action))
    size = len(ranked) // 3
    return {"top third": ranked[:size], "bottom third": ranked[-size:], "all": ranked}


def most_changed(changes: pd.DataFrame, count: int = 3) -> pd.DataFrame:
    """The most improved and the most harmed classes, as the paper lists them."""
    ranked = changes.sort_values("gain", ascending=False)
    chosen = pd.concat([ranked.head(count), ranked.tail(count)])
    columns = [name for name in ("before", "after", "gain", "low", "high") if name in chosen]
    names = pd.Index([AVA_ACTIONS[action] for action in chosen.index], name="class")
    return chosen[columns].set_axis(names).astype(float).round(2)


def amount_effect(backbone: str = BACKBONE) -> pd.DataFrame:
    """mAP by ``span`` in seconds, ``persons`` of a second in memory, and source."""
    rows, amounts = [], scores.replicates(recipes.memory_ablation(backbone=backbone))
    for (span, persons), runs in amounts.items():
        for source, name in SOURCES.items() if runs else ():
            rows.append({"span": span, "persons": persons, "source": name} | bounds(runs, source))
    return _indexed(rows, ["span", "persons", "source"])


def person_boxes() -> pd.DataFrame:
    """What the detector's versions are trained on, and how good their boxes are, at mini."""
    boxes, rows = reference_boxes(), {}
    full = DETECTOR_SCALES["mini"].iterations
    for version, trained in DETECTORS.items():
        texts = [f"{round(full * stage.share)} on {' + '.join(stage.data)}" for stage in trained]
        rows[version] = {"iterations": ", ".join(texts)}
        for source, place in PLACES.items():
            for name in (PERSON_AP, "AP@0.75", PRECISE_AP):
                rows[version][f"{place} {name}"] = mean_text(boxes[version], source, name)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("detector")


def by_detector(backbone: str = BACKBONE) -> pd.DataFrame:
    """mAP against the AP of the boxes, by source and detector; the ground truth's is 100."""
    groups, boxes, rows = records_of(4, backbone), reference_boxes(), []
    for source, place in PLACES.items():
        for name in (*DETECTORS, "GT"):
            aps = [100.0] if name == "GT" else values_of(boxes[name], source, PERSON_AP)
            if groups[name] and aps:
                row = {"source": place, "detector": name, "AP": fmean(aps)}
                rows.append(row | bounds(groups[name], source))
    return _indexed(rows, ["source", "detector"], ["AP"])


def by_threshold(backbone: str = BACKBONE) -> pd.DataFrame:
    """Recall and precision of v3's boxes (%, IoU 0.5) and mAP by source and least score.

    One of the two may be missing (NaN, 0 seeds); a threshold without both is left out.
    """
    groups, boxes, rows = records_of(4, backbone), reference_boxes(), []
    for source, place in PLACES.items():
        curves = [record.metrics[source]["thresholds"] for record in boxes.get("v3", [])]
        for threshold in sorted({*map(float, chain(*curves)), *recipes.THRESHOLDS}):
            points = [curve[str(threshold)] for curve in curves if str(threshold) in curve]
            runs = groups.get(f"threshold {threshold}", [])
            if any(point["recall"] for point in points) or runs:
                row = {"source": place, "threshold": threshold}
                for name in ("recall", "precision"):
                    known = [percent(p[name]) for p in points if p[name] is not None]
                    row[name] = fmean(known) if known else nan
                rows.append(row | bounds(runs, source))
    return _indexed(rows, ["source", "threshold"], ["recall", "precision"])


def _indexed(rows: list[dict], index: list[str], columns: Sequence[str] = ()) -> pd.DataFrame:
    columns = [*index, *columns, "mAP", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns).set_index(index)

"""Our numbers beside the paper's.

Three kinds of numbers never mix: the paper's (``results/paper``, on AVA-Kinetics), the reference
(``results/reference``, our records at ``mini``) and a run of the reader's own. A column's header
says which it is and at which scale; what nobody ran reads "not run". mAP@0.5 in % everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from stadlib import recipes
from stadlib.base import InputError, check_word, published_dir, write_whole
from stadlib.recipes.experiment import Experiment
from stadlib.report import scores
from stadlib.report.scores import SOURCES
from stadlib.study import Record, read_records

START, END = "<!-- results:start -->", "<!-- results:end -->"
_ENSEMBLE = ("ensemble", "-", "-", "mixed", "-")  # the key of Table 1's last row
_ROW = ("backbone", "pretrain", "input", "head", "+M")
_MEMORY = {True: "✓", False: "×"}
_HEADERS = {**SOURCES, "memory": "+M", "ava+kinetics_test": "A+K test"}
_MARKS = {"": "-", "yes": _MEMORY[True], "no": _MEMORY[False]}


def paper_table(table: int) -> pd.DataFrame:
    """Return a table of the paper as printed: text, with "-" where the paper has none."""
    check_word("table", table, (1, 2, 3, 4))
    path = published_dir("paper") / f"table{table}.csv"
    printed = pd.read_csv(path, dtype=str, keep_default_na=False).replace(_MARKS)
    printed = printed.rename(columns=_HEADERS)
    keys = list(_ROW) if table == 1 else [printed.columns[0]]
    return printed.set_index(keys)


def experiments(rows: Sequence[Experiment]) -> pd.DataFrame:
    """Return the words that name a row of Table 1, and every other field that differs."""
    table = pd.DataFrame([row.to_dict() for row in rows]).rename(columns={"frames": "input"})
    table["+M"] = [_MEMORY[row.memory] for row in rows]
    table["stages"] = [" + ".join(str(stage.iterations) for stage in row.stages) for row in rows]
    table = table.rename(columns={"stages": "iterations"})
    differ = [name for name in table if name not in _ROW and table[name].astype(str).nunique() > 1]
    return table[[*_ROW, *differ]].set_index("backbone")


def stages(rows: dict[str, Experiment]) -> pd.DataFrame:
    """Return the stages of some rows in words: what is trained, where from, on what."""
    table = {}
    for name, row in rows.items():
        for number, stage in enumerate(row.stages, 1):
            table[name, number] = {
                "data": " + ".join(stage.data),
                "memory": " + ".join(stage.memory) or "-",
                "start": stage.start,
                "train": stage.train,
                "sampler": stage.sampler,
                "iterations": stage.iterations,
            }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis(["row", "stage"])


def reference_records(folder: Path | None = None) -> list[Record]:
    """Read the committed records (by default ``results/reference``)."""
    return read_records(folder or published_dir("reference"))


def reference_ensembles() -> list[Record]:
    """Read the committed ensembles, one a seed, whose experiment names their members.

    Raises:
        InputError: one does not say its seed.
    """
    found = read_records(published_dir("reference") / "ensembles")
    for record in found:
        if "seed" not in record.experiment:
            raise InputError(f"ensemble {record.digest}: no seed; write its members' into it")
    return [record for record in found if record.scale == "mini"]


def reference_rows(**words: str) -> list[Record]:
    """Read the committed records of those rows of Table 1 that match words, as in recipes."""
    found = reference_records()
    rows = recipes.table1(scale="mini", **words)
    return [record for row in rows for record in scores.of_experiment(row, found)]


def reference_counts() -> pd.Series:
    """Read the training instances of each action, by id, in the data of the reference."""
    counts = pd.read_csv(published_dir("reference") / "class_counts.csv", index_col="action_id")
    return counts["ava"] + counts["kinetics"]


def reference(table: int = 1, records: Iterable[Record] | None = None) -> pd.DataFrame:
    """Return the committed mini records on the rows of the paper's table: mean and 95 % interval.

    The interval is Student's t over seeds; a record counts only if its experiment is the recipe's
    in every field but the seed. The committed ensembles are the last row.
    """
    check_word("table", table, (1,))
    groups = defaultdict(list)
    if records is None:
        groups[_ENSEMBLE] = reference_ensembles()
    found = reference_records() if records is None else list(records)
    for row in recipes.table1(scale="mini"):
        for record in scores.of_experiment(row, found):
            groups[_row(record.experiment)].append(record)
    return _beside(groups, seeds=True)


def beside_paper(records: Iterable[Record | None], table: int = 1) -> pd.DataFrame:
    """Return the paper's table, the reference and these records side by side.

    Args:
        records: of one scale, any number of seeds a row; None stands for a row that was not run.
        table: of the paper; 1.

    Raises:
        InputError: the records are of several scales.
    """
    records = [record for record in records if record is not None]
    scales = sorted({record.scale for record in records})
    if len(scales) > 1:
        raise InputError(f"records of {' and '.join(scales)} in one column; show them one by one")
    groups = defaultdict(list)
    for record in records:
        groups[_row(record.experiment)].append(record)
    title = f"this run: {scales[0]}" if scales else "this run"
    parts = {
        "paper": paper_table(table).drop(columns="A+K test"),
        "reference: mini": reference(table).drop(columns="seeds"),
        title: _beside(groups),
    }
    return pd.concat(parts, axis=1)


def paired_difference(
    head: str,
    baseline: str = "linear",
    by: Literal["source", "class", "group"] = "source",
    records: Iterable[Record] | None = None,
    **words: str,
) -> pd.DataFrame:
    """Return what a head gains over another, in mAP points, paired by seed, rounded for reading.

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


def provenance(records: Iterable[Record | None]) -> pd.DataFrame:
    """Return where the numbers come from, one column a record."""
    rows = []
    for record in records:
        if record is not None:
            words = {
                name: record.experiment[name] for name in ("backbone", "head", "detector", "seed")
            }
            rows.append({**words, "scale": record.scale, "digest": record.digest})
            rows[-1].update(record.provenance)
    return pd.DataFrame(rows).set_index("digest").T if rows else pd.DataFrame()


def readme_table() -> str:
    """Return Table 1 in Markdown, the paper's numbers and the reference side by side."""
    paper, ours = paper_table(1).drop(columns="A+K test"), reference(1)
    header = [*_ROW, *(f"paper {name}" for name in paper), *(f"mini {name}" for name in ours)]
    lines = [" | ".join(header), " | ".join(["---"] * len(header))]
    for key in paper.index:
        lines.append(" | ".join([*key, *paper.loc[key], *map(str, ours.loc[key])]))
    return "\n".join([*(f"| {line} |" for line in lines), *_ensemble_members()])


def _ensemble_members() -> list[str]:
    """A line with the models that the committed ensembles average; none without one."""
    if not reference_ensembles():
        return []
    groups = defaultdict(list)
    for record in read_records(published_dir("reference") / "ensembles/members"):
        words = (record.experiment[name] for name in ("backbone", "pretrain", "frames", "head"))
        memory = any(stage["memory"] for stage in record.experiment["stages"])
        groups[" ".join([*words, *["+M"] * memory])].append(record)
    alone = (f"{name} {scores.mean_text(found, 'ava+kinetics')}" for name, found in groups.items())
    return [
        "",
        f"Our ensemble averages {len(groups)} models of one seed, alone (A+K): {', '.join(alone)}.",
    ]


def update_readme(path: Path) -> None:
    """Rewrite what stands between the two ``results`` marks of a Markdown file.

    Raises:
        InputError: the file lacks the marks.
    """
    rewrite(path, (START, END), readme_table())


def rewrite(path: Path, marks: tuple[str, str], section: str) -> None:
    """Put a section between two marks of a Markdown file.

    Raises:
        InputError: the file lacks the marks.
    """
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (start and end):
        raise InputError(f"{path}: the lines {' and '.join(marks)} are missing; put them back")
    write_whole(path, f"{before}{marks[0]}\n{section}\n{marks[1]}{after}")


def _row(experiment: dict) -> tuple[str, ...]:
    """The words that name a row of Table 1, in the lower case of the code."""
    memory = any(stage["memory"] for stage in experiment["stages"])
    words = (experiment[name] for name in ("backbone", "pretrain", "frames", "head"))
    return (*(word.lower() for word in words), _MEMORY[memory])


def _beside(groups: dict[tuple, list[Record]], seeds: bool = False) -> pd.DataFrame:
    """Means of the groups as text, on the rows of the paper's table."""
    index = paper_table(1).index
    rows = []
    for key in index:
        records = groups.get(tuple(word.lower() for word in key), [])
        row = {header: scores.mean_text(records, source) for source, header in SOURCES.items()}
        rows.append({**row, "seeds": len(records)} if seeds else row)
    return pd.DataFrame(rows, index=index)

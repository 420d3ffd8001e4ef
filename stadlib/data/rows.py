"""AVA's CSV: one reader and one list of problems for every kind of file that has its rows.

A row is ``video,timestamp,x1,y1,x2,y2,action_id[,score]`` without a header; column 8 is a score or
a person's id. Two columns, ``video,timestamp``, name a keyframe without a label. Timestamps are
seconds. polars parses a sound file; a file with anything wrong or unusual is read line by line.
"""

import codecs
import contextlib
import csv
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError, written_whole

COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")
BOX = ("x1", "y1", "x2", "y2")
NO_LABEL = -1  # action_id of a row without an action; the files' own ids start at 1
PIXELS = 2.0  # beyond it a corner is no fraction of a frame
PART = 500_000  # rows to write at a time, some 50 MB
Rows = pd.DataFrame | str | Path | Sequence[pd.DataFrame | str | Path]
_TYPES = dict.fromkeys(COLUMNS, pl.Float64) | {"video": pl.String, "action_id": pl.Int32}
_CHARACTERS = 1 << 25  # to read at a time, line by line


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a kind of file demands of its rows. Numbers are finite in every kind."""

    widths: tuple[int, ...] = (2, 7, 8)  # possible numbers of columns
    fractions: bool = False  # corners are in [0, 1]
    margin: float = 0.0  # by which they may leave it; then they are clipped, and a note says so
    area: bool = False  # x1 < x2 and y1 < y2
    actions: Collection[int] | None = None  # NO_LABEL may be left empty; None: any whole number
    named: str = "this file may have"  # where the actions are from, to end a message
    last: Literal["score", "probability", "person"] = "score"  # column 8


EVALUATED = Form()  # as tolerant as the official evaluator


@dataclass
class Problems:
    """What is wrong with a file: the first ``most`` rows of each kind, and how many more."""

    path: Path
    most: float = 1
    rows: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was mended, a line each
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, rows: Sequence[int], texts: Iterable[str]) -> None:
        """Note that these rows (from 1) have a problem; texts that are not shown are not made."""
        left = int(min(len(rows), max(0, self.most - self.counts[kind])))
        self.counts[kind] += len(rows)
        self.rows += islice(zip(rows, texts, strict=True), left)

    def lines(self) -> list[str]:
        """One line a problem, ``file:row: what; remedy``, in the order of the file."""
        lines = [f"{self.path}:{row}: {text}" for row, text in sorted(self.rows)]
        more = [(kind, int(n - self.most)) for kind, n in self.counts.items() if n > self.most]
        return lines + [f"{self.path}: {n} more of the same: {kind}" for kind, n in more]

    def refuse(self) -> None:
        """Raise the first problem in the file, if there is any, as an InputError."""
        if self.rows:
            raise InputError(self.lines()[0])


def read(path: str | Path, form: Form, most: float = 1) -> tuple[pl.DataFrame, Problems]:
    """Read the right rows of a file, and what is wrong with the others (``most`` lines a kind).

    The frame has ``row`` (from 1) and :data:`COLUMNS`. Column 8 is ``score``, 1 where it is
    missing, or ``person``, -1 where it is missing or a score. Two columns: corners are null.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected rows {','.join(COLUMNS)}")
    problems = Problems(path, most)
    try:
        rows = _read_fast(path, form)
        if rows is None:
            rows = _read_carefully(path, form, problems)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error}); check the file") from error
    if form.margin:
        rows = _clipped(rows, problems)
    return rows.drop("score") if form.last == "person" else rows, problems


def _clipped(rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """Corners within [0, 1]; notes how many rows that changes."""
    outside = pl.any_horizontal(~pl.col(name).is_between(0, 1) for name in BOX)
    changed = rows.filter(outside.fill_null(False))["row"]
    if len(changed):
        text = f"of {len(changed)} rows the box sticks out of the frame and is clipped"
        problems.notes.append(f"{problems.path}: {text}; the first is row {changed[0]}")
    return rows.with_columns(pl.col(name).clip(0, 1) for name in BOX)


def read_rows(path: str | Path, form: Form = EVALUATED) -> pd.DataFrame:
    """A file's :data:`COLUMNS`, ``video`` categorical; an InputError names its first wrong row."""
    rows, problems = read(path, form)
    problems.refuse()
    return to_pandas(rows.drop("row"))


def to_pandas(rows: pl.DataFrame) -> pd.DataFrame:
    """The same frame in pandas, ``video`` as categories in order of appearance, null as NaN."""
    names = rows["video"].unique(maintain_order=True)
    codes = rows["video"].cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int32)
    video = pd.Categorical.from_codes(codes, categories=pd.Index(names.to_list(), dtype=object))
    columns = {name: video if name == "video" else rows[name].to_numpy() for name in rows.columns}
    return pd.DataFrame(columns, copy=False)


def table(rows: Rows) -> pd.DataFrame:
    """Files, frames and sequences of them as one frame of :data:`COLUMNS`."""
    if isinstance(rows, str | Path):
        return read_rows(rows)
    if isinstance(rows, pd.DataFrame):
        if missing := [name for name in COLUMNS[:7] if name not in rows]:
            raise InputError(f"column {missing[0]!r} is missing; needed are {', '.join(COLUMNS)}")
        rows = rows if "score" in rows else rows.assign(score=1.0)
        if isinstance(rows["video"].dtype, pd.CategoricalDtype):
            return rows
        codes, names = pd.factorize(np.asarray(rows["video"], dtype=object))
        names = pd.Index(names, dtype=object)
        return rows.assign(video=pd.Categorical.from_codes(codes, categories=names))
    parts = [table(part)[list(COLUMNS)] for part in rows]
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    video = pd.api.types.union_categoricals([part["video"] for part in parts])
    whole = pd.concat([part.drop(columns="video") for part in parts], ignore_index=True)
    return whole.assign(video=video)


def keyframe_keys(rows: pd.DataFrame) -> list[str]:
    """``video,%.6f`` of every row, the official evaluator's name of a keyframe."""
    # Few different timestamps recur in many rows, so each is written out once.
    written = {value: f"{float(value):.6f}" for value in rows["timestamp"].unique()}
    return [f"{v},{written[t]}" for v, t in zip(rows["video"], rows["timestamp"], strict=True)]


def read_excluded(paths: Sequence[str | Path]) -> set[tuple[str, str]]:
    """Keyframes of exclusion files, rows ``video,timestamp``: (video, ``%.6f`` of its second)."""
    rows = [read_rows(path, Form(widths=(2,))) for path in paths]
    return {tuple(key.rsplit(",", 1)) for part in rows for key in keyframe_keys(part)}


def write_rows(path: Path, parts: Iterable[pl.DataFrame]) -> int:
    """Write frames as one CSV without header, in plain decimals; returns the rows."""
    rows = 0
    with written_whole(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            part.write_csv(file, include_header=False, float_scientific=False)
            rows += len(part)
    return rows


def _faults(form: Form) -> list[tuple[str, pl.Expr, str]]:
    """Every way a row can be wrong: its kind, the rows, and the text, to fill with words."""
    widths = " or ".join(map(str, form.widths))
    columns = f"{{width}} columns; a row has {widths}: {','.join(COLUMNS)}"
    garbled = pl.col("video").str.contains("\ufffd", literal=True)
    faults = [
        ("number of columns", ~pl.col("width").is_in(form.widths), columns),
        ("encoding", garbled, "not UTF-8 text; save the file as UTF-8"),
    ]
    labelled = pl.col("width") > 2
    for name in ("timestamp", *BOX, "score"):
        wrong = ~pl.col(name).is_finite().fill_null(False)
        title = "person id" if name == "score" and form.last == "person" else name
        text = f"{title} {{{name}!r}} is no number; mend the row (the file has no header row)"
        faults.append((f"{title} no number", labelled & wrong if name in BOX else wrong, text))
    for name in BOX if form.fractions else ():
        text = f"{name} {{{name}}} is outside [0, 1]; "
        pixels = pl.col(name).abs() > PIXELS
        faults.append((f"{name} in pixels", pixels, text + "divide by the frame's size"))
        outside = ~pl.col(name).is_between(-form.margin, 1 + form.margin)
        faults.append((f"{name} outside", outside, text + "clip it or drop the row"))
    for low, high in (("x1", "x2"), ("y1", "y2")) if form.margin else ():
        beside = (pl.col(high) <= 0) | (pl.col(low) >= 1)  # nothing is left when it is clipped
        text = f"{low} {{{low}}} to {high} {{{high}}} lies outside of the frame; drop the row"
        faults.append((f"{low} to {high} outside", beside, text))
    if form.last == "probability":
        text = "score {score} is outside [0, 1]; apply the sigmoid"
        faults.append(("score outside", ~pl.col("score").is_between(0, 1), text))
    for low, high in (("x1", "x2"), ("y1", "y2")) if form.area else ():
        text = f"{low} {{{low}}} >= {high} {{{high}}}; swap or drop the row"
        faults.append((f"{low} >= {high}", pl.col(low) >= pl.col(high), text))
    wrong = pl.col("action_id").is_null()
    if form.actions is not None:
        wrong |= labelled & ~pl.col("action_id").is_in(list(form.actions))
    text = f"action {{action_id!r}} is none that {form.named}; mend or drop the row"
    return [*faults, ("action", wrong, text)]


def _read_fast(path: Path, form: Form) -> pl.DataFrame | None:
    """The rows of a sound file, or None where anything is wrong or unusual."""
    commas = 0
    with path.open("rb") as file:
        first = file.readline()
        if first.startswith(codecs.BOM_UTF8):
            return None
        columns = COLUMNS[: first.count(b",") + 1]
        file.seek(0)
        while part := file.read(1 << 24):
            commas += part.count(b",")
            if len(columns) < 7 or b'"' in part or b"\r" in part:
                return None
    types = {name: _TYPES[name] for name in columns}
    person = pl.lit(NO_LABEL, pl.Int64)
    if form.last == "person" and len(columns) == 8:
        types["score"], person = pl.Int64, pl.col("score")
    try:
        rows = pl.read_csv(path, has_header=False, schema=types, quote_char=None)
    except pl.exceptions.PolarsError:
        return None
    if form.actions and NO_LABEL in form.actions:
        rows = rows.with_columns(pl.col("action_id").fill_null(NO_LABEL))
    # polars overlooks a column too many at the end of a row.
    if sum(rows.null_count().row(0)) or commas != len(rows) * (len(columns) - 1):
        return None
    if form.last == "person":
        rows = rows.with_columns(person=person, score=pl.lit(1.0))
    elif len(columns) == 7:
        rows = rows.with_columns(score=pl.lit(1.0))
    wrong = pl.any_horizontal(fault for _, fault, _ in _faults(form))
    lazy = rows.lazy().with_columns(width=pl.lit(len(columns)))
    return None if lazy.select(wrong.any()).collect().item() else rows.with_row_index("row", 1)


def _read_carefully(path: Path, form: Form, problems: Problems) -> pl.DataFrame:
    """The right rows of any file, line by line; notes the problems of the others."""
    parts, row, faults = [_numbers(_words([], 1), form)], 1, _faults(form)
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while lines := file.readlines(_CHARACTERS):
            words = _words(lines, row)
            row += len(lines)
            rows = _numbers(words, form)
            bad = np.zeros(len(rows), bool)
            wrong = rows.select(fault.fill_null(False).alias(kind) for kind, fault, _ in faults)
            for kind, _, text in faults:
                new = np.flatnonzero(wrong[kind].to_numpy() & ~bad).tolist()
                bad[new] = True
                texts = (text.format(**words.row(n, named=True)) for n in new)
                problems.add(kind, words["row"][new], texts)
            parts.append(rows.filter(~bad))
    return pl.concat(parts).drop("width")


def _words(lines: list[str], first: int) -> pl.DataFrame:  # row, width, a column a word
    rows = []
    for row, whole in enumerate(lines, first):
        if line := whole.rstrip("\n"):
            words = line.split(",")
            if '"' in line:
                with contextlib.suppress(csv.Error):  # an open quote stays: no number
                    (words,) = csv.reader([line], strict=True)
            rows.append((row, len(words), *words[:8], *[None] * (8 - len(words))))
    schema = {"row": pl.UInt32, "width": pl.UInt32, **dict.fromkeys(COLUMNS, pl.String)}
    return pl.DataFrame(rows, schema, orient="row")


def _numbers(words: pl.DataFrame, form: Form) -> pl.DataFrame:
    """The words as numbers; null where a word is none or is missing."""
    bare = {name: pl.col(name).str.strip_chars() for name in COLUMNS[1:]}
    number = {name: word.cast(_TYPES[name], strict=False) for name, word in bare.items()}
    person = bare["score"].cast(pl.Int64, strict=False).fill_null(-1)
    no_action, no_score = pl.col("width") == 2, pl.col("score").is_null()
    if form.actions and NO_LABEL in form.actions:
        no_action |= pl.col("action_id") == ""
    if form.last == "person":
        no_score |= pl.col("score") == ""
    numbers = words.with_columns(
        *(number[name] for name in ("timestamp", *BOX)),
        action_id=pl.when(no_action).then(NO_LABEL).otherwise(number["action_id"]),
        score=pl.when(no_score).then(1.0).otherwise(number["score"]),
        person=person,
    )
    return numbers if form.last == "person" else numbers.drop("person")

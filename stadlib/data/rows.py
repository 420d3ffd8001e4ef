"""AVA's CSV: one reader and one list of problems for every kind of file that has its rows.

A row is ``video,timestamp,x1,y1,x2,y2,action_id[,score]``; column 8 is a detection's score or a
person's id. Two columns, ``video,timestamp``, name a keyframe without a label. Timestamps are
seconds, zero padded in AVA (0902) and fractional in Kinetics (5.016949). Lines may be blank and
words may be quoted; there is no header row.

polars parses a sound file, seconds for millions of rows. A file with anything wrong or unusual is
read again line by line, where every row has its number and its words.
"""

from __future__ import annotations

import csv
import mmap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError, written_whole

COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")
BOX = ("x1", "y1", "x2", "y2")
NO_LABEL = -1  # action_id of a row without an action; the files' own ids start at 1
PART = 500_000  # rows to write at a time, some 50 MB
Rows = pd.DataFrame | str | Path | Sequence[pd.DataFrame | str | Path]
_CHARACTERS = 1 << 25  # to read at a time, line by line
_COMMA = "\x1f"  # stands for a comma inside quotes
_TYPES = {
    name: {"video": pl.String, "action_id": pl.Int32}.get(name, pl.Float64) for name in COLUMNS
}


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a kind of file demands of its rows. Numbers are finite in every kind.

    Attributes:
        widths: possible numbers of columns.
        named: a video id may not be empty.
        fractions: corners are in [0, 1].
        area: x1 < x2 and y1 < y2.
        actions: ids that an action may have; None: any whole number.
        other_action: what is said of another action, with the remedy.
        empty_action: an empty action is read as ``NO_LABEL``.
        last: what column 8 is, a "score", a "probability" in [0, 1] or a "person" id.
    """

    widths: tuple[int, ...] = (2, 7, 8)
    named: bool = True
    fractions: bool = False
    area: bool = False
    actions: Collection[int] | None = None
    other_action: str = "is no whole number; mend the row"
    empty_action: bool = False
    last: Literal["score", "probability", "person"] = "score"


EVALUATED = Form(named=False)  # as tolerant as the official evaluator


class Problems:
    """What is wrong with a file: the first ``most`` rows of each kind, and how many more."""

    def __init__(self, path: Path, most: float = 1) -> None:
        self.path, self.most = path, most
        self.rows: list[tuple[int, str]] = []
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, rows: Sequence[int], text: Callable[[int], str]) -> None:
        """Note that these rows (from 1) have a problem; ``text(n)`` tells that of ``rows[n]``."""
        left = self.most - self.counts[kind]
        self.counts[kind] += len(rows)
        for n in range(int(min(len(rows), max(0, left)))):
            self.rows.append((int(rows[n]), text(n)))

    def lines(self) -> list[str]:
        """One line a problem, ``file:row: what; remedy``, in the order of the file."""
        lines = [f"{self.path}:{row}: {text}" for row, text in sorted(self.rows)]
        more = {kind: int(count - self.most) for kind, count in self.counts.items()
                if count > self.most}  # fmt: skip
        return lines + [f"{self.path}: {n} more of the same: {kind}" for kind, n in more.items()]

    def refuse(self) -> None:
        """Raise the first problem in the file, if there is any, as an InputError."""
        if self.rows:
            raise InputError(self.lines()[0])


def read(path: str | Path, form: Form, most: float = 1) -> tuple[pl.DataFrame, Problems]:
    """Read the rows of a file that are right, and tell what is wrong with the others.

    Args:
        path: the file.
        form: what its rows must be.
        most: problems of a kind that are told; others are counted.

    Returns:
        A frame of ``row`` (from 1) and :data:`COLUMNS`, in the order of the file. Column 8 is
        ``score``, 1 where it is missing, or ``person``, -1 where it is missing or a score. A row of
        two columns has null corners and the action ``NO_LABEL``.

    Raises:
        InputError: the file is missing or cannot be opened.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected rows {','.join(COLUMNS)}")
    problems = Problems(path, most)
    rows = _read_fast(path, form)
    if rows is None:
        rows = _read_carefully(path, form, problems)
    return rows.drop("score") if form.last == "person" else rows, problems


def read_rows(path: str | Path, form: Form = EVALUATED) -> pd.DataFrame:
    """Read a ground-truth or detection file into :data:`COLUMNS`, ``video`` categorical.

    Raises:
        InputError: the file is missing, or its first wrong row.
    """
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
    """Bring files, frames and sequences of them into one frame of :data:`COLUMNS`.

    Raises:
        InputError: a column is missing, or a file cannot be read.
    """
    if isinstance(rows, str | Path):
        return read_rows(rows)
    if isinstance(rows, pd.DataFrame):
        missing = [name for name in COLUMNS[:7] if name not in rows]
        if missing:
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


def read_excluded(paths: Sequence[str | Path]) -> set[tuple[str, str]]:
    """Keyframes of exclusion files, rows ``video,timestamp``: (video, ``%.6f`` of its second).

    Raises:
        InputError: a file is missing, or its first wrong row.
    """
    excluded = set()
    for path in paths:
        rows = read_rows(path, Form(widths=(2,), named=False))
        times = rows["timestamp"].map("{:.6f}".format)
        excluded |= set(zip(rows["video"].astype(str), times, strict=True))
    return excluded


def keyframe_keys(rows: pd.DataFrame) -> list[str]:
    """``video,%.6f`` of every row, the official evaluator's name of a keyframe."""
    # Few different timestamps recur in many rows, so each is written out once.
    written = {value: f"{float(value):.6f}" for value in rows["timestamp"].unique()}
    return [
        f"{video},{written[timestamp]}"
        for video, timestamp in zip(rows["video"], rows["timestamp"], strict=True)
    ]


def write_rows(path: Path, parts: Iterable[pl.DataFrame]) -> int:
    """Write frames one after the other as one CSV without header; returns the number of rows.

    Memory holds one frame at a time. Floats are written in plain decimals with as many digits as
    tell them from every other float64.
    """
    rows = 0
    with written_whole(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            part.write_csv(file, include_header=False, float_scientific=False)
            rows += len(part)
    return rows


def _faults(form: Form) -> list[tuple[str, pl.Expr, str]]:
    """Every way a row can be wrong: its kind, which rows are, and the text, to fill with words."""

    def no_number(name: str) -> pl.Expr:
        return ~pl.col(name).is_finite().fill_null(False)

    widths = " or ".join(map(str, form.widths)).replace(" or ", ", ", len(form.widths) - 2)
    columns = f"{{width}} columns; a row has {widths}: {','.join(COLUMNS)}"
    garbled = pl.col("video").str.contains("\ufffd", literal=True)
    faults = [
        ("number of columns", ~pl.col("width").is_in(form.widths), columns),
        ("encoding", garbled, "not UTF-8 text; save the file as UTF-8"),
    ]
    if form.named:
        faults.append(("video id", pl.col("video") == "", "no video id; mend the row"))
    text = "timestamp {timestamp!r} is no number; mend the row (the file has no header row)"
    faults.append(("timestamp", no_number("timestamp"), text))
    labelled = pl.col("width") > 2
    for name in BOX:
        text = f"{name} {{{name}!r}} is no number; mend the row"
        faults.append((f"{name} no number", labelled & no_number(name), text))
        if form.fractions:
            text = f"{name} {{{name}}} is outside [0, 1]; divide by the frame's size and clip"
            faults.append((f"{name} outside", ~pl.col(name).is_between(0, 1), text))
    for low, high in (("x1", "x2"), ("y1", "y2")) if form.area else ():
        text = f"{low} {{{low}}} >= {high} {{{high}}}; swap or drop the row"
        faults.append((f"{low} >= {high}", pl.col(low) >= pl.col(high), text))
    action = pl.col("action_id")
    wrong = action.is_null()
    if form.actions is not None:
        wrong |= labelled & ~action.is_in(list(form.actions))
    faults.append(("action", wrong, f"action {{action_id!r}} {form.other_action}"))
    name = "person id" if form.last == "person" else "score"
    text = f"{name} {{score!r}} is no number; mend the row"
    faults.append((name, no_number("score"), text))
    if form.last == "probability":
        text = "score {score} is outside [0, 1]; apply the sigmoid"
        faults.append(("score outside", ~pl.col("score").is_between(0, 1), text))
    return faults


def _read_fast(path: Path, form: Form) -> pl.DataFrame | None:
    """The rows of a sound file, or None where anything is wrong or unusual."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            columns = COLUMNS[: file.readline().count(b",") + 1]
            if len(columns) < 7 or text.find(b'"') >= 0 or text.find(b"\r") >= 0:
                return None
            file.seek(0)
            commas = sum(part.count(b",") for part in iter(lambda: file.read(1 << 24), b""))
        types = {name: _TYPES[name] for name in columns}
        if form.last == "person" and len(columns) == 8:
            types["score"] = pl.Int64
        rows = pl.read_csv(path, has_header=False, schema=types, quote_char=None)
    except (pl.exceptions.PolarsError, OSError, ValueError):  # ValueError: an empty file
        return None
    if form.empty_action:
        rows = rows.with_columns(pl.col("action_id").fill_null(NO_LABEL))
    # polars overlooks a column too many at the end of a row.
    if sum(rows.null_count().row(0)) or commas != len(rows) * (len(columns) - 1):
        return None
    if form.last == "person":
        person = pl.col("score") if len(columns) == 8 else pl.lit(NO_LABEL, pl.Int64)
        rows = rows.with_columns(person=person, score=pl.lit(1.0))
    elif len(columns) == 7:
        rows = rows.with_columns(score=pl.lit(1.0))
    wrong = pl.any_horizontal(fault for _, fault, _ in _faults(form))
    lazy = rows.lazy().with_columns(width=pl.lit(len(columns)))
    return None if lazy.select(wrong.any()).collect().item() else rows.with_row_index("row", 1)


def _read_carefully(path: Path, form: Form, problems: Problems) -> pl.DataFrame:
    """The right rows of any file, line by line; notes the problems of the others."""
    parts, row = [_numbers(_words([], 1), form)], 1
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            while lines := file.readlines(_CHARACTERS):
                words = _words(lines, row)
                row += len(lines)
                rows = _numbers(words, form)
                bad = np.zeros(len(rows), bool)
                faults = _faults(form)
                wrong = rows.select(fault.fill_null(False).alias(kind) for kind, fault, _ in faults)
                for kind, _, text in faults:
                    new = np.flatnonzero(wrong[kind].to_numpy() & ~bad).tolist()
                    bad[new] = True

                    def told(n: int, words=words, new=new, text=text) -> str:
                        return text.format(**words.row(new[n], named=True))

                    problems.add(kind, words["row"][new], told)
                parts.append(rows.filter(~bad))
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error}); check the file") from error
    return pl.concat(parts).drop("width")


def _words(lines: list[str], first: int) -> pl.DataFrame:
    """The words of lines: ``row``, ``width`` and a column a word; blank lines are left out."""
    quoted = [number for number, line in enumerate(lines) if '"' in line]
    for number in quoted:
        try:
            (words,) = csv.reader([lines[number].rstrip("\n")], strict=True)
        except csv.Error:
            continue  # an open quote: its word will be no number, or the columns too few
        lines[number] = ",".join(word.replace(",", _COMMA) for word in words)
    frame = pl.DataFrame({"line": lines}, schema={"line": pl.String}).with_row_index("row", first)
    frame = frame.with_columns(pl.col("line").str.strip_chars_end("\n"))
    frame = frame.filter(pl.col("line") != "")
    fields = pl.col("line").str.split_exact(",", len(COLUMNS) - 1).struct.rename_fields(COLUMNS)
    width = pl.col("line").str.count_matches(",", literal=True) + 1
    frame = frame.select("row", width=width, words=fields).unnest("words")
    if quoted:
        frame = frame.with_columns(pl.col(pl.String).str.replace_all(_COMMA, ",", literal=True))
    return frame


def _numbers(words: pl.DataFrame, form: Form) -> pl.DataFrame:
    """The words as numbers; null where a word is none or is missing."""

    def number(name: str, type_: type[pl.DataType] = pl.Float64) -> pl.Expr:
        return pl.col(name).str.strip_chars().cast(type_, strict=False)

    no_action = pl.col("width") == 2
    if form.empty_action:
        no_action |= pl.col("action_id") == ""
    no_score = pl.col("score").is_null()
    if form.last == "person":
        no_score |= pl.col("score") == ""
    columns = {
        **{name: number(name) for name in ("timestamp", *BOX)},
        "action_id": pl.when(no_action).then(NO_LABEL).otherwise(number("action_id", pl.Int32)),
        "score": pl.when(no_score).then(1.0).otherwise(number("score")),
    }
    if form.last == "person":
        columns["person"] = number("score", pl.Int64).fill_null(-1)
    return words.select("row", "width", "video", **columns)

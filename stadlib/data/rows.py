"""Detection rows to disk, millions of them, part by part: memory holds one part at a time.

The rows of an AVA or AVA-Kinetics annotation file, every one checked.

A row is ``video,timestamp,x1,y1,x2,y2,action_id[,person_id]``; two columns only,
``video,timestamp``, name a keyframe that nobody labelled. Timestamps are decimal seconds, zero
padded in AVA (0902) and fractional in Kinetics (5.016949); they are compared as ``%.6f``.

Rows of ground-truth and detection files, from CSV and from memory.

A file is read by polars, in seconds where it has millions of rows. Whatever that reader is not
sure of (quotes, a word that is no number, rows of several lengths) is left to a slow reader
that goes row by row and knows what to say.

The rows of a submission file, one by one: those that can be used, and what is wrong with others.

The file is read in parts and kept as numbers, so that one of millions of rows fits in memory.
"""

from __future__ import annotations

import csv
import io
import mmap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError, written_whole
from stadlib.data.labels import LabelMap

PART = 500_000  # rows at a time, some 50 MB


def write_rows(path: Path, parts: Iterable[pl.DataFrame]) -> int:
    """Write frames one after the other as one CSV without header; returns the number of rows.

    Floats stand in plain decimals with as many digits as tell them from every other float64.
    """
    rows = 0
    with written_whole(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            part.write_csv(file, include_header=False, float_scientific=False)
            rows += len(part)
    return rows


def spelled(texts: list[str], codes: np.ndarray) -> pl.Series:
    """The texts at these positions, (n,): few different ones recur in many rows."""
    return pl.Series(texts, dtype=pl.String).gather(codes)


CORNERS = ["x1", "y1", "x2", "y2"]
_COLUMNS = ["video", "timestamp", *CORNERS, "action", "person"]
_WIDTHS = (2, 7, 8)


class Problem(NamedTuple):
    """What is wrong with a row (1-based) of a file; ``text`` ends with the remedy."""

    path: Path
    row: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.row}: {self.text}"


def read_annotation_rows(path: Path, known_actions: set[int]) -> tuple[pd.DataFrame, list[Problem]]:
    """Read every row of a file and tell the good from the bad.

    Args:
        path: annotation file.
        known_actions: ids that an action may have, evaluated or not.

    Returns:
        The good rows and the problems of the others, both in file order. Columns: ``row``
        (1-based), ``video``, ``timestamp`` (seconds), ``micros`` (microseconds, the key),
        ``x1 y1 x2 y2`` (float64), ``action`` and ``person`` (int64). Two-column rows have NaN
        boxes and action -1. A person is -1 where the file names none: an eighth column that is
        no whole number is a score (as the field's tools write it), not an id.

    Raises:
        InputError: the file is missing, no text, or has no row at all.
    """
    words, problems = _split_rows(path)
    rows = pd.DataFrame({"row": words["row"], "video": words["video"]})
    for column in ["timestamp", *CORNERS]:
        rows[column] = pd.to_numeric(words[column], errors="coerce").astype(np.float64)
    for column in ["action", "person"]:
        numbers = pd.to_numeric(words[column], errors="coerce").astype(np.float64)
        whole = np.isfinite(numbers) & ~words[column].str.contains(".", regex=False)
        rows[column] = np.where(whole, numbers, -1).astype(np.int64)
    bad = np.zeros(len(rows), bool)
    for found, text in _annotation_faults(words, rows, known_actions):
        new = np.flatnonzero(found & ~bad)
        problems += [Problem(path, int(rows["row"].iat[i]), text(words.iloc[i])) for i in new]
        bad |= found
    rows = rows[~bad].reset_index(drop=True)
    rows["micros"] = (rows["timestamp"] * 1e6).round().astype(np.int64)
    problems += _contradicting_persons(path, rows)
    return rows, sorted(problems, key=lambda problem: problem.row)


def contradicting_files(tables: dict[Path, pd.DataFrame]) -> list[Problem]:
    """Keyframes that two files label differently, be it a box or an action.

    Args:
        tables: what ``read_rows`` gave for each file.
    """
    problems: list[Problem] = []
    seen: dict[tuple[str, int], tuple[Path, int, frozenset]] = {}
    shared = _videos_of_several(list(tables.values()))
    for path, table in tables.items():
        several = table[table["video"].isin(shared)]
        for key, rows in several.groupby(["video", "micros"], sort=False):
            labelled = rows[rows["action"] >= 0]
            content = frozenset(labelled[[*CORNERS, "action"]].itertuples(index=False, name=None))
            first, row, other = seen.setdefault(key, (path, int(rows["row"].iat[0]), content))
            if other != content:
                text = (
                    f"keyframe {key[0]},{key[1] / 1e6:.6f} has other boxes or actions than in "
                    f"{first.name}:{row}; keep one of the two"
                )
                problems.append(Problem(path, int(rows["row"].iat[0]), text))
    return problems


def _split_rows(path: Path) -> tuple[pd.DataFrame, list[Problem]]:
    """Words of the rows that have a possible number of columns; the others are problems."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such annotation file; add it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error}); replace it") from error
    widths = np.array([line.count(",") + 1 if line else 0 for line in lines])
    good = np.isin(widths, _WIDTHS)
    if not widths.any():
        raise InputError(f"{path}: empty file; add its rows or remove it")
    remedy = "expected 2, 7 or 8; mend the row"
    wrong = np.flatnonzero(~good & (widths > 0))
    problems = [Problem(path, int(i) + 1, f"{widths[i]} columns, {remedy}") for i in wrong]
    text = "\n".join(line for line, keep in zip(lines, good, strict=True) if keep)
    words = pd.DataFrame(columns=_COLUMNS, dtype=str)
    if text:
        words = pd.read_csv(
            io.StringIO(text),
            header=None,
            names=_COLUMNS,
            dtype=str,
            na_filter=False,
            quoting=csv.QUOTE_NONE,
        ).fillna("")
    words["row"] = np.flatnonzero(good) + 1
    words["width"] = widths[good]
    return words, problems


_AnnotationFault = tuple[np.ndarray, Callable[[pd.Series], str]]


def _annotation_faults(
    words: pd.DataFrame, rows: pd.DataFrame, known_actions: set[int]
) -> list[_AnnotationFault]:
    """Every way a row can be wrong: which rows are, and what to say of one of them."""
    labelled = (words["width"] > 2).to_numpy()
    faults: list[_AnnotationFault] = [
        ((words["video"] == "").to_numpy(), lambda w: "no video id; mend the row"),
        (
            ~np.isfinite(rows["timestamp"].to_numpy()),
            lambda w: f"timestamp {w['timestamp']!r} is no number (these files have no header)",
        ),
    ]
    for c in CORNERS:
        value = rows[c].to_numpy()
        faults += [
            (labelled & ~np.isfinite(value), lambda w, c=c: f"{c} {w[c]!r} is no number; mend it"),
            (
                labelled & ((value < 0) | (value > 1)),
                lambda w, c=c: f"{c} {w[c]} is outside [0, 1]; divide by the frame's size",
            ),
        ]
    for a, b in (("x1", "x2"), ("y1", "y2")):
        wrong = labelled & (rows[a] >= rows[b]).to_numpy()
        faults.append(
            (wrong, lambda w, a=a, b=b: f"{a} {w[a]} >= {b} {w[b]}; swap or drop the row")
        )
    unknown = labelled & ~rows["action"].isin(known_actions).to_numpy()
    faults.append(
        (unknown, lambda w: f"action {w['action']!r} is no known class; use AVA's ids 1 to 80")
    )
    numeric = pd.to_numeric(words["person"], errors="coerce").notna() | (words["person"] == "")
    faults.append(
        (~numeric.to_numpy(), lambda w: f"person id {w['person']!r} is no number; mend it")
    )
    return faults


def _contradicting_persons(path: Path, rows: pd.DataFrame) -> list[Problem]:
    """Rows that give a person of a keyframe another box than an earlier row does."""
    named = rows[(rows["person"] >= 0) & (rows["action"] >= 0)]
    boxes = named.drop_duplicates(["video", "micros", "person", *CORNERS])
    repeated = boxes[boxes.duplicated(["video", "micros", "person"])]
    if repeated.empty:
        return []
    first = boxes.drop_duplicates(["video", "micros", "person"])
    first = first.set_index(["video", "micros", "person"])["row"]
    return [
        Problem(
            path,
            int(r.row),
            f"person {r.person} of {r.video},{r.timestamp:.6f} has another box in row "
            f"{first[(r.video, r.micros, r.person)]}; keep one of the two",
        )
        for r in repeated.itertuples()
    ]


def _videos_of_several(tables: list[pd.DataFrame]) -> set[str]:
    videos = [pd.Series(table["video"].unique()) for table in tables]
    counts = pd.concat(videos).value_counts() if videos else pd.Series(dtype=int)
    return set(counts.index[counts > 1])


NO_LABEL = -1  # action_id of a two-column row; the files' own ids start at 1
COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")
BOX = ("x1", "y1", "x2", "y2")
Rows = pd.DataFrame | str | Path | Sequence[pd.DataFrame | str | Path]
_SCHEMA = {
    name: {"video": pl.String, "action_id": pl.Int32}.get(name, pl.Float64) for name in COLUMNS
}


def read_rows(path: str | Path) -> pd.DataFrame:
    """Read a ground-truth or detection file into :data:`COLUMNS`, ``video`` categorical.

    Rows have 2 columns (a keyframe without label: ``action_id`` -1, NaN box), 7 or 8. Column 8 is
    a detection's score or a person's id and defaults to 1. Empty lines are skipped.

    Raises:
        InputError: the file is missing, or a row cannot be read; names file, row and column.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected rows {','.join(COLUMNS)}")
    rows = _read_fast(path)
    return _read_carefully(path) if rows is None else rows


def table(rows: Rows) -> pd.DataFrame:
    """Bring files, frames and sequences of them into one frame.

    Raises:
        InputError: a column is missing, or a file cannot be read.
    """
    if isinstance(rows, pd.DataFrame):
        missing = [name for name in COLUMNS[:7] if name not in rows]
        if missing:
            raise InputError(f"column {missing[0]!r} is missing; needed are {', '.join(COLUMNS)}")
        rows = rows if "score" in rows else rows.assign(score=1.0)
        if isinstance(rows["video"].dtype, pd.CategoricalDtype):
            return rows
        return rows.assign(video=_categorical(rows["video"]))
    if isinstance(rows, str | Path):
        return read_rows(rows)
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
        InputError: a file is missing, or a row has other than two columns.
    """
    excluded = set()
    for path in map(Path, paths):
        rows = read_rows(path)
        if (rows["action_id"] != NO_LABEL).any():
            row = int(np.flatnonzero(rows["action_id"] != NO_LABEL)[0]) + 1
            raise InputError(f"{path}, row {row}: more than 2 columns; give video,timestamp")
        excluded |= {
            (str(video), f"{timestamp:.6f}")
            for video, timestamp in zip(rows["video"], rows["timestamp"], strict=True)
        }
    return excluded


def keyframe_keys(rows: pd.DataFrame) -> list[str]:
    """``video,%.6f`` of every row, the official evaluator's name of a keyframe."""
    # Few different timestamps recur in many rows, so each is written out once.
    written = {value: f"{float(value):.6f}" for value in rows["timestamp"].unique()}
    return [
        f"{video},{written[timestamp]}"
        for video, timestamp in zip(rows["video"], rows["timestamp"], strict=True)
    ]


def _categorical(videos: Iterable) -> pd.Categorical:
    codes, names = pd.factorize(np.asarray(videos, dtype=object))
    return pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))


def _read_fast(path: Path) -> pd.DataFrame | None:
    """The rows, or None where anything is unusual."""
    if path.stat().st_size == 0 or _contains(path, b'"', b"\r"):
        return None
    with path.open("rb") as file:
        columns = COLUMNS[: file.readline().count(b",") + 1]
    if len(columns) < 7:
        return None
    try:
        schema = {name: _SCHEMA[name] for name in columns}
        frame = pl.read_csv(path, has_header=False, schema=schema, quote_char=None)
    except (pl.exceptions.PolarsError, OSError, ValueError):
        return None
    numbers = [name for name in columns[1:] if name != "action_id"]
    sure = pl.all_horizontal(pl.col(numbers).is_finite())
    if sum(frame.null_count().row(0)) or not frame.select(sure.all()).item():
        return None
    if _count_commas(path) != len(frame) * (len(columns) - 1):  # polars may overlook a last one
        return None
    if "score" not in columns:
        frame = frame.with_columns(score=pl.lit(1.0))
    names = frame["video"].unique(maintain_order=True)
    codes = frame["video"].cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int32)
    video = pd.Categorical.from_codes(codes, categories=pd.Index(names.to_list(), dtype=object))
    arrays = {name: frame[name].to_numpy() for name in COLUMNS[1:]}
    return pd.DataFrame({"video": video, **arrays}, copy=False)


def _contains(path: Path, *words: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(word) >= 0 for word in words)


def _count_commas(path: Path) -> int:
    with path.open("rb") as file:
        return sum(part.count(b",") for part in iter(lambda: file.read(1 << 24), b""))


def _read_carefully(path: Path) -> pd.DataFrame:
    rows = []
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.reader(stream)
        try:
            rows += [_parse(row, f"{path}, row {reader.line_num}") for row in reader if row]
        except (UnicodeDecodeError, csv.Error) as error:
            row = reader.line_num + 1
            raise InputError(f"{path}, row {row}: not a text table ({error})") from error
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = dict.fromkeys(("timestamp", *BOX, "score"), float)
    return frame.astype({**numbers, "action_id": "int32"}).assign(
        video=_categorical(frame["video"])
    )


def _parse(row: list[str], where: str) -> tuple:
    if len(row) not in (2, 7, 8):
        raise InputError(f"{where}: {len(row)} columns; a row has 2, 7 or 8: {','.join(COLUMNS)}")
    timestamp = _number(row, 1, where)
    if len(row) == 2:
        return row[0], timestamp, nan, nan, nan, nan, NO_LABEL, 1.0
    box = [_number(row, column, where) for column in range(2, 6)]
    try:
        action = int(row[6])
    except ValueError:
        action = 2**31
    if abs(action) >= 2**31:
        raise InputError(f"{where}, action_id: {row[6]!r} is not a whole number")
    return row[0], timestamp, *box, action, _number(row, 7, where) if len(row) == 8 else 1.0


def _number(row: list[str], column: int, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = nan
    if not isfinite(value):
        hint = "; the file has no header row" if row[column].strip() == COLUMNS[column] else ""
        raise InputError(f"{where}, {COLUMNS[column]}: {row[column]!r} is not a number{hint}")
    return value


MOST = 10  # lines a kind of problem; the others are counted
SUBMISSION_COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")
_NUMBERS = ("timestamp", "x1", "y1", "x2", "y2", "score")
_PART = 1 << 25  # characters at a time


class Found:
    """Problems by kind: the first lines of each, and how many there are."""

    def __init__(self, path: Path) -> None:
        self.path, self.texts, self.counts = path, {}, Counter()

    def add(self, kind: str, rows: np.ndarray, text: Callable[[int], str]) -> None:
        """Note that these rows (from 1) have a problem; ``text`` is asked for the n-th of them."""
        texts = self.texts.setdefault(kind, [])
        self.counts[kind] += len(rows)
        for n in range(min(len(rows), MOST - len(texts))):
            texts.append(f"{self.path}:{rows[n]}: {text(n)}")

    def lines(self) -> Iterator[str]:
        """All of them, kind by kind."""
        for kind, texts in self.texts.items():
            yield from texts
            if more := self.counts[kind] - len(texts):
                yield f"{self.path}: {more} more of the same: {kind}"


def read_submission(path: Path, labels: LabelMap, found: Found) -> tuple[pd.DataFrame, list[str]]:
    """Read the good rows and note the problems of the others.

    Args:
        path: the file; bytes that are no text become part of wrong words.
        labels: the evaluated actions.
        found: gets the problems.

    Returns:
        The rows as numbers, and the videos' names. Columns: ``row`` (from 1, as in the file),
        ``video`` (a position among the names), ``micros`` (microseconds), ``x1 y1 x2 y2``,
        ``action`` and ``score``.
    """
    parts, videos, row = [], {}, 1
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while lines := file.readlines(_PART):
            words = pl.DataFrame({"line": lines}).with_row_index("row", row)
            row += len(words)
            words = words.with_columns(pl.col("line").str.strip_chars_end("\n"))
            words = words.filter(pl.col("line") != "")
            fields = pl.col("line").str.split_exact(",", len(SUBMISSION_COLUMNS))
            fields = fields.struct.rename_fields([*SUBMISSION_COLUMNS, "more"])
            words = words.with_columns(fields.alias("words")).unnest("words")
            parts.append(_good(words, labels, videos, found))
    return pd.concat(parts, ignore_index=True), list(videos)


def _good(
    words: pl.DataFrame, labels: LabelMap, videos: dict[str, int], found: Found
) -> pd.DataFrame:
    """The rows of a part without a problem, as numbers; adds its videos and its problems."""
    numbers = {name: words[name].cast(pl.Float64, strict=False).to_numpy() for name in _NUMBERS}
    action = words["action_id"].cast(pl.Int32, strict=False).fill_null(-1).to_numpy()
    bad = np.zeros(len(words), bool)
    for kind, wrong, text in _submission_faults(words, numbers, ~np.isin(action, labels.ids)):
        places = np.flatnonzero(wrong & ~bad)
        bad |= wrong
        rows = words["row"].to_numpy()[places]
        found.add(kind, rows, lambda n, p=places, t=text: t(words.row(int(p[n]), named=True)))
    good = np.flatnonzero(~bad)
    codes, names = pd.factorize(words["video"].to_numpy()[good])
    places = np.array([videos.setdefault(name, len(videos)) for name in names], np.int32)
    columns = {name: numbers[name][good] for name in _NUMBERS}
    columns["micros"] = micros(columns.pop("timestamp"))
    ids = {"row": words["row"].to_numpy()[good], "video": places[codes] if len(good) else codes}
    return pd.DataFrame({**ids, **columns, "action": action[good]})


_SubmissionFault = tuple[str, np.ndarray, Callable[[dict], str]]


def _submission_faults(
    words: pl.DataFrame, numbers: dict[str, np.ndarray], unknown: np.ndarray
) -> Iterator[_SubmissionFault]:
    """Every way a row alone can be wrong: which rows are, and what to say of one's words."""
    width = (words["score"].is_null() | words["more"].is_not_null()).to_numpy()
    yield (
        "number of columns",
        width,
        lambda w: (
            f"{w['line'].count(',') + 1} columns; a row has 8: {','.join(SUBMISSION_COLUMNS)}"
        ),
    )
    yield "video id", (words["video"] == "").to_numpy(), lambda w: "no video id; mend the row"
    for name, value in numbers.items():
        hint = "; the file has no header row" if name == "timestamp" else "; mend the row"
        yield (
            f"{name} no number",
            ~np.isfinite(value),
            lambda w, n=name, h=hint: f"{n} {w[n]!r} is no number{h}",
        )
        remedy = "apply the sigmoid" if name == "score" else "clip the box"
        outside = (value < 0) | ((value > 1) if name != "timestamp" else (value > 1e6))
        yield (
            f"{name} out of range",
            outside,
            lambda w, n=name, r=remedy: (
                f"{n} {w[n]} is out of range; "
                + ("give seconds of the video" if n == "timestamp" else f"{r} to [0, 1]")
            ),
        )
    for a, b in (("x1", "x2"), ("y1", "y2")):
        wrong = ~(numbers[a] < numbers[b])
        yield (
            f"{a} >= {b}",
            wrong,
            lambda w, a=a, b=b: f"{a} {w[a]} >= {b} {w[b]}; swap or drop the row",
        )
    yield (
        "action",
        unknown,
        lambda w: f"action {w['action_id']!r} is not evaluated; leave the row out",
    )


def micros(seconds: np.ndarray | pd.Series) -> np.ndarray:
    """Whole microseconds, by which the evaluator tells keyframes."""
    return np.rint(np.asarray(seconds, np.float64) * 1e6).astype(np.int64)

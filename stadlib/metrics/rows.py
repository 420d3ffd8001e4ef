"""Rows of ground-truth and detection files, from CSV and from memory.

A file is read by polars, in seconds where it has millions of rows. Whatever that reader is not
sure of (quotes, a word that is no number, rows of several lengths) is left to a slow reader
that goes row by row and knows what to say.
"""

from __future__ import annotations

import csv
import mmap
from collections.abc import Iterable, Sequence
from math import isfinite, nan
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.config import InputError

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

"""The rows of an AVA or AVA-Kinetics annotation file, every one checked.

A row is ``video,timestamp,x1,y1,x2,y2,action_id[,person_id]``; two columns only,
``video,timestamp``, name a keyframe that nobody labelled. Timestamps are decimal seconds, zero
padded in AVA (0902) and fractional in Kinetics (5.016949); they are compared as ``%.6f``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stadlib.config import InputError

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


def read_rows(path: Path, known_actions: set[int]) -> tuple[pd.DataFrame, list[Problem]]:
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
    for found, text in _faults(words, rows, known_actions):
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


_Fault = tuple[np.ndarray, Callable[[pd.Series], str]]


def _faults(words: pd.DataFrame, rows: pd.DataFrame, known_actions: set[int]) -> list[_Fault]:
    """Every way a row can be wrong: which rows are, and what to say of one of them."""
    labelled = (words["width"] > 2).to_numpy()
    faults: list[_Fault] = [
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

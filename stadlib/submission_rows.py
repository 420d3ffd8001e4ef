"""The rows of a submission file, one by one: those that can be used, and what is wrong with others.

The file is read in parts and kept as numbers, so that one of millions of rows fits in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.labels import LabelMap

MOST = 10  # lines a kind of problem; the others are counted
COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")
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
            fields = pl.col("line").str.split_exact(",", len(COLUMNS))
            fields = fields.struct.rename_fields([*COLUMNS, "more"])
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
    for kind, wrong, text in _faults(words, numbers, ~np.isin(action, labels.ids)):
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


_Fault = tuple[str, np.ndarray, Callable[[dict], str]]


def _faults(
    words: pl.DataFrame, numbers: dict[str, np.ndarray], unknown: np.ndarray
) -> Iterator[_Fault]:
    """Every way a row alone can be wrong: which rows are, and what to say of one's words."""
    width = (words["score"].is_null() | words["more"].is_not_null()).to_numpy()
    yield (
        "number of columns",
        width,
        lambda w: f"{w['line'].count(',') + 1} columns; a row has 8: {','.join(COLUMNS)}",
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

"""Detection rows to disk, millions of them, part by part: memory holds one part at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from stadlib.paths import written_whole

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

"""Person boxes without actions, in the form in which the field passes them around."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from stadlib.config import InputError

COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")


def read_person_boxes(path: Path) -> pd.DataFrame:
    """Read ``video,timestamp,x1,y1,x2,y2,,score``: AVA's detection form, its action left empty.

    Returns:
        A row a box; ``timestamp`` in seconds, corners in [0, 1], without the action's column.

    Raises:
        InputError: names file and row of what cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected rows {','.join(COLUMNS)}")
    with open(path, newline="") as file:
        rows = [_parse(row, f"{path}:{number}") for number, row in enumerate(csv.reader(file), 1)]
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "action_id"])


def _parse(row: list[str], where: str) -> tuple:
    if len(row) != len(COLUMNS):
        raise InputError(f"{where}: {len(row)} columns; a row is {','.join(COLUMNS)}")
    video, *numbers = row[:6]
    if row[6]:
        raise InputError(f"{where}: action {row[6]!r} in a file of person boxes; leave it empty")
    values = [_number(text, where) for text in (*numbers, row[7])]
    _, x1, y1, x2, y2, _ = values
    if x1 >= x2 or y1 >= y2:
        word = f"x1 {x1} >= x2 {x2}" if x1 >= x2 else f"y1 {y1} >= y2 {y2}"
        raise InputError(f"{where}: {word}; swap or drop the row")
    return video, *values


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: {text!r} is not a number; mend the row") from None

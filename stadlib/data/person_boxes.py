"""Person boxes without actions, in the forms in which the field passes them around."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.config import InputError
from stadlib.data.coco_detections import read_detections
from stadlib.data.proposals import read_proposals
from stadlib.paths import written_whole

COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")
BOX_COLUMNS = tuple(name for name in COLUMNS if name != "action_id")

_NUMBERS = BOX_COLUMNS[1:]
_SCHEMA = {name: pl.Float64 if name in _NUMBERS else pl.String for name in COLUMNS}
_NO_ACTION = ("", "-1")


def read_person_boxes(path: Path) -> pd.DataFrame:
    """Read a file of person boxes; its suffix says in which form it is.

    - ``.csv``: AVA's detection form without header, ``video,timestamp,x1,y1,x2,y2,,score``, as in
      the long-term feature banks' ``ava_val_predicted_boxes.csv``. The action's column is empty,
      or -1, which their training list gives a box without an action. Empty lines are skipped,
      and a file without rows is one without boxes.
    - ``.json``: COCO's detections (:func:`stadlib.data.coco_detections.read_detections`).
    - ``.pkl``: dense proposals (:func:`stadlib.data.proposals.read_proposals`); nothing of the
      file is run.

    Returns:
        A row a box, in the file's order: ``video`` (text), ``timestamp`` (seconds), corners
        ``x1 y1 x2 y2`` as fractions of the frame (a detector may have left some slightly outside
        [0, 1]: they stay as they are), ``score``; all but the video are float64.

    Raises:
        InputError: the file is missing or of another form, or a row, an entry or a key cannot be
            read; one line that names file, place and word.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected rows {','.join(COLUMNS)}")
    readers = {".csv": _read_csv, ".json": read_detections, ".pkl": read_proposals}
    if path.suffix.lower() not in readers:
        choices = "a .csv of AVA's form, a COCO .json or a .pkl of proposals"
        raise InputError(f"{path}: person boxes come in {choices}; give one of the three")
    boxes = readers[path.suffix.lower()](path)
    return boxes.astype({"video": str, **dict.fromkeys(_NUMBERS, np.float64)})


def write_person_boxes(boxes: pd.DataFrame, path: Path) -> None:
    """Write boxes in AVA's form, whole or not at all; :func:`read_person_boxes` reads them back.

    Args:
        boxes: columns as :func:`read_person_boxes` returns them; further columns are left out.
            Times, corners and scores are written as ``%.6f``.
        path: a ``.csv`` file.

    Raises:
        InputError: another suffix, a column is missing, or a row could not be read back; names
            the row, counted from 1.
    """
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: person boxes are written as .csv; rename it")
    if missing := [name for name in BOX_COLUMNS if name not in boxes]:
        needed = ", ".join(BOX_COLUMNS)
        raise InputError(f"{path}: column {missing[0]!r} is missing; needed are {needed}")
    videos = boxes["video"].astype(object).where(boxes["video"].notna(), "")
    numbers = boxes[list(_NUMBERS)].to_numpy(np.float64)
    _check_writable(path, videos.to_numpy(), numbers)
    columns = dict(zip(_NUMBERS, numbers.T, strict=True))
    table = pl.DataFrame({"video": pl.Series(videos.to_list(), dtype=pl.String), **columns})
    table = table.with_columns(action_id=pl.lit(None, pl.String)).select(COLUMNS)
    with written_whole(path) as temporary:
        table.write_csv(temporary, include_header=False, float_precision=6, float_scientific=False)


def _check_writable(path: Path, videos: np.ndarray, numbers: np.ndarray) -> None:
    _, x1, y1, x2, y2, _ = np.round(numbers, 6).T  # six decimals may leave nothing of a box
    faults = {
        "no video id; give one": videos == "",
        "a number that is not finite; drop the row": ~np.isfinite(numbers).all(axis=1),
        "a box without area in six decimals; drop the row": (x1 >= x2) | (y1 >= y2),
    }
    for text, wrong in faults.items():
        if wrong.any():
            raise InputError(f"{path}: row {int(wrong.argmax()) + 1} to write has {text}")


def _read_csv(path: Path) -> pd.DataFrame:
    boxes = _read_fast(path)
    return _read_carefully(path) if boxes is None else boxes


def _read_fast(path: Path) -> pd.DataFrame | None:
    """The rows, or None where anything is unusual."""
    content = path.read_bytes().replace(b"\r\n", b"\n").strip(b"\n")
    if b'"' in content or b"\r" in content:
        return None
    try:
        frame = pl.read_csv(content, has_header=False, schema=_SCHEMA, quote_char=None)
    except pl.exceptions.PolarsError:
        return None
    sure = pl.all_horizontal(
        pl.col(_NUMBERS).is_finite(),
        pl.col("video").is_not_null(),
        pl.col("action_id").fill_null("").is_in(_NO_ACTION),
        pl.col("x1") < pl.col("x2"),
        pl.col("y1") < pl.col("y2"),
    )
    if not frame.select(sure.fill_null(False).all()).item():
        return None
    if content.count(b",") != len(frame) * (len(COLUMNS) - 1):  # a column too many, overlooked
        return None
    names = frame["video"].unique(maintain_order=True)
    codes = frame["video"].cast(pl.Enum(names)).to_physical().to_numpy()
    video = names.to_numpy().astype(object)[codes]  # a video's rows share one text
    return pd.DataFrame({"video": video, **{name: frame[name].to_numpy() for name in _NUMBERS}})


def _read_carefully(path: Path) -> pd.DataFrame:
    """The rows, one after the other, up to the first wrong one."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{row}: not UTF-8 text; save the file as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [_parse(row, f"{path}:{reader.line_num}") for row in reader if row]
    except csv.Error as error:
        place = f"{path}:{reader.line_num}"
        raise InputError(f"{place}: no row of a table ({error}); mend the row") from error
    return pd.DataFrame(rows, columns=list(BOX_COLUMNS))


def _parse(row: list[str], where: str) -> tuple:
    if len(row) != len(COLUMNS):
        raise InputError(f"{where}: {len(row)} columns; a row is {','.join(COLUMNS)}")
    video, *numbers = row[:6]
    if not video:
        raise InputError(f"{where}: no video id; mend the row")
    if row[6] not in _NO_ACTION:
        raise InputError(f"{where}: action {row[6]!r} in a file of person boxes; leave it empty")
    values = [_number(text, where) for text in (*numbers, row[7])]
    _, x1, y1, x2, y2, _ = values
    if x1 >= x2 or y1 >= y2:
        word = f"x1 {x1} >= x2 {x2}" if x1 >= x2 else f"y1 {y1} >= y2 {y2}"
        raise InputError(f"{where}: {word}; swap or drop the row")
    return video, *values


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {text!r} is not a number; mend the row")
    return value

"""Average voting: one detection file out of several that score the same boxes.

The paper's ensemble (last row of Table 1) is called "average voting" and no more. Here it is the
mean of the scores of every (video, timestamp, box, action), with equal weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from stadlib.base import InputError
from stadlib.data.rows import BOX, EVALUATED, NO_LABEL, PART, read, write_rows

KEY = ["video", "timestamp", *BOX]  # of a box
DIGITS = 10  # of a mean score: two more than members have
_FORM = replace(EVALUATED, widths=(8,), last="probability")
_REMEDY = "score all members on one box file"


def average(files: Sequence[Path], out: Path) -> tuple[int, int]:
    """Write the mean of the members' scores to ``out``; returns the numbers of boxes and rows.

    Memory holds one member at a time. Rows may be in any order; boxes and timestamps are equal if
    they agree to six decimals. ``out`` has the boxes in the order of the first member.

    An action that a member leaves out on one of its boxes counts as score 0: the evaluator, too,
    ranks an absent row behind all others. A box that a member leaves out is an error, because it
    was not scored. Average whole files, then cut them to the rows that count (``stadlib submit``).
    """
    paths = [path.resolve() for path in files]
    if not files:
        raise InputError(f"{out}: no member; name the detection files to average")
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise InputError(f"{files[number]}: given twice; name it once")
    if out.resolve() in paths:
        raise InputError(f"{out}: is one of the members; give --out another name")
    boxes = None
    sums = pl.DataFrame(schema={"box": pl.UInt32, "action_id": pl.Int32, "score": pl.Float64})
    for path in files:
        rows = _member(path)
        if boxes is None:
            boxes = rows.unique(KEY, keep="first", maintain_order=True)
            boxes = boxes.select(*KEY, pl.col("row").alias("first")).with_row_index("box")
        scores = _on_boxes(path, rows, boxes, files[0])
        # One after the other, because floating-point sums depend on the order.
        sums = pl.concat([sums, scores]).group_by("box", "action_id").agg(pl.col("score").sum())
    sums = sums.sort("box", "action_id")
    return len(boxes), write_rows(out, _means(sums, boxes, len(files)))


def _member(path: Path) -> pl.DataFrame:
    """A member's rows; numbers of the box are whole, in millionths."""
    rows, problems = read(path, _FORM)
    empty = rows.filter(pl.col("action_id") == NO_LABEL)
    problems.add("action", empty["row"], ["no action; drop the row"] * len(empty))
    problems.refuse()
    whole = [(pl.col(name) * 1e6).round(mode="half_to_even").cast(pl.Int64) for name in KEY[1:]]
    return rows.with_columns(whole)


def _on_boxes(path: Path, rows: pl.DataFrame, boxes: pl.DataFrame, first: Path) -> pl.DataFrame:
    """A member's ``box``, ``action_id`` and ``score``; refuses other boxes than the first's."""
    rows = rows.join(boxes, on=KEY, how="left", maintain_order="left")
    if rows["box"].null_count():
        row = rows["row"][rows["box"].is_null().arg_max()]
        raise InputError(f"{path}:{row}: a box that {first} does not have; {_REMEDY}")
    missed = boxes.filter(~pl.col("box").is_in(rows["box"].unique().implode()))
    if len(missed):
        words = f"lacks {len(missed)} boxes of {first}, first that of row {missed['first'][0]}"
        raise InputError(f"{path}: {words}; {_REMEDY}")
    cell = pl.col("box").cast(pl.Int64) * 2**32 + pl.col("action_id")
    again = rows.filter(~cell.is_first_distinct())
    if len(again):
        words = f"action {again['action_id'][0]} of this box stands in an earlier row too"
        raise InputError(f"{path}:{again['row'][0]}: {words}; keep one of the two")
    return rows.select("box", "action_id", "score")


def _means(sums: pl.DataFrame, boxes: pl.DataFrame, num_members: int) -> Iterator[pl.DataFrame]:
    """The means as rows of a detection file, in parts."""
    times = boxes["timestamp"].unique()
    texts = pl.Series([f"{time / 1e6:.6f}" for time in times], dtype=pl.String)
    boxes = boxes.with_columns(pl.col("timestamp").replace_strict(times, texts))
    for start in range(0, len(sums), PART):
        part = sums[start : start + PART]
        means = (part["score"].to_numpy() / num_members).round(DIGITS)
        rows = boxes.select(KEY)[part["box"]]
        # numpy divides exactly; polars would multiply by the inverse.
        rows = rows.with_columns(**{name: rows[name].to_numpy() / 1e6 for name in BOX})
        yield rows.with_columns(part["action_id"], score=means)

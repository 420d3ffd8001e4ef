"""The challenge's submission file: one CSV of AVA and Kinetics, only what counts, free of ties.

The AVA-Kinetics crossover of the ActivityNet challenge takes detection rows of both datasets in one
file and measures it by ``get_ava_performance.py`` (:mod:`stadlib.evaluation.matching` follows it).
How that ranks equal scores depends on its processor; a file without equal scores of a class has one
number everywhere. :func:`validate_submission` finds mistakes before the upload.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError
from stadlib.data.labels import LabelMap, read_label_map
from stadlib.data.layout import AVA_SECONDS, SOURCES, AvaLayout
from stadlib.data.rows import (
    BOX,
    EVALUATED,
    NO_LABEL,
    PART,
    Problems,
    read,
    read_rows,
    table,
    write_rows,
)
from stadlib.evaluation.matching import Boxes, evaluated_boxes, protocol

DIGITS = 8  # of a score, as members of an ensemble have; no order depends on them
ROWS = protocol("official").cap  # an image: 50
MOST = 10  # lines a kind of problem; the others are counted
_UNIT = replace(EVALUATED, fractions=True, last="probability")
Image = tuple[str, str]  # video, ``%.6f`` of its second


@dataclass(frozen=True)
class Written:
    """What was written and what was left out.

    Attributes:
        rows: written.
        images: keyframes with a row.
        beyond: rows that the evaluator would not count: not among the 50 highest of their image,
            of an action that is not evaluated, or of a box without an area.
        parted: scores that were moved because others of their class were equal to them.
        size: bytes of the file.
    """

    rows: int
    images: int
    beyond: int
    parted: int
    size: int


def write_submission(detections: Sequence[Path], labels: Path, out: Path) -> Written:
    """Write the rows that the evaluator would count, with the same mAP, to ``out``.

    An image's rows are those that its heap of 50 would hold at the end, the highest score first,
    then as the heap orders them: by class, y1, x1, y2, x2. Scores are rounded to 8 decimals. Equal
    scores of a class are moved apart by as little as keeps every order inside the class. Boxes
    keep all their digits. A timestamp is written as AVA does, ``0902``, where all of a file's are
    whole seconds, and otherwise as Kinetics does, ``5.016949``; the evaluator reads both alike.

    Args:
        detections: detection files, usually AVA's and Kinetics', with scores in [0, 1].
        labels: label map of the evaluated actions.
        out: the file to write.

    Raises:
        InputError: a file cannot be read, a score or a corner is outside [0, 1], or nothing is
            left to write; names file, row and remedy.
    """
    label_map = read_label_map(labels)
    if out.resolve() in [path.resolve() for path in detections]:
        raise InputError(f"{out}: is one of the detection files; give --out another name")
    parts = [read_rows(path, _UNIT) for path in detections]
    whole = [np.full(len(part), bool((part["timestamp"] % 1 == 0).all())) for part in parts]
    rows, in_ava_style = table(parts), np.concatenate(whole)
    images = rows.drop_duplicates(["video", "timestamp"]).assign(action_id=NO_LABEL)
    _, _, kept = evaluated_boxes(images, rows, label_map, protocol("official"))
    if not len(kept.row):
        names = ", ".join(map(str, detections))
        raise InputError(f"{names}: no row of an evaluated action; nothing to submit")
    ticks, parted = part_scores(kept.score, kept.column)
    x1, y1, x2, y2 = kept.corners.T
    order = np.lexsort((-x2, -y2, -x1, -y1, -kept.action, -ticks, kept.key))
    written = write_rows(out, _parts(rows, kept.at(order), ticks[order], in_ava_style))
    num_images = len(np.unique(kept.key))
    return Written(written, num_images, len(rows) - written, parted, out.stat().st_size)


def part_scores(score_D: np.ndarray, class_D: np.ndarray) -> tuple[np.ndarray, int]:
    """Scores as whole numbers of 1e-8, all different inside a class and in the same order.

    Args:
        score_D: in [0, 1]; of equal scores the earlier one comes first.
        class_D: the classes of the D detections.

    Returns:
        (D,) int64 numbers from 0 to 1e8, and how many differ from the rounded score.
    """
    most = 10**DIGITS
    rounded_D = np.rint(score_D * most).astype(np.int64)
    ticks_D = rounded_D.copy()
    # From a class's lowest score up; of equal ones the last first, so that it stays the lower.
    order = np.lexsort((-np.arange(len(score_D)), score_D, class_D))
    starts = np.flatnonzero(np.diff(class_D[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        step = np.arange(len(rows))
        free = np.maximum.accumulate(rounded_D[rows] - step) + step  # pushed up, one by one
        ticks_D[rows] = np.minimum(free, most - len(rows) + 1 + step)  # and back below 1
    return ticks_D, int((ticks_D != rounded_D).sum())


def _parts(
    rows: pd.DataFrame, kept: Boxes, ticks: np.ndarray, in_ava_style: np.ndarray
) -> Iterator[pl.DataFrame]:
    """The kept rows as they are written, in parts."""
    videos = pl.Series([str(name) for name in rows["video"].cat.categories], dtype=pl.String)
    codes, times = rows["video"].cat.codes.to_numpy(), rows["timestamp"].to_numpy()
    for start in range(0, len(ticks), PART):
        part = slice(start, start + PART)
        row = kept.row[part]
        moments, seconds = pd.factorize(times[row])  # few different ones, written out once
        texts = [f"{second:.6f}" for second in seconds]
        texts += [f"{round(second):04d}" for second in seconds]
        yield pl.DataFrame(
            {
                "video": videos.gather(codes[row]),
                "timestamp": pl.Series(texts).gather(moments + len(seconds) * in_ava_style[row]),
                **{name: kept.corners[part, number] for number, name in enumerate(BOX)},
                "action_id": kept.action[part],
                "score": ticks[part] / 10**DIGITS,
            }
        )


@dataclass(frozen=True)
class Check:
    """The result of a check: ``problems`` to mend, ``notes`` to know; one line each."""

    problems: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Keyframes:
    """The keyframes of a source's split.

    Attributes:
        known: all that may be named.
        wanted: those that count: annotated, or of a split without annotations all.
        excluded: those that are not scored.
    """

    known: frozenset[Image]
    wanted: frozenset[Image]
    excluded: frozenset[Image]


def split_keyframes(layout: AvaLayout, split: str) -> dict[str, Keyframes]:
    """The keyframes of a split, by source.

    They are those of the annotation file, whose two-column rows count too. AVA's movies, where a
    list names them, have one a second from 902 to 1798; its test split has no annotations.

    Raises:
        InputError: no file of the split, or one that cannot be read.
    """
    keyframes = {}
    for source in SOURCES:
        path = layout.annotations(source, split)
        annotated: frozenset[Image] = frozenset()
        listed: frozenset[Image] = frozenset()
        if path.is_file():
            rows = read_rows(path).drop_duplicates(["video", "timestamp"])
            annotated = frozenset(zip(rows["video"], _seconds(rows["timestamp"]), strict=True))
        if source == "ava" and layout.video_list(source, split).is_file():
            videos = layout.videos(source, split)
            listed = frozenset((video, f"{t:.6f}") for video in videos for t in AVA_SECONDS)
        if annotated or listed:
            excluded = frozenset(layout.excluded(source, split))
            wanted = (annotated or listed) - excluded
            keyframes[source] = Keyframes(annotated | listed, wanted, excluded)
    if not keyframes:
        raise InputError(f"{layout.annotation_folder}: no annotation file of {split}; add one")
    return keyframes


def validate_submission(path: Path, keyframes: dict[str, Keyframes], labels: LabelMap) -> Check:
    """Check a submission file.

    Problems: columns, numbers, boxes outside [0, 1] or inside out, actions that are not evaluated,
    scores outside [0, 1], keyframes that the split does not have or excludes, more rows of an image
    than the evaluator keeps, rows given twice, equal scores of a class, a source without any row.
    Keyframes without a row are a note, because a detector may find no person there.

    Args:
        path: the file.
        keyframes: of the split, by source (:func:`split_keyframes`).
        labels: the evaluated actions.

    Raises:
        InputError: the file is missing or empty.
    """
    if not path.is_file() or not path.stat().st_size:
        raise InputError(f"{path}: no such file or an empty one; write it with stadlib submit")
    other = "is not evaluated; leave the row out"
    form = replace(_UNIT, widths=(8,), named=True, area=True)
    rows, problems = read(path, replace(form, actions=labels.ids, other_action=other), MOST)
    rows = rows.with_columns(moment=(pl.col("timestamp") * 1e6).round())
    _check_together(rows, problems)
    first = rows.unique(["video", "moment"], keep="first", maintain_order=True)
    images = list(zip(first["video"], _seconds(first["timestamp"]), strict=True))
    excluded = frozenset[Image]().union(*(split.excluded for split in keyframes.values()))
    known = excluded.union(*(split.known for split in keyframes.values()))
    for kind, wrong in (
        ("an excluded timestamp", [image in excluded for image in images]),
        ("no keyframe of the split", [image not in known for image in images]),
    ):
        places = np.flatnonzero(wrong).tolist()

        def text(n: int, kind: str = kind, places: list[int] = places) -> str:
            return f"{','.join(images[places[n]])} is {kind}; leave its rows out"

        problems.add(kind, first["row"][places], text)
    size = f"{path.stat().st_size / 1e6:.1f} MB, {len(rows)} rows, {len(images)} images"
    missing, notes = [], [f"{path}: {size}"]
    for source, split in keyframes.items():
        left = sorted(split.wanted.difference(images))
        text = f"{len(left)} of {len(split.wanted)} keyframes of {source} have no row"
        if left and len(left) == len(split.wanted):
            missing.append(f"{path}: all {text}; the file is of both sources, add its detections")
        elif left:
            names = ", ".join(map(",".join, left[:3])) + (", ..." if len(left) > 3 else "")
            notes.append(f"{path}: {text}: {names}")
    return Check([*problems.lines(), *missing], notes)


def _check_together(rows: pl.DataFrame, problems: Problems) -> None:
    """Problems of rows together: given twice, equal scores, too many of an image."""
    image = ["video", "moment"]
    twice = rows.filter(~pl.struct(*image, "action_id", *BOX).is_first_distinct())
    problems.add("row given twice", twice["row"], lambda n: "box and action again; keep one row")
    equal = rows.filter(~pl.struct("action_id", "score").is_first_distinct())
    problems.add(
        "equal scores of a class",
        equal["row"],
        lambda n: (
            f"score {equal['score'][n]:.10g} of action {equal['action_id'][n]} stands in an "
            "earlier row too; use stadlib submit"
        ),
    )
    sizes = rows.select(
        "row",
        *image,
        "timestamp",
        place=pl.int_range(pl.len()).over(image),
        size=pl.len().over(image),
    )
    full = sizes.filter(pl.col("place") == ROWS)
    problems.add(
        "too many rows",
        full["row"],
        lambda n: (
            f"{full['video'][n]},{full['timestamp'][n]:.6f} has {full['size'][n]} rows, of which "
            f"{ROWS} count; write it with stadlib submit"
        ),
    )


def _seconds(timestamps: pl.Series | pd.Series) -> list[str]:
    return [f"{second:.6f}" for second in timestamps]

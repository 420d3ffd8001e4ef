"""The challenge's submission file: one CSV of AVA and Kinetics, only what counts, free of ties.

The AVA-Kinetics crossover of the ActivityNet challenge takes rows of both datasets in one file and
measures it by ``get_ava_performance.py``. How that ranks equal scores depends on its processor; a
file without equal scores of a class has one number everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError, some
from stadlib.data import rows as csv_rows
from stadlib.data.layout import AVA_SECONDS, SOURCES, AvaLayout, LabelMap, read_label_map
from stadlib.data.rows import BOX, NO_LABEL, PART, Form, Problems, keyframe_keys, read_rows
from stadlib.evaluation.matching import evaluated_boxes, protocol

DIGITS = 8  # of a score, as members of an ensemble have; no order depends on them
ROWS = protocol("official").cap  # an image: 50
MOST = 10  # lines a kind of problem; the others are counted


@dataclass(frozen=True)
class Written:
    """What was written and what was left out."""

    rows: int
    images: int  # keyframes with a row
    beyond: int  # rows that the evaluator would not count: low scores, other actions, no area
    parted: int  # scores that were moved because others of their class were equal to them
    size: int  # bytes of the file


def write_submission(detections: Sequence[Path], labels: Path, out: Path) -> Written:
    """Write the rows that the evaluator would count, with the same mAP, to ``out``.

    An image's rows are those that its heap of 50 would hold at the end, the highest score first,
    then as the heap orders them: by class, y1, x1, y2, x2. Scores are rounded to 8 decimals; equal
    ones of a class are moved apart by as little as keeps every order inside it. Boxes keep all
    their digits. Where all timestamps of a file are whole seconds they are written as AVA does,
    ``0902``, otherwise as Kinetics does, ``5.016949``; the evaluator reads both alike.
    """
    label_map = read_label_map(labels)
    if out.resolve() in [path.resolve() for path in detections]:
        raise InputError(f"{out}: is one of the detection files; give --out another name")
    form = Form(fractions=True, last="probability")
    parts = [read_rows(path, form) for path in detections]
    whole = [np.full(len(part), bool((part["timestamp"] % 1 == 0).all())) for part in parts]
    rows, in_ava_style = csv_rows.table(parts), np.concatenate(whole)
    images = rows.drop_duplicates(["video", "timestamp"]).assign(action_id=NO_LABEL)
    _, _, kept = evaluated_boxes(images, rows, label_map, protocol("official"))
    if not len(kept.row):
        names = ", ".join(map(str, detections))
        raise InputError(f"{names}: no row of an evaluated action; nothing to submit")
    ticks, parted = part_scores(kept.score, kept.column)
    x1, y1, x2, y2 = kept.corners.T
    order = np.lexsort((-x2, -y2, -x1, -y1, -kept.action, -ticks, kept.key))
    kept = kept.at(order)
    videos = pl.Series(rows["video"].cat.categories.to_list(), dtype=pl.String)
    moments, seconds = pd.factorize(rows["timestamp"].to_numpy()[kept.row])
    texts = [f"{second:.6f}" for second in seconds]  # few different ones, written out once
    texts += [f"{round(second):04d}" for second in seconds]
    columns = {
        "video": videos.gather(rows["video"].cat.codes.to_numpy()[kept.row]),
        "timestamp": pl.Series(texts).gather(moments + len(seconds) * in_ava_style[kept.row]),
        **dict(zip(BOX, kept.corners.T, strict=True)),
        "action_id": kept.action,
        "score": ticks[order] / 10**DIGITS,
    }
    csv_rows.write_rows(out, pl.DataFrame(columns).iter_slices(PART))
    num_images, beyond = len(np.unique(kept.key)), len(rows) - len(order)
    return Written(len(order), num_images, beyond, parted, out.stat().st_size)


def part_scores(score_D: np.ndarray, class_D: np.ndarray) -> tuple[np.ndarray, int]:
    """Scores as whole numbers of 1e-8, all different inside a class and in the same order.

    Of equal scores the earlier one stays first. The number says how many scores were moved.
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


@dataclass(frozen=True)
class Keyframes:
    """The keyframes of a source's split, each by its ``video,%.6f``."""

    known: frozenset[str]  # all that may be named
    wanted: frozenset[str]  # that count: annotated, or of a split without annotations all
    excluded: frozenset[str]  # that are not scored


def split_keyframes(layout: AvaLayout, split: str) -> dict[str, Keyframes]:
    """The keyframes of a split, by source: those of the annotation file, two-column rows included.

    AVA's movies, where a list names them, have one a second from 902 to 1798; its test split has no
    annotations.
    """
    keyframes = {}
    for source in SOURCES:
        path, listed = layout.annotations(source, split), []
        annotated = keyframe_keys(read_rows(path)) if path.is_file() else []
        if source == "ava" and layout.video_list(source, split).is_file():
            videos = layout.videos(source, split)
            listed = [f"{video},{second:.6f}" for video in videos for second in AVA_SECONDS]
        if annotated or listed:
            excluded = frozenset(map(",".join, layout.excluded(source, split)))
            wanted = frozenset(annotated or listed) - excluded
            keyframes[source] = Keyframes(frozenset([*annotated, *listed]), wanted, excluded)
    if not keyframes:
        raise InputError(f"{layout.annotation_folder}: no annotation file of {split}; add one")
    return keyframes


def validate_submission(
    path: Path, keyframes: dict[str, Keyframes], labels: LabelMap
) -> tuple[list[str], list[str]]:
    """Problems of a submission file to mend, and notes to know; one line each.

    Problems: wrong rows, keyframes that the split does not have or excludes, more rows of an image
    than the evaluator keeps, rows given twice, equal scores of a class, a source without any row.
    Keyframes without a row are a note, because a detector may find no person there.
    """
    if not path.is_file() or not path.stat().st_size:
        raise InputError(f"{path}: no such file or an empty one; write it with stadlib submit")
    form = Form(widths=(8,), fractions=True, area=True, actions=labels.ids, last="probability")
    rows, problems = csv_rows.read(path, form, MOST)
    rows = rows.with_columns(moment=(pl.col("timestamp") * 1e6).round())
    _check_together(rows, problems)
    first = rows.unique(["video", "moment"], keep="first", maintain_order=True)
    images = dict(zip(keyframe_keys(first), first["row"], strict=True))
    excluded = frozenset[str]().union(*(split.excluded for split in keyframes.values()))
    known = excluded.union(*(split.known for split in keyframes.values()))
    for kind, wrong in (
        ("an excluded timestamp", [image for image in images if image in excluded]),
        ("no keyframe of the split", [image for image in images if image not in known]),
    ):
        texts = (f"{image} is {kind}; leave its rows out" for image in wrong)
        problems.add(kind, [images[image] for image in wrong], texts)
    size = f"{path.stat().st_size / 1e6:.1f} MB, {len(rows)} rows, {len(images)} images"
    missing, notes = [], [f"{path}: {size}"]
    for source, split in keyframes.items():
        left = sorted(split.wanted.difference(images))
        text = f"{len(left)} of {len(split.wanted)} keyframes of {source} have no row"
        if left and len(left) == len(split.wanted):
            missing.append(f"{path}: all {text}; the file is of both sources, add its detections")
        elif left:
            notes.append(f"{path}: {text}: {some(left)}")
    return [*problems.lines(), *missing], notes


def _check_together(rows: pl.DataFrame, problems: Problems) -> None:
    """Problems of rows together: given twice, equal scores, too many of an image."""
    image = ["video", "moment"]
    twice = rows.filter(~pl.struct(*image, "action_id", *BOX).is_first_distinct())
    texts = ("box and action again; keep one row" for _ in twice["row"])
    problems.add("row given twice", twice["row"], texts)
    equal = rows.filter(~pl.struct("action_id", "score").is_first_distinct())
    texts = (
        f"score {score:.10g} of action {action} stands in an earlier row too; use stadlib submit"
        for score, action in equal.select("score", "action_id").iter_rows()
    )
    problems.add("equal scores of a class", equal["row"], texts)
    place, size = pl.int_range(pl.len()).over(image), pl.len().over(image)
    full = rows.with_columns(place=place, size=size).filter(pl.col("place") == ROWS)
    texts = (
        f"{video},{second:.6f} has {size} rows, of which {ROWS} count; use stadlib submit"
        for video, second, size in full.select("video", "timestamp", "size").iter_rows()
    )
    problems.add("too many rows", full["row"], texts)

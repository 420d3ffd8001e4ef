"""The challenge's submission file: one CSV of AVA and Kinetics, only what counts, free of ties.

The AVA-Kinetics crossover of the ActivityNet challenge takes rows
``video,timestamp,x1,y1,x2,y2,action_id,score`` of both datasets in one file and measures it by
``get_ava_performance.py`` (:mod:`stadlib.metrics` follows it). How that ranks equal scores depends
on its processor; a file without equal scores of a class has one number everywhere.

Whether a submission file is one: every kind of mistake, with row and remedy, before the upload.

:mod:`stadlib.submission_rows` looks at every row alone; this is about rows together and keyframes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError
from stadlib.data.labels import LabelMap, read_label_map
from stadlib.data.layout import AVA_SECONDS, SOURCES, AvaLayout
from stadlib.data.rows import (
    NO_LABEL,
    PART,
    Found,
    micros,
    read_rows,
    read_submission,
    spelled,
    table,
    write_rows,
)
from stadlib.evaluation.matching import Boxes, evaluated_boxes, protocol

DIGITS = 8  # of a score, as members of an ensemble have; no order depends on them
BOX = ("x1", "y1", "x2", "y2")


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

    An image's rows are those that its heap of 50 would hold at the end
    (:mod:`stadlib.metrics.evaluated`, rule 3), the highest score first, then as the heap orders
    them: by class, y1, x1, y2, x2. Scores are rounded to 8 decimals; where two of a class are then
    equal, they are moved apart by as little as keeps every order inside the class, equal ones
    having stood in the order of their images and rows. Boxes keep all their digits. A timestamp
    is written as AVA does, ``0902``, where all of a file's are whole seconds, and otherwise as
    Kinetics does, ``5.016949``; the evaluator reads both alike.

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
    rows, in_ava_style = _read(detections)
    images = rows.drop_duplicates(["video", "timestamp"]).assign(action_id=NO_LABEL)
    _, _, kept = evaluated_boxes(images, rows, label_map, protocol("official"))
    if not len(kept.row):
        words = "no row of an evaluated action; nothing to submit"
        raise InputError(f"{', '.join(map(str, detections))}: {words}")
    ticks, parted = part_scores(kept.score, kept.column)
    x1, y1, x2, y2 = kept.corners.T
    order = np.lexsort((-x2, -y2, -x1, -y1, -kept.action, -ticks, kept.key))
    content = _parts(rows, kept.at(order), ticks[order], in_ava_style)
    written = write_rows(out, content)
    num_images = len(np.unique(kept.key))
    return Written(written, num_images, len(rows) - written, parted, out.stat().st_size)


def part_scores(score_D: np.ndarray, class_D: np.ndarray) -> tuple[np.ndarray, int]:
    """Scores as whole numbers of 1e-8, all different inside a class and in the same order.

    Args:
        score_D: in [0, 1]; where equal, the earlier one stands before the later one.
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


def _read(detections: Sequence[Path]) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of all files, and which are of one whose timestamps are all whole seconds."""
    parts, whole = [], []
    for path in detections:
        part = read_rows(path)
        _require_fractions(path, part)
        parts.append(part)
        whole.append(np.full(len(part), bool((part["timestamp"] % 1 == 0).all())))
    return table(parts), np.concatenate(whole)


def _require_fractions(path: Path, rows: pd.DataFrame) -> None:
    labelled = rows["action_id"].to_numpy() != NO_LABEL
    for name, remedy in (
        *((name, "divide boxes by the frame's size and clip them") for name in BOX),
        ("score", "apply the sigmoid"),
    ):
        value = rows[name].to_numpy()
        wrong = labelled & ~((value >= 0) & (value <= 1))
        if wrong.any():
            row = int(wrong.argmax())
            words = f"{name} {value[row]:g} is outside [0, 1]"
            raise InputError(f"{path}, row {row + 1}: {words}; {remedy}")


def _parts(
    rows: pd.DataFrame, kept: Boxes, ticks: np.ndarray, in_ava_style: np.ndarray
) -> Iterator[pl.DataFrame]:
    """The kept rows as they are written, in parts."""
    videos = [str(name) for name in rows["video"].cat.categories]
    codes, times = rows["video"].cat.codes.to_numpy(), rows["timestamp"].to_numpy()
    for start in range(0, len(ticks), PART):
        own = slice(start, start + PART)
        row = kept.row[own]
        moments, seconds = pd.factorize(times[row])
        texts = [f"{second:.6f}" for second in seconds]
        short = [f"{round(second):04d}" for second in seconds]
        yield pl.DataFrame(
            {
                "video": spelled(videos, codes[row]),
                "timestamp": spelled(texts + short, moments + len(texts) * in_ava_style[row]),
                **{name: kept.corners[own, place] for place, name in enumerate(BOX)},
                "action_id": kept.action[own],
                "score": ticks[own] / 10**DIGITS,
            }
        )


ROWS = protocol("official").cap  # an image: 50
Image = tuple[str, int]  # video, microseconds: what the evaluator tells keyframes by


@dataclass(frozen=True)
class Check:
    """What was found: ``problems`` to mend, ``notes`` to know; one line each."""

    problems: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Keyframes:
    """The keyframes of a source's split.

    Attributes:
        known: all that may be named.
        wanted: those that count: annotated, or of a split without annotations all.
        excluded: those that nobody scores.
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
    found = {}
    for source in SOURCES:
        path = layout.annotations(source, split)
        annotated: frozenset[Image] = frozenset()
        if path.is_file():
            rows = read_rows(path).drop_duplicates(["video", "timestamp"])
            annotated = frozenset(zip(rows["video"], micros(rows["timestamp"]), strict=True))
        listed: frozenset[Image] = frozenset()
        if source == "ava" and layout.video_list(source, split).is_file():
            videos = layout.videos(source, split)
            listed = frozenset((v, second * 10**6) for v in videos for second in AVA_SECONDS)
        if annotated or listed:
            out = frozenset((v, round(float(t) * 1e6)) for v, t in layout.excluded(source, split))
            wanted = (annotated or listed) - out
            found[source] = Keyframes(annotated | listed, wanted, out)
    if not found:
        raise InputError(f"{layout.annotation_folder}: no annotation file of {split}; add one")
    return found


def validate_submission(path: Path, keyframes: dict[str, Keyframes], labels: LabelMap) -> Check:
    """Check a submission file.

    Problems: columns, numbers, boxes outside [0, 1] or inside out, actions that are not evaluated,
    scores outside [0, 1], keyframes that the split does not have or excludes, more rows of an image
    than the evaluator keeps, rows given twice, equal scores of a class, a source without any row.
    Keyframes without a row are a note, because a detector may find nobody there.

    Args:
        path: the file.
        keyframes: of the split, by source (:func:`split_keyframes`).
        labels: the evaluated actions.

    Raises:
        InputError: the file is missing or empty.
    """
    if not path.is_file() or not path.stat().st_size:
        raise InputError(f"{path}: no such file or an empty one; write it with stadlib submit")
    found = Found(path)
    rows, videos = read_submission(path, labels, found)
    if len(rows):
        image, images = pd.factorize(rows["video"].astype(np.int64) * 2**48 + rows["micros"])
        named = [(videos[code >> 48], int(code) & (2**48 - 1)) for code in images.tolist()]
        _check_rows(rows.assign(image=image), named, found)
        _check_keyframes(rows.assign(image=image), named, keyframes, found)
    else:
        named = []
    missing, notes = _missing(path, set(named), keyframes)
    size = f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(rows)} rows, {len(named)} images"
    return Check([*found.lines(), *missing], [size, *notes])


def _check_rows(rows: pd.DataFrame, named: list[Image], found: Found) -> None:
    """Problems of rows together: given twice, equal scores, too many of an image."""
    number = rows["row"].to_numpy()
    again = ["image", "action", "x1", "y1", "x2", "y2"]
    twice = np.flatnonzero(rows.duplicated(again))
    found.add("row given twice", number[twice], lambda n: "box and action again; keep one row")
    equal = np.flatnonzero(rows.duplicated(["action", "score"]))
    found.add(
        "equal scores of a class",
        number[equal],
        lambda n: (
            f"score {rows['score'].iat[equal[n]]:.10g} of action "
            f"{rows['action'].iat[equal[n]]} stands in an earlier row too; use stadlib submit"
        ),
    )
    sizes = np.bincount(rows["image"])
    place = rows.groupby("image").cumcount().to_numpy()
    full = np.flatnonzero(place == ROWS)
    image = rows["image"].to_numpy()[full]
    found.add(
        "too many rows",
        number[full],
        lambda n: (
            f"{_name(named[image[n]])} has {sizes[image[n]]} rows, of which {ROWS} count; "
            "write it with stadlib submit"
        ),
    )


def _check_keyframes(
    rows: pd.DataFrame, named: list[Image], keyframes: dict[str, Keyframes], found: Found
) -> None:
    """Images that the split does not have, or that nobody scores."""
    first = rows.drop_duplicates("image")["row"].to_numpy()
    sources = list(keyframes.values())
    excluded = np.array([any(image in s.excluded for s in sources) for image in named])
    known = np.array([any(image in s.known for s in sources) for image in named])
    for kind, wrong, words in (
        ("excluded keyframe", excluded, "is an excluded timestamp; leave its rows out"),
        ("unknown keyframe", ~known & ~excluded, "is no keyframe of the split; leave its rows out"),
    ):
        places = np.flatnonzero(wrong)
        found.add(kind, first[places], lambda n, p=places, w=words: f"{_name(named[p[n]])} {w}")


def _missing(
    path: Path, named: set[Image], keyframes: dict[str, Keyframes]
) -> tuple[list[str], list[str]]:
    """Keyframes without a row: problems where a source has none at all, else notes."""
    problems, notes = [], []
    for source, own in keyframes.items():
        missing = sorted(own.wanted - named)
        names = ", ".join(map(_name, missing[:3])) + (", ..." if len(missing) > 3 else "")
        words = f"{len(missing)} of {len(own.wanted)} keyframes of {source} have no row"
        if missing and len(missing) == len(own.wanted):
            problems.append(f"{path}: all {words}; the file is of both sources, add its detections")
        elif missing:
            notes.append(f"{path}: {words}: {names}")
    return problems, notes


def _name(image: Image) -> str:
    return f"{image[0]},{image[1] / 1e6:.6f}"

"""Whether a submission file is one: every kind of mistake, with row and remedy, before the upload.

:mod:`stadlib.submission_rows` looks at every row alone; this is about rows together and keyframes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stadlib.config import InputError
from stadlib.data.layout import AVA_SECONDS, SOURCES, AvaLayout
from stadlib.labels import LabelMap
from stadlib.metrics import protocol, read_rows
from stadlib.submission_rows import Found, micros, read_submission

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

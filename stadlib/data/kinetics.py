"""Kinetics as a classification set, as its makers publish it and as download tools leave it.

DIR/train.csv                     label,youtube_id,time_start,time_end,split (K400, K600, K700)
DIR/val.csv                       or validate.csv, the same columns
DIR/train/<label>/<youtube_id>_<time_start>_<time_end>.mp4    seconds with six digits
DIR/val/...                       or validate/; folders below are looked into, whatever their names
DIR/videos/<youtube_id>.mp4       or the longer name; for either split

Every file is a clip that begins where the annotated ten seconds do. Its label is that of its row,
never of its folder, and a class's id is its label's place among the sorted labels of ``train.csv``.
Part of Kinetics has long gone from where it was published: rows without a file are left out.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stadlib.config import InputError
from stadlib.data.layout import VIDEO_SUFFIXES
from stadlib.paths import written_whole

_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_NAMES = {"train": ("train",), "val": ("val", "validate")}  # of a split's list and folder
SPLITS = tuple(_NAMES)
_NAMED = 3  # missing videos that a line names


@dataclass(frozen=True)
class Annotations:
    """What the lists say, whatever is on disk.

    Attributes:
        root: their folder.
        classes: labels in sorted order; a label's place is its class id.
        rows: by split, (class id, YouTube id, ``<youtube_id>_<start>_<end>``) a video.
        digest: of the lists' bytes.
    """

    root: Path
    classes: tuple[str, ...]
    rows: dict[str, list[tuple[int, str, str]]]
    digest: str


@dataclass(frozen=True, eq=False)
class LabelledVideos:
    """The files of a split, in the lists' order: small enough to be sent to every worker.

    Attributes:
        root: the folder that ``files`` are named from.
        files: (N,) UTF-8 bytes, paths below ``root``.
        labels: (N,) int64, class ids.
    """

    root: Path
    files: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        """The file of a video."""
        return self.root / self.files[index].decode()


def read_annotations(root: Path) -> Annotations:
    """The training and validation lists of a folder.

    Raises:
        InputError: a list is missing or empty, a row is none of Kinetics', or the validation list
            has a label that the training list lacks.
    """
    paths = {split: _list(root, split) for split in _NAMES}
    rows = {split: list(_rows(path)) for split, path in paths.items()}
    ids = {label: i for i, label in enumerate(sorted({row[0] for row in rows["train"]}))}
    for number, (label, *_) in enumerate(rows["val"], 2):
        if label not in ids:
            raise InputError(
                f"{paths['val']}:{number}: label {label!r} is in no row of {paths['train'].name}; "
                "take both lists from one version of Kinetics"
            )
    total = hashlib.sha256(b"".join(path.read_bytes() for path in paths.values()))
    return Annotations(
        root=root,
        classes=tuple(ids),
        rows={split: [(ids[r[0]], *r[1:]) for r in some] for split, some in rows.items()},
        digest=total.hexdigest()[:12],
    )


def _list(root: Path, split: str) -> Path:
    names = [f"{name}.csv" for name in _NAMES[split]]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise InputError(
        f"{root / names[0]}: no such list; put Kinetics' official {' or '.join(names)} there, "
        "or name its folder with --data"
    )


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """(label, YouTube id, name of its clip) of every row."""
    number = 1
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
            raise InputError(
                f"{path}: no column {missing[0]!r}; the first line has to be "
                f"{','.join(_COLUMNS)},split"
            )
        for number, row in enumerate(reader, 2):
            label, video, *times = (row[name] or "" for name in _COLUMNS)
            if not label or not video or not all(time.isdecimal() for time in times):
                raise InputError(
                    f"{path}:{number}: no row of {','.join(_COLUMNS)} (whole seconds); mend it"
                )
            yield label, video, "_".join([video, *(f"{int(time):06d}" for time in times)])
    if number == 1:
        raise InputError(f"{path}: no row below the header; fetch the list again")


def listed_videos(annotations: Annotations, split: str, kept: Path) -> LabelledVideos:
    """The videos of ``kept``, which is written first if need be: those of a split that are there.

    Names are looked up once, at the beginning of a training, and no file is opened. A training
    that is resumed has the list, and so the order, that it began with, though files came or went.

    Raises:
        InputError: none of the split's videos is there, or ``kept`` is no such list.
    """
    if not kept.is_file():
        _write(kept, _found(annotations, split))
    with kept.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    try:
        labels = np.array([int(label) for label, _ in rows], np.int64)
    except ValueError as error:
        raise InputError(f"{kept}: no rows class,file; delete it") from error
    files = np.array([name.encode() for _, name in rows])
    return LabelledVideos(annotations.root, files, labels)


def _write(path: Path, rows: list[tuple[int, str]]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows(rows)


def _found(annotations: Annotations, split: str) -> list[tuple[int, str]]:
    """(class id, path below the root) of every video of a split that is there."""
    files = _files(annotations.root, (*_NAMES[split], "videos"))
    rows = annotations.rows[split]
    found = [(label, files.get(clip) or files.get(video)) for label, video, clip in rows]
    there = [(label, name) for label, name in found if name]
    if not there:
        raise InputError(
            f"{annotations.root}: none of the {len(rows)} {split} videos is there (such as "
            f"{split}/<label>/{rows[0][2]}.mp4 or videos/{rows[0][1]}.mp4); fetch them"
        )
    return there


def _files(root: Path, folders: tuple[str, ...]) -> dict[str, str]:
    """Video files below some folders, by their names without the suffix."""
    found = {}
    for folder in folders:
        for place, below, names in os.walk(root / folder, followlinks=True):
            below.sort()
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                    found.setdefault(stem, os.path.relpath(os.path.join(place, name), root))
    return found


def missing_videos(annotations: Annotations, split: str, videos: LabelledVideos) -> list[str]:
    """The rows of a split that ``videos`` lacks, as ``<youtube_id>_<start>_<end>``."""
    there = {Path(name.decode()).stem for name in videos.files.tolist()}
    rows = annotations.rows[split]
    return [clip for _, video, clip in rows if clip not in there and video not in there]


def some(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")

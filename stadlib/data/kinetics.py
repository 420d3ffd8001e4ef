"""Kinetics as a classification set, as its makers publish it and as download tools leave it.

DIR/train.csv                     label,youtube_id,time_start,time_end,split (K400, K600, K700)
DIR/val.csv                       or validate.csv, the same columns
DIR/train/<label>/<youtube_id>_<time_start>_<time_end>.mp4    seconds with six digits
DIR/val/...                       or validate/; folders below are searched, whatever their names
DIR/videos/<youtube_id>.mp4       or the longer name; for either split

Every file begins where the annotated ten seconds do. Rows without a file are left out; a file that
cannot be read is noted in a list and skipped. The miniature world's videos are ``small``: they are
squeezed into squares. Legend: V views, T time.
"""

import csv
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from stadlib.base import InputError, whole_lines, written_whole
from stadlib.data.clips import Sampling
from stadlib.data.layout import VIDEO_SUFFIXES
from stadlib.data.transforms import HSVJitter
from stadlib.data.video import probe, read_frames

_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_NAMES = {"train": ("train",), "val": ("val", "validate")}  # of a split's list and folder
SPLITS = tuple(_NAMES)
_TRIES = 100  # videos one after the other that cannot be read; then something else is wrong


class Annotations(NamedTuple):
    """The content of the lists in ``root``, whatever videos are on disk."""

    root: Path
    classes: tuple[str, ...]  # the sorted labels of train.csv; the place of a label is its id
    rows: dict[str, list[tuple[int, str, str]]]  # a split's class ids, YouTube ids, clips' names
    digest: str  # of the lists' bytes


@dataclass(frozen=True, eq=False)
class LabelledVideos:
    """The files of a split, in the lists' order: small enough to be sent to every worker."""

    root: Path
    files: np.ndarray  # (N,) UTF-8 bytes, paths below the root
    labels: np.ndarray  # (N,) int64, class ids

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        """The file of a video."""
        return self.root / self.files[index].decode()


def read_annotations(root: Path) -> Annotations:
    """The training and validation lists of a folder, or InputError naming a list and its row."""
    rows, content, ids = {}, b"", {}
    for split, names in _NAMES.items():
        files = [root / f"{name}.csv" for name in names]
        path = next((file for file in files if file.is_file()), None)
        if path is None:
            choices = " or ".join(file.name for file in files)
            remedy = f"put Kinetics' official {choices} there, or name its folder with --data"
            raise InputError(f"{files[0]}: no such list; {remedy}")
        content += path.read_bytes()
        listed = []
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                label, video, *times = (row.get(name) or "" for name in _COLUMNS)
                if not label or not video or not all(time.isdecimal() for time in times):
                    form = f"{','.join(_COLUMNS)} (whole seconds) below such a header"
                    raise InputError(f"{path}:{number}: no row of {form}; mend it")
                if ids and label not in ids:
                    remedy = "take both lists from one version of Kinetics"
                    line = f"label {label!r} is in no row of train.csv; {remedy}"
                    raise InputError(f"{path}:{number}: {line}")
                listed.append((label, video, "_".join([video, *(f"{int(t):06d}" for t in times)])))
        if not listed:
            raise InputError(f"{path}: no row below the header; fetch the list again")
        ids = ids or {label: i for i, label in enumerate(sorted({row[0] for row in listed}))}
        rows[split] = [(ids[label], video, clip) for label, video, clip in listed]
    return Annotations(root, tuple(ids), rows, hashlib.sha256(content).hexdigest()[:12])


def listed_videos(annotations: Annotations, split: str, kept: Path) -> LabelledVideos:
    """The videos of a split that are on disk, from the list ``kept``, which is written if missing.

    So a resumed training has the order that it began with, though files came or went.
    """
    root, rows = annotations.root, annotations.rows[split]
    if not kept.is_file():
        paths: dict[str, str] = {}  # below the root, by the name without the suffix
        for top in (*_NAMES[split], "videos"):
            for folder, below, names in os.walk(root / top, followlinks=True):
                below.sort()
                for path in (Path(folder, name) for name in sorted(names)):
                    if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
                        paths.setdefault(path.stem, str(path.relative_to(root)))
        videos = [(label, paths.get(clip) or paths.get(video)) for label, video, clip in rows]
        videos = [(label, path) for label, path in videos if path]
        if not videos:
            raise InputError(
                f"{root}: none of the {len(rows)} {split} videos is there (such as "
                f"{split}/<label>/{rows[0][2]}.mp4 or videos/{rows[0][1]}.mp4); fetch them"
            )
        with written_whole(kept) as path, path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(videos)
    with kept.open(newline="", encoding="utf-8") as file:
        labels, files = zip(*csv.reader(file), strict=True)
    files = np.array([name.encode() for name in files])
    return LabelledVideos(root, files, np.array(labels, np.int64))


def missing_videos(annotations: Annotations, split: str, videos: LabelledVideos) -> list[str]:
    """The rows of a split that ``videos`` lacks, as ``<youtube_id>_<start>_<end>``."""
    names = {Path(name.decode()).stem for name in videos.files.tolist()}
    rows = annotations.rows[split]
    return [clip for _, video, clip in rows if clip not in names and video not in names]


class Unreadable(NamedTuple):
    """A list of files that could not be read, written by all workers and read at the end."""

    path: Path

    def note(self, name: str, error: InputError) -> None:
        """Add a line: path below the dataset, a tab, the reason."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:  # short lines: writers don't mix
            file.write(f"{name}\t{error}\n")

    def names(self) -> list[str]:
        """Every file once."""
        return sorted({line.split("\t")[0] for line in whole_lines(self.path)})


def clip_frames(path: Path, sampling: Sampling, place: float) -> torch.Tensor:
    """The frames of a clip, uint8 (T, 3, H, W); ``place``: from 0, the earliest one, to 1.

    In a video shorter than a clip the last frame is repeated.
    """
    span = sampling.num_frames * sampling.interval
    start = max(0.0, probe(path).duration - span) * place
    return read_frames(path, [start + i * sampling.interval for i in range(sampling.num_frames)])


@dataclass(frozen=True, eq=False)
class RandomClips(Dataset):
    """A clip of a labelled video, from a random time on, of a random size, place and side.

    SlowFast's recipe (``TRAIN_JITTER_SCALES``, ``TRAIN_CROP_SIZE``): the short side is drawn evenly
    from the range ``short_sides`` of pixels, then comes a random square, mirrored or not. Of
    ``small`` videos the middle clip comes, decoded once, its colours changed as in detection.

    An item is (uint8 frames (3, T, crop, crop), class id) and depends on its key (index, seed)
    alone. The seed also names the video in place of one that cannot be read.
    """

    videos: LabelledVideos
    sampling: Sampling
    short_sides: tuple[int, int]
    crop: int
    unreadable: Unreadable
    small: bool = False
    _kept: dict[int, torch.Tensor] = field(default_factory=dict)  # decoded, of small videos

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        index, seed = key
        least, largest = self.short_sides
        resize = v2.RandomShortestSize(list(range(least, largest + 1)), antialias=True)
        if self.small:
            resize = v2.Resize((largest, largest), antialias=True)
        steps = [resize, v2.RandomCrop(self.crop), v2.RandomHorizontalFlip()]
        transform = v2.Compose([*steps, HSVJitter()] if self.small else steps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for left in reversed(range(_TRIES)):
                place = 0.5 if self.small else float(torch.rand(()))
                try:
                    frames_TCHW = self._kept.get(index)
                    if frames_TCHW is None:
                        frames_TCHW = clip_frames(self.videos.path(index), self.sampling, place)
                    break
                except InputError as error:
                    self.unreadable.note(self.videos.files[index].decode(), error)
                    if not left:
                        raise
                    index = int(torch.randint(len(self), ()))
            if self.small:
                self._kept[index] = frames_TCHW
            clip = transform(tv_tensors.Video(frames_TCHW)).as_subclass(torch.Tensor)
        return clip.transpose(0, 1).contiguous(), int(self.videos.labels[index])


@dataclass(frozen=True, eq=False)
class TestViews(Dataset):
    """Views of a labelled video: clips evenly over its time, squares evenly along its long side.

    ``10 x 3`` of them are the field's "30 views" (SlowFast). Clips and squares reach both ends; a
    single one is in the middle. ``side`` is that of the squares and the short one of the video.

    Item ``i`` is (uint8 (V, 3, T, side, side), the ``num_crops`` squares of clip
    ``i % num_clips`` of video ``i // num_clips``, its class id); V is 0 if it cannot be read.
    """

    __test__ = False  # pytest must not take it for a test

    videos: LabelledVideos
    sampling: Sampling
    side: int
    num_clips: int
    num_crops: int
    unreadable: Unreadable
    small: bool = False

    def __len__(self) -> int:
        return len(self.videos) * self.num_clips

    def __getitem__(self, item: int) -> tuple[torch.Tensor, int]:
        index, number = divmod(item, self.num_clips)
        label = int(self.videos.labels[index])
        try:
            place = _places(self.num_clips)[number]
            frames_TCHW = clip_frames(self.videos.path(index), self.sampling, place)
        except InputError as error:
            self.unreadable.note(self.videos.files[index].decode(), error)
            return torch.empty(0, dtype=torch.uint8), label
        size = [self.side, self.side] if self.small else [self.side]
        resized = F.resize(frames_TCHW, size, antialias=True)
        beyond = [length - self.side for length in resized.shape[2:]]
        corners = [[round(n * place) for n in beyond] for place in _places(self.num_crops)]
        views = [F.crop(resized, *corner, self.side, self.side) for corner in corners]
        return torch.stack(views).transpose(1, 2).contiguous(), label


def _places(count: int) -> list[float]:
    """Places from 0 to 1, both ends among them; of one, the middle."""
    return [i / (count - 1) for i in range(count)] if count > 1 else [0.5]

"""Clips of labelled videos: a random one in training, several views of each in testing.

Nothing decoded is kept: a set has hundreds of thousands of files. A file that cannot be read (or is
gone by now) is noted in a list and stops nothing.

Legend: V views, T time.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from stadlib.config import InputError
from stadlib.data.clips import Sampling
from stadlib.data.kinetics import LabelledVideos
from stadlib.data.video import probe, read_frames

_TRIES = 100  # videos one after the other that cannot be read; then something else is wrong


class Unreadable:
    """Files that could not be read: noted by every worker of every process, read at the end.

    Args:
        path: of the list, a line a file: its path below the dataset's folder, a tab, the reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._noted: set[str] = set()

    def note(self, name: str, error: InputError) -> None:
        """Add a line, once for each file and worker."""
        if name in self._noted:
            return
        self._noted.add(name)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:  # short lines: writers don't mix
            file.write(f"{name}\t{error}\n")

    def names(self) -> list[str]:
        """Every file once."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return sorted({line.split("\t")[0] for line in lines})


class RandomClips(Dataset):
    """A clip of a labelled video, from a random time on, of a random size, place and side.

    SlowFast's recipe (``slowfast/datasets/kinetics.py``, ``TRAIN_JITTER_SCALES`` and
    ``TRAIN_CROP_SIZE``): the short side is drawn evenly from a range of pixels, then comes a random
    square, mirrored or not; one draw serves the whole clip. VMZ's networks were trained likewise.

    An item is (uint8 frames (3, T, side, side), class id). It depends on nothing but its key,
    (index, seed): if the video cannot be read, another one that the seed names takes its place.

    Args:
        videos: what to show.
        sampling: frames of a clip and the seconds between them.
        short_sides: least and largest short side in pixels, both drawn.
        crop: side of the square, in pixels.
        unreadable: takes note of files that cannot be read.

    Raises:
        InputError: a hundred videos in a row cannot be read; the line is that of the first.
    """

    def __init__(
        self,
        videos: LabelledVideos,
        sampling: Sampling,
        *,
        short_sides: tuple[int, int],
        crop: int,
        unreadable: Unreadable,
    ) -> None:
        self.videos, self.sampling, self.unreadable = videos, sampling, unreadable
        least, largest = short_sides
        self.transform = v2.Compose(
            [
                v2.RandomShortestSize(list(range(least, largest + 1)), antialias=True),
                v2.RandomCrop(crop),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        """The item of (index, seed)."""
        index, seed = key
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            index, frames_TCHW = self._readable(index)
            clip = self.transform(tv_tensors.Video(frames_TCHW)).as_subclass(torch.Tensor)
        return clip.transpose(0, 1).contiguous(), int(self.videos.labels[index])

    def _readable(self, index: int) -> tuple[int, torch.Tensor]:
        """The frames of a video or, where it cannot be read, of others, and which one it was."""
        first = None
        for _ in range(_TRIES):
            try:
                path = self.videos.path(index)
                return index, clip_frames(path, self.sampling, float(torch.rand(())))
            except InputError as error:
                first = first or error
                self.unreadable.note(self.videos.files[index].decode(), error)
                index = int(torch.randint(len(self), ()))
        raise first


class TestViews(Dataset):
    """Views of a labelled video: clips evenly over its time, squares evenly along its long side.

    ``10 x 3`` of them are the field's "30 views" (SlowFast's ``NUM_ENSEMBLE_VIEWS`` and
    ``NUM_SPATIAL_CROPS``), of which clips and squares reach both ends; one clip is the middle one,
    one square the centre.

    Item ``i`` is (uint8 (V, 3, T, side, side) squares of clip ``i % num_clips`` of video
    ``i // num_clips``, its class id); V is 0 if the video cannot be read.

    Args:
        videos: what to show.
        sampling: frames of a clip and the seconds between them.
        side: short side and squares, in pixels.
        num_clips: of a video.
        num_crops: squares of a clip, V.
        unreadable: takes note of files that cannot be read.
    """

    __test__ = False  # nor shall pytest take it for one

    def __init__(
        self,
        videos: LabelledVideos,
        sampling: Sampling,
        *,
        side: int,
        num_clips: int,
        num_crops: int,
        unreadable: Unreadable,
    ) -> None:
        self.videos, self.sampling, self.unreadable = videos, sampling, unreadable
        self.side, self.num_clips, self.num_crops = side, num_clips, num_crops

    def __len__(self) -> int:
        return len(self.videos) * self.num_clips

    def __getitem__(self, item: int) -> tuple[torch.Tensor, int]:
        """The views of one clip."""
        index, number = divmod(item, self.num_clips)
        place = _places(self.num_clips)[number]
        try:
            frames_TCHW = clip_frames(self.videos.path(index), self.sampling, place)
            views = _squares(frames_TCHW, self.side, self.num_crops)
        except InputError as error:
            self.unreadable.note(self.videos.files[index].decode(), error)
            views = torch.empty(0, dtype=torch.uint8)
        return views, int(self.videos.labels[index])


def clip_frames(path: Path, sampling: Sampling, place: float) -> torch.Tensor:
    """The frames of a clip.

    Args:
        path: of the video.
        sampling: how many frames, how many seconds apart.
        place: 0 is the earliest clip that the video has, 1 the latest; in a video shorter than a
            clip its last frame is repeated.

    Returns:
        uint8 (T, 3, H, W).

    Raises:
        InputError: the video cannot be read.
    """
    span = sampling.num_frames * sampling.interval
    start = max(0.0, probe(path).duration - span) * place
    return read_frames(path, [start + i * sampling.interval for i in range(sampling.num_frames)])


def _places(count: int) -> list[float]:
    """Places from 0 to 1, both ends among them; of one, the middle."""
    return [i / (count - 1) for i in range(count)] if count > 1 else [0.5]


def _squares(frames_TCHW: torch.Tensor, side: int, count: int) -> torch.Tensor:
    """Squares along a clip's long side, as large as its short one: (count, 3, T, side, side)."""
    resized = F.resize(frames_TCHW, [side], antialias=True)
    beyond = [length - side for length in resized.shape[2:]]
    squares = []
    for place in _places(count):
        top, left = (round(length * place) for length in beyond)
        squares.append(F.crop(resized, top, left, side, side))
    return torch.stack(squares).transpose(1, 2).contiguous()

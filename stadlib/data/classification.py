"""The classification set that a backbone is pretrained on (paper section 3.1, "Backbone")."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from stadlib.config import InputError
from stadlib.data.video import probe, read_frames


def read_list(path: Path) -> list[tuple[str, int]]:
    """The (video, label) rows of a list with a header line.

    Raises:
        InputError: the file is missing, or a row is not ``video,label``.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such list; give rows video,label below a header line")
    rows = []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            try:
                rows.append((row["video"], int(row["label"])))
            except (KeyError, TypeError, ValueError) as error:
                place = f"{path}:{len(rows) + 2}"
                raise InputError(f"{place}: not a row video,label; mend it") from error
    return rows


class ClassificationDataset(Dataset):
    """Clips from the middle of labelled videos.

    An item is (uint8 frames (3, T, H, W), label); it depends on nothing but its key.

    Args:
        folder: holds ``videos/<id>.mp4``.
        rows: (video, label) pairs.
        num_frames: T.
        interval: seconds between frames.
        transform: makes clips of one size out of (T, 3, H, W) videos.
    """

    def __init__(
        self,
        folder: Path,
        rows: list[tuple[str, int]],
        *,
        num_frames: int,
        interval: float,
        transform: Callable,
    ) -> None:
        self.folder, self.rows, self.transform = folder, rows, transform
        self.num_frames, self.interval = num_frames, interval
        self._decoded: dict[str, torch.Tensor] = {}  # small videos, many epochs: decode once

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        """The item of (index, seed of its augmentation)."""
        index, seed = key
        video, label = self.rows[index]
        if video not in self._decoded:
            self._decoded[video] = self._read(video)
        frames = self._decoded[video]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            clip = self.transform(tv_tensors.Video(frames)).as_subclass(torch.Tensor)
        return clip.transpose(0, 1).contiguous(), label

    def _read(self, video: str) -> torch.Tensor:
        path = self.folder / "videos" / f"{video}.mp4"
        start = max(0.0, probe(path).duration - self.num_frames * self.interval) / 2
        return read_frames(path, [start + i * self.interval for i in range(self.num_frames)])

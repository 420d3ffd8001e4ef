"""What a person detector is trained on: still pictures and keyframes of videos, with boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from stadlib.config import InputError
from stadlib.data.annotations import Keyframe
from stadlib.data.coco import Still
from stadlib.data.layout import AvaLayout
from stadlib.data.transforms import HSVJitter
from stadlib.data.video import read_frames


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that is read when asked for.

    Attributes:
        path: of an image file, or of a video.
        time: seconds since the video's first frame; None for an image file.
        boxes: (G, 4) float32, x1 y1 x2 y2; fractions of width and height for a video's frame,
            pixels for an image file, as AVA and COCO have them.
    """

    path: Path
    time: float | None
    boxes: np.ndarray

    def read(self) -> torch.Tensor:
        """The picture, uint8 (3, H, W).

        Raises:
            InputError: the file is missing or holds no picture.
        """
        if self.time is not None:
            return read_frames(self.path, [self.time])[0]
        blue_first = cv2.imread(str(self.path), cv2.IMREAD_COLOR)
        if blue_first is None:
            raise InputError(f"{self.path}: no readable picture; put it there or mend the list")
        return torch.from_numpy(blue_first[:, :, ::-1].transpose(2, 0, 1).copy())


def of_stills(stills: Sequence[Still]) -> list[Picture]:
    """COCO's pictures."""
    return [Picture(still.path, None, still.boxes) for still in stills]


def of_keyframes(layout: AvaLayout, keyframes: Sequence[Keyframe]) -> list[Picture]:
    """Annotated frames of videos, those without a person included.

    Raises:
        InputError: a video is missing.
    """
    videos = dict.fromkeys((k.source, k.video) for k in keyframes)
    files = {video: layout.video_file(*video) for video in videos}
    starts = {video: layout.video_start(*video) for video in videos}
    names = [(k.source, k.video) for k in keyframes]
    return [
        Picture(files[name], k.timestamp - starts[name], k.boxes)
        for name, k in zip(names, keyframes, strict=True)
    ]


class PictureDataset(Dataset):
    """Augmented pictures; an item depends on nothing but its key (index, seed).

    An item is (uint8 (3, H, W), boxes (G, 4) float32 in its pixels). Sizes are the detector's
    matter; here a picture is mirrored half of the time and its colours are shifted.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures
        self.transform: Callable = v2.Compose(
            [HSVJitter(hue=20, saturation=0.1, value=0.1), v2.RandomHorizontalFlip()]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        index, seed = key
        picture = self.pictures[index]
        frame = picture.read()
        height, width = frame.shape[1:]
        unit = [1.0] * 4 if picture.time is None else [width, height, width, height]
        boxes = torch.from_numpy(picture.boxes) * torch.tensor(unit)
        boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            video, boxes = self.transform(tv_tensors.Video(frame[None]), boxes)
        return video.as_subclass(torch.Tensor)[0], boxes.as_subclass(torch.Tensor)


def as_lists(items: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list, list]:
    """A batch of pictures of any sizes: pictures, boxes."""
    pictures, boxes = zip(*items, strict=True)
    return list(pictures), list(boxes)

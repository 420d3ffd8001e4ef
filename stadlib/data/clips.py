"""From a keyframe to what the model reads: frames around it, boxes in pixels, batches.

Legend: B clips, N persons (of the batch, or of one clip), C channels, T time, A actions.

What a person detector is trained on: still pictures and keyframes of videos, with boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset, get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from stadlib.base import InputError
from stadlib.data.coco import Still
from stadlib.data.keyframes import Keyframe
from stadlib.data.layout import AvaLayout
from stadlib.data.transforms import HSVJitter
from stadlib.data.video import frame_size, read_frames

PAD_VALUE = 115  # the grey that the backbones' normalisation (mean 0.45) turns into zero
Transform = Callable[
    [tv_tensors.Video, tv_tensors.BoundingBoxes],
    tuple[tv_tensors.Video, tv_tensors.BoundingBoxes],
]


@dataclass(frozen=True)
class Sampling:
    """Which frames a clip has: ``num_frames`` of them, ``interval`` seconds apart.

    For SlowFast these are the fast path's frames; the backbone takes the slow path's from them.
    """

    num_frames: int
    interval: float

    def times(self, keyframe: float) -> list[float]:
        """Seconds of the frames; number ``num_frames // 2`` is the keyframe itself."""
        middle = self.num_frames // 2
        return [keyframe + (i - middle) * self.interval for i in range(self.num_frames)]


@dataclass
class Clip:
    """One view of one keyframe, not padded. N may be 0."""

    frames_TCHW: torch.Tensor
    boxes_N4: torch.Tensor
    actions_NA: torch.Tensor
    boxes_norm_N4: torch.Tensor
    person_ids_N: torch.Tensor
    key: tuple[str, str, float]


@dataclass
class Batch:
    """Clips of a common size and the persons in them, those of clip 0 first.

    Attributes:
        clips_BCTHW: uint8, padded at the right and the bottom to divisible height and width.
        boxes_N4: float32, x1 y1 x2 y2 in pixels of the padded clip.
        counts_B: int64, persons a clip; 0 is allowed.
        actions_NA: float32, 1 where the person does the action; zeros without ground truth.
        boxes_norm_N4: float32, the boxes before any transform, in [0, 1]: as in detection files.
        keys: (source, video, timestamp) a clip.
        person_ids_N: int64, -1 where the annotations give none.
    """

    clips_BCTHW: torch.Tensor
    boxes_N4: torch.Tensor
    counts_B: torch.Tensor
    actions_NA: torch.Tensor
    boxes_norm_N4: torch.Tensor
    keys: list[tuple[str, str, float]]
    person_ids_N: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on ``device``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        move = {"device": device, "non_blocking": True}
        return Batch(**{k: v if k == "keys" else v.to(**move) for k, v in values.items()})

    def padded(self, height: int, width: int) -> Batch:
        """The same clips with more padding at the right and the bottom."""
        more = (0, width - self.clips_BCTHW.shape[4], 0, height - self.clips_BCTHW.shape[3])
        if not any(more):
            return self
        return replace(self, clips_BCTHW=F.pad(self.clips_BCTHW, more, value=PAD_VALUE))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, out of which a GPU copies beside its work."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v if k == "keys" else v.pin_memory() for k, v in values.items()})


class ClipDataset(Dataset):
    """The clips around keyframes.

    Items are asked for by index, or by (index, seed): then the item depends on nothing else, be
    it the worker that makes it or the items made before.

    Args:
        layout: where the videos are.
        keyframes: what to show, AVA's and Kinetics' mixed as one likes.
        sampling: the frames around a keyframe.
        transform: of (video, boxes). With a sequence of them an item is the list of these views,
            decoded once.
        max_persons: of more persons than that, a random subset is kept (training only).

    Raises:
        InputError: a video is missing.
    """

    def __init__(
        self,
        layout: AvaLayout,
        keyframes: Sequence[Keyframe],
        sampling: Sampling,
        transform: Transform | Sequence[Transform],
        max_persons: int | None = None,
    ) -> None:
        self.keyframes = keyframes
        self.sampling, self.transform, self.max_persons = sampling, transform, max_persons
        videos = dict.fromkeys((k.source, k.video) for k in keyframes)
        self._files = {video: layout.video_file(*video) for video in videos}
        self._starts = {video: layout.video_start(*video) for video in videos}

    def __len__(self) -> int:
        return len(self.keyframes)

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every item's video, in pixels, from the files' headers."""
        sizes = {video: frame_size(path) for video, path in self._files.items()}
        return [sizes[k.source, k.video] for k in self.keyframes]

    def __getitem__(self, item: int | tuple[int, int]) -> Clip | list[Clip]:
        if not isinstance(item, tuple):
            return self._item(item)
        index, seed = item
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((seed * 1_000_003 + index) % 2**63)
            return self._item(index)

    def _item(self, index: int) -> Clip | list[Clip]:
        keyframe = self.keyframes[index]
        video = (keyframe.source, keyframe.video)
        times = self.sampling.times(keyframe.timestamp - self._starts[video])
        frames_TCHW = read_frames(self._files[video], times)
        keep = _subset(len(keyframe.boxes), self.max_persons)
        if callable(self.transform):
            return _view(keyframe, keep, frames_TCHW, self.transform)
        return [_view(keyframe, keep, frames_TCHW, transform) for transform in self.transform]


def collate(clips: Sequence[Clip], multiple: int = 32) -> Batch:
    """One batch of clips of any sizes, of which some or all may have no person.

    Args:
        clips: what the dataset gave.
        multiple: height and width of the batch are divisible by it; a backbone's spatial stride
            or more.
    """
    height, width = (
        -(-max(clip.frames_TCHW.shape[axis] for clip in clips) // multiple) * multiple
        for axis in (2, 3)
    )
    frames, channels = clips[0].frames_TCHW.shape[:2]
    clips_BCTHW = torch.empty((len(clips), channels, frames, height, width), dtype=torch.uint8)
    if get_worker_info():  # what a worker hands over lies in shared memory: write it there at once
        clips_BCTHW.share_memory_()
    for padded_CTHW, clip in zip(clips_BCTHW, clips, strict=True):
        h, w = clip.frames_TCHW.shape[2:]
        padded_CTHW[:, :, :h, :w] = clip.frames_TCHW.transpose(0, 1)
        padded_CTHW[:, :, h:] = PAD_VALUE
        padded_CTHW[:, :, :h, w:] = PAD_VALUE
    return Batch(
        clips_BCTHW=clips_BCTHW,
        boxes_N4=torch.cat([clip.boxes_N4 for clip in clips]),
        counts_B=torch.tensor([len(clip.boxes_N4) for clip in clips]),
        actions_NA=torch.cat([clip.actions_NA for clip in clips]),
        boxes_norm_N4=torch.cat([clip.boxes_norm_N4 for clip in clips]),
        keys=[clip.key for clip in clips],
        person_ids_N=torch.cat([clip.person_ids_N for clip in clips]),
    )


def collate_views(items: Sequence[list[Clip]], multiple: int = 32) -> list[Batch]:
    """A batch a view, each of the same clips in the same order."""
    return [collate(clips, multiple) for clips in zip(*items, strict=True)]


def _subset(count: int, limit: int | None) -> np.ndarray:
    """Indices of the persons to keep, ascending."""
    if limit is None or count <= limit:
        return np.arange(count)
    return torch.randperm(count)[:limit].sort().values.numpy()


def _view(
    keyframe: Keyframe, keep: np.ndarray, frames_TCHW: torch.Tensor, transform: Transform
) -> Clip:
    height, width = frames_TCHW.shape[2:]
    norm_N4 = torch.from_numpy(keyframe.boxes[keep])
    pixels_N4 = norm_N4 * torch.tensor([width, height, width, height])
    boxes = tv_tensors.BoundingBoxes(pixels_N4, format="XYXY", canvas_size=(height, width))
    video, boxes = transform(tv_tensors.Video(frames_TCHW), boxes)
    return Clip(
        frames_TCHW=video.as_subclass(torch.Tensor),
        boxes_N4=boxes.as_subclass(torch.Tensor),
        actions_NA=torch.from_numpy(keyframe.actions[keep]).float(),
        boxes_norm_N4=norm_N4,
        person_ids_N=torch.from_numpy(keyframe.person_ids[keep]),
        key=(keyframe.source, keyframe.video, keyframe.timestamp),
    )


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

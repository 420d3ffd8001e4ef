"""From keyframes to batches of clips, and from pictures to what a person detector is trained on.

Legend: B clips, N persons (of the batch, or of one clip), C channels, T time, A actions.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from stadlib.base import InputError, data_dir, digest, write_whole
from stadlib.data.keyframes import Keyframe, KeyframeColumns
from stadlib.data.layout import AvaLayout
from stadlib.data.transforms import HSVJitter, shift_colours
from stadlib.data.video import identity, opened, read_frames

PAD_VALUE = 115  # the grey that the backbones' normalisation (mean 0.45) turns into zero
Transform = Callable  # (tv_tensors.Video, tv_tensors.BoundingBoxes) -> the same two


@dataclass(frozen=True)
class Sampling:
    """Which frames a clip has, ``interval`` seconds apart; for SlowFast those of the fast path."""

    num_frames: int
    interval: float

    def times(self, keyframe: float) -> list[float]:
        """Seconds of the frames; number ``num_frames // 2`` is the keyframe itself."""
        middle = self.num_frames // 2
        return [keyframe + (i - middle) * self.interval for i in range(self.num_frames)]


@dataclass
class Batch:
    """Clips of a common size and the persons in them, those of clip 0 first; N may be 0."""

    clips_BCTHW: torch.Tensor  # uint8 or, resized as pytorchvideo does, float32 of 0 to 255
    # They are padded at the right and the bottom to divisible sides.
    boxes_N4: torch.Tensor  # float32, x1 y1 x2 y2 in pixels of the padded clip
    counts_B: torch.Tensor  # int64, persons a clip; 0 is allowed
    actions_NA: torch.Tensor  # float32, 1 where the person does the action; 0 if not annotated
    boxes_norm_N4: torch.Tensor  # float32, the boxes before any transform, in [0, 1]
    sizes: list[tuple[int, int]]  # height and width of each clip without what larger ones need
    keys: list[tuple[str, str, float]]  # (source, video, timestamp) a clip
    shifts_B5: torch.Tensor | None = None  # to come: hue, saturation, value; and the clip's H, W

    def to(self, device: torch.device | str) -> Self:
        """The same batch on ``device``, where colours are shifted; the host reads ``counts_B``."""
        moved = self._with_each(lambda tensor: tensor.to(device, non_blocking=True))
        moved = replace(moved, counts_B=self.counts_B, shifts_B5=None)
        if self.shifts_B5 is None:
            return moved
        moved.clips_BCTHW = moved.clips_BCTHW.clone()  # on its own device nothing has moved
        shifts = self.shifts_B5.tolist()
        for padded_CTHW, (*shift, h, w) in zip(moved.clips_BCTHW, shifts, strict=True):
            clip_CTHW = padded_CTHW[..., :h, :w]
            clip_CTHW.copy_(shift_colours(clip_CTHW, *shift))
        return moved

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory, from which a GPU copies beside its work."""
        return self._with_each(torch.Tensor.pin_memory)

    def _with_each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        tensors = {name: x for name, x in vars(self).items() if isinstance(x, torch.Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


@dataclass(eq=False)
class ClipDataset(Dataset):
    """The clips around keyframes.

    An item is asked for by index, or by (index, seed): then it depends on nothing else. With a
    sequence of transforms an item is the list of these views. Of more than ``max_persons`` a random
    subset is kept.
    """

    layout: AvaLayout
    keyframes: Sequence[Keyframe]
    sampling: Sampling
    transform: Transform | Sequence[Transform]
    max_persons: int | None = None

    def __post_init__(self) -> None:
        self._videos = _videos_of(self.layout, self.keyframes)
        self.keyframes = KeyframeColumns(self.keyframes)

    def __len__(self) -> int:
        return len(self.keyframes)

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every item's video, in pixels; kept in the data folder."""
        kept = data_dir() / "sizes" / f"{digest({'root': str(self.layout.root)})}.json"
        known, fresh, sizes = {}, {}, {}
        with suppress(OSError, ValueError):  # none yet, or a damaged one
            known = json.loads(kept.read_text())
        for video, (path, _) in self._videos.items():
            name, *state = identity(path)
            if known.get(name, [])[:2] != state:
                with opened(path) as (_, stream):
                    fresh[name] = [*state, stream.codec_context.height, stream.codec_context.width]
            sizes[video] = tuple((fresh.get(name) or known[name])[2:])
        if fresh:
            with suppress(OSError):  # a data folder that cannot be written
                write_whole(kept, json.dumps(known | fresh))
        return [sizes[k.source, k.video] for k in self.keyframes]

    def __getitem__(self, item: int | tuple[int, int]) -> Batch | list[Batch]:
        index, seed = item if isinstance(item, tuple) else (item, None)
        keyframe = self.keyframes[index]
        path, start = self._videos[keyframe.source, keyframe.video]
        frames_TCHW = read_frames(path, self.sampling.times(keyframe.timestamp - start))
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed((seed * 1_000_003 + index) % 2**63)
            keep = np.arange(len(keyframe.boxes))
            if self.max_persons is not None and len(keep) > self.max_persons:
                keep = torch.randperm(len(keep))[: self.max_persons].sort().values.numpy()
            boxes, actions = keyframe.boxes[keep], keyframe.actions[keep].astype(np.float32)
            key = (keyframe.source, keyframe.video, keyframe.timestamp)
            if callable(self.transform):
                return one_clip(frames_TCHW, boxes, actions, key, self.transform)
            return [one_clip(frames_TCHW, boxes, actions, key, view) for view in self.transform]


def _videos_of(layout: AvaLayout, keyframes: Sequence[Keyframe]) -> dict:
    """File and first second of every (source, video)."""
    videos = dict.fromkeys((k.source, k.video) for k in keyframes)
    return {video: (layout.video_file(*video), layout.video_start(*video)) for video in videos}


def one_clip(frames_TCHW: torch.Tensor, boxes, actions, key, transform: Transform) -> Batch:
    """A view of one clip, not padded, as a batch; boxes are fractions (N, 4) of the frame."""
    norm_N4 = torch.from_numpy(boxes)
    box = _in_pixels(norm_N4, frames_TCHW)
    video, boxes_N4, *shifts = transform(tv_tensors.Video(frames_TCHW), box)
    size = tuple(video.shape[-2:])
    return Batch(
        clips_BCTHW=video.as_subclass(torch.Tensor).transpose(0, 1)[None],
        boxes_N4=boxes_N4.as_subclass(torch.Tensor),
        counts_B=torch.tensor([len(boxes)]),
        actions_NA=torch.from_numpy(actions),
        boxes_norm_N4=norm_N4,
        sizes=[size],
        keys=[key],
        shifts_B5=shifts[0] if shifts else None,
    )


def _in_pixels(boxes_N4: torch.Tensor, frames: torch.Tensor) -> tv_tensors.BoundingBoxes:
    """Boxes given in fractions of (..., H, W) frames."""
    height, width = frames.shape[-2:]
    pixels_N4 = boxes_N4 * torch.tensor([width, height, width, height])
    return tv_tensors.BoundingBoxes(pixels_N4, format="XYXY", canvas_size=(height, width))


def collate(clips: Sequence[Batch], multiple: int = 32) -> Batch:
    """One batch of single clips, each padded to ``multiple``, then to the size of the largest."""
    sizes = [tuple(-(-x // multiple) * multiple for x in clip.sizes[0]) for clip in clips]
    largest = [max(sides) for sides in zip(*sizes, strict=True)]
    channels, frames = clips[0].clips_BCTHW.shape[1:3]
    shape = (len(clips), frames, *largest, channels)
    clips_BTHWC = torch.empty(shape, dtype=clips[0].clips_BCTHW.dtype)
    if get_worker_info():  # a worker's batch travels in shared memory: write it there at once
        clips_BTHWC.share_memory_()
    clips_BCTHW = clips_BTHWC.permute(0, 4, 1, 2, 3)
    for padded_CTHW, clip in zip(clips_BCTHW, clips, strict=True):
        h, w = clip.clips_BCTHW.shape[3:]
        padded_CTHW[:, :, :h, :w] = clip.clips_BCTHW[0]
        padded_CTHW[:, :, h:] = PAD_VALUE
        padded_CTHW[:, :, :h, w:] = PAD_VALUE
    names = ["boxes_N4", "counts_B", "actions_NA", "boxes_norm_N4"]
    names += ["shifts_B5"] * (clips[0].shifts_B5 is not None)
    joined = {name: torch.cat([getattr(clip, name) for clip in clips]) for name in names}
    return Batch(clips_BCTHW, sizes=sizes, keys=[clip.keys[0] for clip in clips], **joined)


def collate_views(items: Sequence[list[Batch]], multiple: int = 32) -> list[Batch]:
    """A batch a view, each of the same clips in the same order."""
    return [collate(clips, multiple) for clips in zip(*items, strict=True)]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that is read when asked for: an image file, or a frame of a video."""

    path: Path
    time: float | None  # seconds since the video's first frame; None for an image file
    boxes: np.ndarray  # (G, 4) float32, x1 y1 x2 y2, as fractions of a frame or pixels of an image

    def read(self) -> torch.Tensor:
        """The picture, uint8 (3, H, W)."""
        if self.time is not None:
            return read_frames(self.path, [self.time])[0]
        blue_first = cv2.imread(str(self.path), cv2.IMREAD_COLOR)
        if blue_first is None:
            raise InputError(f"{self.path}: no readable picture; put it there or mend the list")
        return torch.from_numpy(blue_first[:, :, ::-1].transpose(2, 0, 1).copy())


def read_coco(path: Path, folder: Path, category: str = "person") -> list[Picture]:
    """Every picture (below ``folder``) of a file such as ``instances_train2017.json``, in order.

    Boxes are those of the category, cut at the picture's edge. Groups (``iscrowd`` 1) and boxes
    without area are left out.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected COCO's instances as JSON")
    rows = defaultdict(list)
    try:
        coco = json.loads(path.read_bytes())
        kinds = {kind["name"]: kind["id"] for kind in coco["categories"]}
        ids = {image["id"] for image in coco["images"]}
        for row in coco["annotations"]:
            rows[row["image_id"]].append((row["category_id"], row))
    except (ValueError, LookupError, TypeError) as error:
        reason = f"{type(error).__name__} {error}"
        lists = "images, annotations and categories with their ids"
        raise InputError(f"{path}: not COCO's JSON ({reason}); it has {lists}") from None
    if category not in kinds:
        names = ", ".join(kinds) or "none at all"
        raise InputError(f"{path}: no category {category!r}; there are {names}")
    unlisted, twice = [image for image in rows if image not in ids], len(ids) < len(coco["images"])
    if unlisted or twice:
        problem = "one occurs twice" if twice else f"{unlisted[0]!r} is missing"
        raise InputError(f"{path}: ids of images: {problem}; list every image once")
    pictures = []
    for number, image in enumerate(coco["images"]):
        of_category = [row for kind, row in rows[image["id"]] if kind == kinds[category]]
        try:
            boxes = [row["bbox"] for row in of_category if not row.get("iscrowd", 0)]
            inner, size = Path(image["file_name"]), (image["width"], image["height"])
            numbers = [*size, *(number for box in boxes for number in box)]
            sound = all(type(n) in (int, float) for n in numbers) and np.isfinite(numbers).all()
            inside = inner.parts and not inner.anchor and ".." not in inner.parts
            if not (sound and inside and min(size) > 0 and all(len(box) == 4 for box in boxes)):
                raise ValueError(f"{inner} of {size} with {boxes}")
        except (KeyError, TypeError, ValueError) as error:
            remedy = f"mend file_name (below {folder}), width, height or a bbox of 4 numbers"
            raise InputError(f"{path}: images[{number}]: {error}; {remedy}") from None
        corners = np.array(boxes, np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        corners = np.clip(corners, 0, np.tile(size, 2))
        kept = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        pictures.append(Picture(folder / inner, None, corners[kept].astype(np.float32)))
    return pictures


def of_keyframes(layout: AvaLayout, keyframes: Sequence[Keyframe]) -> list[Picture]:
    """Annotated frames of videos, those without a person included."""
    videos, pictures = _videos_of(layout, keyframes), []
    for keyframe in keyframes:
        path, start = videos[keyframe.source, keyframe.video]
        pictures.append(Picture(path, keyframe.timestamp - start, keyframe.boxes))
    return pictures


@dataclass(eq=False)
class PictureDataset(Dataset):
    """Pictures with shifted colours, every second one mirrored.

    An item is (uint8 (3, H, W), boxes (G, 4) float32 in its pixels), decided by its (index, seed).
    """

    pictures: Sequence[Picture]
    transform = v2.Compose([HSVJitter(), v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        index, seed = key
        picture = self.pictures[index]
        frame, boxes = picture.read(), torch.from_numpy(picture.boxes)
        if picture.time is None:
            boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=frame.shape[1:])
        else:
            boxes = _in_pixels(boxes, frame)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            video, boxes = self.transform(tv_tensors.Video(frame[None]), boxes)
        return video.as_subclass(torch.Tensor)[0], boxes.as_subclass(torch.Tensor)


def as_lists(items: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list, list]:
    """A batch of pictures of any sizes: pictures, boxes."""
    return tuple(map(list, zip(*items, strict=True)))

"""What happens to a clip and its boxes before the model: size, colour, flip, box jitter, extension.

A transform takes (tv_tensors.Video (T, 3, H, W) uint8, tv_tensors.BoundingBoxes XYXY in pixels) and
returns both; one draw from torch's generator serves the whole clip. Numbers are AlphAction's (AIA),
where the paper is silent.
"""

from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

Both = tuple[tv_tensors.Video, tv_tensors.BoundingBoxes]


def train_transform(short_side: int, long_side: int, *, colours: bool = True) -> v2.Transform:
    """The augmentation of training; without ``colours`` :func:`shift_colours` is to follow."""
    sized = partial(resize, short_side=short_side, long_side=long_side)
    jitter = HSVJitter() if colours else _draw_shifts
    return v2.Compose([sized, jitter_boxes, jitter, v2.RandomHorizontalFlip(p=0.5)])


def test_transform(short_side: int, long_side: int, flip=False, extend=(0.0, 0.0)) -> v2.Transform:  # noqa: PT028
    """One view of a clip in evaluation; boxes grow by fractions of their width and height."""
    steps = [partial(resize, short_side=short_side, long_side=long_side)]
    if any(extend):
        steps.append(partial(extend_boxes, fractions=extend))
    if flip:
        steps.append(v2.RandomHorizontalFlip(p=1.0))
    return v2.Compose(steps)


test_transform.__test__ = False  # pytest must not take it for a test


def resize(video, boxes, short_side: int, long_side: int) -> Both:
    """Scale the short side to ``short_side`` pixels, or less if the long one would be too long."""
    height, width = video.shape[-2:]
    scale = min(short_side / min(height, width), long_side / max(height, width))
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    return F.resize(video, size, antialias=True), F.resize(boxes, size)


def resize_as_pytorchvideo(video, boxes, short_side: int = 256) -> Both:
    """Scale as pytorchvideo's detection tutorial does: float frames from 0 to 255, bilinear, the
    long side rounded down, not smoothed.
    """
    (height, width), boxes_N4 = video.shape[-2:], boxes.as_subclass(torch.Tensor)
    short, long = sorted((height, width))
    grown = int(np.floor(long / short * short_side))
    size = (grown, short_side) if width < height else (short_side, grown)
    frames = video.as_subclass(torch.Tensor).float()
    frames = torch.nn.functional.interpolate(frames, size, mode="bilinear", align_corners=False)
    boxes_N4 = torch.minimum(boxes_N4, boxes_N4.new_tensor([width, height] * 2) - 1) * grown / long
    boxes_N4 = torch.minimum(boxes_N4, boxes_N4.new_tensor([*size[::-1]] * 2) - 1)
    box = tv_tensors.BoundingBoxes(boxes_N4, format="XYXY", canvas_size=size)
    return tv_tensors.Video(frames), box


def resize_as_mmaction2(video, boxes, short_side: int = 256) -> Both:
    """Scale as mmaction2's ``Resize(scale=(-1, 256))`` does: OpenCV's bilinear, bytes, rounded."""
    height, width = video.shape[-2:]
    scale = short_side / min(height, width)
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    frames_THWC = video.as_subclass(torch.Tensor).permute(0, 2, 3, 1).numpy()
    frames = [cv2.resize(np.ascontiguousarray(frame), size) for frame in frames_THWC]
    sized = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    return tv_tensors.Video(sized), F.resize(boxes, list(size[::-1]))


def extend_boxes(video, boxes, fractions: tuple[float, float]) -> Both:
    """Grow boxes by fractions of their width and height, half of it on each side (AIA)."""
    return video, _grown(boxes, boxes.new_tensor([*fractions] * 2) / 2)


def jitter_boxes(video, boxes) -> Both:
    """Move sides outwards by up to 0.2 of the width, 0.1 of the height; inwards by half (AIA)."""
    outwards, inwards = boxes.new_tensor([0.2, 0.1] * 2), boxes.new_tensor([0.1, 0.05] * 2)
    return video, _grown(boxes, torch.rand_like(boxes) * (outwards + inwards) - inwards)


def _grown(boxes: tv_tensors.BoundingBoxes, outwards_N4: torch.Tensor) -> tv_tensors.BoundingBoxes:
    """Sides move outwards by fractions of the boxes' size, as far as the edges of the frame."""
    boxes_N4, (height, width) = boxes.as_subclass(torch.Tensor), boxes.canvas_size
    size_N4 = (boxes_N4[:, 2:] - boxes_N4[:, :2]).repeat(1, 2)
    sign = boxes_N4.new_tensor([-1.0, -1.0, 1.0, 1.0])
    moved_N4 = (boxes_N4 + sign * size_N4 * outwards_N4).clamp(min=0)
    limit = boxes_N4.new_tensor([width, height, width, height])
    return tv_tensors.wrap(torch.minimum(moved_N4, limit), like=boxes)


class HSVJitter(v2.Transform):
    """Turn the hue, shift saturation and value, all clamped, by one draw a clip (AIA)."""

    _transformed_types = (tv_tensors.Video,)
    bounds = (20.0 / 2, 0.1 * 255, 0.1 * 255)  # 20 degrees; OpenCV's 8-bit hue has steps of 2

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw once for the whole clip."""
        draws = (torch.rand(3) * 2 - 1).tolist()
        return {"shifts": [round(d * bound) for d, bound in zip(draws, self.bounds, strict=True)]}

    def transform(self, inpt: tv_tensors.Video, params: dict[str, Any]) -> tv_tensors.Video:
        """Shift the colours of the video."""
        hue, saturation, value = params["shifts"]
        levels = np.arange(256)  # the hue wraps at 180
        columns = [(levels + hue) % 180, levels + saturation, levels + value]
        table = np.stack(columns, axis=-1).clip(0, 255).astype(np.uint8)[None]
        frames_THWC = inpt.as_subclass(torch.Tensor).permute(0, 2, 3, 1).contiguous().numpy()
        jittered_THWC = np.empty_like(frames_THWC)
        # frame by frame: what one step puts out is still in the cache for the next
        for frame, jittered in zip(frames_THWC, jittered_THWC, strict=True):
            hsv = cv2.LUT(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV), table)
            cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=jittered)
        return tv_tensors.wrap(torch.from_numpy(jittered_THWC).permute(0, 3, 1, 2), like=inpt)


def _draw_shifts(video, boxes) -> tuple:
    """A clip as it is, what :class:`HSVJitter` would have shifted it by, and H, W: (1, 5)."""
    shifts = HSVJitter().make_params([])["shifts"]
    return video, boxes, torch.tensor([[*shifts, *video.shape[-2:]]])


def shift_colours(frames_3THW: torch.Tensor, hue: int, saturation: int, value: int) -> torch.Tensor:
    """:class:`HSVJitter` on any device, uint8 to uint8, up to a step of OpenCV's hue."""
    colours_3THW = frames_3THW.float()
    red, green, blue = colours_3THW
    values, least = colours_3THW.amax(0), colours_3THW.amin(0)
    chroma = (values - least).clamp(min=1)
    hues = torch.where(values == green, 2 + (blue - red) / chroma, 4 + (red - green) / chroma)
    hues = torch.where(values == red, (green - blue) / chroma, hues)  # sixths of a turn
    saturations = (255 * (values - least) / values.clamp(min=1)).round()
    hues = ((30 * hues).round() + hue) % 180 / 30
    saturations = (saturations + saturation).clamp(0, 255) / 255
    values = (values + value).clamp(0, 255)
    for colour, first in zip(colours_3THW, (5, 3, 1), strict=True):
        place = (hues + first) % 6
        colour.copy_(values * (1 - saturations * torch.minimum(place, 4 - place).clamp(0, 1)))
    return colours_3THW.round().to(torch.uint8)

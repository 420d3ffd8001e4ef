"""What happens to a clip and its boxes before the model: size, colour, flip, box jitter, extension.

Every transform takes (tv_tensors.Video (T, 3, H, W) uint8, tv_tensors.BoundingBoxes XYXY in
pixels) and returns both; one draw serves the whole clip. Random numbers come from torch's global
generator. Numbers are AlphAction's (AIA), where the paper is silent.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

JITTER_OUT = (0.2, 0.1)  # of a box's width and height: how far a side may move outwards ...
JITTER_IN = (0.1, 0.05)  # ... and inwards


def train_transform(
    short_side: int,
    long_side: int,
    *,
    flip: bool = True,
    hue: float = 20.0,
    saturation: float = 0.1,
    value: float = 0.1,
    box_jitter: bool = True,
) -> v2.Transform:
    """The augmentation of training (paper section 3.1; bounds from AIA).

    Args:
        short_side: of the resized frame, in pixels.
        long_side: limit of the longer side, in pixels.
        flip: mirror every second clip.
        hue: largest turn, in degrees.
        saturation: largest shift, as a fraction of the full range.
        value: likewise.
        box_jitter: move the sides of ground-truth boxes, as a detector would.
    """
    steps: list[v2.Transform] = [Resize(short_side, long_side)]
    if box_jitter:
        steps.append(BoxJitter())
    if hue or saturation or value:
        steps.append(HSVJitter(hue, saturation, value))
    if flip:
        steps.append(v2.RandomHorizontalFlip(p=0.5))
    return v2.Compose(steps)


def test_transform(
    short_side: int,
    long_side: int,
    flip: bool = False,  # noqa: PT028  (no test, though its name begins like one)
    extend: tuple[float, float] = (0.0, 0.0),  # noqa: PT028
) -> v2.Transform:
    """One view of a clip in evaluation; nothing is drawn.

    Args:
        short_side: of the resized frame, in pixels.
        long_side: limit of the longer side, in pixels.
        flip: mirror the clip.
        extend: fractions of width and height that boxes grow by; (0.1, 0.05) for detected ones.
    """
    steps: list[v2.Transform] = [Resize(short_side, long_side)]
    if any(extend):
        steps.append(Extend(extend))
    if flip:
        steps.append(v2.RandomHorizontalFlip(p=1.0))
    return v2.Compose(steps)


test_transform.__test__ = False  # nor shall pytest take it for one


class Resize(v2.Transform):
    """Scale so that the short side is ``short_side``, or the long one ``long_side`` if less."""

    def __init__(self, short_side: int, long_side: int) -> None:
        super().__init__()
        self.short_side, self.long_side = short_side, long_side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The new size, from that of the clip."""
        return {"size": self.size(*v2.query_size(flat_inputs))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply it to the video or to the boxes."""
        return F.resize(inpt, params["size"], antialias=True)

    def size(self, height: int, width: int) -> list[int]:
        """New height and width, each rounded to the nearest pixel."""
        short, long = min(height, width), max(height, width)
        scale = min(self.short_side / short, self.long_side / long)
        return [max(1, round(height * scale)), max(1, round(width * scale))]


class HSVJitter(v2.Transform):
    """Turn the hue, shift saturation and value, all clamped, by one draw a clip (AIA).

    OpenCV's 8-bit HSV: hue in steps of 2 degrees. 8 frames of 64x96 take well under 1 ms.
    """

    _transformed_types = (tv_tensors.Video,)

    def __init__(self, hue: float, saturation: float, value: float) -> None:
        super().__init__()
        self.bounds = (hue / 2, saturation * 255, value * 255)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw once for the whole clip."""
        draws = (torch.rand(3) * 2 - 1).tolist()
        return {"shifts": [round(d * bound) for d, bound in zip(draws, self.bounds, strict=True)]}

    def transform(self, inpt: tv_tensors.Video, params: dict[str, Any]) -> tv_tensors.Video:
        """Apply it to the video."""
        table = _shift_table(*params["shifts"])
        frames_TCHW = inpt.as_subclass(torch.Tensor)
        jittered_TCHW = torch.empty_like(frames_TCHW, memory_format=torch.contiguous_format)
        # frame by frame: what one step puts out is still in the cache for the next
        for planes, jittered in zip(frames_TCHW.numpy(), jittered_TCHW.numpy(), strict=True):
            hsv = cv2.LUT(cv2.cvtColor(cv2.merge(list(planes)), cv2.COLOR_RGB2HSV), table)
            cv2.split(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), list(jittered))
        return tv_tensors.wrap(jittered_TCHW, like=inpt)


class BoxJitter(v2.Transform):
    """Move every side of every box by its own draw, within ``JITTER_OUT`` and ``JITTER_IN``.

    A box keeps at least 0.8 of its width and 0.9 of its height and stays inside the frame.
    """

    _transformed_types = (tv_tensors.BoundingBoxes,)

    def transform(self, inpt: tv_tensors.BoundingBoxes, params: dict[str, Any]) -> Any:
        """Apply it to the boxes."""
        boxes = inpt.as_subclass(torch.Tensor)
        reach = boxes.new_tensor([*JITTER_OUT, *JITTER_OUT]) + boxes.new_tensor([*JITTER_IN] * 2)
        outwards = torch.rand_like(boxes) * reach - boxes.new_tensor([*JITTER_IN] * 2)
        return tv_tensors.wrap(_grown(boxes, outwards, inpt.canvas_size), like=inpt)


class Extend(v2.Transform):
    """Grow boxes by fractions of their width and height, half of it on each side (AIA)."""

    _transformed_types = (tv_tensors.BoundingBoxes,)

    def __init__(self, fractions: tuple[float, float]) -> None:
        super().__init__()
        self.fractions = fractions

    def transform(self, inpt: tv_tensors.BoundingBoxes, params: dict[str, Any]) -> Any:
        """Apply it to the boxes."""
        boxes = inpt.as_subclass(torch.Tensor)
        outwards = boxes.new_tensor([*self.fractions] * 2) / 2
        return tv_tensors.wrap(_grown(boxes, outwards, inpt.canvas_size), like=inpt)


def _grown(
    boxes_N4: torch.Tensor, outwards_N4: torch.Tensor, canvas_size: tuple[int, int]
) -> torch.Tensor:
    """Boxes whose sides move outwards by fractions of their size, cut at the frame's edges."""
    size = (boxes_N4[:, 2:] - boxes_N4[:, :2]).repeat(1, 2)
    sign = boxes_N4.new_tensor([-1.0, -1.0, 1.0, 1.0])
    height, width = canvas_size
    limit = boxes_N4.new_tensor([width, height, width, height])
    return torch.minimum((boxes_N4 + sign * size * outwards_N4).clamp(min=0), limit)


def _shift_table(hue: int, saturation: int, value: int) -> np.ndarray:
    """(1, 256, 3) look-up table: hue wraps at 180, the others are clamped."""
    levels = np.arange(256)
    columns = [(levels + hue) % 180, levels + saturation, levels + value]
    return np.stack(columns, axis=-1).clip(0, 255).astype(np.uint8)[None]

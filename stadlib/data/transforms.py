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


def train_transform(short_side: int, long_side: int) -> v2.Transform:
    """The augmentation of training (paper section 3.1; bounds from AIA)."""
    flip = v2.RandomHorizontalFlip(p=0.5)
    return v2.Compose([Resize(short_side, long_side), BoxJitter(), HSVJitter(), flip])


def test_transform(
    short_side: int,
    long_side: int,
    flip: bool = False,  # noqa: PT028  (no test, though its name begins like one)
    extend: tuple[float, float] = (0.0, 0.0),  # noqa: PT028
) -> v2.Transform:
    """One view of a clip in evaluation; nothing is drawn.

    ``extend``: fractions of width and height that boxes grow by; (0.1, 0.05) for detected ones.
    """
    steps: list[v2.Transform] = [Resize(short_side, long_side)]
    if any(extend):
        steps.append(Extend(extend))
    if flip:
        steps.append(v2.RandomHorizontalFlip(p=1.0))
    return v2.Compose(steps)


test_transform.__test__ = False  # pytest must not take it for a test


class Resize(v2.Transform):
    """Scale so that the short side has ``short_side`` pixels, or the long one ``long_side``.

    The smaller of the two results is taken. Sides are rounded to the nearest pixel.
    """

    def __init__(self, short_side: int, long_side: int) -> None:
        super().__init__()
        self.short_side, self.long_side = short_side, long_side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The new height and width."""
        height, width = v2.query_size(flat_inputs)
        short, long = min(height, width), max(height, width)
        scale = min(self.short_side / short, self.long_side / long)
        return {"size": [max(1, round(height * scale)), max(1, round(width * scale))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize the video or the boxes."""
        return F.resize(inpt, params["size"], antialias=True)


class HSVJitter(v2.Transform):
    """Turn the hue, shift saturation and value, all clamped, by one draw a clip (AIA).

    The bounds are 20 degrees of hue, 0.1 of the full range of the others.
    OpenCV's 8-bit HSV: hue in steps of 2 degrees. 8 frames of 64x96 take well under 1 ms.
    """

    _transformed_types = (tv_tensors.Video,)

    bounds = (20.0 / 2, 0.1 * 255, 0.1 * 255)

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
        frames_TCHW = inpt.as_subclass(torch.Tensor)
        jittered_TCHW = torch.empty_like(frames_TCHW, memory_format=torch.contiguous_format)
        # frame by frame: what one step puts out is still in the cache for the next
        for planes, jittered in zip(frames_TCHW.numpy(), jittered_TCHW.numpy(), strict=True):
            hsv = cv2.LUT(cv2.cvtColor(cv2.merge(list(planes)), cv2.COLOR_RGB2HSV), table)
            cv2.split(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), list(jittered))
        return tv_tensors.wrap(jittered_TCHW, like=inpt)


class Extend(v2.Transform):
    """Grow boxes by fractions of their width and height, half of it on each side (AIA)."""

    _transformed_types = (tv_tensors.BoundingBoxes,)

    def __init__(self, fractions: tuple[float, float]) -> None:
        super().__init__()
        self.fractions = fractions

    def outwards(self, boxes_N4: torch.Tensor) -> torch.Tensor:
        """(N, 4) how far the sides move outwards, as fractions of width and height."""
        return boxes_N4.new_tensor([*self.fractions] * 2) / 2

    def transform(self, inpt: tv_tensors.BoundingBoxes, params: dict[str, Any]) -> Any:
        """Move the sides of the boxes, as far as the edges of the frame."""
        boxes_N4, (height, width) = inpt.as_subclass(torch.Tensor), inpt.canvas_size
        size = (boxes_N4[:, 2:] - boxes_N4[:, :2]).repeat(1, 2)
        sign = boxes_N4.new_tensor([-1.0, -1.0, 1.0, 1.0])
        moved = (boxes_N4 + sign * size * self.outwards(boxes_N4)).clamp(min=0)
        limit = boxes_N4.new_tensor([width, height, width, height])
        return tv_tensors.wrap(torch.minimum(moved, limit), like=inpt)


class BoxJitter(Extend):
    """Move every side by its own draw: outwards by up to 0.2 of the box's width or 0.1 of its
    height, inwards by up to half of that (AIA).
    """

    def __init__(self) -> None:
        super().__init__((0.2, 0.1))

    def outwards(self, boxes_N4: torch.Tensor) -> torch.Tensor:
        """(N, 4) draws, as fractions of width and height."""
        inwards = boxes_N4.new_tensor([0.1, 0.05] * 2)
        reach = boxes_N4.new_tensor([*self.fractions] * 2) + inwards
        return torch.rand_like(boxes_N4) * reach - inwards

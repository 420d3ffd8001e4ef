"""What a batch of clips remembers: the persons of the seconds around them, as tensors.

Legend: B clips, M remembered persons of a clip (padded), L sequences, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Memory(NamedTuple):
    """Remembered persons, padded; always passed, possibly of width 0.

    Attributes:
        tokens_BMLC: what the head's ``tokens()`` gave for them. Slots that the mask leaves out
            may hold anything.
        mask_BM: True where a slot is written.
        seconds_BM: int64, when, relative to the clip: -3 is three seconds before it.
        boxes_BM4: x1, y1, x2, y2 as fractions of the frame.
    """

    tokens_BMLC: Tensor
    mask_BM: Tensor
    seconds_BM: Tensor
    boxes_BM4: Tensor

    def to(self, device: torch.device | str) -> Memory:
        """The same memory with its tensors on ``device``."""
        return Memory(*(tensor.to(device) for tensor in self))


def nobody(num_clips: int, width: int, device: torch.device | None = None) -> Memory:
    """Memory of width 0, for clips that remember nobody; its L is 1, which expands to any."""
    return Memory(
        torch.zeros((num_clips, 0, 1, width), device=device),
        torch.zeros((num_clips, 0), dtype=torch.bool, device=device),
        torch.zeros((num_clips, 0), dtype=torch.int64, device=device),
        torch.zeros((num_clips, 0, 4), device=device),
    )


def gathered(parts: Sequence[tuple[Sequence[int], Memory]], num_clips: int) -> Memory:
    """One memory out of several, each of which belongs to some of the clips.

    Args:
        parts: clips of the batch, and their memory.
        num_clips: B; clips that no part names remember nobody.

    Raises:
        ValueError: no part at all; only a part knows L and C.
    """
    if not parts:
        raise ValueError("no memory to gather; use nobody()")
    width = max(memory.mask_BM.shape[1] for _, memory in parts)
    whole = [tensor.new_zeros(num_clips, width, *tensor.shape[2:]) for tensor in parts[0][1]]
    for clips, memory in parts:
        for tensor, part in zip(whole, memory, strict=True):
            padding = (0, 0) * (part.ndim - 2) + (0, width - part.shape[1])
            tensor[list(clips)] = F.pad(part, padding)
    return Memory(*whole)

"""Ragged persons: every clip has its own number of them; pad to attend, unpad to go on.

Legend: B clips, N persons of the batch (those of clip 0 first), P persons of a clip (padded).
"""

from __future__ import annotations

import torch
from torch import Tensor


def mask(counts_B: Tensor, width: int | None = None) -> Tensor:
    """True where a padded row holds a person: (B, P), P the largest count or ``width``."""
    if width is None:
        width = int(counts_B.max()) if len(counts_B) else 0
    return torch.arange(width, device=counts_B.device) < counts_B[:, None]


def clip_index(counts_B: Tensor) -> Tensor:
    """The clip of every person: (N,), for instance counts (2, 0, 1) give (0, 0, 2)."""
    clips = torch.arange(len(counts_B), device=counts_B.device)
    return torch.repeat_interleave(clips, counts_B)


def pad(x_N: Tensor, counts_B: Tensor) -> tuple[Tensor, Tensor]:
    """Lay the persons of each clip in a row of its own, zeros behind them.

    Args:
        x_N: (N, ...) the persons, clip after clip.
        counts_B: (B,) persons a clip, zeros allowed; their sum is N.

    Returns:
        (B, P, ...) the rows and (B, P) their mask, P the largest count.
    """
    mask_BP = mask(counts_B).to(x_N.device)
    rows = x_N.new_zeros(*mask_BP.shape, *x_N.shape[1:])
    return rows.index_put(mask_BP.nonzero(as_tuple=True), x_N), mask_BP


def unpad(x_BP: Tensor, counts_B: Tensor) -> Tensor:
    """The persons of (B, P, ...) rows without the padding: (N, ...); the inverse of ``pad``."""
    return x_BP[mask(counts_B, x_BP.shape[1]).to(x_BP.device)]

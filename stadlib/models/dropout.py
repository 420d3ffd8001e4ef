"""Dropout that does not notice how a batch is shared among processes and accumulation steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PersonDropout(nn.Dropout):
    """Dropout of persons' features, the noise of a global batch drawn as a whole.

    Each share draws the noise of all persons from the same seed and uses its own rows, so that two
    processes train with the noise of one.

    Attributes:
        rows_N: places of this share's persons among those of the global batch; None: all of them.
        total: persons of the global batch.
    """

    rows_N: Tensor | None = None
    total: int = 0

    def forward(self, x_N: Tensor) -> Tensor:
        """(N, ...) to the same shape."""
        if self.rows_N is None or not self.training:
            return super().forward(x_N)
        noise = F.dropout(x_N.new_ones(self.total, *x_N.shape[1:]), self.p)
        return x_N * noise[self.rows_N.to(x_N.device)]


def set_share(module: nn.Module, rows: tuple[int, ...], total: int) -> None:
    """Tell every dropout of a module which persons of the global batch come next."""
    rows_N = torch.tensor(rows, dtype=torch.int64) if len(rows) < total else None
    for part in module.modules():
        if isinstance(part, PersonDropout):
            part.rows_N, part.total = rows_N, total

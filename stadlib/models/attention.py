"""Attention among persons: those of a clip, and those remembered from the seconds around it.

Legend: B clips, N persons of the batch, P persons of a clip (padded), M remembered, S = P + M,
C channels, L sequences (H*W or T), E attention heads, D = C / E.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stadlib import ragged
from stadlib.remembered import Memory


def open_projection(projection: nn.Linear) -> None:
    """Start the last layer of a residual branch open (Glorot), as DETR's transformer does.

    A branch that starts at zero learns nothing before its last layer has grown: seen on frozen
    mini features, 1,200 iterations, mAP of s-only 27.4 (zero), 28.4 (torch's default), 31.0 (open)
    and of t-only 32.0, 32.6, 34.8, where linear has 25.8; one run each.
    """
    nn.init.xavier_uniform_(projection.weight)
    nn.init.zeros_(projection.bias)


class Others(NamedTuple):
    """The remembered persons as the attention reads them.

    Attributes:
        tokens_BMLC: normalised tokens; M may be 0.
        mask_BM: True where they are written.
        bias_BEPM: added to the scores of persons on them; sizes of 1 expand.
    """

    tokens_BMLC: Tensor
    mask_BM: Tensor
    bias_BEPM: Tensor


class PersonAttention(nn.Module):
    """Persons attend to the persons of their clip and to the remembered ones, L times over."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        open_projection(self.output)

    def forward(self, x_NLC: Tensor, counts_B: Tensor, others: Others) -> Tensor:
        """What each of the persons, whose numbers a clip are ``counts_B``, gathers, (N, L, C)."""
        query, key, value, bias = self._project(x_NLC, counts_B, others)
        gathered = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        gathered = gathered.unflatten(1, (-1, self.num_heads)).permute(0, 3, 1, 2, 4).flatten(3)
        return self.output(ragged.unpad(gathered, counts_B))

    def weights(self, x_NLC: Tensor, counts_B: Tensor, others: Others) -> Tensor:
        """How much each person looks at whom: (N, L, E, S), rows sum to 1."""
        query, key, _, bias = self._project(x_NLC, counts_B, others)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = (scores + bias).softmax(dim=-1)
        weights = weights.unflatten(1, (-1, self.num_heads)).permute(0, 3, 1, 2, 4)
        return ragged.unpad(weights, counts_B)

    def _project(
        self, x_NLC: Tensor, counts_B: Tensor, others: Others
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query (B, L*E, P, D), key and value (B, L*E, S, D), and what to add to the scores."""
        # Projections run on the N persons; only the attention itself needs padded rows.
        query, mask_BP = ragged.pad(self.query(x_NLC), counts_B)
        persons, _ = ragged.pad(self.key_value(x_NLC), counts_B)
        # Empty memory knows no L (a size of 1 expands to any); written memory has the head's.
        remembered = self.key_value(others.tokens_BMLC).expand(-1, -1, x_NLC.shape[1], -1)
        key, value = torch.cat((persons, remembered), dim=1).chunk(2, dim=-1)
        mask_BS = torch.cat((mask_BP, others.mask_BM), dim=1)
        # A clip without anybody looks at zeros: a softmax over nothing would be NaN.
        mask_BS = mask_BS | ~mask_BS.any(dim=1, keepdim=True)
        hidden_BS = torch.zeros_like(mask_BS, dtype=x_NLC.dtype).masked_fill(~mask_BS, -math.inf)
        bias = self._over_sequences(hidden_BS, others.bias_BEPM, x_NLC.shape[1])
        return *map(self._split_heads, (query, key, value)), bias

    def _over_sequences(self, hidden_BS: Tensor, bias_BEPM: Tensor, L: int) -> Tensor:
        """(B, L*E, P, S), or (B, 1, 1, S) if the bias is one number a remembered person."""
        bias = F.pad(bias_BEPM, (hidden_BS.shape[1] - bias_BEPM.shape[-1], 0))
        bias = bias + hidden_BS[:, None, None]
        return bias if bias.shape[1] == 1 else bias[:, None].expand(-1, L, -1, -1, -1).flatten(1, 2)

    def _split_heads(self, x_BSLC: Tensor) -> Tensor:
        heads_BSLED = x_BSLC.unflatten(-1, (self.num_heads, -1))
        return heads_BSLED.permute(0, 2, 3, 1, 4).flatten(1, 2)


class Recall(nn.Module):
    """When and where the remembered persons were, told to the attention.

    A learned embedding of the relative second is added to a remembered token. A bias on the scores
    lets a head look for the same person, or for the recent past: it falls with the distance in time
    at a learned slope, a different one for each head to begin with (ALiBi, Press et al. 2022), and
    a small network of relative geometry adds to it (Hu et al. 2018, "Relation networks"). Both
    start so that the persons of the clip are not drowned by the many remembered ones.

    Seen on frozen mini features, 3,000 iterations, one run each, mAP on A+K: 46.9 with nothing
    remembered, 46.8 with memory alone, 46.7 with the embedding, 48.1 with the bias that falls with
    time as well, 51.2 with geometry (``tests/benchmarks/bench_recall.py``).

    Args:
        width: channels of the tokens.
        num_heads: of the attention.
        span: seconds to each side that memory reaches.
    """

    def __init__(self, width: int, num_heads: int, span: int, hidden: int = 32) -> None:
        super().__init__()
        self.span = span
        self.time = nn.Embedding(2 * span + 1, width)
        nn.init.zeros_(self.time.weight)
        self.slope = nn.Parameter(0.8 * 2.0 ** -torch.arange(num_heads, dtype=torch.float32))
        self.level = nn.Parameter(torch.full((num_heads,), -2.0))
        self.geometry = nn.Sequential(
            nn.Linear(8, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, num_heads)
        )
        nn.init.zeros_(self.geometry[-1].weight)
        nn.init.zeros_(self.geometry[-1].bias)

    def embedding(self, seconds_BM: Tensor) -> Tensor:
        """What is added to the tokens, (B, M, 1, C)."""
        return self.time(seconds_BM + self.span)[:, :, None]

    def bias(self, boxes_N4: Tensor, counts_B: Tensor, memory: Memory) -> Tensor:
        """What is added to the scores, (B, E, P, M)."""
        boxes_BP4, _ = ragged.pad(boxes_N4, counts_B)
        seconds_BM = memory.seconds_BM.to(boxes_N4.dtype)
        learned = self.geometry(relative(boxes_BP4, memory.boxes_BM4, seconds_BM))
        fall_BEM = self.level[:, None] - self.slope.abs()[:, None] * seconds_BM[:, None].abs()
        return learned.permute(0, 3, 1, 2) + fall_BEM[:, :, None]


def relative(boxes_BP4: Tensor, others_BM4: Tensor, seconds_BM: Tensor) -> Tensor:
    """Eight numbers on how one box lies to another and when, (B, P, M, 8), all of order one.

    Offsets of the centres in units of the own size (signed, and the sideways one without sign),
    logarithms of the ratios of sizes, IoU, and the seconds between, signed and without sign.
    """
    own_low, own_high = boxes_BP4[:, :, None].split(2, dim=-1)
    low, high = others_BM4[:, None].split(2, dim=-1)
    own_size, size = ((b - a).clamp(min=0.01) for a, b in ((own_low, own_high), (low, high)))
    offset = ((low + high - own_low - own_high) / (2 * own_size)).clamp(-4, 4)
    ratio = torch.log(size / own_size)
    inter = (torch.minimum(own_high, high) - torch.maximum(own_low, low)).clamp(min=0).prod(dim=-1)
    iou = inter / (own_size.prod(dim=-1) + size.prod(dim=-1) - inter)
    seconds = seconds_BM[:, None, :, None].expand(*iou.shape, 1) / 10
    parts = (offset, offset[..., :1].abs(), ratio, iou[..., None], seconds, seconds.abs())
    return torch.cat(parts, dim=-1)

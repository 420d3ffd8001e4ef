"""The heads that score actions: linear, s-only and t-only, and memory (paper 2.2 and 2.3).

A head turns the features of each person into tokens, which a memory bank stores, and tokens into
logits. The file reads from the memory to the heads, then down to attention, bias and dropout.

Legend: B clips, N persons of the batch (those of clip 0 first), P persons of a clip (padded),
M remembered persons of a clip (padded), S = P + M, L sequences (T or H*W), C channels, T time,
H, W, E attention heads, D = C / E, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stadlib.models.roi_fusion import Places, to_device

DROPOUT = 0.2
PRIOR = 0.05  # probability of an action before training
FFN_RATIO = 4  # width of the feed-forward layer, in widths of the tokens


class MemoryTokens(NamedTuple):
    """Persons remembered from the seconds around a clip; always passed, possibly of width 0."""

    tokens_BMLC: Tensor  # the head's tokens() of them; anything in slots outside the mask
    mask_BM: Tensor  # True where a slot is written
    seconds_BM: Tensor  # int64, relative to the clip: -3 is three seconds before it
    boxes_BM4: Tensor  # x1, y1, x2, y2 as fractions of the frame

    def to(self, device: torch.device | str) -> MemoryTokens:
        """Move every tensor to ``device``."""
        return MemoryTokens(*(to_device(tensor, device) for tensor in self))


def no_memory(num_clips: int, width: int, device: torch.device | None = None) -> MemoryTokens:
    """Memory of width 0 (M = 0); its L is 1, which expands to any."""
    return MemoryTokens(
        torch.zeros((num_clips, 0, 1, width), device=device),
        torch.zeros((num_clips, 0), dtype=torch.bool, device=device),
        torch.zeros((num_clips, 0), dtype=torch.int64, device=device),
        torch.zeros((num_clips, 0, 4), device=device),
    )


def gathered(parts: Sequence[tuple[Sequence[int], MemoryTokens]], num_clips: int) -> MemoryTokens:
    """Join memories of parts of a batch, given with their clips' indices; other clips get none."""
    width = max(memory.mask_BM.shape[1] for _, memory in parts)
    whole = [tensor.new_zeros(num_clips, width, *tensor.shape[2:]) for tensor in parts[0][1]]
    for clips, memory in parts:
        for tensor, part in zip(whole, memory, strict=True):
            padding = (0, 0) * (part.ndim - 2) + (0, width - part.shape[1])
            tensor[list(clips)] = F.pad(part, padding)
    return MemoryTokens(*whole)


class LinearHead(nn.Module):
    """Pool over time and space, then a fully connected layer: the paper's baseline.

    The field's linear heads (SlowFast, AlphAction) take the mean over time and the maximum over
    space. ``spatial="mean"`` takes the mean over both.
    """

    def __init__(
        self, width: int, num_actions: int, spatial: Literal["max", "mean"] = "max"
    ) -> None:
        super().__init__()
        self.spatial = {"mean": torch.mean, "max": torch.amax}[spatial]
        self.dropout = PersonDropout(DROPOUT)
        self.classifier = _classifier(width, num_actions)

    def tokens(self, features_NCTHW: Tensor) -> Tensor:
        """One token a person, (N, 1, C)."""
        return self.spatial(features_NCTHW.mean(dim=2), dim=(2, 3))[:, None]

    def forward(self, tokens_NLC: Tensor, *_: object) -> Tensor:
        """Logits (N, A) from each person's token alone; takes what a relation head takes."""
        return self.classifier(self.dropout(tokens_NLC.mean(dim=1)))


class RelationHead(nn.Module):
    """People attend to people, place by place or moment by moment (paper section 2.2).

    Features are aggregated over the axes in ``average``, which leaves L tokens a person:
    ``("H", "W")`` gives t-only, L = T; ``("T",)`` gives s-only, L = H*W. The l-th tokens of the
    persons of a clip form the l-th sequence. One pre-norm transformer encoder layer is shared by
    all L sequences; its outputs are averaged and classified. Remembered persons are keys and
    values only, as they are (paper section 2.3) or with a ``recall`` of when and where they were.
    """

    def __init__(
        self,
        width: int,
        num_actions: int,
        average: tuple[Literal["T", "H", "W"], ...],
        aggregate: Literal["mean", "max"] = "mean",  # the paper's agg
        *,
        recall: Recall | None = None,
        num_heads: int = 8,
    ) -> None:
        super().__init__()
        self.dimensions = tuple("NCTHW".index(axis) for axis in average)
        self.aggregate = {"mean": torch.mean, "max": torch.amax}[aggregate]
        self.attention_norm = nn.LayerNorm(width)
        self.attention = PersonAttention(width, num_heads)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, FFN_RATIO * width),
            nn.ReLU(inplace=True),
            _open(nn.Linear(FFN_RATIO * width, width)),
        )
        self.dropout = PersonDropout(DROPOUT)
        self.classifier = _classifier(width, num_actions)
        self.recall = recall

    def tokens(self, features_NCTHW: Tensor) -> Tensor:
        """Features aggregated over all axes but their sequences', (N, L, C)."""
        features_NCL = self.aggregate(features_NCTHW, dim=self.dimensions).flatten(2)
        return features_NCL.transpose(1, 2)

    def forward(
        self, tokens_NLC: Tensor, boxes_N4: Tensor, places: Places, memory: MemoryTokens
    ) -> Tensor:
        """Logits (N, A) of every person's actions.

        ``boxes_N4`` are x1, y1, x2, y2 as fractions of the frame. ``places`` tell which persons
        share a clip.
        """
        x = tokens_NLC  # (N, L, C)
        others = self._others(boxes_N4, places, memory)
        # The encoder layer: in every sequence the persons attend to each other and to memory.
        x = x + self.dropout(self.attention(self.attention_norm(x), places, others))  # (N, L, C)
        # Then every token passes the feed-forward layer.
        x = x + self.dropout(self.ffn(self.ffn_norm(x)))  # (N, L, C)
        # The mean over the sequences is the representation of the person.
        return self.classifier(self.dropout(x.mean(dim=1)))  # (N, A)

    def _others(self, boxes_N4: Tensor, places: Places, memory: MemoryTokens) -> Others:
        """The remembered persons as the attention reads them."""
        tokens_BMLC, mask_BM, seconds_BM, boxes_BM4 = memory
        # Unwritten slots may hold NaN or infinity, which a weight of 0 would not remove.
        unwritten_BM = ~mask_BM
        tokens_BMLC = tokens_BMLC.masked_fill(unwritten_BM[:, :, None, None], 0.0)
        seconds_BM = seconds_BM.masked_fill(unwritten_BM, 0)
        boxes_BM4 = boxes_BM4.masked_fill(unwritten_BM[..., None], 0.0)
        # They pass the norm of the clip's persons.
        tokens_BMLC = self.attention_norm(tokens_BMLC)
        bias = tokens_BMLC.new_zeros(len(mask_BM), 1, 1, mask_BM.shape[1])
        if self.recall is not None:
            tokens_BMLC = tokens_BMLC + self.recall.embedding(seconds_BM)
            bias = bias + self.recall.bias(boxes_N4, places, seconds_BM, boxes_BM4)
        return tokens_BMLC, mask_BM, bias


Head = LinearHead | RelationHead
Others = tuple[Tensor, Tensor, Tensor]
"""Remembered persons: tokens (B, M, L, C), mask (B, M), bias (B, E or 1, P or 1, M)."""


class PersonAttention(nn.Module):
    """People attend to the people of their clip and to remembered ones, in L sequences at once.

        attention(Q, K, V) = softmax(Q K^T / sqrt(D) + bias) V

    The P persons of the clip have queries; they and the M remembered ones have keys and values.
    The bias hides empty slots and is :class:`Recall`'s on remembered persons.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = _open(nn.Linear(width, width))

    def forward(self, x_NLC: Tensor, places: Places, others: Others) -> Tensor:
        """What each person gathers from the others, (N, L, C)."""
        query, key, value, bias = self._project(x_NLC, places, others)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)  # (B, L*E, P, D)
        return self.output(self._unpad(x, places).flatten(2))

    def weights(self, x_NLC: Tensor, places: Places, others: Others) -> Tensor:
        """The softmax of :meth:`forward`, (N, L, E, S): first the P, then the M."""
        query, key, _, bias = self._project(x_NLC, places, others)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, L*E, P, S)
        return self._unpad((scores + bias).softmax(dim=-1), places)

    def _project(self, x_NLC: Tensor, places: Places, others: Others) -> tuple[Tensor, ...]:
        """Query (B, L*E, P, D), key and value (B, L*E, S, D), bias (B, L*E or 1, P or 1, S)."""
        memory_BMLC, mask_BM, bias_BEPM = others
        L = x_NLC.shape[1]
        # Project the N persons, then pad the clips to rows of P.
        query = places.pad(self.query(x_NLC))  # (B, P, L, C)
        persons = places.pad(self.key_value(x_NLC))  # (B, P, L, 2C)
        # Memory of width 0 has L = 1; written memory has the head's L.
        remembered = self.key_value(memory_BMLC).expand(-1, -1, L, -1)  # (B, M, L, 2C)
        key, value = torch.cat((persons, remembered), dim=1).chunk(2, dim=-1)  # (B, S, L, C)
        # Hide empty slots. A clip without any person attends to zeros, since a softmax over
        # nothing is NaN.
        mask_BS = torch.cat((places.mask_BP, mask_BM), dim=1)
        mask_BS = mask_BS | ~mask_BS.any(dim=1, keepdim=True)
        hidden_BS = torch.zeros_like(mask_BS, dtype=x_NLC.dtype).masked_fill(~mask_BS, -math.inf)
        bias = (
            F.pad(bias_BEPM, (places.mask_BP.shape[1], 0)) + hidden_BS[:, None, None]
        )  # (B, E, P, S)
        if bias.shape[1] > 1:  # a bias of its own for every attention head, in all L sequences
            bias = bias[:, None].expand(-1, L, -1, -1, -1).flatten(1, 2)  # (B, L*E, P, S)
        # Sequences and attention heads are one batch dimension.
        heads = [x.unflatten(-1, (self.num_heads, -1)) for x in (query, key, value)]
        query, key, value = (x.permute(0, 2, 3, 1, 4).flatten(1, 2) for x in heads)
        return query, key, value, bias

    def _unpad(self, x: Tensor, places: Places) -> Tensor:
        """(B, L*E, P, X) to (N, L, E, X)."""
        return places.unpad(x.unflatten(1, (-1, self.num_heads)).permute(0, 3, 1, 2, 4))


class Recall(nn.Module):
    """When and where remembered persons were, for the attention; the paper has nothing like it.

    An embedding of the relative second is added to a remembered token, and with ``geometry`` to the
    scores

        bias = level - |slope| |seconds| + geometry(both boxes, seconds)

    with which an attention head can look for the same person or for the recent past. The fall with
    time is ALiBi's (Press et al. 2022), the geometry that of relation networks (Hu et al. 2018).
    Both start low: many remembered persons must not drown those of the clip. ``span`` is the
    seconds to each side that memory reaches.
    """

    def __init__(self, width: int, span: int, geometry: bool = True, num_heads: int = 8) -> None:
        super().__init__()
        self.span = span
        self.time = nn.Embedding(2 * span + 1, width)
        nn.init.zeros_(self.time.weight)
        self.geometry = None
        if not geometry:
            return
        self.slope = nn.Parameter(0.8 * 2.0 ** -torch.arange(num_heads, dtype=torch.float32))
        self.level = nn.Parameter(torch.full((num_heads,), -2.0))
        self.geometry = nn.Sequential(
            nn.Linear(8, 32), nn.ReLU(inplace=True), nn.Linear(32, num_heads)
        )
        nn.init.zeros_(self.geometry[-1].weight)
        nn.init.zeros_(self.geometry[-1].bias)

    def embedding(self, seconds_BM: Tensor) -> Tensor:
        """What is added to the remembered tokens, (B, M, 1, C)."""
        return self.time(seconds_BM + self.span)[:, :, None]

    def bias(
        self, boxes_N4: Tensor, places: Places, seconds_BM: Tensor, boxes_BM4: Tensor
    ) -> Tensor:
        """What is added to the attention's scores, (B, E, P, M); without geometry one zero."""
        if self.geometry is None:
            return boxes_N4.new_zeros(1, 1, 1, 1)
        boxes_BP4 = places.pad(boxes_N4)
        seconds_BM = seconds_BM.to(boxes_N4.dtype)
        learned = self.geometry(_relative(boxes_BP4, boxes_BM4, seconds_BM))  # (B, P, M, E)
        fall_BEM = self.level[:, None] - self.slope.abs()[:, None] * seconds_BM[:, None].abs()
        return learned.permute(0, 3, 1, 2) + fall_BEM[:, :, None]


def _relative(boxes_BP4: Tensor, others_BM4: Tensor, seconds_BM: Tensor) -> Tensor:
    """Eight numbers of order one on how a remembered box lies to a box, (B, P, M, 8)."""
    low, high = boxes_BP4[:, :, None].split(2, dim=-1)  # (B, P, 1, 2)
    other_low, other_high = others_BM4[:, None].split(2, dim=-1)  # (B, 1, M, 2)
    size = (high - low).clamp(min=0.01)
    other_size = (other_high - other_low).clamp(min=0.01)
    # Offset of the centres in units of the box, and the logarithm of the ratio of sizes.
    offset = ((other_low + other_high - low - high) / (2 * size)).clamp(-4, 4)  # (B, P, M, 2)
    ratio = torch.log(other_size / size)  # (B, P, M, 2)
    # IoU, and the seconds between.
    inter = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0)
    inter = inter.prod(dim=-1)
    iou = inter / (size.prod(dim=-1) + other_size.prod(dim=-1) - inter)  # (B, P, M)
    seconds = seconds_BM[:, None, :, None].expand(*iou.shape, 1) / 10
    parts = (offset, offset[..., :1].abs(), ratio, iou[..., None], seconds, seconds.abs())
    return torch.cat(parts, dim=-1)


class PersonDropout(nn.Dropout):
    """Dropout of persons' features that does not depend on how a batch is shared.

    Every process draws the noise of the whole global batch and uses the rows of its persons.
    """

    rows_N: Tensor | None = None  # of these persons in the global batch; None: all of them
    total: int = 0  # persons of the global batch

    def forward(self, x_N: Tensor) -> Tensor:
        """(N, ...) to the same shape."""
        if self.rows_N is None or not self.training:
            return super().forward(x_N)
        noise = F.dropout(x_N.new_ones(self.total, *x_N.shape[1:]), self.p)
        return x_N * noise[to_device(self.rows_N, x_N.device)]


def set_share(module: nn.Module, rows: tuple[int, ...], total: int) -> None:
    """Set which persons of the global batch every dropout of a module gets next."""
    rows_N = torch.tensor(rows, dtype=torch.int64) if len(rows) < total else None
    for part in module.modules():
        if isinstance(part, PersonDropout):
            part.rows_N, part.total = rows_N, total


def _classifier(width: int, num_actions: int) -> nn.Linear:
    """A linear layer that starts by calling every action rare (RetinaNet, section 4.1)."""
    classifier = nn.Linear(width, num_actions)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.constant_(classifier.bias, math.log(PRIOR / (1 - PRIOR)))
    return classifier


def _open(projection: nn.Linear) -> nn.Linear:
    """Start the last layer of a residual branch open (Glorot), as DETR's transformer does.

    mAP of s-only on frozen mini features, 1,200 iterations, one run each: 27.4 started at zero,
    28.4 with torch's default, 31.0 open; t-only 32.0, 32.6, 34.8; linear 25.8.
    """
    nn.init.xavier_uniform_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection

"""What a batch of clips remembers: the persons of the seconds around them, as tensors.

Legend: B clips, M remembered persons of a clip (padded), L sequences, C channels.

Dropout that does not notice how a batch is shared among processes and accumulation steps.

Attention among persons: those of a clip, and those remembered from the seconds around it.

Legend: B clips, N persons of the batch, P persons of a clip (padded), M remembered, S = P + M,
C channels, L sequences (H*W or T), E attention heads, D = C / E.

The heads that score actions: linear, s-only, t-only.

Legend: B clips, N persons of the batch, P persons of a clip (padded), M remembered, S = P + M,
C channels, T time, H, W, L sequences (H*W or T), A actions, E attention heads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stadlib.models import roi_fusion


class MemoryTokens(NamedTuple):
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

    def to(self, device: torch.device | str) -> MemoryTokens:
        """The same memory with its tensors on ``device``."""
        return MemoryTokens(*(tensor.to(device) for tensor in self))


def no_memory(num_clips: int, width: int, device: torch.device | None = None) -> MemoryTokens:
    """Memory of width 0, for clips that remember nobody; its L is 1, which expands to any."""
    return MemoryTokens(
        torch.zeros((num_clips, 0, 1, width), device=device),
        torch.zeros((num_clips, 0), dtype=torch.bool, device=device),
        torch.zeros((num_clips, 0), dtype=torch.int64, device=device),
        torch.zeros((num_clips, 0, 4), device=device),
    )


def gathered(parts: Sequence[tuple[Sequence[int], MemoryTokens]], num_clips: int) -> MemoryTokens:
    """One memory out of several, each of which belongs to some of the clips.

    Args:
        parts: clips of the batch, and their memory.
        num_clips: B; clips that no part names remember nobody.

    Raises:
        ValueError: no part at all; only a part knows L and C.
    """
    if not parts:
        raise ValueError("no memory to gather; use no_memory()")
    width = max(memory.mask_BM.shape[1] for _, memory in parts)
    whole = [tensor.new_zeros(num_clips, width, *tensor.shape[2:]) for tensor in parts[0][1]]
    for clips, memory in parts:
        for tensor, part in zip(whole, memory, strict=True):
            padding = (0, 0) * (part.ndim - 2) + (0, width - part.shape[1])
            tensor[list(clips)] = F.pad(part, padding)
    return MemoryTokens(*whole)


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
        return self.output(roi_fusion.unpad(gathered, counts_B))

    def weights(self, x_NLC: Tensor, counts_B: Tensor, others: Others) -> Tensor:
        """How much each person looks at whom: (N, L, E, S), rows sum to 1."""
        query, key, _, bias = self._project(x_NLC, counts_B, others)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = (scores + bias).softmax(dim=-1)
        weights = weights.unflatten(1, (-1, self.num_heads)).permute(0, 3, 1, 2, 4)
        return roi_fusion.unpad(weights, counts_B)

    def _project(
        self, x_NLC: Tensor, counts_B: Tensor, others: Others
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query (B, L*E, P, D), key and value (B, L*E, S, D), and what to add to the scores."""
        # Projections run on the N persons; only the attention itself needs padded rows.
        query, mask_BP = roi_fusion.pad(self.query(x_NLC), counts_B)
        persons, _ = roi_fusion.pad(self.key_value(x_NLC), counts_B)
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

    def bias(self, boxes_N4: Tensor, counts_B: Tensor, memory: MemoryTokens) -> Tensor:
        """What is added to the scores, (B, E, P, M)."""
        boxes_BP4, _ = roi_fusion.pad(boxes_N4, counts_B)
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


Axis = Literal["T", "H", "W"]
_DIMENSION: dict[str, int] = {"T": 2, "H": 3, "W": 4}


def _classifier(width: int, num_actions: int, prior: float) -> nn.Linear:
    """A linear layer that starts by calling every action rare (RetinaNet, section 4.1)."""
    classifier = nn.Linear(width, num_actions)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.constant_(classifier.bias, math.log(prior / (1 - prior)))
    return classifier


class Head(nn.Module, ABC):
    """Fused features to tokens, tokens to logits: a memory bank stores what is between."""

    @abstractmethod
    def tokens(self, features_NCTHW: Tensor) -> Tensor:
        """What the head reads of each person, and all that a memory need store: (N, L, C)."""

    @abstractmethod
    def forward(
        self, tokens_NLC: Tensor, boxes_N4: Tensor, counts_B: Tensor, memory: MemoryTokens
    ) -> Tensor:
        """Score the actions of every person.

        Args:
            tokens_NLC: of the persons, those of clip 0 first.
            boxes_N4: x1, y1, x2, y2 as fractions of the frame, as the memory's boxes are.
            counts_B: persons a clip; their sum is N.
            memory: of the clips; its width may be 0 (:func:`stadlib.models.heads.no_memory`).

        Returns:
            (N, A) logits.
        """


class LinearHead(Head):
    """Average over time and space, then a fully connected layer: the paper's baseline."""

    def __init__(
        self, width: int, num_actions: int, dropout: float = 0.2, prior: float = 0.05
    ) -> None:
        super().__init__()
        self.dropout = PersonDropout(dropout)
        self.classifier = _classifier(width, num_actions, prior)

    def tokens(self, features_NCTHW: Tensor) -> Tensor:
        """One token a person: (N, 1, C)."""
        return features_NCTHW.mean(dim=(2, 3, 4))[:, None]

    def forward(
        self, tokens_NLC: Tensor, boxes_N4: Tensor, counts_B: Tensor, memory: MemoryTokens
    ) -> Tensor:
        """Logits (N, A); other persons and memory are not looked at."""
        return self.classifier(self.dropout(tokens_NLC.mean(dim=1)))


class RelationHead(Head):
    """Persons attend to persons, place by place or moment by moment (paper section 2.2).

    Every person's features are aggregated over ``average`` into L tokens. Each of the L
    sequences over the persons of a clip, and over those remembered, goes through the same
    pre-norm transformer encoder layer; its outputs are averaged and classified. Queries are
    only the clip's persons, since nobody reads the outputs of remembered ones.

    Args:
        width: channels of the features, divisible by ``num_heads``.
        num_actions: number of logits.
        average: ``("H", "W")`` gives t-only, L = T; ``("T",)`` gives s-only, L = H*W.
        aggregate: the paper's agg, "mean" or "max".
        span: seconds to each side that memory reaches; 0 for a head that never remembers.
        num_heads: attention heads.
        ffn_ratio: width of the feed-forward layer over ``width``.
        dropout: on both residual branches and before the classifier.
        prior: probability of an action before training.
    """

    def __init__(
        self,
        width: int,
        num_actions: int,
        average: tuple[Axis, ...],
        aggregate: Literal["mean", "max"] = "mean",
        *,
        span: int = 0,
        num_heads: int = 8,
        ffn_ratio: int = 4,
        dropout: float = 0.2,
        prior: float = 0.05,
    ) -> None:
        super().__init__()
        self.dimensions = tuple(_DIMENSION[axis] for axis in average)
        self.aggregate = {"mean": torch.mean, "max": torch.amax}[aggregate]
        self.attention_norm = nn.LayerNorm(width)
        self.attention = PersonAttention(width, num_heads)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, ffn_ratio * width),
            nn.ReLU(inplace=True),
            nn.Linear(ffn_ratio * width, width),
        )
        open_projection(self.ffn[-1])
        self.dropout = PersonDropout(dropout)
        self.classifier = _classifier(width, num_actions, prior)
        self.recall = Recall(width, num_heads, span) if span else None

    def tokens(self, features_NCTHW: Tensor) -> Tensor:
        """Features averaged over all but their sequences: (N, L, C)."""
        return self.aggregate(features_NCTHW, dim=self.dimensions).flatten(2).transpose(1, 2)

    def forward(
        self, tokens_NLC: Tensor, boxes_N4: Tensor, counts_B: Tensor, memory: MemoryTokens
    ) -> Tensor:
        """Logits (N, A): one encoder layer, the mean over the sequences, the classifier."""
        x_NLC = tokens_NLC
        others = self._others(boxes_N4, counts_B, memory)
        x_NLC = x_NLC + self.dropout(self.attention(self.attention_norm(x_NLC), counts_B, others))
        x_NLC = x_NLC + self.dropout(self.ffn(self.ffn_norm(x_NLC)))
        return self.classifier(self.dropout(x_NLC.mean(dim=1)))

    def attention_weights(
        self, tokens_NLC: Tensor, boxes_N4: Tensor, counts_B: Tensor, memory: MemoryTokens
    ) -> Tensor:
        """How much each person looks at whom, (N, L, E, S): first the P persons, then M."""
        others = self._others(boxes_N4, counts_B, memory)
        return self.attention.weights(self.attention_norm(tokens_NLC), counts_B, others)

    def _others(self, boxes_N4: Tensor, counts_B: Tensor, memory: MemoryTokens) -> Others:
        """The remembered, clean of what was never written, told when and where they were."""
        mask_BM = memory.mask_BM
        # Unwritten slots may hold anything; zeros keep NaN and infinity out of 0 * value.
        tokens = self.attention_norm(
            memory.tokens_BMLC.masked_fill(~mask_BM[:, :, None, None], 0.0)
        )
        if self.recall is None:
            no_bias = tokens.new_zeros(len(counts_B), 1, 1, mask_BM.shape[1])
            return Others(tokens, mask_BM, no_bias)
        memory = memory._replace(
            seconds_BM=memory.seconds_BM.masked_fill(~mask_BM, 0),
            boxes_BM4=memory.boxes_BM4.masked_fill(~mask_BM[..., None], 0.0),
        )
        tokens = tokens + self.recall.embedding(memory.seconds_BM)
        return Others(tokens, mask_BM, self.recall.bias(boxes_N4, counts_B, memory))

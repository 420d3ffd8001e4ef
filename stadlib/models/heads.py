"""The heads that score actions: linear, s-only, t-only.

Legend: B clips, N persons of the batch, P persons of a clip (padded), M remembered, S = P + M,
C channels, T time, H, W, L sequences (H*W or T), A actions, E attention heads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from stadlib.models.attention import Others, PersonAttention, Recall, open_projection
from stadlib.models.dropout import PersonDropout
from stadlib.remembered import Memory

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
        self, tokens_NLC: Tensor, boxes_N4: Tensor, counts_B: Tensor, memory: Memory
    ) -> Tensor:
        """Score the actions of every person.

        Args:
            tokens_NLC: of the persons, those of clip 0 first.
            boxes_N4: x1, y1, x2, y2 as fractions of the frame, as the memory's boxes are.
            counts_B: persons a clip; their sum is N.
            memory: of the clips; its width may be 0 (:func:`stadlib.remembered.nobody`).

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
        self, tokens_NLC: Tensor, boxes_N4: Tensor, counts_B: Tensor, memory: Memory
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
        self, tokens_NLC: Tensor, boxes_N4: Tensor, counts_B: Tensor, memory: Memory
    ) -> Tensor:
        """Logits (N, A): one encoder layer, the mean over the sequences, the classifier."""
        x_NLC = tokens_NLC
        others = self._others(boxes_N4, counts_B, memory)
        x_NLC = x_NLC + self.dropout(self.attention(self.attention_norm(x_NLC), counts_B, others))
        x_NLC = x_NLC + self.dropout(self.ffn(self.ffn_norm(x_NLC)))
        return self.classifier(self.dropout(x_NLC.mean(dim=1)))

    def attention_weights(
        self, tokens_NLC: Tensor, boxes_N4: Tensor, counts_B: Tensor, memory: Memory
    ) -> Tensor:
        """How much each person looks at whom, (N, L, E, S): first the P persons, then M."""
        others = self._others(boxes_N4, counts_B, memory)
        return self.attention.weights(self.attention_norm(tokens_NLC), counts_B, others)

    def _others(self, boxes_N4: Tensor, counts_B: Tensor, memory: Memory) -> Others:
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

"""Fusion with the scene, and the heads that score actions: linear, s-only, t-only.

Legend: B clips, N persons of the batch, P persons of a clip (padded), M remembered, S = P + M,
C channels, T time, H, W, L sequences (H*W or T), A actions, E attention heads, D = C / E.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stadlib import ragged

Axis = Literal["T", "H", "W"]
_DIMENSION: dict[str, int] = {"T": 2, "H": 3, "W": 4}


def empty_memory(
    num_clips: int, width: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Memory of width 0, for clips that remember nobody: (B, 0, 1, C) and its mask (B, 0)."""
    memory_BMLC = torch.zeros((num_clips, 0, 1, width), device=device)
    return memory_BMLC, torch.zeros((num_clips, 0), dtype=torch.bool, device=device)


def _classifier(width: int, num_actions: int, prior: float) -> nn.Linear:
    """A linear layer that starts by calling every action rare (RetinaNet, section 4.1)."""
    classifier = nn.Linear(width, num_actions)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.constant_(classifier.bias, math.log(prior / (1 - prior)))
    return classifier


def _open(projection: nn.Linear) -> None:
    """Start the last layer of a residual branch open (Glorot), as DETR's transformer does.

    A branch that starts at zero learns nothing before its last layer has grown: seen on frozen
    mini features, 1,200 iterations, mAP of s-only 27.4 (zero), 28.4 (torch's default), 31.0 (open)
    and of t-only 32.0, 32.6, 34.8, where linear has 25.8; one run each.
    """
    nn.init.xavier_uniform_(projection.weight)
    nn.init.zeros_(projection.bias)


class Fusion(nn.Module):
    """Person and scene: channel-wise concatenation, then convolution (paper section 2.1).

    A 1x1x1 convolution of a concatenation is the sum of two convolutions, and each half is
    computed where it is cheapest. The person's half goes before RoIAlign, which is linear and
    treats channels alike, so that RoIAlign cuts ``width`` channels instead of 2304. The scene's
    half is averaged down to the person's grid, kept in time, and computed once a clip.
    The norm looks at one person alone: nobody's features depend on who else is there.

    Args:
        in_channels: channels of the backbone's map.
        width: channels of the fused features; divisible by ``num_groups``.
        num_groups: groups of the group norm.
    """

    def __init__(self, in_channels: int, width: int, num_groups: int = 8) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Conv3d(in_channels, width, kernel_size=1, bias=False)
        self.scene = nn.Conv3d(in_channels, width, kernel_size=1)
        self.norm = nn.GroupNorm(num_groups, width)

    def forward(self, persons_NCTHW: Tensor, scene_BCTHW: Tensor, counts_B: Tensor) -> Tensor:
        """Fuse persons with their clips' maps.

        Args:
            persons_NCTHW: RoIs (N, width, T, h, w) of ``project(scene_BCTHW)``.
            scene_BCTHW: the backbone's map, (B, in_channels, T, H, W).
            counts_B: persons a clip; their sum is N.

        Returns:
            (N, width, T, h, w)
        """
        scene = self.scene(F.adaptive_avg_pool3d(scene_BCTHW, persons_NCTHW.shape[2:]))
        clips_N = ragged.clip_index(counts_B).to(scene.device)
        return F.relu(self.norm(persons_NCTHW + scene.index_select(0, clips_N)))


class LinearHead(nn.Module):
    """Average over time and space, then a fully connected layer: the paper's baseline."""

    def __init__(
        self, width: int, num_actions: int, dropout: float = 0.2, prior: float = 0.05
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = _classifier(width, num_actions, prior)

    def tokens(self, features_NCTHW: Tensor) -> Tensor:
        """One token a person: (N, 1, C)."""
        return features_NCTHW.mean(dim=(2, 3, 4))[:, None]

    def forward(
        self, features_NCTHW: Tensor, counts_B: Tensor, memory_BMLC: Tensor, memory_mask_BM: Tensor
    ) -> Tensor:
        """Logits (N, A); other persons and memory are not looked at."""
        return self.classifier(self.dropout(self.tokens(features_NCTHW).mean(dim=1)))


class PersonAttention(nn.Module):
    """Persons attend to the persons of their clip and to the remembered ones, L times over."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        _open(self.output)

    def forward(
        self, x_NLC: Tensor, counts_B: Tensor, memory_BMLC: Tensor, memory_mask_BM: Tensor
    ) -> Tensor:
        """What each person gathers from the others, (N, L, C)."""
        query, key, value, mask = self._project(x_NLC, counts_B, memory_BMLC, memory_mask_BM)
        gathered = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        gathered = gathered.unflatten(1, (-1, self.num_heads)).permute(0, 3, 1, 2, 4).flatten(3)
        return self.output(ragged.unpad(gathered, counts_B))

    def weights(
        self, x_NLC: Tensor, counts_B: Tensor, memory_BMLC: Tensor, memory_mask_BM: Tensor
    ) -> Tensor:
        """How much each person looks at whom: (N, L, E, S), rows sum to 1."""
        query, key, _, mask = self._project(x_NLC, counts_B, memory_BMLC, memory_mask_BM)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
        weights = weights.unflatten(1, (-1, self.num_heads)).permute(0, 3, 1, 2, 4)
        return ragged.unpad(weights, counts_B)

    def _project(
        self, x_NLC: Tensor, counts_B: Tensor, memory_BMLC: Tensor, memory_mask_BM: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query (B, L*E, P, D), key and value (B, L*E, S, D), key mask (B, 1, 1, S)."""
        # Projections run on the N persons; only the attention itself needs padded rows.
        query, mask_BP = ragged.pad(self.query(x_NLC), counts_B)
        persons, _ = ragged.pad(self.key_value(x_NLC), counts_B)
        # Empty memory knows no L (a size of 1 expands to any); written memory has the head's.
        remembered = self.key_value(memory_BMLC).expand(-1, -1, x_NLC.shape[1], -1)
        key, value = torch.cat((persons, remembered), dim=1).chunk(2, dim=-1)
        mask_BS = torch.cat((mask_BP, memory_mask_BM), dim=1)
        # A clip without anybody looks at zeros: a softmax over nothing would be NaN.
        mask_BS = mask_BS | ~mask_BS.any(dim=1, keepdim=True)
        return *map(self._split_heads, (query, key, value)), mask_BS[:, None, None]

    def _split_heads(self, x_BSLC: Tensor) -> Tensor:
        heads_BSLED = x_BSLC.unflatten(-1, (self.num_heads, -1))
        return heads_BSLED.permute(0, 2, 3, 1, 4).flatten(1, 2)


class RelationHead(nn.Module):
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
        _open(self.ffn[-1])
        self.dropout = nn.Dropout(dropout)
        self.classifier = _classifier(width, num_actions, prior)

    def tokens(self, features_NCTHW: Tensor) -> Tensor:
        """What the head reads of each person, and all that a memory need store: (N, L, C)."""
        return self.aggregate(features_NCTHW, dim=self.dimensions).flatten(2).transpose(1, 2)

    def forward(
        self, features_NCTHW: Tensor, counts_B: Tensor, memory_BMLC: Tensor, memory_mask_BM: Tensor
    ) -> Tensor:
        """Score the actions of every person.

        Args:
            features_NCTHW: fused features, persons of clip 0 first.
            counts_B: persons a clip; their sum is N.
            memory_BMLC: tokens of remembered persons; M may be 0 (``empty_memory``).
            memory_mask_BM: True where a slot of the memory is written.

        Returns:
            (N, A) logits.
        """
        x_NLC = self.tokens(features_NCTHW)
        others = self._others(memory_BMLC, memory_mask_BM)
        x_NLC = x_NLC + self.dropout(self.attention(self.attention_norm(x_NLC), counts_B, *others))
        x_NLC = x_NLC + self.dropout(self.ffn(self.ffn_norm(x_NLC)))
        return self.classifier(self.dropout(x_NLC.mean(dim=1)))

    def attention_weights(
        self, features_NCTHW: Tensor, counts_B: Tensor, memory_BMLC: Tensor, memory_mask_BM: Tensor
    ) -> Tensor:
        """How much each person looks at whom, (N, L, E, S): first the P persons, then M."""
        x_NLC = self.attention_norm(self.tokens(features_NCTHW))
        others = self._others(memory_BMLC, memory_mask_BM)
        return self.attention.weights(x_NLC, counts_B, *others)

    def _others(self, memory_BMLC: Tensor, memory_mask_BM: Tensor) -> tuple[Tensor, Tensor]:
        # Unwritten slots may hold anything; zeros keep NaN and infinity out of 0 * value.
        written = memory_BMLC.masked_fill(~memory_mask_BM[:, :, None, None], 0.0)
        return self.attention_norm(written), memory_mask_BM

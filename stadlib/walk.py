"""The model's forward pass one step after the other, every tensor kept.

Legend: B clips, N persons of the batch, M remembered, S = P + M, C channels, T time, H, W (of a
person's grid: h, w), L sequences, E attention heads, A actions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stadlib.build import AVERAGED
from stadlib.data.clips import Batch
from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import RelationHead
from stadlib.remembered import Memory


class Walk(NamedTuple):
    """What a model with a relation head computes on its way from a clip to scores.

    Attributes:
        map_BCTHW: the backbone's features.
        persons_NCThw: cut out of the projected map by RoIAlign: a person's half of the fusion.
        scene_BCThw: the scene's half, averaged down to a person's grid.
        fused_NCThw: both in one.
        s_only_NLC: the fused features as s-only's sequences read them, L = h*w.
        t_only_NLC: the same for t-only, L = T.
        attention_NLES: of the model's own head; rows sum to 1.
        scores_NA: in [0, 1].
    """

    map_BCTHW: Tensor
    persons_NCThw: Tensor
    scene_BCThw: Tensor
    fused_NCThw: Tensor
    s_only_NLC: Tensor
    t_only_NLC: Tensor
    attention_NLES: Tensor
    scores_NA: Tensor


@torch.inference_mode()
def walk(model: ActionDetector, batch: Batch, memory: Memory) -> Walk:
    """Run a model step by step; the scores are those of its ``forward``.

    Args:
        model: its head must be a relation head; set to evaluation mode here.
        batch: clips and persons.
        memory: what the clips remember.

    Returns:
        Every step's tensor, on the CPU.
    """
    model.eval()
    where = next(model.parameters()).device
    batch, memory = batch.to(where), memory.to(where)
    fusion, head, counts_B = model.fusion, model.head, batch.counts_B
    map_BCTHW = model.backbone(model.normalize(batch.clips_BCTHW))
    persons_NCThw = model.roi(fusion.project(map_BCTHW), batch.boxes_N4, counts_B)
    grid = persons_NCThw.shape[2:]
    fused_NCThw = fusion(persons_NCThw, map_BCTHW, counts_B)
    inputs = (head.tokens(fused_NCThw), batch.boxes_norm_N4, counts_B, memory)
    found = Walk(
        map_BCTHW=map_BCTHW,
        persons_NCThw=persons_NCThw,
        scene_BCThw=fusion.scene(F.adaptive_avg_pool3d(map_BCTHW, grid)),
        fused_NCThw=fused_NCThw,
        s_only_NLC=_tokens("s-only", fused_NCThw),
        t_only_NLC=_tokens("t-only", fused_NCThw),
        attention_NLES=head.attention_weights(*inputs),
        scores_NA=head(*inputs).sigmoid(),
    )
    return Walk(*(tensor.cpu() for tensor in found))


def _tokens(head: str, fused_NCThw: Tensor) -> Tensor:
    """The sequences of a head by its word, whichever the model has; they need no weights."""
    width = fused_NCThw.shape[1]
    return RelationHead(width, 1, AVERAGED[head], num_heads=1).tokens(fused_NCThw)

"""The whole of the paper's Figure 1: clip and boxes in, action logits a person out.

Legend: B clips, N persons of the batch, L sequences, C channels, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stadlib.models.heads import Head, MemoryTokens
from stadlib.models.networks import Backbone
from stadlib.models.roi_fusion import Fusion, RoIAlign3d, TimePooled, Unfused, clip_index, to_device


class ActionDetector(nn.Module):
    """Backbone, RoIAlign, fusion and head in a row (paper section 2.1)."""

    def __init__(
        self, backbone: Backbone, roi: RoIAlign3d, fusion: Fusion | Unfused | TimePooled, head: Head
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.roi = roi
        self.fusion = fusion
        self.head = head

    def tokens(
        self,
        clips_BCTHW: Tensor,
        boxes_N4: Tensor,
        counts_B: Tensor,
        sizes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """What the head reads of every person, (N, L, C): what a feature bank stores.

        Clips of each size pass the network without the padding that larger ones need. So a clip's
        features do not depend on what else is in the batch.
        """
        clips_N, tokens, order = clip_index(counts_B), [], []
        for height, width in dict.fromkeys(sizes):
            alike = [clip for clip, size in enumerate(sizes) if size == (height, width)]
            alike_B = torch.tensor(alike, device=counts_B.device)
            own_N = torch.isin(clips_N, alike_B).nonzero()[:, 0]
            clips, persons = (to_device(x, clips_BCTHW.device) for x in (alike_B, own_N))
            boxes, counts = boxes_N4[persons], counts_B[alike_B]
            scene_BCTHW = self.backbone(clips_BCTHW[clips, :, :, :height, :width])
            persons_NCThw = self.roi(self.fusion.project(scene_BCTHW), boxes, counts)
            tokens.append(self.head.tokens(self.fusion(persons_NCThw, scene_BCTHW, counts)))
            order.append(own_N)
        return torch.cat(tokens)[to_device(torch.cat(order).argsort(), clips_BCTHW.device)]

    def forward(  # noqa: PLR0917  (what a batch holds, in its order)
        self,
        clips_BCTHW: Tensor,
        boxes_N4: Tensor,
        counts_B: Tensor,
        sizes: Sequence[tuple[int, int]],
        boxes_norm_N4: Tensor,
        memory: MemoryTokens,
    ) -> tuple[Tensor, Tensor]:
        """Score the actions of every person: logits (N, A) and the persons' tokens (N, L, C).

        ``clips_BCTHW`` are uint8 frames, padded to a common size at the right and the bottom;
        ``boxes_N4`` are x1, y1, x2, y2 in their pixels, persons of clip 0 first; ``counts_B`` are
        the persons of each clip, on the CPU; ``sizes`` each clip's own height and width;
        ``boxes_norm_N4`` the boxes as fractions of the untransformed frame; the memory's width may
        be 0.
        """
        tokens_NLC = self.tokens(clips_BCTHW, boxes_N4, counts_B, sizes)
        return self.head(tokens_NLC, boxes_norm_N4, counts_B, memory), tokens_NLC

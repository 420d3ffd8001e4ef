"""The whole of the paper's Figure 1: clip and boxes in, action logits a person out.

Legend: B clips, N persons of the batch, L sequences, C channels, A actions.
"""

from __future__ import annotations

from torch import Tensor, nn

from stadlib.models.heads import Head, MemoryTokens
from stadlib.models.networks import Backbone, Normalize
from stadlib.models.roi_fusion import Fusion, RoIAlign3d


class ActionDetector(nn.Module):
    """Backbone, RoIAlign, fusion and head in a row (paper section 2.1)."""

    def __init__(self, backbone: Backbone, roi: RoIAlign3d, fusion: Fusion, head: Head) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.backbone = backbone
        self.roi = roi
        self.fusion = fusion
        self.head = head

    def tokens(self, clips_BCTHW: Tensor, boxes_N4: Tensor, counts_B: Tensor) -> Tensor:
        """What the head reads of every person, (N, L, C): what a feature bank stores."""
        scene_BCTHW = self.backbone(self.normalize(clips_BCTHW))
        persons_NCThw = self.roi(self.fusion.project(scene_BCTHW), boxes_N4, counts_B)
        return self.head.tokens(self.fusion(persons_NCThw, scene_BCTHW, counts_B))

    def forward(
        self,
        clips_BCTHW: Tensor,
        boxes_N4: Tensor,
        counts_B: Tensor,
        boxes_norm_N4: Tensor,
        memory: MemoryTokens,
    ) -> tuple[Tensor, Tensor]:
        """Score the actions of every person: logits (N, A) and the persons' tokens (N, L, C).

        ``clips_BCTHW`` are uint8 frames, padded to a common size; ``boxes_N4`` are x1, y1, x2, y2
        in their pixels, persons of clip 0 first; ``counts_B`` are the persons of each clip;
        ``boxes_norm_N4`` the boxes as fractions of the untransformed frame; the memory's width may
        be 0.
        """
        tokens_NLC = self.tokens(clips_BCTHW, boxes_N4, counts_B)
        return self.head(tokens_NLC, boxes_norm_N4, counts_B, memory), tokens_NLC

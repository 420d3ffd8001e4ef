"""The whole of the paper's Figure 1: clip and boxes in, action logits a person out.

Legend: B clips, N persons of the batch, L sequences, C channels, A actions.
"""

from __future__ import annotations

from torch import Tensor, nn

from stadlib.models.heads import Head, MemoryTokens, no_memory
from stadlib.models.networks import Backbone, Normalize
from stadlib.models.roi_fusion import Fusion, RoIAlign3d


class ActionDetector(nn.Module):
    """Backbone, RoIAlign, fusion and head in a row (paper section 2.1).

    Args:
        backbone: clip to feature map.
        roi: boxes out of the feature map.
        fusion: persons with the scene.
        head: persons to logits.
    """

    def __init__(self, backbone: Backbone, roi: RoIAlign3d, fusion: Fusion, head: Head) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.backbone = backbone
        self.roi = roi
        self.fusion = fusion
        self.head = head

    def person_features(self, clips_BCTHW: Tensor, boxes_N4: Tensor, counts_B: Tensor) -> Tensor:
        """Fused features of every person, (N, width, T, h, w): what the head reads."""
        scene_BCTHW = self.backbone(self.normalize(clips_BCTHW))
        persons_NCTHW = self.roi(self.fusion.project(scene_BCTHW), boxes_N4, counts_B)
        return self.fusion(persons_NCTHW, scene_BCTHW, counts_B)

    def tokens(self, clips_BCTHW: Tensor, boxes_N4: Tensor, counts_B: Tensor) -> Tensor:
        """What the head reads of every person, (N, L, C): what a feature bank stores."""
        return self.head.tokens(self.person_features(clips_BCTHW, boxes_N4, counts_B))

    def empty_memory(self, counts_B: Tensor) -> MemoryTokens:
        """Memory of width 0 for a batch whose clips remember nobody."""
        return no_memory(len(counts_B), self.fusion.width, counts_B.device)

    def forward(
        self,
        clips_BCTHW: Tensor,
        boxes_N4: Tensor,
        counts_B: Tensor,
        places_N4: Tensor,
        memory: MemoryTokens,
    ) -> Tensor:
        """Score the actions of every person.

        Args:
            clips_BCTHW: uint8 frames, padded to a common size.
            boxes_N4: x1, y1, x2, y2 in pixels of the padded clips, persons of clip 0 first.
            counts_B: persons a clip, zeros allowed; their sum is N.
            places_N4: the same boxes as fractions of the untransformed frame, as memory has them.
            memory: of the clips; its width may be 0 (:func:`stadlib.models.heads.no_memory`).

        Returns:
            (N, A) logits; the sigmoid belongs to the loss and to evaluation.
        """
        tokens_NLC = self.tokens(clips_BCTHW, boxes_N4, counts_B)
        return self.head(tokens_NLC, places_N4, counts_B, memory)

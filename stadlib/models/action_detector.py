"""The whole of the paper's Figure 1: clip and boxes in, action logits a person out; the loss.

Legend: B clips, N persons of the batch, L sequences, C channels, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stadlib.models.heads import Head, MemoryTokens
from stadlib.models.networks import Backbone
from stadlib.models.roi_fusion import (
    Fusion,
    Places,
    RoIAlign3d,
    TimePooled,
    Unfused,
    clip_index,
    part_clips,
    to_device,
    with_clips,
)


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
        """What the head reads of every person, (N, L, C): what a feature bank stores."""

        def read(scene_BCTHW: Tensor, boxes_N4: Tensor, counts_B: Tensor) -> Tensor:
            return self._tokens(scene_BCTHW, boxes_N4, clip_index(counts_B, scene_BCTHW.device))

        return self._by_size(read, clips_BCTHW, boxes_N4, counts_B, sizes)

    def _tokens(self, scene_BCTHW: Tensor, boxes_N4: Tensor, clips_N: Tensor) -> Tensor:
        persons_NCThw = self.roi(self.fusion.project(scene_BCTHW), boxes_N4, clips_N)
        return self.head.tokens(self.fusion(persons_NCThw, scene_BCTHW, clips_N))

    def maps(
        self,
        clips_BCTHW: Tensor,
        boxes_N4: Tensor,
        counts_B: Tensor,
        sizes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """What fusion reads of the backbone, (B + N, T*h*w, C): a clip's scene, then its persons.

        The scene is averaged down to the persons' grid. Of a backbone that stays as it is, a bank
        holds these in float16, and :class:`OnMaps` trains on them. A person of a paper-size clip
        takes T * 49 * C * 2 bytes: ir-CSN-152 32x2 0.8 MB, SlowFast-152 8x8+32x2 1.8 MB, Swin3D-T
        32x2 and VideoPrism-B 16x4 1.2 MB. (A projection to 512 channels, which is not built, would
        make them 0.2, 0.4 and 0.8 MB.)
        """
        frames = [(0.0, 0.0, float(width), float(height)) for height, width in sizes]

        def read(scene_BCTHW: Tensor, boxes_N4: Tensor, counts_B: Tensor) -> Tensor:
            maps = self.roi(scene_BCTHW, boxes_N4, clip_index(counts_B, scene_BCTHW.device))
            _, persons = part_clips(maps, counts_B - 1)
            scenes = F.adaptive_avg_pool3d(scene_BCTHW, maps.shape[2:])
            return with_clips(scenes, persons, counts_B - 1).flatten(2).transpose(1, 2)

        boxes = with_clips(boxes_N4.new_tensor(frames), boxes_N4, counts_B)
        return self._by_size(read, clips_BCTHW, boxes, counts_B + 1, sizes)

    def _by_size(
        self,
        read: Callable[[Tensor, Tensor, Tensor], Tensor],
        clips_BCTHW: Tensor,
        boxes_N4: Tensor,
        counts_B: Tensor,
        sizes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """What ``read`` gives of every box, out of the features of clips, boxes and counts.

        Clips of each size pass the network without the padding that larger ones need. So a clip's
        features do not depend on what else is in the batch.
        """
        clips_N, parts, order = clip_index(counts_B), [], []
        for height, width in dict.fromkeys(sizes):
            alike = [clip for clip, size in enumerate(sizes) if size == (height, width)]
            alike_B = torch.tensor(alike, device=counts_B.device)
            own_N = torch.isin(clips_N, alike_B).nonzero()[:, 0]
            clips, persons = (to_device(x, clips_BCTHW.device) for x in (alike_B, own_N))
            scene_BCTHW = self.backbone(clips_BCTHW[clips, :, :, :height, :width])
            parts.append(read(scene_BCTHW, boxes_N4[persons], counts_B[alike_B]))
            order.append(own_N)
        return torch.cat(parts)[to_device(torch.cat(order).argsort(), clips_BCTHW.device)]

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
        places = Places.of(counts_B, tokens_NLC.device)
        return self.head(tokens_NLC, boxes_norm_N4, places, memory), tokens_NLC

    def compile(self, **options: object) -> None:
        """Compile the backbone, what fuses persons with it, and the head: a graph each.

        Clips are sorted by size outside of them. Dropout draws what it draws uncompiled.
        """
        torch._inductor.config.fallback_random = True
        # PersonDropout.total is another number in every batch.
        torch._dynamo.config.allow_unspec_int_on_nn_module = True
        self.backbone.compile(**options)
        self._tokens = torch.compile(self._tokens, **options)
        self.head.compile(**options)


class OnMaps(nn.Module):
    """Fusion and head of a detector, on maps that its backbone computed once."""

    def __init__(self, detector: ActionDetector) -> None:
        super().__init__()
        self.fusion, self.head, self.size = detector.fusion, detector.head, detector.roi.size

    def tokens(self, maps_NLC: Tensor, counts_B: Tensor) -> Tensor:
        """The detector's tokens (N, L, C) from its :meth:`ActionDetector.maps`."""
        maps_NCThw = maps_NLC.transpose(1, 2).unflatten(2, (-1, self.size, self.size))
        scenes, persons = part_clips(maps_NCThw, counts_B)
        clips_N = clip_index(counts_B, maps_NLC.device)
        return self.head.tokens(self.fusion(self.fusion.project(persons), scenes, clips_N))

    def forward(
        self, maps_NLC: Tensor, boxes_norm_N4: Tensor, places: Places, memory: MemoryTokens
    ) -> tuple[Tensor, Tensor]:
        """As the detector's: logits (N, A) and the persons' tokens (N, L, C)."""
        tokens_NLC = self.tokens(maps_NLC, places.counts_B)
        return self.head(tokens_NLC, boxes_norm_N4, places, memory), tokens_NLC


class ActionLoss:
    """From logits to losses and to probabilities, as the field has them; the paper names none.

    Binary cross-entropy of every action, or ``poses``, if any, as one choice (ACAR, AlphAction).

    ``poses`` are columns of the actions that exclude each other: sitting, standing and so on. Their
    binary cross-entropies are then one cross-entropy of their softmax, and a person without any of
    them has none. SlowFast and LFB take binary cross-entropy alone. Where ``poses`` are all actions
    the loss is the usual cross-entropy, as ACT and MOC take it on UCF101-24: one action a person.
    """

    def __init__(self, poses: Sequence[int] = ()) -> None:
        self.poses = list(poses)

    def __call__(self, logits_NA: Tensor, actions_NA: Tensor) -> Tensor:
        """The loss of each person, (N,): a mean over the A actions, or over the one choice."""
        losses_NA = F.binary_cross_entropy_with_logits(logits_NA, actions_NA, reduction="none")
        if not self.poses:
            return losses_NA.mean(dim=1)
        poses = to_device(torch.tensor(self.poses), logits_NA.device)
        others_N = losses_NA.sum(dim=1) - losses_NA[:, poses].sum(dim=1)
        target_NP = actions_NA[:, poses]
        target_NP = target_NP / target_NP.sum(dim=1, keepdim=True).clamp(min=1)
        pose_N = -(target_NP * logits_NA[:, poses].log_softmax(dim=1)).sum(dim=1)
        num_actions = logits_NA.shape[1]
        return pose_N if len(self.poses) == num_actions else (others_N + pose_N) / num_actions

    def probabilities(self, logits_NA: Tensor) -> Tensor:
        """What a person is scored by, (N, A)."""
        scores_NA = logits_NA.sigmoid()
        if self.poses:
            softmax_NP = logits_NA[:, self.poses].softmax(dim=1)
            columns = to_device(torch.tensor(self.poses), logits_NA.device)
            scores_NA = scores_NA.index_copy(1, columns, softmax_NP)
        return scores_NA

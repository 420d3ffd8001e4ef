"""3D RoIAlign: the keyframe's box cut out of every frame of a feature map; time stays."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import roi_align

from stadlib import ragged


class RoIAlign3d(nn.Module):
    """Inflate each box along time and pool it (paper section 2.1; Mask R-CNN's RoIAlign).

    Args:
        output_size: cells a side of the pooled grid.
        spatial_scale: cells of the feature map a pixel of the clip, 1 / spatial stride.
        aligned: shift by half a pixel, as torchvision recommends; weights released by
            SlowFast, ACAR and AlphAction were trained without.
        sampling_ratio: samples a bin and axis; -1 adapts their number to the box.
    """

    def __init__(
        self,
        output_size: int = 7,
        spatial_scale: float = 1 / 16,
        aligned: bool = True,
        sampling_ratio: int = -1,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.aligned = aligned
        self.sampling_ratio = sampling_ratio

    def forward(self, features_BCTHW: Tensor, boxes_N4: Tensor, counts_B: Tensor) -> Tensor:
        """Pool every person's box out of its clip's features.

        Args:
            features_BCTHW: the backbone's map.
            boxes_N4: x1, y1, x2, y2 in pixels of the clip, persons of clip 0 first.
            counts_B: persons a clip; their sum is N.

        Returns:
            (N, C, T, output_size, output_size)
        """
        B, C, T, H, W = features_BCTHW.shape
        clips_N = ragged.clip_index(counts_B).to(boxes_N4)
        rois_N5 = boxes_N4.new_empty(len(boxes_N4), 5)
        rois_N5[:, 0], rois_N5[:, 1:] = clips_N, boxes_N4
        # The box is the same in every frame, so time may ride along with the channels: the
        # sampling points are then computed once a box instead of once a box and frame.
        pooled = roi_align(
            features_BCTHW.reshape(B, C * T, H, W),
            rois_N5.to(features_BCTHW.dtype),
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )
        return pooled.unflatten(1, (C, T))

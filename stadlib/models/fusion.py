"""Person and scene in one map: fusion by channel-wise concatenation and convolution.

Legend: B clips, N persons of the batch, C channels, T time, H, W.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stadlib import ragged


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

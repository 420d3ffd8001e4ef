"""Persons out of a clip's feature map, fused with the scene (paper section 2.1).

Legend: B clips, N persons of the batch (those of clip 0 first), P persons of a clip (padded),
C channels, T time, H, W.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align


def to_device(x: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device. A GPU copies it beside its work, and nobody waits for that."""
    if x.device.type == "cpu" and torch.device(device).type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def clip_index(counts_B: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """The clip of every person, (N,), on ``device``: counts (2, 0, 1) give (0, 0, 2)."""
    return to_device(torch.arange(len(counts_B)).repeat_interleave(counts_B), device)


class Places(NamedTuple):
    """Where the persons of a batch stand when each clip has a row of its own.

    What depends on the counts' values is computed here, once a batch and on the CPU. What reads
    it waits for no GPU, and torch.compile makes one graph of it for all counts.
    """

    counts_B: Tensor  # persons of each clip, on the CPU
    clips_N: Tensor  # row of every person
    columns_N: Tensor
    mask_BP: Tensor  # True where a row holds a person; P is the largest count

    @classmethod
    def of(cls, counts_B: Tensor, device: torch.device | str = "cpu") -> Places:
        """The places on ``device`` of ``counts_B`` persons a clip."""
        columns = torch.arange(int(counts_B.max()) if len(counts_B) else 0)
        mask_BP = columns < counts_B[:, None]
        tensors = (*mask_BP.nonzero(as_tuple=True), mask_BP)
        return cls(counts_B, *(to_device(tensor, device) for tensor in tensors))

    def pad(self, x_N: Tensor) -> Tensor:
        """Lay persons (N, ...) into their rows, with zeros behind them: (B, P, ...)."""
        rows = x_N.new_zeros(*self.mask_BP.shape, *x_N.shape[1:])
        return torch.index_put(rows, (self.clips_N, self.columns_N), x_N)

    def unpad(self, x_BP: Tensor) -> Tensor:
        """The persons (N, ...) of rows (B, P, ...): the inverse of :meth:`pad`."""
        return x_BP[self.clips_N, self.columns_N]


def with_clips(x_B: Tensor, x_N: Tensor, counts_B: Tensor) -> Tensor:
    """A row of each clip (B, ...) before those of its persons (N, ...): (B + N, ...)."""
    clips_BN = torch.cat((torch.arange(len(x_B)), clip_index(counts_B)))
    return torch.cat((x_B, x_N))[to_device(clips_BN.argsort(stable=True), x_N.device)]


def part_clips(x_BN: Tensor, counts_B: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the clips and those of the persons: the inverse of ``with_clips``."""
    of_clip = torch.zeros(len(x_BN), dtype=torch.bool)
    of_clip[(counts_B + 1).cumsum(0) - counts_B - 1] = True
    parts = (places.nonzero()[:, 0] for places in (of_clip, ~of_clip))
    return tuple(x_BN[to_device(places, x_BN.device)] for places in parts)


class RoIAlign3d(nn.Module):
    """Inflate each box along time and pool it out of every frame's map (Mask R-CNN's RoIAlign).

    ``spatial_scale`` is in cells of the map a pixel, 1 / spatial stride. ``aligned`` shifts by half
    a pixel, as torchvision recommends; weights released by SlowFast, ACAR and AlphAction were
    trained without. ``sampling_ratio`` -1 adapts the samples to the box.
    """

    def __init__(
        self,
        output_size: int = 7,
        spatial_scale: float = 1 / 16,
        aligned: bool = True,
        sampling_ratio: int = -1,
    ) -> None:
        super().__init__()
        self.size, self.options = output_size, (output_size, spatial_scale, sampling_ratio, aligned)

    def forward(self, features_BCTHW: Tensor, boxes_N4: Tensor, clips_N: Tensor) -> Tensor:
        """Pool each person's box (pixels of its clip) out of the map: (N, C, T, size, size)."""
        B, C, T, H, W = features_BCTHW.shape
        # In bfloat16 (autocast) a coordinate of 301.3 pixels would become 302.
        dtype = torch.promote_types(features_BCTHW.dtype, torch.float32)
        rois_N5 = torch.cat((clips_N[:, None].to(boxes_N4.dtype), boxes_N4), dim=1).to(dtype)
        # The box is the same in every frame. With time among the channels, RoIAlign computes its
        # sampling points once a box instead of once a box and frame.
        maps = features_BCTHW.reshape(B, C * T, H, W).to(dtype)
        return roi_align(maps, rois_N5, *self.options).unflatten(1, (C, T))


class Fusion(nn.Module):
    """Person and scene: channel-wise concatenation, then convolution (paper section 2.1).

    The paper does not say what of the scene lies beside a cell of the person:

    - ``tiled``: the person's mean is laid over the scene's grid, as in ACAR, so that the places of
      s-only are places of the frame.
    - ``mean``: the scene's mean beside every cell of the person.
    - ``grid``: cell (i, j) of the scene's grid beside cell (i, j) of the person's.

    The first convolution, 1x1x1 of a concatenation, is the sum of two, each computed where it is
    cheapest. The person's, ``project``, comes before RoIAlign, which is linear, so that RoIAlign
    cuts ``width`` channels instead of 2304. The scene's is computed once a clip, on a map averaged
    down to the person's grid. The second, 1x3x3, comes with two ``layers``. The norms see one
    person: others change nothing.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        beside: Literal["tiled", "mean", "grid"] = "tiled",
        layers: Literal[1, 2] = 2,
        num_groups: int = 8,
    ) -> None:
        super().__init__()
        self.width, self.beside = width, beside
        self.project = nn.Conv3d(in_channels, width, kernel_size=1, bias=False)
        self.scene = nn.Conv3d(in_channels, width, kernel_size=1)
        self.norm = nn.GroupNorm(num_groups, width)
        self.second = nn.Identity()
        if layers == 2:
            convolution = nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1), bias=False)
            norm, relu = nn.GroupNorm(num_groups, width), nn.ReLU(inplace=True)
            self.second = nn.Sequential(convolution, norm, relu)

    def forward(self, persons_NCTHW: Tensor, scene_BCTHW: Tensor, clips_N: Tensor) -> Tensor:
        """Fuse RoIs (N, width, T, h, w) of ``project(scene_BCTHW)`` with their clips' maps."""
        T, *grid = persons_NCTHW.shape[2:]
        grid = (1, 1) if self.beside == "mean" else grid
        scene = self.scene(F.adaptive_avg_pool3d(scene_BCTHW, (T, *grid)))  # (B, width, T, h, w)
        if self.beside == "tiled":
            persons_NCTHW = persons_NCTHW.mean(dim=(3, 4), keepdim=True)
        fused = F.relu(self.norm(persons_NCTHW + scene.index_select(0, clips_N)))
        return self.second(fused)  # (N, width, T, h, w)


class TimePooled(nn.Module):
    """Persons out of a map pooled over time before RoIAlign, as in public detectors.

    ``context`` puts the scene, averaged down to the person's grid, behind the person's channels
    (mmaction2's ``with_global``).
    """

    def __init__(self, in_channels: int, pool: Literal["mean", "max"], context: bool) -> None:
        super().__init__()
        self.width = in_channels * (1 + context)
        self.pool, self.context = {"mean": torch.mean, "max": torch.amax}[pool], context

    def project(self, scene_BCTHW: Tensor) -> Tensor:
        """The map over time, (B, C, 1, H, W)."""
        return self.pool(scene_BCTHW, dim=2, keepdim=True)

    def forward(self, persons_NCTHW: Tensor, scene_BCTHW: Tensor, clips_N: Tensor) -> Tensor:
        """Take RoIs of ``project(scene_BCTHW)`` and return (N, width, 1, h, w)."""
        if not self.context:
            return persons_NCTHW
        grid = persons_NCTHW.shape[2:]
        scene = F.adaptive_avg_pool3d(self.project(scene_BCTHW), grid)  # (B, C, 1, h, w)
        return torch.cat((persons_NCTHW, scene.index_select(0, clips_N)), dim=1)


class Unfused(nn.Module):
    """Persons alone, in the backbone's channels: what the field's linear heads read."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.width, self.project = in_channels, nn.Identity()

    def forward(self, persons_NCTHW: Tensor, *_: Tensor) -> Tensor:
        """Return the persons; takes what :class:`Fusion` takes."""
        return persons_NCTHW

"""The study's backbones, at the paper's size and mini; pretraining's classifier; freezing.

A variant is one call. Inputs such as 8x8+32x2 and 16x4+64x1 differ only in how frames are
sampled, not in the network.

Legend: B clips, C channels, T time, H, W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stadlib.models.dropout import PersonDropout
from stadlib.models.networks import CSN, STAGE_DEPTHS, Backbone, SlowFast


class Normalize(nn.Module):
    """Bytes to the numbers that Kinetics' networks expect: (byte / 255 - mean) / std.

    The clip is laid out channels last, in which CPUs convolve up to 1.7 times faster.
    """

    def __init__(self, mean: float = 0.45, std: float = 0.225) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(255 * mean), persistent=False)
        self.register_buffer("scale", torch.tensor(1 / (255 * std)), persistent=False)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """uint8 clips (B, 3, T, H, W) to floats of the same shape."""
        clips = clips_BCTHW.to(self.mean.dtype, memory_format=torch.channels_last_3d)
        return (clips - self.mean) * self.scale


def slowfast(depth: int) -> SlowFast:
    """SlowFast-101 or -152 for detection: 2304 channels, 1/16 (SlowFast's AVA configurations).

    8x8+32x2 takes 32 fast frames, 16x4+64x1 takes 64; both have alpha 4.
    """
    return SlowFast(depth)


def csn(depth: int) -> CSN:
    """ir-CSN-152 for detection: 2048 channels, 1/16 in space, 1/8 in time (VMZ, TubeR)."""
    return CSN(STAGE_DEPTHS[depth])


def of_kinetics(name: str) -> Backbone:
    """The same networks as Kinetics is classified with, 1/32 in space: the weights fit both.

    The fourth stage strides and does not dilate (SlowFast's Kinetics configurations, VMZ).
    """
    family, depth = name.rsplit("-", 1)
    strides = (1, 2, 2, 2)
    if family == "slowfast":
        return SlowFast(int(depth), spatial_strides=strides, dilations=(1, 1, 1, 1))
    return CSN(STAGE_DEPTHS[int(depth)], spatial_strides=strides)


def slowfast_mini() -> SlowFast:
    """A SlowFast of four blocks a path for figures of 40 pixels: 1/8 in space, alpha 2."""
    return _opened(
        SlowFast(
            depth=18,
            alpha=2,
            slow_width=12,
            reduction=3,
            stem_kernels=((1, 5, 5), (3, 5, 5)),
            fusion_kernel=5,
            spatial_strides=(1, 2, 1, 1),
            dilations=(1, 1, 1, 1),
        )
    )


def csn_mini() -> CSN:
    """An ir-CSN of five blocks for figures of 40 pixels: 1/8 in space, 1/2 in time."""
    return _opened(
        CSN(
            depths=(1, 2, 2),
            stem_width=24,
            stem_kernel=(3, 5, 5),
            inner_widths=(32, 64, 64),
            out_widths=(64, 128, 128),
            spatial_strides=(1, 2, 1),
            temporal_strides=(1, 1, 2),
        )
    )


def _opened(network: Backbone) -> Backbone:
    """Residual branches that start open; in a short training from scratch closed ones stay idle.

    Seen on the miniature classification set after 400 iterations, one run each: 12 % accuracy
    (open, lr 0.1) against 8 % (closed, lr 0.2).
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    return network


class Classifier(nn.Module):
    """A backbone with global average pooling and a linear layer, for pretraining."""

    def __init__(self, backbone: Backbone, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.backbone = backbone
        self.dropout = PersonDropout(dropout)
        self.classifier = nn.Linear(backbone.out_channels, num_classes)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """uint8 clips (B, 3, T, H, W) to logits (B, num_classes)."""
        features = self.backbone(self.normalize(clips_BCTHW))
        return self.classifier(self.dropout(features.mean(dim=(2, 3, 4))))


class FrozenBatchNorm3d(nn.BatchNorm3d):
    """A batch norm that never leaves evaluation mode; its convolution computes it.

    Parameters and statistics keep their places and names, so that weights can be loaded
    before or after freezing.
    """

    def train(self, mode: bool = True) -> FrozenBatchNorm3d:
        """Stay in evaluation mode, whatever ``mode`` says."""
        return super().train(False)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The norm as a factor and a summand a channel, (C,) each."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Nothing: the convolution in front has applied the norm."""
        return x_BCTHW


class FoldedConv3d(nn.Conv3d):
    """A convolution and the frozen batch norm behind it in one: the norm scales the kernel.

    Equal to the pair up to rounding, forward and backward, and spares two passes over the map.
    """

    def __init__(self, conv: nn.Conv3d, norm: FrozenBatchNorm3d) -> None:
        shape = (conv.in_channels, conv.out_channels, conv.kernel_size)
        super().__init__(
            *shape, conv.stride, conv.padding, conv.dilation, conv.groups, bias=False, device="meta"
        )
        self.weight = conv.weight
        self._norm = (norm,)  # a tuple, since the norm stays registered in its own place

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Convolve and normalise, (B, C, T, H, W)."""
        scale, shift = self._norm[0].scale_and_shift()
        weight = self.weight * scale[:, None, None, None, None]
        return self._conv_forward(x_BCTHW, weight, shift)


_NORMS = {
    "conv": "norm",
    "conv_a": "norm_a",
    "conv_b": "norm_b",
    "conv_c": "norm_c",
    "branch1_conv": "branch1_norm",
    "conv_fast_to_slow": "norm",
}
"""How pytorchvideo names a convolution and the batch norm behind it."""


def freeze_batchnorm(module: nn.Module) -> None:
    """Freeze every batch norm of a backbone, statistics and affine, after ``train()`` too.

    Paper section 3.1. Names and shapes of the state do not change. A network that was never
    trained should not be frozen: its residual branches start at zero and would stay there.
    """
    for parent in list(module.modules()):
        for conv_name, norm_name in _NORMS.items():
            norm = getattr(parent, norm_name, None)
            if hasattr(parent, conv_name) and type(norm) is nn.BatchNorm3d:
                frozen = FrozenBatchNorm3d(norm.num_features, norm.eps, norm.momentum)
                frozen.to(norm.weight).load_state_dict(norm.state_dict())
                setattr(parent, norm_name, frozen.requires_grad_(False).eval())
                setattr(parent, conv_name, FoldedConv3d(getattr(parent, conv_name), frozen))

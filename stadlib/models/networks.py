"""SlowFast and channel-separated networks without their heads, out of pytorchvideo's parts.

The only module that knows pytorchvideo.

Legend: B clips, C channels, T time, H, W.
"""

from __future__ import annotations

import math
import warnings
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

with warnings.catch_warnings():  # pytorchvideo 0.1.5 is older than what torch deprecates
    warnings.simplefilter("ignore")
    from pytorchvideo.models.net import Net
    from pytorchvideo.models.resnet import ResBlock, create_bottleneck_block, create_res_stage
    from pytorchvideo.models.slowfast import create_slowfast
    from pytorchvideo.models.stem import create_res_basic_stem

Triple = tuple[int, int, int]

STAGE_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Residual blocks a stage by a network's depth (He et al. 2016, table 1)."""


class Backbone(nn.Module):
    """Normalised frames (B, 3, T, H, W) to features (B, C, T', H', W'); what a subclass computes.

    Attributes:
        out_channels: channels of the features.
        spatial_stride: pixels a cell of the features.
        temporal_stride: frames a time step of the features.
    """

    out_channels: int
    spatial_stride: int
    temporal_stride: int


def _relu() -> nn.ReLU:
    """In place: nobody else reads what is in front of it, and a map less is written."""
    return nn.ReLU(inplace=True)


class CSN(Backbone):
    """Interaction-reduced channel-separated network (Tran et al. 2019, "ir-CSN").

    A residual network of bottlenecks whose 3x3x3 convolution is depthwise. Batch norms have the
    eps of the released weights (VMZ): torch's default would change what frozen ones put out.

    Args:
        depths: residual blocks a stage.
        stem_width: channels of the stem; the stem halves H and W twice.
        stem_kernel: kernel of the stem's convolution.
        inner_widths: channels of the depthwise convolutions, a stage each.
        out_widths: channels that the stages put out.
        spatial_strides: of each stage's first block.
        temporal_strides: of each stage's first block.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        stem_width: int = 64,
        stem_kernel: Triple = (3, 7, 7),
        inner_widths: tuple[int, ...] = (64, 128, 256, 512),
        out_widths: tuple[int, ...] = (256, 512, 1024, 2048),
        spatial_strides: tuple[int, ...] = (1, 2, 2, 1),
        temporal_strides: tuple[int, ...] = (1, 2, 2, 2),
    ) -> None:
        super().__init__()
        stem = create_res_basic_stem(
            in_channels=3,
            out_channels=stem_width,
            conv_kernel_size=stem_kernel,
            conv_padding=tuple(size // 2 for size in stem_kernel),
            norm_eps=1e-3,
            activation=_relu,
        )
        blocks = [stem]
        in_widths = (stem_width, *out_widths[:-1])
        for i, depth in enumerate(depths):
            widths = (in_widths[i], inner_widths[i], out_widths[i])
            strides = (temporal_strides[i], spatial_strides[i], spatial_strides[i])
            blocks.append(_csn_stage(depth, widths, strides))
        self.net = Net(blocks=nn.ModuleList(blocks))
        self.out_channels = out_widths[-1]
        self.spatial_stride = 4 * math.prod(spatial_strides)
        self.temporal_stride = math.prod(temporal_strides)
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """Frames (B, 3, T, H, W) to features (B, C, T', H', W')."""
        return self.net(clips_BCTHW)


def _csn_stage(depth: int, widths: Triple, strides: Triple) -> nn.Module:
    dim_in, dim_inner, dim_out = widths
    return create_res_stage(
        depth=depth,
        dim_in=dim_in,
        dim_inner=dim_inner,
        dim_out=dim_out,
        bottleneck=create_bottleneck_block,
        conv_a_kernel_size=(1, 1, 1),
        conv_a_stride=(1, 1, 1),
        conv_a_padding=(0, 0, 0),
        conv_b_kernel_size=(3, 3, 3),
        conv_b_stride=strides,
        conv_b_padding=(1, 1, 1),
        conv_b_num_groups=dim_inner,
        norm_eps=1e-3,
        activation=_relu,
    )


class SlowFast(Backbone):
    """Two paths at two rates with lateral connections (Feichtenhofer et al. 2019).

    The fast path sees all frames, the slow path every ``alpha``-th. The fast path's features
    are averaged down to the slow path's time and concatenated behind them.

    Args:
        depth: 50, 101 or 152; 18 is pytorchvideo's word for one block a stage.
        alpha: fast frames a slow frame; T must be a multiple.
        slow_width: channels of the slow stem; its last stage puts out 32 times as many.
        reduction: slow channels a fast channel.
        stem_kernels: kernels of the slow and the fast stem.
        fusion_kernel: frames that a lateral connection looks at.
        spatial_strides: of each stage's first block.
        dilations: spatial dilation of each stage.
    """

    def __init__(
        self,
        depth: int,
        *,
        alpha: int = 4,
        slow_width: int = 64,
        reduction: int = 8,
        stem_kernels: tuple[Triple, Triple] = ((1, 7, 7), (5, 7, 7)),
        fusion_kernel: int = 7,
        spatial_strides: tuple[int, ...] = (1, 2, 2, 1),
        dilations: tuple[int, ...] = (1, 1, 1, 2),
    ) -> None:
        super().__init__()
        net = create_slowfast(
            model_depth=depth,
            slowfast_channel_reduction_ratio=reduction,
            slowfast_fusion_conv_kernel_size=(fusion_kernel, 1, 1),
            slowfast_fusion_conv_stride=(alpha, 1, 1),
            stem_dim_outs=(slow_width, slow_width // reduction),
            stem_conv_kernel_sizes=stem_kernels,
            stage_spatial_strides=(spatial_strides,) * 2,
            stage_conv_b_dilations=(tuple((1, d, d) for d in dilations),) * 2,
            activation=_relu,
            head=None,
        )
        self.net = nn.Sequential(*net.blocks[:-1])  # the last block pools for a head
        self.out_channels = 32 * (slow_width + slow_width // reduction)
        self.spatial_stride = 4 * math.prod(spatial_strides)
        self.temporal_stride = alpha
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """Frames (B, 3, T, H, W) to features (B, C, T', H', W')."""
        # pytorchvideo puts its results into the list it is given: always a fresh one.
        slow, fast = self.net([clips_BCTHW[:, :, :: self.temporal_stride], clips_BCTHW])
        return torch.cat((slow, F.avg_pool3d(fast, (self.temporal_stride, 1, 1))), dim=1)


def recompute_activations(network: Backbone) -> None:
    """Keep only the inputs of residual blocks and compute the rest again in the backward pass.

    Less memory for a third more time; names of weights and results stay the same.
    """
    for block in network.modules():
        if isinstance(block, ResBlock):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)

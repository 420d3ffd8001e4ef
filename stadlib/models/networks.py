"""What a backbone is, and the paper's: SlowFast and channel-separated networks, also mini.

Built of pytorchvideo's parts, without their heads. Inputs such as 8x8+32x2 and 16x4+64x1 differ
in how frames are sampled, not in the network.

Legend: B clips, C channels, T time, H, W.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stadlib.models.heads import PersonDropout

with warnings.catch_warnings():  # pytorchvideo 0.1.5 is older than what torch deprecates
    warnings.simplefilter("ignore")
    from pytorchvideo.models.net import Net
    from pytorchvideo.models.resnet import (
        ResBlock,
        create_bottleneck_block,
        create_res_stage,
        create_resnet,
    )
    from pytorchvideo.models.slowfast import create_slowfast
    from pytorchvideo.models.stem import create_res_basic_stem

Triple = tuple[int, int, int]
STAGE_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Residual blocks of each stage by a network's depth (He et al. 2016, table 1)."""
_RELU = partial(nn.ReLU, inplace=True)  # its input is not used again


class Backbone(nn.Module):
    """uint8 frames (B, 3, T, H, W) to features (B, C, T', H', W'), T' = ceil(T / temporal stride).

    ``net`` takes normalised frames. What else is given here is all that RoIAlign, fusion, heads,
    memory and pretraining ask of a network.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        out_channels: int,  # C
        spatial_stride: int,  # pixels a cell of the features
        temporal_stride: int,  # frames a time step of the features
        mean: Sequence[float] = (0.45,),  # of bytes / 255, a channel or for all (see Normalize)
        std: Sequence[float] = (0.225,),
        multiple: int = 1,  # height and width that the network takes are divisible by it
    ) -> None:
        super().__init__()
        self.net, self.normalize, self.statistics = net, Normalize(mean, std), (mean, std)
        self.out_channels, self.multiple = out_channels, multiple
        self.spatial_stride, self.temporal_stride = spatial_stride, temporal_stride
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """Frames to features; missing rows and columns are padded with the mean colour."""
        height, width = clips_BCTHW.shape[3:]
        bottom, right = -height % self.multiple, -width % self.multiple
        x_BCTHW = self.normalize(clips_BCTHW)
        return self.features(F.pad(x_BCTHW, (0, right, 0, bottom)) if right or bottom else x_BCTHW)

    def features(self, x_BCTHW: Tensor) -> Tensor:
        """Normalised frames to features."""
        return self.net(x_BCTHW)


class CSN(Backbone):
    """Interaction-reduced channel-separated network (Tran et al. 2019): depthwise 3x3x3
    convolutions.

    Batch norms have the eps of the released weights (VMZ). Tuples hold a number for each stage.
    """

    def __init__(
        self,
        depths: tuple[int, ...],  # residual blocks
        *,
        stem_width: int = 64,
        stem_kernel: Triple = (3, 7, 7),
        inner_widths: tuple[int, ...] = (64, 128, 256, 512),  # of the depthwise convolutions
        out_widths: tuple[int, ...] = (256, 512, 1024, 2048),
        spatial_strides: tuple[int, ...] = (1, 2, 2, 1),  # of the first block
        temporal_strides: tuple[int, ...] = (1, 2, 2, 2),
    ) -> None:
        stem = create_res_basic_stem(  # halves H and W twice
            in_channels=3,
            out_channels=stem_width,
            conv_kernel_size=stem_kernel,
            conv_padding=tuple(size // 2 for size in stem_kernel),
            norm_eps=1e-3,
            activation=_RELU,
        )
        blocks, in_widths = [stem], (stem_width, *out_widths)
        for i, depth in enumerate(depths):
            stage = create_res_stage(
                depth=depth,
                dim_in=in_widths[i],
                dim_inner=inner_widths[i],
                dim_out=out_widths[i],
                bottleneck=create_bottleneck_block,
                conv_a_kernel_size=(1, 1, 1),
                conv_a_stride=(1, 1, 1),
                conv_a_padding=(0, 0, 0),
                conv_b_kernel_size=(3, 3, 3),
                conv_b_stride=(temporal_strides[i], spatial_strides[i], spatial_strides[i]),
                conv_b_padding=(1, 1, 1),
                conv_b_num_groups=inner_widths[i],
                norm_eps=1e-3,
                activation=_RELU,
            )
            blocks.append(stage)
        super().__init__(
            Net(blocks=nn.ModuleList(blocks)),
            out_channels=out_widths[-1],
            spatial_stride=4 * math.prod(spatial_strides),
            temporal_stride=math.prod(temporal_strides),
        )


class SlowFast(Backbone):
    """Two paths at two rates with lateral connections (Feichtenhofer et al. 2019).

    The fast path sees all T frames, the slow path T / ``alpha`` of them, evenly from the first to
    the last as in PySlowFast, whose weights learned so; ``strided`` takes every ``alpha``-th. The
    fast path's features are averaged down to the slow path's time and concatenated behind them.
    """

    def __init__(
        self,
        depth: int,  # 50, 101 or 152; 18 is pytorchvideo's word for one block a stage
        *,
        alpha: int = 4,
        slow_width: int = 64,  # of the slow stem; the last stage puts out 32 times as many channels
        reduction: int = 8,  # slow channels a fast channel
        stem_kernels: tuple[Triple, Triple] = ((1, 7, 7), (5, 7, 7)),  # slow, fast
        fusion_kernel: int = 7,  # frames that a lateral connection looks at
        spatial_strides: tuple[int, ...] = (1, 2, 2, 1),  # of each stage's first block
        dilations: tuple[int, ...] = (1, 1, 1, 2),  # in space, of each stage
        strided: bool = False,
    ) -> None:
        net = create_slowfast(
            model_depth=depth,
            slowfast_channel_reduction_ratio=reduction,
            slowfast_fusion_conv_kernel_size=(fusion_kernel, 1, 1),
            slowfast_fusion_conv_stride=(alpha, 1, 1),
            stem_dim_outs=(slow_width, slow_width // reduction),
            stem_conv_kernel_sizes=stem_kernels,
            stage_spatial_strides=(spatial_strides,) * 2,
            stage_conv_b_dilations=(tuple((1, d, d) for d in dilations),) * 2,
            activation=_RELU,
            head=None,
        )
        super().__init__(
            nn.Sequential(*net.blocks[:-1]),  # the last block pools for a head
            out_channels=32 * (slow_width + slow_width // reduction),
            spatial_stride=4 * math.prod(spatial_strides),
            temporal_stride=alpha,
        )
        self.strided = strided

    def features(self, x_BCTHW: Tensor) -> Tensor:
        """Normalised frames to features; T must be a multiple of alpha."""
        # pytorchvideo puts its results into the list that it is given: always a fresh one.
        frames = self.slow_frames(x_BCTHW.shape[2])
        if x_BCTHW.is_cuda:  # an index would be copied there, which waits
            slow = torch.stack([x_BCTHW[:, :, frame] for frame in frames], dim=2)
        else:
            slow = x_BCTHW[:, :, frames]
        slow, fast = self.net([slow, x_BCTHW])
        return torch.cat((slow, F.avg_pool3d(fast, (self.temporal_stride, 1, 1))), dim=1)

    def slow_frames(self, num_frames: int) -> list[int]:
        """The frames of the slow path: 0, 4, 8, 13, 17, 22, 26, 31 of 32."""
        if self.strided:
            return list(range(0, num_frames, self.temporal_stride))
        count = num_frames // self.temporal_stride
        return [i * (num_frames - 1) // max(1, count - 1) for i in range(count)]


def slow(depth: int, *, dilated: bool) -> Backbone:
    """SlowFast's slow path alone, of public detectors: few frames far apart, 1/16 in space.

    ``dilated``: the last stage, as pytorchvideo's detectors have it; mmaction2's do not.
    """
    net = create_resnet(
        model_depth=depth,
        stem_conv_kernel_size=(1, 7, 7),
        stage_spatial_h_stride=(1, 2, 2, 1),
        stage_spatial_w_stride=(1, 2, 2, 1),
        stage_conv_b_dilation=tuple((1, d, d) for d in (1, 1, 1, 1 + dilated)),
        activation=_RELU,
        head=None,
    )
    return Backbone(net, out_channels=2048, spatial_stride=16, temporal_stride=1)


def slowfast(depth: int, detection: bool = True) -> SlowFast:
    """A SlowFast of the paper's size.

    For detection its features are 1/16 in space (SlowFast's AVA configurations). To classify
    Kinetics they are 1/32: its last stage strides and does not dilate. The weights fit both.
    """
    strides, dilations = ((1, 2, 2, 1), (1, 1, 1, 2)) if detection else ((1, 2, 2, 2), (1, 1, 1, 1))
    return SlowFast(depth, spatial_strides=strides, dilations=dilations)


def slowfast_mini() -> SlowFast:
    """A SlowFast of four blocks a path for figures of 40 pixels: 1/8 in space, alpha 2."""
    network = SlowFast(
        depth=18,
        alpha=2,
        slow_width=12,
        reduction=3,
        stem_kernels=((1, 5, 5), (3, 5, 5)),
        fusion_kernel=5,
        spatial_strides=(1, 2, 1, 1),
        dilations=(1, 1, 1, 1),
    )
    return _open(network)


def csn_mini(
    depths: tuple[int, ...] = (1, 2, 2), temporal_strides: tuple[int, ...] = (1, 1, 2)
) -> CSN:
    """An ir-CSN of five blocks for figures of 40 pixels: 1/8 in space, 1/2 in time."""
    network = CSN(
        depths=depths,
        stem_width=24,
        stem_kernel=(3, 5, 5),
        inner_widths=(32, 64, 64),
        out_widths=(64, 128, 128),
        spatial_strides=(1, 2, 1),
        temporal_strides=temporal_strides,
    )
    return _open(network)


def _open(network: Backbone) -> Backbone:
    """Start residual branches open; closed ones stay idle in a short training from scratch.

    Accuracy on the miniature classification set after 400 iterations, one run each: 12 % open
    (lr 0.1), 8 % closed (lr 0.2).
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    return network


class Normalize(nn.Module):
    """Bytes to the numbers that a network learned on: (byte / 255 - mean) / deviation.

    Both are kept with a backbone's weights, a number a channel. SlowFast's and pytorchvideo's are
    0.45 and 0.225.
    """

    def __init__(self, mean: Sequence[float] = (0.45,), std: Sequence[float] = (0.225,)) -> None:
        super().__init__()
        mean, std = (255 * torch.tensor(x).expand(3).reshape(1, 3, 1, 1, 1) for x in (mean, std))
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / std)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """uint8 clips (B, 3, T, H, W) to floats of the same shape."""
        # Laid out channels last, CPUs convolve up to 1.7 times faster.
        clips = clips_BCTHW.to(self.mean.dtype, memory_format=torch.channels_last_3d)
        return (clips - self.mean) * self.scale


class Classifier(nn.Module):
    """A backbone with global average pooling and a linear layer, for pretraining."""

    def __init__(self, backbone: Backbone, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = PersonDropout(dropout)
        self.classifier = nn.Linear(backbone.out_channels, num_classes)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """uint8 clips (B, 3, T, H, W) to logits (B, num_classes)."""
        features = self.backbone(clips_BCTHW)
        return self.classifier(self.dropout(features.mean(dim=(2, 3, 4))))


def recompute_activations(network: Backbone) -> None:
    """Keep only residual blocks' inputs for the backward pass: less memory, a third more time."""
    for block in network.modules():
        if isinstance(block, ResBlock):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


class FrozenBatchNorm3d(nn.BatchNorm3d):
    """A batch norm in evaluation mode, under its old names, that the convolution computes."""

    def train(self, mode: bool = True) -> FrozenBatchNorm3d:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the input: the convolution has applied the norm."""
        return x_BCTHW


class FoldedConv3d(nn.Conv3d):
    """A convolution and the frozen batch norm behind it in one: the norm scales the kernel."""

    def __init__(self, conv: nn.Conv3d, norm: FrozenBatchNorm3d) -> None:
        shape = (conv.in_channels, conv.out_channels, conv.kernel_size)
        # pytorchvideo strides by NumPy's integers, which torch.compile does not know.
        options = (tuple(map(int, conv.stride)), conv.padding, conv.dilation, conv.groups)
        super().__init__(*shape, *options, bias=False, device="meta")
        self.weight = conv.weight
        self._norm = (norm,)  # a tuple, since the norm stays registered in its own place

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Convolve and normalise, (B, C, T, H, W)."""
        (norm,) = self._norm
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (C,)
        shift = norm.bias - norm.running_mean * scale
        weight = self.weight * scale[:, None, None, None, None]
        if self.groups == 1 or not x_BCTHW.is_cuda:
            return self._conv_forward(x_BCTHW, weight, shift)
        # torch's own kernel of depthwise convolutions reads rows of pixels, and cuDNN's is slower.
        x_BCTHW = self._conv_forward(x_BCTHW.contiguous(), weight.contiguous(), shift)
        return x_BCTHW.contiguous(memory_format=torch.channels_last_3d)


# How pytorchvideo names a convolution and the batch norm behind it.
_NORMS = {f"conv_{letter}": f"norm_{letter}" for letter in "abc"}
_NORMS |= {"conv": "norm", "branch1_conv": "branch1_norm", "conv_fast_to_slow": "norm"}


def freeze_batchnorm(module: nn.Module) -> None:
    """Freeze every batch norm of a backbone, statistics and affine, after ``train()`` too.

    Paper section 3.1. Do not freeze an untrained network at the paper's size: its residual
    branches start at zero and would stay there.
    """
    for parent in list(module.modules()):
        for conv_name, norm_name in _NORMS.items():
            norm = getattr(parent, norm_name, None)
            if hasattr(parent, conv_name) and type(norm) is nn.BatchNorm3d:
                frozen = FrozenBatchNorm3d(norm.num_features, norm.eps, norm.momentum)
                frozen.to(norm.weight).load_state_dict(norm.state_dict())
                setattr(parent, norm_name, frozen.requires_grad_(False).eval())
                setattr(parent, conv_name, FoldedConv3d(getattr(parent, conv_name), frozen))

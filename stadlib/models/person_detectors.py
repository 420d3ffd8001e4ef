"""The person detectors by name: GFocalV2 in the paper's and in miniature size, torchvision's own.

All take a list of images (3, H, W) in [0, 1] and give boxes, scores and labels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelP6P7

from stadlib.config import InputError, check_word
from stadlib.models.gfocal import SCORE, GFocalV2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
TORCHVISION = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
)


def gfocal_resnet(depth: int, short_sides: Sequence[int], long_side: int) -> GFocalV2:
    """ResNet-50 or -101 with a pyramid of five levels, 256 channels: the paper's size.

    Frozen batch norms and no pretrained weights: load some before training (torchvision's
    ``ResNet50_Weights`` fit ``body.body``).

    Args:
        depth: 50 or 101.
        short_sides: one is drawn an image in training; the last is that of testing. Pixels.
        long_side: limit of the longer side, in pixels.
    """
    check_word("depth", depth, (50, 101))
    body = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}",
        weights=None,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = GFocalV2(body, _transform(short_sides, long_side, 32), strides=(8, 16, 32, 64, 128))
    return model.to(
        memory_format=torch.channels_last
    )  # faster (tests/benchmarks/bench_detector.py)


def gfocal_mini(short_sides: Sequence[int], long_side: int) -> GFocalV2:
    """A detector for pictures of some 100 pixels: six residual blocks, two levels, 64 channels.

    Persons are 20 pixels high or more; a level of stride 4 would have three times the cells of
    these two together.
    """
    widths = (24, 48, 96, 128)
    layers = OrderedDict(stem=_stem(widths[0]))
    for number, (before, width) in enumerate(pairwise(widths), 1):
        shortcut = nn.Sequential(
            nn.Conv2d(before, width, 1, stride=2, bias=False), nn.BatchNorm2d(width)
        )
        down = BasicBlock(before, width, stride=2, downsample=shortcut)
        layers[f"layer{number}"] = nn.Sequential(down, BasicBlock(width, width))
    names = {"layer2": "0", "layer3": "1"}
    trunk = nn.Sequential(layers)
    body = BackboneWithFPN(trunk, names, list(widths[2:]), 64, extra_blocks=_NoMoreLevels())
    transform = _transform(short_sides, long_side, 16)
    model = GFocalV2(body, transform, strides=(8, 16), num_convs=2, anchor_scale=5)
    return model.to(memory_format=torch.channels_last)  # a tenth faster on a CPU


def torchvision_detector(name: str) -> nn.Module:
    """A detector that torchvision ships with weights of COCO, which are downloaded if need be.

    Raises:
        ConfigError: an unknown name; the message lists them.
        InputError: the weights are not here and cannot be fetched.
    """
    check_word("torchvision detector", name, TORCHVISION)
    # One-stage detectors name it otherwise, and overlook words that they do not know.
    threshold = "box_score_thresh" if name.startswith("fasterrcnn") else "score_thresh"
    try:
        return getattr(detection, name)(weights="DEFAULT", **{threshold: SCORE})
    except OSError as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise InputError(
            f"{name}: weights cannot be fetched ({error}); put torchvision's file into {folder}"
        ) from error


def _transform(short_sides: Sequence[int], long_side: int, multiple: int):
    return GeneralizedRCNNTransform(
        tuple(short_sides), long_side, MEAN, STD, size_divisible=multiple
    )


def _stem(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    )


class _NoMoreLevels(ExtraFPNBlock):
    """torchvision's pyramid adds a level unless told otherwise."""

    def forward(self, results: list, x: list, names: list) -> tuple[list, list]:
        """Nothing added."""
        return results, names

"""Adaptive Training Sample Selection: which anchor learns which person (Zhang et al. 2020).

A person's candidates are, on every level of the pyramid, the anchors whose centres are nearest to
the person's; those are taken whose IoU with the person reaches the candidates' mean plus their
standard deviation and whose centre lies inside the person. No threshold is set by hand.

Legend: A anchors of all levels, G persons.

Generalized focal losses and the box distributions they train (Li et al. 2020, 2021).

A side's distance from its point, in strides, is not a number but a distribution over the whole
numbers 0..reg_max, whose expectation is the distance. A point's score is the quality of its box:
the IoU that it should have with a person, 0 for background.

Legend: N points, D = reg_max + 1 numbers of a distribution; 4 sides: left, top, right, bottom.

GFocalV2, the person detector (Li et al. 2021; paper section 3.1), on torchvision's parts.

A feature pyramid; on every cell a box as four distributions and a score, which a small network
corrects by the shape of those distributions: sharp ones mean a well-placed box. There is one class.

Legend: B images, A cells of all levels (one anchor each), D numbers of a distribution, N boxes.

The person detectors by name: GFocalV2 in the paper's and in miniature size, torchvision's own.

All take a list of images (3, H, W) in [0, 1] and give boxes, scores and labels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock
from torchvision.ops import batched_nms, box_iou, generalized_box_iou_loss
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelP6P7

from stadlib.base import InputError, check_word

TOP_K = 9  # candidates a level (ATSS, GFocalV2)
NOBODY = -1


def assign(
    anchors_A4: Tensor, level_sizes: Sequence[int], boxes_G4: Tensor, top_k: int = TOP_K
) -> Tensor:
    """The person that each anchor learns.

    Args:
        anchors_A4: x1 y1 x2 y2 in pixels, the levels one after the other.
        level_sizes: how many anchors each level has.
        boxes_G4: persons, x1 y1 x2 y2 in pixels; G may be 0.
        top_k: candidates a level.

    Returns:
        (A,) int64: index of the person, ``NOBODY`` for background. An anchor that is wanted by
        several persons takes the one it overlaps most.
    """
    if not len(boxes_G4):
        return torch.full((len(anchors_A4),), NOBODY, device=anchors_A4.device)
    iou_AG = box_iou(anchors_A4, boxes_G4)
    centres_A2, persons_G2 = _centres(anchors_A4), _centres(boxes_G4)
    distance_AG = torch.cdist(centres_A2, persons_G2)
    candidates_KG = _nearest(distance_AG, level_sizes, top_k)
    candidate_iou_KG = iou_AG.gather(0, candidates_KG)
    # The unbiased deviation, but 0 for a single candidate, which then stands on its mean.
    unbiased = min(1, len(candidates_KG) - 1)
    least_G = candidate_iou_KG.mean(dim=0) + candidate_iou_KG.std(dim=0, correction=unbiased)
    x_KG, y_KG = centres_A2[candidates_KG].unbind(dim=-1)
    x1, y1, x2, y2 = boxes_G4.unbind(dim=1)
    inside_KG = (x_KG > x1) & (x_KG < x2) & (y_KG > y1) & (y_KG < y2)
    taken_KG = (candidate_iou_KG >= least_G) & inside_KG
    wanted_AG = torch.full_like(iou_AG, -1.0)
    wanted_AG.scatter_(0, candidates_KG, torch.where(taken_KG, candidate_iou_KG, -1.0))
    best_A, person_A = wanted_AG.max(dim=1)
    return torch.where(best_A >= 0, person_A, NOBODY)


def _centres(boxes_N4: Tensor) -> Tensor:
    return (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2


def _nearest(distance_AG: Tensor, level_sizes: Sequence[int], top_k: int) -> Tensor:
    """(K, G) indices of the anchors nearest to each person, ``top_k`` of every level."""
    found, offset = [], 0
    for distances in distance_AG.split(list(level_sizes)):
        nearest = distances.topk(min(top_k, len(distances)), dim=0, largest=False).indices
        found.append(nearest + offset)
        offset += len(distances)
    return torch.cat(found)


BETA = 2.0  # of the quality focal loss


def expected_distance(logits_N4D: Tensor) -> Tensor:
    """(N, 4) expectations of the distributions, in strides."""
    numbers_D = torch.arange(logits_N4D.shape[-1], dtype=logits_N4D.dtype, device=logits_N4D.device)
    return logits_N4D.softmax(dim=-1) @ numbers_D


def decode(points_N2: Tensor, distances_N4: Tensor) -> Tensor:
    """Boxes x1 y1 x2 y2 from points and their distances to the four sides, both in pixels."""
    low, high = distances_N4.split(2, dim=-1)
    return torch.cat([points_N2 - low, points_N2 + high], dim=-1)


def encode(points_N2: Tensor, boxes_N4: Tensor) -> Tensor:
    """Distances from points to the four sides of boxes: the inverse of :func:`decode`."""
    low, high = boxes_N4.split(2, dim=-1)
    return torch.cat([points_N2 - low, high - points_N2], dim=-1)


def quality_focal_loss(scores_N: Tensor, quality_N: Tensor, beta: float = BETA) -> Tensor:
    """(N,) ``|y - s|^beta`` times the cross entropy of score s and quality y, both in [0, 1].

    GFocalV2's score is a product of two probabilities, hence no logits here.
    """
    entropy_N = F.binary_cross_entropy(scores_N, quality_N, reduction="none")
    return (quality_N - scores_N).abs() ** beta * entropy_N


def distribution_focal_loss(logits_ND: Tensor, distance_N: Tensor) -> Tensor:
    """(N,) cross entropy with the two whole numbers around a distance, weighted by nearness.

    Args:
        logits_ND: of distributions over 0..reg_max.
        distance_N: in strides, in [0, reg_max).
    """
    below_N = distance_N.floor().long()
    share_N = distance_N - below_N  # of the number above
    lower_N = F.cross_entropy(logits_ND, below_N, reduction="none")
    upper_N = F.cross_entropy(logits_ND, below_N + 1, reduction="none")
    return lower_N * (1 - share_N) + upper_N * share_N


def aligned_iou(boxes_N4: Tensor, others_N4: Tensor) -> Tensor:
    """(N,) IoU of each box with its partner (torchvision's ``box_iou`` is of all pairs)."""
    low = torch.maximum(boxes_N4[:, :2], others_N4[:, :2])
    high = torch.minimum(boxes_N4[:, 2:], others_N4[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(dim=1) for b in (boxes_N4, others_N4)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)


REG_MAX = 16
STATISTICS = 4  # highest probabilities of a side that the quality is judged by, and their mean
PERSON = 1  # the only label: COCO's and torchvision's
PRIOR = 0.01  # score of a cell before training
SCORE, NMS_IOU, MAX_BOXES, PER_LEVEL = 0.05, 0.6, 100, 1000  # in testing
BOX_WEIGHT, DISTRIBUTION_WEIGHT = 2.0, 0.25


class Cells(NamedTuple):
    """What the head says of every cell, and where the cells are, in pixels of the batch."""

    scores_BA: Tensor
    logits_BA4D: Tensor
    points_A2: Tensor
    strides_A1: Tensor
    level_sizes: list[int]


class LossSums(NamedTuple):
    """Sums over a batch and what they are divided by; with several processes, both are added up.

    Attributes:
        quality: of the quality focal loss, divided by ``positives``.
        box: of the weighted GIoU loss, divided by ``weights``.
        distribution: of the weighted distribution focal loss, likewise.
        positives: number of cells that learn a person.
        weights: sum of their scores.
    """

    quality: Tensor
    box: Tensor
    distribution: Tensor
    positives: float
    weights: float

    def total(self, positives: float, weights: float) -> Tensor:
        """The loss, given the divisors of all processes."""
        box = BOX_WEIGHT * self.box + DISTRIBUTION_WEIGHT * self.distribution
        return self.quality / max(positives, 1.0) + box / max(weights, 1e-6)


class GFocalHead(nn.Module):
    """Scores and distributions of every cell; the same weights on every level of the pyramid.

    Args:
        channels: of the pyramid's maps, and of the towers.
        num_levels: of the pyramid.
        num_convs: of each tower; 4 in the paper.
        reg_max: the largest distance, in strides.
    """

    def __init__(
        self, channels: int, num_levels: int, num_convs: int = 4, reg_max: int = REG_MAX
    ) -> None:
        super().__init__()
        self.reg_max = reg_max
        self.score_tower = _tower(channels, num_convs)
        self.box_tower = _tower(channels, num_convs)
        self.score = nn.Conv2d(channels, 1, 3, padding=1)
        self.box = nn.Conv2d(channels, 4 * (reg_max + 1), 3, padding=1)
        self.scales = nn.Parameter(torch.ones(num_levels))
        self.quality = nn.Sequential(
            nn.Linear(4 * (STATISTICS + 1), 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid()
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(self.score.bias, torch.logit(torch.tensor(PRIOR)).item())

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps (B, C, H, W) of all levels -> scores (B, A) in (0, 1), logits (B, A, 4, D)."""
        scores, logits = [], []
        for map_BCHW, scale in zip(maps, self.scales, strict=True):
            score_BA = self.score(self.score_tower(map_BCHW)).flatten(1)
            box_BKA = (scale * self.box(self.box_tower(map_BCHW))).flatten(2)
            logits_BA4D = box_BKA.transpose(1, 2).unflatten(2, (4, self.reg_max + 1))
            scores.append(score_BA.sigmoid() * self._quality(logits_BA4D))
            logits.append(logits_BA4D)
        return torch.cat(scores, dim=1), torch.cat(logits, dim=1)

    def _quality(self, logits_BA4D: Tensor) -> Tensor:
        """(B, A) how well placed the boxes are, judged by the shape of their distributions."""
        highest = logits_BA4D.softmax(dim=-1).topk(STATISTICS, dim=-1).values
        statistics = torch.cat([highest, highest.mean(dim=-1, keepdim=True)], dim=-1)
        return self.quality(statistics.flatten(2)).squeeze(-1)


class GFocalV2(nn.Module):
    """The detector, with the face of torchvision's: images in, boxes out, or losses in training.

    Args:
        body: an image batch -> the pyramid's maps by name, torchvision's ``BackboneWithFPN``.
        transform: resizes, normalises and batches images.
        strides: of the pyramid's levels, in pixels.
        num_convs: of each of the head's towers.
        anchor_scale: side of the square anchors that ATSS compares with persons, in strides.
    """

    def __init__(
        self,
        body: nn.Module,
        transform: GeneralizedRCNNTransform,
        strides: Sequence[int],
        num_convs: int = 4,
        anchor_scale: int = 8,
    ) -> None:
        super().__init__()
        self.body, self.transform = body, transform
        self.head = GFocalHead(body.out_channels, len(strides), num_convs)
        sizes = tuple((stride * anchor_scale,) for stride in strides)
        self.anchors = AnchorGenerator(sizes, ((1.0,),) * len(strides))
        self.strides = tuple(strides)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> list[dict[str, Tensor]] | LossSums:
        """Detect persons, or in training mode return the losses.

        Args:
            images: (3, H, W) float in [0, 1], of any sizes.
            targets: one an image, in training: ``boxes`` (G, 4) in pixels; G may be 0.

        Returns:
            An image's ``boxes`` (N, 4) in its own pixels, ``scores`` and ``labels`` (all 1),
            the highest score first; or :class:`LossSums`.
        """
        sizes = [tuple(image.shape[-2:]) for image in images]
        batch, targets = self.transform(images, targets)
        maps = list(self.body(batch.tensors).values())
        anchors_A4 = self._anchors(maps)
        level_sizes = [map_BCHW.shape[-2] * map_BCHW.shape[-1] for map_BCHW in maps]
        strides = [
            anchors_A4.new_full((size, 1), stride)
            for size, stride in zip(level_sizes, self.strides, strict=True)
        ]
        centres_A2 = (anchors_A4[:, :2] + anchors_A4[:, 2:]) / 2
        cells = Cells(*self.head(maps), centres_A2, torch.cat(strides), level_sizes)
        if self.training:
            boxes = [target["boxes"] for target in targets]
            chosen = [assign(anchors_A4, level_sizes, boxes_G4) for boxes_G4 in boxes]
            return _losses(cells, torch.stack(chosen), boxes)
        found = _select(cells, batch.image_sizes)
        return self.transform.postprocess(found, batch.image_sizes, sizes)

    def _anchors(self, maps: Sequence[Tensor]) -> Tensor:
        """(A, 4); the generator's own call guesses strides, wrongly where cells overhang."""
        self.anchors.set_cell_anchors(maps[0].dtype, maps[0].device)
        strides = [(stride, stride) for stride in self.strides]
        return torch.cat(self.anchors.grid_anchors([x.shape[-2:] for x in maps], strides))


def _tower(channels: int, num_convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(min(32, channels // 4), channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def _losses(cells: Cells, chosen_BA: Tensor, boxes: Sequence[Tensor]) -> LossSums:
    image_N, cell_N = (chosen_BA != NOBODY).nonzero(as_tuple=True)
    persons = [b[c[c != NOBODY]] for b, c in zip(boxes, chosen_BA, strict=True)]
    stride_N1, logits_N4D = cells.strides_A1[cell_N], cells.logits_BA4D[image_N, cell_N]
    points_N2, wanted_N4 = cells.points_A2[cell_N] / stride_N1, torch.cat(persons) / stride_N1
    found_N4 = decode(points_N2, expected_distance(logits_N4D))  # in strides, as its persons
    quality_BA = torch.zeros_like(cells.scores_BA)
    quality_BA[image_N, cell_N] = aligned_iou(found_N4.detach(), wanted_N4)
    weight_N = cells.scores_BA[image_N, cell_N].detach()
    largest = logits_N4D.shape[-1] - 1
    distance_N4 = encode(points_N2, wanted_N4).clamp(0, largest - 0.01)
    spread_N4 = distribution_focal_loss(logits_N4D.flatten(0, 1), distance_N4.flatten())
    return LossSums(
        quality=quality_focal_loss(cells.scores_BA, quality_BA).sum(),
        box=(weight_N * generalized_box_iou_loss(found_N4, wanted_N4)).sum(),
        distribution=(weight_N * spread_N4.view(-1, 4).mean(dim=1)).sum(),
        positives=float(len(cell_N)),
        weights=weight_N.sum().item(),
    )


def _select(cells: Cells, image_sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
    """The boxes of every image that are good enough and not another's double."""
    images, places, offset = [], [], 0
    for level_BA in cells.scores_BA.split(cells.level_sizes, dim=1):
        best = level_BA.topk(min(PER_LEVEL, level_BA.shape[1]), dim=1)
        image_N, place_N = (best.values > SCORE).nonzero(as_tuple=True)
        images.append(image_N)
        places.append(best.indices[image_N, place_N] + offset)
        offset += level_BA.shape[1]
    image_N, cell_N = torch.cat(images), torch.cat(places)
    distances_N4 = expected_distance(cells.logits_BA4D[image_N, cell_N]) * cells.strides_A1[cell_N]
    limits_B4 = distances_N4.new_tensor([(w, h, w, h) for h, w in image_sizes])
    boxes_N4 = decode(cells.points_A2[cell_N], distances_N4).clamp(min=0)
    boxes_N4 = boxes_N4.minimum(limits_B4[image_N])  # before doubles are told by their overlap
    scores_N = cells.scores_BA[image_N, cell_N]
    kept_N = batched_nms(boxes_N4, scores_N, image_N, NMS_IOU)  # the highest score first
    found = []
    for number in range(len(image_sizes)):
        own = kept_N[image_N[kept_N] == number][:MAX_BOXES]
        labels = torch.full_like(own, PERSON)
        found.append({"boxes": boxes_N4[own], "scores": scores_N[own], "labels": labels})
    return found


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

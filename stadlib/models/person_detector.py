"""GFocalV2, the person detector (Li et al. 2020, 2021; paper section 3.1), and torchvision's own.

Every cell of a feature pyramid gives a box and a score. A side's distance from the cell's point is
a distribution over the whole numbers 0..reg_max of strides, whose expectation is the distance. The
score is the quality of the box: the IoU that it should have with a person, 0 for background. A
small network corrects it by the shape of the distributions, as sharp ones mean a well-placed box.
ATSS chooses the cells that learn a person.

Legend: B images, A cells of all levels (one anchor each), G persons of an image, N cells that are
looked at, D = reg_max + 1 numbers of a distribution; 4 sides: left, top, right, bottom.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection, get_model_weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock
from torchvision.ops import batched_nms, box_iou, generalized_box_iou_loss
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelP6P7

from stadlib.base import InputError, check_word

PERSON = 1  # the only label: COCO's and torchvision's
BACKGROUND = -1  # in place of a person's index
TOP_K = 9  # candidates a level (ATSS, GFocalV2)
REG_MAX = 16
STATISTICS = 4  # highest probabilities of a side that the quality is judged by, and their mean
PRIOR = 0.01  # score of a cell before training
BETA, BOX_WEIGHT, DISTRIBUTION_WEIGHT = 2.0, 2.0, 0.25  # of the losses
SCORE, NMS_IOU, MAX_BOXES, PER_LEVEL = 0.05, 0.6, 100, 1000  # in testing
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
TORCHVISION = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
)


class Cells(NamedTuple):
    """What the head says of every cell, and where the cells are, in pixels of the batch."""

    scores_BA: Tensor
    logits_BA4D: Tensor
    points_A2: Tensor
    strides_A1: Tensor
    level_sizes: list[int]


class LossSums(NamedTuple):
    """Sums over a batch and what they are divided by; with several processes, both are added up."""

    quality: Tensor  # of the quality focal loss, divided by ``positives``
    box: Tensor  # of the weighted GIoU loss, divided by ``weights``
    distribution: Tensor  # of the weighted distribution focal loss, likewise
    positives: float  # number of cells that learn a person
    weights: float  # sum of their scores

    def total(self, positives: float, weights: float) -> Tensor:
        """The loss, given the divisors of all processes."""
        box = BOX_WEIGHT * self.box + DISTRIBUTION_WEIGHT * self.distribution
        return self.quality / max(positives, 1.0) + box / max(weights, 1e-6)


class GFocalV2(nn.Module):
    """The detector, used as torchvision's are: images in, boxes out, or losses in training."""

    def __init__(
        self,
        body: nn.Module,  # an image batch to the pyramid's maps by name (BackboneWithFPN)
        transform: GeneralizedRCNNTransform,  # resizes, normalises and batches images
        strides: Sequence[int],  # of the pyramid's levels, in pixels
        num_convs: int = 4,  # of each of the head's towers
        anchor_scale: int = 8,  # side of the anchors that ATSS compares with persons, in strides
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
        """Detect persons in images (3, H, W) in [0, 1], or in training return the losses.

        Training needs every image's ``boxes`` (G, 4) in pixels; G may be 0. Detection gives
        ``boxes`` (N, 4) in the image's pixels, ``scores`` and ``labels``, the best first.
        """
        sizes = [tuple(image.shape[-2:]) for image in images]
        batch, targets = self.transform(images, targets)
        maps = list(self.body(batch.tensors).values())
        scores_BA, logits_BA4D = self.head(maps)
        # The anchors' grid by our strides: the generator's own call guesses them from the maps'
        # sizes, wrongly where cells overhang the image.
        grids = [map_BCHW.shape[-2:] for map_BCHW in maps]
        self.anchors.set_cell_anchors(scores_BA.dtype, maps[0].device)
        pairs = [(stride, stride) for stride in self.strides]
        anchors_A4 = torch.cat(self.anchors.grid_anchors(grids, pairs))
        level_sizes = [height * width for height, width in grids]
        strides = [
            anchors_A4.new_full((size, 1), stride)
            for size, stride in zip(level_sizes, self.strides, strict=True)
        ]
        centres_A2 = _centres(anchors_A4)
        cells = Cells(scores_BA, logits_BA4D, centres_A2, torch.cat(strides), level_sizes)
        # bfloat16 is for the networks above: it knows no half pixels of large pictures.
        with torch.autocast(scores_BA.device.type, enabled=False):
            if self.training:
                boxes = [target["boxes"] for target in targets]
                persons = [assign(anchors_A4, level_sizes, boxes_G4) for boxes_G4 in boxes]
                return _losses(cells, torch.stack(persons), boxes)
            results = _select(cells, batch.image_sizes)
        return self.transform.postprocess(results, batch.image_sizes, sizes)


class GFocalHead(nn.Module):
    """Scores and distributions of every cell; the same weights on every level of the pyramid."""

    def __init__(self, channels: int, num_levels: int, num_convs: int, reg_max: int = REG_MAX):
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
        """Maps (B, C, H, W) of all levels to scores (B, A) in (0, 1) and logits (B, A, 4, D)."""
        scores, logits = [], []
        for map_BCHW, scale in zip(maps, self.scales, strict=True):
            score_BA = self.score(self.score_tower(map_BCHW)).flatten(1).to(scale.dtype)
            box_BKHW = self.box(self.box_tower(map_BCHW)).to(scale.dtype)  # K = 4 D
            box_BKA = (scale * box_BKHW).flatten(2)
            logits_BA4D = box_BKA.transpose(1, 2).unflatten(2, (4, self.reg_max + 1))
            # The quality: how sharp the four distributions are, whatever their place.
            highest = logits_BA4D.softmax(dim=-1).topk(STATISTICS, dim=-1).values
            statistics = torch.cat([highest, highest.mean(dim=-1, keepdim=True)], dim=-1)
            quality_BA = self.quality(statistics.flatten(2)).squeeze(-1)
            scores.append(score_BA.sigmoid() * quality_BA.to(scale.dtype))
            logits.append(logits_BA4D)
        return torch.cat(scores, dim=1), torch.cat(logits, dim=1)


def _tower(channels: int, num_convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(min(32, channels // 4), channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def assign(anchors_A4: Tensor, level_sizes: Sequence[int], boxes_G4: Tensor) -> Tensor:
    """Adaptive Training Sample Selection: the person that each anchor learns (Zhang et al. 2020).

    A person's candidates are the ``TOP_K`` anchors of every level whose centres are nearest. A
    candidate is taken if its IoU with the person reaches the candidates' mean plus their standard
    deviation, and its centre lies inside the person. An anchor that several persons take learns
    the one that it overlaps most. Returns their index, (A,) int64, or ``BACKGROUND``.
    """
    if not len(boxes_G4):
        return torch.full((len(anchors_A4),), BACKGROUND, device=anchors_A4.device)
    iou_AG = box_iou(anchors_A4, boxes_G4)
    centres_A2 = _centres(anchors_A4)
    distance_AG = torch.cdist(centres_A2, _centres(boxes_G4))
    # The K candidates of each person.
    nearest, offset = [], 0
    for distances in distance_AG.split(list(level_sizes)):
        indices = distances.topk(min(TOP_K, len(distances)), dim=0, largest=False).indices
        nearest.append(indices + offset)
        offset += len(distances)
    candidates_KG = torch.cat(nearest)
    # Their least IoU; a single candidate has no deviation and stands on its mean.
    candidate_iou_KG = iou_AG.gather(0, candidates_KG)
    unbiased = min(1, len(candidates_KG) - 1)
    least_G = candidate_iou_KG.mean(dim=0) + candidate_iou_KG.std(dim=0, correction=unbiased)
    x_KG, y_KG = centres_A2[candidates_KG].unbind(dim=-1)
    x1, y1, x2, y2 = boxes_G4.unbind(dim=1)
    inside_KG = (x_KG > x1) & (x_KG < x2) & (y_KG > y1) & (y_KG < y2)
    taken_KG = (candidate_iou_KG >= least_G) & inside_KG
    # Of the persons that take an anchor, the one of the highest IoU.
    taken_iou_AG = torch.full_like(iou_AG, -1.0)
    taken_iou_AG.scatter_(0, candidates_KG, torch.where(taken_KG, candidate_iou_KG, -1.0))
    best_A, person_A = taken_iou_AG.max(dim=1)
    return torch.where(best_A >= 0, person_A, BACKGROUND)


def _centres(boxes_N4: Tensor) -> Tensor:
    return (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2


def _losses(cells: Cells, person_BA: Tensor, boxes: Sequence[Tensor]) -> LossSums:
    """The losses of a batch, given the index of the person that each cell learns."""
    # The N cells that learn a person: their predicted and their wanted boxes, in strides.
    image_N, cell_N = (person_BA != BACKGROUND).nonzero(as_tuple=True)
    persons = [b[p[p != BACKGROUND]] for b, p in zip(boxes, person_BA, strict=True)]
    stride_N1, logits_N4D = cells.strides_A1[cell_N], cells.logits_BA4D[image_N, cell_N]
    points_N2, wanted_N4 = cells.points_A2[cell_N] / stride_N1, torch.cat(persons) / stride_N1
    boxes_N4 = decode(points_N2, expected_distance(logits_N4D))
    # A score learns the IoU of its box, 0 in the background.
    quality_BA = torch.zeros_like(cells.scores_BA)
    quality_BA[image_N, cell_N] = aligned_iou(boxes_N4.detach(), wanted_N4)
    # Boxes and distributions learn in proportion to their score.
    weight_N = cells.scores_BA[image_N, cell_N].detach()
    largest = logits_N4D.shape[-1] - 1
    distance_N4 = encode(points_N2, wanted_N4).clamp(0, largest - 0.01)
    spread_N4 = distribution_focal_loss(logits_N4D.flatten(0, 1), distance_N4.flatten())
    return LossSums(
        quality=quality_focal_loss(cells.scores_BA, quality_BA).sum(),
        box=(weight_N * generalized_box_iou_loss(boxes_N4, wanted_N4)).sum(),
        distribution=(weight_N * spread_N4.view(-1, 4).mean(dim=1)).sum(),
        positives=float(len(cell_N)),
        weights=weight_N.sum().item(),
    )


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


def quality_focal_loss(scores_N: Tensor, quality_N: Tensor) -> Tensor:
    """(N,) ``|y - s|^beta`` times the cross entropy of score s and quality y, both in [0, 1]."""
    entropy_N = F.binary_cross_entropy(scores_N, quality_N, reduction="none")
    return (quality_N - scores_N).abs() ** BETA * entropy_N


def distribution_focal_loss(logits_ND: Tensor, distance_N: Tensor) -> Tensor:
    """(N,) cross entropy with the two whole numbers around a distance, weighted by nearness."""
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


def _select(cells: Cells, image_sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
    """The boxes of every image whose score is high enough, without doubles."""
    # The best cells of every level, of all images.
    images, indices, offset = [], [], 0
    for level_BA in cells.scores_BA.split(cells.level_sizes, dim=1):
        best = level_BA.topk(min(PER_LEVEL, level_BA.shape[1]), dim=1)
        image_N, rank_N = (best.values > SCORE).nonzero(as_tuple=True)
        images.append(image_N)
        indices.append(best.indices[image_N, rank_N] + offset)
        offset += level_BA.shape[1]
    image_N, cell_N = torch.cat(images), torch.cat(indices)
    # Their boxes, cut to the image before doubles are recognised by their overlap.
    distances_N4 = expected_distance(cells.logits_BA4D[image_N, cell_N]) * cells.strides_A1[cell_N]
    limits_B4 = distances_N4.new_tensor([(w, h, w, h) for h, w in image_sizes])
    boxes_N4 = decode(cells.points_A2[cell_N], distances_N4).clamp(min=0)
    boxes_N4 = boxes_N4.minimum(limits_B4[image_N])
    scores_N = cells.scores_BA[image_N, cell_N]
    kept_N = batched_nms(boxes_N4, scores_N, image_N, NMS_IOU)  # the highest score first
    results = []
    for number in range(len(image_sizes)):
        kept = kept_N[image_N[kept_N] == number][:MAX_BOXES]
        labels = torch.full_like(kept, PERSON)
        results.append({"boxes": boxes_N4[kept], "scores": scores_N[kept], "labels": labels})
    return results


def gfocal_resnet(depth: int, short_sides: Sequence[int], long_side: int) -> GFocalV2:
    """ResNet-50 or -101 with a pyramid of five levels, 256 channels: the paper's size.

    Batch norms are frozen: load torchvision's ``ResNet50_Weights`` into ``body.body``. A short side
    in pixels is drawn for every image in training, the last one is that of testing.
    """
    check_word("depth", depth, (50, 101))
    body = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}",
        weights=None,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    transform = _transform(short_sides, long_side, 32)
    model = GFocalV2(body, transform, strides=(8, 16, 32, 64, 128))
    return model.to(memory_format=torch.channels_last)  # faster: benchmarks/bench_detector.py


def gfocal_mini(short_sides: Sequence[int], long_side: int) -> GFocalV2:
    """A detector for pictures of some 100 pixels: six residual blocks, three levels, 64 channels.

    Persons are 8 pixels high or more; without the level of stride 4 none below 20 is found.
    """
    widths = (24, 48, 96, 128)
    stem = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
    layers = OrderedDict(stem=nn.Sequential(stem, nn.BatchNorm2d(widths[0]), nn.ReLU()))
    for number, (before, width) in enumerate(pairwise(widths), 1):
        shortcut = nn.Sequential(
            nn.Conv2d(before, width, 1, stride=2, bias=False), nn.BatchNorm2d(width)
        )
        down = BasicBlock(before, width, stride=2, downsample=shortcut)
        layers[f"layer{number}"] = nn.Sequential(down, BasicBlock(width, width))
    names = {"layer1": "0", "layer2": "1", "layer3": "2"}
    trunk = nn.Sequential(layers)
    body = BackboneWithFPN(trunk, names, list(widths[1:]), 64, extra_blocks=_NoMoreLevels())
    transform = _transform(short_sides, long_side, 16)
    model = GFocalV2(body, transform, strides=(4, 8, 16), num_convs=2, anchor_scale=5)
    return model.to(memory_format=torch.channels_last)  # a tenth faster on a CPU


class _NoMoreLevels(ExtraFPNBlock):
    """Keeps torchvision's pyramid from adding a level."""

    def forward(self, results: list, x: list, names: list) -> tuple[list, list]:
        """Nothing added."""
        return results, names


def _transform(short_sides: Sequence[int], long_side: int, multiple: int):
    return GeneralizedRCNNTransform(
        tuple(short_sides), long_side, MEAN, STD, size_divisible=multiple
    )


def torchvision_detector(name: str) -> nn.Module:
    """A detector that torchvision ships with weights of COCO, which are downloaded if need be."""
    check_word("torchvision detector", name, TORCHVISION)
    # One-stage detectors name it otherwise, and overlook options that they do not know.
    threshold = "box_score_thresh" if name.startswith("fasterrcnn") else "score_thresh"
    try:
        return getattr(detection, name)(weights="DEFAULT", **{threshold: SCORE})
    except OSError as error:
        folder, url = f"{torch.hub.get_dir()}/checkpoints", get_model_weights(name).DEFAULT.url
        raise InputError(
            f"{name}: weights cannot be fetched ({error}); put the file of {url} into {folder}"
        ) from error

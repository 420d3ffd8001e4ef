"""GFocalV2, the person detector (Li et al. 2021; paper section 3.1), on torchvision's parts.

A feature pyramid; on every cell a box as four distributions and a score, which a small network
corrects by the shape of those distributions: sharp ones mean a well-placed box. There is one class.

Legend: B images, A cells of all levels (one anchor each), D numbers of a distribution, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import batched_nms, generalized_box_iou_loss

from stadlib.models import atss
from stadlib.models.gfocal_losses import (
    aligned_iou,
    decode,
    distribution_focal_loss,
    encode,
    expected_distance,
    quality_focal_loss,
)

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
            chosen = [atss.assign(anchors_A4, level_sizes, boxes_G4) for boxes_G4 in boxes]
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
    image_N, cell_N = (chosen_BA != atss.NOBODY).nonzero(as_tuple=True)
    persons = [b[c[c != atss.NOBODY]] for b, c in zip(boxes, chosen_BA, strict=True)]
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

"""Generalized focal losses and the box distributions they train (Li et al. 2020, 2021).

A side's distance from its point, in strides, is not a number but a distribution over the whole
numbers 0..reg_max, whose expectation is the distance. A point's score is the quality of its box:
the IoU that it should have with a person, 0 for background.

Legend: N points, D = reg_max + 1 numbers of a distribution; 4 sides: left, top, right, bottom.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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

"""Adaptive Training Sample Selection: which anchor learns which person (Zhang et al. 2020).

A person's candidates are, on every level of the pyramid, the anchors whose centres are nearest to
the person's; those are taken whose IoU with the person reaches the candidates' mean plus their
standard deviation and whose centre lies inside the person. No threshold is set by hand.

Legend: A anchors of all levels, G persons.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

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

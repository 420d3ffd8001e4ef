"""ATSS against its definition, one person and one anchor at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stadlib.models.person_detector import NOBODY, assign

SIZE = 64  # of the picture, pixels
STRIDES = (4, 8, 16, 32)  # the last level has four cells: fewer than candidates are wanted


def grid(strides: tuple[int, ...] = STRIDES, scale: int = 6) -> tuple[Tensor, list[int]]:
    """Square anchors on every cell of every level, and how many a level has."""
    levels = []
    for stride in strides:
        places = np.arange(0, SIZE, stride, dtype=np.float64)
        x, y = np.meshgrid(places, places)
        half = scale * stride / 2
        levels.append(np.stack([x - half, y - half, x + half, y + half], axis=-1).reshape(-1, 4))
    return torch.from_numpy(np.concatenate(levels)), [len(level) for level in levels]


def centre(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def wanted_by(person: list[float], anchors: list, level_sizes: list[int], top_k: int) -> dict:
    """The anchors that a person takes, with their IoU (Zhang et al. 2020, algorithm 1)."""
    candidates, first = [], 0
    px, py = centre(person)
    for size in level_sizes:
        level = range(first, first + size)
        near = sorted(level, key=lambda a: np.hypot(*np.subtract(centre(anchors[a]), (px, py))))
        candidates += near[:top_k]
        first += size
    ious = {a: overlap(anchors[a], person) for a in candidates}
    spread = np.std([*ious.values()], ddof=1) if len(ious) > 1 else 0.0
    least = np.mean([*ious.values()]) + spread
    return {
        a: iou
        for a, iou in ious.items()
        if iou >= least
        and person[0] < centre(anchors[a])[0] < person[2]
        and person[1] < centre(anchors[a])[1] < person[3]
    }


def by_definition(
    anchors_A4: Tensor, level_sizes: list[int], boxes_G4: Tensor, top_k: int = 9
) -> list[int]:
    anchors, best = anchors_A4.tolist(), [(0.0, NOBODY)] * len(anchors_A4)
    for number, person in enumerate(boxes_G4.tolist()):
        for a, iou in wanted_by(person, anchors, level_sizes, top_k).items():
            if best[a][1] == NOBODY or iou > best[a][0]:
                best[a] = (iou, number)
    return [number for _, number in best]


def persons(seed: int, count: int, least: float = 3.0) -> Tensor:
    """Boxes of any place and size, partly outside of the picture; no two distances are equal."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-8, SIZE - 8, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(least, SIZE, (count, 2))], axis=1)
    return torch.from_numpy(boxes)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([1, 4, 9, 30]))
def test_equals_the_definition(seed, count, top_k):
    anchors, level_sizes = grid()
    boxes = persons(seed, count)
    found = assign(anchors, level_sizes, boxes, top_k)
    assert found.dtype == torch.int64 and found.shape == (len(anchors),)
    assert found.tolist() == by_definition(anchors, level_sizes, boxes, top_k)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_equals_the_definition_where_persons_crowd(seed, count):
    """Persons a few pixels apart want the same anchors; the higher IoU decides."""
    anchors, level_sizes = grid()
    rng = np.random.default_rng(seed)
    boxes = persons(seed, 1, least=20).repeat(count + 1, 1)
    boxes += torch.from_numpy(rng.normal(0, 2, tuple(boxes.shape)))
    found = assign(anchors, level_sizes, boxes)
    assert found.tolist() == by_definition(anchors, level_sizes, boxes)


def test_an_anchor_wanted_by_two_goes_to_whom_it_overlaps_most():
    anchors, level_sizes = grid()
    better = torch.tensor([[4.3, 4.1, 29.2, 28.9]], dtype=torch.float64)
    both = torch.cat([better + 2.2, better])
    alone = [assign(anchors, level_sizes, box[None]) != NOBODY for box in both]
    contested = (alone[0] & alone[1]).nonzero().flatten().tolist()
    found = assign(anchors, level_sizes, both)
    winners = set()
    for a in contested:
        ious = [overlap(anchors[a].tolist(), box) for box in both.tolist()]
        assert found[a] == int(np.argmax(ious))
        winners.add(int(found[a]))
    assert len(contested) >= 2 and winners == {0, 1}
    assert torch.equal(found != NOBODY, alone[0] | alone[1])


def test_the_order_of_persons_does_not_matter():
    anchors, level_sizes = grid()
    boxes = persons(5, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    first, other = assign(anchors, level_sizes, boxes), assign(anchors, level_sizes, boxes[order])
    assert torch.equal(first, torch.where(other == NOBODY, NOBODY, order[other]))
    assert len(first.unique()) > 3


def test_nobody_leaves_every_anchor_to_the_background():
    anchors, level_sizes = grid()
    found = assign(anchors, level_sizes, torch.zeros(0, 4, dtype=torch.float64))
    assert found.dtype == torch.int64 and found.tolist() == [NOBODY] * len(anchors)


def test_a_person_between_the_anchors_is_learned_by_none():
    """No centre lies inside: ATSS gives such a person nothing, and others keep theirs."""
    anchors, level_sizes = grid((8, 16))
    small = torch.tensor([[17.0, 17.0, 20.0, 21.0]], dtype=torch.float64)
    large = torch.tensor([[2.3, 1.2, 50.4, 60.1]], dtype=torch.float64)
    assert assign(anchors, level_sizes, small).tolist() == [NOBODY] * len(anchors)
    both = assign(anchors, level_sizes, torch.cat([small, large]))
    assert set(both.tolist()) == {NOBODY, 1}
    assert torch.equal(both == 1, assign(anchors, level_sizes, large) == 0)


@pytest.mark.parametrize("box", [[-3.0, -3.0, 4.0, 5.0], [30.0, 30.0, 44.0, 45.0]])
def test_a_single_anchor_stands_on_its_own_iou(box):
    """One candidate: no deviation, so that it is taken exactly if its centre lies inside."""
    anchor = torch.tensor([[-12.0, -12.0, 12.0, 12.0]])
    found = assign(anchor, [1], torch.tensor([box]))
    assert found.tolist() == by_definition(anchor, [1], torch.tensor([box]))
    assert found.tolist() == [0 if box[0] < 0 < box[2] else NOBODY]


def test_single_precision_agrees_with_double():
    anchors, level_sizes = grid()
    for seed in range(40):
        boxes = persons(seed, 4)
        single = assign(anchors.float(), level_sizes, boxes.float())
        assert torch.equal(single, assign(anchors, level_sizes, boxes))

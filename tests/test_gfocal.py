"""GFocalV2 against its formulas, one number at a time, and what must hold of any detector."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn
from torchvision.ops import box_iou

from stadlib.data.rows import COLUMNS
from stadlib.evaluation.persons import person_ap
from stadlib.models import person_detector
from stadlib.models.person_detector import (
    PERSON,
    GFocalHead,
    GFocalV2,
    LossSums,
    aligned_iou,
    decode,
    distribution_focal_loss,
    encode,
    expected_distance,
    gfocal_mini,
    quality_focal_loss,
)

SIZE = (96, 96)
PERSONS = [
    [[4.0, 6.5, 46.0, 58.0], [28.0, 20.0, 87.5, 90.0]],
    [[2.5, 3.0, 90.0, 92.0]],
    [],
    [[0.0, 0.0, 39.0, 42.0]],
]
exact = {"rtol": 1e-9, "atol": 1e-12}


def boxes_of(values: np.ndarray) -> Tensor:
    """Boxes with an area out of any corners and sides."""
    low, side = torch.from_numpy(values[:, :2]), torch.from_numpy(np.abs(values[:, 2:]))
    return torch.cat([low, low + side + 0.1], dim=1)


def numbers(columns: int) -> st.SearchStrategy:
    side = st.floats(-100, 100, allow_subnormal=False)
    shape = st.integers(1, 12).map(lambda rows: (rows, columns))
    return arrays.arrays(np.float64, shape, elements=side)


# -------------------------------------------------------------------------------------- formulas


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-3, 0.999), st.floats(0, 1)), min_size=1, max_size=20),
    st.sampled_from([1.0, 2.0, 2.5]),
)
def test_quality_focal_loss_is_its_formula(pairs, beta):
    scores, wanted = torch.tensor(pairs, dtype=torch.float64).unbind(dim=1)
    expected = [
        abs(y - s) ** beta * -((1 - y) * math.log(1 - s) + y * math.log(s)) for s, y in pairs
    ]
    found = quality_focal_loss(scores, wanted, beta)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), **exact)


@settings(deadline=None)
@given(
    arrays.arrays(np.float64, (6, 9), elements=st.floats(-8, 8)),
    arrays.arrays(np.float64, 6, elements=st.floats(0, 7.99)),
)
def test_distribution_focal_loss_is_its_formula(logits, distances):
    expected = []
    for row, distance in zip(logits, distances, strict=True):
        share = np.exp(row) / np.exp(row).sum()
        below = math.floor(distance)
        near, far = below + 1 - distance, distance - below
        expected.append(-(near * math.log(share[below]) + far * math.log(share[below + 1])))
    found = distribution_focal_loss(torch.from_numpy(logits), torch.from_numpy(distances))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), **exact)


@settings(deadline=None)
@given(arrays.arrays(np.float64, (3, 4, 17), elements=st.floats(-8, 8)))
def test_a_distance_is_the_expectation_of_its_distribution(logits):
    share = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = sum(number * share[..., number] for number in range(17))
    found = expected_distance(torch.from_numpy(logits))
    torch.testing.assert_close(found, torch.from_numpy(expected), **exact)


@settings(deadline=None)
@given(numbers(6))
def test_encoding_and_decoding_are_inverses(values):
    points, boxes = torch.from_numpy(values[:, 4:]), boxes_of(values[:, :4])
    torch.testing.assert_close(decode(points, encode(points, boxes)), boxes, rtol=0, atol=1e-9)
    distances = torch.from_numpy(values[:, :4])
    torch.testing.assert_close(
        encode(points, decode(points, distances)), distances, rtol=0, atol=1e-9
    )


def test_distances_are_to_left_top_right_and_bottom():
    point, box = torch.tensor([[10.0, 20.0]]), torch.tensor([[7.0, 15.0, 18.0, 21.0]])
    assert encode(point, box).tolist() == [[3.0, 5.0, 8.0, 1.0]]


@settings(deadline=None)
@given(numbers(8))
def test_aligned_iou_is_the_diagonal_of_torchvisions(values):
    boxes, others = boxes_of(values[:, :4]), boxes_of(values[:, 4:])
    others[::3] = boxes[::3] + 0.05  # some that overlap whatever is drawn
    torch.testing.assert_close(
        aligned_iou(boxes, others), box_iou(boxes, others).diagonal(), **exact
    )


def test_a_box_without_area_overlaps_nothing():
    flat = torch.tensor([[3.0, 3.0, 3.0, 9.0], [5.0, 5.0, 2.0, 2.0]])
    assert aligned_iou(flat, torch.tensor([[0.0, 0.0, 9.0, 9.0]]).expand(2, 4)).tolist() == [0, 0]


# ------------------------------------------------------------------------------------------ losses


def random_model(short_side: int = min(SIZE), reg_max: int = 16) -> GFocalV2:
    """In double precision, with boxes and scores of every kind."""
    torch.manual_seed(0)
    model = gfocal_mini((short_side,), 144)
    model.head = GFocalHead(model.body.out_channels, len(model.strides), 2, reg_max)
    model.double()
    nn.init.normal_(model.head.score.weight, std=0.05)
    nn.init.constant_(model.head.score.bias, 0.5)
    nn.init.normal_(model.head.box.weight, std=0.1)
    nearness = -0.4 * torch.arange(model.head.reg_max + 1.0)
    nn.init.normal_(model.head.scales, 1.0, 0.2)
    with torch.no_grad():
        model.head.box.bias.copy_(nearness.repeat(4))
    return model


def in_training(model: GFocalV2) -> GFocalV2:
    """But for the norms, which make a picture's numbers depend on the others of its batch."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def some_images(count: int, size: tuple[int, int] = SIZE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(3, *size, dtype=torch.float64, generator=generator) for _ in range(count)]


def as_targets(persons: list) -> list[dict[str, Tensor]]:
    boxes = [torch.tensor(some, dtype=torch.float64).view(-1, 4) for some in persons]
    return [{"boxes": boxes_G4} for boxes_G4 in boxes]


def iou_and_giou(a: list[float], b: list[float]) -> tuple[float, float]:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = width * height / union
    return iou, iou - (hull - union) / hull


def cells_of(model: GFocalV2, images: list[Tensor], targets: list[dict[str, Tensor]]):
    """What the head says, where its cells are (point, stride, level), and the resized persons."""
    batch, targets = model.transform(images, targets)
    maps = list(model.body(batch.tensors).values())
    places = []
    for level, (map_BCHW, stride) in enumerate(zip(maps, model.strides, strict=True)):
        height, width = map_BCHW.shape[-2:]
        cells = [(x, y) for y in range(height) for x in range(width)]
        places += [(x * stride, y * stride, stride, level) for x, y in cells]
    return *model.head(maps), places, [target["boxes"] for target in targets]


def by_definition(model: GFocalV2, images: list[Tensor], targets: list) -> tuple[LossSums, set]:
    """The sums, cell by cell (Li et al. 2020, 2021), and which levels learn a person."""
    scores, logits, places, persons = cells_of(model, images, targets)
    halves = [size / 2 for (size,) in model.anchors.sizes]
    corners = [
        [x - halves[level], y - halves[level], x + halves[level], y + halves[level]]
        for x, y, _, level in places
    ]
    anchors = torch.tensor(corners, dtype=torch.float64)
    sizes = [sum(place[3] == level for place in places) for level in range(len(halves))]
    levels = set()
    quality = box = distribution = weights = 0.0
    positives = 0
    for number, boxes in enumerate(persons):
        chosen = person_detector.assign(anchors, sizes, boxes).tolist()
        for cell, (x, y, stride, level) in enumerate(places):
            score, wanted = scores[number, cell].item(), 0.0
            if chosen[cell] != person_detector.NOBODY:
                person = boxes[chosen[cell]].tolist()
                shares = logits[number, cell].softmax(dim=-1).tolist()
                left, top, right, bottom = (
                    stride * sum(k * share for k, share in enumerate(side)) for side in shares
                )
                found = [x - left, y - top, x + right, y + bottom]
                wanted, giou = iou_and_giou(found, person)
                distances = (x - person[0], y - person[1], person[2] - x, person[3] - y)
                box += score * (1 - giou)
                distribution += score * np.mean([
                    dfl(side, min(max(d / stride, 0), len(side) - 1.01))
                    for side, d in zip(shares, distances, strict=True)
                ])  # fmt: skip
                positives, weights = positives + 1, weights + score
                levels.add(level)
            entropy = -((1 - wanted) * math.log(1 - score) + wanted * math.log(score))
            quality += (wanted - score) ** 2 * entropy
    return LossSums(quality, box, distribution, positives, weights), levels


def dfl(shares: list[float], distance: float) -> float:
    below = math.floor(distance)
    far = distance - below
    return -((1 - far) * math.log(shares[below]) + far * math.log(shares[below + 1]))


@pytest.mark.parametrize(
    ("size", "multiple", "reg_max"),
    [((96, 96), 16, 16), ((96, 96), 4, 16), ((92, 108), 4, 16), ((144, 192), 16, 16),
     ((96, 96), 16, 3)],
)  # fmt: skip
def test_the_losses_are_their_definition(size, multiple, reg_max):
    """Also where cells overhang the picture, where it is resized, where persons are too large."""
    model = in_training(random_model(min(*size, 96), reg_max))
    model.transform.size_divisible = multiple
    images, targets = some_images(2, size), as_targets(PERSONS[:2])
    sums, (expected, levels) = model(images, targets), by_definition(model, images, targets)
    assert sums.positives == expected.positives >= 6
    assert levels == {*range(len(model.strides))}
    for name in ("quality", "box", "distribution", "weights"):
        found = torch.as_tensor(getattr(sums, name)).item()
        assert found == pytest.approx(getattr(expected, name), rel=1e-6)
    total = expected.quality / expected.positives
    total += (2 * expected.box + 0.25 * expected.distribution) / expected.weights
    assert sums.total(sums.positives, sums.weights).item() == pytest.approx(total, rel=1e-6)


def test_the_parts_of_a_batch_add_up_to_its_loss():
    """What several processes do: each divides its own sums by the numbers of all."""
    model = in_training(random_model())
    images, targets = some_images(4), as_targets(PERSONS)
    whole = model(images, targets)
    halves = [model(images[:2], targets[:2]), model(images[2:], targets[2:])]
    positives = sum(half.positives for half in halves)
    weights = sum(half.weights for half in halves)
    assert positives == whole.positives > halves[0].positives > 0
    assert weights == pytest.approx(whole.weights)
    total = whole.total(whole.positives, whole.weights)
    torch.testing.assert_close(sum(half.total(positives, weights) for half in halves), total)
    alone = sum(half.total(half.positives, half.weights) for half in halves) / 2
    assert not torch.isclose(alone, total)


@pytest.mark.parametrize("persons", [[[], []], [[], PERSONS[0]]])
def test_a_picture_without_a_person_gives_finite_losses_and_gradients(persons):
    model = random_model().train()
    sums = model(some_images(2), as_targets(persons))
    loss = sums.total(sums.positives, sums.weights)
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    somebody = any(persons)
    assert (sums.positives > 0) == (sums.box > 0) == (sums.distribution > 0) == somebody


# -------------------------------------------------------------------------------------------- head


def test_scores_are_probabilities_and_cells_stand_level_by_level():
    torch.manual_seed(0)
    head = GFocalHead(16, num_levels=2, num_convs=1, reg_max=8)
    nn.init.normal_(head.score.weight, std=1.0)
    nn.init.normal_(head.box.weight, std=1.0)
    maps = [torch.randn(3, 16, 5, 4), torch.randn(3, 16, 2, 2)]
    scores, logits = head(maps)
    assert scores.shape == (3, 24) and logits.shape == (3, 24, 4, 9)
    assert (scores > 0).all() and (scores < 1).all() and scores.std() > 0.05
    again = head([maps[0], maps[1].roll(1, dims=0)])
    for found, other in zip((scores, logits), again, strict=True):
        torch.testing.assert_close(other[:, :20], found[:, :20])
        torch.testing.assert_close(other[:, 20:], found[:, 20:].roll(1, dims=0))


def test_untrained_every_cell_is_probably_background():
    torch.manual_seed(0)
    head = GFocalHead(16, num_levels=1)
    scores, _ = head([torch.randn(2, 16, 6, 6)])
    assert (scores < 0.02).all()


def test_the_shape_of_the_distributions_judges_the_score_and_their_place_does_not():
    torch.manual_seed(0)
    head = GFocalHead(16, num_levels=1, num_convs=1, reg_max=8)
    nn.init.zeros_(head.box.weight)
    nn.init.normal_(head.score.weight, std=0.3)
    features = [torch.randn(1, 16, 4, 4)]

    def scores(peak: float, place: int) -> Tensor:
        with torch.no_grad():
            head.box.bias.zero_().view(4, 9)[:, place] = peak
        found, logits = head(features)
        assert torch.equal(logits[0, 0], head.box.bias.view(4, 9))  # sides, then numbers
        return found

    flat, sharp = scores(0.0, 2), scores(8.0, 2)
    torch.testing.assert_close(scores(8.0, 6), sharp)
    ratio = sharp / flat
    assert (ratio - 1).abs().min() > 0.01  # every cell's score moved ...
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))  # ... by one factor


# --------------------------------------------------------------------------------------- detecting


@pytest.fixture(scope="module")
def model() -> GFocalV2:
    return random_model().eval()


@torch.inference_mode()
def detected(model: GFocalV2, images: list[Tensor]) -> list[dict[str, Tensor]]:
    return model(images)


def test_detections_are_sorted_boxes_of_persons_inside_the_picture(model):
    sizes = [SIZE, (96, 140), (130, 90)]
    images = [image for size in sizes for image in some_images(1, size)]
    for (height, width), found in zip(sizes, detected(model, images), strict=True):
        boxes, scores = found["boxes"], found["scores"]
        assert 30 < len(boxes) == len(scores) == len(found["labels"]) <= 100
        limits = torch.tensor([width, height] * 2)
        assert (boxes >= 0).all() and (boxes <= limits + 1e-4).all()
        assert (boxes.max(dim=0).values[2:] > limits[2:] - 1e-4).all()  # some are cut by the edge
        assert (scores > 0.05).all() and (scores.diff() <= 0).all()
        assert (found["labels"] == PERSON).all()
        overlap = box_iou(boxes, boxes).nan_to_num()  # nothing is left of a box in the margin
        assert overlap.fill_diagonal_(0).max() < 0.6 + 1e-6


def test_another_picture_of_the_batch_changes_nothing(model):
    """Of the same size: a larger one would give the picture a margin."""
    image, *others = some_images(3)
    (alone,) = detected(model, [image])
    for batch, place in (([image, others[0]], 0), ([*others, image], 2)):
        beside = detected(model, batch)[place]
        for name in ("boxes", "scores", "labels"):
            torch.testing.assert_close(beside[name], alone[name])


def test_boxes_are_in_the_pixels_of_the_picture_as_given(model):
    """A picture twice as large, every pixel four times, is resized to the very same input."""
    for size in (SIZE, (96, 132)):
        (image,) = some_images(1, size)
        large = image.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        once, twice = detected(model, [image])[0], detected(model, [large])[0]
        torch.testing.assert_close(twice["boxes"], 2 * once["boxes"])
        torch.testing.assert_close(twice["scores"], once["scores"])
    assert twice["boxes"].max() > 100


def test_a_detection_is_the_box_of_a_cell_and_the_best_cell_comes_first(model):
    (image,) = some_images(1)
    scores, logits, places, _ = cells_of(model, [image], as_targets([[]]))
    (found,) = detected(model, [image])
    boxes = []
    for sides, (x, y, stride, _) in zip(logits[0], places, strict=True):
        left, top, right, bottom = (stride * expected_distance(sides[None]))[0].tolist()
        boxes.append([x - left, y - top, x + right, y + bottom])
    assert found["scores"][0].item() == pytest.approx(scores.max().item())
    for score, box in zip(found["scores"], found["boxes"], strict=True):
        cell = (scores[0] - score).abs().argmin()
        expected = torch.tensor(boxes[cell], dtype=torch.float64).clamp(0, SIZE[0])
        torch.testing.assert_close(box, expected, rtol=0, atol=1e-4)


def test_a_picture_is_learned_by_heart():
    torch.manual_seed(0)
    model = gfocal_mini((64,), 144)
    image = torch.rand(3, 64, 80) * 0.5
    persons = [[6.0, 9.0, 30.0, 60.0], [26.0, 4.0, 50.0, 56.0], [55.0, 20.0, 78.0, 62.0]]
    for channel, box in enumerate(persons):
        x1, y1, x2, y2 = map(int, box)
        image[channel, y1:y2, x1:x2] += 0.5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(120):
        sums = model.train()([image], [{"boxes": torch.tensor(persons)}])
        optimizer.zero_grad()
        sums.total(sums.positives, sums.weights).backward()
        optimizer.step()
    (found,) = detected(model.eval(), [image])
    rows = zip(found["boxes"].tolist(), found["scores"].tolist(), strict=True)
    ap = person_ap(
        pd.DataFrame([("v", 0, *box, 12, 1.0) for box in persons], columns=list(COLUMNS)),
        pd.DataFrame([("v", 0, *box, 0, score) for box, score in rows], columns=list(COLUMNS)),
    )
    assert ap["AP@0.5"] == pytest.approx(1) and ap["AP@0.75"] == pytest.approx(1)
    assert (found["scores"] > 0.5).sum() == len(persons)

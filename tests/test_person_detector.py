"""GFocalV2 and ATSS against their definitions, one number at a time, and what any detector does."""

from __future__ import annotations

import math
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.ops import box_iou

from stadlib.base import ConfigError, InputError
from stadlib.data.video import read_frames
from stadlib.models.person_detector import (
    BACKGROUND,
    PERSON,
    TORCHVISION,
    GFocalHead,
    GFocalV2,
    LossSums,
    aligned_iou,
    assign,
    decode,
    distribution_focal_loss,
    encode,
    expected_distance,
    gfocal_mini,
    gfocal_resnet,
    quality_focal_loss,
    torchvision_detector,
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


def iou_and_giou(a: list[float], b: list[float]) -> tuple[float, float]:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = width * height / union
    return iou, iou - (hull - union) / hull


def dfl(shares: list[float], distance: float) -> float:
    below = math.floor(distance)
    far = distance - below
    return -((1 - far) * math.log(shares[below]) + far * math.log(shares[below + 1]))


# -------------------------------------------------------------------------------------- formulas


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1e-3, 0.999), st.floats(0, 1)), min_size=1, max_size=20))
def test_quality_focal_loss_is_its_formula(pairs):
    scores, wanted = torch.tensor(pairs, dtype=torch.float64).unbind(dim=1)
    expected = [(y - s) ** 2 * -((1 - y) * math.log(1 - s) + y * math.log(s)) for s, y in pairs]
    loss = quality_focal_loss(scores, wanted)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), **exact)


@settings(deadline=None)
@given(
    arrays.arrays(np.float64, (6, 9), elements=st.floats(-8, 8)),
    arrays.arrays(np.float64, 6, elements=st.floats(0, 7.99)),
)
def test_distances_and_their_loss_are_those_of_the_distribution(logits, distances):
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    losses = [dfl(row, distance) for row, distance in zip(shares, distances, strict=True)]
    logits = torch.from_numpy(logits)
    loss = distribution_focal_loss(logits, torch.from_numpy(distances))
    torch.testing.assert_close(loss, torch.tensor(losses, dtype=torch.float64), **exact)
    expectations = torch.from_numpy(shares @ np.arange(9))
    torch.testing.assert_close(expected_distance(logits), expectations, **exact)


@settings(deadline=None)
@given(numbers(6))
def test_encoding_and_decoding_are_inverses(values):
    points, boxes = torch.from_numpy(values[:, 4:]), boxes_of(values[:, :4])
    near = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(decode(points, encode(points, boxes)), boxes, **near)
    distances = torch.from_numpy(values[:, :4])
    torch.testing.assert_close(encode(points, decode(points, distances)), distances, **near)
    point, box = torch.tensor([[10.0, 20.0]]), torch.tensor([[7.0, 15.0, 18.0, 21.0]])
    assert encode(point, box).tolist() == [[3.0, 5.0, 8.0, 1.0]]  # left, top, right, bottom


@settings(deadline=None)
@given(numbers(8))
def test_aligned_iou_is_the_diagonal_of_torchvisions(values):
    boxes, others = boxes_of(values[:, :4]), boxes_of(values[:, 4:])
    others[::3] = boxes[::3] + 0.05  # some that overlap whatever is drawn
    expected = box_iou(boxes, others).diagonal()
    torch.testing.assert_close(aligned_iou(boxes, others), expected, **exact)
    flat = torch.tensor([[3.0, 3.0, 3.0, 9.0], [5.0, 5.0, 2.0, 2.0]])  # no area, no overlap
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
        chosen = assign(anchors, sizes, boxes).tolist()
        for cell, (x, y, stride, level) in enumerate(places):
            score, wanted = scores[number, cell].item(), 0.0
            if chosen[cell] != BACKGROUND:
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


@pytest.mark.parametrize(
    ("size", "multiple", "reg_max"),
    [((96, 96), 16, 16), ((96, 96), 4, 16), ((92, 108), 4, 16), ((144, 192), 16, 16),
     ((96, 96), 16, 3)],
)  # fmt: skip
def test_the_losses_are_their_definition(size, multiple, reg_max):
    """Also where cells overhang the picture, where it is resized, where persons are too large."""
    model = in_training(random_model(min(*size, 96), reg_max))
    model.transform.size_divisible = multiple
    small = [60.0, 5.0, 71.0, 19.0]  # without one, the finest level learns nobody
    images, targets = some_images(2, size), as_targets([[*PERSONS[0], small], PERSONS[1]])
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
    assert (sums.positives > 0) == (sums.box > 0) == (sums.distribution > 0) == any(persons)


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
    for before, after in zip((scores, logits), again, strict=True):
        torch.testing.assert_close(after[:, :20], before[:, :20])
        torch.testing.assert_close(after[:, 20:], before[:, 20:].roll(1, dims=0))
    untrained, _ = GFocalHead(16, num_levels=2, num_convs=1)(maps)
    assert (untrained < 0.02).all()  # probably background


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
        torch.testing.assert_close(detected(model, batch)[place], alone)


def test_boxes_are_in_the_pixels_of_the_picture_as_given(model):
    """A picture twice as large, every pixel four times, is resized to the very same input."""
    for size in (SIZE, (96, 132)):
        (image,) = some_images(1, size)
        large = image.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        once, twice = detected(model, [image])[0], detected(model, [large])[0]
        torch.testing.assert_close(twice, once | {"boxes": 2 * once["boxes"]})
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
    overlap = box_iou(found["boxes"][: len(persons)], torch.tensor(persons)).max(dim=1)
    assert overlap.values.min() > 0.75 and len(overlap.indices.unique()) == len(persons)
    assert (found["scores"] > 0.5).sum() == len(persons)


# ------------------------------------------------------------------------------------------ ATSS

PICTURE = 64  # pixels a side
STRIDES = (4, 8, 16, 32)  # the last level has four cells: fewer than candidates are wanted


def grid(strides: tuple[int, ...] = STRIDES, scale: int = 6) -> tuple[Tensor, list[int]]:
    """Square anchors on every cell of every level, and how many a level has."""
    anchors, level_sizes = [], []
    for stride in strides:
        half, places = scale * stride / 2, range(0, PICTURE, stride)
        anchors += [(x - half, y - half, x + half, y + half) for y in places for x in places]
        level_sizes.append(len(places) ** 2)
    return torch.tensor(anchors, dtype=torch.float64), level_sizes


def centre(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def wanted_by(person: list[float], anchors: list, level_sizes: list[int]) -> dict:
    """The anchors that a person takes, with their IoU (Zhang et al. 2020, algorithm 1)."""
    candidates, first = [], 0
    px, py = centre(person)
    for size in level_sizes:
        level = range(first, first + size)
        near = sorted(level, key=lambda a: np.hypot(*np.subtract(centre(anchors[a]), (px, py))))
        candidates += near[:9]
        first += size
    ious = {a: iou_and_giou(anchors[a], person)[0] for a in candidates}
    spread = np.std([*ious.values()], ddof=1) if len(ious) > 1 else 0.0
    least = np.mean([*ious.values()]) + spread
    return {
        a: iou
        for a, iou in ious.items()
        if iou >= least
        and person[0] < centre(anchors[a])[0] < person[2]
        and person[1] < centre(anchors[a])[1] < person[3]
    }


def assigned_by_definition(anchors_A4: Tensor, level_sizes: list[int], boxes_G4: Tensor) -> list:
    anchors, best = anchors_A4.tolist(), [(0.0, BACKGROUND)] * len(anchors_A4)
    for number, person in enumerate(boxes_G4.tolist()):
        for a, iou in wanted_by(person, anchors, level_sizes).items():
            if best[a][1] == BACKGROUND or iou > best[a][0]:
                best[a] = (iou, number)
    return [number for _, number in best]


def persons(seed: int, count: int, least: float = 3.0) -> Tensor:
    """Boxes of any place and size, partly outside of the picture; no two distances are equal."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-8, PICTURE - 8, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(least, PICTURE, (count, 2))], axis=1)
    return torch.from_numpy(boxes)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.booleans())
def test_assignment_equals_the_definition(seed, count, crowd):
    """Also where persons a few pixels apart want the same anchors: the higher IoU decides."""
    anchors, level_sizes = grid()
    boxes = persons(seed, count)
    if crowd:
        boxes = persons(seed, 1, least=20).repeat(count, 1)
        noise = np.random.default_rng(seed).normal(0, 2, tuple(boxes.shape))
        boxes += torch.from_numpy(noise)
    person_A = assign(anchors, level_sizes, boxes)
    assert person_A.dtype == torch.int64 and person_A.shape == (len(anchors),)
    assert person_A.tolist() == assigned_by_definition(anchors, level_sizes, boxes)


def test_the_order_of_persons_does_not_matter():
    anchors, level_sizes = grid()
    boxes = persons(5, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    first, other = assign(anchors, level_sizes, boxes), assign(anchors, level_sizes, boxes[order])
    assert torch.equal(first, torch.where(other == BACKGROUND, BACKGROUND, order[other]))
    assert len(first.unique()) > 3
    empty = assign(anchors, level_sizes, boxes[:0])
    assert empty.dtype == torch.int64 and empty.tolist() == [BACKGROUND] * len(anchors)


def test_a_person_between_the_anchors_is_learned_by_none():
    """No centre lies inside: ATSS gives such a person nothing, and others keep theirs."""
    anchors, level_sizes = grid((8, 16))
    small = torch.tensor([[17.0, 17.0, 20.0, 21.0]], dtype=torch.float64)
    large = torch.tensor([[2.3, 1.2, 50.4, 60.1]], dtype=torch.float64)
    assert assign(anchors, level_sizes, small).tolist() == [BACKGROUND] * len(anchors)
    both = assign(anchors, level_sizes, torch.cat([small, large]))
    assert set(both.tolist()) == {BACKGROUND, 1}
    assert torch.equal(both == 1, assign(anchors, level_sizes, large) == 0)


@pytest.mark.parametrize("box", [[-3.0, -3.0, 4.0, 5.0], [30.0, 30.0, 44.0, 45.0]])
def test_a_single_anchor_stands_on_its_own_iou(box):
    """One candidate: no deviation, so that it is taken exactly if its centre lies inside."""
    anchor = torch.tensor([[-12.0, -12.0, 12.0, 12.0]])
    assert assign(anchor, [1], torch.tensor([box])).tolist() == [0 if box[0] < 0 else BACKGROUND]


def test_single_precision_agrees_with_double():
    anchors, level_sizes = grid()
    for seed in range(40):
        boxes = persons(seed, 4)
        single = assign(anchors.float(), level_sizes, boxes.float())
        assert torch.equal(single, assign(anchors, level_sizes, boxes))


# ---------------------------------------------------------------------------------------- by name

FAMILIES = {
    "fasterrcnn_mobilenet_v3_large_fpn": lambda model: model.roi_heads.score_thresh,
    "retinanet_resnet50_fpn": lambda model: model.score_thresh,
    "fcos_resnet50_fpn": lambda model: model.score_thresh,
}


@pytest.fixture(scope="module")
def large() -> GFocalV2:
    torch.manual_seed(0)
    return gfocal_resnet(50, (160,), 240)


@pytest.mark.slow
def test_the_papers_size_takes_torchvisions_weights_and_has_five_levels(large):
    weights = torchvision.models.resnet50().state_dict()
    body = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    large.body.body.load_state_dict(body)
    kept = large.body.body.state_dict()
    assert {*body} - {*kept} == {name for name in body if name.endswith("num_batches_tracked")}
    assert all(torch.equal(body[name], value) for name, value in kept.items())
    maps = large.eval().body(torch.zeros(1, 3, 160, 224)).values()
    sides = [(20, 28), (10, 14), (5, 7), (3, 4), (2, 2)]
    assert [tuple(map_BCHW.shape) for map_BCHW in maps] == [(1, 256, *side) for side in sides]
    assert large.strides == (8, 16, 32, 64, 128)
    for tower in (large.head.score_tower, large.head.box_tower):
        assert sum(isinstance(layer, nn.Conv2d) for layer in tower) == 4
    assert not any(isinstance(module, nn.BatchNorm2d) for module in large.modules())


@pytest.mark.slow
def test_the_papers_size_learns_and_detects_on_real_frames(large, shared):
    path = shared / "data" / "videos" / "fencing.mp4"
    pictures = [frame.float() / 255 for frame in read_frames(path, [0.0, 3.0])]
    height, width = pictures[0].shape[1:]
    persons = torch.tensor([[0.04, 0.27, 0.45, 0.90], [0.67, 0.22, 0.99, 0.77]])
    targets = [{"boxes": persons * torch.tensor([width, height] * 2)}] * 2
    trained = {n: p.detach().clone() for n, p in large.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD([p for p in large.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(3):
        sums = large.train()(pictures, targets)
        loss = sums.total(sums.positives, sums.weights)
        assert torch.isfinite(loss) and sums.positives >= 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    parameters = dict(large.named_parameters())
    assert not any(torch.equal(before, parameters[name]) for name, before in trained.items())
    assert "body.body.layer2.0.conv1.weight" in trained
    assert not any(name.startswith(("body.body.conv1", "body.body.layer1")) for name in trained)
    nn.init.constant_(large.head.score.bias, 0.0)  # three steps find no person yet
    with torch.inference_mode():
        found = large.eval()(pictures)
    for one in found:
        assert len(one["boxes"]) > 0 and torch.isfinite(one["boxes"]).all()
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= torch.tensor([width, height] * 2) + 1e-3).all()


def test_an_unknown_detector_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match="depth=34; choose from 50, 101"):
        gfocal_resnet(34, (160,), 240)
    with pytest.raises(ConfigError, match="torchvision detector='yolo'; choose from ") as caught:
        torchvision_detector("yolo")
    assert all(name in str(caught.value) and hasattr(detection, name) for name in TORCHVISION)


def test_weights_that_cannot_be_fetched_have_a_remedy(monkeypatch):
    def unreachable(**_):
        raise URLError("no route to host")

    monkeypatch.setattr(detection, "fcos_resnet50_fpn", unreachable)
    with pytest.raises(InputError, match="fcos_resnet50_fpn: weights cannot be fetched") as caught:
        torchvision_detector("fcos_resnet50_fpn")
    line = str(caught.value)
    assert "no route to host" in line and "hub/checkpoints" in line and "\n" not in line


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_torchvisions_detectors_answer_as_ours_do(name, monkeypatch):
    """And with every box of a score of 0.05 or more, whatever the family calls that."""
    build = getattr(detection, name)

    def without_weights(*, weights: str, **options) -> nn.Module:
        assert weights == "DEFAULT"
        return build(weights=None, weights_backbone=None, min_size=64, max_size=96, **options)

    monkeypatch.setattr(detection, name, without_weights)
    torch.manual_seed(0)
    model = torchvision_detector(name).eval()
    assert FAMILIES[name](model) == 0.05
    pictures = [torch.rand(3, 64, 80), torch.rand(3, 60, 72)]
    with torch.inference_mode():
        theirs, ours = model(pictures), gfocal_mini((64,), 144).eval()(pictures)
    assert len(theirs) == len(ours) == 2
    for one, other in zip(theirs, ours, strict=True):
        assert {*one} == {*other} == {"boxes", "scores", "labels"}
        assert one["labels"].dtype == other["labels"].dtype
        assert one["boxes"].shape[1:] == other["boxes"].shape[1:] == (4,)
    categories = detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    assert categories[PERSON] == "person"

"""Transforms move pixels and boxes together, and nothing that they should not."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from stadlib.data import transforms

HEIGHT, WIDTH = 80, 120


def clip(boxes: list[list[float]], height: int = HEIGHT, width: int = WIDTH, frames: int = 4):
    """Noise with a white rectangle for every box."""
    video = torch.randint(0, 120, (frames, 3, height, width), dtype=torch.uint8)
    for x1, y1, x2, y2 in boxes:
        video[:, :, int(y1) : int(y2), int(x1) : int(x2)] = 255
    boxes_N4 = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    shape = {"format": "XYXY", "canvas_size": (height, width)}
    return tv_tensors.Video(video), tv_tensors.BoundingBoxes(boxes_N4, **shape)


def white(video: torch.Tensor) -> list[float]:
    """The box around what is white in every frame."""
    rows, columns = torch.nonzero((video > 230).all(dim=1).all(dim=0), as_tuple=True)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((80, 120), (64, 96)),
        ((120, 80), (96, 64)),
        ((80, 240), (32, 96)),  # the long side would exceed its limit
        ((240, 80), (96, 32)),
        ((256, 340), (64, 85)),
    ],
)
def test_resize_reaches_the_short_side_unless_the_long_one_is_too_long(size, expected) -> None:
    video, boxes = clip([[0, 0, size[1], size[0]]], *size)
    video, boxes = transforms.test_transform(64, 96)(video, boxes)
    assert video.shape[-2:] == expected and video.dtype == torch.uint8
    assert boxes.tolist() == [pytest.approx([0, 0, expected[1], expected[0]])]


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_stay_on_their_pixels(flip: bool) -> None:
    video, boxes = transforms.test_transform(64, 96, flip)(*clip([[30, 20, 50, 70]]))
    assert white(video) == pytest.approx(boxes[0].tolist(), abs=1.0)
    assert boxes[0].tolist() == pytest.approx([56, 16, 72, 56] if flip else [24, 16, 40, 56])


def test_box_jitter_keeps_its_bounds_and_reaches_them() -> None:
    torch.manual_seed(0)
    video, boxes = clip([[40, 20, 80, 60]] * 2000)
    _, jittered = transforms.jitter_boxes(video, boxes)
    outwards = (jittered - boxes) / 40 * torch.tensor([-1, -1, 1, 1])
    for axis, (out, inside) in enumerate(((0.2, 0.1), (0.1, 0.05))):
        for side in (axis, axis + 2):
            moves = outwards[:, side]
            assert moves.max() == pytest.approx(out, abs=0.01) and moves.max() <= out + 1e-5
            assert moves.min() == pytest.approx(-inside, abs=0.01) and moves.min() >= -inside - 1e-5
    assert torch.corrcoef(outwards.T).fill_diagonal_(0).abs().max() < 0.1


def test_jittered_boxes_stay_inside_and_never_vanish() -> None:
    torch.manual_seed(0)
    tiny = [[0, 0, 0.2, 0.2], [119.9, 79.9, 120, 80], [0, 0, 120, 80], [119, 0, 120, 80]]
    for _ in range(50):
        _, boxes = transforms.train_transform(64, 96)(*clip(tiny, frames=1))
        assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= 96).all() and (boxes[:, 1:] <= 96).all()
        assert (boxes[:, [1, 3]] <= 64).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_extension_is_split_between_the_sides_and_cut_at_the_frame() -> None:
    view = transforms.test_transform(80, 120, extend=(0.1, 0.05))
    _, boxes = view(*clip([[40, 20, 80, 60], [0, 0, 40, 80]]))
    assert boxes[0].tolist() == pytest.approx([38, 19, 82, 61])
    assert boxes[1].tolist() == pytest.approx([0, 0, 42, 80])


def test_colour_jitter_is_hsv() -> None:
    colours = np.random.default_rng(0).integers(60, 190, (10, 3), dtype=np.uint8)
    colours[:, 0] = 200  # away from grey, where hue is undefined
    video = tv_tensors.Video(colours.T.reshape(1, 3, 1, 10))
    jittered = transforms.HSVJitter().transform(video, {"shifts": [8, 20, -15]})
    for column, colour in enumerate(colours):  # shifts are of 180, 255, 255
        h, s, v = colorsys.rgb_to_hsv(*(colour / 255))
        expected = colorsys.hsv_to_rgb((h + 8 / 180) % 1, min(1, s + 20 / 255), v - 15 / 255)
        assert np.abs(jittered[0, :, 0, column].numpy() - np.array(expected) * 255).max() < 6


@pytest.mark.parametrize("size", [(3, 64, 96), (2, 31, 85), (1, 1, 1)])
def test_colour_jitter_is_opencvs_conversion_of_the_whole_clip_bit_by_bit(size) -> None:
    frames, height, width = size
    video = torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8)
    jittered = transforms.HSVJitter().transform(tv_tensors.Video(video), {"shifts": [-8, 20, -15]})
    rgb = video.permute(0, 2, 3, 1).reshape(-1, width, 3).numpy()
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV).astype(int) + np.array([-8, 20, -15])
    hsv[..., 0] %= 180
    expected = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    expected = torch.from_numpy(expected.reshape(frames, height, width, 3)).permute(0, 3, 1, 2)
    assert torch.equal(jittered.as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("shifts", [[8, 20, -15], [-10, -25, 25], [0, 0, 0]])
def test_a_gpu_shifts_colours_as_opencv_does(shifts) -> None:
    torch.manual_seed(0)
    video = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8)
    video[1, 1] = video[1, 0]  # two colours alike
    video[2] //= 8  # dark, nearly grey
    expected = transforms.HSVJitter().transform(tv_tensors.Video(video), {"shifts": shifts})
    found = transforms.shift_colours(video.transpose(0, 1), *shifts).transpose(0, 1)
    difference = (found.int() - expected.as_subclass(torch.Tensor).int()).abs()
    assert found.dtype == torch.uint8
    assert difference.max() <= 9 and difference.float().mean() < 0.4  # a step of hue is 8.5 levels


def test_colour_jitter_stays_within_its_bounds() -> None:
    torch.manual_seed(0)
    draws = [transforms.HSVJitter().make_params([])["shifts"] for _ in range(500)]
    low, high = np.min(draws, axis=0), np.max(draws, axis=0)
    assert high.tolist() == [-bound for bound in low]
    assert high.tolist() in ([10, 25, 25], [10, 26, 26])


def test_training_draws_from_torchs_generator_alone_and_changes_nothing_in_place() -> None:
    video, boxes = clip([[30, 20, 50, 70]])
    kept = video.clone(), boxes.clone()
    transform = transforms.train_transform(64, 96)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        np.random.seed(len(results))  # noqa: NPY002  (must not matter)
        results.append(transform(video, boxes))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][1], results[2][1])
    assert torch.equal(video, kept[0]) and torch.equal(boxes, kept[1])


def test_no_person_is_fine() -> None:
    video, boxes = transforms.train_transform(64, 96)(*clip([]))
    assert video.shape == (4, 3, 64, 96) and boxes.shape == (0, 4)
    assert transforms.test_transform(64, 96, True, (0.1, 0.05))(*clip([]))[1].shape == (0, 4)

"""What a detector is trained on: pictures of image files and videos, augmented with their boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from stadlib.base import InputError
from stadlib.data.clips import Picture, PictureDataset, as_lists, of_keyframes, of_stills
from stadlib.data.coco import Still
from stadlib.data.keyframes import read_keyframes
from stadlib.data.layout import AvaLayout
from stadlib.data.video import read_frames

BOX = np.array([[10.0, 5.0, 30.0, 25.0]], np.float32)


@pytest.fixture
def still(tmp_path) -> Still:
    """A bright rectangle, red at its left edge, where its box is."""
    path = tmp_path / "still.png"
    blue_first = np.full((40, 64, 3), 30, np.uint8)
    blue_first[5:25, 10:30] = (180, 180, 180)
    blue_first[5:25, 10:12] = (20, 20, 230)
    assert cv2.imwrite(str(path), blue_first)
    return Still(path, BOX, 64, 40)


def test_an_image_file_is_read_red_first(still):
    (picture,) = of_stills([still])
    frame = picture.read()
    assert frame.dtype == torch.uint8 and frame.shape == (3, 40, 64)
    assert frame[:, 10, 11].tolist() == [230, 20, 20]


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("text.jpg", "none.jpg"):
        with pytest.raises(InputError, match=rf"{name}: no readable picture"):
            Picture(tmp_path / name, None, BOX).read()


def test_keyframes_are_frames_of_their_videos(tiny_dataset):
    """At the annotated second of the file's own clock, those without a person included."""
    layout = AvaLayout(tiny_dataset)
    keyframes = read_keyframes(layout, "kinetics", "val")
    pictures = of_keyframes(layout, keyframes)
    assert [len(picture.boxes) for picture in pictures] == [1, 0]
    for keyframe, picture in zip(keyframes, pictures, strict=True):
        (frame,) = read_frames(layout.video_file("kinetics", "c"), [keyframe.timestamp - 2.5])
        assert torch.equal(picture.read(), frame)
    _, boxes = PictureDataset(pictures)[1, 0]
    assert boxes.shape == (0, 4)


def test_boxes_are_mirrored_with_their_picture(still):
    """Half of the time; the box stays on the rectangle, whatever its colours are."""
    dataset = PictureDataset(of_stills([still]))
    mirrored = 0
    for seed in range(40):
        picture, boxes = dataset[0, seed]
        assert type(picture) is type(boxes) is torch.Tensor and boxes.dtype == torch.float32
        bright = picture.float().amax(dim=0) > 90
        rows, columns = bright.nonzero().unbind(dim=1)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert boxes.tolist() == [[float(edge) for edge in edges]]
        mirrored += int(boxes[0, 0] == 64 - 30)
    assert 10 <= mirrored <= 30


def test_boxes_of_a_video_are_in_its_pixels(tiny_dataset):
    layout = AvaLayout(tiny_dataset)  # b is 64 x 48 pixels, its person 0.25 to 0.75
    pictures = of_keyframes(layout, read_keyframes(layout, "ava", "val"))
    assert PictureDataset(pictures)[0, 1][1].tolist() == [[16.0, 12.0, 48.0, 36.0]]


def test_an_item_depends_on_its_key_alone(still):
    dataset = PictureDataset(of_stills([still] * 3))
    torch.manual_seed(1)
    first = [dataset[index, 7] for index in (0, 1)]
    state = torch.random.get_rng_state()
    dataset[2, 8]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    again = [dataset[index, 7] for index in (1, 0)][::-1]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert len({dataset[0, seed][0].sum().item() for seed in range(8)}) > 4


def test_a_batch_is_two_lists_of_any_sizes():
    items = [(torch.zeros(3, 4, n), torch.ones(n, 4)) for n in (3, 5)]
    pictures, boxes = as_lists(items)
    assert [p.shape[2] for p in pictures] == [len(b) for b in boxes] == [3, 5]
    assert isinstance(pictures, list) and isinstance(boxes, list)

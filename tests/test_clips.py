"""Items depend on (index, seed) alone; batches keep every person on its clip and pixels."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stadlib.base import InputError
from stadlib.data.clips import (
    PAD_VALUE,
    Clip,
    ClipDataset,
    Picture,
    PictureDataset,
    Sampling,
    as_lists,
    collate,
    collate_views,
    of_keyframes,
    of_stills,
)
from stadlib.data.coco import Still
from stadlib.data.keyframes import Keyframe, read_keyframes
from stadlib.data.layout import AvaLayout
from stadlib.data.transforms import test_transform, train_transform
from stadlib.data.video import read_frames

SAMPLING = Sampling(num_frames=8, interval=0.25)


def keyframe(video: str = "a", timestamp: float = 902.0, persons: int = 3) -> Keyframe:
    x1 = np.arange(persons) / (persons + 1)
    boxes = np.stack([x1, x1 * 0 + 0.1, x1 + 0.2, x1 * 0 + 0.9], axis=1)
    actions = np.eye(persons, 60, dtype=bool)
    return Keyframe("ava", video, timestamp, boxes.astype("f4"), actions, np.arange(persons))


def dataset(root: Path, keyframes: list[Keyframe], transform=None, **options) -> ClipDataset:
    transform = transform or train_transform(64, 96)
    return ClipDataset(AvaLayout(root), keyframes, SAMPLING, transform, **options)


def assert_same(a: Clip, b: Clip) -> None:
    assert a.key == b.key
    for name in ("frames_TCHW", "boxes_N4", "actions_NA", "boxes_norm_N4", "person_ids_N"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_a_clip_shows_the_frames_around_the_keyframe_on_the_annotation_clock(tiny_dataset) -> None:
    assert Sampling(5, 0.5).times(2.0) == [1.0, 1.5, 2.0, 2.5, 3.0]
    plain = test_transform(48, 64)
    clip = dataset(tiny_dataset, [keyframe(timestamp=902.0)], plain)[0]
    path = AvaLayout(tiny_dataset).video_file("ava", "a")
    expected = read_frames(path, [1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75])
    assert torch.equal(clip.frames_TCHW, expected)
    assert len({f.numpy().tobytes() for f in clip.frames_TCHW}) == 8
    early = dataset(tiny_dataset, [keyframe(timestamp=900.0)], plain)[0]
    assert all(torch.equal(early.frames_TCHW[i], early.frames_TCHW[4]) for i in range(4))


def test_boxes_are_in_pixels_and_also_kept_as_they_came(tiny_dataset: Path) -> None:
    clip = dataset(tiny_dataset, [keyframe()], test_transform(24, 32, flip=True))[0]
    x1, y1, x2, y2 = torch.from_numpy(keyframe().boxes).unbind(1)
    expected = torch.stack([32 - 32 * x2, 24 * y1, 32 - 32 * x1, 24 * y2], 1)
    assert torch.allclose(clip.boxes_N4, expected)
    assert np.array_equal(clip.boxes_norm_N4, keyframe().boxes)


def test_an_item_depends_on_index_and_seed_only(tiny_dataset: Path) -> None:
    clips = dataset(tiny_dataset, [keyframe(), keyframe("b", 901.5)] * 2, max_persons=2)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = clips[1, 7]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    _ = clips[0, 7], clips[2]
    assert_same(clips[1, 7], first)
    assert_same(pickle.loads(pickle.dumps(clips))[1, 7], first)  # as in a worker
    boxes = {clips[i, seed].boxes_N4.numpy().tobytes() for i in (1, 3) for seed in (7, 8)}
    assert len(boxes) == 4


def test_persons_are_subsampled_alike_everywhere(tiny_dataset: Path) -> None:
    whole = keyframe(persons=12)
    clips = dataset(tiny_dataset, [whole], test_transform(48, 64), max_persons=5)
    chosen = set()
    for seed in range(20):
        clip = clips[0, seed]
        ids = clip.person_ids_N.tolist()
        assert len(ids) == 5 and ids == sorted(set(ids))
        assert np.array_equal(clip.boxes_norm_N4, whole.boxes[ids])
        assert torch.equal(clip.actions_NA.argmax(1), clip.person_ids_N)
        assert torch.allclose(clip.boxes_N4[:, 0], clip.boxes_norm_N4[:, 0] * 64)
        chosen |= set(ids)
    assert chosen == set(range(12))
    few = dataset(tiny_dataset, [keyframe(persons=5)], max_persons=5)[0]
    assert few.person_ids_N.tolist() == [*range(5)]


def test_collate_pads_to_a_common_multiple_of_32(tiny_dataset: Path, monkeypatch) -> None:
    parts = [
        dataset(tiny_dataset, [keyframe(persons=2)], test_transform(64, 96))[0],
        dataset(tiny_dataset, [keyframe("b", persons=0)], test_transform(40, 80))[0],
        dataset(tiny_dataset, [keyframe("b", persons=1)], test_transform(72, 108))[0],
    ]
    batch = collate(parts)
    assert batch.clips_BCTHW.shape == (3, 3, 8, 96, 96) and batch.clips_BCTHW.dtype == torch.uint8
    assert batch.counts_B.tolist() == [2, 0, 1] and batch.counts_B.dtype == torch.int64
    assert batch.actions_NA.shape == (3, 60) and batch.actions_NA.dtype == torch.float32
    assert [key[1] for key in batch.keys] == ["a", "b", "b"]
    for padded, part in zip(batch.padded(128, 96).clips_BCTHW, parts, strict=True):
        h, w = part.frames_TCHW.shape[2:]
        assert torch.equal(padded[:, :, :h, :w], part.frames_TCHW.transpose(0, 1))
        assert (padded[:, :, h:] == PAD_VALUE).all() and (padded[:, :, :, w:] == PAD_VALUE).all()
    assert torch.equal(batch.boxes_N4, torch.cat([parts[0].boxes_N4, parts[2].boxes_N4]))

    monkeypatch.setattr("stadlib.data.clips.get_worker_info", lambda: "a worker")
    shared = collate(parts).clips_BCTHW  # a worker writes straight into shared memory
    assert torch.equal(batch.clips_BCTHW, shared)
    assert shared.is_shared() and not batch.clips_BCTHW.is_shared()


def test_a_batch_without_any_person(tiny_dataset: Path) -> None:
    clips = dataset(tiny_dataset, [keyframe(persons=0)] * 2)
    batch = collate([clips[0], clips[1]]).to("cpu")
    assert batch.counts_B.tolist() == [0, 0]
    assert batch.boxes_N4.shape == batch.boxes_norm_N4.shape == (0, 4)
    assert batch.actions_NA.shape == (0, 60) and batch.person_ids_N.shape == (0,)


def test_views_of_a_clip_line_up(tiny_dataset: Path) -> None:
    views = [test_transform(side, 96, flip) for side in (32, 48) for flip in (False, True)]
    clips = dataset(tiny_dataset, [keyframe(persons=2), keyframe("b", persons=1)], views)
    batches = collate_views([clips[0], clips[1]])
    assert len(batches) == 4
    for view, batch in zip(views, batches, strict=True):
        alone = collate([dataset(tiny_dataset, clips.keyframes, view)[i] for i in (0, 1)])
        for name in ("clips_BCTHW", "boxes_N4", "boxes_norm_N4"):
            assert torch.equal(getattr(batch, name), getattr(alone, name))
        assert batch.keys == batches[0].keys


def test_a_missing_video_is_named_before_any_work(tiny_dataset: Path) -> None:
    with pytest.raises(InputError, match="zzz: no such video"):
        dataset(tiny_dataset, [keyframe("zzz")])


# ------------------------------------------------------------------- what a detector is trained on


@pytest.fixture
def still(tmp_path) -> Still:
    """A bright rectangle, red at its left edge, where its box is."""
    path = tmp_path / "still.png"
    blue_first = np.full((40, 64, 3), 30, np.uint8)
    blue_first[5:25, 10:30] = (180, 180, 180)
    blue_first[5:25, 10:12] = (20, 20, 230)
    assert cv2.imwrite(str(path), blue_first)
    return Still(path, np.array([[10.0, 5.0, 30.0, 25.0]], np.float32), 64, 40)


def test_an_image_file_is_read_red_first_or_refused_by_name(still, tmp_path):
    frame = of_stills([still])[0].read()
    assert frame.dtype == torch.uint8 and frame.shape == (3, 40, 64)
    assert frame[:, 10, 11].tolist() == [230, 20, 20]
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("text.jpg", "none.jpg"):
        with pytest.raises(InputError, match=rf"{name}: no readable picture"):
            Picture(tmp_path / name, None, still.boxes).read()


def test_keyframes_are_frames_of_their_videos(tiny_dataset):
    """At the annotated second of the file's own clock, those without a person included."""
    layout = AvaLayout(tiny_dataset)
    keyframes = read_keyframes(layout, "kinetics", "val")
    pictures = of_keyframes(layout, keyframes)
    assert [len(picture.boxes) for picture in pictures] == [1, 0]
    for annotated, picture in zip(keyframes, pictures, strict=True):
        (frame,) = read_frames(layout.video_file("kinetics", "c"), [annotated.timestamp - 2.5])
        assert torch.equal(picture.read(), frame)
    assert PictureDataset(pictures)[1, 0][1].shape == (0, 4)
    # b is 64 x 48 pixels, its person 0.25 to 0.75
    pictures = of_keyframes(layout, read_keyframes(layout, "ava", "val"))
    assert PictureDataset(pictures)[0, 1][1].tolist() == [[16.0, 12.0, 48.0, 36.0]]


def test_boxes_are_mirrored_with_their_picture(still):
    """Half of the time; the box stays on the rectangle, whatever its colours are."""
    pictures = PictureDataset(of_stills([still]))
    mirrored = 0
    for seed in range(40):
        picture, boxes = pictures[0, seed]
        assert type(picture) is type(boxes) is torch.Tensor and boxes.dtype == torch.float32
        bright = picture.float().amax(dim=0) > 90
        rows, columns = bright.nonzero().unbind(dim=1)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert boxes.tolist() == [[float(edge) for edge in edges]]
        mirrored += int(boxes[0, 0] == 64 - 30)
    assert 10 <= mirrored <= 30


def test_a_picture_depends_on_its_key_alone(still):
    pictures = PictureDataset(of_stills([still] * 3))
    torch.manual_seed(1)
    first = pictures[1, 7]
    state = torch.random.get_rng_state()
    pictures[2, 8]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    again = pictures[1, 7]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert len({pictures[0, seed][0].sum().item() for seed in range(8)}) > 4


def test_a_batch_of_pictures_is_two_lists_of_any_sizes():
    pictures, boxes = as_lists([(torch.zeros(3, 4, n), torch.ones(n, 4)) for n in (3, 5)])
    assert [p.shape[2] for p in pictures] == [len(b) for b in boxes] == [3, 5]
    assert isinstance(pictures, list) and isinstance(boxes, list)

"""Items depend on (index, seed) alone; batches keep every person on its clip and pixels."""

from __future__ import annotations

import gc
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch

from stadlib.base import InputError
from stadlib.data import clips
from stadlib.data.clips import ClipDataset, PictureDataset, Sampling, collate
from stadlib.data.keyframes import Keyframe, KeyframeColumns, read_keyframes
from stadlib.data.layout import AvaLayout
from stadlib.data.transforms import test_transform, train_transform
from stadlib.data.video import read_frames, write_video

TENSORS = ("clips_BCTHW", "boxes_N4", "counts_B", "actions_NA", "boxes_norm_N4")


def keyframe(video: str = "a", timestamp: float = 902.0, persons: int = 3) -> Keyframe:
    """Person number i does action number i."""
    x1 = np.arange(persons) / (persons + 1)
    boxes = np.stack([x1, x1 * 0 + 0.1, x1 + 0.2, x1 * 0 + 0.9], axis=1)
    actions = np.eye(persons, 60, dtype=bool)
    return Keyframe("ava", video, timestamp, boxes.astype("f4"), actions, np.arange(persons))


def dataset(root, keyframes: list[Keyframe], transform=None, **options) -> ClipDataset:
    transform = transform or train_transform(64, 96)
    return ClipDataset(AvaLayout(root), keyframes, Sampling(8, 0.25), transform, **options)


def assert_same(a: clips.Batch, b: clips.Batch) -> None:
    assert a.keys == b.keys
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in TENSORS)


def test_a_clip_shows_the_frames_around_the_keyframe_on_the_annotation_clock(tiny_dataset):
    assert Sampling(5, 0.5).times(2.0) == [1.0, 1.5, 2.0, 2.5, 3.0]
    keyframes = [keyframe(timestamp=902.0), keyframe(timestamp=900.0)]
    items = dataset(tiny_dataset, keyframes, test_transform(48, 64))
    middle, early = items[0].clips_BCTHW[0], items[1].clips_BCTHW[0]
    path = AvaLayout(tiny_dataset).video_file("ava", "a")
    expected = read_frames(path, [1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75])
    assert torch.equal(middle.transpose(0, 1), expected)
    assert len({frame.numpy().tobytes() for frame in middle.unbind(1)}) == 8
    assert all(torch.equal(early[:, i], early[:, 4]) for i in range(4))


def test_boxes_are_in_pixels_and_also_kept_as_they_came(tiny_dataset):
    clip = dataset(tiny_dataset, [keyframe()], test_transform(24, 32, flip=True))[0]
    x1, y1, x2, y2 = torch.from_numpy(keyframe().boxes).unbind(1)
    expected = torch.stack([32 - 32 * x2, 24 * y1, 32 - 32 * x1, 24 * y2], 1)
    assert torch.allclose(clip.boxes_N4, expected)
    assert np.array_equal(clip.boxes_norm_N4, keyframe().boxes)


def test_an_item_depends_on_index_and_seed_only(tiny_dataset):
    items = dataset(tiny_dataset, [keyframe(), keyframe("b", 901.5)] * 2, max_persons=2)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = items[1, 7]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    _ = items[0, 7], items[2]
    assert_same(items[1, 7], first)
    assert_same(pickle.loads(pickle.dumps(items))[1, 7], first)  # as in a worker
    boxes = {items[i, seed].boxes_N4.numpy().tobytes() for i in (1, 3) for seed in (7, 8)}
    assert len(boxes) == 4


def test_persons_are_subsampled_alike_everywhere(tiny_dataset):
    whole = keyframe(persons=12)
    items = dataset(tiny_dataset, [whole], test_transform(48, 64), max_persons=5)
    chosen = set()
    for seed in range(20):
        clip = items[0, seed]
        persons = clip.actions_NA.argmax(1).tolist()
        assert len(persons) == 5 and persons == sorted(set(persons))
        assert np.array_equal(clip.boxes_norm_N4, whole.boxes[persons])
        assert torch.allclose(clip.boxes_N4[:, 0], clip.boxes_norm_N4[:, 0] * 64)
        chosen |= set(persons)
    assert chosen == set(range(12))
    assert len(dataset(tiny_dataset, [keyframe(persons=5)], max_persons=5)[0].boxes_N4) == 5


def test_colours_are_shifted_on_the_device_as_workers_draw_them(tiny_dataset):
    keyframes = [keyframe(), keyframe("b", 901.5)]
    here = dataset(tiny_dataset, keyframes, train_transform(40, 60))
    later = dataset(tiny_dataset, keyframes, train_transform(40, 60, colours=False))
    expected = collate([here[0, 3], here[1, 4]]).to("cpu")
    drawn = collate([later[0, 3], later[1, 4]])
    assert drawn.shifts_B5.shape == (2, 5) and len(drawn.shifts_B5.unique(dim=0)) == 2
    found = drawn.to("cpu")
    assert_same(drawn.to("cpu"), found)  # the batch itself stays as it was
    assert found.shifts_B5 is None and torch.equal(found.boxes_N4, expected.boxes_N4)
    difference = (found.clips_BCTHW.int() - expected.clips_BCTHW.int()).abs()
    assert difference.max() <= 9 and difference.float().mean() < 0.5
    outside = torch.ones(expected.clips_BCTHW.shape[-2:], dtype=torch.bool)
    outside[: here[0, 3].sizes[0][0], : here[0, 3].sizes[0][1]] = False
    assert outside.any() and (difference[0][..., outside] == 0).all()  # the padding


def test_collate_pads_to_a_common_multiple_of_32(tiny_dataset, monkeypatch):
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
    rounded = [[-(-side // 32) * 32 for side in part.sizes[0]] for part in parts]
    assert [list(size) for size in batch.sizes] == rounded and len({*batch.sizes}) > 1
    for padded, part in zip(batch.clips_BCTHW, parts, strict=True):
        h, w = part.clips_BCTHW.shape[3:]
        assert torch.equal(padded[:, :, :h, :w], part.clips_BCTHW[0])
        assert (padded[:, :, h:] == clips.PAD_VALUE).all()
        assert (padded[:, :, :, w:] == clips.PAD_VALUE).all()
    assert torch.equal(batch.boxes_N4, torch.cat([parts[0].boxes_N4, parts[2].boxes_N4]))
    empty = collate(parts[1:2] * 2).to("cpu")
    assert empty.counts_B.tolist() == [0, 0]
    assert empty.boxes_N4.shape == empty.boxes_norm_N4.shape == (0, 4)
    assert empty.actions_NA.shape == (0, 60)

    monkeypatch.setattr(clips, "get_worker_info", lambda: "a worker")
    shared = collate(parts).clips_BCTHW  # a worker writes straight into shared memory
    assert torch.equal(batch.clips_BCTHW, shared)
    assert shared.is_shared() and not batch.clips_BCTHW.is_shared()


def test_views_of_a_clip_line_up(tiny_dataset):
    views = [test_transform(side, 96, flip) for side in (32, 48) for flip in (False, True)]
    items = dataset(tiny_dataset, [keyframe(persons=2), keyframe("b", persons=1)], views)
    batches = clips.collate_views([items[0], items[1]])
    for view, batch in zip(views, batches, strict=True):
        alone = dataset(tiny_dataset, items.keyframes, view)
        assert_same(batch, collate([alone[0], alone[1]]))


def test_a_missing_video_is_named_before_any_work(tiny_dataset):
    with pytest.raises(InputError, match="zzz: no such video"):
        dataset(tiny_dataset, [keyframe("zzz")])


# ------------------------------------------------------------------- what a detector is trained on


@pytest.fixture
def still(tmp_path) -> clips.Picture:
    """A bright rectangle, red at its left edge, where its box is."""
    path = tmp_path / "still.png"
    blue_first = np.full((40, 64, 3), 30, np.uint8)
    blue_first[5:25, 10:30] = (180, 180, 180)
    blue_first[5:25, 10:12] = (20, 20, 230)
    assert cv2.imwrite(str(path), blue_first)
    return clips.Picture(path, None, np.array([[10.0, 5.0, 30.0, 25.0]], np.float32))


def test_an_image_file_is_read_red_first_or_refused_by_name(still, tmp_path):
    frame = still.read()
    assert frame.dtype == torch.uint8 and frame.shape == (3, 40, 64)
    assert frame[:, 10, 11].tolist() == [230, 20, 20]
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("text.jpg", "none.jpg"):
        with pytest.raises(InputError, match=rf"{name}: no readable picture"):
            clips.Picture(tmp_path / name, None, still.boxes).read()


def test_keyframes_are_frames_of_their_videos(tiny_dataset):
    """At the annotated second of the file's own clock, those without a person included."""
    layout = AvaLayout(tiny_dataset)
    keyframes = read_keyframes(layout, "kinetics", "val")
    pictures = clips.of_keyframes(layout, keyframes)
    assert [len(picture.boxes) for picture in pictures] == [1, 0]
    for annotated, picture in zip(keyframes, pictures, strict=True):
        (frame,) = read_frames(layout.video_file("kinetics", "c"), [annotated.timestamp - 2.5])
        assert torch.equal(picture.read(), frame)
    assert PictureDataset(pictures)[1, 0][1].shape == (0, 4)
    # b is 64 x 48 pixels, its person 0.25 to 0.75
    pictures = clips.of_keyframes(layout, read_keyframes(layout, "ava", "val"))
    assert PictureDataset(pictures)[0, 1][1].tolist() == [[16.0, 12.0, 48.0, 36.0]]


def test_pictures_depend_on_their_key_and_boxes_are_mirrored_with_them(still):
    """Half of the time; the box stays on the rectangle, whatever its colours are."""
    pictures = PictureDataset([still])
    mirrored, sums = 0, set()
    for seed in range(40):
        torch.manual_seed(seed % 3)
        state = torch.random.get_rng_state()
        picture, boxes = pictures[0, seed]
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.rand(1)
        assert all(map(torch.equal, pictures[0, seed], (picture, boxes)))
        assert type(picture) is type(boxes) is torch.Tensor and boxes.dtype == torch.float32
        rows, columns = (picture.float().amax(dim=0) > 90).nonzero().unbind(dim=1)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert boxes.tolist() == [[float(edge) for edge in edges]]
        mirrored += int(boxes[0, 0] == 64 - 30)
        sums.add(picture.sum().item())
    assert 10 <= mirrored <= 30 and len(sums) > 20


def test_a_batch_of_pictures_is_two_lists_of_any_sizes():
    pictures, boxes = clips.as_lists([(torch.zeros(3, 4, n), torch.ones(n, 4)) for n in (3, 5)])
    assert [p.shape[2] for p in pictures] == [len(b) for b in boxes] == [3, 5]
    assert isinstance(pictures, list) and isinstance(boxes, list)


def test_a_worker_holds_no_object_a_keyframe(tiny_dataset):
    others = [each for each in gc.get_objects() if type(each) is Keyframe]
    those = [keyframe("ab"[i % 2], 900.0 + i, persons=i % 3) for i in range(50)]
    items = pickle.loads(pickle.dumps(dataset(tiny_dataset, those)))
    assert len(items) == 50
    for index in (0, 7, 49, -1):
        ours, its = items.keyframes[index], those[index]
        assert (ours.source, ours.moment) == (its.source, its.moment)
        for name in ("boxes", "actions", "person_ids"):
            a, b = getattr(ours, name), getattr(its, name)
            assert a.dtype == b.dtype and np.array_equal(a, b)
    del those, its, ours
    gc.collect()
    assert sum(type(each) is Keyframe for each in gc.get_objects()) == len(others)
    with pytest.raises(IndexError):
        items.keyframes[50]
    assert not len(KeyframeColumns([]))


def test_sizes_are_read_from_a_video_once_and_again_when_it_changes(
    tiny_dataset, tmp_path, monkeypatch
):
    shutil.copytree(tiny_dataset, root := tmp_path / "root")
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path / "data"))
    opened, read = clips.opened, []
    monkeypatch.setattr(clips, "opened", lambda path: read.append(path.stem) or opened(path))

    def sizes() -> list[tuple[int, int]]:
        keyframes = [keyframe("a"), keyframe("b"), keyframe("a", 903.0)]
        sampling, view = Sampling(2, 0.1), test_transform(64, 96)
        return ClipDataset(AvaLayout(root), keyframes, sampling, view).sizes()

    assert sizes() == sizes() == [(48, 64)] * 3 and read == ["a", "b"]
    frames = np.zeros((3, 32, 80, 3), np.uint8)
    write_video(root / "videos" / "ava" / "b.mp4", frames, fps=8)
    assert sizes() == [(48, 64), (32, 80), (48, 64)] and read == ["a", "b", "b"]
    (kept,) = (tmp_path / "data" / "sizes").iterdir()
    kept.write_text("{cut sh")
    assert sizes() == [(48, 64), (32, 80), (48, 64)] and len(read) == 5

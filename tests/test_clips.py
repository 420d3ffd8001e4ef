"""Items depend on (index, seed) alone; batches keep every person on its clip and pixels."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from stadlib.base import InputError
from stadlib.data.clips import PAD_VALUE, Clip, ClipDataset, Sampling, collate, collate_views
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


def test_sampling_is_centred_on_the_keyframe() -> None:
    assert SAMPLING.times(10.0) == [9.0, 9.25, 9.5, 9.75, 10.0, 10.25, 10.5, 10.75]
    assert Sampling(5, 0.5).times(2.0) == [1.0, 1.5, 2.0, 2.5, 3.0]


def test_a_clip_shows_the_frames_around_the_keyframe_on_the_annotation_clock(tiny_dataset) -> None:
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
    assert torch.allclose(
        clip.boxes_N4, torch.stack([32 - 32 * x2, 24 * y1, 32 - 32 * x1, 24 * y2], 1)
    )
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
    boxes = {clips[i, seed].boxes_N4.numpy().tobytes() for i in (1, 3) for seed in (7, 8)}
    assert len(boxes) == 4


def test_a_dataset_travels_to_workers_and_makes_the_same_items_there(tiny_dataset) -> None:
    clips = dataset(tiny_dataset, read_keyframes(AvaLayout(tiny_dataset), "ava", "train") * 2)
    there = pickle.loads(pickle.dumps(clips))
    for key in ((0, 1), (1, 2)):
        assert_same(there[key], clips[key])


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
    assert dataset(tiny_dataset, [keyframe(persons=5)], max_persons=5)[0].person_ids_N.tolist() == [
        0, 1, 2, 3, 4,
    ]  # fmt: skip


def test_collate_pads_to_a_common_multiple_of_32(tiny_dataset: Path) -> None:
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
    for padded, part in zip(batch.clips_BCTHW, parts, strict=True):
        h, w = part.frames_TCHW.shape[2:]
        assert torch.equal(padded[:, :, :h, :w], part.frames_TCHW.transpose(0, 1))
        assert (padded[:, :, h:] == PAD_VALUE).all() and (padded[:, :, :, w:] == PAD_VALUE).all()
    assert torch.equal(batch.boxes_N4, torch.cat([parts[0].boxes_N4, parts[2].boxes_N4]))


def test_a_worker_writes_the_same_batch_straight_into_shared_memory(tiny_dataset, monkeypatch):
    views = [test_transform(48, 64), test_transform(40, 80)]
    parts = [dataset(tiny_dataset, [keyframe()], view)[0] for view in views]
    here = collate(parts).clips_BCTHW
    monkeypatch.setattr("stadlib.data.clips.get_worker_info", lambda: "a worker")
    there = collate(parts).clips_BCTHW
    assert torch.equal(here, there)
    assert there.is_shared() and not here.is_shared()


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
        assert torch.equal(batch.clips_BCTHW, alone.clips_BCTHW)
        assert torch.equal(batch.boxes_N4, alone.boxes_N4)
        assert torch.equal(batch.boxes_norm_N4, batches[0].boxes_norm_N4)
        assert batch.keys == batches[0].keys


def test_a_missing_video_is_named_before_any_work(tiny_dataset: Path) -> None:
    with pytest.raises(InputError, match="zzz: no such video"):
        dataset(tiny_dataset, [keyframe("zzz")])

"""Kinetics' own form: lists, files wherever they lie, clips that depend only on their key."""

from __future__ import annotations

import pickle
import shutil

import pytest
import torch

from stadlib.base import InputError
from stadlib.data import kinetics
from stadlib.data.clips import Sampling
from stadlib.data.kinetics import TestViews, Unreadable, clip_frames

HEADER = "label,youtube_id,time_start,time_end,split\n"
SAMPLING = Sampling(num_frames=4, interval=0.25)


@pytest.fixture
def root(tiny_kinetics, tmp_path):
    """A copy of the folder that a test may change."""
    return shutil.copytree(tiny_kinetics, tmp_path / "kinetics")


def videos(root, split="train", kept="kept.csv"):
    return kinetics.listed_videos(kinetics.read_annotations(root), split, root.parent / kept)


def test_classes_are_the_sorted_labels_under_either_name_of_the_list_and_folder(root):
    before = kinetics.read_annotations(root)
    assert before.classes == ("bee keeping", "making tea", "zumba")
    assert before.rows["train"][0] == (2, "aaaaaaaaaaa", "aaaaaaaaaaa_000012_000022")
    assert videos(root, "val").labels.tolist() == [2, 1, 0]
    (root / "val.csv").rename(root / "validate.csv")
    (root / "val").rename(root / "validate")
    assert kinetics.read_annotations(root) == before
    assert videos(root, "val", "again.csv").labels.tolist() == [2, 1, 0]


def test_a_video_is_found_under_either_name_and_has_the_label_of_its_row(root):
    found = videos(root)
    assert len(found) == 7 and found.files.dtype.kind == "S"
    assert [found.path(i).name for i in range(3)] == [
        "aaaaaaaaaaa_000012_000022.mp4",
        "-bbbbbbbbbb.mp4",  # from videos/
        "cccccccccc__000000_000010.mp4",  # in a folder of another label
    ]
    assert found.labels.tolist()[:3] == [2, 0, 1]
    assert all(found.path(i).is_file() for i in range(len(found)))


def test_missing_videos_are_named_and_a_list_stays_as_it_was_begun(root):
    annotations, before = kinetics.read_annotations(root), videos(root)
    assert kinetics.missing_videos(annotations, "train", before) == ["gone1234567_000001_000011"]
    assert kinetics.missing_videos(annotations, "val", videos(root, "val", "val.csv")) == []
    shutil.copy(root / "videos" / "-bbbbbbbbbb.mp4", root / "videos" / "gone1234567.mp4")
    assert videos(root).files.tolist() == before.files.tolist()
    assert len(videos(root, kept="fresh.csv")) == len(before) + 1


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("train.csv", None, r"train\.csv: no such list; put"),
        ("val.csv", None, r"val\.csv or validate\.csv there"),
        ("train.csv", "label\nzumba\n", r"train\.csv:2: no row of"),
        ("train.csv", HEADER, r"train\.csv: no row below"),
        ("val.csv", HEADER + "juggling,d,0,10,\n", r"val\.csv:2: .* take both lists"),
        ("train.csv", HEADER + "zumba,d,1,2,\nzumba,d,ten,20,\n", r"train\.csv:3: no row .*mend"),
        ("train.csv", HEADER + "zumba\n", r"train\.csv:2: no row of"),
        ("train.csv", HEADER + "zumba,d,1,2,\n", r"none of the 1 train videos .*/d_000001_000002"),
    ],
)
def test_one_line_says_what_is_wrong(root, name, content, answer):
    (root / name).unlink()
    if content:
        (root / name).write_text(content)
    if name == "train.csv":
        (root / "val.csv").write_text(HEADER + "zumba,d,1,2,\n")
    with pytest.raises(InputError, match=answer) as caught:
        videos(root)
    assert "\n" not in str(caught.value)


def random_clips(found, path):
    return kinetics.RandomClips(
        found, SAMPLING, short_sides=(36, 44), crop=32, unreadable=Unreadable(path)
    )


def test_an_item_depends_on_nothing_but_its_key(root, tmp_path):
    dataset = random_clips(videos(root), tmp_path / "u.txt")
    size = len(pickle.dumps(dataset))
    items = {key: dataset[key] for key in [(0, 1), (0, 2), (2, 1)]}
    other = pickle.loads(pickle.dumps(dataset))
    for key in reversed(items):
        torch.rand(3)
        clip, label = other[key]
        assert clip.shape == (3, 4, 32, 32) and clip.dtype == torch.uint8
        assert torch.equal(clip, items[key][0]) and label == items[key][1]
    assert not torch.equal(items[0, 1][0], items[0, 2][0])
    assert len(pickle.dumps(dataset)) == size  # nothing decoded is kept
    brightness = [float(dataset[0, seed][0][:, 0].float().mean()) for seed in range(12)]
    assert max(brightness) - min(brightness) > 40  # from all over the video: frames grow brighter


def test_what_cannot_be_read_is_noted_and_replaced(root, tmp_path):
    found = videos(root)
    broken = found.files.tolist().index(b"train/zumba/eeeeeeeeeee_000000_000010.mp4")
    dataset = random_clips(found, tmp_path / "u.txt")
    clip, label = dataset[broken, 5]
    again = dataset[broken, 5]
    assert torch.equal(clip, again[0]) and label == again[1]
    assert dataset.unreadable.names() == ["train/zumba/eeeeeeeeeee_000000_000010.mp4"]
    found.path(0).unlink()  # gone since the list was made
    dataset[0, 5]
    assert len(dataset.unreadable.names()) == 2
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "videos")
    with pytest.raises(InputError, match=r"\.mp4: no such video"):
        dataset[0, 5]


def test_views_reach_from_end_to_end_and_an_unreadable_video_has_none(root, tmp_path):
    found = videos(root, "val")
    options = {"side": 24, "unreadable": Unreadable(tmp_path / "u.txt")}
    views = TestViews(found, SAMPLING, num_clips=3, num_crops=3, **options)
    assert len(views) == 9
    clips = [views[item][0] for item in range(3)]
    assert all(clip.shape == (3, 3, 4, 24, 24) for clip in clips)
    path = found.path(0)
    starts = [clip_frames(path, SAMPLING, place) for place in (0.0, 0.5, 1.0)]
    for clip, frames in zip(clips, starts, strict=True):
        height, width = frames.shape[2:]
        assert height < width
        left, middle, right = clip.float().mean(dim=(1, 2, 3, 4))
        assert left < middle < right  # columns grow brighter
        assert abs(middle - frames.float().mean()) < 4
    centre, label = TestViews(found, SAMPLING, num_clips=1, num_crops=1, **options)[0]
    assert torch.equal(centre[0], clips[1][1]) and label == 2
    found.path(1).write_bytes(b"no video")
    views = TestViews(found, SAMPLING, num_clips=2, num_crops=1, **options)
    assert [len(views[item][0]) for item in range(6)] == [1, 1, 0, 0, 1, 1]
    assert len(options["unreadable"].names()) == 1


def test_a_clip_longer_than_its_video_ends_with_its_last_frame(root):
    path = videos(root, "val").path(0)
    frames = clip_frames(path, Sampling(num_frames=8, interval=1.0), 1.0)
    assert torch.equal(frames[4], frames[7])
    assert not torch.equal(frames[0], frames[1])

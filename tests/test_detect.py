"""Person boxes of many frames: AVA's form, in order, and a kill changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data.boxes import BOX_COLUMNS, read_person_boxes
from stadlib.data.layout import AvaLayout
from stadlib.data.video import probe, read_frames, write_video
from stadlib.models.person_detector import PERSON
from stadlib.training import detector
from stadlib.training.detector import Frame

HEIGHT, WIDTH, RATE, LENGTH = 48, 64, 8, 40  # of the videos, in pixels, frames a second, frames


class Interrupted(Exception):
    pass


class BrightSpots(nn.Module):
    """Finds the bright part of a picture, and things that are no persons beside it."""

    def __init__(self, patience: int | None = None) -> None:
        super().__init__()
        self.anywhere = nn.Parameter(torch.zeros(1))
        self.patience = patience  # pictures until it is killed

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        if self.patience is not None:
            self.patience -= len(images)
            if self.patience < 0:
                raise Interrupted
        return [self.look(image) for image in images]

    def look(self, image: Tensor) -> dict[str, Tensor]:
        assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
        rows, columns = (image.mean(dim=0) > 0.5).nonzero().unbind(dim=1)
        if not len(rows):
            return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": rows}
        person = [columns.min() - 2, rows.min(), columns.max() + 1, rows.max() + 1]
        boxes = torch.tensor([person, [1, 1, 9, 9], [5, 5, 5, 20], [0, 0, 7, 7]]).float()
        scores = torch.tensor([image.mean() / 3, 0.7, 0.6, 1 / 7])
        return {"boxes": boxes, "scores": scores, "labels": torch.tensor([1, 62, 1, 1])}


def expected_rows(frames: list[Frame]) -> list[tuple]:
    """One frame at a time: persons with an area, corners as fractions cut at the edge."""
    rows = []
    for frame in frames:
        picture = read_frames(frame.path, [frame.time])[0]
        found = BrightSpots().look(picture.float() / 255)
        for box, score, label in zip(*(found[k].tolist() for k in found), strict=True):
            x1, y1, x2, y2 = box
            if label == PERSON and x1 < x2 and y1 < y2:
                corners = (max(0, x1) / WIDTH, y1 / HEIGHT, x2 / WIDTH, y2 / HEIGHT)
                rows.append((frame.video, frame.timestamp, *corners, score))
    return rows


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """A bright spot that moves, in every third frame not at all there."""
    paths = [tmp_path_factory.mktemp("videos") / f"{name}.mp4" for name in ("one", "two")]
    for number, path in enumerate(paths):
        frames = np.zeros((LENGTH, HEIGHT, WIDTH, 3), np.uint8)
        for i in range(LENGTH):
            if i % 3:
                frames[i, 4 + number : 30, i : i + 12] = 250
        write_video(path, frames, fps=RATE)
    return paths


@pytest.fixture(scope="module")
def frames(videos) -> list[Frame]:
    return detector.frames_of_videos(videos, 1 / RATE)


def look(frames, path, model=None, made_by="spots", progress=lambda *_: None) -> bytes:
    detector.detect_persons(model or BrightSpots(), frames, path, made_by, progress=progress)
    return path.read_bytes()


# -------------------------------------------------------------------------------------- the frames


@pytest.mark.parametrize("count", [1, 8, 9, 24])
@pytest.mark.parametrize("every", [1.0, 0.125, 0.3, 5.0])
def test_a_video_is_looked_at_from_its_first_frame_to_its_end(tmp_path, count, every):
    path = tmp_path / "v.mp4"
    write_video(path, np.zeros((count, HEIGHT, WIDTH, 3), np.uint8), fps=RATE)
    frames = detector.frames_of_videos([path], every)
    times = [k * every for k in range(2 * count) if k * every < count / RATE - 1e-9]
    assert [frame.time for frame in frames] == pytest.approx(times)
    assert [frame.timestamp for frame in frames] == [round(t, 6) for t in times]
    assert {(frame.video, frame.path) for frame in frames} == {("v", path)}


def test_videos_follow_each_other_and_two_of_one_name_are_refused(videos, frames, tmp_path):
    assert [frame.video for frame in frames] == ["one"] * LENGTH + ["two"] * LENGTH
    assert [f.time for f in frames[:LENGTH]] == [f.time for f in frames[LENGTH:]]
    other = shutil.copyfile(videos[0], tmp_path / "one.mkv")
    with pytest.raises(InputError, match="one: two videos of that name; rename one"):
        detector.frames_of_videos([*videos, other], 1.0)


def test_seconds_of_a_dataset_are_found_in_its_files(tiny_dataset, tmp_path):
    """Video c starts at 2.5 on the annotation clock, a at 900; 903 of a is excluded."""
    root = shutil.copytree(tiny_dataset, tmp_path / "own")
    layout = AvaLayout(root)
    frames = detector.frames_of_dataset(layout, "kinetics", "val")
    assert {frame.path for frame in frames} == {root / "videos" / "kinetics" / "c.mp4"}
    assert [frame.time for frame in frames] == pytest.approx([f.timestamp - 2.5 for f in frames])
    frames = detector.frames_of_dataset(layout, "ava", "train")
    assert [frame.time for frame in frames] == [0.0, 1.0, 2.0, 4.0]
    layout.video_file("ava", "a").unlink()
    with pytest.raises(InputError, match="a: no such video"):
        detector.frames_of_dataset(AvaLayout(root), "ava", "train")


# ---------------------------------------------------------------------------------------- the file


def test_every_person_of_every_frame_is_written_in_order(frames, tmp_path):
    path = tmp_path / "folder" / "boxes.csv"
    seen = []
    look(frames, path, progress=lambda done, total, text: seen.append((done, total)))
    boxes, expected = read_person_boxes(path), expected_rows(frames)
    assert len(boxes) == len(expected) > LENGTH
    assert boxes["video"].tolist() == [row[0] for row in expected]
    found = boxes[list(BOX_COLUMNS[1:])].to_numpy()
    np.testing.assert_allclose(found, np.array([row[1:] for row in expected]), atol=1e-6)
    assert boxes["x1"].min() == 0  # cut at the edge
    words = path.read_text().splitlines()[0].split(",")
    assert len(words) == 8 and words[6] == ""
    assert [other.name for other in path.parent.iterdir()] == ["boxes.csv"]
    steps = [16, 32, 40, 56, 72, 80]  # batches of one video
    assert seen == [(step, 2 * LENGTH) for step in steps] and detector.BATCH == 16


def test_frames_with_nobody_leave_no_row(frames, tmp_path):
    nobody = [frame for i, frame in enumerate(frames[:LENGTH]) if i % 3 == 0]
    assert look(nobody, tmp_path / "none.csv") == b""
    assert len(read_person_boxes(tmp_path / "none.csv")) == 0
    some = frames[:4]
    look(some, tmp_path / "some.csv")
    found = set(read_person_boxes(tmp_path / "some.csv")["timestamp"])
    assert found == {some[1].timestamp, some[2].timestamp}


@pytest.mark.parametrize(("patience", "lines"), [(0, 0), (20, 8), (33, 32), (79, 72)])
def test_killed_and_begun_again_equals_uninterrupted(frames, tmp_path, patience, lines):
    """A kill between the lines of a batch shifts the batches that follow."""
    whole = look(frames, tmp_path / "whole.csv")
    path, seen = tmp_path / "parts.csv", []
    with pytest.raises(Interrupted):
        look(frames, path, BrightSpots(patience))
    assert not path.exists()
    partial = path.with_name("parts.csv.partial")
    written = partial.read_text().splitlines(keepends=True)
    assert len(written) - 1 >= lines and 0 <= patience - len(written) + 1 < detector.BATCH
    torn = json.dumps({"video": "two", "timestamp": 4.0, "boxes": [[0.1, 0.2]]})[:40]
    partial.write_text("".join(written[: lines + 1]) + torn)
    model = BrightSpots(len(frames) - lines)  # no frame is looked at twice
    again = look(frames, path, model, progress=lambda done, total, text: seen.append(done))
    assert again == whole
    assert model.patience == 0 and min(seen) > lines and max(seen) == len(frames)
    assert not partial.exists()


def test_a_file_begun_by_another_detector_is_refused(frames, tmp_path):
    path = tmp_path / "boxes.csv"
    with pytest.raises(Interrupted):
        look(frames, path, BrightSpots(20), made_by="v1")
    partial = path.with_name("boxes.csv.partial")
    before = partial.read_bytes()
    with pytest.raises(InputError, match=r"boxes\.csv\.partial: begun with v1; delete it"):
        look(frames, path, made_by="v2")
    assert partial.read_bytes() == before and not path.exists()


# ---------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A detector's checkpoint; untrained, but sure of itself."""
    torch.manual_seed(0)
    model = detector.build_detector("smoke")
    nn.init.constant_(model.head.score.bias, 1.0)
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pt"
    torch.save({"model": model.state_dict()}, path)
    return path


def test_the_command_writes_the_persons_of_videos(videos, weights, tmp_path, capsys):
    out = tmp_path / "boxes.csv"
    words = ["--detector", str(weights), "--scale", "smoke", "--every", "0.5", "--out", str(out)]
    assert main(["detect", *map(str, videos), *words]) == 0
    count = 2 * round(LENGTH / RATE / 0.5)
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}: {count} frames"
    boxes = read_person_boxes(out)
    assert set(boxes["video"]) == {"one", "two"}
    assert set(boxes["timestamp"]) == {0.5 * k for k in range(count // 2)}
    assert boxes[["x1", "y1"]].min().min() >= 0 and boxes[["x2", "y2"]].max().max() <= 1


def test_the_command_looks_at_every_second_of_a_dataset(tiny_dataset, weights, tmp_path, capsys):
    root = shutil.copytree(tiny_dataset, tmp_path / "own")
    words = ["detect", "--data", str(root), "--detector", str(weights), "--scale", "smoke"]
    assert main([*words, "--as", "mine", "--split", "train", "val"]) == 0
    made = {path.name for path in (root / "boxes").iterdir()}
    assert made == {"mine_ava_train.csv", "mine_ava_val.csv", "mine_kinetics_val.csv"}
    seconds = {"ava": {900.0, 901.0, 902.0, 904.0}, "kinetics": {3.016949, 4.016949, 5.016949,
                                                              6.016949, 6.5, 7.016949}}  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    for source, split, expected in (
        ("ava", "train", seconds["ava"]),  # 903 is excluded
        ("ava", "val", seconds["ava"] | {903.0}),
        ("kinetics", "val", seconds["kinetics"]),
    ):
        path = AvaLayout(root).person_boxes("mine", source, split)
        assert set(read_person_boxes(path)["timestamp"]) == expected
        assert f"{path}: {len(expected)} frames" in lines
    end = AvaLayout(root).video_start("kinetics", "c")
    end += probe(AvaLayout(root).video_file("kinetics", "c")).duration
    assert end - 1 < max(seconds["kinetics"]) < end


OUT = ["VIDEO", "--out", "b.csv"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "detect: give either video files or --data DIR"),
        (["VIDEO", "--data", "DATA"], "detect: give either video files or --data DIR"),
        (["VIDEO"], "--out is missing: name the CSV file for the boxes of these videos"),
        (["VIDEO", "--out", "b.json"], "--out b.json: person boxes are written as .csv; rename it"),
        ([*OUT, "--every", "0"], "--every 0: give seconds, more than 0"),
        ([*OUT, "--every", "nan"], "--every nan: give seconds, more than 0"),
        ([*OUT, "--scale", "huge"], "choose from smoke, mini, paper"),
        ([*OUT, "--detector", "v9"], "'v9'; choose from v1, v2, v3, torchvision:NAME, FILE.pt"),
        ([*OUT, "--detector", "torchvision:yolo"], "'yolo'; choose from fasterrcnn_resnet50_fpn"),
        ([*OUT, "--detector", "none.pt"], "none.pt: no such file; name a checkpoint.pt"),
        (["nowhere.mp4", "--out", "b.csv"], "nowhere.mp4: no such video"),
        (["--data", "DATA", "--split", "test"], "no ava or kinetics test; see the README"),
        (["--data", "DATA", "--source", "youtube"], "'youtube'; choose from ava, kinetics"),
    ],
)
def test_the_command_refuses_in_one_line(
    words, answer, videos, tiny_dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    known = {"VIDEO": str(videos[0]), "DATA": str(tiny_dataset)}
    assert main(["detect", *(known.get(word, word) for word in words)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and answer in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_file_that_holds_no_detector_is_refused(videos, weights, tmp_path, capsys):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    torch.save({"model": nn.Linear(2, 2).state_dict()}, tmp_path / "linear.pt")
    for name in ("text.pt", "other.pt", "linear.pt"):
        out = ["--out", str(tmp_path / "b.csv"), "--scale", "smoke"]
        assert main(["detect", str(videos[0]), "--detector", str(tmp_path / name), *out]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{name}: no detector of scale smoke" in line
    # Two files of one name are two detectors.
    content = torch.load(weights)
    content["model"]["head.score.bias"] += 1
    torch.save(content, tmp_path / "checkpoint.pt")
    paths = (weights, tmp_path / "checkpoint.pt")
    names = {detector.open_detector(str(path), "smoke", None)[1] for path in paths}
    assert len(names) == 2 and all("checkpoint.pt" in name for name in names)


def pictures_seen(frames, path) -> int:
    model = BrightSpots(patience=1000)
    look(frames, path, model)
    return 1000 - model.patience


def test_two_processes_look_at_a_video_each(frames, tmp_path, pair):
    alone = look(frames, tmp_path / "alone.csv")
    assert pair.run(pictures_seen, frames, tmp_path / "both.csv") == [LENGTH, LENGTH]
    assert (tmp_path / "both.csv").read_bytes() == alone
    assert {path.name for path in tmp_path.iterdir()} == {"alone.csv", "both.csv"}


def test_what_any_process_found_before_a_kill_is_used(frames, tmp_path):
    alone, path = look(frames, tmp_path / "alone.csv"), tmp_path / "both.csv"
    with pytest.raises(Interrupted):
        look(frames, path, BrightSpots(patience=50))
    partial = path.with_name("both.csv.partial")
    partial.rename(path.with_name("both.csv.partial1"))  # as if the second of two had written it
    rest = BrightSpots(patience=LENGTH)
    assert look(frames, path, rest) == alone and rest.patience < LENGTH
    assert {path.name for path in tmp_path.iterdir()} == {"alone.csv", "both.csv"}


def test_the_command_starts_processes_with_the_same_words(videos, tmp_path, monkeypatch):
    from stadlib import study

    started = []
    monkeypatch.setattr(study, "torchrun", lambda *words: started.append(words))
    names = [str(path) for path in videos]
    out, find = f"--out={tmp_path}/b.csv", ["--detector=v1", "--scale=mini", "--every=2.0"]
    assert main(["detect", *names, *find, out, "--processes", "2"]) == 0
    assert started == [(["detect", *names, *find, out], 2, "detect")]
    words = ["detect", "--data=d", "--detector=v1", "--scale=mini", "--as=x", "--every=1.0"]
    words += ["--source", "ava", "kinetics", "--split", "val", "test"]
    assert main([*words, "--processes=3"]) == 0
    assert started[1] == (words, 3, "detect")

"""Every planted problem is found, with its file and row; a sound dataset has none."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from stadlib.data.check import check_dataset
from stadlib.data.clips import ClipDataset, Sampling, collate
from stadlib.data.keyframes import read_keyframes
from stadlib.data.layout import AvaLayout
from stadlib.data.transforms import train_transform

TRAIN = "annotations/ava_train_v2.2.csv"
VAL = "annotations/ava_val_v2.2.csv"


@pytest.fixture
def root(tiny_dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_dataset, tmp_path / "copy")


def add(root: Path, name: str, *lines: str) -> None:
    with (root / name).open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def test_a_sound_dataset_has_no_problem(tiny_dataset: Path) -> None:
    calls = []
    assert check_dataset(tiny_dataset, progress=lambda *call: calls.append(call)) == []
    assert calls == [(1, 3, "videos"), (2, 3, "videos"), (3, 3, "videos")]


def test_optional_files_are_not_missed(root: Path) -> None:
    for name in ("ava_train_v2.2.txt", "ava_train_excluded_timestamps_v2.2.csv"):
        (root / "annotations" / name).unlink()
    assert check_dataset(root) == []


def test_not_a_dataset(tmp_path: Path) -> None:
    (line,) = check_dataset(tmp_path / "none")
    assert "no such folder" in line
    (tmp_path / "annotations").mkdir()
    (line,) = check_dataset(tmp_path)
    assert "label map" in line


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        (TRAIN, "a,0903,0.9,0.2,0.3,0.9,12,0", f"{TRAIN}:5: x1 0.9 >= x2 0.3"),
        (TRAIN, "a,0903,0.1,0.2,0.3,9,12,0", f"{TRAIN}:5: y2 9 is outside [0, 1]"),
        (TRAIN, "a,0903,0.1,0.2,0.3,0.9,99,0", f"{TRAIN}:5: action '99' is none that ava_act"),
        (TRAIN, "a,0903,0.1", f"{TRAIN}:5: 3 columns"),
        (TRAIN, "a,0950", f"{TRAIN}:5: timestamp 950.000000 is outside the video"),
        (TRAIN, "a,0899", f"{TRAIN}:5: timestamp 899.000000 is outside the video"),
        (TRAIN, "n,0902", "videos/ava/n: no such video (looked for .mp4, .mkv, .webm, .avi, .mov)"),
        (TRAIN, "../a,0902", "videos/ava: '../a' is no video id"),
        (VAL, "a,0901", f"{VAL}:2: video a is also in ava_train_v2.2.txt:1"),
        ("annotations/ava_val_v2.2.txt", "x", "videos/ava/x: no such video"),
        (
            "annotations/video_starts.csv",
            "ava,b",
            "annotations/video_starts.csv:5: 'ava,b' is not",
        ),
        (
            "annotations/ava_train_excluded_timestamps_v2.2.csv",
            "a,late",
            "annotations/ava_train_excluded_timestamps_v2.2.csv:2: timestamp 'late' is no",
        ),
    ],
)
def test_one_planted_problem_is_one_line(root: Path, name: str, row: str, expected: str) -> None:
    add(root, name, row)
    (line,) = check_dataset(root)
    assert line.startswith(expected)


def test_files_that_contradict_each_other(root: Path) -> None:
    add(root, VAL, "a,0902,0.1,0.2,0.5,0.9,14,0")
    first, second = check_dataset(root)
    assert first.startswith(f"{VAL}:2: keyframe a,902.000000 has other boxes or actions than in ")
    assert "ava_train_v2.2.csv:1" in first and "is also in" in second


def test_broken_videos(root: Path) -> None:
    videos = root / "videos"
    whole = (videos / "ava" / "a.mp4").read_bytes()
    (videos / "ava" / "a.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (videos / "ava" / "b.mp4").write_bytes(b"")
    (videos / "kinetics" / "c.mp4").unlink()
    lines = check_dataset(root)
    assert len(lines) == 3
    assert lines[0].startswith("videos/ava/a.mp4: ") and "ends early" in lines[0]
    assert lines[1].startswith("videos/ava/b.mp4: empty file")
    assert lines[2].startswith("videos/kinetics/c: no such video")
    assert "(named in ava_train_v2.2.txt:1)" in lines[0]


def test_all_problems_are_listed_in_one_go(root: Path) -> None:
    add(root, TRAIN, "a,x", "a,0903,0.9,0.2,0.3,0.9,12", "n,0902", "m,0902")
    add(root, VAL, "b,0950", "b,0951", "b,0951,0.1,0.2,0.3,0.9,12")
    (root / "annotations" / "kinetics_val_v1.0.csv").write_text("")
    AvaLayout(root).label_map()
    lines = check_dataset(root)
    assert [line.split(": ")[0] for line in lines] == [
        f"{TRAIN}:5",
        f"{TRAIN}:6",
        "annotations/kinetics_val_v1.0.csv",
        f"{VAL}:2",
        f"{VAL}:3",
        "videos/ava/n",
        "videos/ava/m",
    ]
    assert all("\n" not in line for line in lines)


def test_real_clips_as_a_dataset(shared: Path, root: Path) -> None:
    """Real H.264 whose container tells no duration, with boxes that somebody drew."""
    videos = shared / "data" / "videos"
    lines, persons = [], 0
    for name in ("fencing", "salsa_spin"):
        shutil.copyfile(videos / f"{name}.mp4", root / "videos" / "kinetics" / f"{name}.mp4")
        with (videos / f"{name}.boxes.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if int(row["frame"]) % 25 == 0]
        persons += len(rows)
        for row in rows:
            words = [row[c] for c in ("x1", "y1", "x2", "y2", "action_id", "person_id")]
            lines.append(",".join([name, f"{int(row['frame']) / 25:.6f}", *words]))
    (root / "annotations" / "kinetics_train_v1.0.csv").write_text("\n".join(lines))
    assert check_dataset(root) == []
    layout = AvaLayout(root)
    keyframes = read_keyframes(layout, "kinetics", "train")
    assert len(keyframes) == 14 and sum(len(k.boxes) for k in keyframes) == persons
    clips = ClipDataset(layout, keyframes, Sampling(8, 0.25), train_transform(64, 96))
    batch = collate([clips[i, 0] for i in range(len(clips))])
    assert batch.clips_BCTHW.shape == (14, 3, 8, 64, 96) and batch.counts_B.sum() == persons
    add(root, "annotations/kinetics_train_v1.0.csv", "", "fencing,7.200000")
    (line,) = check_dataset(root)
    assert "timestamp 7.200000 is outside the video, which lasts from 0 to 6.96 s" in line


def test_person_boxes_are_read_too(root: Path) -> None:
    (root / "boxes").mkdir()
    (root / "boxes" / "v1_ava_train.csv").write_text("a,902,0.1,0.1,0.5,0.9,,0.9\na,902,0.1\n")
    (line,) = check_dataset(root)
    assert line.startswith("boxes/v1_ava_train.csv:2: 3 columns")


def test_what_cannot_be_read_is_a_line_and_the_rest_is_checked(root: Path, monkeypatch) -> None:
    """As root everything can be read: the system's answer is put in its place."""
    (root / "videos" / "kinetics" / "c.mp4").unlink()
    opened = Path.open

    def open_(path: Path, *words, **options):
        if path.name in ("a.mp4", "video_starts.csv"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *words, **options)

    monkeypatch.setattr(Path, "open", open_)
    lines = check_dataset(root)
    assert "annotations/video_starts.csv: Permission denied; make it readable" in lines
    assert any(line.startswith("videos/ava/a.mp4: Permission denied; make it") for line in lines)
    assert any(line.startswith("videos/kinetics/c: no such video") for line in lines)

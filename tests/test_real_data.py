"""Real clips and real AVA files go the same way as the miniature world."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pytest

from stadlib.cli import main
from stadlib.data import rows
from stadlib.data.layout import LABEL_MAP_FILE, AvaLayout
from stadlib.study import read_record

RATE = 25  # frames a second of the two clips
ACTIONS = {"fencing": 9, "salsa_spin": 4}  # the nearest of AVA's: martial art, dance


@pytest.fixture
def own_dataset(shared: Path, tmp_path: Path) -> Path:
    """Two real clips with their boxes in the official layout, a keyframe every half second."""
    root = tmp_path / "own"
    (root / "annotations").mkdir(parents=True)
    (root / "videos" / "ava").mkdir(parents=True)
    shutil.copyfile(
        shared / "data" / "ava" / "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
        root / "annotations" / LABEL_MAP_FILE,
    )
    for split, name in (("train", "fencing"), ("val", "salsa_spin")):
        clip = shared / "data" / "videos" / f"{name}.mp4"
        shutil.copyfile(clip, root / "videos" / "ava" / clip.name)
        with open(clip.with_suffix(".boxes.csv")) as file:
            rows = [row for row in csv.DictReader(file) if int(row["frame"]) % 12 == 0]
        lines = [
            f"{name},{int(row['frame']) / RATE:.6f},{row['x1']},{row['y1']},{row['x2']},"
            f"{row['y2']},{action},{row['person_id']}\n"
            for row in rows
            for action in (ACTIONS[name], 12)
        ]
        (root / "annotations" / f"ava_{split}_v2.2.csv").write_text("".join(lines))
    return root


def test_own_clips_are_checked_trained_on_and_evaluated(
    own_dataset, tmp_path, monkeypatch, capsys, smoke_record
):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "results"))
    assert main(["check", str(own_dataset)]) == 0
    words = ["--scale", "smoke", "--iterations", "3", "--data", str(own_dataset)]
    assert main(["train", "--head", "s-only", *words]) == 0
    (path,) = (tmp_path / "results" / "runs").glob("*/record.json")
    record = read_record(path)
    assert set(record.metrics) == {"ava"}
    found = record.metrics["ava"]["AP"]
    assert 0 < found["12"] <= 1
    assert found["4"] is not None
    assert found["9"] is None  # nobody fences in the validation clip
    assert "mAP@0.5" in capsys.readouterr().out


@pytest.fixture
def fights(shared: Path, tmp_path: Path) -> Path:
    """Some clips of real people in the official layout: 16 to train on, 4 of validation."""
    root = tmp_path / "fights"
    shutil.copytree(shared / "data" / "fights" / "annotations", root / "annotations")
    (root / "videos" / "ava").mkdir(parents=True)
    for split, count in (("train", 16), ("val", 4)):
        path = root / "annotations" / f"ava_{split}_v2.2.csv"
        lines = path.read_text().splitlines()
        videos = [*dict.fromkeys(line.split(",")[0] for line in lines)][:count]
        kept = [line for line in lines if line.split(",")[0] in videos]
        path.write_text("".join(f"{line}\n" for line in kept))
        for video in videos:
            clip = shared / "data" / "fights" / "videos" / "ava" / f"{video}.mp4"
            (root / "videos" / "ava" / clip.name).symlink_to(clip)
    return root


@pytest.mark.parametrize("head", ["linear", "s-only", "t-only"])
def test_a_head_trains_on_real_people_past_the_peak_of_the_rate(
    head, fights, tmp_path, monkeypatch, smoke_record
):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "results"))
    words = ["--scale", "smoke", "--data", str(fights), "--start", "pretrained"]
    assert main(["train", "--head", head, "--iterations", "24", *words]) == 0
    (log,) = (tmp_path / "results" / "runs" / "stages").glob("*/log.jsonl")
    losses = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-6:]) < sum(losses[:6])


def test_every_real_ava_file_is_read_whole(shared, tmp_path):
    ava = shared / "data" / "ava"
    folder = tmp_path / "annotations"
    folder.mkdir()
    for path in [*ava.glob("ava_*_excluded_timestamps_v2.2.csv"), ava / "ava_test_v2.2.txt"]:
        shutil.copyfile(path, folder / path.name)
    layout = AvaLayout(tmp_path)
    for split in ("train", "val", "test"):
        lines = (ava / f"ava_{split}_excluded_timestamps_v2.2.csv").read_text().split()
        assert len(layout.excluded("ava", split)) == len(set(lines)) > 0
    assert layout.videos("ava", "test") == (ava / "ava_test_v2.2.txt").read_text().split()
    assert len(rows.read_rows(ava / "slowfast_predictions.1j20qq1JyX4.csv")) == 14_940


def test_contradicting_files_stop_training_with_one_line(
    own_dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "results"))
    train = own_dataset / "annotations" / "ava_train_v2.2.csv"
    with open(own_dataset / "annotations" / "ava_val_v2.2.csv", "a") as file:
        file.write("fencing,0.000000,0.1,0.1,0.2,0.9,12,0\n")
    assert train.read_text().startswith("fencing,0.000000,")
    assert main(["train", "--scale", "smoke", "--data", str(own_dataset)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "ava_train_v2.2.csv" in line
    assert "ava_val_v2.2.csv" in line

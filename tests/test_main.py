"""The command line: bad input ends with one clear line and exit status 1."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from stadlib.cli import Protocol, main
from stadlib.evaluation import matching


def failure(capsys, *words: str) -> str:
    assert main(list(words)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train --head tonly", "head='tonly'; choose from linear, s-only, t-only, all"),
        ("train --scale huge", "choose from smoke, mini, paper"),
        ("train --haed linear", "--haed"),
        ("train --scale smoke --data nowhere", "nowhere: no such folder"),
        ("train --scale paper", "ava-kinetics: no such folder"),
        ("nothing", "nothing"),
        ("train --table 2 --memory yes", "field of this table='memory'; choose from backbone"),
        ("train --table 4 --detector v3", "field of this table='detector'; choose from backbone"),
        ("train --table uses --detector v3", "field of this table='detector'"),
        ("train --table 2 --frames 64x2", "frames='64x2'; choose from 8x8+32x2"),
        ("train --table 3 --frames 8x8+32x2", "does not fit ir-csn-152; choose from 32x2"),
        ("train --table 5", "table='5'; choose from 1, 2, 3, 4, amounts"),
        ("evaluate --groundtruth a --detections b --protocol x", "choose from official, acar"),
        ("evaluate --groundtruth a --detections b --ties x", "choose from file, official"),
        ("evaluate --groundtruth a --detections b", "--labels is missing"),
        ("pretrain --iterations 0", "--iterations 0: give 1 or more"),
    ],
)
def test_wrong_words(capsys, tmp_path, monkeypatch, command, words):
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path))
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "results"))
    assert words in failure(capsys, *command.split())


def test_protocols_are_those_of_the_evaluation():
    assert tuple(matching.PROTOCOLS) == get_args(Protocol)


def test_wrong_words_are_refused_before_slow_imports():
    command = "evaluate --groundtruth a --detections b --protocol x"
    code = f"import sys; from stadlib.cli import main; main({command.split()})\n"
    code += "print([name for name in ('torch', 'pandas', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_results_folder_that_cannot_be_written(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "file"))
    line = failure(capsys, "train", "--head", "linear", "--scale", "smoke")
    assert "cannot be written" in line and "STADLIB_RESULTS" in line

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", full)
    line = failure(capsys, "train", "--head", "linear", "--scale", "smoke")
    assert "cannot be written (No space left on device)" in line


def test_damaged_record(capsys, smoke_record, tmp_path, monkeypatch):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    folder = tmp_path / "runs" / smoke_record.folder.name
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"experiment": {}')
    line = failure(
        capsys, "train", "--head", "t-only", "--scale", "smoke", "--detector", "ground-truth"
    )
    assert "record.json: not a record" in line


@pytest.mark.parametrize(
    ("size", "words"), [(None, "no such video"), (0, "empty file"), (0.5, "file ends early")]
)
def test_video_that_cannot_be_used(
    capsys, tmp_path, monkeypatch, tiny_dataset, smoke_record, size, words
):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "results"))
    root = shutil.copytree(tiny_dataset, tmp_path / "own")
    video = root / "videos" / "ava" / "a.mp4"
    content = video.read_bytes()
    video.unlink()
    if size is not None:
        video.write_bytes(content[: int(size * len(content))])
    line = failure(capsys, "train", "--scale", "smoke", "--data", str(root))
    assert "videos/ava/a" in line
    assert words in line
    assert not list((tmp_path / "results").glob("runs/*/record.json"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,0905,0.1,0.2,0.3", "5 columns"),
        ("a,0905,0.9,0.2,0.3,0.9,12,0", "x1 0.9 >= x2 0.3"),
        ("a,0905,0.1,0.2,1.3,0.9,12,0", "1.3"),
        ("a,0905,0.1,0.2,0.3,0.9,99,0", "99"),
    ],
)
def test_row_that_cannot_be_used(
    capsys, tmp_path, monkeypatch, tiny_dataset, smoke_record, row, words
):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "results"))
    root = shutil.copytree(tiny_dataset, tmp_path / "own")
    path = root / "annotations" / "ava_train_v2.2.csv"
    with open(path, "a") as file:
        file.write(row + "\n")
    line = failure(capsys, "train", "--scale", "smoke", "--data", str(root))
    assert "ava_train_v2.2.csv:5" in line
    assert words in line
    assert main(["check", str(root)]) == 1
    assert "ava_train_v2.2.csv:5" in capsys.readouterr().out

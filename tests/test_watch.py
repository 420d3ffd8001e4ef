"""Watching tells what the files say, of any state of a run, and touches nothing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from reading import make_record

from stadlib import recipes
from stadlib.base import InputError, stage_dir, whole_lines
from stadlib.cli import main
from stadlib.run_commands import status
from stadlib.study import find_run, write_record


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    return tmp_path / "runs"


ROWS = list(recipes.table2(scale="mini", seed=3).values())  # of two stages


def start(runs: Path, number: int = 0) -> tuple[Path, Path]:
    """The folders of a row's run and of its first stage."""
    row = ROWS[number]
    folder, stage = runs / f"{row.name}-{row.digest}", stage_dir(row.stage_digest(1))
    for path in (folder, stage):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.json").write_text(json.dumps(row.to_dict()))
    return folder, stage


def log(folder: Path, iterations: int, *, until: int, every: int = 1, speed: float = 4.0, **more):
    more |= {"loss": 0.25, "lr": 0.01, "data_seconds": every / speed / 10}
    with open(folder / "log.jsonl", "a") as file:
        for i in range(0, until, every):
            line = {"iteration": i, "iterations": iterations, "seconds": i / speed}
            file.write(json.dumps(line | more) + "\n")


def finish(folder: Path) -> None:
    metrics = {"ava": {"mAP": 0.41}, "kinetics": {"mAP": None}, "ava+kinetics": {"mAP": 0.405}}
    write_record(make_record(ROWS[0], metrics, {}, folder), folder / "record.json")


def test_a_run_in_its_first_stage(runs):
    folder, stage = start(runs)
    log(stage, 1000, until=401, every=5, peak_gpu_mb=2345)
    name, first, details, second = status(folder)
    assert name == folder.name
    assert first == (
        "stage 1 of 2: iteration 401 of 1000 (40%), loss 0.2500 (smoothed), lr 0.01, "
        "4 iterations/s, 0:02:30 left"
    )
    assert details.endswith("waiting for data 10%, GPU 2.3 GB at most")
    assert second == "stage 2 of 2: not begun"


def test_a_trained_stage_and_a_record(runs):
    folder, stage = start(runs)
    log(stage, 100, until=100)
    os.utime(stage / "log.jsonl", (2e9, 2e9))
    lines = status(folder, now=2e9 + 7300)
    assert "iteration 100 of 100 (100%)" in lines[1] and "left" not in lines[1]
    assert lines[2] == "  last line 2:01:40 ago"
    finish(folder)
    assert status(folder, now=2e9)[-1] == "finished; mAP@0.5, %: ava 41.00, ava+kinetics 40.50"


def test_speed_is_that_of_the_process_that_runs_now(runs):
    folder, stage = start(runs)
    log(stage, 400, until=100, speed=1.0)
    with open(stage / "log.jsonl", "a") as file:
        for iteration, second in ((100, 3.0), (101, 3.5), (102, 4.0)):
            line = {"iteration": iteration, "seconds": second, "loss": 1, "lr": 1}
            file.write(json.dumps(line | {"iterations": 400}) + "\n")
        file.write('{"iteration": 103, "lo')  # being written
    assert len([*whole_lines(stage / "log.jsonl")]) == 103
    assert ", 2 iterations/s" in status(folder)[1] and ", 0:02:28 left" in status(folder)[1]
    (stage / "log.jsonl").write_text("")
    assert status(folder)[1] == "stage 1 of 2: begun, nothing logged yet"


def test_runs_are_found_by_a_part_of_their_name(runs, tmp_path):
    folders = [start(runs, number)[0] for number in range(3)]
    for number, folder in enumerate(folders):
        os.utime(folder, (1000 + number, 1000 + number))
    assert find_run() == folders[2]
    assert find_run(ROWS[1].digest) == folders[1]
    assert find_run("mini") == folders[2]
    assert find_run(str(folders[0])) == folders[0]
    with pytest.raises(InputError, match="no run whose name contains 'huge'; there") as caught:
        find_run("huge")
    assert folders[1].name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"no experiment\.json; name the folder of a run"):
        status(tmp_path)


def test_command_and_nothing_is_touched(runs, capsys):
    assert main(["watch"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("no run; there are: none yet")
    folder, stage = start(runs)
    log(stage, 10, until=4)
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert main(["watch"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == status(folder)[:2]
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before
    finish(folder)
    assert main(["watch", str(folder), "--follow"]) == 0  # it ends with the run
    assert "finished" in capsys.readouterr().out


def test_following_shows_what_changed_until_the_record_is_there(runs, capsys, monkeypatch):
    folder, stage = start(runs)
    steps = []

    def sleep(seconds: float) -> None:
        steps.append(seconds)
        if len(steps) == 3:
            raise KeyboardInterrupt
        log(stage, 40, until=10 * len(steps))

    monkeypatch.setattr("time.sleep", sleep)
    assert main(["watch", folder.name, "--follow"]) == 0
    text = capsys.readouterr().out
    assert [f"iteration {n} of 40" in text for n in (10, 20, 30)] == [True, True, False]
    assert steps == [5] * 3


def test_a_linear_head_on_own_data_is_watched(runs, tiny_dataset):
    words = {"head": "linear", "backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2"}
    (row,) = recipes.table1(scale="mini", detector="ground-truth", memory="no", **words)
    row = replace(row, dataset=str(tiny_dataset))
    folder, stage = runs / f"{row.name}-{row.digest}", stage_dir(row.stage_digest(1))
    for path in (folder, stage):
        path.mkdir(parents=True)
    (folder / "experiment.json").write_text(json.dumps(row.to_dict()))
    log(stage, 100, until=3)
    assert status(folder)[1].startswith("stage 1 of 1: iteration 3 of 100 (3%), loss 0.25")

"""Two gloo processes take the same steps as one, also after an interruption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import multiprocessing, nn

from stadlib import recipes, study
from stadlib.data.batches import GlobalBatches
from stadlib.recipes.experiment import Execution
from stadlib.training import processes
from stadlib.training.loop import Schedule, fit

ITERATIONS, BATCH = 6, 5  # an odd batch: the processes' shares differ


def train(folder) -> dict[str, torch.Tensor]:
    """A few steps on ragged units: item i of the data has i % 3 of them, some have none."""
    torch.manual_seed(1)
    model = nn.Linear(3, 2)

    def batches(start):
        order = GlobalBatches(
            11,
            BATCH,
            seed=2,
            start=start,
            stop=ITERATIONS,
            rank=processes.rank(),
            num_processes=processes.num_processes(),
        )
        for items in order:
            yield torch.cat([torch.full((index % 3, 3), index / 10.0) for index, _ in items])

    def objective(model, x):
        return (model(x) - 1).square().sum(), len(x)

    fit(
        model,
        objective,
        batches,
        Schedule(iterations=ITERATIONS, lr=0.1),
        folder=folder,
        digest="d",
        progress=lambda *_: None,
    )
    return model.state_dict()


def work(rank: int, folder: str, port: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    from pathlib import Path

    with processes.group():
        state = train(Path(folder) / "two")
        assert processes.gather([rank]) == [0, 1]
        assert processes.total(1 + rank, torch.device("cpu")) == 3
    if rank == 0:
        torch.save(state, Path(folder) / "two.pt")


def test_two_processes_equal_one(tmp_path, free_port):
    multiprocessing.spawn(work, (str(tmp_path), free_port), nprocs=2)
    alone, together = train(tmp_path / "one"), torch.load(tmp_path / "two.pt", weights_only=True)
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=1e-5, atol=1e-6)
    logs = [(tmp_path / n / "log.jsonl").read_text().splitlines() for n in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == ITERATIONS


ROW = recipes.table2(scale="smoke", backbone="ir-csn-152")["A+K first, empty Kinetics bank"]
ONLINE = replace(  # dropout, an online bank, clips of several sizes
    ROW, stages=(replace(ROW.stages[0], iterations=20),), scales=(64,), flip=False
)


def losses(folder) -> list[float]:
    path = folder / "runs" / "stages" / ONLINE.stage_digest(1) / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(20))
    return [line["loss"] for line in lines]


def rows(folder) -> pd.DataFrame:
    path = folder / "runs" / study.run_folder(ONLINE).name / "detections_ava.csv"
    return pd.read_csv(path, header=None)


def kill_after_a_checkpoint(folder) -> None:
    """Begin the run in one process and kill it."""
    command = [sys.executable, "-m", "stadlib", "train", "--save-every", "4"]
    command += ["--experiment", json.dumps(ONLINE.to_dict())]
    stage = study.stage_folder(ONLINE, 1)
    process = subprocess.Popen(command, env={**os.environ, "STADLIB_RESULTS": str(folder)})
    while not (stage / "checkpoint.pt").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len((stage / "log.jsonl").read_text().splitlines()) < 20


def test_a_run_is_the_same_on_any_number_of_processes(tmp_path, monkeypatch):
    """Alone in two turns, on two, and begun alone and ended on two; in bfloat16 up to rounding."""
    ways = {"one": (0, 1), "turns": (0, 2), "two": (2, 1), "resumed": (2, 1)}
    found = {}
    for name, (number, turns) in ways.items():
        monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / name))
        if name == "resumed":
            kill_after_a_checkpoint(tmp_path / name)
        execution = Execution(accumulate=turns)
        found[name] = study.run(ONLINE, num_processes=number, execution=execution)
    for name in ("turns", "two", "resumed"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
        assert found[name].digest == found["one"].digest
        for source, metrics in found["one"].metrics.items():
            assert found[name].metrics[source]["mAP"] == pytest.approx(metrics["mAP"], abs=1e-4)
        ours, theirs = rows(tmp_path / "one"), rows(tmp_path / name)
        assert ours.iloc[:, :7].equals(theirs.iloc[:, :7])  # the same boxes in the same order
        assert np.abs(ours[7] - theirs[7]).max() < 1e-4
    assert found["two"].provenance["processes"] == 2
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "half"))
    half = study.run(ONLINE, execution=Execution(precision="bfloat16", recompute="yes"))
    assert half.provenance["precision"] == "bfloat16"
    assert losses(tmp_path / "half")[0] == pytest.approx(losses(tmp_path / "one")[0], rel=0.02)
    assert losses(tmp_path / "half") != losses(tmp_path / "one")

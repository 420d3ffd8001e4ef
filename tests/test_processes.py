"""Several processes take the same steps as one, also after an interruption."""

from __future__ import annotations

import json
import os
import platform
import socket
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import torch
from torch import distributed, nn

from stadlib import recipes, study
from stadlib.base import InputError, Progress, tell_once, write_whole
from stadlib.data.batches import GlobalBatches
from stadlib.recipes.experiment import Execution
from stadlib.training import processes
from stadlib.training.bank import WRITTEN, FeatureBank
from stadlib.training.loop import Schedule, fit

ITERATIONS, BATCH = 6, 5  # an odd batch: the processes' shares differ


def train(folder) -> dict[str, torch.Tensor]:
    """A few steps on ragged units: item i of the data has i % 3 of them, some have none."""
    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    ranks = {"rank": processes.rank(), "num_processes": processes.num_processes()}

    def batches(start):
        order = GlobalBatches(11, BATCH, seed=2, start=start, stop=ITERATIONS, **ranks)
        for items, share in zip(order, order.shares([i % 3 for i in range(11)]), strict=True):
            x = torch.cat([torch.full((index % 3, 3), index / 10.0) for index, _ in items])
            yield x, share.total

    def objective(model, part):
        x, total = part
        return (model(x) - 1).square().sum(), total

    schedule = Schedule(iterations=ITERATIONS, lr=0.1)
    fit(model, objective, batches, schedule, folder=folder, digest="d", progress=lambda *_: None)
    return model.state_dict()


def exchange() -> tuple[list[int], float]:
    number = processes.rank()
    return processes.gather([number]), processes.total(1 + number)


def test_two_processes_equal_one(tmp_path, pair):
    assert pair.run(exchange) == [([0, 1], 3), ([0, 1], 3)]
    alone, (together, other) = train(tmp_path / "one"), pair.run(train, tmp_path / "two")
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together, other, rtol=0, atol=0)
    logs = [(tmp_path / n / "log.jsonl").read_text().splitlines() for n in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == ITERATIONS


WORDS = {"backbone": "ir-csn-152", "detector": "ground-truth"}
ROW = recipes.table2(scale="smoke", **WORDS)["A+K first, empty Kinetics bank"]
STEPS = 8
ONLINE = replace(  # dropout, an online bank, clips of several sizes, then offline banks
    ROW,  # at a tenth of its rate, which amplifies rounding less
    stages=(
        replace(ROW.stages[0], iterations=STEPS, lr=0.01),
        replace(ROW.stages[1], iterations=3),
    ),
    scales=(64,),
    flip=False,
)


class Interrupted(Exception):
    pass


def run(execution: Execution) -> study.Record:
    return study.run(ONLINE, execution=execution)


def log() -> list[dict]:
    lines = (study.stage_folder(ONLINE, 1) / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses() -> list[float]:
    assert [entry["iteration"] for entry in log()] == list(range(STEPS))
    return [entry["loss"] for entry in log()]


def predictions() -> pd.DataFrame:
    return pd.read_csv(study.run_folder(ONLINE) / "detections_ava.csv", header=None)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process: the record, the losses of its first stage, its predictions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STADLIB_RESULTS", str(tmp_path_factory.mktemp("alone")))
        return run(Execution()), losses(), predictions()


def interrupt(monkeypatch) -> None:
    """Run until the first checkpoint after iteration 4, then stop."""
    save = torch.save

    def saving(*arguments, **options):
        save(*arguments, **options)
        if len(log()) >= 4:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", saving)
        with pytest.raises(Interrupted):
            run(Execution(save_every=4))
    assert len(log()) < STEPS


WAYS = ["two turns", "two processes", "resumed on two machines"]


def run_on_machines(execution: Execution) -> study.Record:
    """Each process is the first of a machine of its own."""
    os.environ |= {"GROUP_RANK": os.environ["RANK"], "LOCAL_RANK": "0"}
    return run(execution)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_the_same_on_any_number_of_processes(alone, way, pair, tmp_path, monkeypatch):
    """The tolerance is a unit of the log's sixth decimal: sums are taken in another order."""
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    if way == "two turns":
        record = run(Execution(accumulate=2))
    else:
        if way.startswith("resumed"):
            interrupt(monkeypatch)
        machines = way.endswith("machines")
        record, other = pair.run(run_on_machines if machines else run, Execution())
        assert record.metrics == other.metrics
        assert record.provenance["processes"] == 2
    whole, whole_losses, whole_predictions = alone
    assert losses() == pytest.approx(whole_losses, rel=1e-5, abs=3e-6)
    assert record.digest == whole.digest
    for source, metrics in whole.metrics.items():
        assert record.metrics[source]["mAP"] == pytest.approx(metrics["mAP"], abs=1e-4)
    ours = predictions()
    assert ours.iloc[:, :7].equals(whole_predictions.iloc[:, :7])  # the same boxes in order
    assert np.abs(ours[7] - whole_predictions[7]).max() < 1e-4
    stage = study.stage_folder(ONLINE, 1)
    assert (FeatureBank(stage / "online" / "ava").states == WRITTEN).any()
    assert (FeatureBank(stage / "banks" / "ava_train").states == WRITTEN).all()


@pytest.mark.nightly
def test_bfloat16_is_the_same_up_to_rounding(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    record = run(Execution(precision="bfloat16", recompute="yes"))
    assert record.provenance["precision"] == "bfloat16"
    assert losses()[0] == pytest.approx(alone[1][0], rel=0.02)
    assert losses() != alone[1]


def test_a_process_that_loses_the_others_ends_in_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, timeout: None)
    monkeypatch.setattr(distributed, "set_timeout", lambda patience: None)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    lost = "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2211"
    with (
        pytest.raises(InputError, match=r"^process 0: another process has ended; .* resumes$"),
        processes.group(),
    ):
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match="a shape"), processes.group():
        raise RuntimeError("a shape that does not fit")


def test_a_process_whom_nobody_joins_ends_in_one_line(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    words = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "HANG", timedelta(seconds=1))
    line = "process 0: another process has ended; the same command resumes"
    with pytest.raises(InputError, match=line), processes.group():
        pass
    assert not distributed.is_initialized()


def test_the_first_process_alone_shows_progress(monkeypatch, capsys):
    for rank, lines in (("1", 0), ("0", 2)):
        monkeypatch.setenv("RANK", rank)
        Progress("train")(1, 2)
        tell_once(f"of {rank}")
        assert len(capsys.readouterr().out.splitlines()) == lines


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    """Not what a living process writes, or one of another machine."""
    machine, killed = platform.node().replace(".", "-"), 4194999  # beyond any process id
    kept = [f".a.csv.01.{machine}.{os.getppid()}.tmp", f".a.csv.01.x{machine}.{killed}.tmp"]
    for name in (*kept, f".a.csv.01.{machine}.{killed}.tmp"):
        (tmp_path / name).touch()
    write_whole(tmp_path / "a.csv", "1")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", *kept}

"""Two gloo processes take the same steps as one."""

from __future__ import annotations

import os

import torch
from torch import multiprocessing, nn

from stadlib import processes
from stadlib.data.sampling import GlobalBatches
from stadlib.train import Schedule, fit

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


def test_two_processes_equal_one(tmp_path):
    multiprocessing.spawn(work, (str(tmp_path), "29531"), nprocs=2)
    alone, together = train(tmp_path / "one"), torch.load(tmp_path / "two.pt", weights_only=True)
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=1e-5, atol=1e-6)
    logs = [(tmp_path / n / "log.jsonl").read_text().splitlines() for n in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == ITERATIONS

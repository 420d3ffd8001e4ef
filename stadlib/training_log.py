"""The log of a training as JSON lines, readable while it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from stadlib import processes
from stadlib.paths import written_whole

LINES = 200  # at most this many in a log


class TrainingLog:
    """JSON lines, cut back to the checkpoint on resume so that no iteration stands twice.

    Args:
        path: of the file.
        start: the iteration that the training begins at.
        iterations: of the whole training.
    """

    def __init__(self, path: Path, start: int, iterations: int) -> None:
        self.path, self.started = path, time.monotonic()
        self.iterations, self.every = iterations, max(1, iterations // LINES)
        self.waited = 0.0  # seconds since the last line
        if processes.rank() == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_text().splitlines() if path.exists() else []
            kept = [line for line in lines if _iteration(line) < start]
            with written_whole(path) as temporary:
                temporary.write_text("".join(line + "\n" for line in kept))

    def timed(self, batches: Iterable) -> Iterator:
        """The batches; notes how long each was waited for."""
        asked = time.monotonic()
        for batch in batches:
            self.waited += time.monotonic() - asked
            yield batch
            asked = time.monotonic()

    def write(self, iteration: int, loss: float, lr: float) -> None:
        """Add a line, with the seconds that batches were waited for since the one before."""
        if processes.rank() != 0 or iteration % self.every:
            return
        seconds = round(time.monotonic() - self.started, 2)
        line = {"iteration": iteration, "loss": round(loss, 6), "lr": lr, "seconds": seconds}
        line |= {"iterations": self.iterations, "data_seconds": round(self.waited, 2)}
        if torch.cuda.is_initialized():
            line["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
        self.waited = 0.0
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")


def _iteration(line: str) -> float:
    """The iteration of a log line; a line cut short by a kill is dropped."""
    try:
        return json.loads(line)["iteration"]
    except (ValueError, KeyError):
        return float("inf")

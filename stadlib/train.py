"""The one training loop: pretraining, full training and every later stage run through ``fit``.

Nothing here knows what is trained. Iteration ``i`` draws its random numbers from (seed, i, rank)
and its batch from the sampler, so a run that was killed and started again equals one that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from stadlib import processes
from stadlib.config import InputError
from stadlib.paths import written_whole

# Shares of the iterations at which the learning rate drops, and of the warm-up (paper section
# 3.1: 13.5k, 18k, 22.5k, 27k and 1.5k of 30k); the warm-up starts at a quarter (AlphAction).
DROPS = (0.45, 0.6, 0.75, 0.9)
WARM_UP = 0.05
WARM_UP_START = 0.25
LOG_EVERY_SHARE = 200  # at most this many lines in a log
SAVES = 10  # checkpoints a stage


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Numbers of one stretch of SGD."""

    iterations: int
    lr: float
    drop: float = 0.66
    weight_decay: float = 1e-7
    momentum: float = 0.9
    seed: int = 0

    def lr_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        share = iteration / self.iterations
        factor = self.drop ** sum(share >= drop for drop in DROPS)
        if share < WARM_UP:
            factor *= WARM_UP_START + (1 - WARM_UP_START) * share / WARM_UP
        return self.lr * factor


# Takes the model and a batch on its device; returns the loss summed over the batch's units
# (persons, clips) and their number on this process.
Objective = Callable[[nn.Module, object], tuple[torch.Tensor, int]]


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Callable[[int], Iterable],
    schedule: Schedule,
    *,
    folder: Path,
    digest: str,
    progress: Callable[[int, int, str], None],
    keep: Callable[[int], None] = lambda iteration: None,
) -> None:
    """Train ``model`` in place, or finish training it.

    Args:
        model: its parameters with ``requires_grad`` are trained; modes are the caller's.
        objective: see :data:`Objective`. The loss is averaged over the units of all processes.
        batches: gives the batches from an iteration on.
        schedule: iterations, learning rate, seed.
        folder: holds ``checkpoint.pt`` and ``log.jsonl``.
        digest: of what is trained; a checkpoint with another one is refused.
        progress: called with (iterations done, iterations, one line of text).
        keep: called with an iteration before its checkpoint is written, to put aside what else
            the training changes; ``batches`` is told from which iteration to go on.

    Raises:
        InputError: the folder's checkpoint belongs to something else or cannot be read.
        FloatingPointError: the loss is not finite; nothing is saved after that.
    """
    where = next(model.parameters()).device
    optimizer = _optimizer(model, schedule)
    start = _resume(folder, digest, model, optimizer)
    log = _Log(folder / "log.jsonl", start, schedule.iterations)
    parallel = _parallel(model)
    save_every = max(1, schedule.iterations // SAVES)
    for iteration, batch in enumerate(log.timed(batches(start)), start):
        torch.manual_seed(_seed(schedule.seed, iteration))
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(iteration)
        loss = _step(parallel, objective, batch, optimizer, where)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at iteration {iteration}: lower lr"
            )
        log.write(iteration, loss.item(), schedule.lr_at(iteration))
        done = iteration + 1
        if done % save_every == 0 or done == schedule.iterations:
            keep(done)
            save_checkpoint(folder, digest, done, model, optimizer)
        progress(done, schedule.iterations, f"loss {loss.item():.4f}")


def _step(model, objective, batch, optimizer, where) -> torch.Tensor:
    """One update; returns the loss averaged over the units of all processes."""
    total_loss, num_units = objective(model, batch)
    num_all = max(1.0, processes.total(num_units, where))
    optimizer.zero_grad(set_to_none=True)
    # DDP averages gradients over processes; the factor turns that into the sum we divide.
    (total_loss * (processes.num_processes() / num_all)).backward()
    optimizer.step()
    return torch.tensor(processes.total(total_loss.item(), where) / num_all)


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases, norms
    ]
    return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum)


def _parallel(model: nn.Module) -> nn.Module:
    if processes.num_processes() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model)


def _seed(seed: int, iteration: int) -> int:
    position = iteration * processes.num_processes() + processes.rank()
    return (seed << 40) + position


def save_checkpoint(
    folder: Path, digest: str, iteration: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write ``checkpoint.pt`` whole, from the first process only."""
    if processes.rank() == 0:
        content = {
            "digest": digest,
            "iteration": iteration,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        with written_whole(folder / "checkpoint.pt") as path:
            torch.save(content, path)
    processes.barrier()


def read_weights(path: Path, digest: str) -> dict:
    """Read a file that ``save_checkpoint`` wrote, without executing pickles.

    Raises:
        InputError: the file is damaged, or belongs to something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["digest"]
    except Exception as error:  # torch raises many types for a damaged file
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: not a readable checkpoint ({reason}); delete it") from error
    if found != digest:
        raise InputError(
            f"{path}: checkpoint of another experiment ({found}, not {digest}); "
            "delete it or use another results folder"
        )
    return content


def _resume(folder: Path, digest: str, model: nn.Module, optimizer) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    content = read_weights(path, digest)
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return content["iteration"]


class _Log:
    """JSON lines, cut back to the checkpoint on resume so that no iteration stands twice."""

    def __init__(self, path: Path, start: int, iterations: int) -> None:
        self.path, self.started = path, time.monotonic()
        self.iterations, self.every = iterations, max(1, iterations // LOG_EVERY_SHARE)
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

"""The log of a training as JSON lines, readable while it is written.

The one training loop: pretraining, full training and every later stage run through ``fit``.

Nothing here knows what is trained. Iteration ``i`` draws its random numbers from (seed, i) and its
batch from the sampler, so a run that was killed and started again, on as many processes or others,
equals one that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from stadlib.base import InputError, written_whole
from stadlib.training import processes

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


# Shares of the iterations at which the learning rate drops, and of the warm-up (paper section
# 3.1: 13.5k, 18k, 22.5k, 27k and 1.5k of 30k); the warm-up starts at a quarter (AlphAction).
DROPS = (0.45, 0.6, 0.75, 0.9)
WARM_UP = 0.05
WARM_UP_START = 0.25
SAVES = 10  # checkpoints a stage


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Numbers of one stretch of SGD."""

    iterations: int
    lr: float
    drop: float = 0.66
    weight_decay: float = 1e-7
    momentum: float = 0.9
    clip: float | None = None
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
    accumulate: int = 1,
    half: bool = False,
    save_every: int = 0,
) -> None:
    """Train ``model`` in place, or finish training it.

    Args:
        model: its parameters with ``requires_grad`` are trained; modes are the caller's.
        objective: see :data:`Objective`. The loss is averaged over the units of all processes.
        batches: gives the batches from an iteration on, ``accumulate`` of them for each.
        schedule: iterations, learning rate, seed.
        folder: holds ``checkpoint.pt`` and ``log.jsonl``.
        digest: of what is trained; a checkpoint with another one is refused.
        progress: called with (iterations done, iterations, one line of text).
        keep: called with an iteration before its checkpoint is written, to put aside what else
            the training changes; ``batches`` is told from which iteration to go on.
        accumulate: batches whose gradients are summed before the weights are updated.
        half: compute the objective in bfloat16 where that is safe (autocast); weights, gradients
            and updates stay float32.
        save_every: iterations between checkpoints; 0 is a tenth of all.

    Raises:
        InputError: the folder's checkpoint belongs to something else or cannot be read.
        FloatingPointError: the loss is not finite; nothing is saved after that.
    """
    optimizer = _optimizer(model, schedule)
    start = _resume(folder, digest, model, optimizer)
    log = TrainingLog(folder / "log.jsonl", start, schedule.iterations)
    step = _Step(
        model=_parallel(model),
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        accumulate=accumulate,
        half=half,
    )
    save_every = save_every or max(1, schedule.iterations // SAVES)
    stream = log.timed(batches(start))
    for iteration in range(start, schedule.iterations):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(iteration)
        loss = step(iteration, stream)
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


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One update of the weights; returns the loss averaged over the units of all processes."""

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    accumulate: int
    half: bool

    @property
    def trained(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def where(self) -> torch.device:
        return self.trained[0].device

    def __call__(self, iteration: int, stream: Iterator) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        total, units = 0.0, 0.0
        for number in range(self.accumulate):
            batch = next(stream)
            torch.manual_seed((self.schedule.seed << 40) + iteration)
            last = number == self.accumulate - 1
            with nullcontext() if last else self._unsynchronised():
                loss, own = self._loss(batch)
                before, units = units, max(1.0, units + processes.total(own, self.where))
                self._weigh(before / units)
                # DDP averages gradients over processes; the factor makes that a sum.
                (loss * (processes.num_processes() / units)).backward()
            total += processes.total(loss.item(), self.where)
        if self.schedule.clip:
            nn.utils.clip_grad_norm_(self.trained, self.schedule.clip)
        self.optimizer.step()
        return torch.tensor(total / units)

    def _loss(self, batch: object) -> tuple[torch.Tensor, int]:
        with torch.autocast(self.where.type, torch.bfloat16, enabled=self.half):
            return self.objective(self.model, batch)

    def _weigh(self, factor: float) -> None:
        """Make the mean gradient of the batches so far its part of the mean with the next."""
        for parameter in self.trained:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def _unsynchronised(self):
        """Processes exchange gradients once an iteration, with the last of its batches."""
        parallel = isinstance(self.model, nn.parallel.DistributedDataParallel)
        return self.model.no_sync() if parallel else nullcontext()


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases, norms
    ]
    fused = trained[0].is_cuda  # one kernel for all weights
    return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum, fused=fused)


def _parallel(model: nn.Module) -> nn.Module:
    if processes.num_processes() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)


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

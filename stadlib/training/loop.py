"""The one training loop: pretraining, detectors and every stage of a run go through ``fit``.

It knows nothing of what is trained. Iteration ``i`` draws its random numbers from (seed, i) and its
batch from the sampler, so a run that was killed and started again, on as many processes or others,
equals one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stadlib.base import InputError, Report, write_whole, written_whole
from stadlib.training import processes

# Shares of the iterations at which the learning rate drops, and of the warm-up (paper section
# 3.1: 13.5k, 18k, 22.5k, 27k and 1.5k of 30k); the warm-up starts at a quarter (AlphAction).
DROPS = (0.45, 0.6, 0.75, 0.9)
WARM_UP = 0.05
WARM_UP_START = 0.25
SAVES = 10  # checkpoints of a training
LOG_LINES = 200  # of a training, at most


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


# Takes the model and a batch; returns the loss summed over the batch's units (persons, clips) and
# their number on this process.
Objective = Callable[[nn.Module, object], tuple[torch.Tensor, int]]


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Callable[[int], Iterable],
    schedule: Schedule,
    *,
    folder: Path,
    digest: str,
    progress: Report,
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
        keep: called with an iteration before its checkpoint is written, to copy what else the
            training changes; ``batches`` gets the iteration that training resumes at.
        accumulate: batches whose gradients are summed before the weights are updated.
        half: compute the objective in bfloat16 where that is safe (autocast); weights, gradients
            and updates stay float32.
        save_every: iterations between checkpoints; 0 is a tenth of all.

    Raises:
        InputError: the folder's checkpoint belongs to something else or cannot be read.
        FloatingPointError: the loss is not finite; nothing is saved after that.
    """
    optimizer = _optimizer(model, schedule)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    device = weights[0].device
    path = folder / "checkpoint.pt"
    start = _resume(path, digest, model, optimizer)
    log, started, waited = folder / "log.jsonl", time.monotonic(), 0.0
    if processes.rank() == 0:
        _cut_back(log, start)
    several = processes.num_processes() > 1
    network = DistributedDataParallel(model, gradient_as_bucket_view=True) if several else model
    save_every = save_every or max(1, schedule.iterations // SAVES)
    log_every = max(1, schedule.iterations // LOG_LINES)
    stream = iter(batches(start))
    for iteration in range(start, schedule.iterations):
        lr = schedule.lr_at(iteration)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        total, units = 0.0, 0.0
        for turn in range(accumulate):
            asked = time.monotonic()
            batch = next(stream)
            waited += time.monotonic() - asked
            torch.manual_seed((schedule.seed << 40) + iteration)
            # Processes exchange gradients once an iteration, with the last of its batches.
            with network.no_sync() if several and turn < accumulate - 1 else nullcontext():
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    loss, count = objective(network, batch)
                before, units = units, max(1.0, units + processes.total(count, device))
                # The gradient so far is a mean over fewer units: make it its part of the new mean.
                for weight in weights:
                    if weight.grad is not None:
                        weight.grad.mul_(before / units)
                # DDP averages gradients over processes; the factor makes that a sum.
                (loss * (processes.num_processes() / units)).backward()
            total += processes.total(loss.item(), device)
        if schedule.clip:
            nn.utils.clip_grad_norm_(weights, schedule.clip)
        optimizer.step()
        mean = torch.tensor(total / units).item()
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is {mean} at iteration {iteration}: lower lr")
        if processes.rank() == 0 and iteration % log_every == 0:
            seconds = round(time.monotonic() - started, 2)
            line = {"iteration": iteration, "loss": round(mean, 6), "lr": lr, "seconds": seconds}
            line |= {"iterations": schedule.iterations, "data_seconds": round(waited, 2)}
            if torch.cuda.is_initialized():
                line["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
            with open(log, "a") as file:
                file.write(json.dumps(line) + "\n")
            waited = 0.0  # for batches, since the last line
        done = iteration + 1
        if done % save_every == 0 or done == schedule.iterations:
            keep(done)
            _save(path, digest, done, model, optimizer)
        progress(done, schedule.iterations, f"loss {mean:.4f}")


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},  # biases, norms
    ]
    fused = weights[0].is_cuda  # one kernel for all weights
    return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum, fused=fused)


def _save(path: Path, digest: str, iteration: int, model: nn.Module, optimizer) -> None:
    """Write a checkpoint whole, from the first process only."""
    if processes.rank() == 0:
        content = {"digest": digest, "iteration": iteration, "model": model.state_dict()}
        with written_whole(path) as temporary:
            torch.save(content | {"optimizer": optimizer.state_dict()}, temporary)
    processes.barrier()


def _resume(path: Path, digest: str, model: nn.Module, optimizer) -> int:
    """Load a checkpoint if there is one; returns the iteration that comes next."""
    if not path.exists():
        return 0
    content = read_weights(path, digest)
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return content["iteration"]


def read_weights(path: Path, digest: str) -> dict:
    """Read a checkpoint that ``fit`` wrote, without executing pickles.

    Raises:
        InputError: the file is damaged, or belongs to something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        made_of = content["digest"]
    except Exception as error:  # torch raises many types for a damaged file
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: not a readable checkpoint ({reason}); delete it") from error
    if made_of != digest:
        raise InputError(
            f"{path}: checkpoint of another experiment ({made_of}, not {digest}); "
            "delete it or use another results folder"
        )
    return content


def _cut_back(log: Path, start: int) -> None:
    """Keep the log's lines of iterations before ``start``, so that none stands twice."""
    kept = []
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            kept += [line] if json.loads(line)["iteration"] < start else []
        except (ValueError, KeyError):  # cut short by a kill
            continue
    write_whole(log, "".join(line + "\n" for line in kept))

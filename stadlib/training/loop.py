"""The one training loop: pretraining, detectors and every stage of a run go through ``fit``.

Iteration ``i`` draws its random numbers from (seed, i) and its batch from the sampler. So a run
that was killed and started again, on as many processes or others, equals one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stadlib.base import InputError, Report, whole_lines, write_whole, written_whole
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
    backbone_lr: float = 1.0  # times lr, of the weights that are called backbone...
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


# Takes the model and a batch; returns the loss summed over the batch's units (persons, clips), and
# the number of units of the whole iteration: of all its batches in all processes.
Objective = Callable[[nn.Module, object], tuple[torch.Tensor, int]]


def fit(
    model: nn.Module, objective: Objective, batches: Callable[[int], Iterable], schedule: Schedule,
    *, folder: Path, digest: str, progress: Report, keep: Callable[[int], None] = lambda done: None,
    accumulate: int = 1, half: bool = False, save_every: int = 0,
) -> None:  # fmt: skip
    """Train the weights of ``model`` that require gradients, or finish training them.

    ``batches`` gives the batches from an iteration on, ``accumulate`` of them for each. ``folder``
    holds ``log.jsonl`` and, every ``save_every`` iterations (0: ten times in all), the checkpoint
    of what ``digest`` names. ``keep`` is called before, to copy what else the training changes.
    """
    path, log, first = folder / "checkpoint.pt", folder / "log.jsonl", processes.rank() == 0
    optimizer, start = _optimizer(model, schedule), 0
    if path.exists():
        content = read_weights(path, digest)
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        start = content["iteration"]
    if first:
        _cut_back(log, start)
    network, iterations = _shared(model), schedule.iterations
    save_every = save_every or max(1, iterations // SAVES)
    stream, started, waited = iter(batches(start)), time.monotonic(), 0.0
    for iteration in range(start, iterations):
        asked, done = time.monotonic(), iteration + 1
        turns = list(islice(stream, accumulate))
        waited += time.monotonic() - asked
        lr, seed = schedule.lr_at(iteration), (schedule.seed << 40) + iteration
        for group in optimizer.param_groups:
            group["lr"] = lr * group["share"]
        optimizer.zero_grad(set_to_none=True)
        part = _add_gradients(network, objective, turns, seed, half)
        if schedule.clip:
            weights = [w for group in optimizer.param_groups for w in group["params"]]
            nn.utils.clip_grad_norm_(weights, schedule.clip)
        logged = iteration % max(1, iterations // LOG_LINES) == 0
        saved = done % save_every == 0 or done == iterations
        # Reading it waits for a GPU, which then waits for its next batch.
        if logged or saved or iteration == start or part.device.type == "cpu":
            loss = _read(part)
        if not math.isfinite(loss):
            raise InputError(
                f"{folder}: the loss is {loss} at iteration {iteration}; a lower learning rate "
                f"(--lr) than {schedule.lr:g} may help; the last checkpoint is kept"
            )
        optimizer.step()
        if first and logged:
            seconds = round(time.monotonic() - started, 2)
            line = {"iteration": iteration, "loss": round(loss, 6), "lr": lr, "seconds": seconds}
            _log(log, line | {"iterations": iterations, "data_seconds": round(waited, 2)})
            waited = 0.0  # for batches, since the last line
        if saved:
            keep(done)
            if first:
                content = {"digest": digest, "iteration": done, "model": model.state_dict()}
                _write_weights(path, content | {"optimizer": optimizer.state_dict()})
            processes.barrier()
        progress(done, iterations, f"loss {loss:.4f}")


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    groups = {}  # by share of the rate and decay, which biases and norms have none of
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            share = schedule.backbone_lr if name.startswith("backbone.") else 1.0
            decay = schedule.weight_decay if weight.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(weight)
    fused = weight.is_cuda  # one kernel for all weights
    groups = [{"params": g, "share": s, "weight_decay": d} for (s, d), g in groups.items()]
    return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum, fused=fused)


def _shared(model: nn.Module) -> nn.Module:
    """The model with gradients that several processes exchange."""
    if processes.num_processes() == 1:
        return model
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    options = {"broadcast_buffers": any(m.training for m in norms)}  # frozen ones do not change
    options |= {"gradient_as_bucket_view": True, "process_group": processes.gradient_group()}
    return DistributedDataParallel(model, **options)


def _add_gradients(
    network: nn.Module, objective: Objective, turns: list, seed: int, half: bool
) -> torch.Tensor:
    """Backpropagate the mean loss over all units; returns this process's part of it, float64."""
    device, size = next(network.parameters()).device, processes.num_processes()
    total, units = torch.zeros((), dtype=torch.float64, device=device), 1.0
    try:
        for turn, batch in enumerate(turns, 1):
            torch.manual_seed(seed)
            # Processes exchange gradients once an iteration, with the last of its batches.
            with network.no_sync() if size > 1 and turn < len(turns) else nullcontext():
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    loss, count = objective(network, batch)
                units = max(1.0, count)
                # DDP averages gradients over processes; the factor makes that a sum.
                (loss * (size / units)).backward()
            total += loss.detach()
    except torch.OutOfMemoryError as error:
        remedy = f"--accumulate {2 * len(turns)} takes a batch in more turns, or --recompute yes"
        raise InputError(f"{device}: its memory is full; {remedy}") from error
    return total / units


def _read(part: torch.Tensor) -> float:
    """The sum of a loss's parts over all processes, as float32 has it."""
    return torch.tensor(processes.total(part.item())).item()


def _write_weights(path: Path, content: dict) -> None:
    try:
        with written_whole(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch's, of a full disk
        reason = getattr(error, "strerror", None) or "is the disk full?"
        remedy = "free space; the same command goes on from the last checkpoint"
        raise InputError(f"{path}: cannot be written ({reason}); {remedy}") from error


def read_weights(path: Path, digest: str) -> dict:
    """Read a checkpoint that ``fit`` wrote, without executing pickles, if it is of ``digest``."""
    try:
        with ZipFile(path) as file:
            if damaged := file.testzip():  # torch compares no checksum
                raise ValueError(f"{damaged} has changed")
        content = torch.load(path, map_location="cpu", weights_only=True)
        made_of = content["digest"]
    except Exception as error:  # torch raises many types for a damaged file
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: not a readable checkpoint ({reason}); delete it") from error
    if made_of != digest:
        remedy = "delete it or use another results folder"
        raise InputError(
            f"{path}: checkpoint of another experiment ({made_of}, not {digest}); {remedy}"
        )
    return content


def _log(path: Path, line: dict) -> None:
    if torch.cuda.is_initialized():
        line["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def _cut_back(log: Path, start: int) -> None:
    """Keep the log's lines of iterations before ``start``, so that none stands twice."""
    kept = [line for line in whole_lines(log) if json.loads(line)["iteration"] < start]
    write_whole(log, "".join(kept))

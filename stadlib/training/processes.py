"""One process or many: the few questions that training and evaluation ask of torch.distributed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from stadlib.base import InputError

PATIENCE = timedelta(hours=4)  # while the first process renders, measures or writes alone


def rank() -> int:
    """This process's number; 0 where there is only one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def num_processes() -> int:
    """How many processes work on this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def threads() -> int:
    """How many threads compute in this process."""
    return torch.get_num_threads()


def device() -> torch.device:
    """The accelerator of this process if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise InputError(f"process {number} has no GPU: there are {count}; start one process a GPU")
    return torch.device("cuda", number)


def autocast(half: bool) -> torch.autocast:
    """A context in which networks compute in bfloat16 where that is safe, or as always."""
    return torch.autocast(device().type, torch.bfloat16, enabled=half)


@contextmanager
def group():
    """Join the process group that ``torchrun`` announces; without torchrun, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if gpu := device().type == "cuda":
        torch.cuda.set_device(device())
    distributed.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def barrier() -> None:
    """Wait for the other processes."""
    if num_processes() > 1:
        distributed.barrier()


def total(value: float, device: torch.device) -> float:
    """The sum of ``value`` over all processes."""
    if num_processes() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(tensor)
    return tensor.item()


def gather(items: list, *, first_only: bool = False) -> list:
    """The items of all processes in the order of their ranks; others than the first may get []."""
    if num_processes() == 1:
        return items
    parts = [] if first_only and rank() else [None] * num_processes()
    if first_only:
        distributed.gather_object(items, parts or None)
    else:
        distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]

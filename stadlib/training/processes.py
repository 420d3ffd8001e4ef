"""One process or many: the few questions that training and evaluation ask of torch.distributed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from stadlib.base import InputError

PATIENCE = timedelta(hours=4)  # while the first process renders, measures or writes alone
HANG = timedelta(minutes=10)  # joining, or an exchange of gradients, that takes longer ends the run
_NCCL: list[distributed.ProcessGroup] = []  # of GPUs, if each process has one of its own


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
    """The accelerator of this process if there is one, else the CPU.

    The only one that a process sees is its own, as with Slurm, or shared with the others.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    number = 0 if count == 1 else number
    if number >= count:
        raise InputError(f"process {number} has no GPU: there are {count}; start one process a GPU")
    return torch.device("cuda", number)


def autocast(half: bool) -> torch.autocast:
    """A context in which networks compute in bfloat16 where that is safe, or as always."""
    return torch.autocast(device().type, torch.bfloat16, enabled=half)


@contextmanager
def group():
    """Join the process group that ``torchrun`` announces; without torchrun, do nothing.

    Its CPUs talk through gloo, patiently; GPUs exchange gradients through NCCL, which knows no two
    processes of one GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    own = device()
    try:
        distributed.init_process_group("gloo", timeout=HANG)
        distributed.set_timeout(PATIENCE)  # once all have joined
        if own.type == "cuda":
            torch.cuda.set_device(own)
            cards = gather([str(torch.cuda.get_device_properties(own).uuid)])
            if len({*cards}) == len(cards):
                _NCCL.append(distributed.new_group(backend="nccl", timeout=HANG))
            elif rank() == 0:
                print("processes share a GPU; start one a GPU for speed", flush=True)
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        number = os.environ.get("RANK", rank())  # the group may not have been joined yet
        line = f"process {number}: another process has ended; the same command resumes"
        raise InputError(line) from error
    finally:
        _NCCL.clear()
        if distributed.is_initialized():
            distributed.destroy_process_group()


def gradient_group() -> distributed.ProcessGroup | None:
    """Through which tensors on the processes' devices are summed; None is the usual one."""
    return _NCCL[0] if _NCCL else None


def node() -> int:
    """The number of this process's machine."""
    return int(os.environ.get("GROUP_RANK", "0"))


def first_of_node() -> bool:
    """Whether this process writes what each machine keeps for itself."""
    return rank() == 0 or (node() > 0 and os.environ.get("LOCAL_RANK") == "0")


def barrier() -> None:
    """Wait for the other processes."""
    if num_processes() > 1:
        distributed.barrier()


def total(value: float) -> float:
    """The sum of ``value`` over all processes."""
    if num_processes() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64)
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

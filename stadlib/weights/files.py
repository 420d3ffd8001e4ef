"""Files of weights: read without running anything of them; our own, written as safetensors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stadlib.config import InputError
from stadlib.paths import written_whole

_CONTAINERS = ("state_dict", "model_state", "model", "blobs")
_REMEDY = (
    "nothing in it was run; where you trust it, open it with the library that wrote it and "
    "torch.save a plain dict of its names and tensors"
)


def read_state(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a checkpoint on the CPU, by the names of the library that wrote it.

    ``.safetensors`` or anything that torch reads with ``weights_only``. Of a dict that holds the
    weights as ``state_dict``, ``model_state``, ``model`` or ``blobs`` these are taken, and
    DistributedDataParallel's ``module.`` in front of all names is dropped.

    Returns:
        tensors by name; the names beside them that hold no tensor.

    Raises:
        InputError: no such file, or one that cannot be read safely (bare pickles such as
            Caffe2's among them), or one without tensors, or damaged by its own digest.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    while isinstance(content, Mapping):
        inner = [content[k] for k in _CONTAINERS if isinstance(content.get(k), Mapping)]
        if not inner:
            break
        content = inner[0]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {k: v for k, v in content.items() if isinstance(k, str) and torch.is_tensor(v)}
    if not tensors:
        raise InputError(f"{path}: holds no weights by name; give a checkpoint of a network")
    others = [str(k) for k in content if k not in tensors]
    while all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors, others


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for what it doesn't read
        # Torch's message is long and proposes to run the file; what was refused is enough.
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it names {named[1]}" if named else f"{type(error).__name__}, no file of torch's"
        raise InputError(f"{path}: refused ({reason}); {_REMEDY}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("digest")
    except Exception as error:  # safetensors has an exception of its own, and raises OSError
        raise InputError(
            f"{path}: no readable safetensors file ({error}); fetch it again"
        ) from None
    if expected and (found := state_digest(tensors)) != expected:
        raise InputError(f"{path}: damaged, its digest is {found}, not {expected}; fetch it again")
    return tensors


def state_digest(tensors: Mapping[str, Tensor]) -> str:
    """Twelve hexadecimal digits of all names, types, shapes and values."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:12]


def save_backbone(model: nn.Module, path: Path, *, pretraining: str) -> None:
    """Write a backbone's weights whole, as safetensors with their digest.

    Args:
        model: the backbone, or a network whose ``backbone`` it is (a classifier).
        path: of the new file; it has to end in ``.safetensors``.
        pretraining: what it learned on, such as ``K700``; kept in the file's metadata.

    Raises:
        InputError: another ending, by which no one could tell how to read the file.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights are written as .safetensors; rename it")
    state = getattr(model, "backbone", model).state_dict()
    # Clips are laid out channels last, and weights with them; the file's layout is the plain one.
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {
        "digest": state_digest(tensors),
        "pretraining": pretraining,
        "stadlib": version("stadlib"),
    }
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)

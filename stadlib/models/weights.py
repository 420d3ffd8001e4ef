"""Files of weights: read safely, renamed to the study's names, checked name by name.

Our own files are safetensors with a digest. Public checkpoints have the names of the library that
wrote them; a :class:`.naming.Naming` a library translates these.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.serialization import safe_globals

from stadlib.base import InputError, some, written_whole
from stadlib.models.naming import NAMINGS, Naming
from stadlib.models.networks import CSN, Normalize

_REMEDY = (
    "nothing in it was run; where you trust it, open it with the library that wrote it and "
    "torch.save a plain dict of its names and tensors"
)
# Where libraries put the weights, DeepSpeed's last but one, and what they put before names.
_WRAPPED = ("state_dict", "model_state", "model_state_dict", "model", "net", "module", "model_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")
# What they keep beside them: arguments, paths, NumPy's numbers and arrays.
_ARRAYS = product(("core", "_core"), ("scalar", "_reconstruct"))
_BESIDE = ["argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath"]
_BESIDE += [
    "numpy.dtype",
    "numpy.ndarray",
    *(".".join(("numpy", a, "multiarray", b)) for a, b in _ARRAYS),
]


def read_state(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a checkpoint by the names there, on the CPU, and the names of other entries.

    Reads ``.safetensors`` and what torch reads with ``weights_only``; other pickles are refused.
    The weights may lie under one of ``_WRAPPED``, and their names may begin with what wrappers of
    modules add (``_PREFIXES``). An averaged model's counter is left out.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    while isinstance(content, Mapping):
        inner = (content.get(key) for key in _WRAPPED)
        inner = next((part for part in inner if isinstance(part, Mapping)), None)
        if inner is None:
            break
        content = inner
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {k: v for k, v in items if isinstance(k, str) and torch.is_tensor(v)}
    tensors.pop("n_averaged", None)
    if not tensors:
        raise InputError(f"{path}: holds no weights by name; give a checkpoint of a network")
    others = [str(name) for name in content if name not in tensors]
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors, others


class _Inert:
    """Stands for what is kept beside weights; it takes anything and does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _read_torch(path: Path) -> object:
    try:
        with safe_globals([(_Inert, name) for name in _BESIDE]):
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


@torch.no_grad()
def round_weights(network: nn.Module) -> None:
    """Round the kernels of a network to half precision; norms and biases stay as they are."""
    for weight in network.parameters():
        if weight.ndim > 1:
            weight.copy_(weight.half())


def save_backbone(model: nn.Module, path: Path, *, pretraining: str, half: bool = False) -> None:
    """Write the weights of a backbone, or of a classifier's, as safetensors with their digest.

    ``pretraining`` is what it learned on, such as ``K700``; it is kept in the file's metadata.
    With ``half`` its kernels are kept in half precision (see :func:`round_weights`).
    """
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights are written as .safetensors; rename it")
    state = getattr(model, "backbone", model).state_dict()
    # Weights lie channels last, as clips do; the file's layout is the plain one.
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if half:
        kernels = {n: t.half() for n, t in tensors.items() if t.ndim > 1 and "normalize" not in n}
        tensors |= kernels
    digest = state_digest(tensors)
    metadata = {"digest": digest, "pretraining": pretraining, "stadlib": version("stadlib")}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


@dataclass(frozen=True)
class Report:
    """What became of a file of weights."""

    path: Path
    naming: str  # of the library whose names the file has
    inputs: str  # mean and deviation of the frames that the network expects; where from
    loaded: int  # values of the backbone that came from the file
    left_over: tuple[str, ...]  # names that belong to no backbone, such as the classifier's
    unexpected: tuple[str, ...]  # unknown names, which were not used
    widened: tuple[str, ...]  # kernels that were shorter in time
    eps: float | None  # of the file's batch norms if another than the backbone's
    without_count: int  # batch norms whose ``num_batches_tracked`` the file lacks
    head: int = 0  # values of a detector's head that came from the file

    def lines(self) -> list[str]:
        """The report in words, a line a fact."""
        lines = [f"{self.path}: {self.loaded} values of the backbone in {self.naming}'s names"]
        lines.append(f"  frames are normalised by {self.inputs}")
        if self.head:
            lines.append(f"  {self.head} values of the head, which scores AVA's actions")
        if self.left_over:
            lines.append(f"  left over on purpose: {_some(self.left_over)}")
        if self.unexpected:
            lines.append(f"  unexpected, not used: {_some(self.unexpected)}")
        if self.widened:
            names = _some(self.widened)
            lines.append(f"  kernels widened in time by zeros (the same function): {names}")
        if self.eps:
            lines.append(f"  batch norms of eps {self.eps}: variances moved (the same function)")
        if self.without_count:
            norms = f"{self.without_count} batch norms"
            lines.append(f"  no num_batches_tracked for {norms} (harmless)")
        return lines


def read_backbone(
    model: nn.Module, path: Path, inputs: tuple[Sequence[float], ...] = ()
) -> tuple[dict[str, Tensor], Report]:
    """A whole state dict for a backbone (possibly on the meta device) from a file, and the report.

    Every name and shape has to fit. Two differences are made up for, so that the function is the
    same: kernels that are shorter in time (the zoo's SlowFast-101), and another eps of the norms.
    ``inputs`` are mean and deviation of the frames that it learned on, where the file lacks them.
    """
    return _backbone_state(model, path, *read_state(path), inputs)[:2]


def _backbone_state(
    model: nn.Module, path: Path, tensors: dict, others: list, inputs: tuple[Sequence[float], ...]
) -> tuple[dict[str, Tensor], Report, Naming]:
    """Do as :func:`read_backbone` does, with what lies in the file; also whose names it has."""
    known = {naming: sum(map(bool, map(naming.ours, tensors))) for naming in NAMINGS}
    naming = max(NAMINGS, key=known.get)
    if not known[naming]:
        libraries = ", ".join(naming.library for naming in NAMINGS)
        raise InputError(
            f"{path}: names of no known library ({_some(tensors)}); known: {libraries}"
        )
    state, unexpected = {}, []
    for name, tensor in tensors.items():
        if naming.is_left_over(name):
            continue
        # A part of a backbone without a rule keeps its name, which then fits no backbone of ours.
        ours = naming.ours(name) or (name if re.match(naming.trunk, name) else None)
        if ours in state:
            raise InputError(f"{path}: two values of {ours}, one of them {name}; keep one network")
        if ours is None:
            unexpected.append(name)
        else:
            state[ours] = tensor
    wanted = model.state_dict()
    # Files of torch before 0.4.1 have no counters. They matter only to a cumulative average.
    loaded = len(state)
    counts = [n for n in wanted if n.endswith(".num_batches_tracked") and n not in state]
    state |= {name: torch.zeros((), dtype=wanted[name].dtype) for name in counts}
    own = "the file's mean and deviation" if "normalize.mean" in state else ""
    published = "the published mean and deviation" if inputs else "the network's usual numbers"
    state = Normalize(*(inputs or model.statistics)).state_dict(prefix="normalize.") | state
    widened = _fit(state, wanted, path, naming)
    # A batch norm divides by variance + eps: the variance makes up for another eps.
    moved, eps = None, naming.eps if isinstance(model, CSN) else None
    for name, norm in model.named_modules():
        if isinstance(norm, nn.BatchNorm3d) and eps not in (None, norm.eps):
            moved, key = eps, f"{name}.running_var"
            state[key] = state[key] + (moved - norm.eps)
    report = Report(
        path=path,
        naming=naming.library,
        inputs=own or published,
        loaded=loaded,
        left_over=tuple(filter(naming.is_left_over, tensors)),
        unexpected=(*unexpected, *others),
        widened=tuple(widened),
        eps=moved,
        without_count=len(counts),
    )
    return state, report, naming


def read_detector(
    model: nn.Module, path: Path, inputs: tuple[Sequence[float], ...], actions: Sequence[int]
) -> tuple[dict[str, Tensor], Report]:
    """A whole state dict for a public detector's network, backbone and head, and the report.

    Of AVA's 80 outputs those of ``actions``, AVA's ids, are kept in this order. Every name and
    shape of the head has to fit, too.
    """
    tensors, others = read_state(path)
    state, report, naming = _backbone_state(model.backbone, path, tensors, others, inputs)
    head, left_over = {}, []
    for name in report.left_over:
        module, _, leaf = name.rpartition(".")
        if naming.head and (match := re.fullmatch(naming.head[0], module)):
            head[f"{match.expand(naming.head[1])}.{leaf}"] = tensors[name]
        else:
            left_over.append(name)
    wanted, outputs = model.head.state_dict(), 81 - naming.first_action
    for name in set(list(wanted)[-2:]) & set(head):  # the last layer's weight and bias
        if len(head[name]) != outputs:
            found = f"{len(head[name])} outputs, not {outputs}"
            raise InputError(f"{path}: {name} has {found}; give a detector of AVA's 80 actions")
        head[name] = head[name][torch.tensor(actions) - naming.first_action]
    _fit(head, wanted, path, naming)
    state = {f"backbone.{name}": tensor for name, tensor in state.items()}
    state |= {f"head.{name}": tensor for name, tensor in head.items()}
    return state, replace(report, left_over=tuple(left_over), head=len(head))


# Convolutions over time with stride-centred padding: zeros around a shorter kernel are no change.
_WIDENED = re.compile(r"net\.\d\.multipathway_.*\b(conv_fast_to_slow|conv_a)\.weight")


def _fit(state: dict, wanted: dict, path: Path, naming: Naming) -> list[str]:
    """Check names, shapes and values; widen shorter kernels in ``state`` and return their names."""
    read_as = f"of {len(wanted)}; read in {naming.library}'s names"
    problems = []
    if missing := [name for name in wanted if name not in state]:
        problems.append(f"no value for {_some(missing)}")
    if foreign := [name for name in state if name not in wanted]:
        problems.append(f"values for what this network lacks, {_some(foreign)}")
    if problems:
        raise InputError(
            f"{path}: {' and '.join(problems)} ({read_as}); "
            "give weights of the same network and depth"
        )
    widened, wrong = [], []
    for name, value in wanted.items():
        there, here = tuple(state[name].shape), tuple(value.shape)
        if there == here:
            continue
        short = here[2] - there[2] if len(there) == len(here) == 5 else 0
        same_but_time = there[:2] + there[3:] == here[:2] + here[3:]
        if _WIDENED.fullmatch(name) and same_but_time and short > 0 and short % 2 == 0:
            state[name] = F.pad(state[name], (0, 0, 0, 0, short // 2, short // 2))
            widened.append(name)
        else:
            wrong.append(name)
    if wrong:
        shapes = [tuple(tensors[wrong[0]].shape) for tensors in (state, wanted)]
        raise InputError(
            f"{path}: another shape for {_some(wrong)} (the first has {shapes[0]}, not "
            f"{shapes[1]}; {read_as}); give weights of the same network"
        )
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{path}: values that are not finite in {_some(broken)}; fetch it again")
    return widened


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return f"{len(names)}: {some(names)}"

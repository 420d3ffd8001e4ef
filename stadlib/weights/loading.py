"""Public weights into the study's backbones, checked name by name and shape by shape."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from stadlib.config import InputError
from stadlib.weights.files import read_state
from stadlib.weights.names import NAMINGS, Naming, recognise

# Convolutions over time with stride-centred padding: zeros around a shorter kernel are no change.
_WIDENED = re.compile(r"net\.\d\.multipathway_.*\b(conv_fast_to_slow|conv_a)\.weight")
_SHOWN = 3  # names that a message shows of a long list


@dataclass(frozen=True)
class Report:
    """What became of a file of weights.

    Attributes:
        path: of the file.
        naming: whose names it has.
        loaded: how many values of the backbone came from the file.
        left_over: names that belong to no backbone, such as the classifier's.
        unexpected: names that nobody knows; they were not used.
        widened: kernels that were shorter in time there: zeros around them, the same function.
        eps: of the file's batch norms if it differs from the backbone's: their variances were
            moved by the difference, the same function.
        without_count: batch norms whose ``num_batches_tracked`` the file lacks (old ones do); only
            training with a cumulative average would read it.
    """

    path: Path
    naming: str
    loaded: int
    left_over: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()
    eps: float | None = None
    without_count: int = 0

    def lines(self) -> list[str]:
        """The report in words, a line a fact."""
        lines = [f"{self.path}: {self.loaded} values of the backbone in {self.naming}'s names"]
        if self.left_over:
            lines.append(f"  left over on purpose: {_some(self.left_over)}")
        if self.unexpected:
            lines.append(f"  unexpected, not used: {_some(self.unexpected)}")
        if self.widened:
            lines.append(
                f"  shorter in time there, zeros around them (the same function): "
                f"{_some(self.widened)}"
            )
        if self.eps is not None:
            lines.append(
                f"  batch norms there have eps {self.eps:g}: variances moved (the same function)"
            )
        if self.without_count:
            lines.append(
                f"  no num_batches_tracked for {self.without_count} batch norms (harmless)"
            )
        return lines


def load_backbone(model: nn.Module, path: Path) -> Report:
    """Give a backbone the weights of a file of any known naming.

    Args:
        model: of :mod:`stadlib.models.backbones`, frozen or not; untouched if the file is refused.
        path: see :func:`stadlib.weights.files.read_state`.

    Raises:
        InputError: see :func:`read_backbone`.
    """
    state, report = read_backbone(model, path)
    model.load_state_dict(state)
    return report


def read_backbone(model: nn.Module, path: Path) -> tuple[dict[str, Tensor], Report]:
    """The weights of a file under the names of a backbone, whose values are not looked at.

    Every name and shape has to fit. Two differences that do not change what a network computes
    are made up for: kernels that are shorter in time, and another eps of the batch norms.

    Args:
        model: a backbone, possibly on the meta device.
        path: of the file.

    Returns:
        a whole state dict of the backbone, on the CPU; what was done.

    Raises:
        InputError: a file that cannot be read, of no known naming, of another network (deeper,
            shallower, with non-local blocks), with another shape or with values that are not
            finite; one line with names and counts.
    """
    tensors, others = read_state(path)
    naming = _naming(path, tensors)
    state, unexpected = _renamed(path, tensors, naming)
    wanted = model.state_dict()
    without_count = _add_counts(state, wanted)
    _check_names(path, state, wanted, naming)
    widened = _widen(state, wanted)
    _check_shapes(path, state, wanted, naming)
    _check_values(path, state)
    report = Report(
        path=path,
        naming=naming.name,
        loaded=len(state) - without_count,
        left_over=tuple(filter(naming.is_left_over, tensors)),
        unexpected=(*unexpected, *others),
        widened=tuple(widened),
        eps=_move_variances(state, model, naming),
        without_count=without_count,
    )
    return state, report


def _some(names: Iterable[str]) -> str:
    """The first few names and how many there are."""
    names = list(names)
    dots = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)}: {', '.join(names[:_SHOWN])}{dots}"


def _naming(path: Path, tensors: dict[str, Tensor]) -> Naming:
    if naming := recognise(tensors):
        return naming
    known = ", ".join(naming.name for naming in NAMINGS)
    raise InputError(f"{path}: names of no known library ({_some(tensors)}); known: {known}")


def _renamed(path: Path, tensors: dict, naming: Naming) -> tuple[dict[str, Tensor], list[str]]:
    """Weights by our names, and the names of those that no rule knows."""
    state, unexpected, foreign = {}, [], []
    for name, tensor in tensors.items():
        ours = naming.ours(name)
        if ours in state:
            raise InputError(f"{path}: two values of {ours}, one of them {name}; keep one network")
        if ours is not None:
            state[ours] = tensor
        elif naming.is_trunk(name):
            foreign.append(name)
        elif not naming.is_left_over(name):
            unexpected.append(name)
    if foreign:
        raise InputError(
            f"{path}: has parts in {naming.name}'s names that this backbone lacks "
            f"({_some(foreign)}); give weights of the same network"
        )
    return state, unexpected


def _add_counts(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> int:
    """Zero for the counters that files of torch before 0.4.1 and of Caffe2 lack; how many."""
    missing = [n for n in wanted if n.endswith(".num_batches_tracked") and n not in state]
    for name in missing:
        state[name] = next(iter(state.values())).new_zeros((), dtype=wanted[name].dtype)
    return len(missing)


def _check_names(path: Path, state: dict, wanted: dict, naming: Naming) -> None:
    missing = [name for name in wanted if name not in state]
    foreign = [name for name in state if name not in wanted]
    if missing or foreign:
        words = [f"no value for {_some(missing)}"] if missing else []
        words += [f"values for what this backbone lacks, {_some(foreign)}"] if foreign else []
        raise InputError(
            f"{path}: {' and '.join(words)} (of {len(wanted)}; read in {naming.name}'s names); "
            "give weights of the same network and depth"
        )


def _widen(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Put zeros around kernels that are shorter in time than the backbone's; their names.

    The zoo's SlowFast-101 look at 5 frames in their lateral connections where ours looks at 7, and
    ``R101_50_50`` at 1 frame in most blocks of the fourth stage where ours looks at 3. Ours pads
    by half a kernel, so that the longer kernel with zeros at both ends is the same function.
    """
    names = []
    for name in filter(_WIDENED.fullmatch, wanted):
        there, here = state[name], wanted[name]
        if there.ndim != here.ndim or there.shape[:2] + there.shape[3:] != (
            here.shape[:2] + here.shape[3:]
        ):
            continue
        short = here.shape[2] - there.shape[2]
        if short > 0 and short % 2 == 0:
            state[name] = F.pad(there, (0, 0, 0, 0, short // 2, short // 2))
            names.append(name)
    return names


def _check_shapes(path: Path, state: dict, wanted: dict, naming: Naming) -> None:
    wrong = [name for name in wanted if state[name].shape != wanted[name].shape]
    if wrong:
        first = wrong[0]
        raise InputError(
            f"{path}: another shape for {_some(wrong)} (the first has "
            f"{tuple(state[first].shape)}, not {tuple(wanted[first].shape)}; of {len(wanted)}; "
            f"read in {naming.name}'s names); give weights of the same network"
        )


def _check_values(path: Path, state: dict[str, Tensor]) -> None:
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{path}: values that are not finite in {_some(broken)}; fetch it again")


def _move_variances(state: dict, model: nn.Module, naming: Naming) -> float | None:
    """Make up for another eps: variance + eps is what a batch norm divides by; the file's eps."""
    if naming.eps is None:
        return None
    moved = None
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm3d) and module.eps != naming.eps:
            variance = state[f"{name}.running_var"]
            state[f"{name}.running_var"] = variance + (naming.eps - module.eps)
            moved = naming.eps
    return moved

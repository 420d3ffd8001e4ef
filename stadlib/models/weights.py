"""Files of weights: read without running anything of them; our own, written as safetensors.

The names that other libraries give to the weights of a SlowFast or a channel-separated network.

One :class:`Naming` a library. Its rules are pairs of a name there and a name here, in which
``{stage}``, ``{path}``, ``{block}``, ``{conv}``, ``{leaf}`` and their kin stand for what differs
from weight to weight; :data:`_PARTS` says what each may be and what it becomes.

Public weights into the study's backbones, checked name by name and shape by shape.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from stadlib.base import InputError, written_whole

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


_LEAF = "weight|bias|running_mean|running_var|num_batches_tracked"
_PARTS: dict[str, tuple[str, dict[str, str]]] = {
    "stage": (r"[0-5]", {}),
    "after_stem": (r"[2-5]", {n: str(int(n) - 1) for n in "2345"}),  # where the stem counts as 1
    "fused": (r"[1-4]", {n: str(int(n) - 1) for n in "1234"}),  # the same; the last stage has none
    "path": (r"[01]", {}),  # slow, fast
    "fast": (r"(?:t_)?", {"": "0", "t_": "1"}),
    "block": (r"\d+", {}),
    "conv": (r"[abc123]", {"1": "a", "2": "b", "3": "c"}),
    "leaf": (_LEAF, {}),
    "blob": (
        "s|b|rm|riv",
        {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"},
    ),
    "rest": (r".+", {}),
}
"""What a placeholder matches, and the words that become another word here."""


@dataclass(frozen=True)
class Naming:
    """How a library names a backbone's weights.

    Attributes:
        name: of the library, as reports say it.
        rules: pairs of a name there and a name here, see the module.
        trunk: what all names of the backbone begin with; one without a rule is of another network.
        left_over: names that belong to no backbone, such as a classifier's.
        eps: of the batch norms in channel-separated networks there; None: as here.
    """

    name: str
    rules: tuple[tuple[str, str], ...]
    trunk: str
    left_over: str
    eps: float | None = None

    @cached_property
    def _compiled(self) -> list[tuple[re.Pattern, str]]:
        return [(re.compile(_pattern(theirs)), ours) for theirs, ours in self.rules]

    def ours(self, name: str) -> str | None:
        """The name here of a weight there; None if it is left over or no rule knows it."""
        if self.is_left_over(name):
            return None
        for pattern, target in self._compiled:
            if found := pattern.fullmatch(name):
                parts = {k: _PARTS[k][1].get(v, v) for k, v in found.groupdict().items()}
                return target.format(**parts)
        return None

    def is_left_over(self, name: str) -> bool:
        """Whether a weight is known to belong to no backbone."""
        return re.match(self.left_over, name) is not None

    def is_trunk(self, name: str) -> bool:
        """Whether a weight is one of a backbone, this one or another."""
        return not self.is_left_over(name) and re.match(self.trunk, name) is not None


def _pattern(theirs: str) -> str:
    """The regular expression of a rule's left side, in which a dot is a dot."""
    text = theirs.replace(".", r"\.")
    return re.sub(r"\{(\w+)\}", lambda word: f"(?P<{word[1]}>{_PARTS[word[1]][0]})", text)


_BLOCK = "net.blocks.{stage}.res_blocks.{block}."
_PATH_BLOCK = "net.{after_stem}.multipathway_blocks.{path}.res_blocks.{block}."
_BLOB_BLOCK = "net.{after_stem}.multipathway_blocks.{fast}.res_blocks.{block}."
OURS = Naming(
    "stadlib",
    (("net.{rest}", "net.{rest}"), ("backbone.net.{rest}", "net.{rest}")),
    trunk=r"(backbone\.)?net\.",
    left_over=r"(classifier|head|fusion)\.",
)
"""A backbone alone, a pretrained classifier or a whole model of this package."""
PYTORCHVIDEO = Naming(
    "pytorchvideo",
    (
        ("blocks.{stage}.multipathway_{rest}", "net.{stage}.multipathway_{rest}"),
        ("model.blocks.{stage}.multipathway_{rest}", "net.{stage}.multipathway_{rest}"),
        ("blocks.{stage}.{rest}", "net.blocks.{stage}.{rest}"),
        ("model.blocks.{stage}.{rest}", "net.blocks.{stage}.{rest}"),
    ),
    trunk=r"(model\.)?blocks\.",
    left_over=r"(model\.)?blocks\.[56]\.proj\.|detection_head\.",
    eps=1e-5,
)
"""facebookresearch/pytorchvideo, pytorchvideo/models/slowfast.py, csn.py, resnet.py and hub/.

Blocks 0 to 4 are the stem and four stages; a classifier follows as block 5 (CSN) or 6 (SlowFast).
The detection model wraps them as ``model``.
"""
VMZ = Naming(
    "VMZ",
    (
        ("stem.0.{leaf}", "net.blocks.0.conv.{leaf}"),
        ("stem.1.{leaf}", "net.blocks.0.norm.{leaf}"),
        ("layer{stage}.{block}.conv{conv}.0.{leaf}", _BLOCK + "branch2.conv_{conv}.{leaf}"),
        ("layer{stage}.{block}.conv{conv}.1.{leaf}", _BLOCK + "branch2.norm_{conv}.{leaf}"),
        ("layer{stage}.{block}.downsample.0.{leaf}", _BLOCK + "branch1_conv.{leaf}"),
        ("layer{stage}.{block}.downsample.1.{leaf}", _BLOCK + "branch1_norm.{leaf}"),
    ),
    trunk=r"(stem|layer\d)\.",
    left_over=r"fc\.",
    eps=1e-3,
)
"""facebookresearch/VMZ, pt/vmz/models/csn.py and utils.py, upon torchvision's VideoResNet."""
MMACTION2 = Naming(
    "mmaction2",
    tuple(
        (prefix + theirs, ours)
        for prefix in ("", "backbone.")
        for theirs, ours in (
            ("conv1.conv.{leaf}", "net.blocks.0.conv.{leaf}"),
            ("conv1.bn.{leaf}", "net.blocks.0.norm.{leaf}"),
            # The depthwise convolution is alone in a list that has two with ip-CSN.
            ("layer{stage}.{block}.conv2.0.conv.{leaf}", _BLOCK + "branch2.conv_b.{leaf}"),
            ("layer{stage}.{block}.conv2.0.bn.{leaf}", _BLOCK + "branch2.norm_b.{leaf}"),
            ("layer{stage}.{block}.conv{conv}.conv.{leaf}", _BLOCK + "branch2.conv_{conv}.{leaf}"),
            ("layer{stage}.{block}.conv{conv}.bn.{leaf}", _BLOCK + "branch2.norm_{conv}.{leaf}"),
            ("layer{stage}.{block}.downsample.conv.{leaf}", _BLOCK + "branch1_conv.{leaf}"),
            ("layer{stage}.{block}.downsample.bn.{leaf}", _BLOCK + "branch1_norm.{leaf}"),
        )
    ),
    trunk=r"(backbone\.)?(conv1|layer\d)\.",
    left_over=r"cls_head\.|roi_head\.",
    eps=1e-3,
)
"""open-mmlab/mmaction2, mmaction/models/backbones/resnet3d_csn.py and resnet3d.py."""
PYSLOWFAST = Naming(
    "PySlowFast",
    (
        ("s1.pathway{path}_stem.conv.{leaf}", "net.0.multipathway_blocks.{path}.conv.{leaf}"),
        ("s1.pathway{path}_stem.bn.{leaf}", "net.0.multipathway_blocks.{path}.norm.{leaf}"),
        (
            "s{fused}_fuse.conv_f2s.{leaf}",
            "net.{fused}.multipathway_fusion.conv_fast_to_slow.{leaf}",
        ),
        ("s{fused}_fuse.bn.{leaf}", "net.{fused}.multipathway_fusion.norm.{leaf}"),
        *(
            ("s{after_stem}.pathway{path}_res{block}." + theirs, _PATH_BLOCK + ours)
            for theirs, ours in (
                ("branch1.{leaf}", "branch1_conv.{leaf}"),
                ("branch1_bn.{leaf}", "branch1_norm.{leaf}"),
                ("branch2.{conv}.{leaf}", "branch2.conv_{conv}.{leaf}"),
                ("branch2.{conv}_bn.{leaf}", "branch2.norm_{conv}.{leaf}"),
            )
        ),
    ),
    trunk=r"s[1-5](_fuse)?\.",
    left_over=r"head\.",
)
"""facebookresearch/SlowFast, slowfast/models/video_model_builder.py, resnet_helper.py and
stem_helper.py. Its fusion stands between stages: ``s1_fuse`` follows the stem."""
CAFFE2 = Naming(
    "PySlowFast's Caffe2",
    (
        ("{fast}conv1_w", "net.0.multipathway_blocks.{fast}.conv.weight"),
        ("{fast}res_conv1_bn_{blob}", "net.0.multipathway_blocks.{fast}.norm.{blob}"),
        ("t_pool1_subsample_w", "net.0.multipathway_fusion.conv_fast_to_slow.weight"),
        ("t_pool1_subsample_bn_{blob}", "net.0.multipathway_fusion.norm.{blob}"),
        (
            "t_res{after_stem}_{block}_branch2c_bn_subsample_w",
            "net.{after_stem}.multipathway_fusion.conv_fast_to_slow.weight",
        ),
        (
            "t_res{after_stem}_{block}_branch2c_bn_subsample_bn_{blob}",
            "net.{after_stem}.multipathway_fusion.norm.{blob}",
        ),
        *(
            ("{fast}res{after_stem}_{block}_" + theirs, _BLOB_BLOCK + ours)
            for theirs, ours in (
                ("branch1_w", "branch1_conv.weight"),
                ("branch1_bn_{blob}", "branch1_norm.{blob}"),
                ("branch2{conv}_w", "branch2.conv_{conv}.weight"),
                ("branch2{conv}_bn_{blob}", "branch2.norm_{conv}.{blob}"),
            )
        ),
    ),
    trunk=r"(t_)?(conv1|res|pool1|nonlocal)_?",
    left_over=r".*_momentum$|lr$|model_iter$|pred_",
)
"""facebookresearch/SlowFast, slowfast/utils/c2_model_loading.py. ``riv`` holds variances."""
NAMINGS = (OURS, PYTORCHVIDEO, VMZ, MMACTION2, PYSLOWFAST, CAFFE2)


def recognise(names: Iterable[str]) -> Naming | None:
    """The naming whose rules know most of the names; None if none knows any."""
    names = list(names)
    known = {naming: sum(naming.ours(name) is not None for name in names) for naming in NAMINGS}
    best = max(NAMINGS, key=known.get)
    return best if known[best] else None


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

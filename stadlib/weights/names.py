"""The names that other libraries give to the weights of a SlowFast or a channel-separated network.

One :class:`Naming` a library. Its rules are pairs of a name there and a name here, in which
``{stage}``, ``{path}``, ``{block}``, ``{conv}``, ``{leaf}`` and their kin stand for what differs
from weight to weight; :data:`_PARTS` says what each may be and what it becomes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

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

"""How libraries name the weights of the backbones, and what a name there is called here."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Naming:
    """How a library names a backbone's weights; all patterns are regular expressions."""

    library: str
    rules: tuple[tuple[str, str], ...]  # a module's name there, and here
    trunk: str  # what the names of a backbone, ours or another, begin with
    left_over: str  # what names that belong to no backbone begin with, such as a classifier's
    eps: float | None = None  # of the batch norms in channel-separated networks; None: as here
    head: tuple[str, str] | None = None  # a layer of a detector's head there, and here
    first_action: int = 1  # AVA's id of the head's first output

    def ours(self, name: str) -> str | None:
        """The name here of a weight there; None if it is left over or no rule knows it."""
        module, _, leaf = name.rpartition(".")
        matches = ((re.fullmatch(theirs, module), ours) for theirs, ours in self.rules)
        names = (f"{match.expand(ours)}.{leaf}" for match, ours in matches if match)
        return None if self.is_left_over(name) else next(names, None)

    def is_left_over(self, name: str) -> bool:
        """Whether a weight is known to belong to no backbone."""
        return re.match(self.left_over, name) is not None


def _csn_rules(prefix: str, stem: str, parts: tuple[str, str], conv2: str = "conv2"):
    """Rules of a library that names ir-CSN as torchvision's video networks do."""
    layer, block = rf"{prefix}layer(\d)\.(\d+)\.", r"net.blocks.\1.res_blocks.\2."
    for part, kind in zip(parts, ("conv", "norm"), strict=True):
        yield rf"{prefix}{stem}\.{part}", f"net.blocks.0.{kind}"
        for conv, letter in (("conv1", "a"), (conv2, "b"), ("conv3", "c")):
            yield rf"{layer}{conv}\.{part}", f"{block}branch2.{kind}_{letter}"
        yield rf"{layer}downsample\.{part}", f"{block}branch1_{kind}"


def _slowfast_rules():
    """PySlowFast's rules: the stem counts as stage 1, and fusion stands between stages."""
    for end, kind in (("conv", "conv"), ("bn", "norm")):
        yield rf"s1\.pathway([01])_stem\.{end}", rf"net.0.multipathway_blocks.\1.{kind}"
    for stage in range(4):
        here = f"net.{stage}.multipathway_fusion"
        yield rf"s{stage + 1}_fuse\.conv_f2s", f"{here}.conv_fast_to_slow"
        yield rf"s{stage + 1}_fuse\.bn", f"{here}.norm"
    for stage in range(1, 5):
        theirs = rf"s{stage + 1}\.pathway([01])_res(\d+)\."
        ours = rf"net.{stage}.multipathway_blocks.\1.res_blocks.\2."
        for end, kind in (("", "conv"), ("_bn", "norm")):
            yield rf"{theirs}branch1{end}", f"{ours}branch1_{kind}"
            yield rf"{theirs}branch2\.([abc]){end}", rf"{ours}branch2.{kind}_\3"


_VIDEO = r"(?:video_model\.)?(?:vision_model\.)?"  # of transformers' models with more parts
NAMINGS = (
    Naming(
        "stadlib",
        rules=((r"(?:backbone\.)?(net\..+|normalize)", r"\1"),),
        trunk=r"(backbone\.)?(net|normalize)\.",
        left_over=r"(classifier|head|fusion)\.",
    ),
    # facebookresearch/pytorchvideo, models/slowfast.py, csn.py, resnet.py and hub/. Blocks 0 to 4
    # are the stem and four stages, then comes a classifier. The detection model wraps them.
    Naming(
        "pytorchvideo",
        rules=(
            (r"(?:model\.)?blocks\.([0-5])\.(multipathway_.+)", r"net.\1.\2"),
            (r"(?:model\.)?blocks\.([0-5])\.(.+)", r"net.blocks.\1.\2"),
        ),
        trunk=r"(model\.)?blocks\.",
        left_over=r"(model\.)?blocks\.[56]\.proj\.|detection_head\.",
        eps=1e-5,
        head=(r"detection_head\.proj", "classifier"),
    ),
    # facebookresearch/VMZ, pt/vmz/models/csn.py and utils.py.
    Naming(
        "VMZ",
        rules=tuple(_csn_rules("", "stem", ("0", "1"))),
        trunk=r"(stem|layer\d)\.",
        left_over=r"fc\.",
        eps=1e-3,
    ),
    # open-mmlab/mmaction2, mmaction/models/backbones/resnet3d_csn.py and resnet3d.py. The
    # depthwise convolution is alone in a list that has two with ip-CSN.
    Naming(
        "mmaction2",
        rules=tuple(_csn_rules(r"(?:backbone\.)?", "conv1", ("conv", "bn"), r"conv2(?:\.0)?")),
        trunk=r"(backbone\.)?(conv1|layer\d)\.",
        left_over=r"cls_head\.|roi_head\.",
        eps=1e-3,
        head=(r"roi_head\.bbox_head\.fc_cls(\.\d)?", r"classifier\1"),
        first_action=0,  # stands for the background
    ),
    # pytorch/vision, torchvision/models/video/swin_transformer.py.
    Naming(
        "torchvision",
        rules=((r"((?:patch_embed|features|norm).*)", r"net.\1"),),
        trunk=r"(patch_embed|features|norm)\.",
        left_over=r"head\.",
    ),
    # huggingface/transformers, models/videoprism/modeling_videoprism.py.
    Naming(
        "transformers",
        rules=((rf"{_VIDEO}((?:spatial_|temporal_|layernorm).*)", r"net.model.\1"),),
        trunk=rf"{_VIDEO}(spatial_|temporal_|layernorm)",
        left_over=r"(video_model\.)?(head|classifier|auxiliary_layers|text_model)",
    ),
    # facebookresearch/SlowFast, slowfast/models/video_model_builder.py, resnet_helper.py.
    Naming(
        "PySlowFast",
        rules=tuple(_slowfast_rules()),
        trunk=r"s[1-5](_fuse)?\.",
        left_over=r"head\.",
    ),
)

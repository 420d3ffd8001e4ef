"""Every backbone by its name, a line each: the paper's, today's, and one's own.

A network gets a line in ``FULL_SIZE``, its input words in ``recipes.experiment.INPUTS`` and its
public weights in ``published.csv``; a family with a miniature member one in ``MINIATURE``. A
network that stands in neither is named ``FILE.py:FUNCTION``, a function that returns a
:class:`.networks.Backbone` with its weights.

Legend: B clips, C channels, T time, H, W.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.models.video.swin_transformer import SwinTransformer3d
from torchvision.ops import Permute

from stadlib.base import InputError
from stadlib.models.networks import (
    CSN,
    STAGE_DEPTHS,
    Backbone,
    csn_mini,
    slow,
    slowfast,
    slowfast_mini,
)
from stadlib.recipes.experiment import own_backbone

CHANNELS_FIRST = Permute([0, 4, 1, 2, 3])  # a transformer's (B, T, H, W, C) to (B, C, T, H, W)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def swin3d(
    embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], window_size: Sequence[int]
) -> Backbone:
    """Video Swin Transformer (Liu et al. 2022), torchvision's, of any size of frames.

    A patch is two frames of 4x4 pixels; each stage after the first halves the map. No branch is
    dropped in training, since what is dropped would depend on how a batch is shared.
    """
    options = {
        "patch_size": (2, 4, 4),
        "window_size": list(window_size),
        "stochastic_depth_prob": 0.0,
    }
    net = SwinTransformer3d(embed_dim=embed_dim, depths=depths, num_heads=num_heads, **options)
    parts = {"patch_embed": net.patch_embed, "features": net.features, "norm": net.norm}
    return Backbone(
        nn.Sequential(OrderedDict(parts, to_map=CHANNELS_FIRST)),
        out_channels=net.num_features,
        spatial_stride=4 * 2 ** (len(depths) - 1),
        temporal_stride=2,
        **IMAGENET,
    )


def swin3d_mini() -> Backbone:
    """A hybrid for figures of 40 pixels: two stages of an ir-CSN, then two of Swin's blocks.

    It is 1/8 in space and 1/2 in time. Its blocks start as identities. After 300 to 480 iterations
    its loss was 3.2 to 3.5 (chance 3.69, ir-CSN 3.3). With patches instead of the stages, or with
    blocks that start as torchvision's, it was 3.67 to 3.76 after 400 to 500, by SGD of lr 0.1 and
    0.01 and by AdamW of lr 0.001. All are one run each.
    """
    first = csn_mini(depths=(1, 2), temporal_strides=(1, 2))
    width, options = first.out_channels, {"window_size": [4, 4, 4], "mlp_ratio": 2.0}
    options |= {"patch_size": [2, 8, 8], "stochastic_depth_prob": 0.0}  # the patches are not used
    net = SwinTransformer3d(embed_dim=width, depths=(2,), num_heads=(4,), **options)
    for block in net.features[0]:
        nn.init.zeros_(block.attn.proj.weight)
        nn.init.zeros_(block.mlp[3].weight)
    parts = {"convolutions": first.net, "to_tokens": Permute([0, 2, 3, 4, 1])}
    parts |= {"features": net.features, "norm": net.norm, "to_map": CHANNELS_FIRST}
    return Backbone(
        nn.Sequential(OrderedDict(parts)),
        out_channels=width,
        spatial_stride=first.spatial_stride,
        temporal_stride=first.temporal_stride,
    )


class VideoPrism(nn.Module):
    """VideoPrism's encoder (Zhao et al. 2024) from transformers: a patch is 18x18 of one frame.

    ``config`` are fields of transformers' ``VideoPrismVisionConfig``; the defaults are the base
    network's. Its places are interpolated to the size of the clip.
    """

    def __init__(self, **config: object) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():  # of its progress bars
                warnings.simplefilter("ignore")
                from transformers import (  # noqa: PLC0415  (an optional extra)
                    VideoPrismVisionConfig,
                    VideoPrismVisionModel,
                )
        except ImportError:
            raise InputError(
                "videoprism needs the package transformers; pip install 'stadlib[transformers]'"
            ) from None
        self.model = VideoPrismVisionModel(VideoPrismVisionConfig(**config))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Frames from 0 to 1, with sides divisible by the patch, to (B, C, T, H', W')."""
        side = self.model.config.tubelet_size[1]
        grid = (x_BCTHW.shape[2], x_BCTHW.shape[3] // side, x_BCTHW.shape[4] // side)
        tokens = self.model(x_BCTHW.transpose(1, 2), interpolate_pos_encoding=True)
        return tokens.last_hidden_state.transpose(1, 2).unflatten(2, grid)


def videoprism(**config: object) -> Backbone:
    """VideoPrism as a backbone; frames are padded to its patches."""
    net = VideoPrism(**config)
    made, options = net.model.config, {"mean": (0.0,), "std": (1.0,)}
    side = made.tubelet_size[1]
    options |= {"spatial_stride": side, "temporal_stride": 1, "multiple": side}
    return Backbone(net, out_channels=made.hidden_size, **options)


_LARGE = {"num_frames": 8, "hidden_size": 1024, "intermediate_size": 4096}
_LARGE |= {"num_attention_heads": 16, "num_spatial_layers": 24}
FULL_SIZE: dict[str, Callable[[], Backbone]] = {
    "slowfast-101": partial(slowfast, 101),
    "slowfast-152": partial(slowfast, 152),
    "ir-csn-101": partial(CSN, STAGE_DEPTHS[101]),
    "ir-csn-152": partial(CSN, STAGE_DEPTHS[152]),
    # Of public detectors: pytorchvideo's and mmaction2's.
    "slowfast-50": partial(slowfast, 50),
    "slow-50": partial(slow, 50, dilated=True),
    "slowonly-50": partial(slow, 50, dilated=False),
    # Beyond the paper.
    "swin3d-t": partial(swin3d, 96, (2, 2, 6, 2), (3, 6, 12, 24), (8, 7, 7)),
    "videoprism-b": videoprism,
    "videoprism-l": partial(videoprism, **_LARGE),
}
MINIATURE: dict[str, Callable[[], Backbone]] = {
    "slowfast": slowfast_mini,
    "ir-csn": csn_mini,
    "swin3d": swin3d_mini,
}


def build(name: str, *, mini: bool = False, detection: bool = True) -> Backbone:
    """The network of a name, or the ``mini`` member of its family, without its public weights.

    For detection the paper's networks are 1/16 in space (SlowFast's AVA configurations, VMZ,
    TubeR). Without ``detection``, to classify Kinetics, SlowFast's are 1/32; ir-CSN's are 1/16
    there, too (paper section 3.2). A file without the function is an InputError.
    """
    if own := own_backbone(name):
        return _from_file(*own)
    family = name.rsplit("-", 1)[0]
    if mini:
        return MINIATURE[family]()
    return FULL_SIZE[name](**{"detection": False} if family == "slowfast" and not detection else {})


def _from_file(path: str, function: str) -> Backbone:
    """What a function in a Python file returns; the file is the user's own and is run."""
    spec = importlib.util.spec_from_file_location("own_backbone", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = getattr(module, function, lambda: None)()
    if not isinstance(made, Backbone):
        raise InputError(
            f"{path}: {function}() gives no stadlib.models.networks.Backbone; return one"
        )
    return made

"""The numbers that differ between smoke, mini and paper, which are one code path.

The field defaults of a table are the values of one scale; the other scales say what differs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from stadlib.base import digest


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The study's own numbers; nothing else may depend on a scale. The defaults are ``mini``'s.

    Frame counts and rates turn the paper's words into seconds: ``32x2`` is 32 frames, every
    second one of a 30 Hz video; at ``mini`` a quarter of the frames of an 8 Hz video.
    """

    world_version: int = 3  # of the rendered data; 0: real data
    worlds: int = 2  # rendered ones: seed s lives in world s % worlds
    frame_rate: float = 8  # frames a second in which the input words count
    frame_divisor: int = 4  # 32x2 at mini is 32 / frame_divisor frames
    short_side: int = 64  # training input, pixels
    long_side: int = 96
    test_sides: tuple[int, ...] = (56, 64, 72)
    pad_multiple: int = 8  # a batch's height and width are divisible by it
    # Of a row's backbone: trained with the rest, or its features are extracted once.
    start: Literal["pretrained", "features"] = "features"
    iterations: int = 1_000  # of a full stage that sees clips
    batch: int = 8
    lr: float = 0.5
    backbone_lr: float = 0.1  # times lr; at 1 a short training spoils what was pretrained
    clip: float | None = 0.5  # norm that gradients are cut down to; the paper cuts none
    drop: float = 0.66  # factor at each of the schedule's four drops
    backbone: Literal["paper", "mini"] = "mini"
    fusion_layers: Literal[1, 2] = 1  # convolutions; a short training learns one of them better
    roi_size: int = 4  # cells a side of a person's feature map
    width: int = 64  # of fused person features and of the relation head
    max_persons: int = 10  # of a clip in training
    num_workers: int = 1  # processes that decode and augment
    pretrain_side: int = 48  # square clips, small enough that people are as high as in movies
    pretrain_iterations: int = 6_000
    pretrain_batch: int = 16
    pretrain_lr: float = 0.1
    pretrain_clip: float | None = 1.0  # without, the loss after 480 iterations is 3.58, not 3.33


SCALES: dict[str, Scale] = {
    "smoke": Scale(  # where tests train whole networks
        worlds=1,
        test_sides=(64,),
        start="pretrained",
        iterations=6,
        batch=4,
        num_workers=0,
        pretrain_iterations=6,
        pretrain_batch=8,
    ),
    "mini": Scale(),
    "paper": Scale(
        world_version=0,
        worlds=1,
        frame_rate=30,
        frame_divisor=1,
        short_side=256,
        long_side=464,
        test_sides=(256, 288, 320),
        pad_multiple=32,
        start="pretrained",
        iterations=30_000,
        batch=64,
        lr=1e-2,
        backbone_lr=1.0,
        clip=None,
        fusion_layers=2,
        backbone="paper",
        roi_size=7,
        width=512,
        num_workers=8,
        pretrain_side=0,  # weights come from a file
        pretrain_iterations=0,
        pretrain_batch=0,
        pretrain_lr=0.0,
        pretrain_clip=None,
    ),
}


@dataclass(frozen=True, kw_only=True)
class DetectorStage:
    """One stretch of a person detector's training.

    ``data`` names lists from which pictures are drawn in turns (in the paper 60 % of the keyframes
    are AVA's, as in the miniature world): ``stills`` (people of COCO, or rendered), ``ava``,
    ``kinetics``. ``share`` is of the scale's iterations.
    """

    data: tuple[str, ...]
    share: float = 1.0


# Paper sections 3.1 and 3.3, Table 4. The paper trains GFocalV2 on the people of COCO, then on
# AVA-Kinetics, and does not say how its three versions differ. Its numbers do: from v1 to v2
# Kinetics gains 4.7 AP and AVA 0.6; from v2 to v3 both gain where boxes must be precise. So v1 is
# finetuned on AVA alone, v2 on both and longer, v3 on both and longest.
_STILLS = DetectorStage(data=("stills",))
DETECTORS: dict[str, tuple[DetectorStage, ...]] = {
    "v1": (_STILLS, DetectorStage(data=("ava",), share=0.5)),
    "v2": (_STILLS, DetectorStage(data=("ava", "kinetics"), share=1.0)),
    "v3": (_STILLS, DetectorStage(data=("ava", "kinetics"), share=2.0)),
}


OTHER_DETECTORS = ("torchvision:NAME", "FILE.pt", "BOXES.csv, .json or .pkl")


@dataclass(frozen=True, kw_only=True)
class DetectorScale:
    """Numbers of the detectors' training; the defaults are those of ``mini``."""

    version: int = 4  # of the rendered stills and the detector's code; 0: real data
    body: str = "mini"  # or the depth of a ResNet
    short_sides: tuple[int, ...] = (64, 72, 88, 96, 80)  # drawn from; the last is that of testing
    long_side: int = 144
    iterations: int = 700  # of a stage whose share is 1
    batch: int = 8
    lr: float = 0.03
    drop: float = 0.5  # at each of the schedule's four drops
    weight_decay: float = 1e-4


DETECTOR_SCALES: dict[str, DetectorScale] = {
    # At mini's rate it finds nothing yet.
    "smoke": DetectorScale(iterations=20, batch=4, lr=0.01, drop=0.3),
    "mini": DetectorScale(),
    # COCO's usual schedule (GFocalV2: 12 epochs of batch 16) and sizes.
    "paper": DetectorScale(
        version=0,
        body="101",
        short_sides=(480, 560, 640, 720, 800),
        long_side=1333,
        iterations=90_000,
        batch=16,
        lr=0.01,
        drop=0.3,
    ),
}


STILLS = 4  # version of the rendered pictures, by which a detector's files are known


def made_of(name: str, scale: str, number: int | None = None) -> dict:
    """What decides a detector's weights after a stage, counted from 1 (default: the last)."""
    stages = [asdict(stage) for stage in DETECTORS[name][:number]]
    return {"detector": stages, "scale": asdict(DETECTOR_SCALES[scale])}


def detector_digest(name: str, scale: str, number: int | None = None, *, seed: int = 0) -> str:
    """What a detector's files are called after a stage; experiments do not know the stills."""
    rendered = {"stills": STILLS, "seed": seed} if DETECTOR_SCALES[scale].version else {}
    return digest(made_of(name, scale, number) | rendered)


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe:
    """How a backbone learns to classify Kinetics' clips; the defaults are those of ``paper``.

    The AVA paper names what its backbones were pretrained on (section 3.1, Table 1) and gives **no
    number** of how. These are SlowFast's, from the two of its configurations that train a SlowFast
    and a CSN of 101 layers from scratch and agree in all of them
    (``configs/Kinetics/pytorchvideo/SLOWFAST_8x8_R101.yaml`` and ``CSN_32x2_R101.yaml``). What
    differs here: the backbones are 152 layers deep, the set may be K700, and the bias of the linear
    layer is not decayed. VMZ, where ir-CSN comes from, trains otherwise (defaults of
    ``pt/vmz/func/opts.py``: 45 epochs, 10 of them warm-up, lr 0.01).
    """

    epochs: float = 196  # passes over the training videos, one random clip of each
    iterations: int | None = None  # instead of epochs
    warm_up: float = 34 / 196  # share of them in which the learning rate rises ...
    warm_up_lr: float = 0.01  # ... from here
    lr: float = 0.1  # of a global batch; published with 8 clips on each of 8 GPUs
    batch: int = 64  # clips of all processes together
    weight_decay: float = 1e-4
    clip: float | None = None  # norm that gradients are cut down to
    dropout: float = 0.5  # before the classifier
    short_sides: tuple[int, int] = (256, 320)  # pixels, between which a training clip's is drawn
    crop: int = 224  # pixels, a square at a random place
    test_side: int = 256  # pixels, short side and squares in testing
    test_clips: int = 10  # evenly over a video's time ...
    test_crops: int = 3  # ... and squares along the long side: the field's "30 views"
    settling: int = 200  # batches over which batch norms' statistics are taken after training
    small: bool = False  # short videos: seen whole and in changed colours, decoded once
    whole_batches: bool = False  # in every process: weights do not depend on how many there are


def _miniature(scale: Scale, settling: int) -> PretrainingRecipe:
    """Warm-up as in the other trainings; the frame is seen whole, people as high as in movies."""
    side = scale.pretrain_side
    return PretrainingRecipe(
        iterations=scale.pretrain_iterations,
        warm_up=0.05,
        warm_up_lr=scale.pretrain_lr / 4,
        lr=scale.pretrain_lr,
        batch=scale.pretrain_batch,
        clip=scale.pretrain_clip,
        dropout=0.0,
        short_sides=(side * 9 // 8, side * 9 // 8),
        crop=side,
        test_side=side,
        test_clips=1,
        test_crops=1,
        settling=settling,
        small=True,
        whole_batches=True,
    )


RECIPES: dict[str, PretrainingRecipe] = {
    "smoke": _miniature(SCALES["smoke"], settling=1),
    "mini": _miniature(SCALES["mini"], settling=20),
    "paper": PretrainingRecipe(),
}

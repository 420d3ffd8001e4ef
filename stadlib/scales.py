"""The numbers that differ between smoke, mini and paper, which are one code path. Floor 0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The numbers that differ between smoke, mini and paper; nothing else may depend on a scale.

    Frame counts and rates turn the paper's words into seconds: ``32x2`` is 32 frames, every
    second one of a 30 Hz video; at ``mini`` a quarter of the frames of an 8 Hz video.
    """

    world_version: int  # of the rendered data; 0: real data
    frame_rate: float  # frames a second in which the input words count
    frame_divisor: int  # 32x2 at mini is 32 / frame_divisor frames
    short_side: int  # training input, pixels
    long_side: int
    test_sides: tuple[int, ...]
    pad_multiple: int  # a batch's height and width are divisible by it
    iterations: int  # of a full stage
    batch: int
    lr: float
    drop: float  # factor at each of the schedule's four drops
    backbone: Literal["paper", "mini"]
    roi_size: int  # cells a side of a person's feature map
    width: int  # of fused person features and of the relation head
    max_persons: int = 10  # of a clip in training
    num_workers: int = 0  # processes that decode and augment
    pretrain_side: int = 0  # square clips, small enough that persons are as high as in movies
    pretrain_iterations: int = 0
    pretrain_batch: int = 0
    pretrain_lr: float = 0.0


_MINI = Scale(
    world_version=2,
    frame_rate=8,
    frame_divisor=4,
    short_side=64,
    long_side=96,
    test_sides=(56, 64, 72),
    pad_multiple=8,
    iterations=1_000,
    batch=8,
    lr=0.3,
    drop=0.34,
    num_workers=1,
    backbone="mini",
    roi_size=4,
    width=64,
    pretrain_side=48,
    pretrain_iterations=2_400,
    pretrain_batch=16,
    pretrain_lr=0.1,
)

SCALES: dict[str, Scale] = {
    "smoke": replace(
        _MINI,
        iterations=12,
        batch=4,
        num_workers=0,
        pretrain_iterations=6,
        pretrain_batch=8,
    ),
    "mini": _MINI,
    "paper": Scale(
        world_version=0,
        frame_rate=30,
        frame_divisor=1,
        short_side=256,
        long_side=464,
        test_sides=(256, 288, 320),
        pad_multiple=32,
        iterations=30_000,
        batch=64,
        lr=1e-2,
        drop=0.66,
        backbone="paper",
        roi_size=7,
        width=512,
        num_workers=8,
    ),
}

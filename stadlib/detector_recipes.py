"""The person detectors v1, v2, v3 as literal values (paper sections 3.1 and 3.3, Table 4).

The paper trains GFocalV2 on COCO's persons, then on AVA-Kinetics, and does not say in what its
three versions differ. Its numbers do: from v1 to v2 Kinetics gains 4.7 AP and AVA 0.6, from v2 to
v3 both gain where boxes must be precise. So v1 is finetuned on AVA alone, v2 on both and longer,
v3 on both and longest.

Floor 0, below the experiment, whose digest depends on how its detector was made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class DetectorStage:
    """One stretch of a detector's training.

    ``data`` names lists that are drawn from in turns (in the paper 60 % of the keyframes are AVA's,
    in the miniature world 96 %): ``stills`` (COCO's persons; at the miniature scales
    a rendered set in COCO's layout), ``ava``, ``kinetics``. ``share`` is of the scale's iterations.
    """

    data: tuple[str, ...]
    share: float = 1.0


_STILLS = DetectorStage(data=("stills",))
DETECTORS: dict[str, tuple[DetectorStage, ...]] = {
    "v1": (_STILLS, DetectorStage(data=("ava",), share=0.5)),
    "v2": (_STILLS, DetectorStage(data=("ava", "kinetics"), share=1.0)),
    "v3": (_STILLS, DetectorStage(data=("ava", "kinetics"), share=2.0)),
}


@dataclass(frozen=True, kw_only=True)
class DetectorScale:
    """The numbers that differ between smoke, mini and paper."""

    version: int = 2  # of the rendered stills and the detector's code; 0: real data
    body: str  # "mini", or the depth of a ResNet
    short_sides: tuple[int, ...]  # drawn from in training; the last is that of testing
    long_side: int
    iterations: int  # of a stage whose share is 1
    batch: int
    lr: float
    drop: float = 0.3  # at each of the schedule's four drops
    weight_decay: float = 1e-4


_MINI = DetectorScale(
    body="mini",
    short_sides=(64, 72, 88, 96, 80),
    long_side=144,
    iterations=700,
    batch=8,
    lr=0.01,
)

DETECTOR_SCALES: dict[str, DetectorScale] = {
    "smoke": DetectorScale(**{**asdict(_MINI), "iterations": 20}),
    "mini": _MINI,
    # COCO's usual schedule (GFocalV2: 12 epochs of batch 16) and sizes.
    "paper": DetectorScale(
        version=0,
        body="101",
        short_sides=(480, 560, 640, 720, 800),
        long_side=1333,
        iterations=90_000,
        batch=16,
        lr=0.01,
    ),
}


def made_of(name: str, scale: str, number: int | None = None) -> dict:
    """What decides a detector's weights after a stage, counted from 1 (default: the last).

    Detectors that begin alike share it, and with it the trained stage.
    """
    stages = [asdict(stage) for stage in DETECTORS[name][:number]]
    return {"detector": stages, "scale": asdict(DETECTOR_SCALES[scale])}

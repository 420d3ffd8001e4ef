"""The action classes, what a person does in a segment of time, and how it moves the body.

Motions are slow (periods of 0.7 s and more) and wide, so that they stay legible at four frames a
second. Labels that last show their evidence in bursts: see ``Segment.evidence``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sin

import numpy as np

from stadlib.data.layout import AVA_ACTIONS
from stadlib.world import WORLD
from stadlib.world.figures import Pose, blend

LEFT, RIGHT, FRONT, BACK = -1, 1, 0, 2
# Pose.facing and Pose.back of a direction; sides show a little of the front
FACING = {LEFT: (-0.9, 0.0), RIGHT: (0.9, 0.0), FRONT: (0.0, 0.0), BACK: (0.0, 1.0)}
RAMP = 0.35  # seconds from one pose to the next
LISTEN, WATCH, TALK = 74, 80, 79
_POSE_OF_ACTION, _POSE_OF_POSTURE = WORLD["pose_of_action"], WORLD["pose_of_posture"]
_OTHER = WORLD["other"]
_IDS = {*_POSE_OF_ACTION.values(), *_POSE_OF_POSTURE.values(), *_OTHER.values(), LISTEN, WATCH}
#: AVA's names of the world's actions, by id
NAMES = {action_id: AVA_ACTIONS[action_id] for action_id in sorted(_IDS)}
WATCHED = frozenset(_OTHER) - {"talk"} | {"dance", "martial", "bend"}
ATTENTIVE = frozenset({"quiet", "hold"})  # may listen or watch; both look alike


def deck(shares: dict[str, float], size: int, rng: np.random.Generator) -> list[str]:
    """``size`` shuffled cards in the proportions of ``shares`` by largest remainder."""
    exact = np.array([*shares.values()]) / sum(shares.values()) * size
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: size - counts.sum()]
    counts[rest] += 1
    cards = [name for name, count in zip(shares, counts, strict=True) for _ in range(count)]
    rng.shuffle(cards)
    return cards


@dataclass(frozen=True)
class Segment:
    """What one person does from ``start`` to ``end`` (seconds since the video's first frame)."""

    start: float
    end: float
    action: str
    posture: str = "stand"
    facing: int = FRONT
    x0: float = 0.0  # pixels, at the start
    x1: float = 0.0  # pixels, at the end
    burst: float = 0.0  # seconds of visible evidence in turn with
    gap: float = 0.0  # seconds without any; 0 = always visible
    phase: float = 0.0
    item: str = ""
    partner: int = -1

    @property
    def labels(self) -> tuple[int, ...]:
        """Action ids that follow from the segment alone: one pose, then what is done."""
        pose = _POSE_OF_ACTION.get(self.action, _POSE_OF_POSTURE[self.posture])
        return (pose, _OTHER[self.action]) if self.action in _OTHER else (pose,)

    def x(self, t: float) -> float:
        """Position at ``t`` in pixels."""
        share = min(1.0, max(0.0, (t - self.start) / (self.end - self.start)))
        return self.x0 + (self.x1 - self.x0) * share

    def evidence(self, t: float) -> float:
        """How visible the activity is at ``t``, 0 to 1, ramped at both ends of a burst."""
        if self.gap <= 0:
            return 1.0
        into = (t - self.start + self.phase) % (self.burst + self.gap)
        return max(0.0, min(1.0, into / RAMP, (self.burst - into) / RAMP))


def _wave(t: float, period: float, phase: float = 0.0) -> float:
    return sin(2 * pi * t / period + phase)


def _posture(posture: str, facing: int, phase: float, t: float) -> Pose:
    """Body and legs at ``t``, and arms that hang or swing."""
    sway = _wave(t, 3.1, phase * 5)
    pose = Pose(*FACING[facing], lean=1.5 * sway, ra_fore=12 + 4 * sway, la_fore=12 - 3 * sway)
    if posture not in WORLD["gaits"]:
        return pose._replace(**WORLD["postures"].get(posture, {}))
    period, wide, bend, lean = WORLD["gaits"][posture]
    swing = wide * _wave(t, period, phase)
    return pose._replace(
        l_thigh=swing, l_shin=swing * 0.6 - wide * 0.5,
        r_thigh=-swing, r_shin=-swing * 0.6 - wide * 0.5,
        la_upper=-swing, la_fore=-swing + bend + 8, ra_upper=swing, ra_fore=swing + bend + 8,
        lean=lean,
    )  # fmt: skip


def _busy(pose: Pose, action: str, t: float, phase: float) -> Pose:
    """The posture's ``pose`` with the limbs of ``action`` at full evidence."""
    if action in ("martial", "fight"):  # punches in turns, and a kick now and then
        swing = _wave(t, 1.1, phase)
        near, far = max(0.0, swing), max(0.0, -swing)
        kick = max(0.0, _wave(t, 3.3, phase) - 0.75) * 4
        return pose._replace(
            ra_upper=42 + 48 * near, ra_fore=138 - 48 * near,
            la_upper=42 + 48 * far, la_fore=138 - 48 * far,
            l_thigh=24 + 62 * kick, l_shin=-4 + 85 * kick, r_thigh=-22, r_shin=-26,
            lean=7 * near - 9 * kick + 4, spread=0.3,
        )  # fmt: skip
    fields = dict(WORLD["activities"].get(action, {}))
    for name, value in fields.items():
        if isinstance(value, list):
            mean, wide, period, *shift = value
            fields[name] = mean + wide * _wave(t, period, phase + sum(shift))
    if action == "dance":
        fields["bob"] = 0.02 * abs(_wave(t, 1.2, phase))
    return pose._replace(**fields)


def _unblended(segment: Segment, t: float) -> Pose:
    """The pose of a segment at ``t``, without the blend from the segment before."""
    pose = _posture(segment.posture, segment.facing, segment.phase, t)
    since = max(0.0, t - segment.start)
    if segment.action == "fall":
        down = pose._replace(roll=1.0, ra_upper=120, ra_fore=130, la_upper=100, la_fore=95)
        return blend(pose._replace(lean=0), down, min(1.0, since / 0.9) ** 2)
    if segment.action == "getup":  # from the low posture over a crouch
        share = min(1.0, since / (0.75 * (segment.end - segment.start)))
        low, crouched = (_posture(p, segment.facing, 0.0, t) for p in (segment.item, "crouch"))
        crouched = crouched._replace(ra_fore=70, la_fore=70, lean=40)
        if share < 0.5:
            return blend(low, crouched, share * 2)
        return blend(crouched, pose, share * 2 - 1)
    shown = segment.evidence(t)
    if shown <= 0 or segment.action == "quiet":
        return pose
    busy = _busy(pose, segment.action, t, segment.phase)
    return busy if shown >= 1 else blend(pose, busy, shown)


def pose_at(segments: Sequence[Segment], t: float) -> tuple[Pose, Segment]:
    """The blended pose and the current segment of a person at ``t``."""
    index = next((k for k, s in enumerate(segments) if t < s.end), len(segments) - 1)
    now = segments[index]
    pose, since = _unblended(now, t), t - now.start
    if index and since < RAMP and now.action not in ("getup", "fall"):
        pose = blend(_unblended(segments[index - 1], now.start), pose, since / RAMP)
    return pose, now

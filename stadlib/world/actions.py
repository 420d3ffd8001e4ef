"""The action classes, how often stories deal them, and how each one moves a body.

Ids and names are AVA's. Rare events are not left to luck: every split has a deck of story cards
whose counts follow from the shares below, with a floor for rare ones, so that every class of the
label map has at least 25 validation instances at ``MINI``.

Motions are slow (periods of 0.7 s and more) and wide, so that they stay legible at four frames a
second. Labels that last show their evidence in bursts: see ``Segment.evidence``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sin

import numpy as np

from stadlib.world.figures import Pose, blend

NAMES: dict[int, str] = {
    1: "bend/bow (at the waist)", 3: "crouch/kneel", 4: "dance", 5: "fall down", 6: "get up",
    8: "lie/sleep", 9: "martial art", 10: "run/jog", 11: "sit", 12: "stand", 14: "walk",
    15: "answer phone", 17: "carry/hold (an object)", 24: "cut", 27: "drink", 29: "eat",
    41: "play musical instrument", 48: "read", 57: "text on/look at a cellphone",
    59: "touch (an object)", 62: "work on a computer", 64: "fight/hit (a person)",
    65: "give/serve (an object) to (a person)", 68: "hand shake", 69: "hand wave",
    70: "hug (a person)", 74: "listen to (a person)", 78: "take (an object) from (a person)",
    79: "talk to (e.g., self, a person, a group)", 80: "watch (a person)",
}  # fmt: skip
_POSE_OF_ACTION = {"dance": 4, "martial": 9, "bend": 1, "fall": 5, "getup": 6}
_POSE_OF_POSTURE = {"stand": 12, "sit": 11, "crouch": 3, "lie": 8, "walk": 14, "run": 10}
_OTHER = {
    "phone": 15, "hold": 17, "cut": 24, "drink": 27, "eat": 29, "instrument": 41, "read": 48,
    "text": 57, "touch": 59, "computer": 62, "fight": 64, "give": 65, "shake": 68, "wave": 69,
    "hug": 70, "take": 78, "talk": 79,
}  # fmt: skip
LISTEN, WATCH, TALK = 74, 80, 79
WATCHED = frozenset(_OTHER) - {"talk"} | {"dance", "martial", "bend"}
ATTENTIVE = frozenset({"quiet", "hold"})  # may listen or watch; both look alike
#: cards of two, three and one person (see ``story``); the order is that of the random draws
UNIT_SHARES: dict[str, dict[int, dict[str, float]]] = {
    "ava": {
        2: {"talk": 0.40, "show": 0.33, "apart": 0.14, "fight": 0.05, "quiet": 0.08},
        3: {"talk": 0.20, "show": 0.24, "side": 0.18, "split": 0.10, "crossed": 0.16,
            "behind": 0.12},
        1: {"alone": 0.42, "quiet": 0.28, "wander": 0.18, "passer": 0.12},
    },
    "kinetics": {
        2: {"talk": 0.32, "show": 0.36, "apart": 0.14, "fight": 0.10, "quiet": 0.08},
        3: {"talk": 0.20, "show": 0.30, "side": 0.16, "split": 0.08, "crossed": 0.16,
            "behind": 0.10},
        1: {"alone": 0.60, "quiet": 0.14, "wander": 0.18, "passer": 0.08},
    },
}  # fmt: skip
PERFORM_SHARES: dict[str, dict[str, float]] = {
    "ava": {
        "hold": 0.18, "read": 0.15, "phone": 0.13, "dance": 0.08, "instrument": 0.07, "eat": 0.07,
        "drink": 0.07, "computer": 0.06, "text": 0.06, "touch": 0.06, "martial": 0.05,
        "crouch": 0.05, "lie": 0.04, "cut": 0.05,
    },
    "kinetics": {
        "hold": 0.10, "read": 0.07, "phone": 0.06, "dance": 0.15, "instrument": 0.14, "eat": 0.09,
        "drink": 0.07, "computer": 0.06, "text": 0.05, "touch": 0.05, "martial": 0.12,
        "crouch": 0.05, "lie": 0.02, "cut": 0.05,
    },
}  # fmt: skip
#: events a video: (training, validation and test)
EVENT_RATES: dict[str, dict[str, tuple[float, float]]] = {
    "ava": {
        "give": (0.17, 0.30), "shake": (0.07, 0.15), "hug": (0.07, 0.15), "wave": (0.24, 0.30),
        "fall": (0.15, 0.30), "getup": (0.15, 0.25), "bend": (0.30, 0.40), "dash": (0.20, 0.30),
        "leave": (0.30, 0.30),
    },
    "kinetics": {
        "give": (0.03, 0.04), "shake": (0.02, 0.03), "hug": (0.02, 0.03), "wave": (0.03, 0.03),
        "fall": (0.02, 0.03), "getup": (0.02, 0.03), "bend": (0.03, 0.03), "dash": (0.03, 0.03),
    },
}  # fmt: skip
PAIR_EVENTS = frozenset({"give", "shake", "hug", "wave"})
#: persons in a scene (1 to 5)
PERSON_SHARES = {"ava": (0.05, 0.31, 0.32, 0.26, 0.06), "kinetics": (0.28, 0.42, 0.2, 0.1, 0.0)}
#: seconds of visible evidence and seconds without, drawn uniformly for every performance
BURSTS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "talk": ((1.5, 3.0), (2.2, 4.0)), "read": ((2.0, 3.5), (2.2, 4.0)),
    "phone": ((2.0, 3.5), (2.2, 4.0)), "text": ((2.0, 3.5), (2.0, 3.5)),
    "drink": ((1.6, 2.4), (2.0, 3.5)), "eat": ((2.0, 3.0), (2.0, 3.5)),
    "hold": ((2.5, 4.0), (2.2, 4.0)),
}  # fmt: skip


def deck(shares: dict[str, float], size: int, rng: np.random.Generator) -> list[str]:
    """``size`` shuffled cards in the proportions of ``shares`` by largest remainder."""
    exact = np.array([*shares.values()]) / sum(shares.values()) * size
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: size - counts.sum()]
    counts[rest] += 1
    cards = [name for name, count in zip(shares, counts, strict=True) for _ in range(count)]
    rng.shuffle(cards)
    return cards


LEFT, RIGHT, FRONT, BACK = -1, 1, 0, 2
RAMP = 0.35  # seconds from one pose to the next


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


def own_labels(segment: Segment) -> tuple[int, ...]:
    """Action ids that follow from a person's own segment: one pose, then what is done."""
    pose = _POSE_OF_ACTION.get(segment.action, _POSE_OF_POSTURE[segment.posture])
    other = _OTHER.get(segment.action)
    return (pose,) if other is None else (pose, other)


def facing_pose(facing: int) -> tuple[float, float]:
    """``Pose.facing`` and ``Pose.back`` of a direction; sides show a little of the front."""
    return {LEFT: (-0.9, 0.0), RIGHT: (0.9, 0.0), FRONT: (0.0, 0.0), BACK: (0.0, 1.0)}[facing]


_RESTING = {
    "sit": {
        "l_thigh": 84, "r_thigh": 92, "l_shin": 6, "r_shin": -4, "ra_upper": 16, "la_upper": 20,
        "ra_fore": 62, "la_fore": 55,
    },
    "crouch": {
        "l_thigh": 112, "l_shin": -28, "r_thigh": 62, "r_shin": -78, "lean": 22, "ra_fore": 40,
        "la_fore": 40,
    },
    "lie": {"roll": 1.0, "l_thigh": 8, "r_thigh": -2, "lean": 0, "ra_upper": 12, "ra_fore": 14},
}  # fmt: skip
#: period (seconds), swing of the limbs, bent arms, lean
_GAITS = {"walk": (1.0, 27, 0, 3), "run": (0.72, 48, 55, 14)}
_SLOW, _QUICK = 1.2, 0.8  # periods in seconds
#: fields of ``Pose`` for an activity: a value, or (value, swing, period) and perhaps a phase
_ACTIVITIES: dict[str, dict[str, float | tuple[float, ...]]] = {
    "read": {
        "ra_upper": 32, "ra_fore": (112, 4, _SLOW), "la_upper": 32, "la_fore": 108, "nod": 22,
        "spread": -0.6,
    },
    "phone": {"ra_upper": 98, "ra_fore": 212, "nod": -6, "spread": -0.5},
    "text": {"ra_upper": 24, "ra_fore": (112, 4, _QUICK), "nod": 30, "spread": -0.3},
    "hold": {"ra_upper": 26, "ra_fore": 82, "la_upper": 26, "la_fore": 80, "spread": -0.5},
    "drink": {"ra_upper": 76, "ra_fore": (190, 6, _SLOW), "nod": -12, "spread": -0.5},
    "eat": {
        "ra_upper": (48, 24, _SLOW), "ra_fore": (140, 48, _SLOW), "spread": -0.4,
        "mouth": (0.3, 0.3, _QUICK),
    },
    "instrument": {
        "la_upper": 52, "la_fore": 104, "ra_upper": 2, "ra_fore": (72, 26, _QUICK), "spread": -0.3,
    },
    "computer": {
        "ra_upper": 32, "ra_fore": (86, 7, _QUICK), "la_upper": 30, "la_fore": (86, -7, _QUICK),
        "spread": -0.3,
    },
    "cut": {
        "ra_upper": 26, "ra_fore": (74, 26, _QUICK), "la_upper": 24, "la_fore": 70, "lean": 10,
        "nod": 18, "spread": -0.3,
    },
    "touch": {"ra_upper": (86, 5, _SLOW), "ra_fore": (92, 5, _SLOW)},
    "give": {"ra_upper": 74, "ra_fore": 84, "spread": 0},
    "take": {"ra_upper": 74, "ra_fore": 84, "spread": 0},
    "shake": {"ra_upper": (66, 12, _QUICK), "ra_fore": (82, 20, _QUICK), "spread": 0},
    "wave": {"ra_upper": 152, "ra_fore": (182, 40, _QUICK), "spread": 0.8},
    "hug": {"ra_upper": 76, "ra_fore": 78, "la_upper": 70, "la_fore": 86, "lean": 9, "nod": 8},
    "bend": {
        "lean": (78, 5, _SLOW), "nod": 10, "ra_upper": 8, "ra_fore": (4, 14, _SLOW),
        "la_upper": 14, "la_fore": 8, "l_thigh": 12, "r_thigh": -8,
    },
    "talk": {
        "ra_upper": (42, 22, 1.0), "ra_fore": (108, 38, 1.0, 0.8), "la_upper": (26, 16, 1.3),
        "la_fore": (80, 30, 1.3, 2), "nod": (0, 7, 0.8), "mouth": (0.55, 0.45, 0.7), "spread": 0.5,
    },
    "dance": {
        "ra_upper": (115, 55, 1.2), "ra_fore": (140, 40, 1.2), "la_upper": (115, -55, 1.2),
        "la_fore": (140, -40, 1.2), "l_thigh": (12, 18, 1.2), "r_thigh": (12, -18, 1.2),
        "l_shin": (-14, 10, 1.2), "r_shin": (-14, -10, 1.2), "lean": (0, 9, 1.2), "spread": 0.9,
    },
}  # fmt: skip


def _wave(t: float, period: float, phase: float = 0.0) -> float:
    return sin(2 * pi * t / period + phase)


def _posture(posture: str, facing: int, phase: float, t: float) -> Pose:
    """Body and legs at ``t``, and arms that hang or swing."""
    facing, back = facing_pose(facing)
    sway = _wave(t, 3.1, phase * 5)
    pose = Pose(facing, back, lean=1.5 * sway, ra_fore=12 + 4 * sway, la_fore=12 - 3 * sway)
    if posture not in _GAITS:
        return pose._replace(**_RESTING.get(posture, {}))
    period, wide, bend, lean = _GAITS[posture]
    swing = wide * _wave(t, period, phase)
    return pose._replace(
        l_thigh=swing, l_shin=swing * 0.6 - wide * 0.5,
        r_thigh=-swing, r_shin=-swing * 0.6 - wide * 0.5,
        la_upper=-swing, la_fore=-swing + bend + 8, ra_upper=swing, ra_fore=swing + bend + 8,
        lean=lean,
    )  # fmt: skip


def _punch(pose: Pose, t: float, phase: float) -> Pose:
    swing = _wave(t, 1.1, phase)
    near, far = max(0.0, swing), max(0.0, -swing)
    kick = max(0.0, _wave(t, 3.3, phase) - 0.75) * 4
    return pose._replace(
        ra_upper=42 + 48 * near, ra_fore=138 - 48 * near,
        la_upper=42 + 48 * far, la_fore=138 - 48 * far,
        l_thigh=24 + 62 * kick, l_shin=-4 + 85 * kick, r_thigh=-22, r_shin=-26,
        lean=7 * near - 9 * kick + 4, spread=0.3,
    )  # fmt: skip


def _busy(pose: Pose, action: str, t: float, phase: float) -> Pose:
    """The posture's ``pose`` with the limbs of ``action`` at full evidence."""
    if action in ("martial", "fight"):
        return _punch(pose, t, phase)
    fields = {}
    for name, value in _ACTIVITIES.get(action, {}).items():
        if isinstance(value, tuple):
            mean, wide, period, *shift = value
            value = mean + wide * _wave(t, period, phase + sum(shift))
        fields[name] = value
    if action == "dance":
        fields["bob"] = 0.02 * abs(_wave(t, 1.2, phase))
    return pose._replace(**fields)


def body_pose(segment: Segment, t: float) -> Pose:
    """The pose of a segment at time ``t``, without the blend from the segment before."""
    pose = _posture(segment.posture, segment.facing, segment.phase, t)
    since = t - segment.start
    if segment.action == "fall":
        share = min(1.0, max(0.0, since / 0.9)) ** 2
        down = pose._replace(roll=1.0, ra_upper=120, ra_fore=130, la_upper=100, la_fore=95)
        return blend(pose._replace(lean=0), down, share)
    if segment.action == "getup":  # from the low posture over a crouch
        share = min(1.0, max(0.0, since / (0.75 * (segment.end - segment.start))))
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
    """The blended pose and the current segment of a person at time ``t``."""
    index = 0
    while index + 1 < len(segments) and segments[index].end <= t:
        index += 1
    now = segments[index]
    pose, since = body_pose(now, t), t - now.start
    if index and since < RAMP and now.action not in ("getup", "fall"):
        pose = blend(body_pose(segments[index - 1], now.start), pose, since / RAMP)
    return pose, now

"""The miniature's actors without pixels: a pose becomes joints, joints become a box.

Lengths are fractions of the standing height; angles are degrees, 0 hangs straight down, 90 points
forward (where the person faces), 180 up. Far limbs are ``l``, near limbs ``r``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin
from typing import NamedTuple

from stadlib.data.miniature.canvas import Colour, Point

HEAD, NECK, TORSO, ARM, LEG = 0.118, 0.13, 0.305, 0.165, 0.22
ARM_WIDTH, LEG_WIDTH = 0.086, 0.11


class Pose(NamedTuple):
    """Where every limb points; two poses blend field by field."""

    facing: float = 0.0  # -1 left, 1 right, 0 to or from the camera
    back: float = 0.0  # 1 = turned away from the camera
    lean: float = 0.0
    nod: float = 0.0
    la_upper: float = 5.0
    la_fore: float = 12.0
    ra_upper: float = 5.0
    ra_fore: float = 12.0
    spread: float = 0.6  # how far forearms point outwards in a frontal view
    l_thigh: float = 4.0
    l_shin: float = 0.0
    r_thigh: float = -4.0
    r_shin: float = -4.0
    roll: float = 0.0
    mouth: float = 0.0
    bob: float = 0.0


def blend(a: Pose, b: Pose, share: float) -> Pose:
    """The pose ``share`` of the way from ``a`` to ``b``."""
    return Pose._make([p + (q - p) * share for p, q in zip(a, b, strict=True)])


@dataclass(frozen=True)
class Look:
    """What a person is recognised by."""

    skin: Colour
    hair: Colour
    shirt: Colour
    second: Colour  # colour of the pattern
    legs: Colour
    shoes: Colour
    pattern: str  # plain | stripes | patch | vest
    long_hair: bool
    hat: Colour | None
    sleeves: bool
    skirt: bool
    bare_face: bool = False  # a mannequin or statue


class Joints(NamedTuple):
    """Points in frame pixels; ``height`` is the standing height in pixels."""

    height: float
    facing: float
    back: float
    mouth: float
    hip: Point
    neck: Point
    head: Point
    l_shoulder: Point
    l_elbow: Point
    l_hand: Point
    r_shoulder: Point
    r_elbow: Point
    r_hand: Point
    l_hip: Point
    l_knee: Point
    l_foot: Point
    r_hip: Point
    r_knee: Point
    r_foot: Point
    up: Point  # unit vector from hip to head


def _limb(start: Point, angle: float, length: float, forward: float, aside: float) -> Point:
    a = radians(angle)
    return start[0] + sin(a) * length * (forward + aside), start[1] + cos(a) * length


def _roll(points: list[Point], pivot: Point, angle: float) -> list[Point]:
    c, s = cos(angle), sin(angle)
    px, py = pivot
    return [(px + (x - px) * c - (y - py) * s, py + (x - px) * s + (y - py) * c) for x, y in points]


def joints(pose: Pose, x: float, ground: float, height: float) -> Joints:
    """Stand ``pose`` with its lowest foot at (``x``, ``ground``), in pixels."""
    f = pose.facing
    side = 1 - abs(f)
    leg, arm = LEG * height, ARM * height
    extent = max(
        cos(radians(pose.l_thigh)) + cos(radians(pose.l_shin)),
        cos(radians(pose.r_thigh)) + cos(radians(pose.r_shin)),
    )
    lifted = (1 - pose.roll) * (extent * leg + 0.03 * height) + pose.roll * 0.1 * height
    hip = (x, ground - lifted - pose.bob * height)
    lean = radians(pose.lean)
    neck = (hip[0] + f * sin(lean) * TORSO * height, hip[1] - cos(lean) * TORSO * height)
    tilt = radians(pose.lean * 0.8 + pose.nod)
    head = (neck[0] + f * sin(tilt) * NECK * height, neck[1] - cos(tilt) * NECK * height)
    half = (0.105 * side + 0.03 * abs(f)) * height
    hips = (0.055 * side + 0.015 * abs(f)) * height
    turn = 1.0 if f >= 0 else -1.0  # the near side is away from where the person faces
    away = side - abs(f) * turn
    drop = neck[1] + 0.035 * height
    ls, rs = (neck[0] - half * away, drop), (neck[0] + half * away, drop)
    outer, inner = 0.6 * side, pose.spread * side
    le = _limb(ls, pose.la_upper, arm, f, -outer)
    lh = _limb(le, pose.la_fore, arm, f, -inner)
    re = _limb(rs, pose.ra_upper, arm, f, outer)
    rh = _limb(re, pose.ra_fore, arm, f, inner)
    lhip, rhip = (hip[0] - hips * away, hip[1]), (hip[0] + hips * away, hip[1])
    splay = 0.3 * side
    lk = _limb(lhip, pose.l_thigh, leg, f, -splay)
    lf = _limb(lk, pose.l_shin, leg, f, -splay)
    rk = _limb(rhip, pose.r_thigh, leg, f, splay)
    rf = _limb(rk, pose.r_shin, leg, f, splay)
    points = [hip, neck, head, ls, le, lh, rs, re, rh, lhip, lk, lf, rhip, rk, rf]
    up = (0.0, -1.0)
    if pose.roll > 0.01:
        angle = radians(86 * pose.roll) * turn
        points = _roll(points, hip, angle)
        up = (sin(angle), -cos(angle))
    return Joints(height, f, pose.back, pose.mouth, *points, up)


def bounds(j: Joints, look: Look) -> tuple[float, float, float, float]:
    """Tight box (x1, y1, x2, y2) of the drawn figure in pixels, objects left out, unclipped."""
    h = j.height
    arm, leg = ARM_WIDTH * h / 2, LEG_WIDTH * h / 2
    head = HEAD * h * (1.16 if look.hat else 1.06)
    parts = [(p, arm) for p in (j.l_elbow, j.l_hand, j.r_elbow, j.r_hand)]
    parts += [(p, leg) for p in (j.l_knee, j.r_knee, j.hip)]
    parts += [(p, 0.06 * h) for p in (j.l_foot, j.r_foot)]
    parts += [(j.head, head), (j.neck, 0.09 * h), (j.l_shoulder, arm), (j.r_shoulder, arm)]
    if look.hat:
        crown = (j.head[0] + j.up[0] * HEAD * 0.75 * h, j.head[1] + j.up[1] * HEAD * 0.75 * h)
        parts.append((crown, HEAD * 0.62 * h))
    xs1, ys1 = [p[0] - r for p, r in parts], [p[1] - r for p, r in parts]
    xs2, ys2 = [p[0] + r for p, r in parts], [p[1] + r for p, r in parts]
    return min(xs1), min(ys1), max(xs2), max(ys2)

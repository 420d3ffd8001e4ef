"""Drawing primitives in frame pixels on a supersampled canvas, with sub-pixel positions.

Random clothes, hair and skin: what tells one person from another.

The miniature's actors without pixels: a pose becomes joints, joints become a box.

Lengths are fractions of the standing height; angles are degrees, 0 hangs straight down, 90 points
forward (where the person faces), 180 up. Far limbs are ``l``, near limbs ``r``.

The miniature's actors in pixels: joints and a look become a drawn person.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from math import cos, radians, sin
from typing import NamedTuple

import cv2
import numpy as np

Colour = tuple[int, int, int]
Point = tuple[float, float]
SUPERSAMPLE = 2
_SHIFT = 3
_FIXED = SUPERSAMPLE << _SHIFT


def line(canvas: np.ndarray, a: Point, b: Point, colour: Colour, width: float) -> None:
    """A thick line with round ends, in frame pixels on the supersampled canvas."""
    p = (int(a[0] * _FIXED), int(a[1] * _FIXED))
    q = (int(b[0] * _FIXED), int(b[1] * _FIXED))
    cv2.line(canvas, p, q, colour, max(1, round(width * SUPERSAMPLE)), cv2.LINE_8, _SHIFT)


def disc(canvas: np.ndarray, centre: Point, radius: float, colour: Colour) -> None:
    """A filled circle, in frame pixels on the supersampled canvas."""
    p = (int(centre[0] * _FIXED), int(centre[1] * _FIXED))
    cv2.circle(canvas, p, max(1, int(radius * _FIXED)), colour, -1, cv2.LINE_8, _SHIFT)


def polygon(canvas: np.ndarray, points: list[Point], colour: Colour) -> None:
    """A filled convex polygon, in frame pixels on the supersampled canvas."""
    array = np.array([(int(x * _FIXED), int(y * _FIXED)) for x, y in points], np.int32)
    cv2.fillConvexPoly(canvas, array, colour, cv2.LINE_8, _SHIFT)


def shade(colour: Colour, by: float) -> Colour:
    """``colour`` made darker (``by`` < 1) or lighter."""
    return tuple(min(255, int(c * by)) for c in colour)  # type: ignore[return-value]


_SKIN = ((255, 219, 190), (236, 188, 150), (198, 140, 98), (150, 98, 62), (104, 66, 44))
_HAIR = ((30, 22, 18), (74, 44, 24), (140, 92, 46), (222, 188, 112), (168, 60, 30), (170, 170, 172))
_PATTERNS = ("plain", "stripes", "patch", "vest")


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return int(255 * r), int(255 * g), int(255 * b)


def random_looks(count: int, rng: np.random.Generator) -> list[Look]:
    """``count`` looks that can be told apart: the shirts' hues are spread over the circle."""
    hue = float(rng.random())
    looks = []
    for k in range(count):
        shirt = hue + 0.382 * k + float(rng.uniform(-0.05, 0.05))
        grey = rng.random() < 0.15
        looks.append(
            Look(
                skin=_SKIN[int(rng.integers(len(_SKIN)))],
                hair=_HAIR[int(rng.integers(len(_HAIR)))],
                shirt=_hsv(shirt, 0.08 if grey else float(rng.uniform(0.55, 0.95)),
                           float(rng.uniform(0.45, 0.98))),
                second=_hsv(shirt + float(rng.uniform(0.3, 0.7)), 0.7, float(rng.uniform(0.3, 1))),
                legs=_hsv(float(rng.random()), float(rng.uniform(0.1, 0.6)),
                          float(rng.uniform(0.15, 0.7))),
                shoes=_hsv(float(rng.random()), 0.3, float(rng.uniform(0.05, 0.5))),
                pattern=str(rng.choice(_PATTERNS)),
                long_hair=bool(rng.random() < 0.35),
                hat=_hsv(float(rng.random()), 0.8, 0.85) if rng.random() < 0.25 else None,
                sleeves=bool(rng.random() < 0.55),
                skirt=bool(rng.random() < 0.2),
            )
        )  # fmt: skip
    return looks


def statue_look(rng: np.random.Generator) -> Look:
    """One stone or plaster colour all over: a person-like thing that is none."""
    level = int(rng.integers(120, 215))
    stone = (level, int(level * 0.97), int(level * float(rng.uniform(0.8, 0.95))))
    dark = tuple(int(c * 0.8) for c in stone)
    return Look(stone, dark, stone, dark, dark, dark, "plain", False, None, True, False, True)  # type: ignore[arg-type]


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


def _along(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def draw_arm(canvas: np.ndarray, j: Joints, look: Look, near: bool) -> None:
    """One arm: sleeve, forearm and hand."""
    points = (j.r_shoulder, j.r_elbow, j.r_hand) if near else (j.l_shoulder, j.l_elbow, j.l_hand)
    shoulder, elbow, hand = points
    dim = 1.0 if near else 0.8
    width = ARM_WIDTH * j.height
    sleeve = shade(look.second if look.pattern == "vest" else look.shirt, dim * 0.9)
    line(canvas, shoulder, elbow, sleeve, width)
    line(canvas, elbow, hand, sleeve if look.sleeves else shade(look.skin, dim), width * 0.9)
    disc(canvas, hand, width * 0.5, shade(look.skin, dim))


def _draw_leg(canvas: np.ndarray, j: Joints, look: Look, near: bool) -> None:
    hip, knee, foot = (j.r_hip, j.r_knee, j.r_foot) if near else (j.l_hip, j.l_knee, j.l_foot)
    colour = shade(look.legs, 1.0 if near else 0.75)
    width = LEG_WIDTH * j.height
    line(canvas, hip, knee, colour, width)
    line(canvas, knee, foot, shade(look.skin, 0.9) if look.skirt else colour, width * 0.8)
    toe = (foot[0] + j.facing * 0.055 * j.height * -j.up[1], foot[1] + 0.01 * j.height)
    line(canvas, foot, toe, look.shoes, width * 0.62)


def _draw_torso(canvas: np.ndarray, j: Joints, look: Look) -> None:
    h, side = j.height, 1 - abs(j.facing)
    ux, uy = j.up
    top, low = (0.125 * side + 0.095 * abs(j.facing)) * h, (0.09 * side + 0.075 * abs(j.facing)) * h
    rx, ry = -uy, ux  # across the body
    neck, hip = j.neck, j.hip
    corners = [
        (neck[0] - rx * top, neck[1] - ry * top),
        (neck[0] + rx * top, neck[1] + ry * top),
        (hip[0] + rx * low, hip[1] + ry * low),
        (hip[0] - rx * low, hip[1] - ry * low),
    ]
    polygon(canvas, corners, look.shirt)
    if look.skirt:
        knee = _along(j.l_knee, j.r_knee, 0.5)
        flare = _along(hip, knee, 0.8)
        points = [corners[3], corners[2], (flare[0] + 0.12 * h, flare[1])]
        polygon(canvas, [*points, (flare[0] - 0.12 * h, flare[1])], look.legs)
    if look.pattern == "stripes":
        for share in (0.25, 0.6, 0.92):
            a, b = _along(corners[0], corners[3], share), _along(corners[1], corners[2], share)
            line(canvas, a, b, look.second, 0.035 * h)
    elif look.pattern == "patch":
        disc(canvas, _along(neck, hip, 0.42), 0.055 * h, look.second)


def _draw_head(canvas: np.ndarray, j: Joints, look: Look) -> None:
    h, f = j.height, j.facing
    r = HEAD * h
    (x, y), (ux, uy) = j.head, j.up
    fx, fy = -uy * f, ux * f  # towards the face
    line(canvas, j.neck, j.head, look.skin, 0.07 * h)
    if look.long_hair:
        tail = (x - ux * r * 1.1 - fx * r * 0.5, y - uy * r * 1.1 - fy * r * 0.5)
        line(canvas, (x - fx * r * 0.45, y - fy * r * 0.45), tail, look.hair, r * 1.15)
    disc(canvas, (x + ux * r * 0.08 - fx * r * 0.1, y + uy * r * 0.08 - fy * r * 0.1), r, look.hair)
    if j.back < 0.5:
        face = (x - ux * r * 0.14 + fx * r * 0.27, y - uy * r * 0.14 + fy * r * 0.27)
        disc(canvas, face, r * 0.8, look.skin)
        if not look.bare_face:
            _draw_face(canvas, j, look, face, (fx, fy))
    if look.hat:
        brim = (x + ux * r * 0.45, y + uy * r * 0.45)
        span = (-uy * r, ux * r)
        crown = (x + ux * r * 0.75, y + uy * r * 0.75)
        disc(canvas, crown, r * 0.62, look.hat)
        b = (brim[0] + span[0] * (0.75 + 0.35 * f), brim[1] + span[1] * (0.75 + 0.35 * f))
        a = (brim[0] - span[0] * (0.75 - 0.35 * f), brim[1] - span[1] * (0.75 - 0.35 * f))
        line(canvas, a, b, shade(look.hat, 0.8), r * 0.3)


def _draw_face(canvas: np.ndarray, j: Joints, look: Look, face: Point, toward: Point) -> None:
    r, side = HEAD * j.height, 1 - abs(j.facing)
    (ux, uy), (fx, fy) = j.up, toward
    if side < 0.6:
        nose = (face[0] + fx * r * 0.85, face[1] + fy * r * 0.85)
        disc(canvas, nose, r * 0.24, shade(look.skin, 0.88))
    for s in (-1, 1):
        along = s * 0.35 * side
        if side < 0.3 and s < 0:
            continue
        ex = face[0] + ux * r * 0.22 + fx * r * 0.45 - uy * along * r
        ey = face[1] + uy * r * 0.22 + fy * r * 0.45 + ux * along * r
        disc(canvas, (ex, ey), r * 0.14, (25, 20, 20))
    mouth = (face[0] - ux * r * 0.38 + fx * r * 0.5, face[1] - uy * r * 0.38 + fy * r * 0.5)
    if j.mouth > 0.15:
        disc(canvas, mouth, r * (0.2 + 0.24 * j.mouth), (120, 0, 16))


def draw_body(canvas: np.ndarray, j: Joints, look: Look) -> None:
    """Everything except the near arm, which may lie over a held object."""
    draw_arm(canvas, j, look, near=False)
    _draw_leg(canvas, j, look, near=False)
    _draw_leg(canvas, j, look, near=True)
    _draw_torso(canvas, j, look)
    _draw_head(canvas, j, look)

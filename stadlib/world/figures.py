"""A drawn person: clothes, pose, joints, box and pixels.

Lengths are fractions of the standing height. Angles are degrees: 0 hangs straight down, 90 points
forward (where the person faces), 180 up. Far limbs are ``l``, near limbs ``r``.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from math import cos, radians, sin
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

Colour = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels
SUPERSAMPLE = 2
_SHIFT = 3  # binary digits behind the point in OpenCV's coordinates
_FIXED = SUPERSAMPLE << _SHIFT


def _fixed(point: Point) -> tuple[int, int]:
    return int(point[0] * _FIXED), int(point[1] * _FIXED)


def line(canvas: np.ndarray, a: Point, b: Point, colour: Colour, width: float) -> None:
    """Draw a thick line with round ends, in frame pixels on a supersampled canvas (uint8 RGB)."""
    thickness = max(1, round(width * SUPERSAMPLE))
    cv2.line(canvas, _fixed(a), _fixed(b), colour, thickness, cv2.LINE_8, _SHIFT)


def disc(canvas: np.ndarray, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a filled circle."""
    radius = max(1, int(radius * _FIXED))
    cv2.circle(canvas, _fixed(centre), radius, colour, -1, cv2.LINE_8, _SHIFT)


def polygon(canvas: np.ndarray, points: list[Point], colour: Colour) -> None:
    """Draw a filled convex polygon."""
    corners = np.array([_fixed(point) for point in points], np.int32)
    cv2.fillConvexPoly(canvas, corners, colour, cv2.LINE_8, _SHIFT)


def shade(colour: Colour, by: float) -> Colour:
    """``colour`` made darker (``by`` < 1) or lighter."""
    return tuple(min(255, int(c * by)) for c in colour)  # type: ignore[return-value]


@dataclass(frozen=True)
class Look:
    """Clothes, hair and skin: what tells one person from another."""

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


_SKIN = ((255, 219, 190), (236, 188, 150), (198, 140, 98), (150, 98, 62), (104, 66, 44))
_HAIR = ((30, 22, 18), (74, 44, 24), (140, 92, 46), (222, 188, 112), (168, 60, 30), (170, 170, 172))
_PATTERNS = ("plain", "stripes", "patch", "vest")


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, value))  # type: ignore[return-value]


def random_looks(count: int, rng: Generator) -> list[Look]:
    """Draw ``count`` looks that differ: the shirts' hues are spread over the circle."""
    first, u = rng.random(), rng.uniform
    looks = []
    for k in range(count):
        hue = first + 0.382 * k + u(-0.05, 0.05)
        grey = rng.random() < 0.15
        skin, hair = (colours[int(rng.integers(len(colours)))] for colours in (_SKIN, _HAIR))
        shirt = _hsv(hue, 0.08 if grey else u(0.55, 0.95), u(0.45, 0.98))
        second = _hsv(hue + u(0.3, 0.7), 0.7, u(0.3, 1))
        legs = _hsv(rng.random(), u(0.1, 0.6), u(0.15, 0.7))
        shoes = _hsv(rng.random(), 0.3, u(0.05, 0.5))
        pattern, long_hair = str(rng.choice(_PATTERNS)), rng.random() < 0.35
        hat = _hsv(rng.random(), 0.8, 0.85) if rng.random() < 0.25 else None
        clothes = (shirt, second, legs, shoes, pattern, long_hair, hat)
        looks.append(Look(skin, hair, *clothes, rng.random() < 0.55, rng.random() < 0.2))
    return looks


def statue_look(rng: Generator) -> Look:
    """One stone or plaster colour all over: a thing in the shape of a person."""
    level = int(rng.integers(120, 215))
    stone = (level, int(level * 0.97), int(level * rng.uniform(0.8, 0.95)))
    dark = shade(stone, 0.8)
    return Look(stone, dark, stone, dark, dark, dark, "plain", False, None, True, False, True)


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


Limb = tuple[Point, Point, Point]


class Joints(NamedTuple):
    """Points in frame pixels; limbs are (far, near)."""

    height: float  # standing, in pixels
    facing: float
    back: float
    mouth: float
    hip: Point
    neck: Point
    head: Point
    arms: list[Limb]  # shoulder, elbow, hand
    legs: list[Limb]  # hip, knee, foot
    up: Point  # unit vector from hip to head


def joints(pose: Pose, x: float, ground: float, height: float) -> Joints:
    """Stand ``pose`` with its lowest foot at (``x``, ``ground``), in pixels."""
    f = pose.facing
    side = 1 - abs(f)  # how much of the front or back is seen
    turn = 1.0 if f >= 0 else -1.0  # the near side is away from where the person faces
    away = side - abs(f) * turn
    leg, arm = LEG * height, ARM * height

    def limb(start: Point, angle: float, length: float, aside: float) -> Point:
        a = radians(angle)
        return start[0] + sin(a) * length * (f + aside), start[1] + cos(a) * length

    # the lower foot touches the ground; who lies rests on it with the hip
    angles = ((pose.l_thigh, pose.l_shin), (pose.r_thigh, pose.r_shin))
    extent = max(cos(radians(thigh)) + cos(radians(shin)) for thigh, shin in angles)
    lifted = (1 - pose.roll) * (extent * leg + 0.03 * height) + pose.roll * 0.1 * height
    hip = (x, ground - lifted - pose.bob * height)
    lean, tilt = radians(pose.lean), radians(pose.lean * 0.8 + pose.nod)
    neck = (hip[0] + f * sin(lean) * TORSO * height, hip[1] - cos(lean) * TORSO * height)
    head = (neck[0] + f * sin(tilt) * NECK * height, neck[1] - cos(tilt) * NECK * height)
    # shoulders and hips are wide from the front, narrow from the side
    half = (0.105 * side + 0.03 * abs(f)) * height
    hips = (0.055 * side + 0.015 * abs(f)) * height
    drop = neck[1] + 0.035 * height
    points = [hip, neck, head]
    for sign, upper, fore in ((-1, pose.la_upper, pose.la_fore), (1, pose.ra_upper, pose.ra_fore)):
        shoulder = (neck[0] + sign * half * away, drop)
        elbow = limb(shoulder, upper, arm, sign * (0.6 * side))
        points += [shoulder, elbow, limb(elbow, fore, arm, sign * (pose.spread * side))]
    for sign, (thigh, shin) in zip((-1, 1), angles, strict=True):
        joint = (hip[0] + sign * hips * away, hip[1])
        knee = limb(joint, thigh, leg, sign * (0.3 * side))
        points += [joint, knee, limb(knee, shin, leg, sign * (0.3 * side))]
    up = (0.0, -1.0)
    if pose.roll > 0.01:  # turn everything about the hip
        angle = radians(86 * pose.roll) * turn
        c, s = cos(angle), sin(angle)
        px, py = hip
        offsets = [(x - px, y - py) for x, y in points]
        points = [(px + dx * c - dy * s, py + dx * s + dy * c) for dx, dy in offsets]
        up = (s, -c)
    hip, neck, head, *ends = points
    limbs = [tuple(ends[k : k + 3]) for k in range(0, 12, 3)]  # far arm, near arm, legs likewise
    return Joints(height, f, pose.back, pose.mouth, hip, neck, head, limbs[:2], limbs[2:], up)


def bounds(j: Joints, look: Look, size: tuple[int, int] | None = None) -> Box:
    """Tight box of the drawn figure in pixels, objects left out, unclipped.

    With the ``size`` of a frame it is that of the parts inside: legs below the picture widen none.
    """
    h = j.height
    arm, leg = ARM_WIDTH * h / 2, LEG_WIDTH * h / 2
    parts = [(j.head, HEAD * h * (1.16 if look.hat else 1.06)), (j.neck, 0.09 * h), (j.hip, leg)]
    parts += [(_between(j.neck, j.hip, share), 0.09 * h) for share in (0.33, 0.67)]
    for ends, radius in [*((limb, arm) for limb in j.arms), *((limb, leg) for limb in j.legs)]:
        foot = 0.06 * h if radius == leg else arm
        for a, b, last in ((*ends[:2], radius), (*ends[1:], foot)):
            parts += [(_between(a, b, share), radius) for share in (0.25, 0.5, 0.75)]
            parts.append((b, last))
    parts += [(limb[0], arm) for limb in j.arms]
    if look.hat:
        crown = (j.head[0] + j.up[0] * HEAD * 0.75 * h, j.head[1] + j.up[1] * HEAD * 0.75 * h)
        parts.append((crown, HEAD * 0.62 * h))
    if size:
        inside = [(p, r) for p, r in parts if all(-r < p[axis] < size[axis] + r for axis in (0, 1))]
        parts = inside or parts
    low = [min(p[axis] - r for p, r in parts) for axis in (0, 1)]
    high = [max(p[axis] + r for p, r in parts) for axis in (0, 1)]
    return (*low, *high)


def draw_arm(canvas: np.ndarray, j: Joints, look: Look, near: bool) -> None:
    """Draw one arm: sleeve, forearm and hand."""
    shoulder, elbow, hand = j.arms[near]
    dim, width = 1.0 if near else 0.8, ARM_WIDTH * j.height
    sleeve = shade(look.second if look.pattern == "vest" else look.shirt, dim * 0.9)
    skin = shade(look.skin, dim)
    line(canvas, shoulder, elbow, sleeve, width)
    line(canvas, elbow, hand, sleeve if look.sleeves else skin, width * 0.9)
    disc(canvas, hand, width * 0.5, skin)


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def draw_body(canvas: np.ndarray, j: Joints, look: Look) -> None:
    """Draw everything except the near arm, which may lie over a held object."""
    draw_arm(canvas, j, look, near=False)
    h, front, side = j.height, 1 - abs(j.facing), abs(j.facing)
    for (hip, knee, foot), dim in zip(j.legs, (0.75, 1.0), strict=True):
        colour, width = shade(look.legs, dim), LEG_WIDTH * h
        line(canvas, hip, knee, colour, width)
        line(canvas, knee, foot, shade(look.skin, 0.9) if look.skirt else colour, width * 0.8)
        toe = (foot[0] + j.facing * 0.055 * h * -j.up[1], foot[1] + 0.01 * h)
        line(canvas, foot, toe, look.shoes, width * 0.62)
    # the torso, from the left shoulder clockwise
    top, low = (0.125 * front + 0.095 * side) * h, (0.09 * front + 0.075 * side) * h
    across = ((j.neck, -top), (j.neck, top), (j.hip, low), (j.hip, -low))
    corners = [(x - j.up[1] * by, y + j.up[0] * by) for (x, y), by in across]
    polygon(canvas, corners, look.shirt)
    if look.skirt:
        x, y = _between(j.hip, _between(j.legs[0][1], j.legs[1][1], 0.5), 0.8)
        hem = [(x + 0.12 * h, y), (x - 0.12 * h, y)]
        polygon(canvas, [corners[3], corners[2], *hem], look.legs)
    if look.pattern == "stripes":
        for share in (0.25, 0.6, 0.92):
            a, b = (_between(corners[k], corners[3 - k], share) for k in (0, 1))
            line(canvas, a, b, look.second, 0.035 * h)
    elif look.pattern == "patch":
        disc(canvas, _between(j.neck, j.hip, 0.42), 0.055 * h, look.second)
    _draw_head(canvas, j, look)


def _draw_head(canvas: np.ndarray, j: Joints, look: Look) -> None:
    f, r = j.facing, HEAD * j.height
    (ux, uy), side = j.up, 1 - abs(f)
    fx, fy = -uy * f, ux * f  # towards the face

    def beside(point: Point, up: float, forward: float) -> Point:
        """The point so many radii up and towards the face from ``point``."""
        x, y = point
        return x + ux * r * up + fx * r * forward, y + uy * r * up + fy * r * forward

    line(canvas, j.neck, j.head, look.skin, 0.07 * j.height)
    if look.long_hair:
        line(canvas, beside(j.head, 0, -0.45), beside(j.head, -1.1, -0.5), look.hair, r * 1.15)
    disc(canvas, beside(j.head, 0.08, -0.1), r, look.hair)
    if j.back < 0.5:
        face = beside(j.head, -0.14, 0.27)
        disc(canvas, face, r * 0.8, look.skin)
        if not look.bare_face:
            if side < 0.6:
                disc(canvas, beside(face, 0, 0.85), r * 0.24, shade(look.skin, 0.88))  # nose
            for s in (-1, 1) if side >= 0.3 else (1,):
                along = s * 0.35 * side
                x, y = beside(face, 0.22, 0.45)
                disc(canvas, (x - uy * along * r, y + ux * along * r), r * 0.14, (25, 20, 20))
            if j.mouth > 0.15:
                radius = r * (0.2 + 0.24 * j.mouth)
                disc(canvas, beside(face, -0.38, 0.5), radius, (120, 0, 16))
    if look.hat:
        disc(canvas, beside(j.head, 0.75, 0), r * 0.62, look.hat)
        x, y = beside(j.head, 0.45, 0)  # the brim is longer over the face
        front, rear = 0.75 + 0.35 * f, 0.75 - 0.35 * f
        ends = (x + uy * r * rear, y - ux * r * rear), (x - uy * r * front, y + ux * r * front)
        line(canvas, *ends, shade(look.hat, 0.8), r * 0.3)

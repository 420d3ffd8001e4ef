"""The miniature's actors in pixels: joints and a look become a drawn person."""

from __future__ import annotations

import numpy as np

from stadlib.data.miniature.canvas import Point, disc, line, polygon, shade
from stadlib.data.miniature.figures import ARM_WIDTH, HEAD, LEG_WIDTH, Joints, Look


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

"""Things in hands and things that stand about, drawn large and in colours of their own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stadlib.world.figures import Colour, Joints, Point, disc, line, polygon

ITEMS = ("box", "bag", "ball", "flowers", "tray")


def _rectangle(canvas: np.ndarray, centre: Point, w: float, h: float, colour: Colour) -> None:
    x, y = centre
    corners = [(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)]
    polygon(canvas, corners, colour)


def _middle(j: Joints) -> Point:
    return (j.l_hand[0] + j.r_hand[0]) / 2, (j.l_hand[1] + j.r_hand[1]) / 2


def draw_item(canvas: np.ndarray, kind: str, at: Point, h: float) -> None:
    """A thing to carry or hand over, centred at ``at``; ``h`` is the bearer's height."""
    x, y = at
    if kind == "box":
        _rectangle(canvas, at, 0.13 * h, 0.1 * h, (196, 148, 84))
        line(canvas, (x - 0.12 * h, y), (x + 0.12 * h, y), (240, 226, 180), 0.035 * h)
    elif kind == "bag":
        line(canvas, (x, y - 0.02 * h), (x, y + 0.08 * h), (60, 60, 60), 0.03 * h)
        _rectangle(canvas, (x, y + 0.13 * h), 0.11 * h, 0.09 * h, (214, 44, 130))
    elif kind == "ball":
        disc(canvas, at, 0.105 * h, (255, 130, 0))
        line(canvas, (x - 0.08 * h, y), (x + 0.08 * h, y), (60, 30, 0), 0.02 * h)
    elif kind == "flowers":
        line(canvas, (x, y + 0.08 * h), (x, y - 0.08 * h), (40, 160, 40), 0.05 * h)
        for dx, dy in ((-0.07, -0.1), (0.07, -0.1), (0, -0.16)):
            disc(canvas, (x + dx * h, y + dy * h), 0.055 * h, (255, 80, 190))
    else:
        line(canvas, (x - 0.16 * h, y), (x + 0.16 * h, y), (200, 205, 215), 0.04 * h)
        disc(canvas, (x - 0.06 * h, y - 0.06 * h), 0.05 * h, (230, 60, 50))
        disc(canvas, (x + 0.07 * h, y - 0.06 * h), 0.05 * h, (250, 220, 60))


def _book(canvas: np.ndarray, j: Joints) -> None:
    h = j.height
    x, y = _middle(j)
    y -= 0.05 * h
    for s in (-1, 1):
        upper, lower = (x + s * 0.13 * h, y - 0.13 * h), (x + s * 0.13 * h, y + 0.07 * h)
        leaf = [(x, y - 0.1 * h), upper, lower, (x, y + 0.1 * h)]
        polygon(canvas, leaf, (250, 250, 240))
        line(canvas, upper, lower, (30, 80, 220), 0.035 * h)
    line(canvas, (x, y - 0.1 * h), (x, y + 0.1 * h), (30, 80, 220), 0.04 * h)


def _guitar(canvas: np.ndarray, j: Joints) -> None:
    h = j.height
    hip, hand = j.r_hip, j.l_hand
    body = (hip[0] + 0.03 * h * j.facing, hip[1] - 0.1 * h)
    line(canvas, body, hand, (90, 50, 20), 0.05 * h)
    end = (hand[0] + (hand[0] - body[0]) * 0.3, hand[1] + (hand[1] - body[1]) * 0.3)
    line(canvas, hand, end, (60, 30, 10), 0.075 * h)
    disc(canvas, body, 0.135 * h, (226, 120, 30))
    between = (body[0] + (hand[0] - body[0]) * 0.35, body[1] + (hand[1] - body[1]) * 0.35)
    disc(canvas, between, 0.095 * h, (226, 120, 30))
    disc(canvas, body, 0.045 * h, (50, 20, 10))


def draw_held(canvas: np.ndarray, action: str, item: str, j: Joints) -> None:
    """The object of ``action`` at the hands of ``j``; nothing for actions without one."""
    h, hand = j.height, j.r_hand
    if action == "read":
        _book(canvas, j)
    elif action == "phone":
        head = j.head
        at = (hand[0] * 0.6 + head[0] * 0.4, hand[1] * 0.6 + head[1] * 0.4)
        line(canvas, (at[0], at[1] - 0.05 * h), (at[0], at[1] + 0.07 * h), (10, 10, 10), 0.065 * h)
    elif action == "text":
        at = (hand[0], hand[1] - 0.05 * h)
        _rectangle(canvas, at, 0.055 * h, 0.09 * h, (15, 15, 15))
        _rectangle(canvas, at, 0.036 * h, 0.066 * h, (110, 240, 255))
    elif action == "drink":
        _rectangle(canvas, (hand[0], hand[1] - 0.02 * h), 0.05 * h, 0.075 * h, (225, 30, 40))
        _rectangle(canvas, (hand[0], hand[1] - 0.08 * h), 0.05 * h, 0.02 * h, (255, 255, 255))
    elif action == "eat":
        disc(canvas, hand, 0.075 * h, (110, 200, 40))
        line(canvas, hand, (hand[0], hand[1] - 0.09 * h), (110, 70, 20), 0.025 * h)
    elif action == "instrument":
        _guitar(canvas, j)
    elif action == "cut":
        tip = (hand[0] + 0.14 * h * (j.facing or 0.6), hand[1] + 0.05 * h)
        line(canvas, hand, tip, (235, 240, 250), 0.045 * h)
    elif action in ("hold", "give", "take") and item:
        at = hand if action != "hold" or item == "bag" else _middle(j)
        draw_item(canvas, item, at, h)


class Spot(NamedTuple):
    """Where furniture stands: its owner's feet, standing height (pixels) and direction."""

    x: float
    ground: float
    height: float
    side: float


def draw_prop(canvas: np.ndarray, kind: str, spot: Spot) -> None:
    """Furniture that belongs to a person at ``spot``."""
    x, ground, h, side = spot
    if kind == "chair":
        seat, back = ground - 0.215 * h, -side * 0.13 * h
        wood = (122, 84, 52)
        line(canvas, (x - 0.12 * h, seat), (x + 0.12 * h, seat), wood, 0.06 * h)
        for s in (-0.12, 0.12):
            line(canvas, (x + s * h, seat), (x + s * h, ground), wood, 0.04 * h)
        line(canvas, (x + back, seat), (x + back * 1.15, seat - 0.3 * h), wood, 0.06 * h)
    elif kind in ("desk", "worktop"):
        top = ground - (0.32 if kind == "desk" else 0.42) * h
        at = x + side * 0.36 * h
        line(canvas, (at - 0.2 * h, top), (at + 0.2 * h, top), (168, 128, 88), 0.06 * h)
        for s in (-0.17, 0.17):
            line(canvas, (at + s * h, top), (at + s * h, ground), (120, 90, 60), 0.04 * h)
    elif kind == "mat":
        line(canvas, (x - 0.5 * h, ground), (x + 0.55 * h, ground), (86, 110, 150), 0.1 * h)
    elif kind == "shelf":
        at, top = x + side * 0.46 * h, ground - 0.95 * h
        _rectangle(canvas, (at, (top + ground) / 2), 0.1 * h, (ground - top) / 2, (104, 70, 48))
        for share in (0.25, 0.5, 0.75):
            y = top + (ground - top) * share
            line(canvas, (at - 0.08 * h, y), (at + 0.08 * h, y), (200, 170, 130), 0.04 * h)


def draw_on_table(canvas: np.ndarray, action: str, spot: Spot) -> None:
    """What lies on the table while it is used: a laptop, or a board with vegetables."""
    x, ground, h, side = spot
    at = x + side * 0.36 * h
    if action == "computer":
        top = ground - 0.35 * h
        line(canvas, (at - 0.1 * h, top), (at + 0.1 * h, top), (170, 175, 185), 0.04 * h)
        tip = (at + side * 0.15 * h, top - 0.2 * h)
        line(canvas, (at + side * 0.1 * h, top), tip, (120, 125, 140), 0.06 * h)
        low, high = (
            (at + side * 0.09 * h, top - 0.03 * h),
            (tip[0] - side * 0.03 * h, tip[1] + 0.02 * h),
        )
        line(canvas, low, high, (90, 190, 255), 0.035 * h)
    elif action == "cut":
        top = ground - 0.46 * h
        line(canvas, (at - 0.13 * h, top), (at + 0.13 * h, top), (240, 230, 200), 0.05 * h)
        disc(canvas, (at + 0.06 * h, top - 0.05 * h), 0.055 * h, (230, 50, 30))
        disc(canvas, (at - 0.06 * h, top - 0.04 * h), 0.045 * h, (60, 180, 50))

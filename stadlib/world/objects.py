"""Things in hands and furniture, drawn large and in colours of their own.

``objects.csv`` holds the strokes of every thing in painter's order: a disc of radius ``size``
about one point, a line of width ``size`` through two, or a polygon of four. Points are x (right)
and y (down) from where a person holds the thing or stands, in standing heights. Furniture stands
``ahead`` of its person; strokes with ``turns`` are mirrored as the person turns.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from stadlib.world.figures import Colour, Joints, Point, disc, line, polygon

ITEMS = ("box", "bag", "ball", "flowers", "tray")  # things to carry or hand over
TABLES = ("desk", "worktop")
ON_TABLE = {"computer": "laptop", "cut": "board"}  # what lies there in use, by action


Stroke = tuple[float, bool, Colour, float, list[Point]]  # as the columns of the table


def _read_strokes() -> dict[str, list[Stroke]]:
    strokes: dict[str, list[Stroke]] = {}
    with open(Path(__file__).with_suffix(".csv"), newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            colour = tuple(map(int, row["colour"].split()))
            numbers = [float(number) for number in row["points"].split()]
            points = list(zip(numbers[::2], numbers[1::2], strict=True))
            ahead, turns, size = float(row["ahead"]), row["turns"] == "1", float(row["size"])
            strokes.setdefault(row["thing"], []).append((ahead, turns, colour, size, points))
    return strokes


_STROKES = _read_strokes()


def draw_thing(canvas: np.ndarray, thing: str, at: Point, height: float, side: float = 1) -> None:
    """Draw a thing at a hand, or at the feet of a person who is turned to ``side``.

    ``at`` and ``height`` (the person's, standing) are in pixels.
    """
    for ahead, turns, colour, size, points in _STROKES[thing]:
        x, y = at[0] + side * ahead * height, at[1]
        mirror = side if turns else 1
        seen = [(x + mirror * dx * height, y + dy * height) for dx, dy in points]
        if len(seen) == 1:
            disc(canvas, *seen, size * height, colour)
        elif len(seen) == 2:
            line(canvas, *seen, colour, size * height)
        else:
            polygon(canvas, seen, colour)


def draw_held(canvas: np.ndarray, action: str, item: str, j: Joints) -> None:
    """Draw the object of ``action`` at the hands of ``j``; nothing for actions without one."""
    h, head, far, hand = j.height, j.head, j.arms[0][2], j.arms[1][2]
    middle = ((far[0] + hand[0]) / 2, (far[1] + hand[1]) / 2)
    if action == "instrument":
        _draw_guitar(canvas, j)
    elif action in ("hold", "give", "take") and item:
        both = action == "hold" and item != "bag"
        draw_thing(canvas, item, middle if both else hand, h)
    elif action == "read":
        draw_thing(canvas, action, (middle[0], middle[1] - 0.05 * h), h)
    elif action == "phone":
        draw_thing(
            canvas, action, (hand[0] * 0.6 + head[0] * 0.4, hand[1] * 0.6 + head[1] * 0.4), h
        )
    elif action == "text":
        draw_thing(canvas, action, (hand[0], hand[1] - 0.05 * h), h)
    elif action in ("drink", "eat", "cut"):
        draw_thing(canvas, action, hand, h, side=j.facing or 0.6)


def _draw_guitar(canvas: np.ndarray, j: Joints) -> None:
    h, hip, hand = j.height, j.legs[1][0], j.arms[0][2]
    body = (hip[0] + 0.03 * h * j.facing, hip[1] - 0.1 * h)
    dx, dy = hand[0] - body[0], hand[1] - body[1]
    line(canvas, body, hand, (90, 50, 20), 0.05 * h)
    line(canvas, hand, (hand[0] + dx * 0.3, hand[1] + dy * 0.3), (60, 30, 10), 0.075 * h)
    disc(canvas, body, 0.135 * h, (226, 120, 30))
    disc(canvas, (body[0] + dx * 0.35, body[1] + dy * 0.35), 0.095 * h, (226, 120, 30))
    disc(canvas, body, 0.045 * h, (50, 20, 10))

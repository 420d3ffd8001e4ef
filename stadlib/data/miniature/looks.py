"""Random clothes, hair and skin: what tells one person from another."""

from __future__ import annotations

import colorsys

import numpy as np

from stadlib.data.miniature.canvas import Colour
from stadlib.data.miniature.figures import Look

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

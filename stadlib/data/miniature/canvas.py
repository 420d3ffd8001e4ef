"""Drawing primitives in frame pixels on a supersampled canvas, with sub-pixel positions."""

from __future__ import annotations

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

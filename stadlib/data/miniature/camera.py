"""Camera and light: what differs most between the AVA-like and the Kinetics-like source."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sin

import numpy as np


@dataclass(frozen=True)
class Camera:
    """Slow pan, zoom and shake, and the light."""

    pan: float = 0.0  # pixels
    zoom: float = 0.0  # share
    shake: float = 0.0  # pixels
    period: float = 7.0  # seconds
    phase: float = 0.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)  # red, green, blue
    lift: float = 0.0  # grey levels
    cut: float = 1e9  # second at which the light changes
    cut_gain: float = 1.0

    @property
    def moves(self) -> bool:
        """Whether any frame differs from the resting view."""
        return bool(self.pan or self.zoom or self.shake)

    def view(self, t: float) -> tuple[float, float, float]:
        """(zoom, dx, dy): a point p is seen at (p - centre) * zoom + centre + (dx, dy)."""
        slow = sin(2 * pi * t / self.period + self.phase)
        other = sin(2 * pi * t / (self.period * 1.37) + self.phase * 2)
        shake = sin(2 * pi * t / 0.83 + self.phase) + sin(2 * pi * t / 0.57 + self.phase * 3)
        bump = sin(2 * pi * t / 0.71 + self.phase * 4) + sin(2 * pi * t / 1.13)
        dx = self.pan * slow + self.shake * shake
        return 1 + self.zoom * other, dx, self.pan * 0.25 * other + self.shake * bump

    def light(self, t: float) -> tuple[float, float, float]:
        """Gains of red, green and blue at ``t``."""
        k = self.cut_gain if t >= self.cut else 1.0
        return self.gain[0] * k, self.gain[1] * k, self.gain[2] * k


def random_camera(source: str, seconds: int, rng: np.random.Generator) -> Camera:
    """Still or slowly panning in dim light (AVA-like); hand-held in bright light (Kinetics)."""
    period, phase = float(rng.uniform(5, 10)), float(rng.uniform(0, 6))
    if source == "ava":
        level = float(rng.uniform(0.72, 0.95))
        gain = (
            level,
            level * float(rng.uniform(0.95, 1.0)),
            level * float(rng.uniform(0.92, 1.08)),
        )
        return Camera(
            pan=float(rng.uniform(1.5, 4)) if rng.random() < 0.3 else 0.0,
            period=period * 2, phase=phase, gain=gain,
            cut=seconds * float(rng.uniform(0.2, 1.0)) if rng.random() < 0.3 else 1e9,
            cut_gain=float(rng.choice([0.8, 1.15])),
        )  # fmt: skip
    level = float(rng.uniform(0.92, 1.1))
    gain = (level * 1.07, level, level * float(rng.uniform(0.78, 0.95)))
    return Camera(
        pan=float(rng.uniform(1.5, 5)), zoom=float(rng.uniform(0.02, 0.08)),
        shake=float(rng.uniform(0.3, 0.9)), period=period, phase=phase, gain=gain,
        lift=float(rng.uniform(6, 20)),
    )  # fmt: skip

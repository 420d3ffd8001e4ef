"""Camera and light: what differs most between the AVA-like and the Kinetics-like source.

Backgrounds: rooms and streets with furniture, clutter and things that look like persons.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sin

import cv2
import numpy as np

from stadlib.world.actions import facing_pose
from stadlib.world.figures import (
    SUPERSAMPLE,
    Colour,
    Look,
    Point,
    Pose,
    disc,
    draw_arm,
    draw_body,
    joints,
    line,
    polygon,
    random_looks,
    shade,
    statue_look,
)


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


MARGIN = 12  # pixels painted beyond the frame, for a moving camera


def _colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    return tuple(int(v) for v in rng.integers(low, high, 3))  # type: ignore[return-value]


def _colour_between(rng: np.random.Generator, low: Colour, high: Colour) -> Colour:
    return tuple(int(v) for v in rng.integers(low, high))  # type: ignore[return-value]


def _pale(colour: Colour) -> Colour:
    """Walls and floors are less colourful than clothes."""
    grey = sum(colour) / 3
    return tuple(int(0.55 * c + 0.45 * grey) for c in colour)  # type: ignore[return-value]


def _box(canvas: np.ndarray, corners: tuple[float, float, float, float], colour: Colour) -> None:
    x1, y1, x2, y2 = corners
    polygon(canvas, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)], colour)


def _statue(
    canvas: np.ndarray, at: Point, height: float, look: Look, rng: np.random.Generator
) -> None:
    facing, back = facing_pose(int(rng.choice([-1, 0, 1])))
    pose = Pose(facing=facing, back=back, ra_upper=float(rng.uniform(0, 100)),
                ra_fore=float(rng.uniform(20, 170)), l_thigh=12, r_thigh=-10)  # fmt: skip
    j = joints(pose, at[0], at[1], height)
    draw_body(canvas, j, look)
    draw_arm(canvas, j, look, near=True)


def _coat_stand(
    canvas: np.ndarray, x: float, ground: float, h: float, rng: np.random.Generator
) -> None:
    coat = _colour(rng, 40, 170)
    line(canvas, (x, ground), (x, ground - h), (70, 48, 30), 2)
    line(canvas, (x - 4, ground), (x + 4, ground), (70, 48, 30), 2)
    top, low = ground - h * 0.8, ground - h * 0.25
    polygon(canvas, [(x - 5, top), (x + 5, top), (x + 7, low), (x - 7, low)], coat)
    disc(canvas, (x, ground - h), 4, _colour(rng, 40, 200))


def _window(canvas: np.ndarray, x: float, y: float, rng: np.random.Generator) -> None:
    w, h = float(rng.uniform(9, 16)), float(rng.uniform(10, 18))
    _box(canvas, (x - w - 1.5, y - h - 1.5, x + w + 1.5, y + h + 1.5), (225, 222, 215))
    _box(canvas, (x - w, y - h, x + w, y + h), (150, 195, 225))
    line(canvas, (x, y - h), (x, y + h), (225, 222, 215), 1.5)


def _picture(canvas: np.ndarray, x: float, y: float, rng: np.random.Generator) -> None:
    w, h = float(rng.uniform(6, 10)), float(rng.uniform(8, 14))
    _box(canvas, (x - w - 1, y - h - 1, x + w + 1, y + h + 1), (90, 66, 40))
    _box(canvas, (x - w, y - h, x + w, y + h), _colour(rng, 120, 235))
    if rng.random() < 0.6:  # a portrait
        _statue(canvas, (x, y + h - 1), h * 1.7, random_looks(1, rng)[0], rng)


def _bookcase(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    w, h = float(rng.uniform(9, 14)), float(rng.uniform(26, 44))
    _box(canvas, (x - w, ground - h, x + w, ground), (98, 70, 46))
    for row in range(3):
        y = ground - h + 3 + row * h / 3
        for k in range(int(w)):
            if rng.random() < 0.8:
                left = x - w + 1.5 + k * 2
                if left + 1.5 < x + w:
                    _box(canvas, (left, y + float(rng.uniform(0, 2)), left + 1.5, y + h / 3 - 4),
                         _colour(rng, 30, 220))  # fmt: skip


def _sofa(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    colour, w = _colour(rng, 60, 170), float(rng.uniform(14, 22))
    _box(canvas, (x - w, ground - 16, x + w, ground - 4), shade(colour, 0.85))
    _box(canvas, (x - w - 3, ground - 11, x + w + 3, ground), colour)


def _plant(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    _box(canvas, (x - 3, ground - 6, x + 3, ground), (150, 80, 50))
    for _ in range(5):
        tip = (x + float(rng.uniform(-7, 7)), ground - float(rng.uniform(12, 24)))
        line(canvas, (x, ground - 5), tip, (40, int(rng.integers(90, 160)), 50), 2)


def _tree(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    h = float(rng.uniform(28, 50))
    line(canvas, (x, ground), (x, ground - h), (92, 64, 42), 4)
    for _ in range(6):
        at = (x + float(rng.uniform(-9, 9)), ground - h + float(rng.uniform(-9, 7)))
        disc(canvas, at, float(rng.uniform(5, 9)), (30, int(rng.integers(85, 150)), 40))


def _house(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    w, h, colour = float(rng.uniform(14, 26)), float(rng.uniform(24, 46)), _colour(rng, 110, 210)
    _box(canvas, (x - w, ground - h, x + w, ground), colour)
    polygon(canvas, [(x - w - 2, ground - h), (x, ground - h - 9), (x + w + 2, ground - h)],
            shade(colour, 0.6))  # fmt: skip
    for dx in (-0.6, 0.0, 0.6):
        for y in np.arange(ground - h + 4, ground - 8, 11):
            _box(canvas, (x + dx * w - 3, y, x + dx * w + 3, y + 6), (84, 108, 134))


def _lamp(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    h = float(rng.uniform(40, 58))
    line(canvas, (x, ground), (x, ground - h), (60, 60, 66), 2)
    disc(canvas, (x, ground - h), 3.5, (250, 240, 180))


def _texture(canvas: np.ndarray, rng: np.random.Generator) -> None:
    h, w = canvas.shape[:2]
    coarse = rng.normal(0, 7, (h // 16 + 2, w // 16 + 2)).astype(np.float32)
    fine = rng.normal(0, 4, (h // 3, w // 3)).astype(np.float32)
    field = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR)
    field += cv2.resize(fine, (w, h), interpolation=cv2.INTER_LINEAR)
    canvas[:] = np.clip(canvas + field[..., None], 0, 255)


def background(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A painted scene, uint8 (H, W, 3), ``MARGIN`` pixels larger a side, supersampled."""
    full_w, full_h = width + 2 * MARGIN, height + 2 * MARGIN
    canvas = np.empty((full_h * SUPERSAMPLE, full_w * SUPERSAMPLE, 3), np.uint8)
    indoor = rng.random() < 0.6
    floor = MARGIN + height * float(rng.uniform(0.58, 0.72))
    if indoor:
        top, low = _pale(_colour(rng, 120, 225)), _pale(_colour(rng, 70, 160))
    else:
        top, low = (140, 180, 225), _colour_between(rng, (70, 95, 60), (140, 150, 120))
    rows = np.linspace(1.06, 0.9, canvas.shape[0])[:, None, None]
    canvas[:] = np.clip(np.array(top) * rows, 0, 255)
    _box(canvas, (0, floor, full_w, full_h), low)
    far = (_window, _picture, _picture) if indoor else (_house, _tree, _house)
    near = (_bookcase, _sofa, _plant, _coat_stand) if indoor else (_tree, _lamp, _plant)
    for _ in range(int(rng.integers(2, 5))):
        thing, x = far[int(rng.integers(len(far)))], float(rng.uniform(0, full_w))
        thing(canvas, x, floor - (float(rng.uniform(16, 30)) if indoor else 0), rng)
    for _ in range(int(rng.integers(2, 5))):
        thing, x = near[int(rng.integers(len(near)))], float(rng.uniform(0, full_w))
        ground = floor + float(rng.uniform(1, 7))
        if thing is _coat_stand:
            _coat_stand(canvas, x, ground, float(rng.uniform(28, 40)), rng)
        else:
            thing(canvas, x, ground, rng)
    if rng.random() < 0.45:
        x, ground = float(rng.uniform(MARGIN, full_w - MARGIN)), floor + float(rng.uniform(0, 4))
        _box(canvas, (x - 6, ground - 4, x + 6, ground + 3), (120, 118, 112))
        _statue(canvas, (x, ground - 4), float(rng.uniform(30, 42)), statue_look(rng), rng)
    _texture(canvas, rng)
    return canvas

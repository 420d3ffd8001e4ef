"""Camera and light, and backgrounds: rooms and streets with clutter and things like persons."""

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

MARGIN = 12  # pixels painted beyond the frame, for a moving camera
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """Slow pan, zoom and shake, and the light: what differs most between the two sources."""

    pan: float = 0.0  # pixels
    zoom: float = 0.0  # share
    shake: float = 0.0  # pixels
    period: float = 7.0  # seconds
    phase: float = 0.0
    gain: Triple = (1.0, 1.0, 1.0)  # red, green, blue
    lift: float = 0.0  # grey levels
    cut: float = 1e9  # second at which the light changes
    cut_gain: float = 1.0

    @property
    def moves(self) -> bool:
        """Whether any frame differs from the resting view."""
        return bool(self.pan or self.zoom or self.shake)

    def view(self, t: float) -> Triple:
        """(zoom, dx, dy): a point p is seen at (p - centre) * zoom + centre + (dx, dy)."""
        slow = sin(2 * pi * t / self.period + self.phase)
        other = sin(2 * pi * t / (self.period * 1.37) + self.phase * 2)
        shake = sin(2 * pi * t / 0.83 + self.phase) + sin(2 * pi * t / 0.57 + self.phase * 3)
        bump = sin(2 * pi * t / 0.71 + self.phase * 4) + sin(2 * pi * t / 1.13)
        dx = self.pan * slow + self.shake * shake
        return 1 + self.zoom * other, dx, self.pan * 0.25 * other + self.shake * bump

    def project(self, x: float, y: float, size: tuple[int, int], t: float) -> Triple:
        """Where a point is seen at ``t`` in a frame of ``size``, and the zoom."""
        zoom, dx, dy = self.view(t)
        cx, cy = size[0] / 2, size[1] / 2
        return (x - cx) * zoom + cx + dx, (y - cy) * zoom + cy + dy, zoom

    def light(self, t: float) -> Triple:
        """Gains of red, green and blue at ``t``."""
        k = self.cut_gain if t >= self.cut else 1.0
        return self.gain[0] * k, self.gain[1] * k, self.gain[2] * k


def random_camera(source: str, seconds: int, rng: np.random.Generator) -> Camera:
    """Still or slowly panning in dim light (AVA-like); hand-held in bright light (Kinetics)."""
    u = rng.uniform
    period, phase = u(5, 10), u(0, 6)
    if source == "ava":
        level = u(0.72, 0.95)
        return Camera(
            gain=(level, level * u(0.95, 1.0), level * u(0.92, 1.08)),
            pan=u(1.5, 4) if rng.random() < 0.3 else 0.0,
            period=period * 2,
            phase=phase,
            cut=seconds * u(0.2, 1.0) if rng.random() < 0.3 else 1e9,
            cut_gain=float(rng.choice([0.8, 1.15])),
        )
    level = u(0.92, 1.1)
    gain = (level * 1.07, level, level * u(0.78, 0.95))
    return Camera(u(1.5, 5), u(0.02, 0.08), u(0.3, 0.9), period, phase, gain, lift=u(6, 20))


def _colour(rng: np.random.Generator, low: int | Colour, high: int | Colour) -> Colour:
    return tuple(int(v) for v in rng.integers(low, high, 3))  # type: ignore[return-value]


def _pale(colour: Colour) -> Colour:
    """Walls and floors are less colourful than clothes."""
    grey = sum(colour) / 3
    return tuple(int(0.55 * c + 0.45 * grey) for c in colour)  # type: ignore[return-value]


def _box(canvas: np.ndarray, corners: tuple[float, float, float, float], colour: Colour) -> None:
    x1, y1, x2, y2 = corners
    polygon(canvas, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)], colour)


def _statue(canvas: np.ndarray, at: Point, height: float, look: Look, rng) -> None:
    facing, back = facing_pose(int(rng.choice([-1, 0, 1])))
    upper, fore = rng.uniform(0, 100), rng.uniform(20, 170)
    pose = Pose(facing, back, ra_upper=upper, ra_fore=fore, l_thigh=12, r_thigh=-10)
    j = joints(pose, *at, height)
    draw_body(canvas, j, look)
    draw_arm(canvas, j, look, near=True)


# Things are drawn by (canvas, x, ground or middle, rng). Each draws its own size and colours.


def _window(canvas: np.ndarray, x: float, y: float, rng: np.random.Generator) -> None:
    w, h, frame = rng.uniform(9, 16), rng.uniform(10, 18), (225, 222, 215)
    _box(canvas, (x - w - 1.5, y - h - 1.5, x + w + 1.5, y + h + 1.5), frame)
    _box(canvas, (x - w, y - h, x + w, y + h), (150, 195, 225))
    line(canvas, (x, y - h), (x, y + h), frame, 1.5)


def _picture(canvas: np.ndarray, x: float, y: float, rng: np.random.Generator) -> None:
    w, h = rng.uniform(6, 10), rng.uniform(8, 14)
    _box(canvas, (x - w - 1, y - h - 1, x + w + 1, y + h + 1), (90, 66, 40))
    _box(canvas, (x - w, y - h, x + w, y + h), _colour(rng, 120, 235))
    if rng.random() < 0.6:  # a portrait
        _statue(canvas, (x, y + h - 1), h * 1.7, random_looks(1, rng)[0], rng)


def _bookcase(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    w, h = rng.uniform(9, 14), rng.uniform(26, 44)
    _box(canvas, (x - w, ground - h, x + w, ground), (98, 70, 46))
    for row in range(3):
        y = ground - h + 3 + row * h / 3
        for k in range(int(w)):
            left = x - w + 1.5 + k * 2
            if rng.random() < 0.8 and left + 1.5 < x + w:
                top = y + rng.uniform(0, 2)
                _box(canvas, (left, top, left + 1.5, y + h / 3 - 4), _colour(rng, 30, 220))


def _sofa(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    colour, w = _colour(rng, 60, 170), rng.uniform(14, 22)
    _box(canvas, (x - w, ground - 16, x + w, ground - 4), shade(colour, 0.85))
    _box(canvas, (x - w - 3, ground - 11, x + w + 3, ground), colour)


def _plant(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    _box(canvas, (x - 3, ground - 6, x + 3, ground), (150, 80, 50))
    for _ in range(5):
        tip = (x + rng.uniform(-7, 7), ground - rng.uniform(12, 24))
        line(canvas, (x, ground - 5), tip, (40, int(rng.integers(90, 160)), 50), 2)


def _coat_stand(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    h, coat, wood = rng.uniform(28, 40), _colour(rng, 40, 170), (70, 48, 30)
    line(canvas, (x, ground), (x, ground - h), wood, 2)
    line(canvas, (x - 4, ground), (x + 4, ground), wood, 2)
    top, low = ground - h * 0.8, ground - h * 0.25
    polygon(canvas, [(x - 5, top), (x + 5, top), (x + 7, low), (x - 7, low)], coat)
    disc(canvas, (x, ground - h), 4, _colour(rng, 40, 200))


def _house(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    w, h, colour = rng.uniform(14, 26), rng.uniform(24, 46), _colour(rng, 110, 210)
    eaves = ground - h
    _box(canvas, (x - w, eaves, x + w, ground), colour)
    polygon(canvas, [(x - w - 2, eaves), (x, eaves - 9), (x + w + 2, eaves)], shade(colour, 0.6))
    for dx in (-0.6, 0.0, 0.6):
        for y in np.arange(eaves + 4, ground - 8, 11):
            _box(canvas, (x + dx * w - 3, y, x + dx * w + 3, y + 6), (84, 108, 134))


def _tree(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    h = rng.uniform(28, 50)
    line(canvas, (x, ground), (x, ground - h), (92, 64, 42), 4)
    for _ in range(6):
        at = (x + rng.uniform(-9, 9), ground - h + rng.uniform(-9, 7))
        disc(canvas, at, rng.uniform(5, 9), (30, int(rng.integers(85, 150)), 40))


def _lamp(canvas: np.ndarray, x: float, ground: float, rng: np.random.Generator) -> None:
    h = rng.uniform(40, 58)
    line(canvas, (x, ground), (x, ground - h), (60, 60, 66), 2)
    disc(canvas, (x, ground - h), 3.5, (250, 240, 180))


def background(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A painted scene, uint8 (H, W, 3), ``MARGIN`` pixels larger a side, supersampled."""
    u = rng.uniform
    w, h = width + 2 * MARGIN, height + 2 * MARGIN
    canvas = np.empty((h * SUPERSAMPLE, w * SUPERSAMPLE, 3), np.uint8)
    # wall or sky, and the floor
    indoor = rng.random() < 0.6
    floor = MARGIN + height * u(0.58, 0.72)
    if indoor:
        top, low = _pale(_colour(rng, 120, 225)), _pale(_colour(rng, 70, 160))
    else:
        top, low = (140, 180, 225), _colour(rng, (70, 95, 60), (140, 150, 120))
    rows = np.linspace(1.06, 0.9, canvas.shape[0])[:, None, None]
    canvas[:] = np.clip(np.array(top) * rows, 0, 255)
    _box(canvas, (0, floor, w, h), low)
    # two to four things at the wall or far away, two to four on the floor
    far = (_window, _picture, _picture) if indoor else (_house, _tree, _house)
    near = (_bookcase, _sofa, _plant, _coat_stand) if indoor else (_tree, _lamp, _plant)
    for _ in range(int(rng.integers(2, 5))):
        thing, x = far[int(rng.integers(len(far)))], u(0, w)
        thing(canvas, x, floor - (u(16, 30) if indoor else 0), rng)
    for _ in range(int(rng.integers(2, 5))):
        thing, x = near[int(rng.integers(len(near)))], u(0, w)
        thing(canvas, x, floor + u(1, 7), rng)
    if rng.random() < 0.45:  # a statue on its plinth
        x, ground = u(MARGIN, w - MARGIN), floor + u(0, 4)
        _box(canvas, (x - 6, ground - 4, x + 6, ground + 3), (120, 118, 112))
        _statue(canvas, (x, ground - 4), u(30, 42), statue_look(rng), rng)
    # texture of coarse and fine noise
    rows, columns = canvas.shape[:2]
    coarse = rng.normal(0, 7, (rows // 16 + 2, columns // 16 + 2))
    fine = rng.normal(0, 4, (rows // 3, columns // 3))
    noise = sum(cv2.resize(n.astype(np.float32), (columns, rows)) for n in (coarse, fine))
    return np.clip(canvas + noise[..., None], 0, 255).astype(np.uint8)

"""What is not a person: camera and light, backgrounds with clutter, furniture, things in hands."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sin

import numpy as np
from numpy.random import Generator
from PIL import Image

from stadlib.world import WORLD, figures
from stadlib.world.actions import FACING
from stadlib.world.figures import SUPERSAMPLE, Colour, Joints, Look, Point, disc, line, polygon

MARGIN = 12  # pixels painted beyond the frame, for a moving camera
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Shot:
    """What a camera shows until the next shot."""

    start: float = 0.0  # seconds
    zoom: float = 1.0
    x: float = 0.0  # pixels of the scene from its middle to the middle of the picture
    y: float = 0.0
    mirrored: bool = False  # seen from the other side: left and right change places


@dataclass(frozen=True)
class Camera:
    """Shots, slow pan, zoom and shake, and the light: what differs most between the sources."""

    shots: tuple[Shot, ...] = (Shot(),)
    pan: float = 0.0  # pixels
    zoom: float = 0.0  # share
    shake: float = 0.0  # pixels
    period: float = 7.0  # seconds
    phase: float = 0.0
    gain: Triple = (1.0, 1.0, 1.0)  # red, green, blue
    lift: float = 0.0  # grey levels
    cut: float = 1e9  # second at which the light changes
    cut_gain: float = 1.0

    def shot(self, t: float) -> Shot:
        """The shot at ``t``."""
        return next((s for s in reversed(self.shots) if s.start <= t), self.shots[0])

    def view(self, t: float) -> Triple:
        """(zoom, dx, dy): a point p is seen at (p - centre) * zoom + centre + (dx, dy)."""
        shot = self.shot(t)
        slow = sin(2 * pi * t / self.period + self.phase)
        other = sin(2 * pi * t / (self.period * 1.37) + self.phase * 2)
        shake = sin(2 * pi * t / 0.83 + self.phase) + sin(2 * pi * t / 0.57 + self.phase * 3)
        bump = sin(2 * pi * t / 0.71 + self.phase * 4) + sin(2 * pi * t / 1.13)
        dx = self.pan * slow + self.shake * shake
        dy = self.pan * 0.25 * other + self.shake * bump
        zoom = (1 + self.zoom * other) * shot.zoom
        return zoom, dx - shot.x * shot.zoom, dy - shot.y * shot.zoom

    def project(self, x: float, y: float, size: tuple[int, int], t: float) -> Triple:
        """Where a point is seen at ``t`` in a frame of ``size``, and the zoom."""
        zoom, dx, dy = self.view(t)
        cx, cy = size[0] / 2, size[1] / 2
        return (x - cx) * zoom + cx + dx, (y - cy) * zoom + cy + dy, zoom


def random_camera(
    source: str, seconds: int, rng: Generator, shots: tuple[Shot, ...] = (Shot(),)
) -> Camera:
    """Still or slowly panning in dim light (AVA-like); hand-held in bright light (Kinetics)."""
    u = rng.uniform
    period, phase = u(5, 10), u(0, 6)
    if source == "ava":
        level = u(0.72, 0.95)
        gain = (level, level * u(0.95, 1.0), level * u(0.92, 1.08))
        pan = u(1.5, 4) if rng.random() < 0.3 else 0.0
        cut = seconds * u(0.2, 1.0) if rng.random() < 0.3 else 1e9
        light = {"gain": gain, "cut": cut, "cut_gain": float(rng.choice([0.8, 1.15]))}
        return Camera(shots, pan=pan, period=period * 2, phase=phase, **light)
    level = u(0.92, 1.1)
    gain = (level * 1.07, level, level * u(0.78, 0.95))
    moves = u(1.5, 5), u(0.02, 0.08), u(0.3, 0.9)
    return Camera(shots, *moves, period, phase, gain, lift=u(6, 20))


def random_shots(
    seconds: int, people: list[Point], size: tuple[int, int], rng: Generator
) -> tuple[Shot, ...]:
    """Cuts every few seconds between the whole scene, a part of it, and one of ``people``.

    ``people`` are the places of heads, in pixels.
    """
    u, shots, t = rng.uniform, [], 0.0
    while t < seconds:
        kind = rng.random()
        zoom = 1.0 if kind < 0.4 else u(1.25, 1.6) if kind < 0.7 else u(1.7, 2.6)
        head = people[int(rng.integers(len(people)))]
        aims = (head[0] + u(-6, 6), head[1] + u(2, 12))
        # no further than to the edge of what is painted
        room = [length / 2 * (1 - 1 / zoom) + MARGIN / 2 for length in size]
        middles = zip(aims, size, room, strict=True)
        x, y = (min(most, max(-most, a - length / 2)) for a, length, most in middles)
        whole = zoom == 1.0
        shots.append(Shot(t, zoom, 0.0 if whole else x, 0.0 if whole else y, rng.random() < 0.4))
        t += u(2, 6)
    return tuple(shots)


def draw_thing(canvas: np.ndarray, thing: str, at: Point, height: float, side: float = 1) -> None:
    """Draw a thing at a hand, or at the feet of a person who is turned to ``side``.

    ``at`` and ``height`` (the person's, standing) are in pixels.
    """
    for ahead, turns, colour, size, *points in WORLD["things"][thing]:
        x, mirror = at[0] + side * ahead * height, side if turns else 1
        seen = [(x + mirror * dx * height, at[1] + dy * height) for dx, dy in points]
        if len(seen) == 1:
            disc(canvas, *seen, size * height, colour)
        elif len(seen) == 2:
            line(canvas, *seen, colour, size * height)
        else:
            polygon(canvas, seen, colour)


def draw_held(canvas: np.ndarray, action: str, item: str, j: Joints) -> None:
    """Draw the object of ``action`` at the hands of ``j``; nothing for actions without one."""
    h, head, far, hand = j.height, j.head, j.arms[0][2], j.arms[1][2]
    if action == "instrument":  # a guitar
        x, y = j.legs[1][0][0] + 0.03 * h * j.facing, j.legs[1][0][1] - 0.1 * h
        dx, dy = far[0] - x, far[1] - y
        line(canvas, (x, y), far, (90, 50, 20), 0.05 * h)
        line(canvas, far, (far[0] + dx * 0.3, far[1] + dy * 0.3), (60, 30, 10), 0.075 * h)
        disc(canvas, (x, y), 0.135 * h, (226, 120, 30))
        disc(canvas, (x + dx * 0.35, y + dy * 0.35), 0.095 * h, (226, 120, 30))
        disc(canvas, (x, y), 0.045 * h, (50, 20, 10))
    x, y = (far[0] + hand[0]) / 2, (far[1] + hand[1]) / 2
    places = {
        "hold": hand if item == "bag" else (x, y),
        "read": (x, y - 0.05 * h),
        "text": (hand[0], hand[1] - 0.05 * h),
        "phone": (hand[0] * 0.6 + head[0] * 0.4, hand[1] * 0.6 + head[1] * 0.4),
    }
    thing = item if action in ("hold", "give", "take") else action
    if thing in WORLD["things"]:
        draw_thing(canvas, thing, places.get(action, hand), h, side=j.facing or 0.6)


def _colour(rng: Generator, low: int | Colour, high: int | Colour) -> Colour:
    return tuple(int(v) for v in rng.integers(low, high, 3))  # type: ignore[return-value]


def _box(canvas: np.ndarray, corners: tuple[float, ...], colour: Colour) -> None:
    x1, y1, x2, y2 = corners
    polygon(canvas, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)], colour)


def _statue(canvas: np.ndarray, at: Point, height: float, look: Look, rng) -> None:
    facing = FACING[int(rng.choice([-1, 0, 1]))]
    upper, fore = rng.uniform(0, 100), rng.uniform(20, 170)
    pose = figures.Pose(*facing, ra_upper=upper, ra_fore=fore, l_thigh=12, r_thigh=-10)
    j = figures.joints(pose, *at, height)
    figures.draw_body(canvas, j, look)
    figures.draw_arm(canvas, j, look, near=True)


def _draw_indoors(canvas: np.ndarray, thing: str, x: float, y: float, rng) -> None:
    """Draw a thing of a room; ``y`` is its middle on the wall, or its ground."""
    u = rng.uniform
    if thing == "window":
        w, h, frame = u(9, 16), u(10, 18), (225, 222, 215)
        _box(canvas, (x - w - 1.5, y - h - 1.5, x + w + 1.5, y + h + 1.5), frame)
        _box(canvas, (x - w, y - h, x + w, y + h), (150, 195, 225))
        line(canvas, (x, y - h), (x, y + h), frame, 1.5)
    elif thing == "picture":
        w, h = u(6, 10), u(8, 14)
        _box(canvas, (x - w - 1, y - h - 1, x + w + 1, y + h + 1), (90, 66, 40))
        _box(canvas, (x - w, y - h, x + w, y + h), _colour(rng, 120, 235))
        if rng.random() < 0.6:  # a portrait
            _statue(canvas, (x, y + h - 1), h * 1.7, figures.random_looks(1, rng)[0], rng)
    elif thing == "bookcase":
        w, h = u(9, 14), u(26, 44)
        _box(canvas, (x - w, y - h, x + w, y), (98, 70, 46))
        for row in range(3):
            shelf = y - h + 3 + row * h / 3
            for left in (x - w + 1.5 + k * 2 for k in range(int(w))):
                if rng.random() < 0.8 and left + 1.5 < x + w:
                    top = shelf + u(0, 2)
                    _box(canvas, (left, top, left + 1.5, shelf + h / 3 - 4), _colour(rng, 30, 220))
    elif thing == "sofa":
        colour, w = _colour(rng, 60, 170), u(14, 22)
        _box(canvas, (x - w, y - 16, x + w, y - 4), figures.shade(colour, 0.85))
        _box(canvas, (x - w - 3, y - 11, x + w + 3, y), colour)
    elif thing == "coat stand":
        h, coat, wood = u(28, 40), _colour(rng, 40, 170), (70, 48, 30)
        line(canvas, (x, y), (x, y - h), wood, 2)
        line(canvas, (x - 4, y), (x + 4, y), wood, 2)
        top, low = y - h * 0.8, y - h * 0.25
        polygon(canvas, [(x - 5, top), (x + 5, top), (x + 7, low), (x - 7, low)], coat)
        disc(canvas, (x, y - h), 4, _colour(rng, 40, 200))
    else:
        _draw_outdoors(canvas, thing, x, y, rng)


def _draw_outdoors(canvas: np.ndarray, thing: str, x: float, y: float, rng) -> None:
    """Draw a plant, or a thing of a street, that stands on ``y``."""
    u = rng.uniform
    if thing == "plant":
        _box(canvas, (x - 3, y - 6, x + 3, y), (150, 80, 50))
        for _ in range(5):
            tip = (x + u(-7, 7), y - u(12, 24))
            line(canvas, (x, y - 5), tip, (40, int(rng.integers(90, 160)), 50), 2)
    elif thing == "house":
        w, h, colour = u(14, 26), u(24, 46), _colour(rng, 110, 210)
        eaves, roof = y - h, figures.shade(colour, 0.6)
        _box(canvas, (x - w, eaves, x + w, y), colour)
        polygon(canvas, [(x - w - 2, eaves), (x, eaves - 9), (x + w + 2, eaves)], roof)
        for middle in (x + dx * w for dx in (-0.6, 0.0, 0.6)):
            for top in np.arange(eaves + 4, y - 8, 11):
                _box(canvas, (middle - 3, top, middle + 3, top + 6), (84, 108, 134))
    elif thing == "tree":
        h = u(28, 50)
        line(canvas, (x, y), (x, y - h), (92, 64, 42), 4)
        for _ in range(6):
            at = (x + u(-9, 9), y - h + u(-9, 7))
            disc(canvas, at, u(5, 9), (30, int(rng.integers(85, 150)), 40))
    else:  # a lamp
        h = u(40, 58)
        line(canvas, (x, y), (x, y - h), (60, 60, 66), 2)
        disc(canvas, (x, y - h), 3.5, (250, 240, 180))


def background(width: int, height: int, setting: str, rng: Generator) -> Image.Image:
    """A painted scene, ``MARGIN`` pixels larger a side, supersampled."""
    u, place = rng.uniform, WORLD["settings"][setting]
    w, h = width + 2 * MARGIN, height + 2 * MARGIN
    canvas = np.empty((h * SUPERSAMPLE, w * SUPERSAMPLE, 3), np.uint8)
    # wall or sky, and the floor
    floor = MARGIN + height * u(0.58, 0.72)
    colours = np.array([_colour(rng, *place[part]) for part in ("wall", "floor")])
    # walls and floors are less colourful than clothes
    top, low = (0.55 * colours + 0.45 * (colours.sum(axis=1, keepdims=True) / 3)).astype(int)
    rows = np.linspace(1.06, 0.9, canvas.shape[0])[:, None, None]
    canvas[:] = np.clip(top * rows, 0, 255)
    _box(canvas, (0, floor, w, h), tuple(low.tolist()))
    # two to four things at the wall or far away, two to four on the floor
    for part in ("far", "near"):
        things = place[part]
        for _ in range(int(rng.integers(2, 5))):
            thing, x = things[int(rng.integers(len(things)))], u(0, w)
            below = u(1, 7) if part == "near" else -u(16, 30) if place["indoors"] else 0
            _draw_indoors(canvas, thing, x, floor + below, rng)
    if rng.random() < 0.45:  # a statue on its plinth
        x, ground = u(MARGIN, w - MARGIN), floor + u(0, 4)
        _box(canvas, (x - 6, ground - 4, x + 6, ground + 3), (120, 118, 112))
        _statue(canvas, (x, ground - 4), u(30, 42), figures.statue_look(rng), rng)
    # texture of coarse and fine noise, in whole numbers: the same bytes on every processor
    rows, columns = canvas.shape[:2]
    texture = np.zeros((rows, columns), np.int16)
    for most, cell in ((12, 16), (7, 3)):
        noise = rng.integers(128 - most, 128 + most, (rows // cell + 2, columns // cell + 2))
        image = Image.fromarray(noise.astype(np.uint8))
        texture += np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))
    texture -= 2 * 128
    return Image.fromarray(np.clip(canvas + texture[..., None], 0, 255).astype(np.uint8))

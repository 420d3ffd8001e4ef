"""Pixels of one script: background, props and persons in painter's order, camera and light."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from stadlib.world.actions import pose_at
from stadlib.world.annotate import joints_at
from stadlib.world.figures import SUPERSAMPLE, draw_arm, draw_body
from stadlib.world.objects import Spot, draw_held, draw_on_table, draw_prop
from stadlib.world.scenery import MARGIN, background
from stadlib.world.script import SIZE, Person, Script, generator

_TABLES = {"computer": "desk", "cut": "worktop"}


class Stage:
    """Draws the frames of one script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.size = SIZE[script.source]
        self.backdrop = background(*self.size, generator(*script.seed, 7))
        self.persons = sorted(script.persons, key=lambda p: (p.ground, p.number))

    def _resting(self, t: float) -> np.ndarray:
        """The background as the camera sees it at ``t``, supersampled."""
        (w, h), s, m = self.size, SUPERSAMPLE, MARGIN
        if not self.script.camera.moves:
            return self.backdrop[m * s : (m + h) * s, m * s : (m + w) * s].copy()
        zoom, dx, dy = self.script.camera.view(t)
        cx, cy = (w / 2 + m) * s, (h / 2 + m) * s
        matrix = np.array(
            [[zoom, 0, w / 2 * s + dx * s - zoom * cx], [0, zoom, h / 2 * s + dy * s - zoom * cy]]
        )
        return cv2.warpAffine(self.backdrop, matrix, (w * s, h * s), flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_REPLICATE)  # fmt: skip

    def _draw(self, canvas: np.ndarray, person: Person, t: float, with_figure: bool) -> None:
        """A person with chair, table and whatever is in hand."""
        (w, h), camera = self.size, self.script.camera
        zoom, dx, dy = camera.view(t)
        x = (person.prop_x - w / 2) * zoom + w / 2 + dx
        ground = (person.ground - h / 2) * zoom + h / 2 + dy
        spot = Spot(x, ground, person.height * zoom, person.prop_side)
        for prop in person.props:
            if prop not in _TABLES.values():
                draw_prop(canvas, prop, spot)
        _, segment = pose_at(person.segments, t)
        drawn = with_figure and segment.action != "absent"
        j = joints_at(person, t, camera, self.size)
        if drawn:
            draw_body(canvas, j, person.look)
        for prop in person.props:
            if prop in _TABLES.values():
                draw_prop(canvas, prop, spot)
        if not drawn:
            return
        if segment.action in _TABLES:
            draw_on_table(canvas, segment.action, spot)
        if segment.evidence(t) > 0.5 and j.back < 0.5:
            draw_held(canvas, segment.action, segment.item, j)
        draw_arm(canvas, j, person.look, near=True)

    def frame(self, t: float, without: tuple[int, ...] = ()) -> np.ndarray:
        """The picture at ``t`` seconds, uint8 RGB (H, W, 3), less the persons in ``without``."""
        canvas = self._resting(t)
        camera = self.script.camera
        for person in self.persons:
            self._draw(canvas, person, t, person.number not in without)
        small = cv2.resize(canvas, self.size, interpolation=cv2.INTER_AREA)
        gains = np.array([*camera.light(t), 0.0]).reshape(1, 4)
        gains = np.concatenate([gains[:, :3] * np.eye(3), np.full((3, 1), camera.lift)], axis=1)
        return cv2.transform(small, gains)

    def frames(self, seconds: int, rate: int) -> Iterator[np.ndarray]:
        """All pictures in order, ``rate`` a second."""
        for k in range(seconds * rate):
            yield self.frame(k / rate)

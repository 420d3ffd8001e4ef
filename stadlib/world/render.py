"""Pixels of one script: background, furniture and people in painter's order, camera and light."""

from __future__ import annotations

from collections.abc import Container, Iterator

import cv2
import numpy as np

from stadlib.world.actions import pose_at
from stadlib.world.annotate import joints_at
from stadlib.world.figures import SUPERSAMPLE, draw_arm, draw_body
from stadlib.world.scenery import MARGIN, background, draw_held, draw_thing
from stadlib.world.script import SIZE, Script, generator
from stadlib.world.story import Person

_TABLES = ("desk", "worktop")
_ON_TABLE = {"computer": "laptop", "cut": "board"}  # what lies there in use, by action


class Stage:
    """Draws the frames of one script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.size = SIZE[script.source]
        self.backdrop = background(*self.size, generator(*script.seed, 7))

    def frames(self, seconds: int, rate: int) -> Iterator[np.ndarray]:
        """All pictures in order, ``rate`` a second."""
        return (self.frame(k / rate) for k in range(seconds * rate))

    def frame(self, t: float, without: Container[int] = ()) -> np.ndarray:
        """The picture at ``t`` seconds, uint8 RGB (H, W, 3), less the persons in ``without``."""
        camera, (w, h), s = self.script.camera, self.size, SUPERSAMPLE
        # the background as the camera sees it
        zoom, dx, dy = camera.view(t)
        left = (w / 2 + dx - zoom * (w / 2 + MARGIN)) * s
        top = (h / 2 + dy - zoom * (h / 2 + MARGIN)) * s
        matrix = np.array([[zoom, 0, left], [0, zoom, top]])
        options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
        canvas = cv2.warpAffine(self.backdrop, matrix, (w * s, h * s), **options)
        for person in self.script.from_the_back():
            self._draw(canvas, person, t, person.number not in without)
        small = cv2.resize(canvas, self.size, interpolation=cv2.INTER_AREA)
        light = camera.cut_gain if t >= camera.cut else 1.0
        gains = np.diag([gain * light for gain in camera.gain])
        return cv2.transform(small, np.column_stack([gains, np.full(3, camera.lift)]))

    def _draw(self, canvas: np.ndarray, person: Person, t: float, with_figure: bool) -> None:
        """Draw a person with chair, table and what is in hand."""
        camera = self.script.camera
        x, ground, zoom = camera.project(person.segments[0].x0, person.ground, self.size, t)
        spot = ((x, ground), person.height * zoom, person.prop_side)
        _, segment = pose_at(person.segments, t)
        drawn = with_figure and segment.action != "absent"
        j = joints_at(person, t, camera, self.size)
        for prop in sorted(person.props):
            if prop not in _TABLES:
                draw_thing(canvas, prop, *spot)
        if drawn:
            draw_body(canvas, j, person.look)
        for prop in sorted(person.props):
            if prop in _TABLES:
                draw_thing(canvas, prop, *spot)
        if drawn:
            if segment.action in _ON_TABLE:
                draw_thing(canvas, _ON_TABLE[segment.action], *spot)
            if segment.evidence(t) > 0.5 and j.back < 0.5:
                draw_held(canvas, segment.action, segment.item, j)
            draw_arm(canvas, j, person.look, near=True)

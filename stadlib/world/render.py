"""Pixels of one script: background, furniture and people in painter's order, camera and light."""

from __future__ import annotations

from collections.abc import Container, Iterator

import cv2
import numpy as np

from stadlib.world.actions import pose_at
from stadlib.world.annotate import joints_at
from stadlib.world.figures import SUPERSAMPLE, draw_arm, draw_body
from stadlib.world.objects import ON_TABLE, TABLES, draw_held, draw_thing
from stadlib.world.scenery import MARGIN, background
from stadlib.world.script import SIZE, Person, Script, generator


class Stage:
    """Draws the frames of one script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.size = SIZE[script.source]
        self.backdrop = background(*self.size, generator(*script.seed, 7))

    def frames(self, seconds: int, rate: int) -> Iterator[np.ndarray]:
        """All pictures in order, ``rate`` a second."""
        for k in range(seconds * rate):
            yield self.frame(k / rate)

    def frame(self, t: float, without: Container[int] = ()) -> np.ndarray:
        """The picture at ``t`` seconds, uint8 RGB (H, W, 3), less the persons in ``without``."""
        canvas, camera = self._background(t), self.script.camera
        for person in self.script.from_the_back():
            self._draw(canvas, person, t, person.number not in without)
        small = cv2.resize(canvas, self.size, interpolation=cv2.INTER_AREA)
        gains = np.concatenate([np.diag(camera.light(t)), np.full((3, 1), camera.lift)], axis=1)
        return cv2.transform(small, gains)

    def _background(self, t: float) -> np.ndarray:
        """The background as the camera sees it at ``t``, supersampled."""
        (w, h), s, m = self.size, SUPERSAMPLE, MARGIN
        if not self.script.camera.moves:
            return self.backdrop[m * s : (m + h) * s, m * s : (m + w) * s].copy()
        zoom, dx, dy = self.script.camera.view(t)
        cx, cy = (w / 2 + m) * s, (h / 2 + m) * s
        x, y = w / 2 * s + dx * s, h / 2 * s + dy * s
        matrix = np.array([[zoom, 0, x - zoom * cx], [0, zoom, y - zoom * cy]])
        options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
        return cv2.warpAffine(self.backdrop, matrix, (w * s, h * s), **options)

    def _draw(self, canvas: np.ndarray, person: Person, t: float, with_figure: bool) -> None:
        """Draw a person with chair, table and what is in hand."""
        camera = self.script.camera
        x, ground, zoom = camera.project(person.prop_x, person.ground, self.size, t)
        spot = ((x, ground), person.height * zoom, person.prop_side)
        _, segment = pose_at(person.segments, t)
        drawn = with_figure and segment.action != "absent"
        j = joints_at(person, t, camera, self.size)
        tables = [prop for prop in person.props if prop in TABLES]
        for prop in person.props:
            if prop not in tables:
                draw_thing(canvas, prop, *spot)
        if drawn:
            draw_body(canvas, j, person.look)
        for table in tables:
            draw_thing(canvas, table, *spot)
        if drawn:
            if segment.action in ON_TABLE:
                draw_thing(canvas, ON_TABLE[segment.action], *spot)
            if segment.evidence(t) > 0.5 and j.back < 0.5:
                draw_held(canvas, segment.action, segment.item, j)
            draw_arm(canvas, j, person.look, near=True)

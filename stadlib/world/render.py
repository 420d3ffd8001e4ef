"""A script as it is seen: frames, boxes and labels of the people, rows of the official files."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from stadlib.world import WORLD, actions, figures
from stadlib.world.actions import LEFT, RIGHT, Person, pose_at
from stadlib.world.figures import SUPERSAMPLE, Box
from stadlib.world.scenery import MARGIN, Camera, background, draw_held, draw_thing
from stadlib.world.script import SIZE, Script, generator

_TABLES = {"desk", "worktop"}
_ON_TABLE = {"computer": "laptop", "cut": "board"}  # what lies there in use, by action


def joints_at(person: Person, t: float, camera: Camera, size: tuple[int, int]) -> figures.Joints:
    """Joints of ``person`` in pixels of the frame at ``t``."""
    pose, segment = pose_at(person.segments, t)
    x, ground, zoom = camera.project(segment.x(t), person.ground, size, t)
    return figures.joints(pose, x, ground, person.height * zoom)


class Stage:
    """Draws the frames of one script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.size = SIZE[script.source]
        self.backdrop = background(*self.size, script.setting, generator(*script.seed, 7))
        self._view, self._seen = (), np.empty(0)  # the background as it was seen last

    def frame(self, t: float, without: Container[int] = ()) -> np.ndarray:
        """The picture at ``t`` seconds, uint8 RGB (H, W, 3), less the persons in ``without``."""
        camera, canvas = self.script.camera, self._background(t).copy()
        for person in self.script.from_the_back():
            x, ground, zoom = camera.project(person.segments[0].x0, person.ground, self.size, t)
            spot = ((x, ground), person.height * zoom, person.prop_side)
            _, segment = pose_at(person.segments, t)
            drawn = segment.action != "absent" and person.number not in without
            j = joints_at(person, t, camera, self.size)
            # chairs, the body, tables, what lies on them or is in hand, the near arm
            for prop in sorted(person.props - _TABLES):
                draw_thing(canvas, prop, *spot)
            if drawn:
                figures.draw_body(canvas, j, person.look)
            for prop in sorted(person.props & _TABLES):
                draw_thing(canvas, prop, *spot)
            if drawn:
                if segment.action in _ON_TABLE:
                    draw_thing(canvas, _ON_TABLE[segment.action], *spot)
                if segment.evidence(t) > 0.5 and j.back < 0.5:
                    draw_held(canvas, segment.action, segment.item, j)
                figures.draw_arm(canvas, j, person.look, near=True)
        small = np.asarray(Image.fromarray(canvas).reduce(SUPERSAMPLE))
        light = camera.cut_gain if t >= camera.cut else 1.0
        levels = np.arange(256)[:, None] * np.array(camera.gain) * light + camera.lift
        table = np.clip(levels.round(), 0, 255).astype(np.uint8)  # (256, 3)
        picture = cv2.LUT(small, table[None])
        return picture[:, ::-1] if camera.shot(t).mirrored else picture

    def _background(self, t: float) -> np.ndarray:
        """What the camera sees of the painted scene, supersampled.

        Pillow resizes in whole numbers, so that pixels do not depend on the processor.
        """
        zoom, *shift = self.script.camera.view(t)
        low, high = [], []
        for length, by, painted in zip(self.size, shift, self.backdrop.size, strict=True):
            side = min(length * SUPERSAMPLE / zoom, painted)
            start = (length / 2 - (length / 2 + by) / zoom + MARGIN) * SUPERSAMPLE
            low.append(min(max(0.0, start), painted - side))
            high.append(low[-1] + side)
        view = (*low, *high)
        if view != self._view:  # most cameras of movies stand still
            size = tuple(length * SUPERSAMPLE for length in self.size)
            seen = self.backdrop.resize(size, Image.Resampling.BILINEAR, view)
            self._view, self._seen = view, np.asarray(seen)
        return self._seen


class Instance(NamedTuple):
    """One visible person on one keyframe; the box in pixels."""

    t: float
    person: int
    box: Box
    labels: tuple[int, ...]
    target: int  # number of the person looked at, -1 for none


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _overlap(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def visible(script: Script, t: float) -> dict[int, Box]:
    """Boxes (pixels, clipped) of the persons that can be seen at ``t``, by number.

    Left out: who is absent, of whom less than 40 % of head and torso is inside the frame, and
    whose head and torso somebody nearer covers by more than 85 %.
    """
    size = SIZE[script.source]
    frame = (0.0, 0.0, float(size[0]), float(size[1]))
    boxes: dict[int, Box] = {}
    nearer: list[Box] = []
    for person in reversed(script.from_the_back()):
        if pose_at(person.segments, t)[1].action == "absent":
            continue
        j = joints_at(person, t, script.camera, size)
        r, xs, ys = figures.HEAD * j.height, (j.head[0], j.hip[0]), (j.head[1], j.hip[1])
        core = (min(xs) - r, min(ys) - r, max(xs) + r, max(ys))  # head and torso
        inside = _overlap(core, frame)
        hidden = any(_area(_overlap(inside, other)) > 0.85 * _area(inside) for other in nearer)
        nearer.append(core)
        if not hidden and _area(inside) > 0.4 * _area(core):
            boxes[person.number] = _overlap(figures.bounds(j, person.look, size), frame)
    if script.camera.shot(t).mirrored:
        return {n: (size[0] - x2, y1, size[0] - x1, y2) for n, (x1, y1, x2, y2) in boxes.items()}
    return boxes


def annotate(script: Script) -> list[Instance]:
    """Every visible person on every keyframe of ``script``."""
    instances = []
    for t in script.keyframes:
        boxes = visible(script, t)
        # A close-up of a listener leaves out who talks, who is heard all the same.
        present = {p.number: pose_at(p.segments, t)[1] for p in script.persons}
        segments = {n: segment for n, segment in present.items() if segment.action != "absent"}
        for number in boxes:
            segment = segments[number]
            # the nearest standing or sitting person in the line of sight
            ahead = {}
            if segment.facing in (LEFT, RIGHT) and segment.posture not in ("walk", "run", "lie"):
                for other, seen in segments.items():
                    distance = (seen.x(t) - segment.x(t)) * segment.facing
                    if distance > 3 and seen.posture not in ("walk", "run"):
                        ahead[other] = distance
            target = min(ahead, key=ahead.__getitem__, default=-1)
            labels = segment.labels
            if target >= 0 and segment.action in actions.ATTENTIVE:
                if segments[target].action == "talk":
                    labels = (*labels, actions.LISTEN)
                elif segments[target].action in actions.WATCHED:
                    labels = (*labels, actions.WATCH)
            instances.append(Instance(t, number, boxes[number], labels, target))
    return instances


def clock(script: Script, t: float) -> str:
    """The video and the time on the annotation clock, as the official files begin a row."""
    moment = script.start + t
    return f"{script.video}," + (f"{moment:04.0f}" if script.source == "ava" else f"{moment:.6f}")


def _row(script: Script, t: float, box: Box) -> str:
    width, height = SIZE[script.source]
    shares = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
    return ",".join([clock(script, t), *(f"{share:.4f}" for share in shares)])


def rows(script: Script) -> list[str]:
    """Annotation lines of one video; two columns where a keyframe has no label.

    Annotators miss some of what people do beside their pose, and take listening for watching.
    """
    lines: dict[float, list[str]] = {t: [] for t in script.keyframes}
    rng, slips = generator(*script.seed, 17), WORLD["slips"]
    for t, person, box, (pose, *others), *_ in annotate(script):
        seen = [label for label in others if rng.random() >= slips["missed"]]
        mistaken = rng.random() < slips["mistaken"]
        swapped = {actions.LISTEN: actions.WATCH, actions.WATCH: actions.LISTEN} if mistaken else {}
        if t not in script.silent:
            labels = [pose, *(swapped.get(label, label) for label in seen)]
            lines[t] += [f"{_row(script, t, box)},{label},{person}" for label in labels]
    return [line for t, of_keyframe in lines.items() for line in of_keyframe or [clock(script, t)]]


def box_rows(script: Script) -> list[str]:
    """Rows ``video,timestamp,x1,y1,x2,y2,,score`` of every second, counted from the keyframes."""
    times = [script.keyframes[0] % 1 + second for second in range(script.seconds)]
    return [f"{_row(script, t, box)},,1.0" for t in times for box in visible(script, t).values()]

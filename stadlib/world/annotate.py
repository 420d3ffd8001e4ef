"""Ground truth of one script: boxes, persons and labels, and the rows of the official files."""

from __future__ import annotations

from typing import NamedTuple

from stadlib.world import actions, figures
from stadlib.world.actions import LEFT, RIGHT, Segment, pose_at
from stadlib.world.scenery import Camera
from stadlib.world.script import SIZE, Person, Script

Box = tuple[float, float, float, float]


class Instance(NamedTuple):
    """One visible person on one keyframe; the box in [0, 1]."""

    t: float
    person: int
    box: Box
    labels: tuple[int, ...]
    target: int  # number of the person looked at, -1 for none
    evident: bool  # the label that lasts can be seen within the second around the keyframe


def joints_at(person: Person, t: float, camera: Camera, size: tuple[int, int]) -> figures.Joints:
    """Joints of ``person`` in pixels of the frame at ``t``."""
    pose, segment = pose_at(person.segments, t)
    x, ground, zoom = camera.project(segment.x(t), person.ground, size, t)
    return figures.joints(pose, x, ground, person.height * zoom)


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
            boxes[person.number] = _overlap(figures.bounds(j, person.look), frame)
    return boxes


def _target(number: int, segments: dict[int, Segment], t: float) -> int:
    """The nearest visible, standing or sitting person in the line of sight, or -1."""
    viewer, ahead = segments[number], {}
    if viewer.facing in (LEFT, RIGHT) and viewer.posture not in ("walk", "run", "lie"):
        for other, segment in segments.items():
            distance = (segment.x(t) - viewer.x(t)) * viewer.facing
            if distance > 3 and segment.posture not in ("walk", "run"):
                ahead[other] = distance
    return min(ahead, key=ahead.__getitem__, default=-1)


def annotate(script: Script) -> list[Instance]:
    """Every visible person on every keyframe of ``script``."""
    instances = []
    for t in script.keyframes:
        boxes = visible(script, t)
        persons = [p for p in script.persons if p.number in boxes]
        segments = {p.number: pose_at(p.segments, t)[1] for p in persons}
        for number, segment in segments.items():
            labels, target, basis = segment.labels, _target(number, segments, t), segment
            if target >= 0 and segment.action in actions.ATTENTIVE:  # listens or watches
                other = segments[target]
                if other.action == "talk":
                    labels, basis = (*labels, actions.LISTEN), other
                elif other.action in actions.WATCHED:
                    labels, basis = (*labels, actions.WATCH), other
            evident = sum(basis.evidence(t + k / 8) > 0.6 for k in range(-8, 7)) >= 3
            box = _relative(boxes[number], script)
            instances.append(Instance(t, number, box, labels, target, evident))
    return instances


def _relative(box: Box, script: Script) -> Box:
    width, height = SIZE[script.source]
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def clock(script: Script, t: float) -> str:
    """The video and the time on the annotation clock, as the official files begin a row."""
    moment = script.start + t
    return f"{script.video}," + (f"{moment:04.0f}" if script.source == "ava" else f"{moment:.6f}")


def rows(script: Script) -> list[str]:
    """Annotation lines of one video; two columns where a keyframe has no label."""
    instances, lines = annotate(script), []
    for t in script.keyframes:
        labelled = [one for one in instances if one.t == t and t not in script.silent]
        lines += [
            f"{clock(script, t)},{_written(one.box)},{label},{one.person}"
            for one in labelled
            for label in one.labels
        ] or [clock(script, t)]
    return lines


def box_rows(script: Script) -> list[str]:
    """Rows ``video,timestamp,x1,y1,x2,y2,,score`` of every second, counted from the keyframes."""
    first = script.keyframes[0] % 1
    return [
        f"{clock(script, t)},{_written(_relative(box, script))},,1.0"
        for t in (first + second for second in range(script.seconds))
        for box in visible(script, t).values()
    ]


def _written(box: Box) -> str:
    return ",".join(f"{v:.4f}" for v in box)

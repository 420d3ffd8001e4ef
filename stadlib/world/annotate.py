"""Ground truth of one script: boxes, persons and labels at the keyframes, without pixels."""

from __future__ import annotations

from dataclasses import dataclass

from stadlib.world import actions, figures
from stadlib.world.actions import BACK, LEFT, RIGHT, Segment, pose_at
from stadlib.world.scenery import Camera
from stadlib.world.script import SIZE, Person, Script

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Instance:
    """One visible person on one keyframe; the box in [0, 1]."""

    t: float
    person: int
    box: Box
    labels: tuple[int, ...]
    target: int  # number of the person looked at, -1 for nobody
    evident: bool  # the label that lasts can be seen within the second around the keyframe


def joints_at(person: Person, t: float, camera: Camera, size: tuple[int, int]) -> figures.Joints:
    """Joints of ``person`` in pixels of the frame at ``t``."""
    pose, segment = pose_at(person.segments, t)
    zoom, dx, dy = camera.view(t)
    cx, cy = size[0] / 2, size[1] / 2
    x = (segment.x(t) - cx) * zoom + cx + dx
    ground = (person.ground - cy) * zoom + cy + dy
    return figures.joints(pose, x, ground, person.height * zoom)


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _meet(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _core(j: figures.Joints) -> Box:
    """Head and torso: what has to be seen of a person to be annotated."""
    r = figures.HEAD * j.height
    xs, ys = (j.head[0], j.hip[0]), (j.head[1], j.hip[1])
    return min(xs) - r, min(ys) - r, max(xs) + r, max(ys)


def _order(script: Script) -> list[Person]:
    """Painter's order, the farthest first."""
    return sorted(script.persons, key=lambda p: (p.ground, p.number))


def visible(script: Script, t: float) -> dict[int, Box]:
    """Boxes (pixels, clipped) of the persons that can be seen at ``t``, by number.

    Left out: who is outside, of whom less than 40 % of head and torso is inside the frame, and
    whose head and torso one nearer person covers by more than 85 %.
    """
    size = SIZE[script.source]
    frame = (0.0, 0.0, float(size[0]), float(size[1]))
    found: dict[int, Box] = {}
    nearer: list[Box] = []
    for person in reversed(_order(script)):
        _, segment = pose_at(person.segments, t)
        if segment.action == "absent":
            continue
        j = joints_at(person, t, script.camera, size)
        core = _core(j)
        inside = _meet(core, frame)
        hidden = any(_area(_meet(inside, other)) > 0.85 * _area(inside) for other in nearer)
        nearer.append(core)
        if not hidden and _area(inside) > 0.4 * _area(core):
            found[person.number] = _meet(figures.bounds(j, person.look), frame)
    return found


def _target(person: Person, segments: dict[int, Segment], t: float) -> int:
    """The nearest visible, standing or sitting person in the line of sight, or -1."""
    own = segments[person.number]
    if own.facing not in (LEFT, RIGHT) or own.posture in ("walk", "run", "lie"):
        return -1
    x = own.x(t)
    ahead = {
        number: (s.x(t) - x) * own.facing
        for number, s in segments.items()
        if number != person.number
        and s.posture not in ("walk", "run")
        and (s.x(t) - x) * own.facing > 3
    }
    return min(ahead, key=ahead.__getitem__) if ahead else -1


def _evident(segment: Segment, t: float) -> bool:
    seen = sum(segment.evidence(t + k / 8) > 0.6 for k in range(-8, 7))
    return seen >= 3


def annotate(script: Script) -> list[Instance]:
    """Every visible person on every keyframe of ``script``."""
    width, height = SIZE[script.source]
    result = []
    for t in script.keyframes:
        boxes = visible(script, t)
        people = [p for p in script.persons if p.number in boxes]
        segments = {p.number: pose_at(p.segments, t)[1] for p in people}
        for person in people:
            own = segments[person.number]
            labels = actions.own_labels(own)
            target = _target(person, segments, t) if own.facing != BACK else -1
            basis = own
            if target >= 0 and own.action in actions.ATTENTIVE:
                other = segments[target]
                if other.action == "talk":
                    labels, basis = (*labels, actions.LISTEN), other
                elif other.action in actions.WATCHED:
                    labels, basis = (*labels, actions.WATCH), other
            x1, y1, x2, y2 = boxes[person.number]
            box = (x1 / width, y1 / height, x2 / width, y2 / height)
            result.append(Instance(t, person.number, box, labels, target, _evident(basis, t)))
    return result

"""The classification set a backbone learns first on: close-ups of one activity each.

Forty classes cross activities with postures, objects and who faces whom. The first twenty are the
smaller set (standing for K400), all of them the larger (standing for K700).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stadlib.data.miniature import classes, events, story
from stadlib.data.miniature.activities import FRONT, LEFT, RIGHT
from stadlib.data.miniature.camera import random_camera
from stadlib.data.miniature.encode import encode
from stadlib.data.miniature.looks import random_looks
from stadlib.data.miniature.render import Stage
from stadlib.data.miniature.script import SIZE, Script, finish_person, generator
from stadlib.data.miniature.spec import WorldSpec
from stadlib.data.miniature.store import Progress, in_parallel, is_complete, rendered_whole

#: (activity, posture); "+" marks two persons
CLASSES: tuple[tuple[str, str], ...] = (
    ("dance", "stand"), ("martial", "stand"), ("read", "stand"), ("phone", "sit"),
    ("instrument", "stand"), ("computer", "sit"), ("hold", "stand"), ("quiet", "walk"),
    ("talk", "stand"), ("fight+", "stand"), ("hug+", "stand"), ("give+", "stand"),
    ("drink", "stand"), ("text", "sit"), ("bend", "stand"), ("quiet", "crouch"),
    ("fall", "stand"), ("facing+", "stand"), ("eat", "sit"), ("quiet", "sit"),
    ("quiet", "stand"), ("quiet", "run"), ("read", "sit"), ("phone", "stand"),
    ("instrument", "sit"), ("cut", "stand"), ("hold", "walk"), ("getup", "stand"),
    ("quiet", "lie"), ("touch", "stand"), ("wave", "stand"), ("shake+", "stand"),
    ("talk", "sit"), ("following+", "stand"), ("parting+", "stand"), ("drink", "sit"),
    ("eat", "stand"), ("text", "stand"), ("touch", "crouch"), ("talk+", "stand"),
)  # fmt: skip
NUM_SMALL = 20
_STREAM = 11  # random streams of the world begin with other words
Span = tuple[float, float]
_EVENTS = ("hug", "give", "shake")


@dataclass(frozen=True)
class _Job:
    spec: WorldSpec
    folder: Path
    split: str
    index: int
    label: int

    @property
    def video(self) -> str:
        return f"{self.split}_{self.index:05d}"


def render_pretraining(
    root: Path, spec: WorldSpec, workers: int | None = None, progress: Progress | None = None
) -> Path:
    """Render the classification set into ``root`` unless it is there.

    Writes ``videos/<id>.mp4``, ``k400_{train,val}.csv`` and ``k700_{train,val}.csv`` with columns
    ``video,label``, and the class names in ``k700_classes.txt``. Arguments, result and errors as
    in :func:`stadlib.data.miniature.render_world`.
    """
    root = Path(root)
    if is_complete(root, "pretraining", spec):
        return root
    with rendered_whole(root, "pretraining", spec) as folder:
        (folder / "videos").mkdir()
        jobs = []
        for number, split in enumerate(("train", "val")):
            rng = generator(spec.seed, _STREAM, number)
            equal = {str(label): 1.0 for label in range(len(CLASSES))}
            labels = classes.deck(equal, spec.pretraining_clips[number], rng)
            jobs += [_Job(spec, folder, split, i, int(label)) for i, label in enumerate(labels)]
        in_parallel(_render, jobs, workers, progress)
        _write_lists(folder, jobs)
    return root


def _write_lists(folder: Path, jobs: list[_Job]) -> None:
    for name, limit in (("k400", NUM_SMALL), ("k700", len(CLASSES))):
        for split in ("train", "val"):
            part = [job for job in jobs if job.split == split and job.label < limit]
            lines = ["video,label", *(f"{job.video},{job.label}" for job in part)]
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{name}_{split}.csv").write_text(text, encoding="utf-8")
    names = "".join(f"{what} {posture}\n" for what, posture in CLASSES)
    (folder / "k700_classes.txt").write_text(names, encoding="utf-8")


def _render(job: _Job) -> None:
    script = close_up(job.spec, job.split, job.index, job.label)
    rate = job.spec.frames_per_second
    path = job.folder / "videos" / f"{job.video}.mp4"
    encode(path, Stage(script).frames(script.seconds, rate), SIZE["pretraining"], rate)


def close_up(spec: WorldSpec, split: str, index: int, label: int) -> Script:
    """The script of one clip of class ``label``."""
    words = (spec.seed, _STREAM, ("train", "val").index(split), index + 1)
    rng = generator(*words)
    width, frame_height = SIZE["pretraining"]
    activity, posture = CLASSES[label]
    height = float(rng.uniform(46, 68))
    ground = min(frame_height + 4.0, height + float(rng.uniform(8, 20)))
    distance = height * float(rng.uniform(0.62, 0.9))
    middle = width / 2 + float(rng.uniform(-10, 10))
    places = [middle - distance / 2, middle + distance / 2] if activity.endswith("+") else [middle]
    actors = [
        story.Actor(k, x, height * float(rng.uniform(0.96, 1.04)), ground, posture)
        for k, x in enumerate(places)
    ]
    span = (-2.0, float(spec.pretraining_seconds))
    if len(actors) == 2:
        _pair(activity[:-1], actors, span, rng)
    else:
        _one(activity, actors[0], span, width, rng)
        if rng.random() < 0.25:
            actors.append(_bystander(width, height, ground, span, rng))
    looks = random_looks(len(actors), rng)
    persons = tuple(finish_person(a, look) for a, look in zip(actors, looks, strict=True))
    camera = random_camera(
        "kinetics" if rng.random() < 0.5 else "ava", spec.pretraining_seconds, rng
    )
    return Script("pretraining", f"{split}_{index:05d}", spec.pretraining_seconds, 0.0, (), (), (),
                  persons, camera, words)  # fmt: skip


def _pair(what: str, pair: list[story.Actor], span: Span, rng: np.random.Generator) -> None:
    first = int(rng.integers(2))
    sides = [RIGHT, LEFT]
    if what == "parting":
        sides = [LEFT, RIGHT]
    elif what == "following":
        sides = [[LEFT, LEFT], [RIGHT, RIGHT]][first]
    for actor, side in zip(pair, sides, strict=True):
        if what == "fight" or (what == "talk" and actor is pair[first]):
            actor.do(*span, what, facing=side, phase=float(rng.uniform(0, 6)))
        else:
            story.quiet(actor, span, side)
    if what in _EVENTS:
        events.play(what, pair, float(rng.uniform(-0.2, 0.5)), 1e9, rng)


def _one(what: str, actor: story.Actor, span: Span, width: int, rng: np.random.Generator) -> None:
    side = int(rng.choice([LEFT, RIGHT, FRONT], p=[0.4, 0.4, 0.2]))
    posture = actor.posture
    if posture in ("walk", "run"):
        speed = 12.0 if posture == "walk" else 26.0
        side = int(rng.choice([LEFT, RIGHT]))
        item = str(rng.choice(story.ITEMS)) if what == "hold" else ""
        x0, x1 = actor.x - side * speed, actor.x + side * speed
        phase = float(rng.uniform(0, 6))
        actor.do(0.0, span[1], what, facing=side, x0=x0, x1=x1, item=item, phase=phase)
    elif what in ("bend", "fall", "getup", "wave"):
        side = int(rng.choice([LEFT, RIGHT]))
        start = float(rng.uniform(-0.3, 0.4))
        story.quiet(actor, span, side)
        item = str(rng.choice(["lie", "crouch", "sit"])) if what == "getup" else ""
        if item:
            actor.insert(story.Segment(span[0], start, "quiet", item, side, actor.x, actor.x))
        actor.insert(
            story.Segment(start, span[1], what, "stand", side, actor.x, actor.x, item=item)
        )
    elif what == "quiet":
        story.quiet(actor, span, side if posture != "lie" else int(rng.choice([LEFT, RIGHT])))
        if posture == "lie":
            actor.props.add("mat")
    else:
        story.perform(actor, span, what, side, rng, steady=True)


def _bystander(width: int, height: float, ground: float, span: Span, rng) -> story.Actor:
    x = float(rng.choice([rng.uniform(0, 14), rng.uniform(width - 14, width)]))
    actor = story.Actor(1, x, height * 0.85, ground - 6, "stand")
    story.quiet(actor, span, int(rng.choice([LEFT, RIGHT, FRONT])))
    return actor

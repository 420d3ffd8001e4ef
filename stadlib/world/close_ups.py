"""Scripts of close-ups: one activity of one or two people, seen for a moment.

A backbone learns first to classify them. Forty classes cross activities with postures, objects and
who faces whom. The first twenty are the smaller set (standing for K400), all of them the larger
(standing for K700).
"""

from __future__ import annotations

import numpy as np

from stadlib.world import WORLD, WorldSpec, story
from stadlib.world.actions import FRONT, LEFT, RIGHT
from stadlib.world.scenery import random_camera
from stadlib.world.script import SIZE, Script, dress, generator
from stadlib.world.story import Person, Span

CLASSES = WORLD["pretraining"]["classes"]  # (activity, posture); "+" marks two persons
NUM_SMALL = 20
STREAM = 11  # random streams of the world begin with other numbers


def close_up(spec: WorldSpec, split: str, index: int, label: int) -> Script:
    """The script of clip number ``index`` of a split, of class ``label``."""
    seed = (spec.seed, STREAM, ("train", "val").index(split), index + 1)
    rng = generator(*seed)
    u, seconds, (width, frame_height) = rng.uniform, spec.pretraining_seconds, SIZE["pretraining"]
    activity, posture = CLASSES[label]
    height = u(46, 68)
    ground = min(frame_height + 4.0, height + u(8, 20))
    distance = height * u(0.62, 0.9)
    middle = width / 2 + u(-10, 10)
    places = [middle - distance / 2, middle + distance / 2] if activity.endswith("+") else [middle]
    persons = [
        Person(k, x, height * u(0.96, 1.04), ground, posture, width) for k, x in enumerate(places)
    ]
    span = (-2.0, float(seconds))
    if len(persons) == 2:
        _act_pair(activity[:-1], persons, span, rng)
    else:
        _act_alone(activity, persons[0], span, rng)
        if rng.random() < 0.25:  # somebody at the edge
            x = float(rng.choice([u(0, 14), u(width - 14, width)]))
            persons.append(Person(1, x, height * 0.85, ground - 6, "stand", width))
            story.quiet(persons[1], span, int(rng.choice([LEFT, RIGHT, FRONT])))
    clothed = dress(persons, rng)
    camera = random_camera("kinetics" if rng.random() < 0.5 else "ava", seconds, rng)
    video, times = f"{split}_{index:05d}", (seconds, 0.0, (), (), ())
    return Script("pretraining", video, *times, clothed, camera, seed)


def _act_pair(what: str, pair: list[Person], span: Span, rng: np.random.Generator) -> None:
    first = int(rng.integers(2))
    sides = {"parting": (LEFT, RIGHT), "following": ((LEFT, RIGHT)[first],) * 2}
    for person, side in zip(pair, sides.get(what, (RIGHT, LEFT)), strict=True):
        if what == "fight" or (what == "talk" and person is pair[first]):
            person.do(*span, what, facing=side, phase=rng.uniform(0, 6))
        else:
            story.quiet(person, span, side)
    if what in ("hug", "give", "shake"):
        story.play(what, pair, rng.uniform(-0.2, 0.5), rng)


def _act_alone(what: str, person: Person, span: Span, rng: np.random.Generator) -> None:
    side = int(rng.choice([LEFT, RIGHT, FRONT], p=[0.4, 0.4, 0.2]))
    x, posture = person.x, person.posture
    if posture in ("walk", "run"):
        side = int(rng.choice([LEFT, RIGHT]))
        item = str(rng.choice(story.ITEMS)) if what == "hold" else ""
        way = side * (12.0 if posture == "walk" else 26.0)
        phase = rng.uniform(0, 6)
        person.do(0.0, span[1], what, facing=side, x0=x - way, x1=x + way, item=item, phase=phase)
    elif what in ("bend", "fall", "getup", "wave"):
        side, start = int(rng.choice([LEFT, RIGHT])), rng.uniform(-0.3, 0.4)
        story.quiet(person, span, side)
        item = str(rng.choice(["lie", "crouch", "sit"])) if what == "getup" else ""
        if item:
            person.insert(span[0], start, "quiet", side, x, posture=item)
        person.insert(start, span[1], what, side, x, item=item)
    elif posture == "lie":
        story.quiet(person, span, int(rng.choice([LEFT, RIGHT])))
        person.props.add("mat")
    elif what == "quiet":
        story.quiet(person, span, side)
    else:
        story.perform(person, span, what, side, rng, steady=True)

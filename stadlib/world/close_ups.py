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
from stadlib.world.script import SIZE, Script, dressed, generator
from stadlib.world.story import Actor, Span

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
    actors = [
        Actor(k, x, height * u(0.96, 1.04), ground, posture, width) for k, x in enumerate(places)
    ]
    span = (-2.0, float(seconds))
    if len(actors) == 2:
        _act_pair(activity[:-1], actors, span, rng)
    else:
        _act_alone(activity, actors[0], span, rng)
        if rng.random() < 0.25:  # somebody at the edge
            x = float(rng.choice([u(0, 14), u(width - 14, width)]))
            actors.append(Actor(1, x, height * 0.85, ground - 6, "stand", width))
            story.quiet(actors[1], span, int(rng.choice([LEFT, RIGHT, FRONT])))
    persons = dressed(actors, len(actors), rng)
    camera = random_camera("kinetics" if rng.random() < 0.5 else "ava", seconds, rng)
    video, times = f"{split}_{index:05d}", (seconds, 0.0, (), (), ())
    return Script("pretraining", video, *times, persons, camera, seed)


def _act_pair(what: str, pair: list[Actor], span: Span, rng: np.random.Generator) -> None:
    first = int(rng.integers(2))
    sides = {"parting": (LEFT, RIGHT), "following": ((LEFT, RIGHT)[first],) * 2}
    for actor, side in zip(pair, sides.get(what, (RIGHT, LEFT)), strict=True):
        if what == "fight" or (what == "talk" and actor is pair[first]):
            actor.do(*span, what, facing=side, phase=rng.uniform(0, 6))
        else:
            story.quiet(actor, span, side)
    if what in ("hug", "give", "shake"):
        story.play(what, pair, rng.uniform(-0.2, 0.5), rng)


def _act_alone(what: str, actor: Actor, span: Span, rng: np.random.Generator) -> None:
    side = int(rng.choice([LEFT, RIGHT, FRONT], p=[0.4, 0.4, 0.2]))
    x, posture = actor.x, actor.posture
    if posture in ("walk", "run"):
        side = int(rng.choice([LEFT, RIGHT]))
        item = str(rng.choice(story.ITEMS)) if what == "hold" else ""
        way = side * (12.0 if posture == "walk" else 26.0)
        phase = rng.uniform(0, 6)
        actor.do(0.0, span[1], what, facing=side, x0=x - way, x1=x + way, item=item, phase=phase)
    elif what in ("bend", "fall", "getup", "wave"):
        side, start = int(rng.choice([LEFT, RIGHT])), rng.uniform(-0.3, 0.4)
        story.quiet(actor, span, side)
        item = str(rng.choice(["lie", "crouch", "sit"])) if what == "getup" else ""
        if item:
            actor.insert(span[0], start, "quiet", side, x, posture=item)
        actor.insert(start, span[1], what, side, x, item=item)
    elif posture == "lie":
        story.quiet(actor, span, int(rng.choice([LEFT, RIGHT])))
        actor.props.add("mat")
    elif what == "quiet":
        story.quiet(actor, span, side)
    else:
        story.perform(actor, span, what, side, rng, steady=True)

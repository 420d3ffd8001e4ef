"""The scenes of still pictures: who is there, at which depth, doing what, and how it is framed.

They differ from the videos' keyframes as COCO's pictures do: more single and large persons about
the middle, children, every posture, persons at several depths and cut off by the picture's edge,
every light and size of picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log, pi

import numpy as np

from stadlib.data.miniature import classes, events, story
from stadlib.data.miniature.activities import BACK, FRONT, LEFT, RIGHT
from stadlib.data.miniature.annotate import visible
from stadlib.data.miniature.camera import Camera, random_camera
from stadlib.data.miniature.looks import random_looks
from stadlib.data.miniature.script import SIZE, SOURCES, Script, finish_person, generator
from stadlib.data.miniature.spec import WorldSpec

STREAM = 13  # random streams of the world and of pretraining begin with other words
MOMENT = 0.0  # the second at which the picture is taken; everyone is busy before and after
_SPAN = (-4.0, 4.0)

#: how many persons a scene has
NUMBERS = {"0": 0.05, "1": 0.42, "2": 0.25, "3": 0.14, "4": 0.09, "5": 0.05}
_ZOOMS = ((0.9, 1.8), (1.0, 2.2), (0.95, 1.9), (0.88, 1.7), (0.88, 1.5), (0.88, 1.4))  # by number
_UNITS = {"1": 0.5, "2": 0.35, "3": 0.15}
_POSTURES = {"stand": 0.4, "sit": 0.22, "walk": 0.16, "run": 0.08, "crouch": 0.07, "lie": 0.07}
_MOTIONS = {"bend": 0.3, "fall": 0.2, "getup": 0.2, "wave": 0.3}
_MEETINGS = {"hug": 0.4, "shake": 0.3, "give": 0.3}


@dataclass(frozen=True)
class Scene:
    """What is photographed, and how.

    Attributes:
        script: the persons and the light.
        window: left, top, width and height, in pixels of the script's frame: what is seen of it.
        deserted: nobody is there, only their furniture.
        blur: standard deviation in pixels; 0 is sharp.
        noise: standard deviation in grey levels.
        grey: black and white.
    """

    script: Script
    window: tuple[int, int, int, int]
    deserted: bool
    blur: float
    noise: float
    grey: bool


def compose(spec: WorldSpec, split: str, index: int, number: int) -> Scene:
    """The scene of one still, of ``number`` persons."""
    words = (spec.seed, STREAM, ("train", "val").index(split), index + 1)
    rng = generator(*words)
    low, high = _ZOOMS[number]
    zoom = exp(rng.uniform(log(low), log(high)))
    units = _cast(number or 2, rng)  # whoever is not there has left furniture
    actors = [actor for unit in units for actor in unit]
    _place(actors, zoom, rng)
    for unit in units:
        _act(unit, rng)
    looks = random_looks(len(actors), rng)
    persons = tuple(finish_person(a, look) for a, look in zip(actors, looks, strict=True))
    video, camera = f"{split}_{index:05d}", _camera(zoom, rng)
    script = Script("still", video, 1, 0.0, (MOMENT,), (), (), persons, camera, words)
    return Scene(
        script,
        _window(script, rng),
        deserted=number == 0,
        blur=max(0.0, float(rng.uniform(-0.5, 0.7))),
        noise=float(rng.uniform(0, 6)),
        grey=bool(rng.random() < 0.03),
    )


def _choose(shares: dict[str, float], rng: np.random.Generator) -> str:
    weights = np.array([*shares.values()])
    return str(rng.choice([*shares], p=weights / weights.sum()))


def _cast(number: int, rng: np.random.Generator) -> list[list[story.Actor]]:
    """Units of one to three persons from left to right, each at a depth of its own."""
    tall, feet = float(rng.uniform(42, 62)), float(rng.uniform(78, 92))
    units: list[list[story.Actor]] = []
    x, cast = 0.0, 0
    while cast < number:
        near = float(rng.uniform(0.6, 1)) if units else 1.0
        ground = feet - tall * (1 - near) * 0.6  # seen from above the heads
        unit = []
        for _ in range(min(int(_choose(_UNITS, rng)), number - cast)):
            grown = rng.uniform(0.95, 1.05) if rng.random() < 0.85 else rng.uniform(0.6, 0.8)
            height = tall * near * float(grown)
            unit.append(story.Actor(cast, x, height, ground, _choose(_POSTURES, rng)))
            x += tall * near * float(rng.uniform(0.5, 0.95))
            cast += 1
        units.append(unit)
    return units


def _place(actors: list[story.Actor], zoom: float, rng: np.random.Generator) -> None:
    """Move the row about the middle of what ``zoom`` leaves of the width."""
    width, _ = SIZE["still"]
    span = actors[-1].x
    squeeze = min(1.0, (width - 20) / zoom / span) if span else 1.0
    middle = width / 2 + float(rng.uniform(-10, 10)) / zoom
    for actor in actors:
        actor.x = middle + (actor.x - span / 2) * squeeze


def _act(unit: list[story.Actor], rng: np.random.Generator) -> None:
    what = _choose(classes.PERFORM_SHARES["kinetics"], rng)
    if len(unit) == 1:
        _alone(unit[0], what, rng)
        return
    for actor in unit:
        actor.posture = actor.posture if actor.posture == "sit" else "stand"
    shares = classes.UNIT_SHARES["kinetics"][len(unit)]
    if len(unit) == 3:
        story.trio(_choose(shares, rng), what, unit, _SPAN, rng)
    elif rng.random() < 0.7:
        story.duo(_choose(shares, rng), what, unit, _SPAN, rng)
    else:
        for actor, side in zip(unit, (RIGHT, LEFT), strict=True):
            actor.posture = "stand"
            story.quiet(actor, _SPAN, side)
        since = float(rng.uniform(0.2, 1.8))
        events.play(_choose(_MEETINGS, rng), unit, MOMENT - since, SIZE["still"][0], rng)


def _alone(actor: story.Actor, what: str, rng: np.random.Generator) -> None:
    side, aside = int(rng.choice([LEFT, RIGHT, FRONT, BACK])), int(rng.choice([LEFT, RIGHT]))
    if actor.posture in ("walk", "run"):
        item = what == "hold" and str(rng.choice(story.ITEMS))
        actor.do(*_SPAN, "hold" if item else "quiet", facing=aside, item=item or "",
                 phase=float(rng.uniform(0, 6)))  # fmt: skip
    elif actor.posture in ("crouch", "lie"):
        story.perform(actor, _SPAN, actor.posture, aside, rng)
    elif rng.random() < 0.6:
        story.perform(actor, _SPAN, what, aside if side == BACK else side, rng, steady=True)
    elif actor.posture == "stand" and rng.random() < 0.4:
        motion, since = _choose(_MOTIONS, rng), float(rng.uniform(0.1, 1.8))
        low = str(rng.choice(["lie", "crouch"])) if motion == "getup" else ""
        actor.do(MOMENT - since, 2.0, motion, facing=aside, item=low)
    else:
        story.quiet(actor, _SPAN, side)


def _camera(zoom: float, rng: np.random.Generator) -> Camera:
    """``zoom`` at the moment of the picture; in the light of a video, or in one of its own."""
    camera = random_camera(SOURCES[int(rng.integers(len(SOURCES)))], 1, rng)
    if rng.random() < 0.6:
        level, warm = float(rng.uniform(0.6, 1.3)), float(rng.uniform(-0.14, 0.14))
        gain = (level * (1 + warm), level, level * (1 - warm))
        camera = Camera(gain=gain, lift=float(rng.uniform(-10, 30)))
    # a quarter turn of the zoom's wave, at second 0, is its crest
    return replace(camera, zoom=zoom - 1, phase=pi / 4, pan=0.0, shake=0.0)


def _window(script: Script, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A cut-out of any shape about the persons, above their heads rather than below the feet."""
    full_width, full_height = SIZE[script.source]
    width, height = int(rng.integers(96, full_width + 1)), int(rng.integers(72, full_height + 1))
    boxes = [*visible(script, MOMENT).values()] or [(0.0, 0.0, full_width, full_height)]
    x1, y1 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x2, y2 = max(box[2] for box in boxes), max(box[3] for box in boxes)
    left = (x1 + x2 - width) / 2 + float(rng.uniform(-12, 12))
    top = min((y1 + y2 - height) / 2, y1) - float(rng.uniform(-2, 12))
    left = int(min(max(left, 0), full_width - width))
    return left, int(min(max(top, 0), full_height - height)), width, height

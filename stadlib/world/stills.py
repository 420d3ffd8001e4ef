"""The scenes of still pictures: who is there, at which depth, doing what, and how it is framed.

They differ from the videos' keyframes as COCO's pictures do: more single and large persons about
the middle, children, every posture, persons at several depths and cut off by the picture's edge,
every light and size of picture.

Still pictures in COCO's layout: what a person detector learns on first (paper section 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Container
from copy import copy
from dataclasses import dataclass, replace
from math import exp, log, pi
from pathlib import Path

import cv2
import numpy as np

from stadlib.world import actions, objects, story
from stadlib.world.actions import BACK, FRONT, LEFT, RIGHT
from stadlib.world.annotate import Box, joints_at, visible
from stadlib.world.figures import bounds, random_looks
from stadlib.world.render import Stage
from stadlib.world.scenery import Camera, random_camera
from stadlib.world.script import SIZE, SOURCES, Script, finish_person, generator
from stadlib.world.sets import Progress, in_parallel, is_complete, rendered_whole
from stadlib.world.spec import WorldSpec

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
    what = _choose(actions.PERFORM_SHARES["kinetics"], rng)
    if len(unit) == 1:
        _alone(unit[0], what, rng)
        return
    for actor in unit:
        actor.posture = actor.posture if actor.posture == "sit" else "stand"
    shares = actions.UNIT_SHARES["kinetics"][len(unit)]
    if len(unit) == 3:
        story.trio(_choose(shares, rng), what, unit, _SPAN, rng)
    elif rng.random() < 0.7:
        story.duo(_choose(shares, rng), what, unit, _SPAN, rng)
    else:
        for actor, side in zip(unit, (RIGHT, LEFT), strict=True):
            actor.posture = "stand"
            story.quiet(actor, _SPAN, side)
        since = float(rng.uniform(0.2, 1.8))
        story.play(_choose(_MEETINGS, rng), unit, MOMENT - since, SIZE["still"][0], rng)


def _alone(actor: story.Actor, what: str, rng: np.random.Generator) -> None:
    side, aside = int(rng.choice([LEFT, RIGHT, FRONT, BACK])), int(rng.choice([LEFT, RIGHT]))
    if actor.posture in ("walk", "run"):
        item = what == "hold" and str(rng.choice(objects.ITEMS))
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


CATEGORIES = {1: "person", 62: "chair"}  # COCO's ids
_PERSON, _CHAIR = CATEGORIES
_KEPT = 0.4  # share of a figure's box that has to be in the picture
_QUALITY = 92  # of the JPEG files


@dataclass(frozen=True)
class _Job:
    spec: WorldSpec
    folder: Path
    split: str
    index: int
    number: int  # of persons
    image: int  # COCO's id


def render_stills(
    root: Path, spec: WorldSpec, workers: int | None = None, progress: Progress | None = None
) -> Path:
    """Render as many stills as ``spec`` has pretraining clips into ``root`` unless they are there.

    Writes ``annotations/instances_{train,val}.json`` and ``{train,val}/<12 digits>.jpg`` in COCO's
    layout: boxes x, y, width, height in pixels, of persons and of the chairs they sit on.
    Arguments, result and errors as in :func:`stadlib.data.miniature.render_world`.
    """
    root = Path(root)
    if is_complete(root, "stills", spec):
        return root
    with rendered_whole(root, "stills", spec) as folder:
        (folder / "annotations").mkdir()
        jobs: list[_Job] = []
        for place, split in enumerate(("train", "val")):
            (folder / split).mkdir()
            rng = generator(spec.seed, STREAM, place)
            numbers = actions.deck(NUMBERS, spec.pretraining_clips[place], rng)
            first = len(jobs) + 1  # an id names one picture of both splits
            jobs += [
                _Job(spec, folder, split, index, int(number), first + index)
                for index, number in enumerate(numbers)
            ]
        rows = in_parallel(_render, jobs, workers, progress)
        for split in ("train", "val"):
            part = [row for job, row in zip(jobs, rows, strict=True) if job.split == split]
            text = json.dumps(_instances(part))
            (folder / "annotations" / f"instances_{split}.json").write_text(text, encoding="utf-8")
    return root


def _instances(rows: list[tuple[dict, list[dict]]]) -> dict:
    annotations = [annotation for _, some in rows for annotation in some]
    return {
        "info": {"description": "the miniature's stills"},
        "images": [image for image, _ in rows],
        "annotations": [{"id": k, **one} for k, one in enumerate(annotations, 1)],
        "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
    }


def _render(job: _Job) -> tuple[dict, list[dict]]:
    """Write one picture; returns its rows of ``images`` and ``annotations``."""
    scene = compose(job.spec, job.split, job.index, job.number)
    stage = Stage(scene.script)
    name, (_, _, width, height) = f"{job.image:012d}.jpg", scene.window
    path = job.folder / job.split / name
    persons = person_boxes(scene)
    blue_first = photograph(scene, stage, persons)[..., ::-1]
    if not cv2.imwrite(str(path), blue_first, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]):
        raise OSError(f"{path}: could not be written")
    boxes = [(_PERSON, box) for box in persons.values()]
    boxes += [(_CHAIR, box) for box in chair_boxes(scene, stage, persons)]
    image = {"id": job.image, "file_name": name, "width": width, "height": height}
    return image, [_annotation(job.image, category, box) for category, box in boxes]


def _annotation(image: int, category: int, box: Box) -> dict:
    x1, y1, x2, y2 = (round(v, 2) for v in box)
    w, h = round(x2 - x1, 2), round(y2 - y1, 2)
    return {"image_id": image, "category_id": category, "bbox": [x1, y1, w, h],
            "area": round(w * h, 2), "iscrowd": 0}  # fmt: skip


def photograph(scene: Scene, stage: Stage, persons: Container[int]) -> np.ndarray:
    """The picture, uint8 RGB (H, W, 3), of all furniture and of those in ``persons``.

    Who has no box is left out, so that every person in a picture is annotated.
    """
    picture = _cut(scene, stage, persons)
    if scene.blur > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), scene.blur)
    if scene.grey:
        picture = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    grain = generator(*scene.script.seed, 9).normal(0, scene.noise, picture.shape[:2])
    return np.clip(picture + grain[..., None], 0, 255).astype(np.uint8)


def _cut(scene: Scene, stage: Stage, persons: Container[int]) -> np.ndarray:
    """What the window shows, before blur and noise."""
    without = tuple(p.number for p in stage.persons if p.number not in persons)
    left, top, width, height = scene.window
    return stage.frame(MOMENT, without)[top : top + height, left : left + width]


def person_boxes(scene: Scene) -> dict[int, Box]:
    """Boxes in pixels of the picture, by number, of whom enough is inside and not hidden."""
    if scene.deserted:
        return {}
    left, top, width, height = scene.window
    frame = (float(width), float(height))
    found: dict[int, Box] = {}
    for number, (x1, y1, x2, y2) in visible(scene.script, MOMENT).items():
        x, y = max(0.0, x1 - left), max(0.0, y1 - top)
        box = (x, y, max(x, min(x2 - left, frame[0])), max(y, min(y2 - top, frame[1])))
        if _area(box) > _KEPT * _area(_whole(scene, number)):
            found[number] = box
    return found


def _whole(scene: Scene, number: int) -> Box:
    """The figure's box as if the frame had no edge."""
    person, stage = scene.script.persons[number], SIZE[scene.script.source]
    return bounds(joints_at(person, MOMENT, scene.script.camera, stage), person.look)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def chair_boxes(scene: Scene, stage: Stage, persons: Container[int]) -> list[Box]:
    """Boxes of what is seen of the chairs: where the picture would differ without them.

    Arguments as in :func:`photograph`.
    """
    picture = _cut(scene, stage, persons).astype(int)
    found = []
    for k, person in enumerate(stage.persons):
        if "chair" not in person.props:
            continue
        standing = replace(person, props=tuple(p for p in person.props if p != "chair"))
        other = copy(stage)
        other.persons = [*stage.persons[:k], standing, *stage.persons[k + 1 :]]
        differs = np.abs(picture - _cut(scene, other, persons)).max(axis=2) > 8
        if differs.sum() >= 12:  # fewer pixels beside the sitter show no chair
            x, y, w, h = cv2.boundingRect(differs.astype(np.uint8))
            found.append((float(x), float(y), float(x + w), float(y + h)))
    return found

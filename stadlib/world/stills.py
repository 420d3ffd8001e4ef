"""Still pictures in COCO's layout: a person detector learns on them first (paper section 3.1).

They differ from the videos' keyframes as COCO's pictures do: more single and large people about
the middle, children, every posture, people at several depths and cut off by the picture's edge,
every light and size of picture.
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass, replace
from math import exp, log, pi
from pathlib import Path

import cv2
import numpy as np

from stadlib.world import story
from stadlib.world.actions import BACK, FRONT, LEFT, RIGHT
from stadlib.world.annotate import Box, area, joints_at, visible
from stadlib.world.figures import bounds
from stadlib.world.objects import ITEMS
from stadlib.world.render import Stage
from stadlib.world.scenery import Camera, random_camera
from stadlib.world.script import SIZE, SOURCES, Script, dressed, generator
from stadlib.world.spec import WORLD, WorldSpec
from stadlib.world.story import Actor

Job = tuple[str, int, int]  # split, index in it, number of persons
STREAM = 13  # random streams of the world and of pretraining begin with other numbers
MOMENT = 0.0  # the second at which the picture is taken; everyone is busy before and after
_SPAN = (-4.0, 4.0)
_SHARES = WORLD["stills"]
_KEPT = 0.4  # share of a figure's box that has to be in the picture
_QUALITY = 92  # of the JPEG files


@dataclass(frozen=True)
class Scene:
    """What is photographed, and how.

    Attributes:
        script: the persons and the light.
        window: left, top, width and height, in pixels of the script's frame: what is seen of it.
        deserted: no person is there, only furniture.
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
    seed = (spec.seed, STREAM, ("train", "val").index(split), index + 1)
    rng = generator(*seed)
    low, high = _SHARES["zooms"][number]
    zoom = exp(rng.uniform(log(low), log(high)))
    units = _cast(number or 2, zoom, rng)  # in a deserted scene two have left their furniture
    for unit in units:
        _act(unit, rng)
    persons = dressed((a for unit in units for a in unit), number or 2, rng)
    video, camera = f"{split}_{index:05d}", _camera(zoom, rng)
    script = Script("still", video, 1, 0.0, (MOMENT,), (), (), persons, camera, seed)
    return Scene(
        script,
        _window(script, rng),
        deserted=number == 0,
        blur=max(0.0, rng.uniform(-0.5, 0.7)),
        noise=rng.uniform(0, 6),
        grey=rng.random() < 0.03,
    )


def _choose(shares: dict[str, float], rng: np.random.Generator) -> str:
    weights = np.array([*shares.values()])
    return str(rng.choice([*shares], p=weights / weights.sum()))


def _cast(number: int, zoom: float, rng: np.random.Generator) -> list[list[Actor]]:
    """Units of one to three from left to right, each at a depth of its own."""
    u = rng.uniform
    tall, feet = u(42, 62), u(78, 92)
    units: list[list[Actor]] = []
    actors: list[Actor] = []
    x = 0.0
    while len(actors) < number:
        near = u(0.6, 1) if units else 1.0
        ground = feet - tall * (1 - near) * 0.6  # seen from above the heads
        size = min(int(_choose(_SHARES["units"], rng)), number - len(actors))
        for _ in range(size):
            height = tall * near * (u(0.95, 1.05) if rng.random() < 0.85 else u(0.6, 0.8))
            actors.append(Actor(len(actors), x, height, ground, _choose(_SHARES["postures"], rng)))
            x += tall * near * u(0.5, 0.95)
        units.append(actors[-size:])
    # move the row about the middle of what the zoom leaves of the width
    width, span = SIZE["still"][0], actors[-1].x
    squeeze = min(1.0, (width - 20) / zoom / span) if span else 1.0
    middle = width / 2 + u(-10, 10) / zoom
    for actor in actors:
        actor.x = middle + (actor.x - span / 2) * squeeze
    return units


def _act(unit: list[Actor], rng: np.random.Generator) -> None:
    what = _choose(WORLD["perform_shares"]["kinetics"], rng)
    if len(unit) == 1:
        _act_alone(unit[0], what, rng)
        return
    for actor in unit:
        actor.posture = actor.posture if actor.posture == "sit" else "stand"
    shares = WORLD["unit_shares"]["kinetics"][str(len(unit))]
    if len(unit) == 3:
        story.trio(_choose(shares, rng), what, unit, _SPAN, rng)
    elif rng.random() < 0.7:
        story.duo(_choose(shares, rng), what, unit, _SPAN, rng)
    else:
        for actor, side in zip(unit, (RIGHT, LEFT), strict=True):
            actor.posture = "stand"
            story.quiet(actor, _SPAN, side)
        start = MOMENT - rng.uniform(0.2, 1.8)
        story.play(_choose(_SHARES["meetings"], rng), unit, start, SIZE["still"][0], rng)


def _act_alone(actor: Actor, what: str, rng: np.random.Generator) -> None:
    side, aside = int(rng.choice([LEFT, RIGHT, FRONT, BACK])), int(rng.choice([LEFT, RIGHT]))
    if actor.posture in ("walk", "run"):
        item = str(rng.choice(ITEMS)) if what == "hold" else ""
        action = "hold" if item else "quiet"
        actor.do(*_SPAN, action, facing=aside, item=item, phase=rng.uniform(0, 6))
    elif actor.posture in ("crouch", "lie"):
        story.perform(actor, _SPAN, actor.posture, aside, rng)
    elif rng.random() < 0.6:
        story.perform(actor, _SPAN, what, aside if side == BACK else side, rng, steady=True)
    elif actor.posture == "stand" and rng.random() < 0.4:
        motion, since = _choose(_SHARES["motions"], rng), rng.uniform(0.1, 1.8)
        low = str(rng.choice(["lie", "crouch"])) if motion == "getup" else ""
        actor.do(MOMENT - since, 2.0, motion, facing=aside, item=low)
    else:
        story.quiet(actor, _SPAN, side)


def _camera(zoom: float, rng: np.random.Generator) -> Camera:
    """``zoom`` at the moment of the picture; in the light of a video, or in one of its own."""
    camera = random_camera(SOURCES[int(rng.integers(len(SOURCES)))], 1, rng)
    if rng.random() < 0.6:
        level, warm = rng.uniform(0.6, 1.3), rng.uniform(-0.14, 0.14)
        gain = (level * (1 + warm), level, level * (1 - warm))
        camera = Camera(gain=gain, lift=rng.uniform(-10, 30))
    # a quarter turn of the zoom's wave, at second 0, is its crest
    return replace(camera, zoom=zoom - 1, phase=pi / 4, pan=0.0, shake=0.0)


def _window(script: Script, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A cut-out of any shape about the persons, above their heads rather than below the feet."""
    full_width, full_height = SIZE[script.source]
    width, height = int(rng.integers(96, full_width + 1)), int(rng.integers(72, full_height + 1))
    boxes = np.array([*visible(script, MOMENT).values()] or [(0.0, 0.0, full_width, full_height)])
    (x1, y1), (x2, y2) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    left = (x1 + x2 - width) / 2 + rng.uniform(-12, 12)
    top = min((y1 + y2 - height) / 2, y1) - rng.uniform(-2, 12)
    left = int(min(max(left, 0), full_width - width))
    return left, int(min(max(top, 0), full_height - height)), width, height


def person_boxes(scene: Scene) -> dict[int, Box]:
    """Boxes in pixels of the picture, by number, of persons of whom enough is inside and seen."""
    if scene.deserted:
        return {}
    left, top, width, height = scene.window
    script, boxes = scene.script, {}
    for number, (x1, y1, x2, y2) in visible(script, MOMENT).items():
        x, y = max(0.0, x1 - left), max(0.0, y1 - top)
        box = (x, y, max(x, min(x2 - left, float(width))), max(y, min(y2 - top, float(height))))
        # the figure's box as if the frame had no edge
        person = script.persons[number]
        joints = joints_at(person, MOMENT, script.camera, SIZE[script.source])
        if area(box) > _KEPT * area(bounds(joints, person.look)):
            boxes[number] = box
    return boxes


def photograph(scene: Scene, stage: Stage, persons: Container[int]) -> np.ndarray:
    """The picture, uint8 RGB (H, W, 3), of all furniture and of those in ``persons``.

    A person without a box is left out, so that every person in a picture is annotated.
    """
    without = [p.number for p in scene.script.persons if p.number not in persons]
    left, top, width, height = scene.window
    picture = stage.frame(MOMENT, without)[top : top + height, left : left + width]
    if scene.blur > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), scene.blur)
    if scene.grey:
        picture = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    grain = generator(*scene.script.seed, 9).normal(0, scene.noise, picture.shape[:2])
    return np.clip(picture + grain[..., None], 0, 255).astype(np.uint8)


def draw(spec: WorldSpec, folder: Path, job: Job) -> tuple[dict, list[dict]]:
    """Write one picture; returns its row of ``images`` and its rows of ``annotations``."""
    split, index, _ = job
    scene = compose(spec, *job)
    boxes = person_boxes(scene)
    # an id names one picture of both splits
    image_id = index + 1 + (spec.pretraining_clips[0] if split == "val" else 0)
    path = folder / split / f"{image_id:012d}.jpg"
    path.parent.mkdir(exist_ok=True)
    blue_first = photograph(scene, Stage(scene.script), boxes)[..., ::-1]
    if not cv2.imwrite(str(path), blue_first, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]):
        raise OSError(f"{path}: could not be written")
    _, _, width, height = scene.window
    image = {"id": image_id, "file_name": path.name, "width": width, "height": height}
    annotations = []
    for box in boxes.values():
        x1, y1, x2, y2 = (round(v, 2) for v in box)
        w, h = round(x2 - x1, 2), round(y2 - y1, 2)
        row = {"image_id": image_id, "category_id": 1, "bbox": [x1, y1, w, h]}
        annotations.append(row | {"area": round(w * h, 2), "iscrowd": 0})
    return image, annotations


def write_instances(folder: Path, jobs: list[Job], rows: list[tuple[dict, list[dict]]]) -> None:
    """Write COCO's JSON of both splits."""
    (folder / "annotations").mkdir()
    for part in ("train", "val"):
        mine = [row for (split, *_), row in zip(jobs, rows, strict=True) if split == part]
        annotations = [annotation for _, some in mine for annotation in some]
        instances = {
            "info": {"description": "the miniature's stills"},
            "images": [image for image, _ in mine],
            "annotations": [{"id": k, **one} for k, one in enumerate(annotations, 1)],
            "categories": [{"id": 1, "name": "person"}],
        }
        path = folder / "annotations" / f"instances_{part}.json"
        path.write_text(json.dumps(instances), encoding="utf-8")

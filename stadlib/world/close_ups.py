"""What networks learn first: close-ups in Kinetics' layout, still pictures in COCO's layout.

A close-up shows one activity of one or two people for a moment. Forty classes cross activities with
postures, objects and who faces whom. The first twenty stand for K400, all of them for K700.

Stills train the person detector (paper section 3.1). They are frames of close-ups, movies and clips
that belong to no split of the world, seen from nearer or farther, so that people are of many sizes
and cut off by the picture's edge.
"""

from __future__ import annotations

import json
from dataclasses import replace
from math import exp, log, pi
from pathlib import Path

import cv2
import numpy as np

from stadlib.base import write_whole
from stadlib.data.layout import SOURCES
from stadlib.world import WORLD, WorldSpec, story
from stadlib.world.actions import FRONT, LEFT, RIGHT, deck
from stadlib.world.render import Box, Stage, visible
from stadlib.world.scenery import random_camera
from stadlib.world.script import SIZE, Plan, Script, dress, generator, plan_split, write_script
from stadlib.world.story import Person, Span

CLASSES = WORLD["pretraining"]["classes"]  # (activity, posture); "+" marks two persons
_CLIPS = 11  # random streams of the world begin with other numbers
Clip = tuple[str, int, int]  # split, number in it, class
Still = tuple[str, int, Plan | int]  # split, number in it, a video's plan or a close-up's class
_STILLS = 13  # a still's random stream, behind its script's seed
_ZOOM = (0.8, 1.8)
_DESERTED = 0.05  # share of pictures that show furniture alone


def deal_clips(num_classes: int, spec: WorldSpec) -> list[Clip]:
    """The clips of the first classes; all classes come equally often."""
    clips = []
    for place, split in enumerate(("train", "val")):
        shares = {str(label): 1.0 for label in range(len(CLASSES))}
        rng = generator(spec.seed, _CLIPS, place)
        labels = map(int, deck(shares, spec.pretraining_clips[place], rng))
        clips += [(split, k, label) for k, label in enumerate(labels) if label < num_classes]
    return clips


def close_up(spec: WorldSpec, split: str, index: int, label: int) -> Script:
    """The script of clip number ``index`` of a split, of class ``label``."""
    seed = (spec.seed, _CLIPS, ("train", "val").index(split), index + 1)
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
    setting = str(rng.choice([*WORLD["settings"]]))
    return Script("pretraining", video, *times, clothed, camera, setting, seed)


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


def _other_world(spec: WorldSpec) -> WorldSpec:
    """Where the pictures are taken: a quarter of them in movies, a quarter in clips."""
    quarters = [-(-number // 4) for number in spec.pretraining_clips]
    return replace(spec, seed=spec.seed + 1_000, movies=(*quarters, 0), clips=(*quarters, 0))


def deal_stills(spec: WorldSpec) -> list[Still]:
    """What every picture shows: movies, clips, and close-ups of all classes in turns."""
    jobs: list[Still] = []
    for number, split in zip(spec.pretraining_clips, ("train", "val"), strict=True):
        plans = [p for source in SOURCES for p in plan_split(_other_world(spec), source, split)]
        labels = [k % len(CLASSES) for k in range(number - len(plans))]
        jobs += [(split, index, scene) for index, scene in enumerate([*plans, *labels])]
    return jobs


def compose(spec: WorldSpec, job: Still) -> tuple[Script, float, dict[int, Box]]:
    """The script of a picture, its second, and the boxes in pixels of the persons in it."""
    split, index, scene = job
    spec = _other_world(spec)
    plan = isinstance(scene, Plan)
    script = write_script(spec, scene) if plan else close_up(spec, split, index, scene)
    rng = generator(*script.seed, _STILLS)
    t, zoom = rng.uniform(0, script.seconds), exp(rng.uniform(*map(log, _ZOOM)))
    # the wave of the camera's zoom has its crest at t
    phase = pi / 4 - pi * t / (script.camera.period * 1.37)
    script = replace(script, camera=replace(script.camera, zoom=zoom - 1, phase=phase))
    return script, t, {} if rng.random() < _DESERTED else visible(script, t)


def draw_still(spec: WorldSpec, folder: Path, job: Still) -> dict[Path, list]:
    """Write one picture; returns its rows (image, annotations) of the split's JSON file.

    A person without a box is not drawn, so that every person in a picture is annotated.
    """
    split, index, _ = job
    script, t, boxes = compose(spec, job)
    picture = Stage(script).frame(t, [p.number for p in script.persons if p.number not in boxes])
    # an id names one picture of both splits
    image_id = index + 1 + (spec.pretraining_clips[0] if split == "val" else 0)
    path = folder / split / f"{image_id:012d}.jpg"
    path.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise OSError(f"{path}: could not be written")
    height, width = picture.shape[:2]
    image = {"id": image_id, "file_name": path.name, "width": width, "height": height}
    annotations = []
    for x1, y1, x2, y2 in boxes.values():
        x, y, w, h = (round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1))
        row = {"image_id": image_id, "category_id": 1, "bbox": [x, y, w, h]}
        annotations.append(row | {"area": round(w * h, 2), "iscrowd": 0})
    return {folder / "annotations" / f"instances_{split}.json": [(image, annotations)]}


def write_instances(_: Path, files: dict[Path, list]) -> None:
    """Write COCO's JSON of both splits."""
    for path, rows in files.items():
        annotations = [annotation for _, of_picture in rows for annotation in of_picture]
        instances = {
            "info": {"description": "the miniature's stills"},
            "images": [image for image, _ in rows],
            "annotations": [{"id": k, **one} for k, one in enumerate(annotations, 1)],
            "categories": [{"id": 1, "name": "person"}],
        }
        write_whole(path, json.dumps(instances))

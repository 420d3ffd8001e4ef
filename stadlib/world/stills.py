"""Still pictures in COCO's layout: a person detector learns on them first (paper section 3.1).

They are frames of close-ups, movies and clips that belong to no split of the world, seen from
nearer or farther, so that people are of many sizes and cut off by the picture's edge.
"""

from __future__ import annotations

import json
from dataclasses import replace
from math import exp, log, pi
from pathlib import Path

import cv2

from stadlib.world import WorldSpec
from stadlib.world.annotate import Box, visible
from stadlib.world.close_ups import CLASSES, close_up
from stadlib.world.render import Stage
from stadlib.world.script import SOURCES, Plan, Script, generator, plan_split, write_script

Job = tuple[str, int, Plan | int]  # split, number in it, a video's plan or a close-up's class
_STREAM = 13  # of a picture's random numbers, behind its script's seed
_ZOOM = (0.8, 1.8)
_DESERTED = 0.05  # share of pictures that show furniture alone


def _other_world(spec: WorldSpec) -> WorldSpec:
    """Where the pictures are taken: a quarter of them in movies, a quarter in clips."""
    quarters = [-(-number // 4) for number in spec.pretraining_clips]
    return replace(spec, seed=spec.seed + 1_000, movies=(*quarters, 0), clips=(*quarters, 0))


def deal(spec: WorldSpec) -> list[Job]:
    """What every picture shows: movies, clips, and close-ups of all classes in turns."""
    jobs: list[Job] = []
    for number, split in zip(spec.pretraining_clips, ("train", "val"), strict=True):
        plans = [p for source in SOURCES for p in plan_split(_other_world(spec), source, split)]
        labels = [k % len(CLASSES) for k in range(number - len(plans))]
        jobs += [(split, index, scene) for index, scene in enumerate([*plans, *labels])]
    return jobs


def compose(spec: WorldSpec, job: Job) -> tuple[Script, float, dict[int, Box]]:
    """The script of a picture, its second, and the boxes in pixels of the persons in it."""
    split, index, scene = job
    spec = _other_world(spec)
    plan = isinstance(scene, Plan)
    script = write_script(spec, scene) if plan else close_up(spec, split, index, scene)
    rng = generator(*script.seed, _STREAM)
    t, zoom = rng.uniform(0, script.seconds), exp(rng.uniform(*map(log, _ZOOM)))
    # the wave of the camera's zoom has its crest at t
    phase = pi / 4 - pi * t / (script.camera.period * 1.37)
    script = replace(script, camera=replace(script.camera, zoom=zoom - 1, phase=phase))
    return script, t, {} if rng.random() < _DESERTED else visible(script, t)


def draw(spec: WorldSpec, folder: Path, job: Job) -> tuple[dict, list[dict]]:
    """Write one picture; returns its row of ``images`` and its rows of ``annotations``.

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
    annotations = []
    for x1, y1, x2, y2 in boxes.values():
        x, y, w, h = (round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1))
        row = {"image_id": image_id, "category_id": 1, "bbox": [x, y, w, h]}
        annotations.append(row | {"area": round(w * h, 2), "iscrowd": 0})
    image = {"id": image_id, "file_name": path.name, "width": width, "height": height}
    return image, annotations


def write_instances(folder: Path, jobs: list[Job], rows: list[tuple[dict, list[dict]]]) -> None:
    """Write COCO's JSON of both splits."""
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        part = [row for job, row in zip(jobs, rows, strict=True) if job[0] == split]
        annotations = [annotation for _, of_picture in part for annotation in of_picture]
        instances = {
            "info": {"description": "the miniature's stills"},
            "images": [image for image, _ in part],
            "annotations": [{"id": k, **one} for k, one in enumerate(annotations, 1)],
            "categories": [{"id": 1, "name": "person"}],
        }
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(instances), encoding="utf-8")

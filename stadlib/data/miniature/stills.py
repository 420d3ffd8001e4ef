"""Still pictures in COCO's layout: what a person detector learns on first (paper section 3.1)."""

from __future__ import annotations

import json
from collections.abc import Container
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from stadlib.data.miniature import classes
from stadlib.data.miniature.annotate import Box, joints_at, visible
from stadlib.data.miniature.figures import bounds
from stadlib.data.miniature.render import Stage
from stadlib.data.miniature.scenes import MOMENT, NUMBERS, STREAM, Scene, compose
from stadlib.data.miniature.script import SIZE, generator
from stadlib.data.miniature.spec import WorldSpec
from stadlib.data.miniature.store import Progress, in_parallel, is_complete, rendered_whole

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
            numbers = classes.deck(NUMBERS, spec.pretraining_clips[place], rng)
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

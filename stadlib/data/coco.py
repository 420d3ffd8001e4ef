"""COCO's JSON of boxes, which a person detector learns from (paper section 3.1)."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from stadlib.base import InputError

_FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


@dataclass(frozen=True, eq=False)
class Still:
    """One picture and the boxes of one category in it. N may be 0."""

    path: Path
    boxes: np.ndarray  # (N, 4) float32, x1 y1 x2 y2 in pixels, inside the picture
    width: int  # in pixels, as the file says
    height: int


def read_coco(path: Path, folder: Path, category: str = "person") -> list[Still]:
    """Every picture (below ``folder``) of a file such as ``instances_train2017.json``, in order.

    Groups (``iscrowd`` 1) and boxes without area are left out; boxes are cut at the picture's edge.
    A picture need not exist to be listed.
    """
    coco = _load(path)
    kinds = coco.getCatIds(catNms=[category])
    if not kinds:
        names = ", ".join(str(kind["name"]) for kind in coco.dataset["categories"]) or "none at all"
        raise InputError(f"{path}: no category {category!r}; there are {names}")
    stills = []
    for number, image in enumerate(coco.dataset["images"]):
        size, name = (image["width"], image["height"]), image["file_name"]
        if not all(isinstance(side, int) and side > 0 for side in size):
            raise InputError(f"{path}: images[{number}]: {size} is no width and height; mend it")
        inner = Path(name) if isinstance(name, str) else Path()
        if not inner.parts or inner.anchor or ".." in inner.parts:
            problem = f"file_name {name!r} names no file inside {folder}; mend it"
            raise InputError(f"{path}: images[{number}]: {problem}")
        rows = coco.imgToAnns[image["id"]]
        rows = [r for r in rows if r["category_id"] == kinds[0] and not r.get("iscrowd", 0)]
        for row in rows:
            bbox = row["bbox"] if isinstance(row["bbox"], list) else []
            if len(bbox) != 4 or not all(isinstance(x, int | float) and isfinite(x) for x in bbox):
                problem = f"bbox {row['bbox']!r} is not x, y, width, height; mend it"
                raise InputError(f"{path}: annotations: id {row['id']}: {problem}")
        corners = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        corners = np.clip(corners, 0, np.tile(size, 2))
        kept = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        stills.append(Still(folder / inner, corners[kept].astype(np.float32), *size))
    return stills


def _load(path: Path) -> COCO:
    """The file with pycocotools' index; every entry has its fields, and ids fit together."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected COCO's instances as JSON") from None
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error}); replace it") from error
    for key, fields in _FIELDS.items():
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise InputError(f"{path}: no list {key!r}; a file of COCO has {', '.join(_FIELDS)}")
        for number, entry in enumerate(data[key]):
            for field in fields:
                value = entry.get(field) if isinstance(entry, dict) else None
                if value is None or (field.endswith("id") and not isinstance(value, int | str)):
                    problem = f"{field!r} is {value!r}; mend it or drop the entry"
                    raise InputError(f"{path}: {key}[{number}]: {problem}")
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    if len(coco.imgs) < len(data["images"]):
        raise InputError(f"{path}: images: an id occurs twice; give every image its own")
    for number, row in enumerate(data["annotations"]):
        if row["image_id"] not in coco.imgs:
            problem = f"image_id {row['image_id']!r} is not listed; add or drop it"
            raise InputError(f"{path}: annotations[{number}]: {problem}")
    return coco

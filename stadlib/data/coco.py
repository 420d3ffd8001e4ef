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
    """One picture and the boxes of one category in it. N may be 0.

    Attributes:
        path: the picture's file.
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels, inside the picture.
        width: of the picture in pixels, as the file says.
        height: likewise.
    """

    path: Path
    boxes: np.ndarray
    width: int
    height: int


def read_coco(path: Path, folder: Path, category: str = "person") -> list[Still]:
    """Every picture of a file such as ``instances_train2017.json``, in the file's order.

    Groups (``iscrowd`` 1) are left out, boxes are cut at the picture's edge, and boxes without
    area are left out. A picture need not exist to be listed.

    Args:
        path: JSON with ``images``, ``annotations`` and ``categories``.
        folder: of the pictures.
        category: name of the one to read.

    Raises:
        InputError: names the file and what in it cannot be used.
    """
    coco = _load(path)
    kinds = coco.getCatIds(catNms=[category])
    if not kinds:
        names = ", ".join(str(kind["name"]) for kind in coco.dataset["categories"]) or "none at all"
        raise InputError(f"{path}: no category {category!r}; there are {names}")
    stills = []
    for number, image in enumerate(coco.dataset["images"]):
        where = f"{path}: images[{number}]"
        size = image["width"], image["height"]
        if not all(isinstance(side, int) and side > 0 for side in size):
            raise InputError(f"{where}: {size} is no width and height; mend it")
        name = image["file_name"]
        inner = Path(name) if isinstance(name, str) else Path()
        if not inner.parts or inner.anchor or ".." in inner.parts:
            raise InputError(f"{where}: file_name {name!r} names no file inside {folder}; mend it")
        boxes = []
        for row in coco.imgToAnns[image["id"]]:
            if row["category_id"] == kinds[0] and not row.get("iscrowd", 0):
                bbox = row["bbox"]
                if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_length, bbox)):
                    where = f"{path}: annotations: id {row['id']}"
                    raise InputError(f"{where}: bbox {bbox!r} is not x, y, width, height; mend it")
                boxes.append(bbox)
        corners = np.array(boxes, np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        corners = np.clip(corners, 0, np.tile(size, 2))
        kept = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        stills.append(Still(folder / inner, corners[kept].astype(np.float32), *size))
    return stills


def _load(path: Path) -> COCO:
    """The file with pycocotools' index; every entry has its fields, and ids fit together."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected COCO's instances as JSON")
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error}); replace it") from error
    for key, fields in _FIELDS.items():
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise InputError(f"{path}: no list {key!r}; a file of COCO has {', '.join(_FIELDS)}")
        for number, entry in enumerate(data[key]):
            where = f"{path}: {key}[{number}]"
            for field in fields:
                if not isinstance(entry, dict) or field not in entry:
                    raise InputError(f"{where}: no {field!r}; add it or drop the entry")
                if field.endswith("id") and not isinstance(entry[field], int | str):
                    raise InputError(f"{where}: {field} {entry[field]!r} is no number; mend it")
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    if len(coco.imgs) < len(data["images"]):
        raise InputError(f"{path}: images: an id occurs twice; give every image its own")
    for number, row in enumerate(data["annotations"]):
        if row["image_id"] not in coco.imgs:
            where = f"{path}: annotations[{number}]"
            raise InputError(f"{where}: image_id {row['image_id']!r} is not listed; add or drop it")
    return coco


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value)

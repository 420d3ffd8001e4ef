"""COCO's JSON of boxes, which a person detector learns from (paper section 3.1)."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from stadlib.base import InputError


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
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected COCO's instances as JSON")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            coco = COCO(str(path))
        kinds = coco.getCatIds(catNms=[category])
        images, annotations = coco.dataset["images"], coco.dataset["annotations"]
        unlisted = [row["image_id"] for row in annotations if row["image_id"] not in coco.imgs]
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        reason = f"{type(error).__name__} {error}"
        lists = "images, annotations and categories with their ids"
        raise InputError(f"{path}: not COCO's JSON ({reason}); it has {lists}") from None
    if not kinds:
        names = ", ".join(kind["name"] for kind in coco.dataset["categories"]) or "none at all"
        raise InputError(f"{path}: no category {category!r}; there are {names}")
    twice = len(coco.imgs) < len(images)
    if unlisted or twice:
        problem = "one occurs twice" if twice else f"{unlisted[0]!r} is missing"
        raise InputError(f"{path}: ids of images: {problem}; list every image once")
    stills = []
    for number, image in enumerate(images):
        rows = [r for r in coco.imgToAnns[image["id"]] if r["category_id"] == kinds[0]]
        try:
            boxes = [row["bbox"] for row in rows if not row.get("iscrowd", 0)]
            inner, size = Path(image["file_name"]), (image["width"], image["height"])
            numbers = [*size, *(number for box in boxes for number in box)]
            sound = all(type(n) in (int, float) for n in numbers) and np.isfinite(numbers).all()
            inside = inner.parts and not inner.anchor and ".." not in inner.parts
            if not (sound and inside and min(size) > 0 and all(len(box) == 4 for box in boxes)):
                raise ValueError(f"{inner} of {size} with {boxes}")
        except (KeyError, TypeError, ValueError) as error:
            remedy = f"mend file_name (below {folder}), width, height or a bbox of 4 numbers"
            raise InputError(f"{path}: images[{number}]: {error}; {remedy}") from None
        corners = np.array(boxes, np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        corners = np.clip(corners, 0, np.tile(size, 2))
        kept = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        stills.append(Still(folder / inner, corners[kept].astype(np.float32), *size))
    return stills

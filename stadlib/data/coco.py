"""COCO's JSON of boxes, read as it is: what a person detector learns on (paper section 3.1)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from stadlib.base import InputError

_LISTS = ("images", "annotations", "categories")


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

    Groups (``iscrowd`` 1) are left out, boxes are cut at the picture's edge, and what has no area
    then is left out too. A picture need not exist to be listed.

    Args:
        path: JSON with ``images``, ``annotations`` and ``categories``.
        folder: where the pictures lie.
        category: name of the one to read.

    Raises:
        InputError: names the file and what in it cannot be used.
    """
    lists = _load(path)
    sizes = _sizes(lists["images"], path)
    files = _files(lists["images"], path, folder)
    owners, boxes = _boxes(lists, path, category)
    top = np.tile(sizes[owners], 2)  # width, height, width, height
    boxes = np.clip(boxes, 0, top)
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = np.argsort(owners[kept], kind="stable")
    boxes = boxes[kept][order].astype(np.float32)
    counts = np.bincount(owners[kept], minlength=len(files))
    ends = np.cumsum(counts)
    return [
        Still(file, boxes[start:end], int(width), int(height))
        for file, start, end, (width, height) in zip(files, ends - counts, ends, sizes, strict=True)
    ]


def _load(path: Path) -> dict[str, list[dict]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected COCO's instances as JSON")
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error}); replace it") from error
    for key in _LISTS:
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise InputError(f"{path}: no list {key!r}; a file of COCO has {', '.join(_LISTS)}")
    return data


def _column(rows: list[dict], key: str, where: str) -> list:
    """``[row[key] for row in rows]``; ``where`` names file and list."""
    try:
        return [row[key] for row in rows]
    except (KeyError, TypeError):
        bad = next(k for k, row in enumerate(rows) if not isinstance(row, dict) or key not in row)
        raise InputError(f"{where}[{bad}]: no {key!r}; add it or drop the entry") from None


def _ids(rows: list[dict], key: str, where: str) -> list[int | str]:
    ids = _column(rows, key, where)
    for k, name in enumerate(ids):
        if not isinstance(name, int | str):
            raise InputError(f"{where}[{k}]: {key} {name!r} is no number; mend it")
    return ids


def _sizes(images: list[dict], path: Path) -> np.ndarray:
    """(images, 2) int64 widths and heights."""
    sides = [_column(images, key, f"{path}: images") for key in ("width", "height")]
    for k, pair in enumerate(zip(*sides, strict=True)):
        if not all(isinstance(side, int) and side > 0 for side in pair):
            raise InputError(f"{path}: images[{k}]: {pair} is no width and height; mend it")
    return np.array(sides, np.int64).reshape(2, -1).T


def _files(images: list[dict], path: Path, folder: Path) -> list[Path]:
    files = []
    for k, name in enumerate(_column(images, "file_name", f"{path}: images")):
        inner = Path(name) if isinstance(name, str) else Path()
        if not inner.parts or inner.anchor or ".." in inner.parts:
            place = f"{path}: images[{k}]"
            raise InputError(f"{place}: file_name {name!r} names no file inside {folder}; mend it")
        files.append(folder / inner)
    return files


def _boxes(
    lists: dict[str, list[dict]], path: Path, category: str
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) positions among the images and (N, 4) corners of the category, uncut."""
    wanted = _category(lists["categories"], path, category)
    rows, where = lists["annotations"], f"{path}: annotations"
    place = _places(lists["images"], path)
    owners = [place.get(image, -1) for image in _ids(rows, "image_id", where)]
    if -1 in owners:
        row = rows[owners.index(-1)]
        name, image = row.get("id"), row["image_id"]
        raise InputError(f"{where}: id {name}: image_id {image!r} is not listed; add or drop it")
    kinds = _column(rows, "category_id", where)
    chosen = [k for k, row in enumerate(rows) if kinds[k] == wanted and not row.get("iscrowd", 0)]
    bboxes = _column(rows, "bbox", where)
    corners = _corners([bboxes[k] for k in chosen], [rows[k] for k in chosen], where)
    return np.array([owners[k] for k in chosen], np.int64), corners


def _category(rows: list[dict], path: Path, category: str) -> int:
    names = _column(rows, "name", f"{path}: categories")
    ids = _column(rows, "id", f"{path}: categories")
    if category not in names:
        there = ", ".join(map(str, names)) or "none at all"
        raise InputError(f"{path}: no category {category!r}; there are {there}")
    return ids[names.index(category)]


def _places(images: list[dict], path: Path) -> dict[int, int]:
    """Position of an image by its id."""
    ids = _ids(images, "id", f"{path}: images")
    place = {name: k for k, name in enumerate(ids)}
    if len(place) < len(ids):
        twice = next(name for k, name in enumerate(ids) if place[name] != k)
        raise InputError(f"{path}: images: id {twice} occurs twice; give every image its own")
    return place


def _corners(bboxes: list, rows: list[dict], where: str) -> np.ndarray:
    """(N, 4) x1 y1 x2 y2 out of COCO's x, y, width, height."""
    for row, bbox in zip(rows, bboxes, strict=True):
        if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_length, bbox))):
            place = f"{where}: id {row.get('id')}"
            raise InputError(f"{place}: bbox {bbox!r} is not x, y, width, height; mend it")
    xywh = np.array(bboxes, np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value)

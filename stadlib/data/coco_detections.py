"""Person boxes from COCO's detections: entries of ``image_id``, ``bbox`` and ``score`` in JSON.

COCO knows images and pixels, the study videos, seconds and fractions. What a file does not say
about them is asked for; nothing is guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from stadlib.config import InputError

_PERSON = 1  # COCO's category id, where the file has no table of its own
_VIDEO_KEYS = ("video", "video_id", "movie")  # the last as AlphAction writes it
_LIMIT = 1e15  # no pixel, score or second is larger; JSON also lets NaN and Infinity pass
# No fraction of a frame is larger, were the box twice the frame; no person is so few pixels high.
_LARGEST = 2.0

# video,0902  video/0902  video/902.5.jpg; a zero before four or more digits counts frames.
_NAME = re.compile(r"([^/\\]+)[,/]((?!0\d{4})\d+(?:\.\d+)?)(?:\.(?:jpg|jpeg|png))?", re.IGNORECASE)
_NAMING = "give \"video\" and \"timestamp\" (seconds), or name it 'video,0902' or 'video/0902.jpg'"


class _Image(NamedTuple):
    """A keyframe; its frame's size in pixels, or None where boxes are fractions already."""

    video: str
    timestamp: float
    size: tuple[float, float] | None


def read_detections(path: Path) -> pd.DataFrame:
    """Read COCO-style detections, of persons only.

    Two forms, both of entries ``{"image_id", "bbox": [x, y, width, height], "score"}``:

    - a dict, whose ``images`` tell each image's ``width`` and ``height`` in pixels; its
      ``annotations`` are the entries, in pixels. A detector's results go there as they are.
    - a list of entries: in pixels where an entry tells its ``width`` and ``height``, else in
      fractions of the frame.

    An image (in a list: an entry) tells its keyframe by ``video`` (or ``video_id``, ``movie``)
    and ``timestamp`` in seconds, else by its ``file_name`` or its id: ``video,0902`` or
    ``video/0902``, also with .jpg or .png. Names such as ``video_000902.jpg`` are refused: the
    field writes seconds and frame numbers so. Where several ``category_id`` occur, or the file
    has COCO's table of ``categories``, others than persons (by name, else id 1) are dropped.

    Returns:
        ``video``, ``timestamp`` (seconds), ``x1``, ``y1``, ``x2``, ``y2`` (fractions of the
        frame), ``score``; a row a person, in the file's order.

    Raises:
        InputError: one line that names file, entry or image (counted from 1), and the remedy.
    """
    content = _content(path)
    images = _images(path, content["images"]) if isinstance(content, dict) else None
    rows = []
    for where, entry in _persons(path, content):
        name = entry.get("image_id")
        if images is None:
            image = _image(where, entry, name, sized="width" in entry or "height" in entry)
        elif isinstance(name, int | str) and name in images:
            image = images[name]
        else:
            raise InputError(f"{where}: image_id {name!r} is not among the images; add it there")
        score = entry.get("score")
        if not _is_number(score):
            remedy = 'detections have one; add "score", 1 for a box that somebody drew'
            raise InputError(f"{where}: score {score!r} is no number; {remedy}")
        rows.append((*image[:2], *_corners(where, entry.get("bbox"), image.size), score))
    return pd.DataFrame(rows, columns=["video", "timestamp", "x1", "y1", "x2", "y2", "score"])


def _content(path: Path) -> list | dict:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON, {error}; write it again") from None
    if isinstance(content, dict):
        lists = [content.get(name) for name in ("images", "annotations")]
    else:
        lists = [content]
    if not all(isinstance(part, list) for part in lists):
        remedy = 'give a list of detections, or {"images": [...], "annotations": [...]}'
        raise InputError(f"{path}: no COCO file; {remedy}")
    return content


def _images(path: Path, entries: list) -> dict[int | str, _Image]:
    """The images of a file's table, by id."""
    images: dict[int | str, _Image] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{path}: image {number}"
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, int | str):
            raise InputError(f'{where}: no id; give {{"id", "width", "height", "file_name"}}')
        if name in images:
            raise InputError(f"{where}: id {name!r} is that of an earlier image; keep one of them")
        images[name] = _image(where, entry, name, sized=True)
    return images


def _persons(path: Path, content: list | dict) -> Iterator[tuple[str, dict]]:
    """The entries of persons, each with its place in the file."""
    entries, person = content, None
    if isinstance(content, dict):
        entries, table = content["annotations"], content.get("categories")
        if isinstance(table, list) and table:
            named = [c for c in table if isinstance(c, dict) and c.get("name") == "person"]
            person = named[0].get("id") if named else _PERSON
    places = [(f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1)]
    for where, entry in places:
        if not isinstance(entry, dict):
            raise InputError(f'{where}: no detection; give {{"image_id", "bbox", "score"}}')
        if not isinstance(category := entry.get("category_id", _PERSON), int):
            raise InputError(f"{where}: category_id {category!r} is no whole number; mend it")
    found = {entry["category_id"] for _, entry in places if "category_id" in entry}
    if person is None and len(found) < 2:
        return iter(places)  # a detector of persons alone may number them as it likes
    person = _PERSON if person is None else person
    if places and found and person not in found:
        raise InputError(f"{path}: nothing has category_id {person}, a person's; change the ids")
    return ((w, entry) for w, entry in places if entry.get("category_id", person) == person)


def _image(where: str, entry: dict, name: object, *, sized: bool) -> _Image:
    """The keyframe that an image, or an entry of a list, is of."""
    size = (entry.get("width"), entry.get("height"))
    if sized and not all(_is_number(side) and side > 0 for side in size):
        word = f"width {size[0]!r}, height {size[1]!r}"
        raise InputError(f"{where}: {word}; give both, in pixels")
    video = next((entry[key] for key in _VIDEO_KEYS if key in entry), None)
    if video is not None and "timestamp" in entry:
        second = _second(entry["timestamp"])
        if not isinstance(video, str) or not video or second is None:
            word = f"video {video!r}, timestamp {entry['timestamp']!r}"
            raise InputError(f"{where}: {word}; give the video's id as text, and seconds")
        return _Image(video, second, size if sized else None)
    names = [word for word in (entry.get("file_name"), name) if word is not None]
    for word in names:
        if isinstance(word, str) and (match := _NAME.fullmatch(word)):
            return _Image(match[1], float(match[2]), size if sized else None)
    shown = repr(names[0]) if names else "without a name"
    raise InputError(f"{where}: image {shown} tells no video and second; {_NAMING}")


def _corners(where: str, bbox: object, size: tuple[float, float] | None) -> tuple[float, ...]:
    """Corners in fractions of the frame from ``x, y, width, height``."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise InputError(f"{where}: bbox {bbox!r} is not x, y, width, height; mend the entry")
    x, y, width, height = bbox
    if x + width <= x or y + height <= y:
        raise InputError(f"{where}: bbox {bbox} has no area; mend or drop the entry")
    if size is None:
        if max(map(abs, bbox)) > _LARGEST:
            remedy = 'add "width" and "height" to each entry, or an "images" table'
            raise InputError(f"{where}: bbox {bbox} is in pixels of a frame of any size; {remedy}")
        return x, y, x + width, y + height
    if max(width, height) <= 1:
        remedy = "multiply it by the frame's width and height"
        raise InputError(f"{where}: bbox {bbox} is within a pixel, a fraction perhaps; {remedy}")
    return x / size[0], y / size[1], (x + width) / size[0], (y + height) / size[1]


def _second(value: object) -> float | None:
    try:
        second = float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None
    return second if _is_number(second) else None


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -_LIMIT < value < _LIMIT

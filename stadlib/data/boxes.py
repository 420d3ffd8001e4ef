"""Person boxes without actions, in the three forms in which the field shares them.

AVA's CSV, COCO's detections as JSON, and dense proposals as a pickle. Nothing that a file leaves
out is guessed, and nothing that a pickle names is run.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError, written_whole
from stadlib.data.rows import BOX, COLUMNS, NO_LABEL, Form, read_rows

BOX_COLUMNS = tuple(name for name in COLUMNS if name != "action_id")
_CSV = Form(
    widths=(8,),
    area=True,
    actions=(NO_LABEL,),
    other_action="in a file of person boxes; leave it empty",
    empty_action=True,
)
_PERSON = 1  # COCO's category id, where the file has no table of its own
_LIMIT = 1e15  # no pixel, score or second is larger; JSON also lets NaN and Infinity pass
_LARGEST = 2.0  # no fraction of a frame is larger, and no person is so few pixels high
# video,0902  video/0902  video/902.5.jpg; a zero before four or more digits counts frames.
_NAME = re.compile(r"([^/\\]+)[,/]((?!0\d{4})\d+(?:\.\d+)?)(?:\.(?:jpg|jpeg|png))?", re.IGNORECASE)
_NAMING = "give \"video\" and \"timestamp\" (seconds), or name it 'video,0902' or 'video/0902.jpg'"
_PLAIN = "save a plain dict of 'video,0902': array of x1 y1 x2 y2 score, or write AVA's .csv"


def read_person_boxes(path: Path) -> pd.DataFrame:
    """Read a file of person boxes in the form of its suffix.

    - ``.csv``: AVA's rows ``video,timestamp,x1,y1,x2,y2,,score``. The action is empty, or -1 as in
      the training list of the long-term feature banks. A file without rows has no boxes.
    - ``.json``: COCO's detections, entries ``{"image_id", "bbox": [x, y, width, height],
      "score"}``. In a dict of ``images`` and ``annotations``, each image has its ``width`` and
      ``height``, and boxes are in pixels. In a list, an entry with ``width`` and ``height`` is in
      pixels, another in fractions of the frame. An image (in a list: an entry) names its keyframe
      by ``video`` (or ``video_id``, ``movie``) and ``timestamp`` in seconds, or by its
      ``file_name`` or id: ``video,0902`` or ``video/0902``, also with .jpg or .png. Names such as
      ``video_000902.jpg`` are refused, because the field writes seconds and frame numbers so.
      Where categories differ, only persons are kept (by name, else id 1).
    - ``.pkl``: mmaction2's ``ava_dense_proposals_*.pkl``, a dict of ``"video,0902"`` to boxes
      (n, 4) or (n, 5), corners and a score (1 where there is none), arrays or lists, of any pickle
      protocol, Python and numpy version.

    Returns:
        A row a box, in the file's order: ``video`` (text), ``timestamp`` (seconds), corners
        ``x1 y1 x2 y2`` as fractions of the frame (some detectors leave them slightly outside
        [0, 1]: they stay), ``score``; all but the video are float64.

    Raises:
        InputError: the file is missing or of another form, or a row, an entry or a key cannot be
            read; one line that names file, place and word.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected rows {','.join(COLUMNS)}")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        boxes = read_rows(path, _CSV)[list(BOX_COLUMNS)]
    elif suffix in (".json", ".pkl"):
        rows = _read_coco(path) if suffix == ".json" else _read_proposals(path)
        boxes = pd.DataFrame(rows, columns=list(BOX_COLUMNS))
    else:
        choices = "a .csv of AVA's form, a COCO .json or a .pkl of proposals"
        raise InputError(f"{path}: person boxes come in {choices}; give one of the three")
    return boxes.astype({"video": str, **dict.fromkeys(BOX_COLUMNS[1:], np.float64)})


def write_person_boxes(boxes: pd.DataFrame, path: Path) -> None:
    """Write boxes in AVA's form, whole or not at all; :func:`read_person_boxes` reads them back.

    Args:
        boxes: columns as :func:`read_person_boxes` returns them; further columns are left out.
            Times, corners and scores are written as ``%.6f``.
        path: a ``.csv`` file.

    Raises:
        InputError: another suffix, a column is missing, or a row could not be read back; names
            the row, counted from 1.
    """
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: person boxes are written as .csv; rename it")
    if missing := [name for name in BOX_COLUMNS if name not in boxes]:
        needed = ", ".join(BOX_COLUMNS)
        raise InputError(f"{path}: column {missing[0]!r} is missing; needed are {needed}")
    videos = boxes["video"].astype(object).where(boxes["video"].notna(), "")
    numbers = boxes[list(BOX_COLUMNS[1:])].to_numpy(np.float64)
    _, x1, y1, x2, y2, _ = np.round(numbers, 6).T  # six decimals may leave nothing of a box
    faults = {
        "no video id; give one": (videos == "").to_numpy(),
        "a number that is not finite; drop the row": ~np.isfinite(numbers).all(axis=1),
        "a box without area in six decimals; drop the row": (x1 >= x2) | (y1 >= y2),
    }
    for text, wrong in faults.items():
        if wrong.any():
            raise InputError(f"{path}: row {int(wrong.argmax()) + 1} to write has {text}")
    columns = dict(zip(BOX_COLUMNS[1:], numbers.T, strict=True))
    table = pl.DataFrame({"video": pl.Series(videos.to_list(), dtype=pl.String), **columns})
    table = table.with_columns(action_id=pl.lit(None, pl.String)).select(COLUMNS)
    with written_whole(path) as temporary:
        table.write_csv(temporary, include_header=False, float_precision=6, float_scientific=False)


# ------------------------------------------------------------------------------- COCO's detections


Image = tuple[str, float, tuple[float, float] | None]  # video, second, size in pixels if any


def _read_coco(path: Path) -> list[tuple]:
    """The boxes of a file of COCO's detections, rows of :data:`BOX_COLUMNS`."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON, {error}; write it again") from None
    is_list = isinstance(content, list)
    tables = {"images": [], "annotations": content} if is_list else content
    names = ("images", "annotations")
    if not isinstance(tables, dict) or not all(isinstance(tables.get(n), list) for n in names):
        remedy = 'give a list of detections, or {"images": [...], "annotations": [...]}'
        raise InputError(f"{path}: no COCO file; {remedy}")
    images: dict[int | str, Image] = {}
    for number, entry in enumerate(tables["images"], 1):
        where = f"{path}: image {number}"
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, int | str):
            raise InputError(f'{where}: no id; give {{"id", "width", "height", "file_name"}}')
        if name in images:
            raise InputError(f"{where}: id {name!r} is that of an earlier image; keep one of them")
        images[name] = _image(where, entry, name, sized=True)
    rows = []
    for where, entry in _persons(path, tables):
        name = entry.get("image_id")
        if is_list:
            image = _image(where, entry, name, sized="width" in entry or "height" in entry)
        elif isinstance(name, int | str) and name in images:
            image = images[name]
        else:
            raise InputError(f"{where}: image_id {name!r} is not among the images; add it there")
        score = entry.get("score")
        if not _is_number(score):
            remedy = 'detections have one; add "score", 1 for a box that a person drew'
            raise InputError(f"{where}: score {score!r} is no number; {remedy}")
        rows.append((*image[:2], *_corners(where, entry, image[2]), score))
    return rows


def _persons(path: Path, tables: dict[str, list]) -> list[tuple[str, dict]]:
    """The entries of persons, each with its place in the file."""
    places = [(f"{path}: entry {n}", entry) for n, entry in enumerate(tables["annotations"], 1)]
    for where, entry in places:
        if not isinstance(entry, dict):
            raise InputError(f'{where}: no detection; give {{"image_id", "bbox", "score"}}')
        if not isinstance(category := entry.get("category_id", _PERSON), int):
            raise InputError(f"{where}: category_id {category!r} is no whole number; mend it")
    used = {entry["category_id"] for _, entry in places if "category_id" in entry}
    categories = tables.get("categories")
    if isinstance(categories, list) and categories:
        named = [c for c in categories if isinstance(c, dict) and c.get("name") == "person"]
        person = named[0].get("id") if named else _PERSON
    elif len(used) < 2:
        return places  # a detector of persons alone may number them as it likes
    else:
        person = _PERSON
    if used and person not in used:
        raise InputError(f"{path}: nothing has category_id {person}, a person's; change the ids")
    return [place for place in places if place[1].get("category_id", person) == person]


def _image(where: str, entry: dict, name: object, *, sized: bool) -> Image:
    """The keyframe of an image, or of an entry of a list."""
    size = (entry.get("width"), entry.get("height"))
    if sized and not all(_is_number(side) and side > 0 for side in size):
        raise InputError(f"{where}: width {size[0]!r}, height {size[1]!r}; give both, in pixels")
    video = next((entry[key] for key in ("video", "video_id", "movie") if key in entry), None)
    if video is not None and "timestamp" in entry:
        try:
            second = float(entry["timestamp"])
        except (TypeError, ValueError, OverflowError):
            second = None
        if not isinstance(video, str) or not video or not _is_number(second):
            words = f"video {video!r}, timestamp {entry['timestamp']!r}"
            raise InputError(f"{where}: {words}; give the video's id as text, and seconds")
        return video, second, size if sized else None
    names = [word for word in (entry.get("file_name"), name) if word is not None]
    for word in names:
        if isinstance(word, str) and (match := _NAME.fullmatch(word)):
            return match[1], float(match[2]), size if sized else None
    shown = repr(names[0]) if names else "without a name"
    raise InputError(f"{where}: image {shown} tells no video and second; {_NAMING}")


def _corners(where: str, entry: dict, size: tuple[float, float] | None) -> tuple[float, ...]:
    """Corners in fractions of the frame from ``x, y, width, height``."""
    bbox = entry.get("bbox")
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


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -_LIMIT < value < _LIMIT


# ---------------------------------------------------------------------------------- dense proposals


def _read_proposals(path: Path) -> dict[str, np.ndarray]:
    """The boxes of a pickle of proposals, as columns."""
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin-1").load()  # of Python 2 too
    # By Python's documentation, what is no sound pickle may end in nearly any exception.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: refused, {reason}; {_PLAIN}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, no dict; {_PLAIN}")
    keyframes = [_proposed(path, *item) for item in content.items()]
    videos, seconds, parts = zip(*keyframes, strict=True) if keyframes else ((), (), ())
    counts = [len(part) for part in parts]
    numbers = np.concatenate([*parts, np.empty((0, 5))])
    x1, y1, x2, y2, _ = numbers.T
    faults = {
        "a number that is not finite; mend or drop it": ~np.isfinite(numbers).all(axis=1),
        "corners in pixels; divide them by the frame's width and height": (
            np.abs(numbers[:, :4]).max(axis=1, initial=0) > _LARGEST
        ),
        "x1 >= x2; swap them or drop the box": x1 >= x2,
        "y1 >= y2; swap them or drop the box": y1 >= y2,
    }
    for text, wrong in faults.items():
        if wrong.any():
            first = int(wrong.argmax())
            number = int(np.repeat(np.arange(len(counts)), counts)[first])
            where = f"{path}: key {list(content)[number]!r}, row {first - sum(counts[:number]) + 1}"
            box = " ".join(f"{value:g}" for value in numbers[first])
            raise InputError(f"{where}: {box} has {text}")
    columns = dict(zip((*BOX, "score"), numbers.T, strict=True))
    video = np.repeat(np.array(videos, dtype=object), counts)
    return {"video": video, "timestamp": np.repeat(np.array(seconds, float), counts), **columns}


def _proposed(path: Path, key: object, value: object) -> tuple[str, float, np.ndarray]:
    """Video, second and boxes (n, 5) of an entry of a dict of proposals."""
    where = f"{path}: key {key!r}"
    video, _, word = key.rpartition(",") if isinstance(key, str) else ("", "", "")
    try:
        second = float(word)
    except ValueError:
        second = np.nan
    if not video or not np.isfinite(second):
        raise InputError(f"{where} is no video,second; name keys as 'video,0902'")
    try:
        boxes = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        kind = type(value).__name__
        raise InputError(f"{where} holds a {kind}, no boxes; {_PLAIN}") from None
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] not in (4, 5)):
        shape = f"shape {boxes.shape}, expected (n, 4) or (n, 5)"
        raise InputError(f"{where} has {shape}: x1 y1 x2 y2 score; mend or drop it")
    if boxes.size and boxes.shape[1] == 4:
        boxes = np.column_stack([boxes, np.ones(len(boxes))])
    return video, second, boxes.reshape(-1, 5)


class _StandIn:
    """What a pickle gets for a name: it can be called, and nothing can be set on it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets attributes of what it names")


class _Number:
    """The dtype of an array: its word, and the byte order that the file sets afterwards."""

    __slots__ = ("dtype",)

    def __init__(self, word: str, *_flags: object) -> None:
        if word not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise pickle.UnpicklingError(f"it holds an array of dtype {word!r}, not of numbers")
        self.dtype = np.dtype(word)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array of numbers, made empty and filled by the file's next instruction, as numpy's."""

    __slots__ = ("values",)

    def __init__(self, *_ignored: object) -> None:
        self.values = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, number, by_columns, data = state
        self.values = _array(data, number, shape, "F" if by_columns else "C").values

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype)


def _array(data: bytes | str, number: _Number, shape: tuple, order: str = "C") -> _Array:
    """Protocol 5's ``_frombuffer``; never more values than the file has bytes for."""
    array = _Array()
    data = data.encode("latin-1") if isinstance(data, str) else data
    array.values = np.frombuffer(data, dtype=number.dtype).reshape(shape, order=order)
    return array


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """Bytes of protocols 0 to 2, written as text, or as a call without words if empty."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode("latin-1")


class _Unpickler(pickle.Unpickler):
    """Knows the few names by which arrays are pickled, and no other.

    A pickle is a small program that may name any function of any module and have it called. Here
    a name only gives a stand-in of this module, so nothing else is imported or called, and nothing
    that a file sets is there for the next one. A hostile file can still be wrong or too large for
    the memory; it cannot act.
    """

    stand_ins = {  # noqa: RUF012
        name: _StandIn(function)
        for core in ("numpy.core", "numpy._core")  # numpy 1 and 2
        for name, function in {
            f"{core}.multiarray._reconstruct": _Array,
            f"{core}.multiarray.scalar": lambda number, data: _array(
                data, number, ()
            ).values.item(),
            f"{core}.numeric._frombuffer": _array,
            "numpy.ndarray": _Array,
            "numpy.dtype": _Number,
            "_codecs.encode": _bytes,
            "__builtin__.bytes": _bytes,
        }.items()
    }

    def find_class(self, module: str, name: str) -> _StandIn:
        word = f"{module}.{name}"
        if word not in self.stand_ins:
            reason = f"it names {word}, which no box file needs (it was not run)"
            raise pickle.UnpicklingError(reason)
        return self.stand_ins[word]

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"it names an object outside the file, {pid!r}")

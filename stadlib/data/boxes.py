"""Person boxes without actions, in the forms in which the field passes them around.

Person boxes from COCO's detections: entries of ``image_id``, ``bbox`` and ``score`` in JSON.

COCO knows images and pixels, the study videos, seconds and fractions. What a file does not say
about them is asked for; nothing is guessed.

Dense proposals: pickled person boxes, read without running anything of the file.

A pickle is a small program. Its own instructions only make numbers, text, lists and dicts; what
makes it dangerous is that it may name any function of any module and have it called, which
``pickle.load`` does. Here every name is looked up in one table, :data:`_STAND_INS`, and nothing
else: no module is imported and none of numpy's or Python's functions is handed out. The table
holds the few names by which arrays are pickled, each with a stand-in of this module that takes
plain values, checks them and keeps numbers. Any other name is refused before anything is called.
A stand-in has no attributes that a file could set, so a file cannot change what the next one
meets. A hostile file can still be wrong, too large for the memory or too deep for the stack; it
cannot act.
"""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError, written_whole

COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")
BOX_COLUMNS = tuple(name for name in COLUMNS if name != "action_id")
_NUMBERS = BOX_COLUMNS[1:]
_SCHEMA = {name: pl.Float64 if name in _NUMBERS else pl.String for name in COLUMNS}
_NO_ACTION = ("", "-1")


def read_person_boxes(path: Path) -> pd.DataFrame:
    """Read a file of person boxes; its suffix says in which form it is.

    - ``.csv``: AVA's detection form without header, ``video,timestamp,x1,y1,x2,y2,,score``, as in
      the long-term feature banks' ``ava_val_predicted_boxes.csv``. The action's column is empty,
      or -1, which their training list gives a box without an action. Empty lines are skipped,
      and a file without rows is one without boxes.
    - ``.json``: COCO's detections (:func:`stadlib.data.coco_detections.read_detections`).
    - ``.pkl``: dense proposals (:func:`stadlib.data.proposals.read_proposals`); nothing of the
      file is run.

    Returns:
        A row a box, in the file's order: ``video`` (text), ``timestamp`` (seconds), corners
        ``x1 y1 x2 y2`` as fractions of the frame (a detector may have left some slightly outside
        [0, 1]: they stay as they are), ``score``; all but the video are float64.

    Raises:
        InputError: the file is missing or of another form, or a row, an entry or a key cannot be
            read; one line that names file, place and word.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected rows {','.join(COLUMNS)}")
    readers = {".csv": _read_csv, ".json": read_detections, ".pkl": read_proposals}
    if path.suffix.lower() not in readers:
        choices = "a .csv of AVA's form, a COCO .json or a .pkl of proposals"
        raise InputError(f"{path}: person boxes come in {choices}; give one of the three")
    boxes = readers[path.suffix.lower()](path)
    return boxes.astype({"video": str, **dict.fromkeys(_NUMBERS, np.float64)})


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
    numbers = boxes[list(_NUMBERS)].to_numpy(np.float64)
    _check_writable(path, videos.to_numpy(), numbers)
    columns = dict(zip(_NUMBERS, numbers.T, strict=True))
    table = pl.DataFrame({"video": pl.Series(videos.to_list(), dtype=pl.String), **columns})
    table = table.with_columns(action_id=pl.lit(None, pl.String)).select(COLUMNS)
    with written_whole(path) as temporary:
        table.write_csv(temporary, include_header=False, float_precision=6, float_scientific=False)


def _check_writable(path: Path, videos: np.ndarray, numbers: np.ndarray) -> None:
    _, x1, y1, x2, y2, _ = np.round(numbers, 6).T  # six decimals may leave nothing of a box
    faults = {
        "no video id; give one": videos == "",
        "a number that is not finite; drop the row": ~np.isfinite(numbers).all(axis=1),
        "a box without area in six decimals; drop the row": (x1 >= x2) | (y1 >= y2),
    }
    for text, wrong in faults.items():
        if wrong.any():
            raise InputError(f"{path}: row {int(wrong.argmax()) + 1} to write has {text}")


def _read_csv(path: Path) -> pd.DataFrame:
    boxes = _read_fast(path)
    return _read_carefully(path) if boxes is None else boxes


def _read_fast(path: Path) -> pd.DataFrame | None:
    """The rows, or None where anything is unusual."""
    content = path.read_bytes().replace(b"\r\n", b"\n").strip(b"\n")
    if b'"' in content or b"\r" in content:
        return None
    try:
        frame = pl.read_csv(content, has_header=False, schema=_SCHEMA, quote_char=None)
    except pl.exceptions.PolarsError:
        return None
    sure = pl.all_horizontal(
        pl.col(_NUMBERS).is_finite(),
        pl.col("video").is_not_null(),
        pl.col("action_id").fill_null("").is_in(_NO_ACTION),
        pl.col("x1") < pl.col("x2"),
        pl.col("y1") < pl.col("y2"),
    )
    if not frame.select(sure.fill_null(False).all()).item():
        return None
    if content.count(b",") != len(frame) * (len(COLUMNS) - 1):  # a column too many, overlooked
        return None
    names = frame["video"].unique(maintain_order=True)
    codes = frame["video"].cast(pl.Enum(names)).to_physical().to_numpy()
    video = names.to_numpy().astype(object)[codes]  # a video's rows share one text
    return pd.DataFrame({"video": video, **{name: frame[name].to_numpy() for name in _NUMBERS}})


def _read_carefully(path: Path) -> pd.DataFrame:
    """The rows, one after the other, up to the first wrong one."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{row}: not UTF-8 text; save the file as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [_parse(row, f"{path}:{reader.line_num}") for row in reader if row]
    except csv.Error as error:
        place = f"{path}:{reader.line_num}"
        raise InputError(f"{place}: no row of a table ({error}); mend the row") from error
    return pd.DataFrame(rows, columns=list(BOX_COLUMNS))


def _parse(row: list[str], where: str) -> tuple:
    if len(row) != len(COLUMNS):
        raise InputError(f"{where}: {len(row)} columns; a row is {','.join(COLUMNS)}")
    video, *numbers = row[:6]
    if not video:
        raise InputError(f"{where}: no video id; mend the row")
    if row[6] not in _NO_ACTION:
        raise InputError(f"{where}: action {row[6]!r} in a file of person boxes; leave it empty")
    values = [_number(text, where) for text in (*numbers, row[7])]
    _, x1, y1, x2, y2, _ = values
    if x1 >= x2 or y1 >= y2:
        word = f"x1 {x1} >= x2 {x2}" if x1 >= x2 else f"y1 {y1} >= y2 {y2}"
        raise InputError(f"{where}: {word}; swap or drop the row")
    return video, *values


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {text!r} is not a number; mend the row")
    return value


_PERSON = 1  # COCO's category id, where the file has no table of its own
_VIDEO_KEYS = ("video", "video_id", "movie")  # the last as AlphAction writes it
_LIMIT = 1e15  # no pixel, score or second is larger; JSON also lets NaN and Infinity pass
# No fraction of a frame is larger, were the box twice the frame; no person is so few pixels high.
_LARGEST_coco_detections = 2.0
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
        if max(map(abs, bbox)) > _LARGEST_coco_detections:
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


# No fraction of a frame is larger, were the box twice the frame; no person is so few pixels high.
_LARGEST_proposals = 2.0
_REMEDY = "save a plain dict of 'video,0902': array of x1 y1 x2 y2 score, or write AVA's .csv"


def read_proposals(path: Path) -> pd.DataFrame:
    """Read proposals in the form of mmaction2's ``ava_dense_proposals_*.FAIR.recall_93.9.pkl``.

    A pickled dict of ``"video,0902"`` (seconds) to boxes (n, 4) or (n, 5): corners
    ``x1 y1 x2 y2`` as fractions of the frame, then a score, 1 where there is none. Boxes are
    arrays of numbers or lists of lists, of any pickle protocol, Python and numpy version.

    Returns:
        ``video``, ``timestamp`` (seconds), ``x1``, ``y1``, ``x2``, ``y2``, ``score``; a row a
        box, in the file's order.

    Raises:
        InputError: the file names anything but arrays, or is no such dict, or a key or its boxes
            cannot be used; one line with file, name or key, and remedy.
    """
    content = _load(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, no dict; {_REMEDY}")
    keyframes = [_keyframe(path, key) for key in content]
    parts = [_boxes(path, key, value) for key, value in content.items()]
    counts = [len(part) for part in parts]
    numbers = np.concatenate([*parts, np.empty((0, 5))])
    _check(path, list(content), counts, numbers)
    columns = dict(zip(("x1", "y1", "x2", "y2", "score"), numbers.T, strict=True))
    videos = np.repeat(np.array([video for video, _ in keyframes], dtype=object), counts)
    seconds = np.repeat(np.array([second for _, second in keyframes], dtype=np.float64), counts)
    return pd.DataFrame({"video": videos, "timestamp": seconds, **columns})


def _load(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin-1").load()  # Python 2's text and array bytes
    # By Python's documentation, what is no sound pickle may end in nearly any exception.
    except Exception as error:
        word = str(error) or type(error).__name__
        raise InputError(f"{path}: refused, {word}; {_REMEDY}") from None


def _keyframe(path: Path, key: object) -> tuple[str, float]:
    video, _, second = key.rpartition(",") if isinstance(key, str) else ("", "", "")
    try:
        timestamp = float(second)
    except ValueError:
        timestamp = np.nan
    if not video or not np.isfinite(timestamp):
        raise InputError(f"{path}: key {key!r} is no video,second; name keys as 'video,0902'")
    return video, timestamp


def _boxes(path: Path, key: str, value: object) -> np.ndarray:
    """A keyframe's boxes (n, 5)."""
    try:
        boxes = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        kind = type(value).__name__
        raise InputError(f"{path}: key {key!r} holds a {kind}, no boxes; {_REMEDY}") from None
    if boxes.size == 0:
        return np.empty((0, 5))
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        shape = f"shape {boxes.shape}, expected (n, 4) or (n, 5)"
        raise InputError(f"{path}: key {key!r} has {shape}: x1 y1 x2 y2 score; mend or drop it")
    return boxes if boxes.shape[1] == 5 else np.column_stack([boxes, np.ones(len(boxes))])


def _check(path: Path, keys: list[str], counts: list[int], numbers: np.ndarray) -> None:
    """Refuse the first box that is none; ``numbers`` (n, 5) are the boxes of all keys in turn."""
    x1, y1, x2, y2, _ = numbers.T
    faults = {
        "a number that is not finite; mend or drop it": ~np.isfinite(numbers).all(axis=1),
        "corners in pixels; divide them by the frame's width and height": (
            np.abs(numbers[:, :4]).max(axis=1, initial=0) > _LARGEST_proposals
        ),
        "x1 >= x2; swap them or drop the box": x1 >= x2,
        "y1 >= y2; swap them or drop the box": y1 >= y2,
    }
    for text, wrong in faults.items():
        if wrong.any():
            first = int(wrong.argmax())
            ends = np.cumsum(counts)
            place = int(np.searchsorted(ends, first, side="right"))
            row = first - int(ends[place]) + counts[place] + 1
            box = " ".join(f"{value:g}" for value in numbers[first])
            raise InputError(f"{path}: key {keys[place]!r}, row {row}: {box} has {text}")


class _StandIn:
    """What a file gets for a name: it can be called, and nothing can be set on it."""

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
        self.values = _values(data, number, shape, "F" if by_columns else "C").values

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype)


def _values(data: bytes | str, number: _Number, shape: tuple, order: str) -> _Array:
    """What protocol 5 calls ``_frombuffer``; never more values than the file has bytes for."""
    array = _Array()
    data = data.encode("latin-1") if isinstance(data, str) else data
    array.values = np.frombuffer(data, dtype=number.dtype).reshape(shape, order=order)
    return array


def _scalar(number: _Number, data: bytes | str) -> float:
    return _values(data, number, (), "C").values.item()


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """Bytes as protocols 0 to 2 write them: as text, or as a call without words if empty."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode("latin-1")


_FUNCTIONS: dict[str, Callable] = {
    "numpy.{core}.multiarray._reconstruct": _Array,
    "numpy.{core}.multiarray.scalar": _scalar,
    "numpy.{core}.numeric._frombuffer": _values,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Number,
    "_codecs.encode": _bytes,
    "__builtin__.bytes": _bytes,
}
_STAND_INS = {
    name.format(core=core): _StandIn(function)
    for name, function in _FUNCTIONS.items()
    for core in ("core", "_core")  # numpy 1 and 2
}


class _Unpickler(pickle.Unpickler):
    """Knows the names of :data:`_STAND_INS` and no other."""

    def find_class(self, module: str, name: str) -> _StandIn:
        word = f"{module}.{name}"
        if word not in _STAND_INS:
            raise pickle.UnpicklingError(
                f"it names {word}, which no box file needs (it was not run)"
            )
        return _STAND_INS[word]

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"it names an object outside the file, {pid!r}")

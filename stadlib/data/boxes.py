"""Person boxes without actions: AVA's CSV, COCO's detections as JSON, dense proposals as a pickle.

Nothing that a file leaves out is guessed, and nothing that a pickle names is run.
"""

import json
import math
import pickle
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError, written_whole
from stadlib.data.layout import BOX_SUFFIXES
from stadlib.data.rows import BOX, COLUMNS, NO_LABEL, Form, read_rows

BOX_COLUMNS = tuple(name for name in COLUMNS if name != "action_id")
_CSV = Form(widths=(8,), area=True, actions=(NO_LABEL,))
_PERSON = 1  # COCO's category id
_LARGEST = 2.0  # no fraction of a frame is larger, and no person is so few pixels high
# video,0902  video/0902  video/902.5.jpg; a zero before four or more digits counts frames.
_NAME = re.compile(r"([^/\\]+)[,/]((?!0\d{4})\d+(?:\.\d+)?)(?:\.(?:jpg|jpeg|png))?", re.IGNORECASE)
_KEY = re.compile(r"(.+),(\d+(?:\.\d+)?)")  # of a dict of proposals
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_PLAIN = "save a plain dict of 'video,0902': array of x1 y1 x2 y2 score, or write AVA's .csv"
_Form = TypeVar("_Form")
_PICKLED = re.compile(  # the names by which numpy 1 and 2 pickle arrays, in every protocol
    r"numpy\.(ndarray|dtype)|_codecs\.encode|__builtin__\.bytes"
    r"|numpy\._?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)"
)


def read_person_boxes(path: Path) -> pd.DataFrame:
    """Read a file of person boxes in the form of its suffix.

    - ``.csv``: AVA's rows ``video,timestamp,x1,y1,x2,y2,,score``; the action is empty or -1.
    - ``.json``: a list of COCO's detections, ``{"image_id", "bbox": [x, y, width, height],
      "score"}``, in pixels with the frame's ``width`` and ``height``, else in fractions. ``video``
      (or ``video_id``, ``movie``) and ``timestamp`` name the keyframe, or ``file_name`` or
      ``image_id`` as ``video,0902`` or ``video/0902.jpg``.
    - ``.pkl``: mmaction2's ``ava_dense_proposals_*.pkl``, a dict of ``"video,0902"`` to boxes
      (n, 4) or (n, 5), corners and a score (1 where there is none).

    The rows have :data:`BOX_COLUMNS` in the file's order, corners as fractions of the frame.
    """
    suffix = path.suffix.lower()
    if suffix not in BOX_SUFFIXES:
        raise InputError(f"{path}: person boxes are a .csv of AVA's, a COCO .json or a .pkl")
    if suffix == ".csv" or not path.is_file():
        boxes = read_rows(path, _CSV)[list(BOX_COLUMNS)]
    else:
        rows = _read_coco(path) if suffix == ".json" else _read_proposals(path)
        boxes = pd.DataFrame(rows, columns=list(BOX_COLUMNS))
    return boxes.astype({"video": str, **dict.fromkeys(BOX_COLUMNS[1:], np.float64)})


class PersonBoxes:
    """A file of person boxes where a detector is expected, such as FAIR's of AVA."""

    def __init__(self, path: Path) -> None:
        self.path, rows = path, read_person_boxes(path)
        rows[list(BOX)] = rows[list(BOX)].clip(0, 1)
        sound = (rows["x2"] - rows["x1"] > 1e-5) & (rows["y2"] - rows["y1"] > 1e-5)
        rows = rows[sound].round({"timestamp": 3})
        key = ["video", "timestamp"]
        rows = rows.sort_values([*key, "score"], ascending=[True, True, False])
        starts = np.flatnonzero((rows[key] != rows[key].shift()).any(axis=1))
        parts = np.split(rows[list(BOX_COLUMNS[2:])].to_numpy().round(6), starts[1:])
        moments = rows[key].iloc[starts].itertuples(index=False, name=None)
        self._boxes = dict(zip(moments, parts, strict=False))  # no row: a part, no moment

    def at(self, video: str, second: float) -> np.ndarray:
        """Boxes of a moment, the surest first: x1, y1, x2, y2 as fractions, and score; (N, 5)."""
        return self._boxes.get((video, round(second, 3)), np.empty((0, 5)))

    def require(self, videos: Collection[str], duration: float = math.inf) -> None:
        """Refuse videos of which none has boxes, or has them after its ``duration`` in seconds."""
        seconds = [second for video, second in self._boxes if video in videos]
        if not seconds:
            names = ", ".join(list(dict.fromkeys(name for name, _ in self._boxes))[:3]) or "nothing"
            remedy = "give the video's file the name that it has there"
            lacks = ", ".join(list(videos)[:3])
            raise InputError(f"{self.path}: no boxes of {lacks}, but of {names}; {remedy}")
        if max(seconds) > duration:
            found = f"boxes at seconds {min(seconds):g} to {max(seconds):g}"
            remedy = "count seconds from its first frame, or give the whole video"
            raise InputError(f"{self.path}: {found} of a video of {duration:.1f} s; {remedy}")


def write_person_boxes(boxes: pd.DataFrame, path: Path) -> None:
    """Write :data:`BOX_COLUMNS` as AVA's CSV, numbers as ``%.6f``; no row without area."""
    numbers = boxes[list(BOX_COLUMNS[1:])].to_numpy(np.float64)
    _, x1, y1, x2, y2, _ = np.round(numbers, 6).T  # six decimals may leave nothing of a box
    sound = np.isfinite(numbers).all(axis=1) & (x1 < x2) & (y1 < y2)
    if not sound.all():
        row = int(sound.argmin()) + 1
        raise InputError(f"{path}: row {row} to write has no box with an area; drop the row")
    videos = pl.Series(boxes["video"].astype(object).to_list(), dtype=pl.String)
    table = pl.DataFrame({"video": videos, **dict(zip(BOX_COLUMNS[1:], numbers.T, strict=True))})
    table = table.with_columns(action_id=pl.lit(None, pl.String)).select(COLUMNS)
    with written_whole(path) as temporary:
        table.write_csv(temporary, include_header=False, float_precision=6, float_scientific=False)


def _read_coco(path: Path) -> list[tuple]:
    """The persons in a list of COCO's detections, rows of :data:`BOX_COLUMNS`."""
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON, {error}; write it again") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: not COCO's form; give a list of detections")
    # A detector of persons alone may number them as it likes.
    several = len({repr(e["category_id"]) for e in entries if "category_id" in e}) > 1
    rows = []
    for number, entry in enumerate(entries, 1):
        if several and entry.get("category_id", _PERSON) != _PERSON:
            continue
        try:
            rows.append(_coco_row(entry))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            problem = f"no {error}; add it" if isinstance(error, KeyError) else error
            raise InputError(f"{path}: entry {number}: {problem}") from None
    if entries and not rows:
        raise InputError(f"{path}: nothing has category_id {_PERSON}, a person's; change it")
    return rows


def _coco_row(entry: dict) -> tuple:
    x, y, width, height = entry["bbox"]
    sized = "width" in entry or "height" in entry
    size = (entry["width"], entry["height"]) if sized else (1, 1)
    numbers = [x, y, width, height, entry["score"], *size]
    # JSON lets NaN, Infinity and true pass.
    if not all(type(n) in (int, float) and np.isfinite(float(n)) for n in numbers):
        raise ValueError(f"{numbers} are not all numbers; mend bbox, score or size")
    if x + width <= x or y + height <= y or min(size) <= 0:
        raise ValueError(f"bbox {entry['bbox']} in a frame of {size} has no area; mend or drop it")
    if size == (1, 1) and max(map(abs, entry["bbox"])) > _LARGEST:
        remedy = 'add its frame\'s "width" and "height"'
        raise ValueError(f"bbox {entry['bbox']} is in pixels; {remedy}")
    if size != (1, 1) and max(width, height) <= 1:
        raise ValueError(f"bbox {entry['bbox']} is a fraction perhaps; multiply it by the size")
    corners = (x / size[0], y / size[1], (x + width) / size[0], (y + height) / size[1])
    names = [str(entry.get(key)) for key in ("file_name", "image_id")]
    match = next(filter(None, map(_NAME.fullmatch, names)), None)
    video = next((entry[key] for key in ("video", "video_id", "movie") if key in entry), None)
    if isinstance(video, str) and video and "timestamp" in entry:
        second = float(entry["timestamp"])
    elif match:
        video, second = match[1], float(match[2])
    else:
        remedy = "give \"video\" and \"timestamp\", or name it 'video,0902' or 'video/0902.jpg'"
        raise ValueError(f"images named {names} tell no video and second; {remedy}")
    if not np.isfinite(second):
        raise ValueError(f"timestamp {second} is no number of seconds; mend it")
    return video, second, *corners, entry["score"]


def _read_proposals(path: Path) -> list[tuple]:
    """The boxes of a pickle of proposals, rows of :data:`BOX_COLUMNS`."""

    def arrays(content: dict) -> dict:
        return {key: np.asarray(value, np.float64) for key, value in content.items()}

    rows = []
    for key, boxes in read_pickle(path, arrays, _PLAIN).items():
        match = _KEY.fullmatch(str(key))
        shaped = not boxes.size or (boxes.ndim == 2 and boxes.shape[1] in (4, 5))
        if match is None or not shaped:
            problem = f"key {key!r} with boxes {boxes.shape} is no video,second with boxes (n, 5)"
            raise InputError(f"{path}: {problem}; {_PLAIN}")
        for box in boxes.tolist() if boxes.size else ():
            x1, y1, x2, y2, score = box if len(box) == 5 else (*box, 1.0)
            sound = x1 < x2 and y1 < y2 and max(map(abs, box[:4])) <= _LARGEST
            if not (sound and np.isfinite(score)):
                problem = f"{box} is no box x1 y1 x2 y2 score in fractions of the frame"
                raise InputError(f"{path}: key {key!r}: {problem}; divide pixels by its size")
            rows.append((match[1], float(match[2]), x1, y1, x2, y2, score))
    return rows


def read_pickle(path: Path, form: Callable[[object], _Form], remedy: str) -> _Form:
    """What ``form`` makes of a pickle of lists, dicts, texts, numbers and arrays of numbers.

    Nothing of it is run. Whatever is wrong with it is one InputError, ended by the ``remedy``.
    """
    try:
        with path.open("rb") as file:
            return form(_decoded(_Unpickler(file, encoding="latin1").load()))
    # By Python's documentation, what is no sound pickle may end in nearly any exception.
    except Exception as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        reason = reason or type(error).__name__
        raise InputError(f"{path}: refused, {reason}; {remedy}") from None


class _Noted:
    """A name, call or object of a pickle: noted, never imported or called."""

    def __init__(self, name: str, arguments: tuple | None = None) -> None:
        self.name, self.arguments, self.state = name, arguments, None

    def __call__(self, *arguments: object) -> Self:
        return _Noted(self.name, arguments)

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Notes the few names by which arrays are pickled, refuses every other one, calls none."""

    def find_class(self, module: str, name: str) -> _Noted:
        if not _PICKLED.fullmatch(f"{module}.{name}"):
            reason = f"it names {module}.{name}, which no file of boxes needs (it was not run)"
            raise pickle.UnpicklingError(reason)
        return _Noted(name)

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"it names an object outside the file, {pid!r}")


def _decoded(value: object) -> object:
    """Lists and dicts with arrays, numbers and bytes in the place of a pickle's notes."""
    if isinstance(value, list | tuple):
        return [_decoded(part) for part in value]
    if isinstance(value, dict):
        keys = (_decoded(key) if isinstance(key, _Noted) else key for key in value)
        return dict(zip(keys, map(_decoded, value.values()), strict=True))
    return _made(value) if isinstance(value, _Noted) else value


def _made(value: _Noted) -> object:
    """What a note stands for; never more values than it has bytes."""
    arguments = None if value.name == "_reconstruct" else value.arguments  # of an empty array
    match value.name, _decoded(arguments), _decoded(value.state):
        case "encode", [str() as text, "latin1"], _:
            return text.encode("latin-1")
        case "bytes", [], _:
            return b""
        case "dtype", [word, *_], state if word in _NUMBERS or re.fullmatch(r"U\d+", word):
            return np.dtype(word).newbyteorder(state[1] if state else "=")
        case "scalar", [np.dtype() as dtype, data], _:
            return np.frombuffer(_bytes(data), dtype=dtype).reshape(()).item()
        case "_frombuffer", [data, np.dtype() as dtype, shape, order], _ if dtype.kind != "U":
            pass
        case "_reconstruct", _, [_, shape, np.dtype() as dtype, by_columns, data] if (
            dtype.kind != "U"
        ):
            order = "F" if by_columns else "C"
        case _:
            raise pickle.UnpicklingError(f"its {value.name} is no array of numbers")
    return np.frombuffer(_bytes(data), dtype=dtype).reshape(shape, order=order)


def _bytes(data: bytes | str) -> bytes:  # Python 2's are read as text
    return data.encode("latin-1") if isinstance(data, str) else data

"""Person boxes without actions: AVA's CSV, COCO's detections as JSON, dense proposals as a pickle.

Nothing that a file leaves out is guessed, and nothing that a pickle names is run.
"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError, written_whole
from stadlib.data.rows import COLUMNS, NO_LABEL, Form, read_rows

BOX_COLUMNS = tuple(name for name in COLUMNS if name != "action_id")
_CSV = Form(widths=(8,), area=True, actions=(NO_LABEL,))
_PERSON = 1  # COCO's category id, where the file has no table of its own
_LARGEST = 2.0  # no fraction of a frame is larger, and no person is so few pixels high
# video,0902  video/0902  video/902.5.jpg; a zero before four or more digits counts frames.
_NAME = re.compile(r"([^/\\]+)[,/]((?!0\d{4})\d+(?:\.\d+)?)(?:\.(?:jpg|jpeg|png))?", re.IGNORECASE)
_KEY = re.compile(r"(.+),(\d+(?:\.\d+)?)")  # of a dict of proposals
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_COCO = 'a list of detections, or {"images": [...], "annotations": [...]}'
_PLAIN = "save a plain dict of 'video,0902': array of x1 y1 x2 y2 score, or write AVA's .csv"


def read_person_boxes(path: Path) -> pd.DataFrame:
    """Read a file of person boxes in the form of its suffix; nothing that it leaves out is guessed.

    - ``.csv``: AVA's rows ``video,timestamp,x1,y1,x2,y2,,score``. The action is empty, or -1 as in
      the training list of the long-term feature banks.
    - ``.json``: COCO's detections, ``{"image_id", "bbox": [x, y, width, height], "score"}``, alone
      in a list or with their ``images``; in pixels with the image's ``width`` and ``height``, else
      in fractions. A keyframe is named by ``video`` (or ``video_id``, ``movie``) and ``timestamp``,
      or by ``file_name`` or id: ``video,0902`` or ``video/0902.jpg``. Names such as
      ``video_000902.jpg`` are refused: the field writes seconds and frame numbers so.
    - ``.pkl``: mmaction2's ``ava_dense_proposals_*.pkl``, a dict of ``"video,0902"`` to boxes
      (n, 4) or (n, 5), corners and a score (1 where there is none), of any pickle protocol.

    The rows have :data:`BOX_COLUMNS` in the file's order: seconds, corners as fractions of the
    frame (slightly outside [0, 1] they stay), score.
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
        raise InputError(f"{path}: person boxes are a .csv of AVA's, a COCO .json or a .pkl")
    return boxes.astype({"video": str, **dict.fromkeys(BOX_COLUMNS[1:], np.float64)})


def write_person_boxes(boxes: pd.DataFrame, path: Path) -> None:
    """Write :data:`BOX_COLUMNS` as AVA's CSV, numbers as ``%.6f``; no row without area."""
    videos = boxes["video"].astype(object)
    numbers = boxes[list(BOX_COLUMNS[1:])].to_numpy(np.float64)
    _, x1, y1, x2, y2, _ = np.round(numbers, 6).T  # six decimals may leave nothing of a box
    sound = np.isfinite(numbers).all(axis=1) & (x1 < x2) & (y1 < y2)
    if not sound.all():
        row = int(sound.argmin()) + 1
        raise InputError(f"{path}: row {row} to write has no box with an area; drop the row")
    columns = dict(zip(BOX_COLUMNS[1:], numbers.T, strict=True))
    table = pl.DataFrame({"video": pl.Series(videos.to_list(), dtype=pl.String), **columns})
    table = table.with_columns(action_id=pl.lit(None, pl.String)).select(COLUMNS)
    with written_whole(path) as temporary:
        table.write_csv(temporary, include_header=False, float_precision=6, float_scientific=False)


def _read_coco(path: Path) -> list[tuple]:
    """The persons of a file of COCO's detections, rows of :data:`BOX_COLUMNS`."""
    try:
        content = json.loads(path.read_bytes())
        tables = {"annotations": content} if isinstance(content, list) else content
        images = {image["id"]: image for image in tables.get("images", ())}
        entries = list(enumerate(tables["annotations"], 1))
        used = {entry["category_id"] for _, entry in entries if "category_id" in entry}
        categories = tables.get("categories") or []
        person = next((c["id"] for c in categories if c["name"] == "person"), _PERSON)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON, {error}; write it again") from None
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: not COCO's form; give {_COCO}") from None
    if len(images) < len(tables.get("images", ())):
        raise InputError(f"{path}: two images have the same id; keep one of them")
    if categories or len(used) > 1:  # a detector of persons alone may number them as it likes
        if used and person not in used:
            raise InputError(f"{path}: nothing has category_id {person}, a person's; change it")
        entries = [(n, entry) for n, entry in entries if entry.get("category_id", person) == person]
    rows = []
    for number, entry in entries:
        try:
            if tables is not content:
                rows.append(_coco_row(entry, sized=False))
            elif entry["image_id"] in images:
                rows.append(_coco_row(entry | images[entry["image_id"]], sized=True))
            else:
                raise ValueError(f"image_id {entry['image_id']!r} is not among the images; add it")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            problem = f"no {error}; add it" if isinstance(error, KeyError) else error
            raise InputError(f"{path}: entry {number}: {problem}") from None
    return rows


def _coco_row(entry: dict, sized: bool) -> tuple:
    """A row of :data:`BOX_COLUMNS`; ``sized``: width and height of the frame are required."""
    x, y, width, height = entry["bbox"]
    numbers = [x, y, width, height, entry["score"]]
    size = 1, 1
    if sized or "width" in entry or "height" in entry:
        size = entry["width"], entry["height"]
    # JSON lets NaN, Infinity and true pass.
    if not all(type(n) in (int, float) and np.isfinite(float(n)) for n in (*numbers, *size)):
        raise ValueError(f"{[*numbers, *size]} are not all numbers; mend bbox, score or size")
    if x + width <= x or y + height <= y or min(size) <= 0:
        raise ValueError(f"bbox {entry['bbox']} in a frame of {size} has no area; mend or drop it")
    if size == (1, 1) and max(map(abs, entry["bbox"])) > _LARGEST:
        raise ValueError(
            f'bbox {entry["bbox"]} is in pixels; add "width" and "height" of its image'
        )
    if size != (1, 1) and max(width, height) <= 1:
        raise ValueError(f"bbox {entry['bbox']} is a fraction perhaps; multiply it by the size")
    corners = (x / size[0], y / size[1], (x + width) / size[0], (y + height) / size[1])
    names = [entry.get("file_name"), entry.get("image_id")]
    matches = [_NAME.fullmatch(name) for name in names if isinstance(name, str)]
    video = next((entry[key] for key in ("video", "video_id", "movie") if key in entry), None)
    if isinstance(video, str) and video and "timestamp" in entry:
        second = float(entry["timestamp"])
    elif match := next(filter(None, matches), None):
        video, second = match[1], float(match[2])
    else:
        remedy = "give \"video\" and \"timestamp\", or name it 'video,0902' or 'video/0902.jpg'"
        raise ValueError(f"image {names[0] or names[1]!r} tells no video and second; {remedy}")
    if not np.isfinite(second):
        raise ValueError(f"timestamp {second} is no number of seconds; mend it")
    return video, second, *corners, entry["score"]


def _read_proposals(path: Path) -> dict[str, np.ndarray]:
    """The boxes of a pickle of proposals, as columns."""
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin-1").load()  # of Python 2 too
        arrays = [np.asarray(_decoded(value), np.float64) for value in content.values()]
    # By Python's documentation, what is no sound pickle may end in nearly any exception.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: refused, {reason}; {_PLAIN}") from None
    videos, seconds, parts = [], [], [np.empty((0, 5))]
    for key, boxes in zip(content, arrays, strict=True):
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        if match is None:
            raise InputError(f"{path}: key {key!r} is no video,second; name it as 'video,0902'")
        if boxes.size and (boxes.ndim != 2 or boxes.shape[1] not in (4, 5)):
            raise InputError(f"{path}: key {key!r} has shape {boxes.shape}, not (n, 5); {_PLAIN}")
        scored = boxes.reshape(-1, boxes.shape[-1] if boxes.size else 5)
        if scored.shape[1] == 4:
            scored = np.column_stack([boxes, np.ones(len(boxes))])
        parts.append(scored)
        videos += [match[1]] * len(scored)
        seconds += [float(match[2])] * len(scored)
    numbers = np.concatenate(parts)
    x1, y1, x2, y2, score = numbers.T
    sound = np.isfinite(score) & (x1 < x2) & (y1 < y2)
    sound &= (np.abs(numbers[:, :4]) <= _LARGEST).all(axis=1)
    if not sound.all():
        row = int(sound.argmin())
        problem = f"{numbers[row].tolist()} is no box x1 y1 x2 y2 score in fractions of the frame"
        where = f"{path}: video {videos[row]}, second {seconds[row]:g}"
        raise InputError(f"{where}: {problem}; divide pixels by the frame's size, or drop it")
    return dict(zip(BOX_COLUMNS, (videos, seconds, x1, y1, x2, y2, score), strict=True))


class _Noted:
    """A name, call or object of a pickle: noted, never imported or called."""

    def __init__(self, name: str, arguments: tuple | None = None) -> None:
        self.name, self.arguments, self.state = name, arguments, None

    def __call__(self, *arguments: object) -> _Noted:
        return _Noted(self.name, arguments)

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Notes the few names by which arrays are pickled, and refuses every other one.

    A pickle may name any function of any module and have it called. Here nothing is called. A
    hostile file can still be wrong or too large for the memory.
    """

    names = frozenset(
        {"numpy.ndarray", "numpy.dtype", "_codecs.encode", "__builtin__.bytes"}
    ).union(
        f"{core}.{name}"
        for core in ("numpy.core", "numpy._core")  # numpy 1 and 2
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    )

    def find_class(self, module: str, name: str) -> _Noted:
        if f"{module}.{name}" not in self.names:
            reason = f"it names {module}.{name}, which no box file needs (it was not run)"
            raise pickle.UnpicklingError(reason)
        return _Noted(name)

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"it names an object outside the file, {pid!r}")


def _decoded(value: object) -> object:
    """Arrays, numbers and bytes from a pickle's notes; never more values than it has bytes."""
    if isinstance(value, list | tuple):
        return [_decoded(part) for part in value]
    if not isinstance(value, _Noted):
        return value
    arguments = None if value.name == "_reconstruct" else value.arguments  # of an empty array
    match value.name, _decoded(arguments), _decoded(value.state):
        case "encode", [str() as text, "latin1"], _:
            return text.encode("latin-1")
        case "bytes", [], _:
            return b""
        case "dtype", [word, *_], state if word in _NUMBERS:
            return np.dtype(word).newbyteorder(state[1] if state else "=")
        case "scalar", [np.dtype() as dtype, data], _:
            shape, order = (), "C"
        case "_frombuffer", [data, np.dtype() as dtype, shape, order], _:
            pass
        case "_reconstruct", _, [_, shape, np.dtype() as dtype, by_columns, data]:
            order = "F" if by_columns else "C"
        case _:
            raise pickle.UnpicklingError(f"its {value.name} is no array of numbers")
    data = data.encode("latin-1") if isinstance(data, str) else data  # Python 2
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)

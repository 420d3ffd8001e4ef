"""Dense proposals: pickled person boxes, read without running anything of the file.

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

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from stadlib.config import InputError

# No fraction of a frame is larger, were the box twice the frame; no person is so few pixels high.
_LARGEST = 2.0
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
            np.abs(numbers[:, :4]).max(axis=1, initial=0) > _LARGEST
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

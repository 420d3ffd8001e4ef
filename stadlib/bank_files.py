"""The files of a feature bank: an index, and an array a quantity, memory-mapped.

``bank.json`` holds provenance, sizes, the videos' names and the name of ``rows-*.npy``: (video,
second, first slot, number of persons) a second. The arrays have a slot a person: ``tokens.f16``,
``boxes.f32``, ``scores.f32``, ``states.u8``. An index is written whole or not at all; what an array
holds beyond it does not count.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stadlib.config import InputError
from stadlib.paths import write_whole, written_whole

ROW = np.dtype([("video", "i4"), ("second", "i4"), ("first", "i8"), ("count", "i4")])
_KINDS = {"f16": np.float16, "f32": np.float32, "u8": np.uint8}
_FIELDS = ("provenance", "length", "width", "videos", "rows")


class BankFiles:
    """What lies in a bank's folder.

    Args:
        folder: of a bank.
        provenance: what the bank must have been made of; None takes whatever is there.
        writable: map the arrays to write.

    Attributes:
        provenance: what it was made of.
        length: L of the tokens.
        width: C of the tokens.
        videos: their names; a row's video is a position in it.
        rows: (R,) of :data:`ROW`.

    Raises:
        InputError: no bank, a damaged one, or one of other provenance; names the difference.
    """

    def __init__(self, folder: Path, provenance: Mapping | None, *, writable: bool) -> None:
        self.folder, self.writable = folder, writable
        content = _read_index(folder)
        self.provenance: dict = content["provenance"]
        self._refuse_another(provenance)
        self.length, self.width = int(content["length"]), int(content["width"])
        self.videos: list[str] = content["videos"]
        self.rows = _read_rows(folder / Path(content["rows"]).name)

    @staticmethod
    def create(folder: Path, provenance: Mapping, length: int, width: int) -> None:
        """Write the index of an empty bank, unless there is one."""
        if not (folder / "bank.json").exists():
            content = {"provenance": dict(provenance), "length": length, "width": width}
            _write_index(folder, content | {"videos": []}, np.empty(0, ROW))

    def extend(self, videos: list[str], rows: np.ndarray) -> None:
        """Replace the index by a longer one; call :meth:`arrays` again afterwards."""
        content = {"provenance": self.provenance, "length": self.length, "width": self.width}
        _write_index(self.folder, content | {"videos": videos}, rows)
        self.videos, self.rows = videos, rows

    def arrays(self) -> dict[str, np.ndarray]:
        """``tokens``, ``boxes``, ``scores``, ``states``: a slot a person, as they are on disk."""
        slots = int(self.rows["count"].sum())
        shapes = {"tokens.f16": (slots, self.length, self.width), "boxes.f32": (slots, 4)}
        shapes |= {"scores.f32": (slots,), "states.u8": (slots,)}
        return {name.split(".")[0]: self._map(name, shape) for name, shape in shapes.items()}

    def copy(self, folder: Path) -> None:
        """Put a copy at ``folder``, whole; what was there stays until the copy is complete."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh, old = (folder.with_name(f".{folder.name}.{word}") for word in ("tmp", "old"))
        for stale in (fresh, old):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.copytree(self.folder, fresh)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    def _map(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        kind = _KINDS[name.split(".")[1]]
        path, size = self.folder / name, int(np.prod(shape)) * np.dtype(kind).itemsize
        if size == 0:
            return np.zeros(shape, kind)
        if self.writable and (not path.exists() or path.stat().st_size < size):
            with open(path, "ab") as file:
                file.truncate(size)  # zeros: unwritten
        if not path.is_file() or path.stat().st_size < size:
            raise InputError(f"{path}: shorter than the bank's index says; delete the bank")
        return np.memmap(path, kind, "r+" if self.writable else "r", shape=shape)

    def _refuse_another(self, wanted: Mapping | None) -> None:
        for name, value in json.loads(json.dumps(dict(wanted or {}))).items():
            found = self.provenance.get(name)
            if found != value:
                raise InputError(
                    f"{self.folder}: a bank of another {name} ({found!r}, not {value!r}); "
                    "delete it or use another results folder"
                )


def _read_index(folder: Path) -> dict:
    path = folder / "bank.json"
    if not path.is_file():
        raise InputError(f"{folder}: no feature bank; extract one")
    try:
        content = json.loads(path.read_text())
        return {name: content[name] for name in _FIELDS}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a bank's index ({error}); delete the bank") from error


def _read_rows(path: Path) -> np.ndarray:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); delete the bank") from error
    if rows.dtype != ROW:
        raise InputError(f"{path}: not the rows of a bank; delete the bank")
    return rows


def _write_index(folder: Path, content: dict, rows: np.ndarray) -> None:
    """Rows first, under a name of their own, then the JSON that names them."""
    name = f"rows-{len(rows)}.npy"
    with written_whole(folder / name) as temporary, open(temporary, "wb") as file:
        np.save(file, rows)
    write_whole(folder / "bank.json", json.dumps(content | {"rows": name}) + "\n")
    for stale in folder.glob("rows-*.npy"):
        if stale.name != name:
            stale.unlink()

"""The files of a feature bank: an index, and an array a quantity, memory-mapped.

``bank.json`` holds provenance, sizes, the videos' names and the name of ``rows-*.npy``: (video,
second, first slot, number of persons) a second. The arrays have a slot a person: ``tokens.f16``,
``boxes.f32``, ``scores.f32``, ``states.u8``. An index is written whole or not at all; what an array
holds beyond it does not count.

The feature bank: what persons looked like in every second of a video, on disk.

Paper section 2.3, after LFB (Wu et al. 2019) and AlphAction's pool; unlike them it never hands out
zeros as if somebody had been there: what was not written is masked.

A bank holds one source's split; a slot is one person of one second (:mod:`.bank_files`). A slot's
state says "in hand" while it is written. A process that is killed then leaves it so, and whoever
opens the bank to write next finds it, counts it in ``lost`` and takes it for unwritten. The system
keeps what a killed process wrote; against a failing machine ``flush`` brings it to the disk.

Legend: B clips, N persons, M remembered persons of a clip (padded), L sequences, C channels.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stadlib.base import InputError, write_whole, written_whole
from stadlib.models import heads
from stadlib.models.heads import MemoryTokens

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


UNWRITTEN, WRITTEN, IN_HAND = 0, 1, 2
Key = tuple[str, int]


def second_of(timestamp: float) -> int:
    """The second that a keyframe belongs to, the nearest one: 5.016949 is 5."""
    return int(np.floor(timestamp + 0.5))


class FeatureBank:
    """Tokens of persons by (video, second).

    Args:
        folder: of a bank that :meth:`create` made.
        provenance: what it must have been made of; None takes whatever is there.
        writable: open to write; one such process at a time may :meth:`add`.

    Attributes:
        provenance: what it was made of: the weights' hash, head, detector; or the online stage.
        lost: persons whose writing was cut short, found when it was opened to write.

    Raises:
        InputError: no bank, a damaged one, or one of other provenance; names the difference.
    """

    def __init__(
        self, folder: Path | str, provenance: Mapping | None = None, *, writable: bool = False
    ) -> None:
        self.folder, self.writable = Path(folder), writable
        self._files = BankFiles(self.folder, provenance, writable=writable)
        self.provenance = self._files.provenance
        self.length, self.width = self._files.length, self._files.width
        self._open()
        self.lost = 0
        if writable:
            torn = np.flatnonzero(self._states == IN_HAND)
            self.lost = len(torn)
            self._states[torn] = UNWRITTEN

    @classmethod
    def create(
        cls, folder: Path | str, provenance: Mapping, *, length: int, width: int
    ) -> FeatureBank:
        """Make an empty bank, or open the one of the same provenance to go on writing.

        Args:
            folder: where it lies or shall lie.
            provenance: plain words and numbers that decide its content.
            length: L of the tokens.
            width: C of the tokens.

        Raises:
            InputError: another bank lies there.
        """
        BankFiles.create(Path(folder), provenance, length, width)
        return cls(folder, provenance, writable=True)

    def __reduce__(self) -> tuple:
        return FeatureBank, (self.folder,)  # workers map the files themselves, read-only

    def __len__(self) -> int:
        """Seconds that have slots."""
        return len(self._rows)

    @property
    def num_written(self) -> int:
        """Persons that are written."""
        return int((self._states == WRITTEN).sum())

    def add(self, seconds: Iterable[tuple[str, int, int]]) -> None:
        """Make room for (video, second, number of persons); what has room already is passed over.

        Raises:
            ValueError: room for another number of persons than before.
        """
        known = {(int(r["video"]), int(r["second"])): int(r["count"]) for r in self._rows}
        end = int(self._rows["count"].sum())
        fresh = []
        for video, second, count in seconds:
            key = (self._videos.setdefault(video, len(self._videos)), second)
            if key not in known:
                fresh.append((*key, end, count))
                end += count
            if known.setdefault(key, count) != count:
                raise ValueError(f"{video}, second {second}: room for {known[key]}, not {count}")
        self.flush()
        rows = np.concatenate([self._rows, np.array(fresh, ROW)])
        self._files.extend(list(self._videos), rows)
        self._open()

    def write(
        self, keys: Sequence[Key], counts_B: Tensor, tokens_NLC: Tensor, boxes_N4: Tensor,
        scores_N: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Write or replace the persons of some seconds.

        Args:
            keys: (video, second) a clip, with room (:meth:`add`).
            counts_B: persons a clip, at most as many as there is room for.
            tokens_NLC: the persons' tokens, those of clip 0 first; stored as float16.
            boxes_N4: x1, y1, x2, y2 as fractions of the frame.
            scores_N: of the detector; 1 where there is none.
        """
        found = self._find(keys)
        if (found < 0).any():
            video, second = keys[int(np.flatnonzero(found < 0)[0])]
            raise ValueError(f"{video}, second {second}: no room; add() it first")
        rows = self._rows[found]
        counts = counts_B.cpu().numpy()
        if (counts > rows["count"]).any():
            raise ValueError("more persons than there is room for")
        slots = _spread(rows["first"], counts)
        self._states[_spread(rows["first"], rows["count"])] = IN_HAND
        self._tokens[slots] = tokens_NLC.float().cpu().numpy()  # NumPy knows no bfloat16
        self._boxes[slots] = boxes_N4.cpu().numpy()
        self._scores[slots] = 1.0 if scores_N is None else scores_N.cpu().numpy()
        self._states[_spread(rows["first"] + counts, rows["count"] - counts)] = UNWRITTEN
        self._states[slots] = WRITTEN

    def has(self, keys: Sequence[Key]) -> np.ndarray:
        """(B,) whether all persons of a second are written; of a second without room, no."""
        found = self._find(keys)
        if not len(self._rows):
            return np.zeros(len(keys), bool)
        rows = self._rows[found]
        slots = _spread(rows["first"], rows["count"])
        clip = np.repeat(np.arange(len(keys)), rows["count"])
        torn = np.bincount(clip, weights=self._states[slots] != WRITTEN, minlength=len(keys))
        return (found >= 0) & (torn == 0)

    def read(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """The persons' tokens (N, L, C) in float32, those of clip 0 first, and counts (B,).

        Raises:
            InputError: a second that is not written.
        """
        missing = np.flatnonzero(~self.has(keys))
        if len(missing):
            video, second = keys[missing[0]]
            raise InputError(f"{self.folder}: {video}, second {second} is not written; extract it")
        rows = self._rows[self._find(keys)]
        tokens = torch.from_numpy(self._tokens[_spread(rows["first"], rows["count"])]).float()
        return tokens, torch.from_numpy(rows["count"].astype(np.int64))

    def window(self, keys: Sequence[Key], span: int, max_persons: int) -> MemoryTokens:
        """What clips remember: persons of the seconds around, without the clip's own second.

        Args:
            keys: (video, second) a clip; the bank may know nothing of it.
            span: seconds to each side.
            max_persons: of a second, those of the highest scores.

        Returns:
            Memory as wide as the fullest clip needs; within a clip in the order of time.
        """
        offsets = np.array([s for s in range(-span, span + 1) if s], dtype=np.int64)
        row = self._around(keys, offsets)  # (B, seconds), -1 where there is nothing
        count = np.where(row >= 0, self._rows["count"][row], 0) if len(self._rows) else row * 0
        most = int(count.max(initial=0))
        place = np.arange(most)
        first = self._rows["first"][row] if len(self._rows) else row * 0
        slots = np.where(place < count[..., None], first[..., None] + place, 0)
        written = (place < count[..., None]) & (self._states[slots] == WRITTEN)
        if most > max_persons:
            score = np.where(written, self._scores[slots], -np.inf)
            kept = np.sort(np.argsort(-score, axis=2, kind="stable")[..., :max_persons], axis=2)
            slots, written = (np.take_along_axis(x, kept, axis=2) for x in (slots, written))
        return self._memory(slots, written, np.broadcast_to(offsets[:, None], slots.shape[1:]))

    def flush(self) -> None:
        """Bring everything to the disk."""
        for array in (self._tokens, self._boxes, self._scores, self._states):
            if isinstance(array, np.memmap):
                array.flush()

    def copy(self, folder: Path) -> None:
        """Put a copy of this moment at ``folder``, whole."""
        self.flush()
        self._files.copy(folder)

    def _memory(self, slots: np.ndarray, written: np.ndarray, offsets: np.ndarray) -> MemoryTokens:
        """(B, seconds, persons) slots -> memory whose written slots stand first."""
        B = len(slots)
        slots, written = slots.reshape(B, -1), written.reshape(B, -1)
        seconds = np.broadcast_to(offsets.reshape(1, -1), slots.shape)
        order = np.argsort(~written, axis=1, kind="stable")[:, : int(written.sum(1).max(initial=0))]
        slots, written, seconds = (
            np.take_along_axis(x, order, axis=1) for x in (slots, written, seconds)
        )
        # torch widens float16 several times faster than numpy.
        tokens, boxes = torch.from_numpy(np.take(self._tokens, slots, axis=0)), self._boxes[slots]
        tokens = tokens.float()
        if not written.all():
            tokens[torch.from_numpy(~written)], boxes[~written] = 0.0, 0.0
        others = map(torch.from_numpy, (written, seconds * written, np.asarray(boxes)))
        return MemoryTokens(tokens, *others)

    def _around(self, keys: Sequence[Key], offsets: np.ndarray) -> np.ndarray:
        video = np.array([self._videos.get(name, -1) for name, _ in keys], dtype=np.int64)
        second = np.array([second for _, second in keys], dtype=np.int64)
        base, low, high = (x[video] if len(x) else video for x in self._extent)
        place = second[:, None] + offsets - low[:, None]
        inside = (video >= 0)[:, None] & (place >= 0) & (place < (high - low)[:, None])
        return np.where(inside, self._table[np.where(inside, base[:, None] + place, 0)], -1)

    def _find(self, keys: Sequence[Key]) -> np.ndarray:
        """(B,) the rows of these seconds, -1 where there is none."""
        return self._around(keys, np.zeros(1, np.int64))[:, 0]

    def _open(self) -> None:
        """Map the arrays and index the rows by video and second."""
        arrays, self._rows = self._files.arrays(), self._files.rows
        self._tokens, self._boxes = arrays["tokens"], arrays["boxes"]
        self._scores, self._states = arrays["scores"], arrays["states"]
        self._videos = {video: number for number, video in enumerate(self._files.videos)}
        low = np.full(len(self._videos), np.iinfo(np.int32).max, np.int64)
        high = np.zeros(len(self._videos), np.int64)
        np.minimum.at(low, self._rows["video"], self._rows["second"])
        np.maximum.at(high, self._rows["video"], self._rows["second"] + 1)
        ends = np.cumsum(high - low)
        self._extent = (ends - (high - low), low, high)
        self._table = np.full(int(ends[-1]) if len(ends) else 1, -1, np.int64)
        base = self._extent[0][self._rows["video"]] - low[self._rows["video"]]
        self._table[base + self._rows["second"]] = np.arange(len(self._rows))


def _spread(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """first, first + 1, ... of every row, one after the other."""
    starts = np.cumsum(count) - count
    return np.repeat(first - starts, count) + np.arange(int(count.sum()))


def windows(
    banks: Mapping[str, FeatureBank], keys: Sequence[tuple[str, str, float]], span: int,
    max_persons: int, empty: MemoryTokens,
) -> MemoryTokens:  # fmt: skip
    """What a batch of several sources remembers.

    Args:
        banks: by source; clips of a source without a bank remember nobody.
        keys: (source, video, timestamp) a clip.
        span: seconds to each side.
        max_persons: of a second.
        empty: what is returned where nobody is remembered at all.
    """
    parts = []
    for source, bank in banks.items():
        clips = [number for number, key in enumerate(keys) if key[0] == source]
        if clips:
            wanted = [(keys[number][1], second_of(keys[number][2])) for number in clips]
            parts.append((clips, bank.window(wanted, span, max_persons)))
    return heads.gathered(parts, len(keys)) if parts else empty

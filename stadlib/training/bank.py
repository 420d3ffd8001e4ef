"""The feature bank on disk: tokens of the persons of every second of a video (section 2.3).

A bank is of one source's split, a slot of one person of one second. All are fixed when it is made:
``rows-*.npy`` has (video, second, first slot, number of persons) a second, ``bank.json`` the rest.
A slot is unwritten while its content changes, so a kill leaves no half-written token.

Legend: B clips, N persons, M memory persons of a clip (padded), L sequences, C channels.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stadlib.base import InputError, whole_folder, write_whole, written_whole
from stadlib.models import heads
from stadlib.models.heads import MemoryTokens

Key = tuple[str, int]  # video, second
ROW = np.dtype([("video", "i4"), ("second", "i4"), ("first", "i8"), ("count", "i4")])
UNWRITTEN, WRITTEN = 0, 1


def second_of(timestamp: float) -> int:
    """The second that a keyframe belongs to, the nearest one: 5.016949 is 5."""
    return int(np.floor(timestamp + 0.5))


class FeatureBank:
    """Tokens of persons by (video, second), in the folder of a bank that :meth:`create` made.

    ``provenance`` is what it must have been made of. No bank, a damaged one, or one of other
    provenance is an InputError.
    """

    def __init__(
        self, folder: Path | str, provenance: Mapping | None = None, *, writable: bool = False
    ) -> None:
        self.folder, self.writable = Path(folder), writable
        if not (path := self.folder / "bank.json").is_file():
            raise InputError(f"{folder}: no feature bank; extract one")
        try:
            index = json.loads(path.read_text())
            self.provenance: dict = index["provenance"]
            self.length, self.width = int(index["length"]), int(index["width"])
            self._videos = {video: number for number, video in enumerate(index["videos"])}
            path = self.folder / index["rows"]
            rows = np.load(path, allow_pickle=False).astype(ROW, casting="equiv")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged ({error}); delete the bank") from error
        for name, wanted in json.loads(json.dumps(dict(provenance or {}))).items():
            if (value := self.provenance.get(name)) != wanted:
                raise InputError(
                    f"{folder}: a bank of another {name} ({value!r}, not {wanted!r}); "
                    "delete it or use another results folder"
                )
        self._padded = np.append(rows, np.zeros(1, ROW))  # the last one stands for no row
        self.rows = self._padded[:-1]
        slots = int(self.rows["count"].sum())
        self.tokens = self._map("tokens.f16", np.float16, (slots, self.length, self.width))
        self.boxes = self._map("boxes.f32", np.float32, (slots, 4))
        self.states = self._map("states.u8", np.uint8, (slots,))
        # A number for each (video, second), to find rows by.
        self._codes = pd.Index((self.rows["video"].astype(np.int64) << 32) + self.rows["second"])

    @classmethod
    def create(
        cls, folder: Path, made_of: Mapping, seconds: Iterable, *, length: int, width: int
    ) -> FeatureBank:
        """Make an empty bank with tokens (length, width), or open the same one to fill it further.

        ``seconds`` are (video, second, number of persons), each second once. A bank of other
        provenance or other seconds in the folder is an InputError.
        """
        folder, names, numbers, end = Path(folder), {}, [], 0
        for video, second, count in seconds:
            numbers.append((names.setdefault(video, len(names)), second, end, count))
            end += count
        rows = np.array(numbers, ROW)
        if not (folder / "bank.json").exists():
            path = folder / f"rows-{len(rows)}.npy"
            with written_whole(path) as temporary, open(temporary, "wb") as file:
                np.save(file, rows)
            index = {"provenance": dict(made_of), "length": length, "width": width}
            index |= {"videos": list(names), "rows": path.name}
            write_whole(folder / "bank.json", json.dumps(index) + "\n")
        bank = cls(folder, made_of, writable=True)
        if list(bank._videos) != list(names) or not np.array_equal(bank.rows, rows):
            raise InputError(
                f"{folder}: a bank of other seconds or persons (the dataset or its boxes changed); "
                "delete it or use another results folder"
            )
        return bank

    def __reduce__(self) -> tuple:
        return FeatureBank, (self.folder,)  # workers map the files themselves, read-only

    def write(self, keys: Sequence[Key], counts_B: Tensor, tokens: Tensor, boxes: Tensor) -> None:
        """Write or replace the persons of some (video, second), the surest first.

        ``tokens`` (N, L, C) are stored as float16, ``boxes`` (N, 4) are fractions of the frame. A
        second or a number of persons without room is a ValueError.
        """
        rows, counts = self._padded[self._find(keys)[:, 0]], counts_B.cpu().numpy()
        if (counts > rows["count"]).any():
            video, second = keys[int(np.argmax(counts > rows["count"]))]
            raise ValueError(f"{video}, second {second}: no room for that many persons")
        slots = _spread(rows["first"], counts)
        self.states[_spread(rows["first"], rows["count"])] = UNWRITTEN
        self.tokens[slots] = tokens.float().cpu().numpy()  # NumPy knows no bfloat16
        self.boxes[slots] = boxes.cpu().numpy()
        self.states[slots] = WRITTEN

    def take(self, other: FeatureBank) -> None:
        """Write what another bank of the same seconds and persons has and this one lacks."""
        slots = np.flatnonzero((other.states == WRITTEN) & (self.states != WRITTEN))
        for some in np.array_split(slots, len(slots) // 65536 + 1):
            self.tokens[some], self.boxes[some] = other.tokens[some], other.boxes[some]
            self.states[some] = WRITTEN
        self.flush()

    def has(self, keys: Sequence[Key]) -> np.ndarray:
        """(B,) whether all persons of a second are written; of a second without room, no."""
        numbers = self._find(keys)[:, 0]
        rows = self._padded[numbers]
        clip = np.repeat(np.arange(len(keys)), rows["count"])
        unwritten = self.states[_spread(rows["first"], rows["count"])] != WRITTEN
        return (numbers >= 0) & (np.bincount(clip, unwritten, len(keys)) == 0)

    def read(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """The persons' tokens (N, L, C) in float32, those of clip 0 first, and counts (B,)."""
        if not (has := self.has(keys)).all():
            video, second = keys[int(np.argmin(has))]
            raise InputError(f"{self.folder}: {video}, second {second} is not written; extract it")
        rows = self.rows[self._find(keys)[:, 0]]
        tokens = torch.from_numpy(self.tokens[_spread(rows["first"], rows["count"])]).float()
        return tokens, torch.from_numpy(rows["count"].astype(np.int64))

    def window(
        self,
        keys: Sequence[Key],
        span: int,
        max_persons: int,
        own_second: bool = False,
        draw: int | None = None,
    ) -> MemoryTokens:
        """The memory of clips: persons of the ``span`` seconds to each side, and of the clip's own.

        Of a second the first ``max_persons`` count, or as many that the seed ``draw`` draws for a
        clip. The memory is as wide as the fullest clip needs, and within a clip in the order of
        time.
        """
        # The slots of each second around each clip, (B, seconds, persons), and which are written.
        offsets = np.array([s for s in range(-span, span + 1) if s or own_second], dtype=np.int64)
        rows = self._padded[self._find(keys, offsets)][..., None]
        most = int(rows["count"].max(initial=0))
        person = np.arange(min(max_persons, most))
        if draw is not None and most > max_persons:
            places = np.stack([_drawn(draw, key, len(offsets), most) for key in keys])
            places = np.where(np.arange(most) < rows["count"], places, 2.0)  # the known ones first
            person = np.sort(places.argsort(axis=2)[..., :max_persons], axis=2)
        known = person < rows["count"]
        slots = np.where(known, rows["first"] + person, 0)
        written = known & (self.states[slots] == WRITTEN)
        seconds = np.broadcast_to(offsets[:, None], slots.shape)
        # One axis of persons, (B, M), the written ones first.
        slots, written, seconds = (x.reshape(len(keys), -1) for x in (slots, written, seconds))
        order = np.argsort(~written, axis=1, kind="stable")[:, : int(written.sum(1).max(initial=0))]
        slots, written, seconds = (
            np.take_along_axis(x, order, axis=1) for x in (slots, written, seconds)
        )
        # torch widens float16 several times faster than numpy.
        tokens = torch.from_numpy(np.take(self.tokens, slots, axis=0)).float()
        boxes = np.asarray(self.boxes[slots])
        if not written.all():
            tokens[torch.from_numpy(~written)], boxes[~written] = 0.0, 0.0
        return MemoryTokens(tokens, *map(torch.from_numpy, (written, seconds * written, boxes)))

    def flush(self) -> None:
        """Bring everything to the disk."""
        for array in (self.tokens, self.boxes, self.states):
            if isinstance(array, np.memmap):
                array.flush()

    def copy(self, folder: Path) -> None:
        """Copy the bank to ``folder``, which appears whole; an older copy there goes first."""
        self.flush()
        shutil.rmtree(folder, ignore_errors=True)
        with whole_folder(folder) as fresh:
            shutil.copytree(self.folder, fresh, dirs_exist_ok=True)

    def _map(self, name: str, kind: type, shape: tuple[int, ...]) -> np.ndarray:
        """Map an array; a new one is zeros (unwritten), and takes its room at once."""
        path, size = self.folder / name, math.prod(shape) * np.dtype(kind).itemsize
        if not size:
            return np.zeros(shape, kind)
        if self.writable and hasattr(os, "posix_fallocate"):
            try:  # on a full disk a write into a mapped file kills the process
                with open(path, "ab") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                remedy = f"{error.strerror}: {size / 1e9:.3g} GB; free space or set STADLIB_RESULTS"
                raise InputError(f"{path}: {remedy}") from error
        try:
            if self.writable:
                path.touch()  # numpy extends it
            return np.memmap(path, kind, "r+" if self.writable else "r", shape=shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: damaged ({error}); delete the bank") from error

    def _find(self, keys: Sequence[Key], offsets: np.ndarray | int = 0) -> np.ndarray:
        """(B, offsets) numbers of the rows of the seconds at these offsets, -1 where is none."""
        video = np.array([self._videos.get(name, -1) for name, _ in keys], dtype=np.int64)
        second = np.array([second for _, second in keys], dtype=np.int64)
        codes = ((video << 32) + second)[:, None] + offsets
        return self._codes.get_indexer(codes.ravel()).reshape(codes.shape)


def _drawn(seed: int, key: Key, *shape: int) -> np.ndarray:
    """Numbers in [0, 1) for a clip, whatever clips are drawn beside it."""
    video, second = key
    return np.random.default_rng([seed, zlib.crc32(video.encode()), second]).random(shape)


def windows(
    banks: Mapping, keys: Sequence[tuple], empty: MemoryTokens, **options: object
) -> MemoryTokens:
    """The memory of clips (source, video, timestamp) from their sources' banks, else ``empty``.

    ``options`` are those of :meth:`FeatureBank.window`.
    """
    parts = []
    for source, bank in banks.items():
        clips = [number for number, key in enumerate(keys) if key[0] == source]
        if clips:
            wanted = [(keys[number][1], second_of(keys[number][2])) for number in clips]
            parts.append((clips, bank.window(wanted, **options)))
    return heads.gathered(parts, len(keys)) if parts else empty


def _spread(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """first, first + 1, ... of every row, one after the other."""
    starts = np.cumsum(count) - count
    return np.repeat(first - starts, count) + np.arange(int(count.sum()))

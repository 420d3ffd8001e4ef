"""What is seen in a video, second by second: a line of JSON each, written as it is found.

The first line says what made the file and whose scores it holds. While a video is being watched
the file is called ``.partial``; the same detector and model go on from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stadlib.config import InputError
from stadlib.paths import write_whole

SHOWN = 0.25  # least score of an action that is shown: on the miniature world's validation movies
# two of three such labels are right, and two of three that are right are such
MOST = 3  # actions that are shown of a person


@dataclass(frozen=True, eq=False)
class Look:
    """Who is where at a time: persons' numbers, and boxes (N, 4) as fractions of the frame."""

    time: float
    numbers: list[int]
    boxes: np.ndarray

    def box(self, number: int) -> np.ndarray | None:
        """Where a person is, if this look found it."""
        return self.boxes[self.numbers.index(number)] if number in self.numbers else None


@dataclass(frozen=True, eq=False)
class Sighting:
    """A scored second.

    Attributes:
        looks: the one at the second itself, whose persons are scored, and those up to the next.
        confidence: (N,), the detector's scores of the persons of the first look.
        actions: (N, A) their scores, in the order of the file's ``actions``.
    """

    looks: list[Look]
    confidence: np.ndarray
    actions: np.ndarray

    @property
    def second(self) -> float:
        """Since the first frame."""
        return self.looks[0].time

    @property
    def numbers(self) -> list[int]:
        """Of the persons that are scored."""
        return self.looks[0].numbers

    def scores(self, number: int) -> np.ndarray | None:
        """(A,) of a person, if it was there."""
        return self.actions[self.numbers.index(number)] if number in self.numbers else None


def shown_actions(scores: np.ndarray, ids: Sequence[int]) -> list[tuple[int, float]]:
    """The actions of a person that are worth showing, with their scores, the highest first."""
    ranked = np.argsort(-scores, kind="stable")[:MOST]
    return [(ids[i], float(scores[i])) for i in ranked if scores[i] >= SHOWN]


class SightingFile:
    """The lines of one video.

    Args:
        path: of the finished file; until :meth:`finish` it is called ``path.partial``.
        made_by: plain words and numbers that decide its content.

    Attributes:
        made_by: as given.
        complete: the whole video was watched.

    Raises:
        InputError: a file made of something else lies there.
    """

    def __init__(self, path: Path, made_by: dict) -> None:
        self.path, self.made_by = path, made_by
        self.partial = path.with_name(path.name + ".partial")
        self.complete = path.exists()
        lines = list(_whole_lines(path if self.complete else self.partial, limit=1))
        if not lines:
            self.complete = False
            write_whole(self.partial, json.dumps(made_by) + "\n")
        elif json.loads(lines[0]) != json.loads(json.dumps(made_by)):
            found = path if self.complete else self.partial
            raise InputError(f"{found}: of another video, model or detector; delete it or move it")
        elif not self.complete:
            _cut(self.partial)

    def __iter__(self) -> Iterator[Sighting]:
        """What is there, one after the other; nothing is held."""
        path = self.path if self.complete else self.partial
        for number, line in enumerate(_whole_lines(path)):
            try:
                if number:
                    yield _parsed(line)
            except (ValueError, KeyError, IndexError) as error:
                raise InputError(f"{path}:{number + 1}: damaged ({error}); delete it") from error

    def append(self, sighting: Sighting) -> None:
        """Write a line, which the system keeps though this process be killed."""
        with self.partial.open("a") as file:
            file.write(_line(sighting) + "\n")

    def finish(self) -> None:
        """The video is at its end."""
        if not self.complete:
            self.partial.replace(self.path)
            self.complete = True


def _line(sighting: Sighting) -> str:
    looks = [[look.time, look.numbers, look.boxes.round(6).tolist()] for look in sighting.looks]
    scores = {"confidence": sighting.confidence, "actions": sighting.actions}
    return json.dumps({"looks": looks} | {k: v.round(6).tolist() for k, v in scores.items()})


def _parsed(line: str) -> Sighting:
    content = json.loads(line)
    looks = [
        Look(time, numbers, np.array(boxes, np.float64).reshape(-1, 4))
        for time, numbers, boxes in content["looks"]
    ]
    actions = np.array(content["actions"], np.float64).reshape(
        len(looks[0].numbers), -1 if looks[0].numbers else 0
    )
    return Sighting(looks, np.array(content["confidence"], np.float64), actions)


def _whole_lines(path: Path, limit: int | None = None) -> Iterator[str]:
    """Lines up to one that a kill cut short."""
    if not path.exists():
        return
    with path.open() as file:
        for number, line in enumerate(file):
            if number == limit or not line.endswith("\n"):
                return
            yield line


def _cut(path: Path) -> None:
    """Take off a last line that a kill cut short."""
    size = sum(len(line.encode()) for line in _whole_lines(path))
    with path.open("r+b") as file:
        file.truncate(size)

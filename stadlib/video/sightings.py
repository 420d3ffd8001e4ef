"""Sightings as CSV files: a detection file in AVA's form, and whose box is whose.

Who is where, and does what, at any time between the looks: what a drawn frame shows.

What is seen in a video, second by second: a line of JSON each, written as it is found.

The first line says what made the file and whose scores it holds. While a video is being watched
the file is called ``.partial``; the same detector and model go on from there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stadlib.base import InputError, write_whole, written_whole


def write_detections(
    sightings: Iterable[Sighting], video: str, ids: Sequence[int], path: Path
) -> None:
    """Write ``video,second,x1,y1,x2,y2,action,score``, a row for every action of every person.

    Seconds count from the first frame; there is no header, as in official detection files.
    """
    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        for sighting in sightings:
            boxes = sighting.looks[0].boxes
            for box, scores in zip(boxes, sighting.actions, strict=True):
                where = (video, f"{sighting.second:.6f}", *(f"{side:.6f}" for side in box))
                rows.writerows(
                    (*where, action, f"{score:.6f}")
                    for action, score in zip(ids, scores, strict=True)
                )


def write_tracks(sightings: Iterable[Sighting], video: str, path: Path) -> None:
    """Write which box of the detection file is which person: a row a box, with a header.

    ``score`` is the person detector's.
    """
    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("video", "second", "x1", "y1", "x2", "y2", "person", "score"))
        for sighting in sightings:
            look = sighting.looks[0]
            for number, box, score in zip(
                look.numbers, look.boxes, sighting.confidence, strict=True
            ):
                corners = (f"{side:.6f}" for side in box)
                rows.writerow((video, f"{look.time:.6f}", *corners, number, f"{score:.6f}"))


@dataclass(frozen=True, eq=False)
class Seen:
    """A person in a frame: number, box (4,) as fractions, (action, score) from the highest down."""

    number: int
    box: np.ndarray
    actions: list[tuple[int, float]]


class Playback:
    """Goes through the sightings of a video once, in step with its frames.

    Args:
        sightings: all of them, in order; one is held at a time, and the next.
        ids: the actions of the scores.
    """

    def __init__(self, sightings: Iterable[Sighting], ids: Sequence[int]) -> None:
        self._left, self.ids = iter(sightings), ids
        self._now, self._next = next(self._left, None), next(self._left, None)

    def at(self, time: float) -> list[Seen]:
        """The persons of a frame; ``time`` must not go back.

        The nearest look says who is there, with boxes on the straight line from look to look;
        the nearest second says what they do, or the one on the other side of persons it lacks.
        """
        while self._next is not None and self._next.second <= time:
            self._now, self._next = self._next, next(self._left, None)
        if self._now is None:
            return []
        looks = self._now.looks + ([self._next.looks[0]] if self._next else [])
        earlier = [look for look in looks if look.time <= time] or looks[:1]
        before, after = earlier[-1], looks[min(len(earlier), len(looks) - 1)]
        share = (time - before.time) / max(after.time - before.time, 1e-6)
        nearest = before if share < 0.5 or after is before else after
        return [
            Seen(number, _between(before, after, share, number), self._actions(time, number))
            for number in sorted(nearest.numbers)
        ]

    def _actions(self, time: float, number: int) -> list[tuple[int, float]]:
        seconds = [sighting for sighting in (self._now, self._next) if sighting is not None]
        seconds.sort(key=lambda sighting: abs(sighting.second - time))
        scores = (sighting.scores(number) for sighting in seconds)
        found = next((own for own in scores if own is not None), None)
        return [] if found is None else shown_actions(found, self.ids)


def _between(before: Look, after: Look, share: float, number: int) -> np.ndarray:
    """A box on the way from a look to the next, or where one of them found it."""
    first, last = before.box(number), after.box(number)
    if first is None or last is None:
        return last if first is None else first
    return first + min(max(share, 0.0), 1.0) * (last - first)


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

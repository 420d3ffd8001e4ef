"""What is seen in a video, second by second: JSON lines while it is watched, CSV files at the end.

The first line holds what made the file. Until the end of the video the file is called
``.partial``; the same detector and model resume from it.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from stadlib.base import InputError, whole_lines, write_whole, written_whole
from stadlib.data.annotation_tools import PERSON, AnnotatedVideo

SHOWN = 0.25  # least score of an action that is shown: in the miniature world's first edition
# two of three such labels were right, and two of three that are right are such
MOST = 3  # actions that are shown of a person


class Look(NamedTuple):
    """Who is where at a time: persons' numbers, and boxes (N, 4) as fractions of the frame."""

    time: float
    numbers: list[int]
    boxes: np.ndarray


class Sighting(NamedTuple):
    """A scored second."""

    looks: list[Look]  # the first is at the second itself; its persons are scored
    confidence: np.ndarray  # (N,), the detector's scores of these persons
    actions: np.ndarray  # (N, A), in the order of the file's ``actions``

    @property
    def second(self) -> float:
        """Since the first frame."""
        return self.looks[0].time

    @property
    def numbers(self) -> list[int]:
        """Of the persons that are scored."""
        return self.looks[0].numbers

    def persons(self, ids: Sequence[int]) -> list[Seen]:
        """Who is scored; ``ids`` are the actions' in the order of the scores."""
        rows = zip(self.numbers, self.looks[0].boxes, self.actions, strict=True)
        return [Seen(number, box, shown_actions(scores, ids)) for number, box, scores in rows]

    def to_json(self) -> str:
        """Return one line, with six decimals."""
        looks = [[look.time, look.numbers, look.boxes.round(6).tolist()] for look in self.looks]
        scores = {"confidence": self.confidence, "actions": self.actions}
        return json.dumps({"looks": looks} | {k: v.round(6).tolist() for k, v in scores.items()})

    @staticmethod
    def from_json(line: str) -> Sighting:
        """The inverse of :meth:`to_json`."""
        content = json.loads(line)
        looks = [
            Look(time, numbers, np.array(boxes, np.float64).reshape(-1, 4))
            for time, numbers, boxes in content["looks"]
        ]
        count = len(looks[0].numbers)
        actions = np.array(content["actions"], np.float64).reshape(count, -1 if count else 0)
        return Sighting(looks, np.array(content["confidence"], np.float64), actions)


class Seen(NamedTuple):
    """A person in a frame: number, box (4,) as fractions, (action, score) from the highest down."""

    number: int
    box: np.ndarray
    actions: list[tuple[int, float]]


def shown_actions(scores: np.ndarray, ids: Sequence[int]) -> list[tuple[int, float]]:
    """The actions of a person that are worth showing, with their scores, the highest first."""
    ranked = np.argsort(-scores, kind="stable")[:MOST]
    return [(ids[i], float(scores[i])) for i in ranked if scores[i] >= SHOWN]


class SightingFile:
    """The lines of one video; iterating reads them one after the other and holds none.

    ``made_by`` are plain words and numbers that decide the content. A file that was made by others
    is refused. ``complete`` means that the whole video was watched.
    """

    def __init__(self, path: Path, made_by: dict) -> None:
        self.path, self.made_by = path, made_by
        self.partial = path.with_name(path.name + ".partial")
        self.complete = path.exists()
        file = path if self.complete else self.partial
        lines = whole_lines(file)
        if (first := next(lines, None)) is None:
            self.complete = False
            write_whole(self.partial, json.dumps(made_by) + "\n")
        elif json.loads(first) != json.loads(json.dumps(made_by)):
            raise InputError(f"{file}: of another video, model or detector; delete it or move it")
        elif not self.complete:  # take off a last line that a kill cut short
            size = len(first.encode()) + sum(len(line.encode()) for line in lines)
            with self.partial.open("r+b") as partial:
                partial.truncate(size)

    def __iter__(self) -> Iterator[Sighting]:
        """The sightings in order."""
        path = self.path if self.complete else self.partial
        for number, line in enumerate(whole_lines(path)):
            try:
                if number:
                    yield Sighting.from_json(line)
            except (ValueError, KeyError, IndexError) as error:
                raise InputError(f"{path}:{number + 1}: damaged ({error}); delete it") from error

    def append(self, sighting: Sighting) -> None:
        """Write a line, which survives a kill."""
        with self.partial.open("a") as file:
            file.write(sighting.to_json() + "\n")

    def finish(self) -> None:
        """Give the file its name: the video is at its end."""
        if not self.complete:
            self.partial.replace(self.path)
            self.complete = True


class Playback:
    """The persons of each frame, from the sightings of a video in order; holds two of them."""

    def __init__(self, sightings: Iterable[Sighting], ids: Sequence[int]) -> None:
        self._left, self.ids = iter(sightings), ids
        self._now, self._next = next(self._left, None), next(self._left, None)

    def at(self, time: float) -> list[Seen]:
        """The persons of a frame; ``time`` must not go back.

        The nearest look says who is there, with boxes on the straight line from look to look. The
        nearest scored second says what a person does.
        """
        while self._next is not None and self._next.second <= time:
            self._now, self._next = self._next, next(self._left, None)
        if self._now is None:
            return []
        seconds = [second for second in (self._now, self._next) if second is not None]
        seconds.sort(key=lambda sighting: abs(sighting.second - time))
        looks = self._now.looks + ([self._next.looks[0]] if self._next else [])
        earlier = [look for look in looks if look.time <= time] or looks[:1]
        before, after = earlier[-1], looks[min(len(earlier), len(looks) - 1)]
        share = (time - before.time) / max(after.time - before.time, 1e-6)
        nearest = before if share < 0.5 or after is before else after
        actions: dict[int, list] = {}
        for second in reversed(seconds):
            actions |= {person.number: person.actions for person in second.persons(self.ids)}
        here, there = (dict(zip(x.numbers, x.boxes, strict=True)) for x in (before, after))
        seen = []
        for number in sorted(nearest.numbers):
            first, last = here.get(number, there.get(number)), there.get(number, here.get(number))
            box = first + min(max(share, 0.0), 1.0) * (last - first)
            seen.append(Seen(number, box, actions.get(number, [])))
        return seen


def write_tables(sightings: SightingFile, video: str, ids: Sequence[int]) -> None:
    """Write two files beside the sightings; seconds count from the first frame.

    ``detections.csv`` has AVA's form without a header: ``video,second,x1,y1,x2,y2,action,score``.
    ``tracks.csv`` has a header, a person's number in place of an action, and its detector's score.
    """
    with (
        written_whole(sightings.path.with_name("detections.csv")) as first,
        written_whole(sightings.path.with_name("tracks.csv")) as second,
        first.open("w", newline="") as scores_file,
        second.open("w", newline="") as tracks_file,
    ):
        score_rows = csv.writer(scores_file, lineterminator="\n")
        track_rows = csv.writer(tracks_file, lineterminator="\n")
        track_rows.writerow(("video", "second", "x1", "y1", "x2", "y2", "person", "score"))
        for sighting in sightings:
            look = sighting.looks[0]
            for number, box, confidence, scores in zip(
                look.numbers, look.boxes, sighting.confidence, sighting.actions, strict=True
            ):
                start = (video, f"{look.time:.6f}", *(f"{side:.6f}" for side in box))
                track_rows.writerow((*start, number, f"{confidence:.6f}"))
                for action, score in zip(ids, scores, strict=True):
                    score_rows.writerow((*start, action, f"{score:.6f}"))


def write_cvat(folder: Path, video: Path, out: Path) -> int:
    """Write a video's predictions as "CVAT for video 1.1"; returns the number of persons.

    A person is a track of the label ``person`` with a checkbox for each action, ticked where it is
    shown, and is outside from the first scored second without its box. CVAT needs a task with these
    labels; they are written beside ``out``. An InputError says what is wrong with ``folder``.
    """
    path, source = folder / "seconds.jsonl", AnnotatedVideo(video)
    try:
        made_by = json.loads(path.read_text().partition("\n")[0])
        names = {int(action): name for action, name in made_by["actions"].items()}
    except (OSError, ValueError, LookupError) as error:
        raise InputError(f"{path}: no predictions ({error}); finish stadlib predict") from error
    if made_by["bytes"] != video.stat().st_size:
        raise InputError(f"{path}: of another video, {made_by['video']}; name that")
    tracks, before = defaultdict(dict), {}  # by person: frame, whether outside, box, actions
    for sighting in SightingFile(path, made_by):
        now, frame = {}, source.frame_at(sighting.second)
        for person in sighting.persons(list(names)):
            now[person.number] = person.box, {names[action] for action, _ in person.actions}
        for number, seen in (before | now).items():
            tracks[number].setdefault(frame, (number not in now, *seen))
        before = now
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    SubElement(SubElement(SubElement(root, "meta"), "task"), "source").text = video.name
    for number, boxes in sorted(tracks.items()):
        track = SubElement(root, "track", id=str(number), label=PERSON)
        done = sorted({action for *_, actions in boxes.values() for action in actions})
        for frame, (outside, box, actions) in boxes.items():
            words = {"frame": str(frame), "outside": str(int(outside)), "occluded": "0"}
            corners = (f"{side:.2f}" for side in box * [*source.size * 2])
            words |= zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True)
            element = SubElement(track, "box", words | {"keyframe": "1"})
            for name in done:
                SubElement(element, "attribute", name=name).text = str(name in actions).lower()
    indent(root)
    write_whole(out, tostring(root, encoding="utf-8", xml_declaration=True))
    box = {"mutable": True, "input_type": "checkbox", "default_value": "false", "values": ["false"]}
    labels = [{"name": PERSON, "attributes": [{"name": name, **box} for name in names.values()]}]
    write_whole(out.with_suffix(".labels.json"), json.dumps(labels, ensure_ascii=False, indent=1))
    return len(tracks)

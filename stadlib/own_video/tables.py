"""Sightings as CSV files: a detection file in AVA's form, and whose box is whose."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from stadlib.own_video.sightings import Sighting
from stadlib.paths import written_whole


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

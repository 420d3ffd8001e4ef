"""What was seen in a video, as notebooks show it: figures and tables out of the files."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Video

from stadlib.data.streaming import Stream, picture_at
from stadlib.own_video import sheet, time_line
from stadlib.own_video.annotated import write_clip
from stadlib.own_video.playback import Seen
from stadlib.own_video.sightings import Sighting, SightingFile, shown_actions
from stadlib.style import NotebookFigure, shortened

_FILES = {
    "annotated.mp4": "the video, drawn on, without sound",
    "contact_sheet.png": "frames at even distances",
    "time_line.png": "when each person does what",
    "detections.csv": "all scores of all actions, in AVA's form",
    "tracks.csv": "which box is whose, the detector's scores",
    "seconds.jsonl": "all that was seen, a line a second",
}
_SIDE = 240  # pixels of a contact sheet's pictures, the short side


@dataclass(frozen=True, eq=False)
class Prediction:
    """A video that was watched.

    Attributes:
        video: its file.
        folder: of the results.
        names: of the actions, by id, in the order of the scores.
        every: seconds from one that was scored to the next.
        warning: what must be said about it; empty if nothing.
        sightings: second by second.
    """

    video: Path
    folder: Path
    names: dict[int, str]
    every: float
    warning: str
    sightings: SightingFile

    @property
    def annotated(self) -> Path:
        """The video with boxes, numbers and actions."""
        return self.folder / "annotated.mp4"

    @property
    def detections(self) -> Path:
        """All scores in AVA's form: video, second, corners, action, score."""
        return self.folder / "detections.csv"

    @property
    def tracks(self) -> Path:
        """Whose box is whose: video, second, corners, person, the detector's score."""
        return self.folder / "tracks.csv"

    def clip(self, seconds: float = 12.0) -> Video:
        """The beginning of the drawn video, to be embedded in a notebook."""
        path = self.folder / "clip.mp4"
        write_clip(self.annotated, path, seconds)
        return Video(path.read_bytes(), embed=True, mimetype="video/mp4")

    def contact_sheet(self) -> NotebookFigure:
        """Frames at even distances, not picked, with their persons."""
        stream = Stream(self.video, largest=_SIDE)
        number = sheet.ROWS * sheet.columns(stream.size)
        count = sum(1 for _ in self.sightings)
        places = {int((i + 0.5) * count / min(number, count)) for i in range(min(number, count))}
        chosen = (s for place, s in enumerate(self.sightings) if place in places)
        pictures = [(s.second, picture_at(stream, s.second), self._seen(s)) for s in chosen]
        return sheet.contact_sheet(pictures, self.names, self.warning)

    def time_line(self) -> NotebookFigure:
        """The persons seen longest, and when they do what."""
        ids = list(self.names)
        found = time_line.read_time_line(lambda: self.sightings, len(ids), self.every)
        return time_line.time_line(found, ids, self.names, self.warning)

    def persons(self) -> pd.DataFrame:
        """Return the persons by number: first and last second, in how many they were scored, and
        what they do most, by the mean of their scores."""
        seconds, sums = defaultdict(list), defaultdict(float)
        for sighting in self.sightings:
            for number, scores in zip(sighting.numbers, sighting.actions, strict=True):
                first = seconds[number][:1] or [sighting.second]
                seen = seconds[number][2] if seconds[number] else 0
                seconds[number] = [*first, sighting.second, seen + 1]
                sums[number] = sums[number] + scores
        table = pd.DataFrame.from_dict(
            seconds, orient="index", columns=["from second", "to", "scored"]
        ).rename_axis("person")
        table["does"] = [self._words(sums[n] / scored) for n, scored in table["scored"].items()]
        return table.sort_index()

    def files(self) -> pd.DataFrame:
        """Return the files of the folder, and what each is for."""
        rows = {
            name: (round((self.folder / name).stat().st_size / 1000, 1), words)
            for name, words in _FILES.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["kB", "holds"]).rename_axis(
            "file"
        )

    def provenance(self) -> pd.DataFrame:
        """Return what the results were made of."""
        words = {k: v for k, v in self.sightings.made_by.items() if k != "actions"}
        words["model"], _, words["its digest"] = words["model"].rpartition("-")  # else cut in two
        words["stadlib"] = version("stadlib")
        return pd.DataFrame({"": words.values()}, index=pd.Index(words, name="made of"))

    def _seen(self, sighting: Sighting) -> list[Seen]:
        look, ids = sighting.looks[0], list(self.names)
        persons = zip(look.numbers, look.boxes, sighting.actions, strict=True)
        return sorted(
            (Seen(number, box, shown_actions(scores, ids)) for number, box, scores in persons),
            key=lambda seen: seen.number,
        )

    def _words(self, scores: np.ndarray) -> str:
        shown = shown_actions(scores, list(self.names))
        return ", ".join(f"{shortened(self.names[a])} {s:.2f}" for a, s in shown)

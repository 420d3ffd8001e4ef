"""Where a dataset keeps its files: AVA's and AVA-Kinetics' own names under one root.

ROOT/annotations/ava_action_list_v2.2_for_activitynet_2019.pbtxt
ROOT/annotations/ava_{train,val,test}_v2.2.csv          annotations
ROOT/annotations/kinetics_{train,val,test}_v1.0.csv
ROOT/annotations/ava_{split}_v2.2.txt                   video ids, one a line
ROOT/annotations/kinetics_{split}_v1.0.txt
ROOT/annotations/ava_{split}_excluded_timestamps_v2.2.csv
ROOT/annotations/video_starts.csv                       source,video,seconds (optional)
ROOT/boxes/{detector}_{source}_{split}.csv              persons, of any second, or .json .pkl
ROOT/videos/{ava,kinetics}/<video>.mp4                  or .mkv .webm .avi .mov
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from stadlib.base import InputError
from stadlib.data.labels import LABEL_MAP_FILE, LabelMap, read_label_map
from stadlib.data.rows import read_excluded

SOURCES = ("ava", "kinetics")
SPLITS = ("train", "val", "test")
AVA_SECONDS = range(902, 1799)  # the keyframes of every AVA movie
VERSIONS = {"ava": "v2.2", "kinetics": "v1.0"}
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
BOX_SUFFIXES = (".csv", ".json", ".pkl")


class AvaLayout:
    """Paths and small files of one dataset in the official layout, below ``root``."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def __reduce__(self) -> tuple:
        return AvaLayout, (self.root,)  # workers get the path; small files are read again there

    @property
    def annotation_folder(self) -> Path:
        """Where the label map, the CSVs and the lists are."""
        return self.root / "annotations"

    def label_map(self) -> LabelMap:
        """The evaluated actions."""
        return read_label_map(self.annotation_folder / LABEL_MAP_FILE)

    def annotations(self, source: str, split: str) -> Path:
        """The annotation file of a split, whether it exists or not."""
        return self._file(source, split, ".csv")

    def video_list(self, source: str, split: str) -> Path:
        """The file that lists a split's video ids, whether it exists or not."""
        return self._file(source, split, ".txt")

    def excluded_file(self, source: str, split: str) -> Path:
        """The file of excluded timestamps, whether it exists or not."""
        return self._file(source, split, ".csv", "excluded_timestamps_")

    def sources(self, split: str, *, listed: bool = False) -> list[str]:
        """The sources with annotations of a split: data of one's own may lack Kinetics.

        With ``listed`` a list of videos is enough, which is all that AVA's test split has.
        """
        suffixes = (".csv", ".txt") if listed else (".csv",)
        return [s for s in SOURCES if any(self._file(s, split, x).is_file() for x in suffixes)]

    def _file(self, source: str, split: str, suffix: str, kind: str = "") -> Path:
        stem = f"{_known(source, SOURCES)}_{_known(split, SPLITS)}_{kind}{VERSIONS[source]}"
        return self.annotation_folder / (stem + suffix)

    def person_boxes(self, detector: str, source: str, split: str) -> Path:
        """A detector's boxes, in annotated seconds and others, whether the file exists or not."""
        stem = f"{detector}_{_known(source, SOURCES)}_{_known(split, SPLITS)}"
        files = [self.root / "boxes" / (stem + suffix) for suffix in BOX_SUFFIXES]
        return next((file for file in files if file.exists()), files[0])

    def videos(self, source: str, split: str) -> list[str]:
        """Video ids of a split, in file order: its list, or else the videos of its annotations."""
        listing, annotations = self.video_list(source, split), self.annotations(source, split)
        if listing.is_file():
            lines = listing.read_text(encoding="utf-8-sig").splitlines()
            videos = [line.strip() for line in lines if line.strip()]
        elif annotations.is_file():
            lines = annotations.read_text(encoding="utf-8-sig").splitlines()
            videos = [line.split(",", 1)[0] for line in lines if line]
        else:
            raise InputError(f"{listing}: no such list of videos, and no {annotations.name} either")
        return list(dict.fromkeys(videos))

    def video_file(self, source: str, video: str) -> Path:
        """The file of a video in any container; ids with a path in them are refused."""
        folder = self.root / "videos" / _known(source, SOURCES)
        if video in ("", ".", "..") or re.search(r"[/\\\0]", video):
            raise InputError(f"{folder}: {video!r} is no video id; ids are file names, no paths")
        for suffix in VIDEO_SUFFIXES:
            if (path := folder / f"{video}{suffix}").is_file():
                return path
        choices = ", ".join(VIDEO_SUFFIXES)
        raise InputError(f"{folder / video}: no such video (looked for {choices}); add the file")

    def excluded(self, source: str, split: str) -> set[tuple[str, str]]:
        """Keyframes that the official evaluation leaves out: (video, ``%.6f`` of its second)."""
        path = self.excluded_file(source, split)
        return read_excluded([path] if path.is_file() else [])

    def video_start(self, source: str, video: str) -> float:
        """The annotation clock, in seconds, at the file's first frame (default 0)."""
        return self._video_starts.get((_known(source, SOURCES), video), 0.0)

    @cached_property
    def _video_starts(self) -> dict[tuple[str, str], float]:
        path = self.annotation_folder / "video_starts.csv"
        if not path.is_file():
            return {}
        starts = {}
        for row, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            match = re.fullmatch(r"(\w+),([^,]+),\s*(-?\d+\.?\d*)\s*", line)
            if match:
                starts[match[1], match[2]] = float(match[3])
            elif line and not line.startswith("source,"):
                raise InputError(f"{path}:{row}: {line!r} is not source,video,seconds; mend it")
        return starts


def _known(word: str, choices: tuple[str, ...]) -> str:
    if word not in choices:
        raise InputError(f"{word!r} is unknown; choose from {', '.join(choices)}")
    return word

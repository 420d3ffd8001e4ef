"""Where a dataset keeps its files, AVA's and AVA-Kinetics' names under one root; its label map.

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

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from stadlib.base import InputError, check_word
from stadlib.data.rows import read_excluded

SOURCES = ("ava", "kinetics")
SPLITS = ("train", "val", "test")
AVA_SECONDS = range(902, 1799)  # the keyframes of every AVA movie
VERSIONS = {"ava": "v2.2", "kinetics": "v1.0"}
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
BOX_SUFFIXES = (".csv", ".json", ".pkl")
LABEL_MAP_FILE = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
AVA_IDS = range(1, 81)  # every id that AVA's files may use; 20 of them are not evaluated
# Actions that last while they show only now and then, in the miniature world: answering a phone,
# holding, drinking, eating, reading, texting, talking, and listening to or watching such a person.
LASTING = frozenset({15, 17, 27, 29, 48, 57, 74, 79, 80})
_QUOTED = r""""[^"\n]*"|'[^'\n]*'"""
_COMMENT = re.compile(rf"({_QUOTED})|#[^\n]*")  # a quoted number sign begins none
# A block, or any other text.
_BLOCK = re.compile(rf"""\b(?:item|label)\s*\{{((?:{_QUOTED}|[^{{}}"'])*)\}}|\S.*""")
_NAME = re.compile(rf"\bname\s*:\s*({_QUOTED})")
_ID = re.compile(r"\b(?:label_)?id\s*:\s*(\d+)(?!\S)")
_FORMS = 'item { name: "stand" id: 12 } or label { name: "stand" label_id: 12 label_type: ... }'


def group(action_id: int) -> Literal["pose", "object", "person"]:
    """AVA's group of an action: the pose of a person, a person with an object, two persons."""
    if action_id <= 14:
        return "pose"
    return "object" if action_id <= 63 else "person"


@dataclass(frozen=True)
class LabelMap:
    """Which actions exist, and in which column of an action array each of them stands."""

    names: dict[int, str]  # by id, such as {12: "stand"}; it is sorted
    path: str = field(default="", compare=False)  # of its file

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", dict(sorted(self.names.items())))

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Ids in ascending order: the column order of every action array."""
        return tuple(self.names)

    @property
    def num_actions(self) -> int:
        """Columns of every action array."""
        return len(self.names)

    @cached_property
    def is_avas(self) -> bool:
        """Whether ids mean what they mean in AVA: only then have actions AVA's groups."""
        return all(
            action in AVA_IDS and AVA_ACTIONS.get(action, name) == name
            for action, name in self.names.items()
        )

    def group(self, action_id: int) -> str:
        """AVA's group of an action; ``other`` in a map of one's own."""
        return group(action_id) if self.is_avas else "other"


def read_label_map(path: str | Path) -> LabelMap:
    """Read a label map in either public form, 60 classes (``item``) or 80 (``label``)."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no label map ({error}); copy AVA's list there") from error
    names: dict[int, str] = {}
    text = _COMMENT.sub(lambda found: found[1] or "", text)
    for block in _BLOCK.finditer(text):
        name, number = _NAME.search(block[1] or ""), _ID.search(block[1] or "")
        if not name or not name[1][1:-1] or not number or int(number[1]) in names:
            row = text.count("\n", 0, block.start()) + 1
            problem = f"no whole block with a name and an id of its own; expected {_FORMS}"
            raise InputError(f"{path}, row {row}: {problem}")
        names[int(number[1])] = name[1][1:-1]
    if not names:
        raise InputError(f"{path}: no action in this label map; expected blocks {_FORMS}")
    return LabelMap(names, str(path))


def write_label_map(path: str | Path, label_map: LabelMap) -> None:
    """Write a label map in the ``item { name id }`` form of AVA's 60-class file."""
    blocks = [f'item {{\n  name: "{name}"\n  id: {i}\n}}\n' for i, name in label_map.names.items()]
    Path(path).write_text("".join(blocks), encoding="utf-8")


AVA_ACTIONS = read_label_map(Path(__file__).with_name(LABEL_MAP_FILE)).names
"""The 60 classes of AVA v2.2 that the ActivityNet challenge evaluates, by AVA's own id."""


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
        return self.annotation_folder / f"{_stem(source, split)}_{kind}{VERSIONS[source]}{suffix}"

    def person_boxes(self, detector: str, source: str, split: str) -> Path:
        """A detector's boxes, in annotated seconds and others, whether the file exists or not."""
        stem = self.root / "boxes" / f"{detector}_{_stem(source, split)}"
        files = [stem.with_name(stem.name + suffix) for suffix in BOX_SUFFIXES]
        return next((file for file in files if file.exists()), files[0])

    def videos(self, source: str, split: str) -> list[str]:
        """Video ids of a split, in file order: its list, or else the videos of its annotations."""
        listing, annotations = self.video_list(source, split), self.annotations(source, split)
        path = listing if listing.is_file() else annotations
        if not path.is_file():
            raise InputError(f"{listing}: no such list of videos, and no {annotations.name} either")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        names = (line.strip() if path == listing else line.split(",", 1)[0] for line in lines)
        return list(dict.fromkeys(filter(None, names)))

    def video_file(self, source: str, video: str) -> Path:
        """The file of a video in any container; ids with a path in them are refused."""
        check_word("source", source, SOURCES)
        folder = self.root / "videos" / source
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
        return self.video_starts.get((source, video), 0.0)

    @cached_property
    def video_starts(self) -> dict[tuple[str, str], float]:
        """What ``video_starts.csv`` has, by source and video."""
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


def _stem(source: str, split: str) -> str:
    check_word("source", source, SOURCES)
    check_word("split", split, SPLITS)
    return f"{source}_{split}"

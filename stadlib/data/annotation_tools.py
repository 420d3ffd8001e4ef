"""Files of annotation tools as a dataset in the official layout.

Read are CVAT's "CVAT for video 1.1" (https://docs.cvat.ai/docs/other/xml_format), projects of VIA 3
(https://gitlab.com/vgg/via, ``CodeDoc.md``), and COCO with ``videos`` as MMTracking has it.
Keyframes are whole seconds from the first frame. From CVAT, which interpolates, they have the boxes
of the frame that is shown then, from VIA and COCO those of the annotated moment nearest to it.

An action is a ticked checkbox, or the value of another attribute that is no number. A box without
attributes has its label as the action, unless that is ``person``.
"""

import csv
import json
import math
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
from defusedxml import ElementTree

from stadlib.base import InputError, whole_folder
from stadlib.data.boxes import BOX_COLUMNS, write_person_boxes
from stadlib.data.layout import (
    AVA_ACTIONS,
    LABEL_MAP_FILE,
    VIDEO_SUFFIXES,
    AvaLayout,
    LabelMap,
    write_label_map,
)
from stadlib.data.rows import BOX
from stadlib.data.stream import Stream
from stadlib.data.video import TIME_SLACK, probe

PERSON, LABEL = "person", "label"  # a label that is no action; a label as one of ``actions``
UNDECIDED = "__undefined__"  # CVAT's value of a select or radio attribute that nobody has set
_PICTURE, _RATE = re.compile(r"(.+)_(\d+)\.(?:jpe?g|png)", re.IGNORECASE), 30  # VIDEO_000001.jpg
_RECTANGLE, _OPTIONS = 2, (2, 3, 4)  # VIA's shape; its checkboxes, radios and selects
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


class AnnotatedVideo:
    """A video: ``name`` is its id in a dataset, ``size`` width and height as a player shows it."""

    def __init__(self, path: Path) -> None:
        self.path, self.info, self.turns = path.resolve(), probe(path), Stream(path).turns
        self.size = (self.info.width, self.info.height)[:: -1 if self.turns % 2 else 1]
        self.name = re.sub(r'[,"\x00-\x1f\x85\u2028\u2029]', "_", path.stem).strip()  # fits a CSV
        self.num_seconds = math.ceil(self.info.duration - TIME_SLACK)

    def frame_at(self, second: float) -> int:
        """The number, from 0, of the frame that is shown at a time."""
        return max(0, int(np.searchsorted(self.info.seconds, second + TIME_SLACK, "right")) - 1)

    def time_of(self, frame: int) -> float:
        """The second from which a frame is shown; ValueError if there is none of that number."""
        if not 0 <= frame < len(self.info.pts):
            raise ValueError(f"{self.path.name} has {len(self.info.pts)} frames, no {frame}")
        return float(self.info.seconds[frame])


class _File:
    """A file of annotations: the element that is being read, and the videos that it may name."""

    def __init__(self, path: Path, folder: Path, opened_videos: dict[Path, AnnotatedVideo]) -> None:
        self.path, self.folder, self.place, self.opened = path, folder, "the file", opened_videos
        files = [f for f in sorted(folder.glob("*")) if f.suffix.lower() in VIDEO_SUFFIXES]
        self.named = {normalize("NFC", file.stem): file for file in files}  # without a suffix, too
        self.named |= {normalize("NFC", file.name): file for file in files}

    def video(self, path: str) -> AnnotatedVideo:
        """The video of that file name. Folders in it do not count, so it leads nowhere else."""
        name = normalize("NFC", re.split(r"[/\\]", path)[-1])
        if (file := self.named.get(name) or self.named.get(name.rpartition(".")[0])) is None:
            raise ValueError(f"no video {name!r} in {self.folder} (--videos names another folder)")
        if file not in self.opened:
            video = AnnotatedVideo(file)
            if video.turns:
                turned = f"{file.name} is turned by {video.turns * 90} degrees when it is played"
                raise ValueError(f"{turned}: re-encode it upright (ffmpeg -i OLD NEW), name that")
            for other in self.opened.values():
                if other.name == video.name and other.path != video.path:
                    raise ValueError(f"{file} and {other.path} have one name: rename one")
            self.opened[file] = video
        return self.opened[file]


def _read_cvat(file: _File) -> Iterator[tuple]:
    root = ElementTree.parse(file.path, forbid_dtd=True).getroot()
    if root.tag != "annotations" or [*root.iterfind("image"), *root.iterfind("meta/project")]:
        raise ValueError("pictures or a whole project")
    video = file.video(root.findtext("meta//source") or file.path.stem)
    shown = [video.frame_at(second) for second in range(video.num_seconds)]
    stop = float(root.findtext("meta//stop_frame") or math.inf)
    for number, track in enumerate(root.iterfind("track")):
        attributes, boxes = {}, {}
        for box in track.iterfind("box"):
            file.place = f"track {track.get('id', number)}, box of frame {box.get('frame')}"
            video.time_of(frame := int(box.attrib["frame"]))
            if frame in boxes or float(box.get("rotation", 0)):
                raise ValueError("rotated, or a second box of the frame")
            # An attribute that a box leaves out is as in the box before.
            named = {each.attrib["name"]: each.text or "" for each in box.iterfind("attribute")}
            attributes = attributes | named
            corners = [float(box.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr")]
            boxes[frame] = (box.get("outside") != "1", attributes, corners)
        frames = sorted(boxes)
        sides = zip(*(boxes[frame][2] for frame in frames), strict=True)
        sides = [np.interp(shown, frames, side) for side in sides]
        for second, place in enumerate(np.searchsorted(frames, shown, "right") - 1):
            if place >= 0 and shown[second] <= stop and boxes[frames[place]][0]:
                corners, named = [side[second] for side in sides], boxes[frames[place]][1].items()
                yield video, second, video.size, corners, number, track.get("label", ""), named


def _read_via(file: _File) -> Iterator[tuple]:
    project = json.loads(file.path.read_text(encoding="utf-8-sig"))
    views = {vid: str(view["fid_list"][0]) for vid, view in project.get("view", {}).items()}
    for key, region in project["metadata"].items():
        file.place, shape, view = f"metadata {key}", region["xy"], str(region["vid"])
        name, times = str(project["file"][views.get(view, view)]["fname"]), region["z"]
        if picture := _PICTURE.fullmatch(name):
            name, times = picture[1], [(int(picture[2]) - 1) / _RATE]
        video = file.video(name)
        if not shape:  # a temporal segment: it names no person
            continue
        if shape[0] != _RECTANGLE or len(times) != 1:
            raise ValueError(f"shape {shape[0]} at times {times} is no rectangle of one moment")
        named = []
        for number, value in region["av"].items():
            attribute, words = project["attribute"][number], [str(value)]
            if attribute["type"] in _OPTIONS:
                words = [word.strip() for word in words[0].split(",") if word.strip()]
                words = [attribute["options"][word] for word in words]
            named += [(attribute["aname"], word) for word in words]
        x, y, width, height = map(float, shape[1:])
        box = [x, y, x + width, y + height]
        yield video, float(times[0]), video.size, box, None, PERSON, named


def _read_coco_video(file: _File) -> Iterator[tuple]:
    coco, images = json.loads(file.path.read_text(encoding="utf-8-sig")), {}
    videos = {video["id"]: video for video in coco["videos"]}
    labels = {category["id"]: str(category["name"]) for category in coco["categories"]}
    for number, image in enumerate(coco["images"]):
        file.place = f"images[{number}]"
        entry = videos[image["video_id"]]
        video, rate = file.video(str(entry.get("name") or entry["file_name"])), entry.get("fps")
        time = image["frame_id"] / rate if rate else video.time_of(image["frame_id"])
        images[image["id"]] = video, time, (image["width"], image["height"])
        yield *images[image["id"]], None, None, PERSON, ()  # seen, perhaps without a person
    for number, row in enumerate(coco["annotations"]):
        file.place, track = f"annotations[{number}]", row.get("track_id", row.get("instance_id"))
        x, y, width, height = map(float, row["bbox"])
        box, label = [x, y, x + width, y + height], labels[row["category_id"]]
        yield *images[row["image_id"]], box, track, label, ()


_READERS = {  # each yields a video, time, frame's size, corners or None, track, label, attributes
    "cvat": (_read_cvat, "*.xml", "a video's task exported as 'CVAT for video 1.1'"),
    "via": (_read_via, "*.json", "a project of VIA 3"),
    "coco-video": (_read_coco_video, "*.json", "COCO with videos"),
}


def _actions(label: str, attributes: Iterable[tuple[str, str]], chosen: Sequence[str]) -> list[str]:
    chosen = chosen or [name for name, _ in attributes] or (LABEL,)
    done = {label} if LABEL in chosen and label != PERSON else set()
    for name, value in attributes:
        if name in chosen and not re.fullmatch(r"(?i)\s*(-?\d+\.?\d*)?\s*|false", value):
            done.add(name if value.lower() == "true" else value)
    return sorted({" ".join(name.split()).replace('"', "'") for name in done})  # fit a label map


def import_annotations(tool: str, source: Path, out: Path, *, videos: Path | None = None,
                       val: Sequence[str] = (), actions: Sequence[str] = (),
                       copy: bool = False) -> list[str]:  # fmt: skip
    """Write a new dataset ``out`` in the layout of :mod:`.layout`, whole or not at all.

    ``source`` is a file of the tool (``cvat``, ``via``, ``coco-video``) or a folder of files at any
    depth; their ``videos`` are in a folder, or else beside each file. They are linked, or copied on
    demand or where links cannot be made. Those called ``val`` are for validation, by default every
    fifth in the order of names, the last of fewer than five, none of one. ``actions`` are the
    attributes that hold actions, ``label`` for the label. Boxes without an action are only in
    ``boxes/``, for memory. A second with ``UNDECIDED`` is excluded. Returns lines to print. An
    InputError names file, element and remedy.
    """
    if out.exists():
        raise InputError(f"{out}: exists; remove it or name a new folder")
    boxes, found = _read(tool, source, videos, actions)
    table = _at_seconds(boxes, found).explode("actions")  # a row for each action of a box
    names = sorted({*table["actions"].dropna()} - {UNDECIDED})
    if not names:
        remedy = f"give {_READERS[tool][2]} with labels, or name their attributes as --actions"
        raise InputError(f"{source}: no box of a {_READERS[tool][1]} has an action; {remedy}")
    is_avas = {*names} <= {*AVA_ACTIONS.values()}
    label_map = LabelMap(AVA_ACTIONS if is_avas else dict(enumerate(names, 1)))
    table["id"] = table["actions"].map({name: i for i, name in label_map.names.items()})
    choices = sorted({*table.dropna(subset="id")["video"]})
    chosen = {name if name in choices else Path(name).stem for name in val}
    if not chosen < {*choices}:
        raise InputError(f"--val {' '.join(val)}: choose some of {', '.join(choices)}, not all")
    chosen = chosen or {*choices[4::5]} or {*choices[1:][-1:]}
    members = {"train": {*choices} - chosen, "val": chosen}
    splits = {split: [found[name] for name in sorted(names)] for split, names in members.items()}
    write_dataset(out, label_map, table, splits, copy)
    counts = f"{len(choices)} of {len(found)} videos, {len(chosen)} of them for validation"
    kept = f"{table.index.nunique()} of {boxes['x1'].count()} boxes, by second"
    return [f"{out}: {counts}; {kept}", f"actions: {', '.join(names)}"]


def _read(tool: str, source: Path, folder: Path | None, chosen: Sequence[str]) -> tuple:
    # Boxes as fractions of the frame, NaN for a moment without one; and the videos by name.
    read, pattern, form = _READERS[tool]
    rows, tracks, videos = [], defaultdict(dict), {}
    for path in [source] if source.is_file() else sorted(source.rglob(pattern)):
        file = _File(path, folder or path.parent, videos)
        try:
            for video, time, size, corners, track, label, named in read(file):
                box = np.array(corners or [0] * 4, float) / np.maximum([*size, *size], 1)
                if not np.isfinite([time, *box]).all():
                    raise ValueError(f"box {corners} at {time} s")
                numbers = tracks[video.name]
                number = -1 if track is None else numbers.setdefault((path, track), len(numbers))
                box = box.clip(0, 1).round(6) if corners is not None else [math.nan] * 4
                rows.append((video.name, time, *box, number, _actions(label, named, chosen)))
        except (*_MALFORMED, ElementTree.ParseError) as error:
            name = "" if type(error) in (ValueError, InputError) else f"{type(error).__name__} "
            problem = f"{path}: {file.place}: {name}{error}"
            raise InputError(f"{problem}; mend it, or give {form}") from error
    boxes = pd.DataFrame(rows, columns=["video", "time", *BOX, "person", "actions"])
    return boxes.astype({"time": float}), {video.name: video for video in videos.values()}


def _at_seconds(boxes: pd.DataFrame, found: Mapping[str, AnnotatedVideo]) -> pd.DataFrame:
    """The boxes with an area of each video's moments nearest to whole seconds."""
    ends = boxes["video"].map({name: float(video.num_seconds) for name, video in found.items()})
    near = boxes[boxes["time"].between(-0.5, ends - 0.5, inclusive="left")]
    near = near.assign(timestamp=np.floor(near["time"] + 0.5).astype(int))
    order = near.assign(gap=(near["time"] - near["timestamp"]).abs()).sort_values(["gap", "time"])
    near = near.merge(order.drop_duplicates(["video", "timestamp"])[["video", "time"]])
    near = near[(near["x1"] < near["x2"]) & (near["y1"] < near["y2"])]
    return near.sort_values(["video", "timestamp", "person"], kind="stable")


def write_dataset(out: Path, label_map: LabelMap, table: pd.DataFrame,
                  splits: Mapping[str, Sequence[AnnotatedVideo]],
                  copy: bool = False) -> None:  # fmt: skip
    """Write a new dataset in the layout of :mod:`.layout`, whole or not at all.

    A row of ``table`` is ``video``, ``timestamp`` (seconds), a box in fractions of the frame,
    ``person``, ``actions`` (a name) and ``id`` of the action, NaN without an evaluated one. A row
    without a box names a keyframe without a label. Videos are linked or copied.
    """
    with whole_folder(out) as folder:
        layout = AvaLayout(folder)
        for part in (layout.annotation_folder, folder / "videos" / "ava"):
            part.mkdir(parents=True)
        write_label_map(layout.annotation_folder / LABEL_MAP_FILE, label_map)
        for split, videos in splits.items():
            if videos:
                names = [video.name for video in videos]
                _write_split(layout, split, table[table["video"].isin(names)])
                text = "".join(f"{name}\n" for name in names)
                layout.video_list("ava", split).write_text(text, encoding="utf-8")
            for video in videos:
                path = folder / "videos" / "ava" / (video.name + video.path.suffix.lower())
                try:
                    (shutil.copyfile if copy else os.symlink)(video.path, path)
                except OSError:  # no links on this system
                    shutil.copyfile(video.path, path)


def _write_split(layout: AvaLayout, split: str, table: pd.DataFrame) -> None:
    labelled, columns = table.dropna(subset="id").astype({"id": int}), ["video", "timestamp"]
    excluded = table.loc[table["actions"] == UNDECIDED, columns].drop_duplicates()
    labelled = labelled[[*columns, *BOX, "id", "person"]].drop_duplicates()
    options = {"header": False, "index": False, "quoting": csv.QUOTE_NONE, "float_format": "%.6f"}
    labelled.to_csv(layout.annotations("ava", split), **options)
    empty = table.loc[table["x1"].isna(), columns].drop_duplicates()
    empty.to_csv(layout.annotations("ava", split), mode="a", **options)
    excluded.to_csv(layout.excluded_file("ava", split), **options)
    boxes = table.dropna(subset="x1").assign(score=1.0)[list(BOX_COLUMNS)].drop_duplicates()
    write_person_boxes(boxes, layout.person_boxes("ground-truth", "ava", split))

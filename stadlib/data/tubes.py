"""UCF101-24, JHMDB-21 and MultiSports in the official layout, from their published tubes.

A tube is one person's box in successive frames during one action. Annotated frames, every
``every``-th from the first, are keyframes at their own times. A person's id is the number of the
tube in its video. Keyframes of validation without an evaluated action are named without a label,
so that predictions there are wrong, as the field counts them.

Read are ``pyannot_with_class_names.pkl`` (boxes x, y, width, height; frames from 0), and the form
of ACT's ``JHMDB-GT.pkl`` and of ``multisports_GT.pkl`` (frames from 1). No path is made of a name
in them. Folders of numbered pictures are encoded once, into ``ROOT/encoded``.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from stadlib.base import InputError, Report, some
from stadlib.data.annotation_tools import AnnotatedVideo, write_dataset
from stadlib.data.boxes import read_pickle
from stadlib.data.layout import VIDEO_SUFFIXES, LabelMap
from stadlib.data.prepare import DATASETS
from stadlib.data.rows import BOX
from stadlib.data.video import write_video

OURS = ("encoded", "dataset")  # folders that are written below the root
CRF = 18  # of encoded pictures: hardly to be told from them
_PICTURE = re.compile(r"(?:.*\D)?(\d+)\.(?:jpe?g|png)", re.IGNORECASE)
_FLOW = re.compile(r"(?i)flow|brox")  # ACT's and MOC's archives have pictures of optical flow, too
Tube = tuple[int, np.ndarray, np.ndarray]  # label from 0, frames (n,) from 0, corners in pixels


class Annotations(NamedTuple):
    """What a file has, by video where it is of videos."""

    labels: list[str]
    tubes: dict[str, list[Tube]]
    frames: dict[str, int]  # how many
    sizes: dict[str, tuple[float, float]]  # width and height; empty: as the videos'
    splits: dict[str, list[str]]  # of "train" and "val"


def read_annotations(path: Path, fold: int = 1) -> Annotations:
    """Read a published file of either form; ``fold`` is the number of its split, from 1."""
    remedy = "fetch it again, or name a --fold that it has"
    return read_pickle(path, partial(_form, fold=fold), remedy)


def _form(content: dict, fold: int) -> Annotations:
    found = _gttubes(content, fold) if "gttubes" in content else _corrected(content, fold)
    if twice := {*found.splits["train"]} & {*found.splits["val"]}:
        raise ValueError(f"{min(twice)!r} is in both splits")
    for video in (*found.splits["train"], *found.splits["val"]):
        for label, frames, corners in found.tubes[video]:
            sound = corners.shape == (len(frames), 4) and np.isfinite(corners).all()
            sound &= frames.min(initial=0) >= 0 and bool((np.diff(frames) > 0).all())
            if not (sound and 0 <= label < len(found.labels)):
                raise ValueError(f"{video!r} has a tube without sound boxes, frames and label")
    return found


def _corrected(content: dict, fold: int) -> Annotations:
    """The corrected annotations of UCF101-24, which have the field's split 1 alone."""
    videos, train, tubes = content["db"], content["trainvideos"], {}
    if fold != 1:
        raise ValueError(f"it has no split {fold}")
    for video, entry in videos.items():
        tubes[video] = []
        for one in entry["annotations"]:
            boxes = np.asarray(one["boxes"], np.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            tubes[video].append((int(one["label"]), np.arange(one["sf"], one["ef"]), boxes))
    # Its list of training videos has some that were not annotated again.
    splits = {"train": sorted({*videos} & {*train}), "val": sorted({*videos} - {*train})}
    frames = {video: int(entry["numf"]) for video, entry in videos.items()}
    return Annotations(content["classes"], tubes, frames, {}, splits)


def _gttubes(content: dict, fold: int) -> Annotations:
    """ACT's form, in which splits are lists."""
    lists = {"train": content["train_videos"], "val": content["test_videos"]}
    if not 1 <= fold <= len(lists["train"]):
        raise ValueError(f"it has splits 1 to {len(lists['train'])}, no {fold}")
    splits = {split: sorted(videos[fold - 1]) for split, videos in lists.items()}
    tubes = {video: [] for videos in splits.values() for video in videos}
    for video, found in tubes.items():
        for label, arrays in sorted(content["gttubes"][video].items()):
            for rows in (np.asarray(array, np.float64) for array in arrays):
                found.append((int(label), rows[:, 0].astype(np.int64) - 1, rows[:, 1:5]))
    frames = {video: int(content["nframes"][video]) for video in tubes}
    sizes = {video: tuple(map(float, content["resolution"][video][::-1])) for video in tubes}
    return Annotations(content["labels"], tubes, frames, sizes, splits)


def found_videos(root: Path) -> dict[str, Path]:
    """Videos and folders of numbered pictures below a folder, by ``class/name`` and by ``name``."""
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(n for n in folders if not _FLOW.search(n) and n not in OURS)
        here = [Path(folder, name) for name in sorted(files) if name.endswith(VIDEO_SUFFIXES)]
        for path in here or [Path(folder)] * any(map(_PICTURE.fullmatch, files)):
            name = path.name if path == Path(folder) else path.stem
            found[f"{path.parent.name}/{name}"] = path
            found.setdefault(name, path)
    return found


def prepare(name: str, root: Path, out: Path, *, every: int = 1, fold: int = 1,
            progress: Report) -> list[str]:  # fmt: skip
    """Write a published data set to the new folder ``out``, whole or not at all.

    Below ``root`` are its annotation file and its videos, at any depth. Returns lines to print.
    """
    published = DATASETS[name]
    path = next(iter(sorted(root.rglob(published["file"]))), None)
    if path is None:
        raise InputError(f"{root}: no {published['file']} in it; fetch it from the above")
    if out.exists():
        raise InputError(f"{out}: exists; remove it or name a new folder (--out)")
    annotations, found = read_annotations(path, fold), found_videos(root)
    videos = chain(*annotations.splits.values())
    places = {video: found.get(video) or found.get(video.rpartition("/")[2]) for video in videos}
    if missing := [video for video, place in places.items() if place is None]:
        text = f"{len(missing)} of {len(places)} videos are missing: {some(missing)}"
        raise InputError(f"{root}: {text}; fetch them from the above")
    names = dict(enumerate(annotations.labels, 1))
    names = {i: label for i, label in names.items() if label not in published["left_out"]}
    splits: dict[str, list[AnnotatedVideo]] = {"train": [], "val": []}
    tables, opened, other = [], {}, []
    for split, videos in annotations.splits.items():
        for video in videos:
            shown = AnnotatedVideo(_as_file(places[video], root, published["rate"]))
            if opened.setdefault(shown.name, shown) is not shown:
                raise InputError(f"{shown.path} and {opened[shown.name].path} have one name")
            splits[split].append(shown)
            rows = _rows(shown, annotations, video, every)
            tables.append(rows.assign(id=rows["label"].where(rows["label"].isin(names))))
            if split == "val":  # its keyframes that no box with an id is in, without a box
                labelled = tables[-1].loc[tables[-1]["id"].notna(), "timestamp"]
                seconds = np.setdiff1d(shown.info.seconds[::every], labelled)
                empty = {"video": shown.name, "timestamp": seconds, "person": -1}
                tables.append(pd.DataFrame(empty))
            if len(shown.info.pts) != annotations.frames[video]:
                other.append(shown.name)
            progress(len(opened), len(places), "videos")
    table = pd.concat(tables, ignore_index=True).assign(actions=None)
    table = table.sort_values(["video", "timestamp", "person"], kind="stable")
    write_dataset(out, LabelMap(names), table, splits)
    counts = ", ".join(f"{len(videos)} {split} videos" for split, videos in splits.items())
    lines = [f"{out}: {counts}, {table['id'].count()} boxes, {len(names)} actions"]
    if other:
        text = f"{len(other)} videos have more or fewer frames than annotated ({other[0]}, ...)"
        lines.append(f"{text}; boxes of frames that they lack are left out")
    return lines


def _rows(shown: AnnotatedVideo, annotations: Annotations, video: str, every: int) -> pd.DataFrame:
    """A video's boxes with an area at its keyframes, a row a box, with label numbers from 1."""
    parts, size = [], annotations.sizes.get(video, shown.size)
    for person, (label, frames, corners) in enumerate(annotations.tubes[video]):
        boxes = (corners / [*size, *size]).clip(0, 1).round(6)
        kept = (frames % every == 0) & (frames < len(shown.info.pts))
        kept &= (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
        part = pd.DataFrame(boxes[kept], columns=list(BOX))
        seconds = shown.info.seconds[frames[kept]]
        parts.append(part.assign(timestamp=seconds, person=person, label=label + 1))
    columns = [*BOX, "timestamp", "person", "label"]
    rows = pd.concat(parts) if parts else pd.DataFrame(columns=columns, dtype=float)
    return rows.assign(video=shown.name).astype({"person": int})


def _as_file(place: Path, root: Path, rate: int) -> Path:
    """The video itself; of a folder of pictures its H.264, which is made if it is not there yet."""
    target = root / OURS[0] / f"{place.name}.mp4"
    if place.is_file() or target.is_file():
        return place if place.is_file() else target
    numbered = {int(m[1]): place / m[0] for m in map(_PICTURE.fullmatch, os.listdir(place)) if m}
    numbers = range(min(numbered), min(numbered) + len(numbered))
    if lacking := {*numbers} - {*numbered}:
        raise InputError(f"{place}: picture {min(lacking)} is missing; fetch the folder again")

    def pictures() -> Iterator[np.ndarray]:
        for path in (numbered[number] for number in numbers):
            if (picture := cv2.imread(str(path))) is None:
                raise InputError(f"{path}: no picture can be read from it; fetch it again")
            height, width = (length // 2 * 2 for length in picture.shape[:2])  # H.264 wants even
            yield cv2.cvtColor(picture[:height, :width], cv2.COLOR_BGR2RGB)

    write_video(target, pictures(), rate, crf=CRF)
    return target

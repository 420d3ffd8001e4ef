"""Published datasets made ready: AVA-Kinetics in its own layout, sets of tubes written in it.

Nothing is fetched. AVA's videos are whole movies. Kinetics' are clips of ten seconds, which its
mirror names ``<id>_<first second>_<last second>.mp4``, while annotations count from the beginning
of the original video.

UCF101-24, JHMDB-21 and MultiSports have tubes: one person's box in successive frames during one
action. Annotated frames, every ``every``-th from the first, are keyframes at their own times. A
person's id is the number of the tube in its video. Keyframes of validation without an evaluated
action are named without a label, so that predictions there are wrong, as the field counts them.
Read are ``pyannot_with_class_names.pkl`` (boxes x, y, width, height; frames from 0), and the form
of ACT's ``JHMDB-GT.pkl`` and of ``multisports_GT.pkl`` (frames from 1). No path is made of a name
in them. Folders of numbered pictures are encoded once, into ``ROOT/encoded``.
"""

import errno
import hashlib
import json
import math
import multiprocessing
import os
import re
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from functools import partial
from itertools import chain, dropwhile, product, takewhile
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pandas as pd

from stadlib.base import InputError, Report, some, write_whole
from stadlib.data.annotation_tools import AnnotatedVideo, write_dataset
from stadlib.data.boxes import read_pickle
from stadlib.data.layout import LABEL_MAP_FILE, SOURCES, SPLITS, VIDEO_SUFFIXES, AvaLayout, LabelMap
from stadlib.data.rows import BOX
from stadlib.data.stream import Stream, write_frames
from stadlib.data.video import probe, write_video

SAVE_EVERY = 100  # files; an interruption loses no more than these
SIDE = 320  # pixels of the short side that training reads; smaller videos are not enlarged
MARGIN = 4.0  # seconds before AVA's first and after its last keyframe; a clip reaches 1.3
ANNOTATED = (902.0, 1798.0)  # AVA's first and last keyframe
_CLIP = re.compile(r"(?P<video>.+)_(?P<first>\d{6})_\d{6}")  # CVDF's name of a Kinetics clip
DATASETS = tomllib.loads(Path(__file__).with_name("published.toml").read_text("utf-8"))
_AVA = "https://s3.amazonaws.com/ava-dataset/annotations/ava_v2.2.zip"
_KINETICS = "https://storage.googleapis.com/deepmind-media/Datasets/ava_kinetics_v1_0.tar.gz"
OURS = ("encoded", "dataset")  # folders that are written below the root
CRF = 18  # of encoded pictures: hardly to be told from them
_PICTURE = re.compile(r"(?:.*\D)?(\d+)\.(?:jpe?g|png)", re.IGNORECASE)
_FLOW = re.compile(r"(?i)flow|brox")  # ACT's and MOC's archives have pictures of optical flow, too
Tube = tuple[int, np.ndarray, np.ndarray]  # label from 0, frames (n,) from 0, corners in pixels


def what_to_fetch(dataset: str, root: Path) -> str:
    """Where everything of a dataset is published and where it belongs, a line each."""
    return DATASETS[dataset]["fetch"].format(root=root)


def found_videos(layout: AvaLayout, source: str) -> dict[str, Path]:
    """Every video file of a source by its id; a file under the layout's own name comes first."""
    folder = layout.root / "videos" / source
    videos: dict[str, Path] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix in VIDEO_SUFFIXES:
            clip = _CLIP.fullmatch(path.stem) if source == "kinetics" else None
            if clip:
                videos.setdefault(clip["video"], path)
            else:
                videos[path.stem] = path
    return videos


def missing_files(layout: AvaLayout) -> Iterator[str]:
    """Annotation files that training and validation need and that are missing, a line each."""
    names = [layout.annotation_folder / LABEL_MAP_FILE]
    for split in ("train", "val"):
        names += [layout.annotations(source, split) for source in SOURCES]
        names.append(layout.excluded_file("ava", split))
    for path in names:
        if not path.is_file():
            archive = _KINETICS if path.name.startswith("kinetics") else _AVA
            yield f"{path}: missing; take it out of {archive}"


def _wanted_videos(layout: AvaLayout) -> Iterator[tuple[str, str, list[str], dict[str, Path]]]:
    """Source, split, the ids that a list or annotations name, and the source's files by id."""
    found = {source: found_videos(layout, source) for source in SOURCES}
    for source, split in product(SOURCES, SPLITS):
        try:
            yield source, split, layout.videos(source, split), found[source]
        except InputError:
            continue  # its list is among the missing files


def missing_videos(layout: AvaLayout) -> Iterator[str]:
    """How many videos of each split are missing, with the first names."""
    for source, split, videos, found in _wanted_videos(layout):
        if missing := [video for video in videos if video not in found]:
            text = f"{len(missing)} of {len(videos)} {split} videos are missing: {some(missing)}"
            yield f"{layout.root / 'videos' / source}: {text}"


def unusable_names(layout: AvaLayout) -> list[str]:
    """One line if clips are named as the mirror names them, which the layout does not know."""
    clips = [p for video, p in found_videos(layout, "kinetics").items() if p.stem != video]
    remedy = "carry their seconds in their names; --reencode OUT writes <id>.mp4 and their starts"
    return [f"{path.parent}: {len(clips)} clips {remedy}" for path in clips[:1]]


def update_manifest(layout: AvaLayout, progress: Report, checksums: bool = False) -> list[str]:
    """Measure every annotation file and video that is new or changed; write ``manifest.json``.

    An entry, by path under the root: ``bytes``, ``modified`` (ns), of a readable video
    ``duration`` (s), ``frames``, ``width`` and ``height``, of an unreadable one ``problem``, and
    ``sha256`` where ``checksums`` asks for it; if every entry has one, it is compared. If
    interrupted, the next call resumes. Returns a line for every unreadable or altered file.
    """
    path = layout.root / "manifest.json"
    try:
        known = dict(json.loads(path.read_text())["files"]) if path.is_file() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a manifest ({error}); delete it") from error
    files = sorted(file for file in layout.annotation_folder.glob("*") if file.is_file())
    files += [file for source in SOURCES for file in found_videos(layout, source).values()]
    names = [file.relative_to(layout.root).as_posix() for file in files]
    compare = checksums and all("sha256" in known.get(name, {}) for name in names)

    def write(entries: dict[str, dict]) -> None:
        write_whole(path, json.dumps({"files": entries}, indent=1, sort_keys=True) + "\n")

    def measured(name: str) -> dict:
        file, old = layout.root / name, known.get(name, {})
        entry = {"bytes": file.stat().st_size, "modified": file.stat().st_mtime_ns}
        if all(old.get(name) == value for name, value in entry.items()):
            entry = dict(old)
        elif name.startswith("videos"):
            try:
                info = probe(file)
                entry |= {"duration": round(info.duration, 6), "frames": len(info.pts)}
                entry |= {"width": info.width, "height": info.height}
            except InputError as error:
                entry["problem"] = str(error)
        if checksums and (compare or "sha256" not in entry):
            with file.open("rb") as content:
                entry["sha256"] = hashlib.file_digest(content, "sha256").hexdigest()
        return entry

    entries, problems = {}, []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, (name, entry) in enumerate(zip(names, pool.map(measured, names), strict=True), 1):
            changed = compare and entry["sha256"] != known[name]["sha256"]
            if changed:
                problems.append(f"{layout.root / name}: another content than noted; fetch it again")
            if "problem" in entry:
                problems.append(entry["problem"])
            entries[name] = known[name] if changed else entry
            if done % SAVE_EVERY == 0:
                write(known | entries)
            progress(done, len(names), "files")
    write(entries)
    return problems


def reencode(layout: AvaLayout, out: Path, progress: Report, *, workers: int = 0) -> list[str]:
    """Write the videos that annotations or lists name to ``out``, in the same layout.

    H.264 in MP4 without sound, the short side 320 pixels, a keyframe every 30 frames, AVA's movies
    cut to seconds 898 to 1802; ``video_starts.csv`` gives the second at which each file begins.
    Annotations and person boxes are copied. If interrupted, the same call resumes. ``workers``:
    processes, 0 for one a core. Returns a line for every video that cannot be read.
    """
    if out.resolve() == layout.root.resolve():
        raise InputError(f"{out}: is the dataset itself; give --reencode another folder")
    starts_file = out / "annotations" / "video_starts.csv"
    for folder in ("annotations", "boxes"):
        for path in sorted((layout.root / folder).glob("*")):
            if path.is_file() and path.name != starts_file.name:
                write_whole(out / folder / path.name, path.read_bytes())
    starts = dict(AvaLayout(out).video_starts)

    def write_starts() -> None:
        rows = [f"{','.join(key)},{second:.6f}\n" for key, second in sorted(starts.items())]
        write_whole(starts_file, "".join(["source,video,seconds\n", *rows]))

    jobs = {}
    for source, _, videos, found in _wanted_videos(layout):
        for video, path in ((video, found[video]) for video in videos if video in found):
            clip = _CLIP.fullmatch(path.stem) if path.stem != video else None
            start = float(clip["first"]) if clip else layout.video_start(source, video)
            jobs[source, video] = path, out / "videos" / source / f"{video}.mp4", start
    left = [key for key, job in jobs.items() if key not in starts or not job[1].is_file()]
    problems = []
    spawn = multiprocessing.get_context("spawn")  # decoders' threads do not survive a fork
    with ProcessPoolExecutor(workers or os.cpu_count() or 1, spawn) as pool:
        waiting = {pool.submit(encode, key[0], *jobs[key]): key for key in left}
        try:
            for done, finished in enumerate(as_completed(waiting), len(jobs) - len(left) + 1):
                try:
                    starts[waiting[finished]] = finished.result()
                except InputError as error:
                    problems.append(str(error))
                if done % SAVE_EVERY == 0:
                    write_starts()
                progress(done, len(jobs), "videos")
        finally:  # interrupted, or the disk is full: do not start the others
            pool.shutdown(cancel_futures=True)
            write_starts()
    return sorted(problems)


def encode(source: str, path: Path, target: Path, start: float, side: int = SIDE) -> float:
    """Write one video small; returns the annotation clock at its first frame, in seconds.

    ``start`` is that of ``path``. InputError: no annotated frame; OSError: the disk is full.
    """
    stream, clock, first, last = Stream(path, largest=side), probe(path).seconds, 0.0, math.inf
    if source == "ava":
        first, last = ANNOTATED[0] - MARGIN - start, ANNOTATED[1] + MARGIN - start
    whole = int(((clock >= first) & (clock <= last)).sum())
    frames = dropwhile(lambda shown: shown.time < first, stream.frames(first))
    frames = takewhile(lambda shown: shown.time <= last, frames)
    if not whole or (begin := next(frames, None)) is None:
        lasts = f"{path}: lasts from {start:g} to {start + clock[-1]:g} s"
        remedy = "no frame near AVA's keyframes, 902 to 1798 s; fetch the whole movie"
        raise InputError(f"{lasts}: {remedy}")
    try:
        write_frames(target, chain([begin], frames), stream.rate, crf=20, gop=30)
    except av.FFmpegError as error:  # the encoder's: the decoder's are InputErrors
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise InputError(f"{path}: cannot be encoded ({error.strerror}); fetch it") from error
    count = len(probe(target).pts)
    if count < whole - 1:  # one frame, at an end, may be lost to rounding
        target.unlink()
        raise InputError(f"{path}: only {count} of {whole} frames can be decoded; fetch it")
    return start + begin.time


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


def _found_below(root: Path) -> dict[str, Path]:
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


def prepare_tubes(name: str, root: Path, out: Path, *, every: int = 1, fold: int = 1,
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
    annotations, found = read_annotations(path, fold), _found_below(root)
    videos = chain(*annotations.splits.values())
    places = {video: found.get(video) or found.get(video.rpartition("/")[2]) for video in videos}
    if missing := [video for video, place in places.items() if place is None]:
        text = f"{len(missing)} of {len(places)} videos are missing: {some(missing)}"
        raise InputError(f"{root}: {text}; fetch them from the above")
    names = dict(enumerate(annotations.labels, 1))
    names = {i: label for i, label in names.items() if label not in published["left_out"]}
    splits, tables, opened, other = {"train": [], "val": []}, [], {}, []
    for split, videos in annotations.splits.items():
        for video in videos:
            shown = AnnotatedVideo(_as_file(places[video], root, published["rate"]))
            if opened.setdefault(shown.name, shown) is not shown:
                raise InputError(f"{shown.path} and {opened[shown.name].path} have one name")
            splits[split].append(shown)
            rows = _rows(shown, annotations, video, every)
            tables.append(rows.assign(id=rows["label"].where(rows["label"].isin(names))))
            if split == "val":  # its keyframes that no box with an id is in, without a box
                labelled = tables[-1].dropna(subset="id")["timestamp"]
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

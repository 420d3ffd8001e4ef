"""AVA-Kinetics as its makers publish it: what to fetch, what of it lies on disk, what is missing.

Nothing is fetched. AVA's videos are whole movies; Kinetics' are clips of ten seconds, which its
mirror names ``<id>_<first second>_<last second>.mp4``, while annotations count from the beginning
of the original video (their seconds go far beyond ten).

``manifest.json``: what lies in a dataset's folders, measured once and again where changed.

A dataset's videos written again: small, quick to seek in, AVA's movies cut to what is annotated.

Frames keep their times. Whoever trains reads a short side of at most 320, and seeking needs
keyframes that are close; a movie of two hours of which 15 minutes are annotated is mostly waste.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stadlib.base import InputError, write_whole
from stadlib.data.layout import LABEL_MAP_FILE, SOURCES, SPLITS, VIDEO_SUFFIXES, AvaLayout
from stadlib.data.video import FrameIndex, frame_index, opened

_AVA = "https://s3.amazonaws.com/ava-dataset"
FETCH = (
    ("AVA v2.2 annotations (research.google.com/ava)", f"{_AVA}/annotations/ava_v2.2.zip"),
    ("AVA movies' names", f"{_AVA}/annotations/ava_file_names_trainval_v2.1.txt (.._test_..)"),
    ("AVA movies, one by one (CVDF)", f"{_AVA}/trainval/<name>, {_AVA}/test/<name>"),
    (
        "AVA-Kinetics v1.0 annotations (DeepMind)",
        "https://storage.googleapis.com/deepmind-media/Datasets/ava_kinetics_v1_0.tar.gz",
    ),
    ("Kinetics-700 clips (CVDF)", "https://github.com/cvdfoundation/kinetics-dataset"),
)
_PLACES = (
    "annotations/",
    "(tells which movies)",
    "videos/ava/",
    "annotations/",
    "videos/kinetics/",
)
_CLIP = re.compile(r"(?P<video>.+)_(?P<first>\d{6})_\d{6}")  # CVDF's name of a Kinetics clip
_NAMED = 5  # missing videos that a line names


def what_to_fetch(layout: AvaLayout) -> list[str]:
    """Where everything is published and where it belongs, a line each."""
    return [
        f"{what}: {where} -> {layout.root / place if place[0] != '(' else place}"
        for (what, where), place in zip(FETCH, _PLACES, strict=True)
    ]


def found_videos(layout: AvaLayout, source: str) -> dict[str, Path]:
    """Every video file of a source by its id; a file under the layout's own name comes first."""
    folder = layout.root / "videos" / source
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found: dict[str, Path] = {}
    for path in files:
        if path.suffix in VIDEO_SUFFIXES and not path.name.startswith("."):
            named = _CLIP.fullmatch(path.stem) if source == "kinetics" else None
            if named:
                found.setdefault(named["video"], path)
            else:
                found[path.stem] = path
    return found


def first_second(layout: AvaLayout, source: str, video: str, path: Path) -> float:
    """The annotation clock at a file's first frame, of ``video_starts.csv`` or a clip's name."""
    named = _CLIP.fullmatch(path.stem) if source == "kinetics" and path.stem != video else None
    return float(named["first"]) if named else layout.video_start(source, video)


def missing_files(layout: AvaLayout) -> Iterator[str]:
    """Annotation files that training and validation need and that are not there, a line each."""
    names = [layout.annotation_folder / LABEL_MAP_FILE]
    for split in ("train", "val"):
        names += [layout.annotations(source, split) for source in SOURCES]
        names.append(layout.excluded_file("ava", split))
    for path in names:
        if not path.is_file():
            place = 3 if path.name.startswith("kinetics") else 0
            yield f"{path}: missing; take it out of {FETCH[place][1]}"


def wanted_videos(layout: AvaLayout) -> dict[tuple[str, str], list[str]]:
    """The ids of the videos of every source and split that a list or annotations name."""
    wanted = {}
    for source, split in ((source, split) for source in SOURCES for split in SPLITS):
        try:
            wanted[source, split] = layout.videos(source, split)
        except InputError:
            continue  # its file is among the missing ones
    return wanted


def missing_videos(layout: AvaLayout) -> Iterator[str]:
    """How many videos of each split there are and are not, with the first missing names."""
    found = {source: found_videos(layout, source) for source in SOURCES}
    for (source, split), videos in wanted_videos(layout).items():
        missing = [video for video in videos if video not in found[source]]
        if missing:
            names = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            where = layout.root / "videos" / source
            yield f"{where}: {len(missing)} of {len(videos)} {split} videos are missing: {names}"


def unusable_names(layout: AvaLayout) -> list[str]:
    """One line if clips are named as the mirror names them, which the layout does not know."""
    clips = [p for video, p in found_videos(layout, "kinetics").items() if p.stem != video]
    if not clips:
        return []
    words = "carry their seconds in their names; --reencode OUT writes <id>.mp4 and their starts"
    return [f"{clips[0].parent}: {len(clips)} clips {words}"]


SAVE_EVERY_manifest = 200  # files; whoever is interrupted loses no more than these
Progress_manifest = Callable[[int, int, str], None]


def manifest_path(layout: AvaLayout) -> Path:
    """Where a dataset's manifest lies."""
    return layout.root / "manifest.json"


def update_manifest(
    layout: AvaLayout, progress: Progress_manifest, checksums: bool = False
) -> list[str]:
    """Measure every annotation file and video that is new or changed; write the manifest whole.

    An entry, by path under the root: ``bytes``, ``modified`` (ns), of a readable video
    ``duration`` (s), ``frames``, ``width`` and ``height``, of an unreadable one ``problem``, and
    ``sha256`` where asked for. Interrupted, the next call goes on.

    Args:
        layout: the dataset.
        progress: called with (files done, all, "files").
        checksums: add SHA-256 to the entries that lack it; if none does, read every file again
            and compare.

    Returns:
        A line for every unreadable video and every file whose checksum is another than noted.

    Raises:
        InputError: the manifest that is there cannot be read.
    """
    path = manifest_path(layout)
    known, entries = _read(path), {}
    files = sorted(file for file in layout.annotation_folder.glob("*") if file.is_file())
    files += [file for source in SOURCES for file in found_videos(layout, source).values()]
    names = [file.relative_to(layout.root).as_posix() for file in files]
    compare = checksums and all("sha256" in known.get(name, {}) for name in names)
    problems = []

    def measured(name: str) -> dict:
        return _entry(layout.root / name, known.get(name, {}), checksums, compare)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, (name, entry) in enumerate(zip(names, pool.map(measured, names), strict=True), 1):
            changed = compare and entry["sha256"] != known[name]["sha256"]
            if changed:
                problems.append(f"{layout.root / name}: another content than noted; fetch it again")
            if "problem" in entry:
                problems.append(entry["problem"])
            entries[name] = known[name] if changed else entry
            if done % SAVE_EVERY_manifest == 0:
                _write(path, known | entries)
            progress(done, len(names), "files")
    _write(path, entries)
    return problems


def _entry(path: Path, known: dict, checksums: bool, compare: bool) -> dict:
    """What is to be said of a file; nothing is measured again that has not changed."""
    stat = path.stat()
    same = {"bytes": stat.st_size, "modified": stat.st_mtime_ns}
    if all(known.get(name) == value for name, value in same.items()):
        entry = dict(known)
    else:
        entry = same | (_measures(path) if path.parent.parent.name == "videos" else {})
    if checksums and (compare or "sha256" not in entry):
        with path.open("rb") as file:
            entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return entry


def _measures(path: Path) -> dict:
    try:
        info = frame_index(path).info
    except InputError as error:
        return {"problem": str(error)}
    size = {"width": info.width, "height": info.height}
    return {"duration": round(info.duration, 6), "frames": info.num_frames, **size}


def _read(path: Path) -> dict[str, dict]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text())["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a manifest ({error}); delete it") from error


def _write(path: Path, entries: dict[str, dict]) -> None:
    write_whole(path, json.dumps({"files": entries}, indent=1, sort_keys=True) + "\n")


SIDE = 320  # pixels of the short side; smaller videos are not enlarged
GOP = 30  # frames from a keyframe to the next
MARGIN = 4.0  # seconds before AVA's first and after its last keyframe; a clip reaches 1.3
ANNOTATED = (902.0, 1798.0)  # AVA's first and last keyframe
SAVE_EVERY_reencode = 100  # videos
Progress_reencode = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """One video: from which file to which, and the annotation clock at the file's first frame."""

    source: str
    video: str
    path: Path
    target: Path
    start: float


def reencode(
    layout: AvaLayout, out: Path, progress: Progress_reencode, *, side: int = SIDE, workers: int = 0
) -> list[str]:
    """Write the videos that annotations or lists name to ``out``, in the same layout.

    H.264 in MP4 without sound, the short side ``side`` pixels, a keyframe every 30 frames. AVA's
    movies are cut to seconds 898 to 1802; ``out/annotations/video_starts.csv`` says at which second
    each file begins. Annotations and person boxes are copied. What is there already is kept, so
    the same call goes on where it was interrupted.

    Args:
        layout: the dataset.
        out: another folder.
        progress: called with (videos done, all, "videos").
        side: pixels.
        workers: processes; 0: one a core.

    Returns:
        One line for every video that cannot be read.

    Raises:
        InputError: ``out`` is the dataset itself.
        OSError: the disk is full.
    """
    if out.resolve() == layout.root.resolve():
        raise InputError(f"{out}: is the dataset itself; give --reencode another folder")
    _copy_small_files(layout, out)
    starts = _known_starts(out)
    jobs = list(_jobs(layout, out))
    left = [j for j in jobs if (j.source, j.video) not in starts or not j.target.is_file()]
    problems = []
    spawn = multiprocessing.get_context("spawn")  # decoders' threads do not survive a fork
    with ProcessPoolExecutor(workers or os.cpu_count() or 1, spawn) as pool:
        waiting = {pool.submit(_encode_or_tell, job, side): job for job in left}
        try:
            for done, finished in enumerate(as_completed(waiting), len(jobs) - len(left) + 1):
                job, found = waiting.pop(finished), finished.result()
                if isinstance(found, str):
                    problems.append(found)
                else:
                    starts[job.source, job.video] = found
                if done % SAVE_EVERY_reencode == 0:
                    _write_starts(out, starts)
                progress(done, len(jobs), "videos")
        finally:  # interrupted, or the disk is full: the others need not be tried
            pool.shutdown(cancel_futures=True)
            _write_starts(out, starts)
    return sorted(problems)


def _jobs(layout: AvaLayout, out: Path) -> Iterator[Job]:
    wanted = wanted_videos(layout)
    for source in SOURCES:
        found = found_videos(layout, source)
        splits = [videos for (name, _), videos in wanted.items() if name == source]
        for video in dict.fromkeys(video for videos in splits for video in videos):
            if path := found.get(video):
                target = out / "videos" / source / f"{video}.mp4"
                yield Job(source, video, path, target, first_second(layout, source, video, path))


def _encode_or_tell(job: Job, side: int) -> float | str:
    """The annotation clock at the new file's first frame, or what is wrong with the old one."""
    try:
        return encode(job, side)
    except InputError as error:
        return str(error)


def encode(job: Job, side: int = SIDE) -> float:
    """Write one video; returns the annotation clock at its first frame, in seconds.

    Raises:
        InputError: the file cannot be read, or has no frame in the annotated time.
    """
    index = frame_index(job.path)
    seconds = job.start + (index.pts - index.pts[0]) * index.time_base
    kept = np.arange(len(seconds))
    if job.source == "ava":
        first, last = ANNOTATED[0] - MARGIN, ANNOTATED[1] + MARGIN
        kept = np.flatnonzero((seconds >= first) & (seconds <= last))
    if not len(kept):
        ends = f"{seconds[0]:g} to {seconds[-1]:g} s"
        words = "no frame near AVA's keyframes, 902 to 1798 s; fetch the whole movie"
        raise InputError(f"{job.path}: lasts from {ends}: {words}")
    job.target.parent.mkdir(parents=True, exist_ok=True)
    temporary = job.target.with_name(f".{job.video}.{os.getpid()}.mp4")
    try:
        count = _transcode(job.path, temporary, index, kept, side)
        if count != len(kept):
            words = f"only {count} of {len(kept)} frames can be decoded; fetch it again"
            raise InputError(f"{job.path}: {words}")
        temporary.replace(job.target)
    except InputError as error:
        if getattr(error.__cause__, "errno", None) == errno.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(job.target)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return float(seconds[kept[0]])


def _transcode(path: Path, target: Path, index: FrameIndex, kept: np.ndarray, side: int) -> int:
    """Decode the kept frames and encode them with the times they had; returns their number."""
    scale = min(1.0, side / min(index.info.width, index.info.height))
    width, height = (2 * round(n * scale / 2) for n in (index.info.width, index.info.height))
    options = {"crf": "20", "preset": "veryfast", "threads": "1", "bf": "0", "g": str(GOP)}
    count = 0
    with opened(path) as (container, stream), av.open(str(target), "w") as output:
        base = stream.time_base or Fraction(1, 90_000)
        unit = index.time_base / float(base)
        rate = stream.guessed_rate or stream.average_rate or Fraction(25)
        made = output.add_stream("libx264", rate=rate, options=options)
        made.width, made.height, made.pix_fmt = max(2, width), max(2, height), "yuv420p"
        made.codec_context.time_base = base
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(made.codec_context, name, getattr(stream.codec_context, name))
        for place, frame in _frames(container, stream, index, kept):
            small = frame.reformat(made.width, made.height, "yuv420p", interpolation="AREA")
            small.pict_type = av.video.frame.PictureType.NONE  # not the old file's keyframes
            small.pts = round(int(index.pts[place] - index.pts[kept[0]]) * unit)
            small.time_base = base
            output.mux(made.encode(small))
            count += 1
        output.mux(made.encode())
    return count


def _frames(container, stream, index: FrameIndex, kept: np.ndarray) -> Iterator[tuple]:
    """(position, frame) of the kept frames, which follow each other."""
    place = 0
    if not index.by_position:
        before = np.searchsorted(index.keyframes[:, 0], index.pts[kept[0]], side="right") - 1
        if before > 0:
            container.seek(int(index.keyframes[before, 1]), backward=True, stream=stream)
    for frame in container.decode(stream):
        if not index.by_position and frame.pts is not None:
            place = int(np.searchsorted(index.pts, frame.pts))
        if place > kept[-1]:
            return
        if place >= kept[0]:
            yield place, frame
        place += 1


def _copy_small_files(layout: AvaLayout, out: Path) -> None:
    for folder in ("annotations", "boxes"):
        for path in sorted((layout.root / folder).glob("*")):
            if path.is_file() and path.name != "video_starts.csv":
                write_whole(out / folder / path.name, path.read_bytes())


def _known_starts(out: Path) -> dict[tuple[str, str], float]:
    """What an interrupted call noted."""
    path = out / "annotations" / "video_starts.csv"
    if not path.is_file():
        return {}
    rows = list(csv.reader(io.StringIO(path.read_text())))[1:]
    return {(source, video): float(second) for source, video, second in rows}


def _write_starts(out: Path, starts: dict[tuple[str, str], float]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("source", "video", "seconds"))
    writer.writerows((*key, f"{second:.6f}") for key, second in sorted(starts.items()))
    write_whole(out / "annotations" / "video_starts.csv", text.getvalue())

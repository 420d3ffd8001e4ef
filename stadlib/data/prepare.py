"""Prepares AVA-Kinetics: what to fetch and what is missing, a manifest, smaller videos.

Nothing is fetched. AVA's videos are whole movies; Kinetics' are clips of ten seconds, which its
mirror names ``<id>_<first second>_<last second>.mp4``, while annotations count from the beginning
of the original video (their seconds go far beyond ten).

``manifest.json`` holds the measures of a dataset's files; only changed files are measured again.

Re-encoded videos are small, quick to seek in, and AVA's movies are cut to their annotated part.
Training reads a short side of at most 320, seeking needs keyframes close to each other, and most of
a movie of two hours with 15 annotated minutes is waste. Frames keep their times.
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
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stadlib.base import InputError, Report, write_whole
from stadlib.data.layout import LABEL_MAP_FILE, SOURCES, SPLITS, VIDEO_SUFFIXES, AvaLayout
from stadlib.data.video import VideoInfo, opened, probe, write_video

_AVA = "https://s3.amazonaws.com/ava-dataset"
_KINETICS = "https://storage.googleapis.com/deepmind-media/Datasets/ava_kinetics_v1_0.tar.gz"
_FETCH = """\
AVA v2.2 annotations (research.google.com/ava): {ava}/annotations/ava_v2.2.zip -> {root}/annotations
AVA movies' names: {ava}/annotations/ava_file_names_trainval_v2.1.txt (.._test_..) -> \
(tells which movies)
AVA movies, one by one (CVDF): {ava}/trainval/<name>, {ava}/test/<name> -> {root}/videos/ava
AVA-Kinetics v1.0 annotations (DeepMind): {kinetics} -> {root}/annotations
Kinetics-700 clips (CVDF): https://github.com/cvdfoundation/kinetics-dataset -> \
{root}/videos/kinetics
"""
_CLIP = re.compile(r"(?P<video>.+)_(?P<first>\d{6})_\d{6}")  # CVDF's name of a Kinetics clip
_NAMED = 5  # missing videos that a line names


def what_to_fetch(layout: AvaLayout) -> list[str]:
    """Where everything is published and where it belongs, a line each."""
    return _FETCH.format(root=layout.root, ava=_AVA, kinetics=_KINETICS).splitlines()


def found_videos(layout: AvaLayout, source: str) -> dict[str, Path]:
    """Every video file of a source by its id; a file under the layout's own name comes first."""
    folder = layout.root / "videos" / source
    videos: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix in VIDEO_SUFFIXES and not path.name.startswith("."):
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
            kinetics = path.name.startswith("kinetics")
            archive = _KINETICS if kinetics else f"{_AVA}/annotations/ava_v2.2.zip"
            yield f"{path}: missing; take it out of {archive}"


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
    """How many videos of each split are missing, with the first names."""
    found = {source: found_videos(layout, source) for source in SOURCES}
    for (source, split), videos in wanted_videos(layout).items():
        missing = [video for video in videos if video not in found[source]]
        if missing:
            names = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            folder = layout.root / "videos" / source
            yield f"{folder}: {len(missing)} of {len(videos)} {split} videos are missing: {names}"


def unusable_names(layout: AvaLayout) -> list[str]:
    """One line if clips are named as the mirror names them, which the layout does not know."""
    clips = [p for video, p in found_videos(layout, "kinetics").items() if p.stem != video]
    if not clips:
        return []
    remedy = "carry their seconds in their names; --reencode OUT writes <id>.mp4 and their starts"
    return [f"{clips[0].parent}: {len(clips)} clips {remedy}"]


# ---------------------------------------------------------------------------------- the manifest

SAVE_EVERY = 100  # files; an interruption loses no more than these


def update_manifest(layout: AvaLayout, progress: Report, checksums: bool = False) -> list[str]:
    """Measure every annotation file and video that is new or changed; write the manifest whole.

    An entry, by path under the root: ``bytes``, ``modified`` (ns), of a readable video
    ``duration`` (s), ``frames``, ``width`` and ``height``, of an unreadable one ``problem``, and
    ``sha256`` where ``checksums`` asks for it. If every entry has one, ``checksums`` reads every
    file again and compares. If interrupted, the next call resumes.

    Returns:
        A line for every unreadable video and every file with another checksum than noted.

    Raises:
        InputError: the existing manifest cannot be read.
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
    entries, problems = {}, []

    def write(entries: dict[str, dict]) -> None:
        write_whole(path, json.dumps({"files": entries}, indent=1, sort_keys=True) + "\n")

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
            if done % SAVE_EVERY == 0:
                write(known | entries)
            progress(done, len(names), "files")
    write(entries)
    return problems


def _entry(path: Path, known: dict, checksums: bool, compare: bool) -> dict:
    """The manifest's entry of a file; an unchanged file is not measured again."""
    stat = path.stat()
    entry = {"bytes": stat.st_size, "modified": stat.st_mtime_ns}
    if all(known.get(name) == value for name, value in entry.items()):
        entry = dict(known)
    elif path.parent.parent.name == "videos":
        try:
            info = probe(path)
        except InputError as error:
            entry |= {"problem": str(error)}
        else:
            entry |= {"duration": round(info.duration, 6), "frames": len(info.pts)}
            entry |= {"width": info.width, "height": info.height}
    if checksums and (compare or "sha256" not in entry):
        with path.open("rb") as file:
            entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return entry


# --------------------------------------------------------------------------------- small videos

SIDE = 320  # pixels of the short side; smaller videos are not enlarged
MARGIN = 4.0  # seconds before AVA's first and after its last keyframe; a clip reaches 1.3
ANNOTATED = (902.0, 1798.0)  # AVA's first and last keyframe


@dataclass(frozen=True)
class Job:
    """One video: from which file to which, and the annotation clock at the file's first frame."""

    source: str
    video: str
    path: Path
    target: Path
    start: float


def reencode(layout: AvaLayout, out: Path, progress: Report, *, workers: int = 0) -> list[str]:
    """Write the videos that annotations or lists name to ``out``, in the same layout.

    H.264 in MP4 without sound, the short side 320 pixels, a keyframe every 30 frames. AVA's
    movies are cut to seconds 898 to 1802; ``out/annotations/video_starts.csv`` gives the second at
    which each file begins. Annotations and person boxes are copied. If interrupted, the same call
    resumes: it keeps what is there. ``workers``: processes, 0 for one a core.

    Returns:
        One line for every video that cannot be read.

    Raises:
        InputError: ``out`` is the dataset itself.
        OSError: the disk is full.
    """
    if out.resolve() == layout.root.resolve():
        raise InputError(f"{out}: is the dataset itself; give --reencode another folder")
    starts_file = out / "annotations" / "video_starts.csv"
    for folder in ("annotations", "boxes"):
        for path in sorted((layout.root / folder).glob("*")):
            if path.is_file() and path.name != starts_file.name:
                write_whole(out / folder / path.name, path.read_bytes())
    starts = {}  # what an interrupted call wrote
    if starts_file.is_file():
        rows = list(csv.reader(io.StringIO(starts_file.read_text())))[1:]
        starts = {(source, video): float(second) for source, video, second in rows}
    jobs = _jobs(layout, out)
    left = [j for j in jobs if (j.source, j.video) not in starts or not j.target.is_file()]
    problems = []
    spawn = multiprocessing.get_context("spawn")  # decoders' threads do not survive a fork
    with ProcessPoolExecutor(workers or os.cpu_count() or 1, spawn) as pool:
        waiting = {pool.submit(encode, job): job for job in left}
        try:
            for done, finished in enumerate(as_completed(waiting), len(jobs) - len(left) + 1):
                job = waiting.pop(finished)
                try:
                    starts[job.source, job.video] = finished.result()
                except InputError as error:
                    problems.append(str(error))
                if done % SAVE_EVERY == 0:
                    _write_starts(starts_file, starts)
                progress(done, len(jobs), "videos")
        finally:  # interrupted, or the disk is full: do not start the others
            pool.shutdown(cancel_futures=True)
            _write_starts(starts_file, starts)
    return sorted(problems)


def _jobs(layout: AvaLayout, out: Path) -> list[Job]:
    """Every wanted video that has a file, once."""
    found = {source: found_videos(layout, source) for source in SOURCES}
    jobs = {}
    for (source, _), videos in wanted_videos(layout).items():
        for video in videos:
            if path := found[source].get(video):
                clip = _CLIP.fullmatch(path.stem) if path.stem != video else None
                start = float(clip["first"]) if clip else layout.video_start(source, video)
                target = out / "videos" / source / f"{video}.mp4"
                jobs[source, video] = Job(source, video, path, target, start)
    return list(jobs.values())


def _write_starts(path: Path, starts: dict[tuple[str, str], float]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("source", "video", "seconds"))
    writer.writerows((*key, f"{second:.6f}") for key, second in sorted(starts.items()))
    write_whole(path, text.getvalue())


def encode(job: Job, side: int = SIDE) -> float:
    """Write one video; returns the annotation clock at its first frame, in seconds.

    Raises:
        InputError: the file cannot be read, or has no frame in the annotated time.
        OSError: the disk is full.
    """
    info = probe(job.path)
    seconds = job.start + info.seconds
    kept = np.arange(len(seconds))
    if job.source == "ava":
        first, last = ANNOTATED[0] - MARGIN, ANNOTATED[1] + MARGIN
        kept = np.flatnonzero((seconds >= first) & (seconds <= last))
    if not len(kept):
        raise InputError(
            f"{job.path}: lasts from {seconds[0]:g} to {seconds[-1]:g} s: no frame near AVA's "
            "keyframes, 902 to 1798 s; fetch the whole movie"
        )
    with opened(job.path) as (_, stream):
        rate = stream.guessed_rate or stream.average_rate or Fraction(25)
        names = ("color_range", "colorspace", "color_primaries", "color_trc")
        colors = {name: getattr(stream.codec_context, name) for name in names}
    try:
        frames = _small_frames(job.path, info, kept, side)
        write_video(job.target, frames, rate, crf=20, gop=30, colors=colors)
    except av.FFmpegError as error:  # the encoder's: the decoder's are InputErrors
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(job.target)) from error
        raise InputError(f"{job.path}: cannot be encoded ({error.strerror}); fetch it") from error
    return float(seconds[kept[0]])


def _small_frames(
    path: Path, info: VideoInfo, kept: np.ndarray, side: int
) -> Iterator[av.VideoFrame]:
    """The kept frames, which follow each other, scaled and with the times they had."""
    scale = min(1.0, side / min(info.width, info.height))
    width, height = (max(2, 2 * round(n * scale / 2)) for n in (info.width, info.height))
    position = count = 0
    with opened(path) as (container, stream):
        base = stream.time_base or Fraction(1, 90_000)
        unit = info.time_base / float(base)
        if len(info.keyframes):
            start = np.searchsorted(info.keyframes[:, 0], info.pts[kept[0]], side="right") - 1
            if start > 0:
                container.seek(int(info.keyframes[start, 1]), backward=True, stream=stream)
        for frame in container.decode(stream):
            if len(info.keyframes) and frame.pts is not None:
                position = int(np.searchsorted(info.pts, frame.pts))
            if position > kept[-1]:
                break
            if position >= kept[0]:
                small = frame.reformat(width, height, "yuv420p", interpolation="AREA")
                small.pict_type = av.video.frame.PictureType.NONE  # not the old file's keyframes
                small.pts = round(int(info.pts[position] - info.pts[kept[0]]) * unit)
                small.time_base = base
                count += 1
                yield small
            position += 1
    if count != len(kept):
        remedy = "fetch it again"
        raise InputError(f"{path}: only {count} of {len(kept)} frames can be decoded; {remedy}")

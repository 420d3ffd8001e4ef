"""Prepares AVA-Kinetics: what to fetch and what is missing, a manifest, smaller videos.

Nothing is fetched. AVA's videos are whole movies. Kinetics' are clips of ten seconds, which its
mirror names ``<id>_<first second>_<last second>.mp4``, while annotations count from the beginning
of the original video.
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
from itertools import chain, dropwhile, product, takewhile
from pathlib import Path

import av

from stadlib.base import InputError, Report, write_whole
from stadlib.data.layout import LABEL_MAP_FILE, SOURCES, SPLITS, VIDEO_SUFFIXES, AvaLayout
from stadlib.data.stream import Stream, write_frames
from stadlib.data.video import probe

SAVE_EVERY = 100  # files; an interruption loses no more than these
SIDE = 320  # pixels of the short side that training reads; smaller videos are not enlarged
MARGIN = 4.0  # seconds before AVA's first and after its last keyframe; a clip reaches 1.3
ANNOTATED = (902.0, 1798.0)  # AVA's first and last keyframe
_CLIP = re.compile(r"(?P<video>.+)_(?P<first>\d{6})_\d{6}")  # CVDF's name of a Kinetics clip
DATASETS = tomllib.loads(Path(__file__).with_name("published.toml").read_text("utf-8"))
_AVA = "https://s3.amazonaws.com/ava-dataset"
_KINETICS = "https://storage.googleapis.com/deepmind-media/Datasets/ava_kinetics_v1_0.tar.gz"


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
            kinetics = path.name.startswith("kinetics")
            archive = _KINETICS if kinetics else f"{_AVA}/annotations/ava_v2.2.zip"
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
            names = ", ".join(missing[:5]) + ", ..." * (len(missing) > 5)
            folder = layout.root / "videos" / source
            yield f"{folder}: {len(missing)} of {len(videos)} {split} videos are missing: {names}"


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
    """Write one video small; the annotation clock at its first frame (``start``: at that of
    ``path``), in seconds. InputError: it has no annotated frame; OSError: the disk is full.
    """
    stream, first, last = Stream(path, largest=side), 0.0, math.inf
    if source == "ava":
        first, last = ANNOTATED[0] - MARGIN - start, ANNOTATED[1] + MARGIN - start
    clock = probe(path).seconds
    whole = int(((clock >= first) & (clock <= last)).sum())
    frames = dropwhile(lambda shown: shown.time < first, stream.frames(first))
    frames = takewhile(lambda shown: shown.time <= last, frames)
    if not whole or (begin := next(frames, None)) is None:
        raise InputError(
            f"{path}: lasts from {start:g} to {start + clock[-1]:g} s: no frame near AVA's "
            "keyframes, 902 to 1798 s; fetch the whole movie"
        )
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

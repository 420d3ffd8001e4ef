"""A dataset's videos written again: small, quick to seek in, AVA's movies cut to what is annotated.

Frames keep their times. Whoever trains reads a short side of at most 320, and seeking needs
keyframes that are close; a movie of two hours of which 15 minutes are annotated is mostly waste.
"""

from __future__ import annotations

import csv
import errno
import io
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stadlib.config import InputError
from stadlib.data.frame_index import FrameIndex, frame_index, opened
from stadlib.data.inventory import first_second, found_videos, wanted_videos
from stadlib.data.layout import SOURCES, AvaLayout
from stadlib.paths import write_whole

SIDE = 320  # pixels of the short side; smaller videos are not enlarged
GOP = 30  # frames from a keyframe to the next
MARGIN = 4.0  # seconds before AVA's first and after its last keyframe; a clip reaches 1.3
ANNOTATED = (902.0, 1798.0)  # AVA's first and last keyframe
SAVE_EVERY = 100  # videos

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """One video: from which file to which, and the annotation clock at the file's first frame."""

    source: str
    video: str
    path: Path
    target: Path
    start: float


def reencode(
    layout: AvaLayout, out: Path, progress: Progress, *, side: int = SIDE, workers: int = 0
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
                if done % SAVE_EVERY == 0:
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

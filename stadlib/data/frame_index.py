"""Which frame a video shows when: the times of all its frames, without decoding it.

A file's presentation times (pts) come from its packets. Where packets do not tell them (raw
streams, AVI with B-frames) or told wrong ones, the file is decoded once and its frames counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from stadlib.config import InputError
from stadlib.data.ending import ends_early

TIME_SLACK = 1e-6  # seconds; annotation clocks have six decimals
FALLBACK_RATE = 25  # frames/s where a file gives neither times nor a rate
_REMEDY = "re-download or re-encode it"


@dataclass(frozen=True)
class VideoInfo:
    """Measures of a video: ``duration`` in seconds, ``width`` and ``height`` in pixels."""

    duration: float
    num_frames: int
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Presentation times of all frames of a file, ascending, in units of ``time_base`` seconds.

    Attributes:
        keyframes: (K, 2), pts and dts of the frames that decoding can start at, ascending.
        by_position: frames must be told by their count; their pts cannot be relied on.
    """

    pts: np.ndarray
    time_base: float
    keyframes: np.ndarray
    by_position: bool
    info: VideoInfo

    def positions(self, times: Sequence[float]) -> np.ndarray:
        """Number of the last frame with pts <= t for every t; the first one for earlier times."""
        seconds = (self.pts - self.pts[0]) * self.time_base
        wanted = np.asarray(times, np.float64) + TIME_SLACK
        return (np.searchsorted(seconds, wanted, side="right") - 1).clip(min=0)


_COUNTED: set[tuple[str, int, int]] = set()  # files whose packets told wrong times


def frame_index(path: Path) -> FrameIndex:
    """The index of a file, remembered per process until the file changes.

    Raises:
        InputError: the file is missing, empty, ends early or holds no video.
    """
    identity = _identity(path)
    return _make_index(*identity, counted=identity in _COUNTED)


def counted_index(path: Path) -> FrameIndex:
    """The index of a file whose packets told wrong times, made by decoding it."""
    _COUNTED.add(_identity(path))
    return frame_index(path)


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file's container and video stream, for one call only: nothing open survives a fork."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: no video stream; re-encode it with video")
            stream = container.streams.video[0]
            stream.thread_count = 1
            yield container, stream
    except (av.FFmpegError, EOFError) as error:
        why = getattr(error, "strerror", None) or str(error)
        line = f"{path}: cannot be decoded ({why}): the file ends early or is damaged; {_REMEDY}"
        raise InputError(line) from error


def require_whole(path: Path) -> None:
    """See that a file is there, and as long as it says that it is.

    Raises:
        InputError: it is missing, empty or ends early.
    """
    _identity(path)
    if ends_early(path):
        raise InputError(f"{path}: file ends early; {_REMEDY}")


def _identity(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: no such video; add the file") from error
    if stat.st_size == 0:
        raise InputError(f"{path}: empty file; {_REMEDY}")
    return str(path), stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=4096)  # 8 bytes a frame; time and size are there to notice a changed file
def _make_index(name: str, mtime: int, size: int, counted: bool) -> FrameIndex:
    path = Path(name)
    require_whole(path)
    with opened(path) as (container, stream):
        packets = None if counted else _packet_times(container, stream)
        width, height = stream.codec_context.width, stream.codec_context.height
        base = float(stream.time_base or 1 / FALLBACK_RATE)
        rate = float(stream.guessed_rate or stream.average_rate or FALLBACK_RATE)
    no_keyframes = np.empty((0, 2), np.int64)
    pts, keyframes = packets or (_counted_times(path, step=1 / (rate * base)), no_keyframes)
    if not len(pts):
        raise InputError(f"{path}: no frame can be decoded; {_REMEDY}")
    gap = float(np.median(np.diff(pts))) * base if len(pts) > 1 else 1 / rate
    info = VideoInfo(float(pts[-1] - pts[0]) * base + gap, len(pts), width, height)
    return FrameIndex(pts, base, keyframes, packets is None, info)


def _packet_times(
    container: InputContainer, stream: VideoStream
) -> tuple[np.ndarray, np.ndarray] | None:
    """All pts and the (pts, dts) of keyframes; None where packets do not tell them."""
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        return None  # AVI stores no pts: those of reordered packets are guesses
    packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
    if not packets or any(p.pts is None or p.dts is None for p in packets):
        return None
    pts = np.array([p.pts for p in packets], np.int64)
    keyframes = np.array([(p.pts, p.dts) for p in packets if p.is_keyframe], np.int64)
    if len(np.unique(pts)) < len(pts) or not len(keyframes):
        return None
    return np.sort(pts), keyframes[np.argsort(keyframes[:, 0])]


def _counted_times(path: Path, step: float) -> np.ndarray:
    """Times of the frames as decoded, or their decoding times, or else ``step`` units apart."""
    with opened(path) as (container, stream):
        shown = [frame.pts for frame in container.decode(stream)]
    with opened(path) as (container, stream):
        decoded = [p.dts for p in container.demux(stream) if p.size]
    for times in (shown, decoded):
        if len(times) == len(shown) and None not in times and (np.diff(times) > 0).all():
            return np.array(times, np.int64)
    return np.arange(len(shown)) * step

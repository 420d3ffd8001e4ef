"""Where a video file says it ends: the cheapest proof that a download was cut short.

Decoders hide a missing end: Matroska just stops, MP4 may lose its last fragment unnoticed. The
sizes that the containers declare are exact (ISO/IEC 14496-12 boxes, RFC 9559 elements, RIFF).

Which frame a video shows when: the times of all its frames, without decoding it.

A file's presentation times (pts) come from its packets. Where packets do not tell them (raw
streams, AVI with B-frames) or told wrong ones, the file is decoded once and its frames counted.

Frame-exact video reading by time, and writing, with PyAV.

Time 0 is the presentation time (pts) of the first video frame, so that start offsets vanish.
"The frame at t" is the last one with pts <= t, the rule that holds for any frame rate, also an
unset or a variable one.

A small H.264 writer without torch, so that a rendering process starts in a moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import av
import cv2
import numpy as np
import torch
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from stadlib.base import InputError

_EBML = bytes.fromhex("1a45dfa3")
_SEGMENT = bytes.fromhex("18538067")
_MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def ends_early(path: Path) -> bool:
    """True where the container declares more bytes than the file has; False if it says nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in _MP4_STARTS:
            return _boxes_end(file, size) > size
        if head[:4] == _EBML:
            return _segment_end(file) > size
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return 8 + int.from_bytes(head[4:8], "little") > size
    return False


def _boxes_end(file: BinaryIO, size: int) -> int:
    """End of the last top-level box; trailing bytes that are no box are left alone."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if not header[4:8].isascii() or not header[4:8].strip(b"\0"):
            break
        if length == 1:  # the length follows in 64 bits
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            break
        end += length
    return end


def _segment_end(file: BinaryIO) -> int:
    """End of Matroska's one segment; 0 for a live stream, whose segment has no size."""
    file.seek(4)
    length = _variable_number(file)
    if length is None:
        return 0
    file.seek(length, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length = _variable_number(file)
    return 0 if length is None else file.tell() + length


def _variable_number(file: BinaryIO) -> int | None:
    """EBML's variable-length integer: leading zero bits tell its width, all ones "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    number = int.from_bytes(bytes([first[0] - (1 << (8 - width))]) + file.read(width - 1), "big")
    return None if number == (1 << (7 * width)) - 1 else number


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


def probe(path: Path | str) -> VideoInfo:
    """Duration, number of frames and size, counted from the packets, not taken from the header.

    Raises:
        InputError: the file is missing, empty, ends early or holds no video.
    """
    return frame_index(Path(path)).info


def frame_size(path: Path | str) -> tuple[int, int]:
    """Height and width in pixels as the header says, read in a millisecond.

    Raises:
        InputError: the file is missing or holds no video.
    """
    with opened(Path(path)) as (_, stream):
        return stream.codec_context.height, stream.codec_context.width


def read_frames(path: Path | str, times: Sequence[float]) -> torch.Tensor:
    """The frames shown at ``times``, exactly.

    Args:
        path: video file.
        times: seconds since the first frame, in any order, at least one; before the first and
            after the last frame they are clamped.

    Returns:
        uint8 RGB, (T, 3, H, W), T = ``len(times)``.

    Raises:
        InputError: the file is missing, empty, ends early or holds no video.
    """
    path = Path(path)
    index = frame_index(path)
    frames = None if index.by_position else _decode_by_pts(path, index, index.positions(times))
    if frames is None:
        index = counted_index(path)
        frames = _decode_by_position(path, index, index.positions(times))
    return torch.from_numpy(frames)


def write_video(
    path: Path | str,
    frames_THWC: np.ndarray | Iterable[np.ndarray],
    fps: int | Fraction,
    crf: int = 23,
    gop: int = 8,
) -> None:
    """Write H.264 without B-frames; equal frames give equal bytes (one encoder thread).

    Args:
        path: file to write; the suffix names the container. It appears whole or not at all.
        frames_THWC: uint8 RGB frames of even width and height.
        fps: frames per second.
        crf: constant rate factor, 0 (lossless) to 51.
        gop: frames between two keyframes; small values make random access cheap.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "bf": "0", "g": str(gop)}
    try:
        with av.open(str(temporary), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
            stream.pix_fmt = "yuv420p"
            for i, frame in enumerate(frames_THWC):
                if i == 0:
                    stream.height, stream.width = frame.shape[:2]
                rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(rgb))
            container.mux(stream.encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _decode_by_pts(path: Path, index: FrameIndex, positions: np.ndarray) -> np.ndarray | None:
    """Seek before each stretch of wanted frames and decode through it; None if one is missing."""
    wanted = np.unique(index.pts[positions])
    starts = np.searchsorted(index.keyframes[:, 0], wanted, side="right") - 1
    new_stretch = np.flatnonzero(np.diff(starts) > 1) + 1
    pictures: dict[int, np.ndarray] = {}
    with opened(path) as (container, stream):
        convert = _converter(index.info)
        for stretch, start in zip(
            np.split(wanted, new_stretch), starts[[0, *new_stretch]].tolist(), strict=True
        ):
            if start > 0:  # otherwise it is the first stretch and the file stands at its beginning
                dts = int(index.keyframes[start, 1])
                container.seek(dts, backward=True, stream=stream)
            if not _collect(container, stream, set(stretch.tolist()), pictures, convert):
                return None
    return _planar([pictures[p] for p in index.pts[positions].tolist()])


def _collect(
    container: InputContainer,
    stream: VideoStream,
    left: set[int],
    pictures: dict[int, np.ndarray],
    convert: Callable[[av.VideoFrame], np.ndarray],
) -> bool:
    """Decode on until the frames of pts ``left`` are in ``pictures``; False if one is missing."""
    last = max(left)
    for frame in container.decode(stream):
        if frame.pts in left:
            pictures[frame.pts] = convert(frame)
            left.remove(frame.pts)
        if not left or (frame.pts is not None and frame.pts > last):
            break
    return not left


def _decode_by_position(path: Path, index: FrameIndex, positions: np.ndarray) -> np.ndarray:
    """Decode from the beginning and count."""
    wanted = set(positions.tolist())
    pictures: dict[int, np.ndarray] = {}
    with opened(path) as (container, stream):
        convert = _converter(index.info)
        for position, frame in enumerate(container.decode(stream)):
            if position in wanted:
                pictures[position] = convert(frame)
            if len(pictures) == len(wanted):
                break
    return _planar([pictures[p] for p in positions.tolist()])


def _converter(info: VideoInfo) -> Callable[[av.VideoFrame], np.ndarray]:
    """Frame -> (H, W, 3) RGB. One reformatter a file: its set-up costs more than a small frame."""
    reformatter = VideoReformatter()

    def convert(frame: av.VideoFrame) -> np.ndarray:
        rgb = reformatter.reformat(frame, info.width, info.height, format="rgb24")
        return np.ascontiguousarray(rgb.to_ndarray())

    return convert


def _planar(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (H, W, 3) as (T, 3, H, W); OpenCV takes colours apart faster than NumPy."""
    height, width, _ = pictures[0].shape
    frames_TCHW = np.empty((len(pictures), 3, height, width), np.uint8)
    for planes_CHW, picture in zip(frames_TCHW, pictures, strict=True):
        cv2.split(picture, list(planes_CHW))
    return frames_TCHW


def encode(path: Path, frames: Iterable[np.ndarray], size: tuple[int, int], rate: int) -> None:
    """Write RGB uint8 frames (H, W, 3) of ``size`` (width, height); equal frames, equal bytes.

    One encoder thread, no B-frames, a keyframe every second: cheap random access.
    """
    options = {"crf": "20", "preset": "veryfast", "threads": "1", "bf": "0", "g": str(rate)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())

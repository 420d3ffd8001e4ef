"""Frames of a video by their time, exactly, whatever the container says; and the H.264 writer.

Time 0 is the presentation time (pts) of the first frame. "The frame at t" is the last one with
pts <= t. This rule holds for any frame rate, also for a variable one.

The times of all frames come from the packets, without decoding. Where packets have no times (raw
streams, AVI with B-frames) or wrong ones, the file is decoded once and its frames are counted.

torch is imported where tensors are made: a process that only renders starts in a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from stadlib.base import InputError, written_whole

if TYPE_CHECKING:
    import torch

TIME_SLACK = 1e-6  # seconds; annotation clocks have six decimals
FALLBACK_RATE = 25  # frames/s where a file gives neither times nor a rate
_REMEDY = "re-download or re-encode it"
_COUNTED: set[tuple[str, int, int]] = set()  # files whose packets have wrong times


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """Size in pixels, duration in seconds, and the times of all frames of a video."""

    width: int
    height: int
    duration: float
    pts: np.ndarray  # (F,) presentation times of the frames, ascending
    time_base: float  # seconds of a unit of them
    keyframes: np.ndarray  # (K, 2), pts and dts of frames where decoding can start, ascending
    by_position: bool  # find frames by counting, because their pts cannot be relied on

    @property
    def num_frames(self) -> int:
        """How many frames can be shown."""
        return len(self.pts)

    @property
    def seconds(self) -> np.ndarray:
        """(F,) seconds from the first frame to each."""
        return (self.pts - self.pts[0]) * self.time_base


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
    """Check that a file exists and is as long as its container declares.

    Decoders hide a missing end: Matroska just stops, MP4 may lose its last fragment unnoticed.

    Raises:
        InputError: the file is missing, empty or ends early.
    """
    _, _, size = _identity(path)
    with path.open("rb") as file:
        if _declared_end(file, size) > size:
            raise InputError(f"{path}: file ends early; {_REMEDY}")


def _identity(path: Path) -> tuple[str, int, int]:
    """Name, time of the last change and size: a changed file has another identity."""
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: no such video; add the file") from error
    if stat.st_size == 0:
        raise InputError(f"{path}: empty file; {_REMEDY}")
    return str(path), stat.st_mtime_ns, stat.st_size


def _declared_end(file: BinaryIO, size: int) -> int:
    """Where a file of MP4, Matroska or AVI should end, in bytes; 0 where it does not say."""
    head, end = file.read(12), 0
    if head[:4] == b"RIFF" and head[8:] == b"AVI ":
        end = 8 + int.from_bytes(head[4:8], "little")
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        # ISO/IEC 14496-12: boxes with their length in front; trailing bytes may be no box
        while end + 8 <= size:
            file.seek(end)
            header = file.read(16)
            if not header[4:8].isascii() or not header[4:8].strip(b"\0"):
                break
            length = int.from_bytes(header[:4], "big")
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length < 8:  # 0: up to the end of the file
                break
            end += length
    elif head[:4] == bytes.fromhex("1a45dfa3"):  # RFC 9559: a head, then one segment of clusters
        file.seek(4)
        file.seek(_element_size(file) or 0, 1)
        if file.read(4) == bytes.fromhex("18538067") and (length := _element_size(file)):
            end = file.tell() + length
    return end


def _element_size(file: BinaryIO) -> int | None:
    """The size in front of a Matroska element; None where it is unknown, as in a live stream."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()  # leading zero bits tell the number of bytes
    size = int.from_bytes(first + file.read(width - 1), "big") - (1 << 7 * width)
    return None if size == (1 << 7 * width) - 1 else size


def probe(path: Path | str) -> VideoInfo:
    """Measures and frame times, from the packets, not the header; kept until the file changes.

    Raises:
        InputError: the file is missing, empty, ends early or holds no video.
    """
    identity = _identity(Path(path))
    return _probe(*identity, counted=identity in _COUNTED)


@lru_cache(maxsize=4096)  # 8 bytes a frame; the time and the size only tell files apart
def _probe(name: str, mtime: int, size: int, counted: bool) -> VideoInfo:
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
    duration = float(pts[-1] - pts[0]) * base + gap
    return VideoInfo(width, height, duration, pts, base, keyframes, by_position=packets is None)


def _packet_times(
    container: InputContainer, stream: VideoStream
) -> tuple[np.ndarray, np.ndarray] | None:
    """All pts and the (pts, dts) of keyframes; None where packets do not have them."""
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


def frame_size(path: Path | str) -> tuple[int, int]:
    """Height and width in pixels from the header, read in a millisecond.

    Raises:
        InputError: the file is missing or holds no video.
    """
    with opened(Path(path)) as (_, stream):
        return stream.codec_context.height, stream.codec_context.width


def read_frames(path: Path | str, times: Sequence[float]) -> torch.Tensor:
    """The frames shown at ``times``, exactly, as uint8 RGB (T, 3, H, W), T = ``len(times)``.

    Times are seconds since the first frame, in any order, at least one. Times before the first or
    after the last frame give that frame.

    Raises:
        InputError: the file is missing, empty, ends early or holds no video.
    """
    import torch  # noqa: PLC0415

    path = Path(path)
    frames = _decode(path, probe(path), times)
    if frames is None:  # the packets' times are wrong: count the frames from now on
        _COUNTED.add(_identity(path))
        frames = _decode(path, probe(path), times)
    return torch.from_numpy(frames)


def _decode(path: Path, info: VideoInfo, times: Sequence[float]) -> np.ndarray | None:
    """Frames (T, 3, H, W) at these times; None if a frame's pts is not its packet's."""
    asked = np.asarray(times, np.float64) + TIME_SLACK
    positions = (np.searchsorted(info.seconds, asked, side="right") - 1).clip(min=0)
    keys = positions if info.by_position else info.pts[positions]
    wanted = np.unique(keys)
    # Frames close to each other are decoded in one stretch, without a seek between them.
    starts = np.searchsorted(info.keyframes[:, 0], wanted, side="right") - 1
    new_stretch = np.flatnonzero(np.diff(starts) > 1) + 1
    stretches = zip(np.split(wanted, new_stretch), starts[[0, *new_stretch]].tolist(), strict=True)
    pictures: dict[int, np.ndarray] = {}
    reformatter = VideoReformatter()  # one a file: its set-up costs more than a small frame
    with opened(path) as (container, stream):
        for stretch, start in stretches:
            if start > 0:  # otherwise it is the first stretch, at the beginning of the file
                container.seek(int(info.keyframes[start, 1]), backward=True, stream=stream)
            left = set(stretch.tolist())
            for position, frame in enumerate(container.decode(stream)):
                key = position if info.by_position else frame.pts
                if key in left:
                    rgb = reformatter.reformat(frame, info.width, info.height, format="rgb24")
                    pictures[key] = np.ascontiguousarray(rgb.to_ndarray())
                    left.remove(key)
                if not left or (key is not None and key > stretch[-1]):
                    break
            if left:
                return None
    frames_TCHW = np.empty((len(keys), 3, info.height, info.width), np.uint8)
    for planes_CHW, key in zip(frames_TCHW, keys.tolist(), strict=True):
        cv2.split(pictures[key], list(planes_CHW))  # faster than NumPy's transpose
    return frames_TCHW


def write_video(
    path: Path | str,
    frames: np.ndarray | Iterable[np.ndarray | av.VideoFrame],
    fps: int | Fraction,
    *,
    crf: int = 23,
    gop: int | None = 8,
    threads: int = 1,
    index_first: bool = False,
    colors: Mapping[str, int] | None = None,
) -> None:
    """Write H.264 in MP4 without B-frames, whole or not at all; equal frames give equal bytes.

    Args:
        path: file to write.
        frames: of one even width and height: uint8 RGB arrays (H, W, 3), shown at ``fps``, or
            PyAV's frames with their own ``pts`` and ``time_base``.
        fps: frames per second; of frames with times, the nominal rate.
        crf: constant rate factor, 0 (lossless) to 51.
        gop: frames from a keyframe to the next, small for cheap random access; None: x264's.
        threads: of the encoder; 0: one a core, and bytes depend on their number.
        index_first: put the index before the frames, so that a browser plays while it loads.
        colors: PyAV's ``colorspace`` and the like of the codec, if they are known.
    """
    options = {"crf": str(crf), "preset": "veryfast", "threads": str(threads), "bf": "0"}
    options |= {"g": str(gop)} if gop else {}
    muxer = {"movflags": "faststart"} if index_first else {}
    with (
        written_whole(Path(path)) as temporary,
        av.open(str(temporary), "w", format="mp4", options=muxer) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.pix_fmt = "yuv420p"
        for name, value in (colors or {}).items():
            setattr(stream.codec_context, name, value)
        for number, picture in enumerate(frames):
            frame = picture
            if isinstance(picture, np.ndarray):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if number == 0:
                stream.height, stream.width = frame.height, frame.width
                if frame.pts is not None:
                    stream.codec_context.time_base = frame.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

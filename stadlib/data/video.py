"""Frames of a video by their time, exactly, whatever the container says; and the H.264 writer.

Time 0 is the presentation time (pts) of the first frame; "the frame at t" is the last one with
pts <= t. Times come from the packets. Where packets have none (raw streams, AVI with B-frames) or
wrong ones (recordings joined end to end), the file is decoded once and its frames are counted.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from stadlib.base import InputError, check_word, tell_once, written_whole

if TYPE_CHECKING:
    import torch  # a process that only renders starts in a moment without it

TIME_SLACK = 1e-6  # seconds; annotation clocks have six decimals
FALLBACK_RATE = 25  # frames/s where a file gives neither times nor a rate
_REMEDY = "re-download or re-encode it"
_COUNTED: set[tuple[str, int, int]] = set()  # files whose packets have wrong times
_NOT_ELSEWHERE: set[tuple[str, int, int]] = set()  # those that another decoder does not read alike


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """Size in pixels, duration in seconds, and the times of all frames of a video."""

    width: int
    height: int
    duration: float
    pts: np.ndarray  # (F,) presentation times of the frames, ascending
    time_base: float  # seconds of a unit of them
    keyframes: np.ndarray  # (K, 2), pts and dts of where decoding can start; K = 0: count frames

    @property
    def seconds(self) -> np.ndarray:
        """(F,) seconds from the first frame to each."""
        return (self.pts - self.pts[0]) * self.time_base


@contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
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
    """Refuse a file that is missing, empty or shorter than its container declares.

    Decoders hide a missing end: Matroska just stops, MP4 may lose its last fragment unnoticed.
    """
    _, _, size = identity(path)
    try:
        with path.open("rb") as file:
            if _declared_end(file, size) > size:
                raise InputError(f"{path}: file ends early; {_REMEDY}")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; make it readable") from error


def identity(path: Path) -> tuple[str, int, int]:
    """A video's name, time of the last change and size; missing or empty is an InputError."""
    name = str(path)
    if name != name.encode(errors="replace").decode():
        raise InputError(f"{name!a}: its name is not UTF-8; rename it")
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: no such video; add the file") from error
    if stat.st_size == 0:
        raise InputError(f"{path}: empty file; {_REMEDY}")
    return name, stat.st_mtime_ns, stat.st_size


def _declared_end(file: BinaryIO, size: int) -> int:
    """Where a file of MP4, Matroska or AVI should end, in bytes; 0 where it does not say."""
    head, end = file.read(256), 0
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        end = 8 + int.from_bytes(head[4:8], "little")
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        # ISO/IEC 14496-12: boxes with their length in front; trailing bytes may be no box
        while end + 8 <= size:
            file.seek(end)
            length, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            length = large if length == 1 else length
            if length < 8 or not kind.isascii() or not kind.strip(b"\0"):
                break  # a length of 0: up to the end of the file
            end += length
    elif head[:4] == b"\x1a\x45\xdf\xa3" and (segment := head.find(b"\x18\x53\x80\x67")) > 0:
        # RFC 9559: a head, then one segment; leading zero bits tell the bytes of its length
        start = segment + 4
        width = 9 - int.from_bytes(head[start : start + 1], "big").bit_length()
        length = int.from_bytes(head[start : start + width], "big") - (1 << 7 * width)
        if length < (1 << 7 * width) - 1:  # otherwise unknown, as in a live stream
            end = start + width + length
    return end


def probe(path: Path | str) -> VideoInfo:
    """Measures and frame times, from the packets; kept until the file changes.

    Raises InputError if the file is missing, empty, ends early or holds no video.
    """
    file = identity(Path(path))
    return _probe(*file, counted=file in _COUNTED)


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
    pts, keyframes = packets or (_counted_times(path, 1 / (rate * base)), no_keyframes)
    if not len(pts):
        raise InputError(f"{path}: no frame can be decoded; {_REMEDY}")
    gap = float(np.median(np.diff(pts))) * base if len(pts) > 1 else 1 / rate
    return VideoInfo(width, height, float(pts[-1] - pts[0]) * base + gap, pts, base, keyframes)


def _packet_times(container, stream) -> tuple[np.ndarray, np.ndarray] | None:
    """All pts and the (pts, dts) of keyframes; None where packets do not have them."""
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        return None  # AVI stores no pts: those of reordered packets are guesses
    packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
    if not packets or any(p.pts is None or p.dts is None for p in packets):
        return None
    times = np.array([(p.pts, p.dts) for p in packets], np.int64)
    keyframes = times[[p.is_keyframe for p in packets]]
    pts, begins_again = np.sort(times[:, 0]), (np.diff(times[:, 1]) < 0).any()
    if (np.diff(pts) == 0).any() or begins_again or not len(keyframes):
        return None
    return pts, keyframes[np.argsort(keyframes[:, 0])]


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


def read_frames(path: Path | str, times: Sequence[float]) -> torch.Tensor:
    """The frames shown at ``times``, exactly, as uint8 RGB (T, 3, H, W), colours side by side.

    Times are seconds since the first frame, in any order, at least one. Times before the first or
    after the last frame give that frame. Errors are those of :func:`probe`.

    The environment's STADLIB_DECODER may name another decoder than PyAV: ``torchcodec``, which
    gives the same bytes, or, on a GPU, ``nvdec``, whose colours may differ by rounding.
    """
    import torch  # noqa: PLC0415

    path, word = Path(path), os.environ.get("STADLIB_DECODER") or "pyav"
    check_word("STADLIB_DECODER", word, ("pyav", "torchcodec", "nvdec"))
    info = probe(path)
    if word != "pyav" and len(info.keyframes) and identity(path) not in _NOT_ELSEWHERE:
        frames = _decode_elsewhere(path, info, times, "cuda" if word == "nvdec" else "cpu")
        if frames is not None:
            return frames.permute(0, 3, 1, 2)
    frames = _decode(path, info, times)
    if frames is None:  # the packets' times are wrong: count the frames from now on
        _COUNTED.add(identity(path))
        frames = _decode(path, probe(path), times)
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def _positions(info: VideoInfo, times: Sequence[float]) -> np.ndarray:
    """Which of a video's frames are shown at these times."""
    asked = np.asarray(times, np.float64) + TIME_SLACK
    return (np.searchsorted(info.seconds, asked, side="right") - 1).clip(min=0)


def _decode_elsewhere(
    path: Path, info: VideoInfo, times: Sequence[float], device: str
) -> torch.Tensor | None:
    """Frames (T, H, W, 3) at these times by torchcodec, which is optional; on the CPU.

    None of a file that it does not read as :func:`probe` does.
    """
    import torch  # noqa: PLC0415

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("STADLIB_DECODER='nvdec': no GPU is here; unset it")
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0]
        line = f"STADLIB_DECODER: torchcodec cannot be loaded ({why}); install it and FFmpeg"
        raise InputError(f"{line}, or unset STADLIB_DECODER") from error
    positions, options = _positions(info, times), {"device": device, "dimension_order": "NHWC"}
    try:  # it looks for frames by the rate alone, whatever times they have
        decoder = VideoDecoder(str(path), seek_mode="approximate", **options)
        frames = decoder.get_frames_at(positions.tolist())
        if not np.allclose(frames.pts_seconds, info.pts[positions] * info.time_base, atol=1e-4):
            raise ValueError("it finds other frames")
        if frames.data.shape[1:3] != (info.height, info.width):
            raise ValueError("it turns the frames")
        return frames.data.cpu()
    except (RuntimeError, ValueError, IndexError) as error:
        why = str(error).strip().splitlines()[0]
        tell_once(f"{path}: left to PyAV, as are others like it; torchcodec: {why}")
        _NOT_ELSEWHERE.add(identity(path))
        return None


def _decode(path: Path, info: VideoInfo, times: Sequence[float]) -> np.ndarray | None:
    """Frames (T, H, W, 3) at these times; None if a frame's pts is not its packet's."""
    counted = not len(info.keyframes)
    positions = _positions(info, times)
    keys = positions if counted else info.pts[positions]
    wanted = np.unique(keys)
    starts = np.searchsorted(info.keyframes[:, 0], wanted, side="right") - 1
    frames_THWC = np.empty((len(keys), info.height, info.width, 3), np.uint8)
    reformatter = VideoReformatter()  # one a file: its set-up costs more than a small frame
    frames, last = None, 0
    with opened(path) as (container, stream):
        for key, start in zip(wanted.tolist(), starts.tolist(), strict=True):
            if frames is None or start > last + 1:  # no seek between frames close to each other
                if start > 0:
                    container.seek(int(info.keyframes[start, 1]), backward=True, stream=stream)
                frames = enumerate(container.decode(stream))
            last = start
            for position, frame in frames:
                found = position if counted else frame.pts
                if found is not None and found >= key:
                    break
            else:
                return None
            if found != key:
                return None
            sides = info.width, info.height
            # By default each reformatter starts threads: 1 ms of work took 10.
            rgb = reformatter.reformat(frame, *sides, format="rgb24", threads=1)
            frames_THWC[keys == key] = rgb.to_ndarray()
    return frames_THWC


def write_video(
    path: Path | str,
    frames: np.ndarray | Iterable[np.ndarray | av.VideoFrame],
    fps: int | Fraction,
    *,
    crf: int = 23,
    qp: int | None = None,
    gop: int = 8,
    watched: bool = False,
) -> None:
    """Write H.264 in MP4 without B-frames, whole or not at all; equal frames give equal bytes.

    Frames are of one even size: uint8 RGB arrays (H, W, 3), shown at ``fps``, or PyAV's frames with
    their own times. With ``qp`` instead of ``crf`` bytes do not depend on the processor. ``gop``:
    frames from a keyframe to the next. ``watched`` by people: x264 chooses keyframes, every core
    works, so that bytes depend on their number, and a browser plays while it loads.
    """
    quality = {"crf": str(crf)}
    if qp is not None:
        quality = {"qp": str(qp), "aq-mode": "0", "x264-params": "cpu-independent=1"}
    access = {"threads": "0"} if watched else {"threads": "1", "g": str(gop)}
    options = quality | {"preset": "veryfast", "bf": "0"} | access
    muxer = {"movflags": "faststart"} if watched else {}
    with (
        written_whole(Path(path)) as temporary,
        av.open(str(temporary), "w", format="mp4", options=muxer) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(frames):
            frame = picture
            if isinstance(picture, np.ndarray):
                frame = av.VideoFrame.from_ndarray(_yuv(picture), format="yuv420p")
            if number == 0:
                stream.height, stream.width = frame.height, frame.width
                if frame.pts is not None:
                    stream.codec_context.time_base = frame.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _yuv(picture: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) to BT.601's planes (H * 3 / 2, W); FFmpeg's own differ between processors."""
    height, width = picture.shape[:2]
    wide = picture.astype(np.int32)
    red, green, blue = np.moveaxis(wide, -1, 0)
    y = ((66 * red + 129 * green + 25 * blue + 128) >> 8) + 16
    # The colour of two by two pixels; NumPy's sum over two axes takes four times as long.
    rows = wide[0::2] + wide[1::2]
    red, green, blue = np.moveaxis(rows[:, 0::2] + rows[:, 1::2], -1, 0)
    u = ((-38 * red - 74 * green + 112 * blue + 512) >> 10) + 128
    v = ((112 * red - 94 * green - 18 * blue + 512) >> 10) + 128
    planes = np.concatenate([plane.reshape(-1) for plane in (y, u, v)])
    return planes.astype(np.uint8).reshape(height * 3 // 2, width)

"""Frame-exact video reading by time, and writing, with PyAV.

Time 0 is the presentation time (pts) of the first video frame, so that start offsets vanish.
"The frame at t" is the last one with pts <= t, the rule that holds for any frame rate, also an
unset or a variable one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from stadlib.data.frame_index import FrameIndex, VideoInfo, counted_index, frame_index, opened

__all__ = ["VideoInfo", "frame_size", "probe", "read_frames", "write_video"]


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

"""The frames of a video in order, one at a time: memory does not grow with its length.

Frames come as a player shows them, turned by the file's rotation, and no larger than asked for:
scaling happens on the way out of the decoder, so that a large picture is never held in RGB.
Time 0 is the first frame, as in :mod:`.video`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from stadlib.base import InputError
from stadlib.data.video import FALLBACK_RATE, TIME_SLACK, opened, require_whole

_BEFORE = 1.0  # seconds to seek ahead of what is wanted: decoders need some frames to get going


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame: ``time`` in seconds, from when it is shown; ``picture()`` is (H, W, 3) RGB uint8."""

    time: float
    picture: Callable[[], np.ndarray]


class Stream:
    """A video file to be read from front to back, as often as one likes.

    Args:
        path: of the file.
        shortest: pixels that a picture's short side has at least; smaller ones are enlarged.
        largest: and at most, while it is no less than ``shortest``; 0: as many as there are.

    Attributes:
        size: (height, width) of its pictures, as displayed; both even.
        rate: frames a second, as far as the file tells.
        duration: seconds, as far as it tells; for a file that doesn't, counted.

    Raises:
        InputError: the file is missing, empty, ends early or holds no video.
    """

    def __init__(self, path: Path, shortest: int = 0, largest: int = 0) -> None:
        self.path = Path(path)
        require_whole(self.path)
        with opened(self.path) as (container, stream):
            first = next(container.decode(stream), None)
            if first is None:
                raise InputError(f"{self.path}: no frame can be decoded; re-download it")
            self.rate = float(stream.guessed_rate or stream.average_rate or FALLBACK_RATE)
            self.duration = _duration(container, stream) or self._counted_duration()
        self._origin = first.pts
        self._turns = round(first.rotation / 90) % 4
        height, width = first.height, first.width
        if self._turns % 2:
            height, width = width, height
        short = max(shortest, min(largest or height, height, width))
        scale = short / min(height, width)
        self.size = tuple(max(2, 2 * round(side * scale / 2)) for side in (height, width))

    def frames(self, start: float = 0.0) -> Iterator[Shown]:
        """Every frame from the one shown at ``start`` on, or from an earlier one.

        A frame whose picture is not asked for costs its decoding only.

        Raises:
            InputError: the file is damaged further on.
        """
        if start > _BEFORE and self._origin is not None:
            found = self._decoded(start - _BEFORE)
            first = next(found, None)
            if first is not None and first.time <= start:
                yield first
                yield from found
                return
        yield from self._decoded(0.0)

    def _decoded(self, start: float) -> Iterator[Shown]:
        with opened(self.path) as (container, stream):
            stream.thread_type, stream.codec_context.thread_count = "AUTO", 0
            if start > 0:
                begin = self._origin + int(start / stream.time_base)
                container.seek(begin, backward=True, stream=stream)
            convert, last = self._converter(), -1 / self.rate
            for frame in container.decode(stream):
                last = self._time(frame, last)
                yield Shown(last, partial(convert, frame))

    def _time(self, frame: av.VideoFrame, last: float) -> float:
        """Since when a frame is shown; a frame after ``last`` where the clock is torn."""
        if frame.pts is not None and self._origin is not None:
            time = float((frame.pts - self._origin) * frame.time_base)
            if time > last + TIME_SLACK:
                return time
        return last + 1 / self.rate

    def _counted_duration(self) -> float:
        """Seconds from the first to the last packet, for containers that tell nothing."""
        times = [0.0, 0.0]
        with opened(self.path) as (container, stream):
            told = (packet.pts for packet in container.demux(stream) if packet.size)
            for number, pts in enumerate(told, 1):
                time = number / self.rate if pts is None else float(pts * stream.time_base)
                times = [time if number == 1 else min(times[0], time), max(times[1], time)]
        return times[1] - times[0] + 1 / self.rate

    def _converter(self) -> Callable[[av.VideoFrame], np.ndarray]:
        """Frame -> upright RGB of the stream's size; one reformatter, which keeps its tables."""
        reformatter = VideoReformatter()
        height, width = self.size[:: -1 if self._turns % 2 else 1]

        def convert(frame: av.VideoFrame) -> np.ndarray:
            larger, same = frame.width > width, (frame.height, frame.width) == (height, width)
            way = None if same else "AREA" if larger else "BICUBIC"
            rgb = reformatter.reformat(frame, width, height, format="rgb24", interpolation=way)
            return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), self._turns))

        return convert


@dataclass(frozen=True, eq=False)
class Moment:
    """A moment of a regular clock, in seconds, and the pictures around it.

    ``end`` is when the last frame begins, or infinity while it is not known.
    """

    time: float
    pictures: list[np.ndarray]
    end: float


def around(
    stream: Stream, every: float, offsets: Sequence[float], first: int = 0
) -> Iterator[Moment]:
    """The pictures around every moment of a regular clock, while the video runs.

    Only pictures that some moment asks for are made, and none is kept longer than it is needed.

    Args:
        stream: the video.
        every: seconds from a moment to the next; moment ``k`` is at ``k * every``.
        offsets: seconds of the wanted pictures from the moment, the largest 0 or more.
        first: moment to begin with.

    Yields:
        Moments up to the last frame, with the pictures in the order of ``offsets``: at each time
        the last frame that began by then, as :func:`stadlib.data.video.read_frames` gives it, and
        the first or the last one where there is none.
    """
    wanted = np.asarray(offsets, np.float64)
    kept: deque[tuple[float, np.ndarray]] = deque()
    moment = first
    for shown, until in _with_end(stream.frames(max(0.0, first * every + wanted.min()))):
        if not kept or until is None or _is_wanted(shown.time, until, every, wanted):
            kept.append((shown.time, shown.picture()))
        known = np.inf if until is None else until - TIME_SLACK
        end = shown.time if until is None else np.inf
        while moment * every + wanted.max() < known and moment * every <= end + TIME_SLACK:
            now = moment * every
            yield Moment(now, [_at(kept, now + offset) for offset in wanted], end)
            moment += 1
            while len(kept) > 1 and kept[1][0] <= moment * every + wanted.min() + TIME_SLACK:
                kept.popleft()


def picture_at(stream: Stream, time: float) -> np.ndarray:
    """The picture shown at a time."""
    for shown, until in _with_end(stream.frames(time)):
        if until is None or until > time + TIME_SLACK:
            return shown.picture()
    raise InputError(f"{stream.path}: no frame at {time:g} s; re-download it")


def _with_end(frames: Iterator[Shown]) -> Iterator[tuple[Shown, float | None]]:
    """Frames with the time at which the next one takes over; None for the last."""
    before = None
    for shown in frames:
        if before is not None:
            yield before, shown.time
        before = shown
    if before is not None:
        yield before, None


def _is_wanted(begin: float, end: float, every: float, offsets: np.ndarray) -> bool:
    """Whether some moment asks for a time from ``begin`` up to ``end``."""
    ticks = (np.array([[begin], [end]]) - TIME_SLACK - offsets) / every
    before, after = np.ceil(ticks).clip(min=0)
    return bool((after > before).any())


def _at(kept: Sequence[tuple[float, np.ndarray]], time: float) -> np.ndarray:
    """The last picture that began by ``time``; the first one for earlier times."""
    found = kept[0][1]
    for begin, picture in kept:
        if begin > time + TIME_SLACK:
            break
        found = picture
    return found


def _duration(container: InputContainer, stream: VideoStream) -> float:
    """What the file says of its length in seconds; 0 where it says nothing."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6

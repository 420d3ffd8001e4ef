"""The frames of a video in order, one at a time: memory does not grow with its length.

Frames come as a player shows them, turned by the file's rotation. They are scaled on the way out of
the decoder, so a large picture is never held in RGB. Time 0 is the first frame.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from stadlib.base import InputError
from stadlib.data.video import FALLBACK_RATE, TIME_SLACK, opened, probe, require_whole, write_video

TICKS = 90_000  # a second; any frame rate's times are whole numbers of it, or nearly
_BEFORE = 1.0  # seconds to seek ahead of what is wanted: decoders need some frames to get going


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame: ``time`` in seconds, from when it is shown; ``picture()`` is (H, W, 3) RGB uint8."""

    time: float
    picture: Callable[[], np.ndarray]


class Stream:
    """A video file to be read from front to back, any number of times.

    The short side of its pictures has at least ``shortest`` pixels, and at most ``largest`` (0: no
    limit), unless ``shortest`` is more. ``size`` is their height and width, both even, ``turns``
    the quarters of a turn that they were given; ``rate`` and ``duration`` are the declared ones.
    """

    def __init__(self, path: Path, shortest: int = 0, largest: int = 0) -> None:
        self.path = Path(path)
        require_whole(self.path)
        with opened(self.path) as (container, stream):
            first = next(container.decode(stream), None)
            if first is None:
                raise InputError(f"{self.path}: no frame can be decoded; re-download it")
            self.rate = float(stream.guessed_rate or stream.average_rate or FALLBACK_RATE)
            self.duration = (container.duration or 0) / 1e6
            if stream.duration and stream.time_base:
                self.duration = float(stream.duration * stream.time_base)
        self.duration = self.duration or probe(self.path).duration  # of a live stream
        self._origin, self.turns = first.pts, round(first.rotation / 90) % 4
        sides = (first.height, first.width)[:: -1 if self.turns % 2 else 1]
        scale = max(shortest, min(largest or min(sides), *sides)) / min(sides)
        self.size = tuple(max(2, 2 * round(side * scale / 2)) for side in sides)

    def frames(self, start: float = 0.0) -> Iterator[Shown]:
        """Every frame from the one shown at ``start`` on, or from an earlier one."""
        if start > _BEFORE and self._origin is not None and len(probe(self.path).keyframes):
            frames = self._decoded(start - _BEFORE)
            first = next(frames, None)
            if first is not None and first.time <= start:
                return chain([first], frames)
        return self._decoded(0.0)

    def _decoded(self, start: float) -> Iterator[Shown]:
        """Frames from the keyframe before ``start`` on; where the clock is torn, at the rate."""
        reformatter, last = VideoReformatter(), -1 / self.rate
        with opened(self.path) as (container, stream):
            stream.thread_type, stream.codec_context.thread_count = "AUTO", 0
            if start > 0:
                begin = self._origin + int(start / stream.time_base)
                container.seek(begin, backward=True, stream=stream)
            for frame in container.decode(stream):
                time = last
                if frame.pts is not None and self._origin is not None:
                    time = float((frame.pts - self._origin) * frame.time_base)
                last = time if time > last + TIME_SLACK else last + 1 / self.rate
                yield Shown(last, partial(self._picture, frame, reformatter))

    def _picture(self, frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
        """Upright RGB of the stream's size; one reformatter a stream, because it keeps tables."""
        height, width = self.size[:: -1 if self.turns % 2 else 1]
        same = (frame.height, frame.width) == (height, width)
        method = None if same else "AREA" if frame.width > width else "BICUBIC"
        options = {"format": "rgb24", "interpolation": method, "threads": 1}
        rgb = reformatter.reformat(frame, width, height, **options)
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), self.turns))


@dataclass(frozen=True, eq=False)
class Moment:
    """A second and the pictures around it; ``end``: when the last frame begins, inf if unknown."""

    time: float
    pictures: list[np.ndarray]
    end: float


def around(
    stream: Stream, every: float, offsets: Sequence[float], first: int = 0
) -> Iterator[Moment]:
    """The pictures around every moment of a regular clock, while the video runs.

    Moment ``k`` is at ``k * every`` seconds, from ``first`` on up to the last frame. Its pictures
    are in the order of ``offsets``, in seconds from the moment, the largest 0 or more.
    """
    wanted = np.asarray(offsets, np.float64)
    earliest, latest = wanted.min(), wanted.max()
    kept: deque[tuple[float, np.ndarray]] = deque()

    def at(time: float) -> np.ndarray:
        begun = [picture for begin, picture in kept if begin <= time + TIME_SLACK]
        return begun[-1] if begun else kept[0][1]

    now = first * every
    for shown, following in pairwise(chain(stream.frames(max(0.0, now + earliest)), [None])):
        until = following.time if following else np.inf
        # Does a moment ask for a time from the beginning of this frame up to the next frame?
        ticks = (np.array([[shown.time], [until]]) - TIME_SLACK - wanted) / every
        before, after = np.ceil(ticks).clip(min=0)
        if not kept or (after > before).any():
            kept.append((shown.time, shown.picture()))
        end = shown.time if until == np.inf else np.inf
        while now + latest < until - TIME_SLACK and now <= end + TIME_SLACK:
            yield Moment(now, [at(now + offset) for offset in wanted], end)
            first += 1
            now = first * every
            while len(kept) > 1 and kept[1][0] <= now + earliest + TIME_SLACK:
                kept.popleft()


def picture_at(stream: Stream, time: float) -> np.ndarray:
    """The picture shown at a time."""
    shown = None
    for following in stream.frames(time):
        if shown and following.time > time + TIME_SLACK:
            break
        shown = following
    return shown.picture()


def write_frames(path: Path, frames: Iterable[Shown], rate: float, **options: object) -> None:
    """Write frames as :func:`.video.write_video` does, each at its time since the first of them."""

    def timed() -> Iterator[av.VideoFrame]:
        first = None
        for shown in frames:
            ticks = round(shown.time * TICKS)
            first = ticks if first is None else first
            frame = av.VideoFrame.from_ndarray(shown.picture(), format="rgb24")
            frame.pts, frame.time_base = ticks - first, Fraction(1, TICKS)
            yield frame

    write_video(path, timed(), Fraction(rate).limit_denominator(1001), **options)

"""A video drawn on and encoded as it runs, minute by minute, so that a kill costs a minute."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import groupby, takewhile
from pathlib import Path

import av
import numpy as np

from stadlib.data.streaming import Shown, Stream
from stadlib.own_video.overlay import Overlay
from stadlib.own_video.playback import Playback
from stadlib.own_video.sightings import Sighting
from stadlib.paths import written_whole
from stadlib.progress import Report

PART = 60  # seconds of video that are encoded as one
_FRONT = {"movflags": "faststart"}  # the index first: browsers play while they load
_TICKS = 90_000  # a second; any frame rate's times are whole numbers of it, or nearly


def write_annotated(
    stream: Stream,
    sightings: Iterable[Sighting],
    names: Mapping[int, str],
    path: Path,
    *,
    warning: str,
    progress: Report,
) -> None:
    """Write H.264 in MP4 without sound, with every frame at its time.

    Interrupted, the next call goes on at the minute it was in.

    Args:
        stream: the video.
        sightings: all of it, in order.
        names: of the actions, by id, in the order of the scores.
        path: of the file, which appears when all is done.
        warning: to be burnt in above every frame.
        progress: called with (seconds done, seconds, text).
    """
    overlay, playback = Overlay(stream.size, names, warning), Playback(sightings, list(names))
    total = max(1, round(stream.duration))

    def drawn(shown: Shown) -> np.ndarray:
        progress(min(round(shown.time), total), total, "seconds")
        return overlay.draw(shown.picture(), shown.time, playback.at(shown.time))

    folder = parts_folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    done = [_begin(part) // (PART * _TICKS) for part in folder.glob("[0-9]*.mp4")]
    first = max(done, default=-1) + 1
    frames = stream.frames(float(first * PART))
    for number, own in groupby(frames, key=lambda shown: int(shown.time // PART)):
        if number >= first:
            temporary = folder / "unfinished.mp4"
            begin = _encode(temporary, own, drawn, overlay.size, stream.rate)
            temporary.replace(folder / f"{begin:012d}.mp4")
    _join(sorted(folder.glob("[0-9]*.mp4")), path)
    shutil.rmtree(folder)


def write_clip(video: Path, path: Path, seconds: float) -> None:
    """Write the beginning of a video again in fewer bytes, to be embedded in a page."""
    stream = Stream(video)
    shown = takewhile(lambda shown: shown.time < seconds, stream.frames())
    with written_whole(path) as temporary:
        _encode(temporary, shown, lambda one: one.picture(), stream.size, stream.rate, crf=28)


def parts_folder(path: Path) -> Path:
    """Where the parts of a video lie until it is whole."""
    return path.with_name(f".{path.name}.parts")


def _begin(part: Path) -> int:
    """Ticks at the first frame of a part, which is its name."""
    return int(part.stem)


def _encode(
    path: Path,
    frames: Iterable[Shown],
    drawn: Callable[[Shown], np.ndarray],
    size: tuple[int, int],
    rate: float,
    *,
    crf: int = 23,
) -> int:
    """Encode frames, at least one, as they are drawn; returns the first one's ticks, now 0."""
    begin = None
    options = {"crf": str(crf), "preset": "veryfast", "bf": "0"}
    with av.open(str(path), "w", format="mp4", options=dict(_FRONT)) as container:
        nominal = Fraction(rate).limit_denominator(1001)
        encoder = container.add_stream("libx264", rate=nominal, options=options)
        encoder.height, encoder.width = size
        encoder.pix_fmt, encoder.codec_context.time_base = "yuv420p", Fraction(1, _TICKS)
        for shown in frames:
            ticks = round(shown.time * _TICKS)
            begin = ticks if begin is None else begin
            frame = av.VideoFrame.from_ndarray(drawn(shown), format="rgb24")
            frame.pts, frame.time_base = ticks - begin, Fraction(1, _TICKS)
            container.mux(encoder.encode(frame))
        container.mux(encoder.encode())
    return begin


def _join(parts: Sequence[Path], path: Path) -> None:
    """One file of all parts; nothing is encoded again."""
    with (
        written_whole(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as whole,
    ):
        joined = None
        for part in parts:
            with av.open(str(part)) as container:
                stream = container.streams.video[0]
                joined = joined or whole.add_stream_from_template(stream)
                later = round(_begin(part) / _TICKS / stream.time_base)
                for packet in container.demux(stream):
                    if packet.size:
                        packet.pts, packet.dts = packet.pts + later, packet.dts + later
                        packet.stream = joined
                        whole.mux(packet)

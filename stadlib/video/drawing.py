"""Drawing on frames of a video: boxes, a panel that says who does what, and a warning above.

Pictures are RGB. Text is set once and pasted as long as it stays the same.

A video drawn on and encoded as it runs, minute by minute, so that a kill costs a minute.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import groupby, takewhile
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from stadlib.base import Report, written_whole
from stadlib.data.labels import group
from stadlib.data.stream import Shown, Stream
from stadlib.data.video import write_video
from stadlib.report.style import ALARM, COLORS, PERSON_COLORS, shortened
from stadlib.video.sightings import Playback, Seen, Sighting

_DARK, _LIGHT, _FAINT = (24, 24, 24), (255, 255, 255), (150, 150, 150)
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


class Overlay:
    """Draws on the frames of one video.

    Args:
        size: (height, width) of its pictures.
        names: of the actions, by id.
        warning: stands in red above every frame; empty: nothing does.

    Attributes:
        size: (height, width) of what :meth:`draw` returns, both even.
    """

    def __init__(self, size: tuple[int, int], names: Mapping[int, str], warning: str) -> None:
        self._picture, self._names = size, names
        self._letter = max(11, round(min(size) / 30))  # pixels
        self._panel = 17 * self._letter // 2 * 2
        self._banner = self._warning(warning, size[1] + self._panel)
        self.size = (size[0] + len(self._banner), size[1] + self._panel)
        self._panel_of = lru_cache(maxsize=4)(self._new_panel)
        self._tag_of = lru_cache(maxsize=64)(self._new_tag)

    def draw(self, picture: np.ndarray, time: float, persons: Sequence[Seen]) -> np.ndarray:
        """The frame with its persons; ``picture`` is drawn on."""
        width = self._picture[1]
        for seen in persons:
            self._box(picture, seen)
        whole = np.empty((*self.size, 3), np.uint8)
        whole[: len(self._banner)] = self._banner
        whole[len(self._banner) :, :width] = picture
        lines = tuple((seen.number, tuple(seen.actions)) for seen in persons)
        whole[len(self._banner) :, width:] = self._panel_of(_clock(time), lines)
        return whole

    def _box(self, picture: np.ndarray, seen: Seen) -> None:
        height, width = self._picture
        x1, y1, x2, y2 = (int(v) for v in seen.box * [width - 1, height - 1, width - 1, height - 1])
        thick = max(2, self._letter // 6)
        cv2.rectangle(picture, (x1, y1), (x2, y2), (0, 0, 0), thick + 2)
        cv2.rectangle(picture, (x1, y1), (x2, y2), person_color(seen.number), thick)
        tag = self._tag_of(seen.number)
        place = picture[y1 : y1 + len(tag), x1 : x1 + tag.shape[1]]
        place[:] = tag[: place.shape[0], : place.shape[1]]

    def _new_tag(self, number: int) -> np.ndarray:
        """A person's number on the person's colour."""
        font = _font(self._letter)
        width = round(font.getlength(str(number))) + self._letter // 2
        image = Image.new("RGB", (width, self._letter + 3), person_color(number))
        ImageDraw.Draw(image).text((width / 2, 0), str(number), (0, 0, 0), font, anchor="ma")
        return np.array(image)

    def _new_panel(self, clock: str, persons: tuple) -> np.ndarray:
        """Who does what, a bar as long as the score; of many persons fewer actions each."""
        height, letter = self._picture[0], self._letter
        image = Image.new("RGB", (self._panel, height), _DARK)
        draw = ImageDraw.Draw(image)
        line, room = letter + 5, (height - 2 * letter) // (letter + 5)
        most = max(1, min(3, room // max(1, len(persons)) - 1))
        y = letter // 2
        for place, (number, actions) in enumerate(persons):
            if y + (1 + most) * line > height - letter:
                left = f"and {len(persons) - place} more"
                draw.text((letter // 2, y), left, _FAINT, _font(letter))
                break
            image.paste(Image.fromarray(self._tag_of(number)), (letter // 2, y))
            if not actions:
                draw.text((3 * letter, y), "nothing sure", _FAINT, _font(letter))
            y += line
            for action, score in actions[:most]:
                self._bar(draw, y, action, score)
                y += line
            y += line // 3
        draw.text((self._panel - letter // 2, height - 2), clock, _FAINT, _font(letter), "rd")
        return np.array(image)

    def _bar(self, draw: ImageDraw.ImageDraw, y: int, action: int, score: float) -> None:
        letter = self._letter
        left, right = letter // 2, self._panel - letter // 2
        draw.rectangle(
            (left, y, left + score * (right - left), y + letter + 3), COLORS[group(action)]
        )
        words = _fitting(shortened(self._names[action]), right - left - 3 * letter, _font(letter))
        draw.text((left + 3, y + 1), words, _LIGHT, _font(letter))
        number = f"{score:.2f}".removeprefix("0")
        draw.text((right - 2, y + 1), number, _LIGHT, _font(letter), anchor="ra")

    def _warning(self, words: str, width: int) -> np.ndarray:
        """The warning in as many lines as it takes."""
        font, letter = _font(self._letter), self._letter
        lines = _wrapped(words, width - letter, font)
        height = (len(lines) * (letter + 4) + 8) // 2 * 2 if words else 0
        image = Image.new("RGB", (width, max(1, height)), ALARM)
        for number, line in enumerate(lines):
            ImageDraw.Draw(image).text((letter // 2, 3 + number * (letter + 4)), line, _LIGHT, font)
        return np.array(image)[:height]


def person_color(number: int) -> tuple[int, int, int]:
    """Red, green and blue of a person, who has the same colour in every picture."""
    return ImageColor.getrgb(PERSON_COLORS[(number - 1) % len(PERSON_COLORS)])


def _clock(time: float) -> str:
    """Minutes and seconds."""
    return f"{int(time) // 60}:{int(time) % 60:02d}"


@lru_cache
def _font(letter: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_FONT), letter)


def _fitting(words: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """The words, cut where they would be too long."""
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(words + "…") > width:
        words = words[:-1]
    return words.rstrip() + "…"


def _wrapped(words: str, width: float, font: ImageFont.FreeTypeFont) -> list[str]:
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


PART = 60  # seconds of video that are encoded as one
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
            begin = _encode(temporary, own, drawn, stream.rate)
            temporary.replace(folder / f"{begin:012d}.mp4")
    _join(sorted(folder.glob("[0-9]*.mp4")), path)
    shutil.rmtree(folder)


def write_clip(video: Path, path: Path, seconds: float) -> None:
    """Write the beginning of a video again in fewer bytes, to be embedded in a page."""
    stream = Stream(video)
    shown = takewhile(lambda shown: shown.time < seconds, stream.frames())
    _encode(path, shown, lambda one: one.picture(), stream.rate, crf=28)


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
    rate: float,
    *,
    crf: int = 23,
) -> int:
    """Encode frames, at least one, as they are drawn; returns the first one's ticks, now 0."""
    begin = None

    def timed() -> Iterator[av.VideoFrame]:
        nonlocal begin
        for shown in frames:
            ticks = round(shown.time * _TICKS)
            begin = ticks if begin is None else begin
            frame = av.VideoFrame.from_ndarray(drawn(shown), format="rgb24")
            frame.pts, frame.time_base = ticks - begin, Fraction(1, _TICKS)
            yield frame

    nominal = Fraction(rate).limit_denominator(1001)
    write_video(path, timed(), nominal, crf=crf, gop=None, threads=0, index_first=True)
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

"""Drawing on the frames of a video: boxes, a panel that says who does what, a warning above.

Pictures are RGB. Text is set once and pasted as long as it stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path
from textwrap import wrap

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from stadlib.base import Report
from stadlib.data.layout import LabelMap
from stadlib.data.stream import Shown, Stream, write_frames
from stadlib.report.frames import person_color
from stadlib.report.style import ALARM, action_colors, shortened
from stadlib.video.sightings import Playback, Seen, Sighting

DARK, LIGHT, FAINT = (24, 24, 24), (255, 255, 255), (150, 150, 150)
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
WIDE = 0.7  # of a letter's height: as wide as a letter is at most, on average


class Overlay:
    """Draws on the frames of one video; ``size`` is (height, width) of the result, both even."""

    def __init__(self, size: tuple[int, int], names: Mapping[int, str], warning: str) -> None:
        self._picture, self._names = size, names
        self._colors = action_colors(LabelMap(dict(names)))
        self._letter = max(11, round(min(size) / 30))  # pixels
        self._font = ImageFont.truetype(str(FONT), self._letter)
        self._panel = 17 * self._letter // 2 * 2
        self._banner = self._draw_warning(warning, size[1] + self._panel)
        self.size = (size[0] + len(self._banner), size[1] + self._panel)
        self._panel_of = lru_cache(maxsize=4)(self._draw_panel)
        self._tag_of = lru_cache(maxsize=64)(self._draw_tag)

    def draw(self, picture: np.ndarray, time: float, persons: Sequence[Seen]) -> np.ndarray:
        """Return the frame with its persons; ``picture`` (H, W, 3) is drawn on."""
        height, width = self._picture
        thick = max(2, self._letter // 6)
        for seen in persons:
            size = [width - 1, height - 1, width - 1, height - 1]
            x1, y1, x2, y2 = (int(v) for v in seen.box * size)
            cv2.rectangle(picture, (x1, y1), (x2, y2), (0, 0, 0), thick + 2)
            cv2.rectangle(picture, (x1, y1), (x2, y2), _color(seen.number), thick)
            tag = self._tag_of(seen.number)
            place = picture[y1 : y1 + len(tag), x1 : x1 + tag.shape[1]]
            place[:] = tag[: place.shape[0], : place.shape[1]]
        whole = np.empty((*self.size, 3), np.uint8)
        whole[: len(self._banner)] = self._banner
        whole[len(self._banner) :, :width] = picture
        lines = tuple((seen.number, tuple(seen.actions)) for seen in persons)
        clock = f"{int(time) // 60}:{int(time) % 60:02d}"
        whole[len(self._banner) :, width:] = self._panel_of(clock, lines)
        return whole

    def _draw_tag(self, number: int) -> np.ndarray:
        width = round(self._font.getlength(str(number))) + self._letter // 2
        image = Image.new("RGB", (width, self._letter + 3), _color(number))
        draw = ImageDraw.Draw(image)
        draw.text((width / 2, 0), str(number), (0, 0, 0), self._font, anchor="ma")
        return np.array(image)

    def _draw_panel(self, clock: str, persons: tuple) -> np.ndarray:
        """Who does what, a bar as long as the score; of many persons fewer actions each."""
        height, letter, font = self._picture[0], self._letter, self._font
        image = Image.new("RGB", (self._panel, height), DARK)
        draw = ImageDraw.Draw(image)
        line, room = letter + 5, (height - 2 * letter) // (letter + 5)
        most = max(1, min(3, room // max(1, len(persons)) - 1))
        left, right = letter // 2, self._panel - letter // 2
        y = letter // 2
        for place, (number, actions) in enumerate(persons):
            if y + (1 + most) * line > height - letter:
                draw.text((left, y), f"and {len(persons) - place} more", FAINT, font)
                break
            image.paste(Image.fromarray(self._tag_of(number)), (left, y))
            if not actions:
                draw.text((3 * letter, y), "nothing sure", FAINT, font)
            y += line
            for action, score in actions[:most]:
                bar = (left, y, left + score * (right - left), y + letter + 3)
                draw.rectangle(bar, self._colors[action])
                fits = int((right - left - 3 * letter) / (WIDE * letter))
                words = shortened(self._names[action])
                words = words if len(words) <= fits else f"{words[: fits - 1].rstrip()}…"
                draw.text((left + 3, y + 1), words, LIGHT, font)
                text = f"{score:.2f}".removeprefix("0")
                draw.text((right - 2, y + 1), text, LIGHT, font, anchor="ra")
                y += line
            y += line // 3
        draw.text((right, height - 2), clock, FAINT, font, "rd")
        return np.array(image)

    def _draw_warning(self, words: str, width: int) -> np.ndarray:
        letter = self._letter
        lines = wrap(words, int((width - letter) / (WIDE * letter)))
        height = (len(lines) * (letter + 4) + 8) // 2 * 2 if words else 0
        image = Image.new("RGB", (width, max(1, height)), ALARM)
        for number, line in enumerate(lines):
            place = (letter // 2, 3 + number * (letter + 4))
            ImageDraw.Draw(image).text(place, line, LIGHT, self._font)
        return np.array(image)[:height]


def _color(number: int) -> tuple[int, int, int]:
    return ImageColor.getrgb(person_color(number - 1))


def write_annotated(
    stream: Stream,
    sightings: Iterable[Sighting],
    names: Mapping[int, str],
    path: Path,
    *,
    warning: str,
    progress: Report,
) -> None:
    """Write H.264 in MP4 without sound, with every frame at its time; ``path`` appears whole."""
    overlay, playback = Overlay(stream.size, names, warning), Playback(sightings, list(names))
    total = max(1, round(stream.duration))

    def draw(shown: Shown) -> np.ndarray:
        progress(min(round(shown.time), total), total, "seconds")
        return overlay.draw(shown.picture(), shown.time, playback.at(shown.time))

    drawn = (Shown(shown.time, partial(draw, shown)) for shown in stream.frames())
    write_frames(path, drawn, stream.rate, crf=23, watched=True)


def write_clip(video: Path, path: Path, seconds: float) -> None:
    """Write the beginning of a video again in fewer bytes, to be embedded in a page."""
    stream = Stream(video)
    frames = takewhile(lambda shown: shown.time < seconds, stream.frames())
    write_frames(path, frames, stream.rate, crf=28, watched=True)

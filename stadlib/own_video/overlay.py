"""Drawing on frames of a video: boxes, a panel that says who does what, and a warning above.

Pictures are RGB. Text is set once and pasted as long as it stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from stadlib.labels import group
from stadlib.own_video.playback import Seen
from stadlib.style import ALARM, COLORS, PERSON_COLORS, shortened

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

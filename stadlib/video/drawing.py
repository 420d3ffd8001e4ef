"""Drawing on the frames of a video and along its time: who is where and does what.

Pictures are RGB. Text is set once and pasted as long as it stays the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path
from textwrap import wrap

import cv2
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image, ImageColor, ImageDraw, ImageFont

from stadlib.base import Report
from stadlib.data.layout import LabelMap
from stadlib.data.stream import Shown, Stream, write_frames
from stadlib.report import style
from stadlib.report.frames import person_color
from stadlib.report.style import ALARM, GREY, WIDTH, NotebookFigure, action_colors, shortened
from stadlib.video.sightings import SHOWN, Playback, Seen, Sighting

DARK, LIGHT, FAINT = (24, 24, 24), (255, 255, 255), (150, 150, 150)
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
WIDE = 0.7  # of a letter's height: as wide as a letter is at most, on average
PERSONS, ACTIONS = 6, 4  # of a time line, at most: persons, and actions of each
BINS = 600  # along the time; more could not be seen
ROW = 0.17  # inches


class Overlay:
    """Draws on the frames of one video; ``size`` is their (height, width), even as the result's."""

    def __init__(self, size: tuple[int, int], names: Mapping[int, str], warning: str) -> None:
        self._picture, self._names = size, names
        self._colors = action_colors(LabelMap(dict(names)))
        self._letter = max(11, round(min(size) / 30))  # pixels
        self._font = ImageFont.truetype(str(FONT), self._letter)
        self._panel = 17 * self._letter // 2 * 2
        self._banner = self._draw_warning(warning, size[1] + self._panel)
        self._panel_of = lru_cache(maxsize=4)(self._draw_panel)
        self._tag_of = lru_cache(maxsize=64)(self._draw_tag)

    def draw(self, picture: np.ndarray, time: float, persons: Sequence[Seen]) -> np.ndarray:
        """Return the frame with its persons; ``picture`` (H, W, 3) is drawn on."""
        height, width = self._picture
        thick = max(2, self._letter // 6)
        for seen in persons:
            x1, y1, x2, y2 = (int(v) for v in seen.box * ([width - 1, height - 1] * 2))
            cv2.rectangle(picture, (x1, y1), (x2, y2), (0, 0, 0), thick + 2)
            cv2.rectangle(picture, (x1, y1), (x2, y2), _color(seen.number), thick)
            tag = self._tag_of(seen.number)
            place = picture[y1 : y1 + len(tag), x1 : x1 + tag.shape[1]]
            place[:] = tag[: place.shape[0], : place.shape[1]]
        lines = tuple((seen.number, tuple(seen.actions)) for seen in persons)
        clock = f"{int(time) // 60}:{int(time) % 60:02d}"
        return np.vstack([self._banner, np.hstack([picture, self._panel_of(clock, lines)])])

    def _draw_tag(self, number: int) -> np.ndarray:
        width = round(self._font.getlength(str(number))) + self._letter // 2
        image = Image.new("RGB", (width, self._letter + 3), _color(number))
        place, black = (width / 2, 0), (0, 0, 0)
        ImageDraw.Draw(image).text(place, str(number), black, self._font, anchor="ma")
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
    stream: Stream, overlay: Overlay, playback: Playback, path: Path, progress: Report
) -> None:
    """Write H.264 in MP4 without sound, with every frame at its time; ``path`` appears whole."""
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


def read_scores(
    sightings: Iterable[Sighting], num_actions: int
) -> tuple[dict[int, np.ndarray], int, int]:
    """Gather the persons seen longest, in two passes and in memory that does not grow.

    Returns their highest scores (bins, A) by number, NaN where the person is absent, how many
    persons are left out, and how many sightings a bin holds.
    """
    seen, count = Counter(), 0
    for sighting in sightings:
        seen.update(sighting.numbers)
        count += 1
    size = max(1, -(-count // BINS))
    chosen = sorted(number for number, _ in seen.most_common(PERSONS))
    scores = {n: np.full((max(1, -(-count // size)), num_actions), np.nan) for n in chosen}
    for place, sighting in enumerate(sightings):
        for number, row in zip(sighting.numbers, sighting.actions, strict=True):
            if number in scores:
                scores[number][place // size] = np.fmax(scores[number][place // size], row)
    return scores, len(seen) - len(scores), size


@style.in_style
def time_line(
    sightings: Iterable[Sighting], names: Mapping[int, str], every: float, warning: str = ""
) -> NotebookFigure:
    """Draw a block of rows a person: when it is there, and its actions, darker for higher scores.

    ``sightings``, which are read twice, are ``every`` so many seconds apart.
    """
    ids, colors = list(names), action_colors(LabelMap(dict(names)))
    scores, others, size = read_scores(sightings, len(ids))
    rows: list[tuple[float, float, np.ndarray, str, str]] = []  # middle, half, values, colour, name
    y = 0.0
    for number, own in scores.items():
        absent = np.isnan(own).all(axis=1)
        present = np.where(absent, np.nan, 1.0)
        rows.append((y + 0.5, 0.2, present, person_color(number - 1), f"person {number}"))
        ranked = np.argsort(-own[~absent].mean(axis=0), kind="stable")
        done = [c for c in ranked.tolist() if own[~absent, c].max() >= SHOWN][:ACTIONS]
        for below, column in enumerate(done, 1):
            look = colors[ids[column]], shortened(names[ids[column]])
            rows.append((y + below + 0.5, 0.44, own[:, column], *look))
        y += 1.4 + len(done)
    total, head = y or 2, 0.3 if warning else 0.05
    high = total * ROW + 0.75 + head
    figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, high), layout="none")
    if warning:
        style.warn(figure, warning)
    room = (1.6 / WIDTH, 0.42 / high, (WIDTH - 1.7) / WIDTH, total * ROW / high)
    axes = figure.add_axes(room, ylim=(total, 0))
    axes.grid(False)
    if not rows:
        axes.text(0.5, 0.5, "no person found", transform=axes.transAxes, ha="center", color=GREY)
        axes.set(yticks=[], xticks=[])
        return figure
    bins = len(rows[0][2])
    edges = (np.arange(bins + 1) * size * every - every / 2).clip(min=0)  # round what was scored
    edges, unit = (edges / 60, "minutes") if edges[-1] > 600 else (edges, "seconds")
    axes.set_yticks([middle for middle, *_ in rows], [name for *_, name in rows])
    for tick, (middle, half, values, color, name) in zip(axes.get_yticklabels(), rows, strict=True):
        shades = LinearSegmentedColormap.from_list("shades", ["white", color])
        cells, limits = np.ma.masked_invalid(values[None]), (middle - half, middle + half)
        axes.pcolormesh(edges, limits, cells, cmap=shades, vmin=0, vmax=1)
        tick.set(color=color)
        if name.startswith("person "):
            tick.set(color="black", weight="bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(0, edges[-1]), xlabel=unit)
    style.name_groups(axes, apart=0.19)
    if others:
        text = f"and {others} more people, seen for less long"
        figure.text(0.99, 0.02, text, ha="right", color=GREY)
    return figure

"""Frames with boxes: one grid for all contact sheets, and the parts that other figures draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from stadlib.report.style import (
    ALARM,
    GREY,
    PERSON_COLORS,
    WIDTH,
    NotebookFigure,
    in_style,
    unrun,
)

LINE, GAP, HEAD = 0.135, 0.3, 0.25  # inches: a caption's line, a title and the air, the head
FONT = 7
WORDS = {  # how a word of a caption looks
    "plain": {"color": "black"},
    "strong": {"color": "black", "weight": "bold"},
    "faint": {"color": GREY},
}


class Mark(NamedTuple):
    """A box in a frame.

    Attributes:
        box: x1, y1, x2, y2 in [0, 1].
        color: of the line, and behind the text.
        text: stands inside the box, on its left, at its top or its ``bottom``.
        width: of the line in points.
        dashes: of the line, as matplotlib has them.
        bottom: whether the text stands at the bottom.
    """

    box: Sequence[float]
    color: str
    text: str = ""
    width: float = 1.4
    dashes: str | tuple = "-"
    bottom: bool = False


class Line(NamedTuple):
    """A line of a caption: words and their looks (:data:`WORDS`), behind a person's number.

    ``indent`` leaves the room that a number would take.
    """

    words: Sequence[tuple[str, str]]
    person: int | None = None
    indent: bool = False


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture (H, W, 3) with a title above, boxes in it and lines of text below."""

    title: str
    picture: np.ndarray
    marks: Sequence[Mark] = ()
    lines: Sequence[Line] = ()


@in_style
def frame_grid(
    frames: Sequence[Frame],
    columns: int = 2,
    *,
    legend: Sequence[tuple[str, str]] = (),
    warning: str = "",
) -> NotebookFigure:
    """Show frames side by side and row by row; a row is as high as its highest frame.

    Args:
        frames: of any sizes.
        columns: frames side by side.
        legend: texts and their colours, above all.
        warning: stands in white on red above all.
    """
    if not frames:
        return unrun()
    cell = WIDTH / columns
    width = 0.97 * cell
    tall = [width * f.picture.shape[0] / f.picture.shape[1] for f in frames]
    high = [h + GAP + LINE * len(f.lines) for h, f in zip(tall, frames, strict=True)]
    rows = [max(high[first : first + columns]) for first in range(0, len(frames), columns)]
    head = HEAD if legend or warning else 0.0
    total = head + sum(rows)
    figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, total), layout="none")
    style = {"fontsize": FONT, "weight": "bold", "va": "top"}
    if warning:
        plate = {"facecolor": ALARM, "edgecolor": "none", "boxstyle": "square,pad=0.3"}
        figure.text(0.008, 1 - 0.05 / total, warning, color="white", bbox=plate, **style)
    for place, (text, color) in enumerate(legend):
        figure.text(0.005 + place / len(legend), 1 - 0.05 / total, text, color=color, **style)
    for number, frame in enumerate(frames):
        row, column = divmod(number, columns)
        bottom = total - head - sum(rows[:row]) - 0.15 - tall[number]
        left = column * cell + (cell - width) / 2
        size = (left / WIDTH, bottom / total, width / WIDTH, tall[number] / total)
        _draw(figure.add_axes(size), frame)
    return figure


def _draw(axes: Axes, frame: Frame) -> None:
    show_picture(axes, frame.picture, interpolation=None)
    axes.set_title(frame.title, fontsize=FONT, loc="left", pad=2, color=GREY)
    for mark in frame.marks:
        draw_mark(axes, mark)
    points = 72 / axes.figure.dpi
    for below, line in enumerate(frame.lines):
        x, y = 14.0 if line.indent else 2.0, -9 - 72 * LINE * below
        if line.person is not None:
            number, color = str(line.person + 1), person_color(line.person)
            tag = plate(axes, number, color, (0, 0), offset=(x, y), coords="axes fraction")
            x += tag.get_window_extent().width * points + 7
        for place, (text, look) in enumerate(line.words):
            at = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": FONT}
            word = axes.annotate(text, (0, 0), (x, y), va="baseline", **at, **WORDS[look])
            end = x + word.get_window_extent().width * points
            if place and end > axes.bbox.width * points:
                word.remove()  # what does not fit is left out, but for the first word
                break
            x = end + 7


def show_picture(axes: Axes, picture: np.ndarray, interpolation: str | None = "nearest") -> None:
    """A picture (H, W, 3) in its shape, without ticks; its corners are 0 and 1 as boxes' are."""
    axes.imshow(picture, aspect="auto", extent=(0, 1, 1, 0), interpolation=interpolation)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_box_aspect(picture.shape[0] / picture.shape[1])


def view_of(picture: np.ndarray, box: np.ndarray, shape: float) -> tuple[float, ...]:
    """Left, top, width and height of the part of a picture round a box, as fractions of it.

    It fits a panel of width / height ``shape``, and reaches beyond the picture where it must.
    """
    size = np.array(picture.shape[1::-1])
    corners, panel = np.reshape(box, (2, 2)), np.array([shape, 1])
    view = 1.08 * ((corners[1] - corners[0]) * size / panel).max() * panel / size
    room = np.maximum(1 - view, 0)
    low = np.where(view > 1, (1 - view) / 2, np.clip(corners.mean(axis=0) - view / 2, 0, room))
    return (*low.tolist(), *view.tolist())


def show_person(axes: Axes, picture: np.ndarray, box: np.ndarray) -> None:
    """The part of a picture round a box as a square; coordinates stay those of the picture."""
    left, top, width, height = view_of(picture, box, 1)
    show_picture(axes, picture)
    axes.set(xlim=(left, left + width), ylim=(top + height, top), facecolor="#EEEEEE")
    axes.set_box_aspect(1)


def draw_mark(axes: Axes, mark: Mark) -> None:
    """A box on a dark rim, with its text."""
    x1, y1, x2, y2 = np.clip(mark.box, 0, 1)
    corners = ([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1])
    axes.plot(*corners, color="black", lw=mark.width + 1.1, alpha=0.8)
    axes.plot(*corners, color=mark.color, lw=mark.width, ls=mark.dashes)
    if mark.text:
        corner, offset = ((x1, y2), (1.5, 2)) if mark.bottom else ((x1, y1), (1.5, -7))
        plate(axes, mark.text, mark.color, corner, offset=offset)


def plate(
    axes: Axes,
    text: str,
    color: str,
    corner: tuple[float, float],
    *,
    offset: tuple[float, float],
    coords: str = "data",
) -> Annotation:
    """A short text on a colour, so many points from a corner; such is a person's number."""
    box = {"boxstyle": "square,pad=0.12", "facecolor": color, "edgecolor": "none"}
    style = {"fontsize": 6, "weight": "bold", "bbox": box, "textcoords": "offset points"}
    return axes.annotate(text, corner, offset, xycoords=coords, **style)


def person_color(person: int) -> str:
    """The colour of the person at this place, counted from 0."""
    return PERSON_COLORS[person % len(PERSON_COLORS)]


def person_mark(person: int, box: Sequence[float]) -> Mark:
    """A person's box with its number."""
    return Mark(box, person_color(person), str(person + 1))

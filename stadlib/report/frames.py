"""Frames with boxes: one grid for all contact sheets, and the parts that other figures draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from stadlib.report.style import GREY, PERSON_COLORS, WIDTH, NotebookFigure, in_style, unrun, warn

LINE, GAP, HEAD = 0.135, 0.3, 0.25  # inches: a caption's line, a title and the air, the head
FONT = 7
LOOKS = {  # of the words of a caption
    "plain": {"color": "black"},
    "strong": {"color": "black", "weight": "bold"},
    "faint": {"color": GREY},
}


class Mark(NamedTuple):
    """A box in a frame."""

    box: Sequence[float]  # x1, y1, x2, y2 in [0, 1]
    color: str  # of the line, and behind the text
    text: str = ""  # stands inside the box, on its left
    width: float = 1.4  # of the line in points
    dashes: str | tuple = "-"  # of the line, as matplotlib has them
    bottom: bool = False  # whether the text stands at the bottom, not at the top


class Line(NamedTuple):
    """A line of a caption."""

    words: Sequence[tuple[str, str]]  # and their looks (:data:`LOOKS`)
    person: int | None = None  # whose number stands before the words
    indent: bool = False  # by as much as a number takes


class Frame(NamedTuple):
    """A picture (H, W, 3) with a title above, boxes in it and lines of text below."""

    title: str
    picture: np.ndarray
    marks: Sequence[Mark] = ()
    lines: Sequence[Line] = ()


@in_style
def frame_grid(
    frames: Sequence[Frame], columns: int = 2, *, legend: Sequence = (), warning: str = ""
) -> NotebookFigure:
    """Show frames of any sizes side by side; a row is as high as its highest frame.

    Above all stand a ``legend`` of texts and their colours, or a ``warning`` in white on red.
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
    top, style = 1 - 0.05 / total, {"fontsize": FONT, "weight": "bold", "va": "top"}
    if warning:
        warn(figure, warning)
    for place, (text, color) in enumerate(legend):
        figure.text(0.005 + place / len(legend), top, text, color=color, **style)
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
    corner = {"xycoords": "axes fraction"}
    at = {"textcoords": "offset points", "fontsize": FONT, "va": "baseline"} | corner
    for below, line in enumerate(frame.lines):
        x, y = 14.0 if line.indent else 2.0, -9 - 72 * LINE * below
        if line.person is not None:
            tag = number_plate(axes, line.person, (0, 0), xytext=(x, y), **corner)
            x += tag.get_window_extent().width * points + 7
        for place, (text, look) in enumerate(line.words):
            word = axes.annotate(text, (0, 0), (x, y), **at, **LOOKS[look])
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


def show_person(axes: Axes, picture: np.ndarray, box: np.ndarray, shape: float = 1) -> None:
    """The part of a picture round a box; coordinates stay those of the picture.

    It has ``shape``, width / height, and reaches beyond the picture where it must.
    """
    show_picture(axes, picture)
    size, panel = np.array(picture.shape[1::-1]), np.array([shape, 1])
    corners = np.reshape(box, (2, 2))
    view = 1.08 * ((corners[1] - corners[0]) * size / panel).max() * panel / size
    room = np.maximum(1 - view, 0)
    low = np.where(view > 1, (1 - view) / 2, np.clip(corners.mean(axis=0) - view / 2, 0, room))
    (left, top), (right, bottom) = low, low + view
    axes.set(xlim=(left, right), ylim=(bottom, top), facecolor="#EEEEEE")
    axes.set_box_aspect(1 / shape)


def draw_mark(axes: Axes, mark: Mark) -> None:
    """A box on a dark rim, with its text."""
    x1, y1, x2, y2 = np.clip(mark.box, 0, 1)
    corners = ([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1])
    axes.plot(*corners, color="black", lw=mark.width + 1.1, alpha=0.8)
    axes.plot(*corners, color=mark.color, lw=mark.width, ls=mark.dashes)
    if mark.text:
        corner, offset = ((x1, y2), (1.5, 2)) if mark.bottom else ((x1, y1), (1.5, -7))
        _plate(axes, mark.text, mark.color, corner, xytext=offset)


def number_plate(axes: Axes, person: int, corner: tuple, **at: object) -> Annotation:
    """A person's number on its colour, at ``xytext`` points from a corner."""
    return _plate(axes, str(person + 1), person_color(person), corner, **at)


def _plate(axes: Axes, text: str, color: str, corner: tuple, **at: object) -> Annotation:
    at["bbox"] = {"boxstyle": "square,pad=0.12", "facecolor": color, "edgecolor": "none"}
    return axes.annotate(text, corner, fontsize=6, weight="bold", textcoords="offset points", **at)


def person_color(person: int) -> str:
    """The colour of the person at this place, counted from 0."""
    return PERSON_COLORS[person % len(PERSON_COLORS)]


def person_mark(person: int, box: Sequence[float]) -> Mark:
    """A person's box with its number."""
    return Mark(box, person_color(person), str(person + 1))

"""Contact sheet of a watched video: frames at even distances, who is there and does what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stadlib.own_video.playback import Seen
from stadlib.style import (
    ALARM,
    GREY,
    PERSON_COLORS,
    STYLE,
    WIDTH,
    NotebookFigure,
    closed,
    shortened,
    unrun,
)

ROWS = 3
_LINE, _GAP = 0.13, 0.26  # inches of a caption's line; for a title and between rows
_FONT = 6.5
_MOST = 6  # persons that are described below a picture


def columns(size: tuple[int, int]) -> int:
    """Pictures of this (height, width) side by side."""
    return 3 if size[1] >= size[0] else 4


def contact_sheet(
    pictures: Sequence[tuple[float, np.ndarray, Sequence[Seen]]],
    names: Mapping[int, str],
    warning: str = "",
) -> NotebookFigure:
    """Show pictures with the persons in them; below, what each of them does, with its score.

    Args:
        pictures: seconds, (H, W, 3) uint8, and who is seen there; row by row.
        names: of the actions, by id.
        warning: stands in red above all.
    """
    if not pictures:
        return unrun()
    high, wide = pictures[0][1].shape[:2]
    count = columns((high, wide))
    cell = WIDTH / count
    tall = 0.97 * cell * high / wide
    rows = [pictures[start : start + count] for start in range(0, len(pictures), count)]
    heights = [tall + _GAP + _LINE * _lines(row) for row in rows]
    head = 0.25 if warning else 0.0
    total = sum(heights) + head
    with plt.rc_context({**STYLE, "axes.grid": False, "figure.constrained_layout.use": False}):
        figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, total))
        warn(figure, warning)
        for index, row in enumerate(rows):
            bottom = total - head - sum(heights[:index]) - _GAP + 0.08 - tall
            for column, (second, picture, persons) in enumerate(row):
                box = ((column + 0.015) * cell, bottom, 0.97 * cell, tall)
                axes = figure.add_axes(
                    [a / b for a, b in zip(box, (WIDTH, total) * 2, strict=True)]
                )
                _picture(axes, picture, f"{second:g} s", persons)
                _describe(axes, persons, names)
        return closed(figure)


def warn(figure: Figure, warning: str) -> None:
    """A warning in red across the top of a figure; nothing where there is none."""
    if warning:
        high = figure.get_size_inches()[1]
        plate = {"facecolor": ALARM, "edgecolor": "none", "boxstyle": "square,pad=0.3"}
        where = {"ha": "left", "va": "top", "color": "white", "weight": "bold", "fontsize": 7}
        figure.text(0.008, 1 - 0.05 / high, warning, bbox=plate, **where)


def _lines(row: Sequence[tuple]) -> int:
    """Lines of the longest caption of a row."""
    return max(1, *(min(len(persons), _MOST + 1) for _, _, persons in row))


def _picture(axes: Axes, picture: np.ndarray, title: str, persons: Sequence[Seen]) -> None:
    axes.imshow(picture, interpolation="bicubic", extent=(0, 1, 1, 0), aspect="auto")
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=_FONT, loc="left", pad=2, color=GREY)
    for seen in persons:
        x1, y1, x2, y2 = seen.box
        for line, width in (("black", 2.4), (color_of(seen.number), 1.3)):
            axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=line, lw=width)
        _tag(axes, seen.number, (min(max(x1, 0), 0.94), max(y1, 0)), "data", (1.5, -6.5))


def _describe(axes: Axes, persons: Sequence[Seen], names: Mapping[int, str]) -> None:
    """A line a person below the picture."""
    if not persons:
        _write(axes, (1, -8), "nobody found", GREY)
    for place, seen in enumerate(persons):
        y = -8 - place * _LINE * 72
        if place == _MOST and len(persons) > _MOST + 1:
            _write(axes, (1, y), f"and {len(persons) - place} more", GREY)
            return
        _tag(axes, seen.number, (0, 0), "axes fraction", (1.5, y))
        words = [f"{shortened(names[a])} {s:.2f}".replace(" 0.", " .") for a, s in seen.actions]
        if words:
            _write_fitting(axes, (13, y), words)
        else:
            _write(axes, (13, y), "nothing sure", GREY)


def _write_fitting(axes: Axes, place: tuple[float, float], words: list[str]) -> None:
    """Words in a row, as many as there is room for, the first at least."""
    text = _write(axes, place, "", "black")
    for count in range(len(words), 0, -1):
        text.set_text(", ".join(words[:count]))
        wide = text.get_window_extent().width * 72 / axes.figure.dpi
        if place[0] + wide <= axes.bbox.width * 72 / axes.figure.dpi:
            return


def _write(axes: Axes, place: tuple[float, float], text: str, color: str):
    where = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "baseline"}
    return axes.annotate(text, (0, 0), place, fontsize=_FONT, color=color, **where)


def _tag(
    axes: Axes, number: int, place: tuple[float, float], coords: str, offset: tuple[float, float]
) -> None:
    """A person's number on the person's colour, so many points from a place."""
    box = {"boxstyle": "square,pad=0.12", "facecolor": color_of(number), "edgecolor": "none"}
    where = {"xycoords": coords, "textcoords": "offset points", "bbox": box}
    axes.annotate(str(number), place, offset, fontsize=_FONT - 1, weight="bold", **where)


def color_of(number: int) -> str:
    """A person's colour, the same in every picture."""
    return PERSON_COLORS[(number - 1) % len(PERSON_COLORS)]

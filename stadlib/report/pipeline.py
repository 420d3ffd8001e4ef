"""The pipeline in one figure (the paper's Figure 1), drawn: the README's and notebook 00's."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, FancyBboxPatch, Rectangle

from stadlib.base import published_dir, write_whole
from stadlib.report.frames import sheet
from stadlib.report.style import GREY, PERSON_COLORS, WIDTH, NotebookFigure

SVG = published_dir("pipeline.svg")
_HEIGHT = 3.75  # inches; places are inches from the upper left corner
_INK, _BLOCK, _EDGE = "#333333", "#E3EEF7", "#0072B2"
_BODIES = ((0.18, 0.75), (0.46, 0.7), (0.76, 0.6))  # of persons: middle and height in a picture
_COLORS = PERSON_COLORS[:3]
Place = tuple[float, float]


def pipeline() -> NotebookFigure:
    """Draw the way from a clip to scores: what computes as blue boxes, data as pictures."""
    with sheet(_HEIGHT) as page:
        axes = page.figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH), ylim=(_HEIGHT, 0))
        axes.axis("off")
        _detection(axes)
        _features(axes)
        _relations(axes)
        _sequences(axes)
    return page.figure


def svg() -> str:
    """The figure as text, equal for equal versions of matplotlib."""
    stored = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "stadlib"}):
        pipeline().savefig(stored, format="svg", metadata={"Date": None})
    return stored.getvalue()


def update() -> None:
    """Write the figure that the README shows, ``results/pipeline.svg``."""
    write_whole(SVG, svg())


def _detection(axes: Axes) -> None:
    """The upper row: keyframe, detector, boxes, which go to RoIAlign."""
    _picture(axes, (0.12, 0.3))
    _words(axes, 0.46, 0.12, "keyframe")
    _way(axes, (0.84, 0.53), (1.06, 0.53))
    _block(axes, (1.1, 0.25), 0.9, "person\ndetector", "GFocalV2")
    _way(axes, (2.04, 0.53), (2.22, 0.53))
    _picture(axes, (2.26, 0.3), boxes=True)
    _words(axes, 2.6, 0.12, "boxes: N × 4")
    _way(axes, (2.98, 0.53), (3.62, 0.53), (3.62, 1.29))


def _features(axes: Axes) -> None:
    """The middle row as far as the fused features."""
    for layer in (3, 2, 1, 0):
        _picture(axes, (0.06 + 0.04 * layer, 1.42 - 0.04 * layer))
    _words(axes, 0.46, 1.92, "clip: T × H × W")
    _way(axes, (0.46, 1.26), (0.46, 0.8))
    _way(axes, (0.9, 1.61), (1.06, 1.61))
    _block(axes, (1.1, 1.33), 0.9, "video\nbackbone", "SlowFast, ir-CSN")
    _way(axes, (2.04, 1.61), (2.18, 1.61))
    for layer in (3, 2, 1, 0):
        _grid(axes, (2.22 + 0.04 * layer, 1.42 - 0.04 * layer), (0.68, 0.46), (4, 6), "#9DB7CB")
    _words(axes, 2.62, 1.92, "feature map:\nC × T′ × H′ × W′")
    _way(axes, (3.06, 1.61), (3.2, 1.61))
    _block(axes, (3.24, 1.33), 0.76, "3D\nRoIAlign", "keeps time")
    _way(axes, (4.04, 1.61), (4.18, 1.61))
    _persons(axes, 4.22)
    _words(axes, 4.38, 2.12, "persons:\nN × C × T′ × h × w")
    _way(axes, (4.58, 1.61), (4.72, 1.61))
    _block(axes, (4.76, 1.33), 0.62, "fusion", "")
    _way(axes, (2.62, 2.25), (2.62, 2.52), (5.07, 2.52), (5.07, 1.93))
    _words(axes, 3.5, 2.34, "the scene")


def _relations(axes: Axes) -> None:
    """The head with the memory below it, and the scores."""
    _way(axes, (5.42, 1.61), (5.5, 1.61))
    _block(axes, (5.54, 1.33), 0.72, "relation\nhead", "")
    _words(axes, 5.9, 1.05, "linear,\nS-only, T-only")
    _way(axes, (6.3, 1.61), (6.38, 1.61))
    for person, color in enumerate(_COLORS):
        for place, share in enumerate((0.9, 0.5, 0.25)):
            corner = 6.43, 1.19 + 0.3 * person + 0.075 * place
            axes.add_patch(Rectangle(corner, 0.48 * share, 0.055, color=color, lw=0))
    _words(axes, 6.66, 2.12, "scores:\nN × actions")
    middle, top, bottom = 5.9, 2.78, 3.3
    lid = {"width": 0.8, "height": 0.16, "fc": "white", "ec": _INK, "zorder": 2}
    axes.add_patch(Ellipse((middle, bottom), **lid))
    axes.add_patch(Rectangle((middle - 0.4, top), 0.8, bottom - top, fc="white", lw=0, zorder=2))
    axes.add_patch(Ellipse((middle, top), **lid))
    for x in (middle - 0.4, middle + 0.4):
        axes.plot([x, x], [top, bottom], color=_INK, lw=1)
    for place in range(9):
        corner = middle - 0.3 + 0.22 * (place % 3), 2.9 + 0.15 * (place // 3)
        axes.add_patch(Rectangle(corner, 0.16, 0.1, fc=_COLORS[place % 3], lw=0, zorder=2))
    _way(axes, (middle, 2.68), (middle, 1.93))
    _words(axes, middle, 3.42, "memory bank: persons of\nthe seconds around")


def _sequences(axes: Axes) -> None:
    """Whose features attend to each other in the two relation heads."""
    _heading(
        axes,
        0.1,
        "the relation head S-only",
        "persons attend to each other\nplace by place; time averaged",
    )
    places, moments = [], []
    for person, color in enumerate(_COLORS):
        corner = 0.12 + 0.62 * person, 3.22
        _grid(axes, corner, (0.44, 0.44), (4, 4), color)
        places.append(_cell(axes, corner, (0.11, 0.11), (2, 1)))
        corner = 2.5, 3.22 + 0.155 * person
        _grid(axes, corner, (0.8, 0.13), (1, 4), color)
        moments.append(_cell(axes, corner, (0.2, 0.13), (2, 0)))
    _heading(
        axes,
        2.48,
        "the relation head T-only",
        "persons attend to each other\nmoment by moment; places averaged",
    )
    for points in (places, moments):
        axes.plot(*zip(*points, strict=True), color=_INK, lw=1.4)


def _heading(axes: Axes, left: float, name: str, words: str) -> None:
    axes.text(left, 2.74, name, fontsize=8, weight="bold", va="top")
    axes.text(left, 2.89, words, fontsize=7, va="top", color=GREY)


def _cell(axes: Axes, corner: Place, size: Place, number: tuple[int, int]) -> Place:
    """Darken the cell of a grid at this column and row; returns its middle."""
    x, y = (low + step * place for low, step, place in zip(corner, size, number, strict=True))
    axes.add_patch(Rectangle((x, y), *size, fc=_INK, lw=0, zorder=2))
    return x + size[0] / 2, y + size[1] / 2


def _picture(axes: Axes, corner: Place, boxes: bool = False) -> None:
    """A frame with three persons, perhaps in their boxes."""
    (x, y), wide, high = corner, 0.68, 0.46
    axes.add_patch(Rectangle(corner, wide, high, fc="white", ec=_INK, lw=0.8, zorder=2))
    for (middle, tall), color in zip(_BODIES, _COLORS, strict=True):
        foot, size = y + 0.95 * high, tall * high
        at = x + middle * wide
        axes.plot([at, at], [foot, foot - 0.62 * size], color=color, lw=3.5, solid_capstyle="butt")
        axes.plot([at], [foot - 0.8 * size], "o", color=color, ms=4)
        if boxes:
            low = at - 0.07, foot - 1.1 * size
            axes.add_patch(Rectangle(low, 0.14, 1.13 * size, fill=False, ec=_INK, lw=0.9, zorder=2))


def _persons(axes: Axes, left: float) -> None:
    """The grids of three persons, one behind the other in time."""
    for person, color in enumerate(_COLORS):
        for layer in (2, 1, 0):
            corner = left + 0.04 * layer, 1.24 + 0.3 * person - 0.03 * layer
            _grid(axes, corner, (0.22, 0.22), (4, 4), color)


def _grid(axes: Axes, corner: Place, size: Place, cells: tuple[int, int], color: str) -> None:
    """A grid of so many rows and columns."""
    (x, y), (wide, high) = corner, size
    axes.add_patch(Rectangle(corner, wide, high, fc=color, ec="white", lw=0.6, zorder=2))
    style = {"colors": "white", "lw": 0.4}
    axes.hlines(np.linspace(y, y + high, cells[0] + 1)[1:-1], x, x + wide, **style)
    axes.vlines(np.linspace(x, x + wide, cells[1] + 1)[1:-1], y, y + high, **style)


def _block(axes: Axes, corner: Place, width: float, name: str, words: str) -> None:
    """Something that computes: its name in a box, what it is in the paper below."""
    shape = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch(corner, width, 0.56, shape, fc=_BLOCK, ec=_EDGE, lw=1))
    x, y = corner[0] + width / 2, corner[1]
    axes.text(x, y + 0.28, name, ha="center", va="center", fontsize=8, weight="bold")
    _words(axes, x, y + 0.6, words)


def _words(axes: Axes, x: float, y: float, words: str) -> None:
    axes.text(x, y, words, ha="center", va="top", fontsize=7, color=GREY)


def _way(axes: Axes, *points: Place) -> None:
    """An arrow through points."""
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, color=_INK, lw=1, solid_joinstyle="miter")
    head = {"arrowstyle": "-|>", "color": _INK, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    axes.annotate("", points[-1], points[-2], arrowprops=head)

"""Figures whose panels are placed by hand, in inches from the upper left corner of the margin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text

from stadlib.style import GREY, STYLE, WIDTH, NotebookFigure, closed

MARGIN = 0.06  # inches left free at the left and the right
INNER = WIDTH - 2 * MARGIN
HEAT = "magma"  # colour-blind-safe; dark is weak, bright is strong


class Sheet:
    """An empty figure of the study's width; place panels and text on it.

    Args:
        height: in inches.
    """

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, height))

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes whose upper left corner is so far from the sheet's."""
        bottom = self.height - top - height
        place = ((MARGIN + left) / WIDTH, bottom / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(place)

    def write(self, left: float, top: float, text: str, **style: object) -> Text:
        """Text whose upper left corner is there."""
        place = ((MARGIN + left) / WIDTH, 1 - top / self.height)
        return self.figure.text(*place, text, **{"ha": "left", "va": "top", **style})

    def line(self, points: list[tuple[float, float]], **style: object) -> None:
        """A line through points (left, top), over the panels."""
        lefts, tops = zip(*points, strict=True)
        xs, ys = (MARGIN + np.array(lefts)) / WIDTH, 1 - np.array(tops) / self.height
        self.figure.add_artist(Line2D(xs, ys, transform=self.figure.transFigure, **style))

    def heading(self, top: float, name: str, shape: tuple[int, ...], counts: str) -> None:
        """A tensor's name and shape, and what the numbers of the shape count."""
        words = self.write(0, top, f"{name}: {' × '.join(map(str, shape))}", weight="bold")
        words.set_fontsize(9)
        right = words.get_window_extent().x1 / self.figure.dpi - MARGIN
        self.write(right + 0.12, top + 0.012, counts, color=GREY)


@contextmanager
def sheet(height: float) -> Iterator[Sheet]:
    """A sheet in the study's style, closed at the end; its ``figure`` is what to return."""
    style = {**STYLE, "axes.grid": False, "figure.constrained_layout.use": False}
    with plt.rc_context(style):
        page = Sheet(height)
        yield page
        closed(page.figure)


def heat(axes: Axes, values: np.ndarray, low: float = 0, high: float = 1, cmap: str = HEAT) -> None:
    """A grid of numbers (rows, columns) as colours, cell by cell, without ticks."""
    axes.imshow(values, cmap, vmin=low, vmax=high, interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def strength(features: np.ndarray, axis: int) -> np.ndarray:
    """The length of the vector of all channels, as shares of the largest: 0 to 1."""
    length = np.linalg.norm(features, axis=axis)
    return length / max(float(length.max()), 1e-9)

"""Frames with the persons that are annotated, and the boxes that find them or do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from stadlib.style import GREY, STYLE, WIDTH, NotebookFigure, closed, unrun

_COLUMNS, _GAP, _HEAD = 3, 0.22, 0.2  # pictures side by side; inches for a title, the legend
_KINDS = {  # of a box in a picture: colour, dashes, width, what it means
    "annotated": ("white", "-", 0.8, "─ annotated (white)"),
    "found": ("#56B4E9", "-", 1.5, "━ detected, finds a person"),
    "false": ("#FFB000", (0, (4, 1.5)), 1.5, "━ ━ detected, finds nobody"),
    "missed": ("#FF3B30", (0, (1.5, 1)), 1.8, "▪▪▪ annotated, missed"),
}


@dataclass(frozen=True, eq=False)
class DetectedFrame:
    """A validation frame with G annotated persons and N boxes, the highest score first.

    Attributes:
        title: says which frame it is.
        frame: (H, W, 3) uint8.
        truth: (G, 4), x1 y1 x2 y2 in [0, 1].
        found: (G,) whether a box found the person.
        boxes: (N, 4).
        scores: (N,).
        hits: (N,) whether a box found a person.
    """

    title: str
    frame: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    hits: np.ndarray


def frames(examples: Sequence[DetectedFrame]) -> NotebookFigure:
    """Show frames with their boxes: right ones, wrong ones, and persons who were missed.

    Args:
        examples: the frames, row by row.
    """
    if not examples:
        return unrun()
    cell = WIDTH / _COLUMNS
    high, wide = examples[0].frame.shape[:2]
    tall = 0.97 * cell * high / wide
    rows = -(-len(examples) // _COLUMNS)
    total = _HEAD + rows * (tall + _GAP)
    style = {**STYLE, "axes.grid": False, "figure.constrained_layout.use": False}
    with plt.rc_context(style):
        figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, total))
        for place, (color, _, _, words) in enumerate(_KINDS.values()):
            figure.text(0.005 + 0.25 * place, 1 - 0.14 / total, words, weight="bold", fontsize=7,
                        color=GREY if color == "white" else color)  # fmt: skip
        for number, example in enumerate(examples):
            row, column = divmod(number, _COLUMNS)
            bottom = total - _HEAD - row * (tall + _GAP) - _GAP - tall
            box = (column * cell + 0.015 * cell, bottom, 0.97 * cell, tall)
            axes = figure.add_axes([a / b for a, b in zip(box, (WIDTH, total) * 2, strict=True)])
            _picture(axes, example)
        return closed(figure)


def _picture(axes: Axes, example: DetectedFrame) -> None:
    high, wide = example.frame.shape[:2]
    axes.imshow(example.frame, interpolation="bicubic", extent=(0, 1, 1, 0), aspect=high / wide)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], anchor="NW")
    axes.spines[:].set_visible(False)
    axes.set_title(example.title, fontsize=7, loc="left", pad=2, color=GREY)
    for box, found in zip(example.truth, example.found, strict=True):
        _outline(axes, box, "annotated" if found else "missed")
    for hit in (False, True):  # right boxes above wrong ones
        for number in np.flatnonzero(example.hits == hit):
            score = f"{example.scores[number]:.2f}".lstrip("0")
            _outline(axes, example.boxes[number], "found" if hit else "false", score)


def _outline(axes: Axes, box: np.ndarray, kind: str, text: str = "") -> None:
    """A box on a dark rim; its score inside, at the top if it is right, else at the bottom."""
    (x1, y1, x2, y2), (color, dashes, width, _) = box.clip(0, 1), _KINDS[kind]
    corners = ([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1])
    axes.plot(*corners, color="black", lw=width + 1, alpha=0.6)
    axes.plot(*corners, color=color, lw=width, ls=dashes)
    plate = {"boxstyle": "square,pad=0.1", "facecolor": color, "edgecolor": "none", "alpha": 0.85}
    if text:
        place = ((x1, y1), (1.5, -6.5)) if kind == "found" else ((x1, y2), (1.5, 2))
        axes.annotate(text, *place, textcoords="offset points", fontsize=5.5, bbox=plate)

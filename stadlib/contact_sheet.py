"""Keyframes with their persons, what they do, and what a model says they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from stadlib.person_marks import mark_person, show_picture, tag_person
from stadlib.style import GREY, STYLE, WIDTH, NotebookFigure, closed, short_name, unrun

_LINE = 0.135  # inches of a line of a caption
_GAP = 0.3  # inches for a title, and between a caption and the next row
_FILL = 0.97  # of a cell's width is picture
_FONT = 7


@dataclass(frozen=True)
class Example:
    """A keyframe with N persons.

    Attributes:
        title: says which keyframe it is.
        frame: (H, W, 3) uint8.
        boxes: (N, 4), x1 y1 x2 y2 in [0, 1].
        truths: a person's action ids in the ground truth, N of them.
        scores: a person's score by action id, N of them.
    """

    title: str
    frame: np.ndarray
    boxes: np.ndarray
    truths: Sequence[Sequence[int]]
    scores: Sequence[Mapping[int, float]]


def contact_sheet(examples: Sequence[Example], columns: int = 2, top: int = 4) -> NotebookFigure:
    """Show keyframes with boxes; below, a person's labels and highest scores, hits in bold.

    Args:
        examples: the keyframes, row by row.
        columns: keyframes side by side.
        top: how many scores are written a person.
    """
    if not examples:
        return unrun()
    cell = WIDTH / columns
    rows = [examples[start : start + columns] for start in range(0, len(examples), columns)]
    heights = [max(_height(example, cell) for example in row) for row in rows]
    total = sum(heights)
    style = {**STYLE, "axes.grid": False, "figure.constrained_layout.use": False}
    with plt.rc_context(style):
        figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, total))
        for index, row in enumerate(rows):
            ceiling = total - sum(heights[:index]) - 0.15
            for column, example in enumerate(row):
                width, height = _FILL * cell, _picture(example, cell)
                left, bottom = (column + (1 - _FILL) / 2) * cell, ceiling - height
                axes = figure.add_axes(
                    (left / WIDTH, bottom / total, width / WIDTH, height / total)
                )
                _draw(axes, example)
                _describe(axes, example, top)
        return closed(figure)


def _picture(example: Example, cell: float) -> float:
    """Height in inches of a picture in a cell of this width."""
    return _FILL * cell * example.frame.shape[0] / example.frame.shape[1]


def _height(example: Example, cell: float) -> float:
    """Height in inches of a picture, its title and its caption."""
    return _picture(example, cell) + _GAP + 2 * _LINE * len(example.boxes)


def _draw(axes: Axes, example: Example) -> None:
    show_picture(axes, example.frame)
    axes.set_title(example.title, fontsize=_FONT, loc="left", pad=2, color=GREY)
    for person, box in enumerate(example.boxes):
        mark_person(axes, person, box)


def _describe(axes: Axes, example: Example, top: int) -> None:
    """Two lines a person below the picture: the labels, and the scores in descending order."""
    for person, (truth, scores) in enumerate(zip(example.truths, example.scores, strict=True)):
        y = -9 - 2 * person * _LINE * 72
        tag_person(axes, person, (2, y))
        labels = ", ".join(short_name(action) for action in truth) or "no label"
        _write(axes, (14, y), f"is: {labels}")
        ranked = sorted(scores.items(), key=lambda item: -item[1])[:top]
        words = [
            (action, f"{short_name(action)} {score:.2f}".replace("0.", ".", 1))
            for action, score in ranked
        ]
        _write_row(axes, y - _LINE * 72, words, set(truth))


def _write(axes: Axes, place: tuple[float, float], text: str, **style: str) -> Annotation:
    """Text at so many points right of and above the picture's lower left corner."""
    where = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "baseline"}
    return axes.annotate(text, (0, 0), place, fontsize=_FONT, **where, **style)


def _write_row(axes: Axes, y: float, words: list[tuple[int, str]], truth: set[int]) -> None:
    """Words one after another, those of the ground truth in bold; what does not fit is left out."""
    points = 72 / axes.figure.dpi
    x = 14.0
    for action, word in words:
        style = {"color": "black", "weight": "bold"} if action in truth else {"color": GREY}
        text = _write(axes, (x, y), word, **style)
        width = text.get_window_extent().width * points
        if x + width > axes.bbox.width * points:
            text.remove()
            return
        x += width + 7

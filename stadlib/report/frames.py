"""How pictures show persons: each in a colour and with a number of its own.

Figures whose panels are placed by hand, in inches from the upper left corner of the margin.

Keyframes with their persons, what they do, and what a model says they do.

Frames with the persons that are annotated, and the boxes that find them or do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text

from stadlib.report.style import (
    GREY,
    PERSON_COLORS,
    STYLE,
    WIDTH,
    NotebookFigure,
    closed,
    short_name,
    unrun,
)


def person_color(person: int) -> str:
    """The colour of the person at this place, counted from 0."""
    return PERSON_COLORS[person % len(PERSON_COLORS)]


def show_picture(axes: Axes, frame: np.ndarray, **how: float) -> None:
    """A picture (H, W, 3) without ticks, whose corners are 0 and 1 as those of boxes are."""
    axes.imshow(frame, interpolation="nearest", extent=(0, 1, 1, 0), aspect="auto", **how)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def show_person(axes: Axes, frame: np.ndarray, box: np.ndarray) -> None:
    """The part of a picture around a box, as large as the panel allows; coordinates as above."""
    size = np.array(frame.shape[1::-1])
    corners = box.reshape(2, 2)
    shape = np.array([axes.bbox.width / axes.bbox.height, 1])
    view = 1.08 * ((corners[1] - corners[0]) * size / shape).max() * shape / size
    room = np.maximum(1 - view, 0)
    low = np.where(view > 1, (1 - view) / 2, np.clip(corners.mean(axis=0) - view / 2, 0, room))
    show_picture(axes, frame)
    axes.set(xlim=(low[0], low[0] + view[0]), ylim=(low[1] + view[1], low[1]), facecolor="#EEEEEE")


def mark_person(axes: Axes, person: int, box: Sequence[float]) -> None:
    """A person's box (x1 y1 x2 y2 in [0, 1]) with its number in the upper left corner."""
    x1, y1, x2, y2 = box
    for line, width in (("black", 2.6), (person_color(person), 1.4)):
        axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=line, lw=width)
    corner = (min(max(x1, 0), 0.96), max(y1, 0))
    tag_person(axes, person, (1.5, -7), corner, coords="data")


def tag_person(
    axes: Axes,
    person: int,
    offset: tuple[float, float],
    place: tuple[float, float] = (0, 0),
    *,
    coords: str = "axes fraction",
    size: float = 6,
) -> None:
    """A person's number on the person's colour, so many points from a place."""
    box = {"boxstyle": "square,pad=0.12", "facecolor": person_color(person), "edgecolor": "none"}
    where = {"xycoords": coords, "textcoords": "offset points", "bbox": box}
    axes.annotate(str(person + 1), place, offset, fontsize=size, weight="bold", **where)


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


_LINE = 0.135  # inches of a line of a caption
_GAP_contact_sheet = 0.3  # inches for a title, and between a caption and the next row
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
                width, height = _FILL * cell, _picture_contact_sheet(example, cell)
                left, bottom = (column + (1 - _FILL) / 2) * cell, ceiling - height
                axes = figure.add_axes(
                    (left / WIDTH, bottom / total, width / WIDTH, height / total)
                )
                _draw(axes, example)
                _describe(axes, example, top)
        return closed(figure)


def _picture_contact_sheet(example: Example, cell: float) -> float:
    """Height in inches of a picture in a cell of this width."""
    return _FILL * cell * example.frame.shape[0] / example.frame.shape[1]


def _height(example: Example, cell: float) -> float:
    """Height in inches of a picture, its title and its caption."""
    return (
        _picture_contact_sheet(example, cell) + _GAP_contact_sheet + 2 * _LINE * len(example.boxes)
    )


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


_COLUMNS, _GAP_detected_sheet, _HEAD = (
    3,
    0.22,
    0.2,
)  # pictures side by side; inches for a title, the legend
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
    total = _HEAD + rows * (tall + _GAP_detected_sheet)
    style = {**STYLE, "axes.grid": False, "figure.constrained_layout.use": False}
    with plt.rc_context(style):
        figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, total))
        for place, (color, _, _, words) in enumerate(_KINDS.values()):
            figure.text(0.005 + 0.25 * place, 1 - 0.14 / total, words, weight="bold", fontsize=7,
                        color=GREY if color == "white" else color)  # fmt: skip
        for number, example in enumerate(examples):
            row, column = divmod(number, _COLUMNS)
            bottom = total - _HEAD - row * (tall + _GAP_detected_sheet) - _GAP_detected_sheet - tall
            box = (column * cell + 0.015 * cell, bottom, 0.97 * cell, tall)
            axes = figure.add_axes([a / b for a, b in zip(box, (WIDTH, total) * 2, strict=True)])
            _picture_detected_sheet(axes, example)
        return closed(figure)


def _picture_detected_sheet(axes: Axes, example: DetectedFrame) -> None:
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

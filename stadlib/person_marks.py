"""How pictures show persons: each in a colour and with a number of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from stadlib.style import PERSON_COLORS


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

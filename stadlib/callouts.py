"""Names written beside their points so that they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

_ANGLES = [pi * step / 8 for step in (0, 8, 2, 6, 14, 10, 4, 12, 1, 7, 15, 9, 3, 5, 13, 11)]
_RADII = (5, 9, 14, 20, 28, 38, 50, 64)  # points
_LINE_FROM = 12  # a name farther off than this gets a leader line


def annotate_points(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    names: Sequence[str],
    colors: Sequence[str],
    size: float = 7,
    spans: Sequence[tuple[float, float]] = (),
) -> list[Annotation]:
    """Write each point's name at the nearest free place, crowded points first.

    Call it last: limits and layout must be final. A name for which no place is free takes the
    place that is covered least.

    Args:
        axes: where the points are drawn.
        xs: of the points.
        ys: of the points.
        names: to be written.
        colors: of the names.
        size: of the names, in points.
        spans: the points' intervals (low, high) along y, which the names should not cover either.

    Returns:
        The annotations, in the order of the points.
    """
    figure = axes.figure
    figure.draw_without_rendering()
    dots = axes.transData.transform(np.column_stack([xs, ys]))
    pixels = figure.dpi / 72
    taken = [Bbox.from_bounds(x - 3 * pixels, y - 3 * pixels, *(6 * pixels,) * 2) for x, y in dots]
    taken += [_line(axes, x, *span) for x, span in zip(xs, spans, strict=bool(spans))]
    apart = np.linalg.norm(dots[:, None] - dots[None], axis=-1)
    crowded = np.argsort(np.sort(apart, axis=1)[:, : min(4, len(dots))].sum(axis=1), kind="stable")
    written: dict[int, Annotation] = {}
    for index in crowded:
        text = axes.annotate(
            names[index], (xs[index], ys[index]), (0, 0), textcoords="offset points", fontsize=size
        )
        text.set(color=colors[index], path_effects=[withStroke(linewidth=1.8, foreground="white")])
        extent = text.get_window_extent()
        places = [
            (_box(dots[index], extent, radius * pixels, angle), radius)
            for radius in _RADII
            for angle in _ANGLES
        ]
        box, radius = min(places, key=lambda place: _covered(place[0], taken, axes.bbox))
        taken.append(box)
        _put(text, dots[index], box, pixels)
        if radius > _LINE_FROM:
            _lead(axes, text, dots[index], box, pixels, colors[index])
        written[int(index)] = text
    return [written[index] for index in range(len(names))]


def _box(dot: np.ndarray, extent: Bbox, radius: float, angle: float) -> Bbox:
    """The text's box when it lies at a distance and direction from its point."""
    x = dot[0] + radius * cos(angle) + (cos(angle) - 1) / 2 * extent.width
    y = dot[1] + radius * sin(angle) + (sin(angle) - 1) / 2 * extent.height
    return Bbox.from_bounds(x, y, extent.width, extent.height)


def _line(axes: Axes, x: float, low: float, high: float) -> Bbox:
    """An upright interval as a thin box."""
    ends = axes.transData.transform([(x, low), (x, high)])
    return Bbox([ends[0] - (2, 0), ends[1] + (2, 0)])


def _covered(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> float:
    """Area of a box that is covered or outside the axes; 0 for the first free place wins."""
    overlaps = (Bbox.intersection(box, other) for other in taken)
    covered = sum(overlap.width * overlap.height for overlap in overlaps if overlap)
    within = Bbox.intersection(box, inside)
    outside = box.width * box.height - (within.width * within.height if within else 0)
    return covered + 4 * outside


def _put(text: Annotation, dot: np.ndarray, box: Bbox, pixels: float) -> None:
    text.set_position(((box.x0 - dot[0]) / pixels, (box.y0 - dot[1]) / pixels))
    text.set_verticalalignment("bottom")


def _lead(
    axes: Axes, text: Annotation, dot: np.ndarray, box: Bbox, pixels: float, color: str
) -> None:
    end = (np.clip(dot[0], box.x0, box.x1), np.clip(dot[1], box.y0, box.y1))
    offset = ((end[0] - dot[0]) / pixels, (end[1] - dot[1]) / pixels)
    axes.annotate(
        "",
        text.xy,
        xytext=offset,
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": color, "lw": 0.5, "alpha": 0.6, "shrinkB": 3},
    )

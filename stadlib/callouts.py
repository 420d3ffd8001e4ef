"""Names written beside their points so that they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

# Places round a point, the best first: near before far, right and left before above and below.
_STEPS = np.array([0, 8, 2, 6, 14, 10, 4, 12, 1, 7, 15, 9, 3, 5, 13, 11]) * np.pi / 8
_RADII = np.array([5.0, 9, 14, 20, 28, 38, 50, 64])  # points
_LINE_FROM = 12  # a name farther off than this gets a leader line
_DOT = 3  # half the width of a point's mark, in points


def annotate_points(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    names: Sequence[str],
    *,
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
    axes.figure.draw_without_rendering()
    pixels = axes.figure.dpi / 72
    dots = axes.transData.transform(np.column_stack([xs, ys]))
    taken = [np.concatenate([dot - _DOT * pixels, dot + _DOT * pixels]) for dot in dots]
    for x, span in zip(xs, spans, strict=bool(spans)):
        low, high = axes.transData.transform([(x, end) for end in span])
        taken.append(np.array([low[0] - 2, low[1], high[0] + 2, high[1]]))
    written: dict[int, Annotation] = {}
    for index in _crowded_first(dots):
        at = (xs[index], ys[index])
        text = axes.annotate(names[index], at, (0, 0), textcoords="offset points", fontsize=size)
        text.set(color=colors[index], path_effects=[withStroke(linewidth=1.8, foreground="white")])
        extent = text.get_window_extent()
        places = _places(dots[index], extent.width, extent.height, pixels)
        best = int(np.argmin(_covered(places, np.array(taken), axes.bbox.extents)))
        taken.append(places[best])
        text.set(position=(places[best, :2] - dots[index]) / pixels, va="bottom")
        if _RADII[best // len(_STEPS)] > _LINE_FROM:
            _lead(
                text, (dots[index].clip(places[best, :2], places[best, 2:]) - dots[index]) / pixels
            )
        written[int(index)] = text
    return [written[index] for index in range(len(names))]


def _crowded_first(dots: np.ndarray) -> np.ndarray:
    """Indices of the points by their distance to the three nearest others."""
    apart = np.sort(np.linalg.norm(dots[:, None] - dots[None], axis=-1), axis=1)
    return np.argsort(apart[:, :4].sum(axis=1), kind="stable")


def _places(dot: np.ndarray, width: float, height: float, pixels: float) -> np.ndarray:
    """Boxes (places, 4) x0 y0 x1 y1 of a text round its point, in pixels."""
    size = np.array([width, height])
    ways = np.column_stack([np.cos(_STEPS), np.sin(_STEPS)])
    corners = dot + _RADII[:, None, None] * pixels * ways + (ways - 1) / 2 * size
    corners = corners.reshape(-1, 2)
    return np.concatenate([corners, corners + size], axis=1)


def _covered(places: np.ndarray, taken: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Area of each place that is taken already, or, which is worse, outside the axes."""
    areas = np.prod(places[:, 2:] - places[:, :2], axis=1)
    outside = areas - _overlaps(places, inside[None]).sum(axis=1)
    return np.round(_overlaps(places, taken).sum(axis=1) + 4 * outside, 6)


def _overlaps(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas (places, others) that boxes share."""
    low = np.maximum(places[:, None, :2], others[None, :, :2])
    high = np.minimum(places[:, None, 2:], others[None, :, 2:])
    return np.prod((high - low).clip(0), axis=-1)


def _lead(text: Annotation, offset: np.ndarray) -> None:
    """A thin line from a far name, so many points off, to its point."""
    line = {"arrowstyle": "-", "color": text.get_color(), "lw": 0.5, "alpha": 0.6, "shrinkB": 3}
    where = {"textcoords": "offset points", "arrowprops": line}
    text.axes.annotate("", text.xy, tuple(offset), **where)

"""Names written beside their points so that they cover neither each other nor the points.

A bar a class with its interval: differences in AP, the largest at the top.

Figures of the study, in one style: 7 in wide, colour-blind-safe, direct labels, units.

Every function returns a closed figure, which a notebook shows once, as the value of its cell.
Colours mean AVA's groups of classes throughout, and classes stand in one order: by group, then by
AVA's id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isnan

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from stadlib.data.labels import group
from stadlib.evaluation.diagnosis import KINDS
from stadlib.recipes.experiment import choices
from stadlib.report.scores import GROUPS, SOURCES, by_class, by_group, interval
from stadlib.report.style import (
    COLORS,
    GREY,
    GROUP_NAMES,
    STYLE,
    WIDTH,
    NotebookFigure,
    closed,
    name_groups,
    short_name,
    unrun,
)
from stadlib.study import Record

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


def class_bars(axes: Axes, table: pd.DataFrame, xlabel: str) -> None:
    """Draw them.

    Args:
        axes: where.
        table: by action id, columns ``gain``, ``low``, ``high`` in points.
        xlabel: says what the difference is of.
    """
    table = table.sort_values("gain")
    rows = np.arange(len(table))
    colors = [COLORS[group(action)] for action in table.index]
    axes.barh(rows, table["gain"], color=colors, alpha=0.75, height=0.72)
    axes.hlines(rows, table["low"], table["high"], color="#333333", lw=0.9)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(rows, [short_name(action) for action in table.index])
    for tick, color in zip(axes.get_yticklabels(), colors, strict=True):
        tick.set_color(color)
    axes.set(xlabel=xlabel, ylim=(-0.6, len(table) - 0.4))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def training_curve(log: pd.DataFrame) -> NotebookFigure:
    """Plot the loss of a run and, below it, the learning rate.

    Args:
        log: columns ``iteration``, ``loss``, ``lr``, as in a run's ``log.jsonl``.
    """
    with plt.rc_context(STYLE):
        figure, (upper, lower) = plt.subplots(
            2,
            1,
            FigureClass=NotebookFigure,
            figsize=(WIDTH, 3.2),
            sharex=True,
            height_ratios=(3, 1),
        )
        smooth = log["loss"].ewm(span=max(2, len(log) / 15)).mean()
        upper.plot(log["iteration"], log["loss"], color=COLORS["pose"], alpha=0.3, lw=0.8)
        upper.plot(log["iteration"], smooth, color=COLORS["pose"], lw=1.8)
        upper.set(ylabel="loss (binary cross entropy)", ylim=(0, None))
        end = (log["iteration"].iloc[-1], smooth.iloc[-1])
        upper.annotate(
            f"{end[1]:.3f}", end, (4, 0), textcoords="offset points", va="center", weight="bold"
        )
        lower.plot(log["iteration"], log["lr"], color=GREY, lw=1.4)
        lower.set(ylabel="learning rate", xlabel="iteration", ylim=(0, None))
        return closed(figure)


def ap_by_class(records: Iterable[Record], source: str = "ava+kinetics") -> NotebookFigure:
    """Plot the AP of every class as bars, one a head, with 95 % intervals over seeds."""
    values = _by_head(records, lambda metrics: by_class(metrics, source))
    actions = sorted({action for head in values.values() for action in head})
    if not actions:
        raise ValueError("no record to plot")
    with plt.rc_context(STYLE):
        height = 0.8 + len(actions) * (0.12 + 0.085 * len(values))
        figure, axes = plt.subplots(FigureClass=NotebookFigure, figsize=(WIDTH, height))
        _bars(axes, values, actions, [COLORS[group(action)] for action in actions])
        axes.set_yticks(range(len(actions)), [short_name(action) for action in actions])
        for tick, action in zip(axes.get_yticklabels(), actions, strict=True):
            tick.set_color(COLORS[group(action)])
        axes.set_xlabel(f"AP@0.5 on {SOURCES[source]}, %")
        _name_groups(axes, [group(action) for action in actions])
        return closed(figure)


def ap_by_group(records: Iterable[Record], source: str = "ava+kinetics") -> NotebookFigure:
    """Plot the mean AP of AVA's three groups of classes, one bar a head."""
    values = _by_head(records, lambda metrics: by_group(metrics, source))
    groups = [name for name in GROUPS if any(name in head for head in values.values())]
    if not groups:
        raise ValueError("no record to plot")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            FigureClass=NotebookFigure, figsize=(WIDTH, 0.8 + 0.25 * len(groups) * len(values))
        )
        _bars(axes, values, groups, [COLORS[name] for name in groups])
        axes.set_yticks(range(len(groups)), [GROUP_NAMES[name] for name in groups])
        axes.set_xlabel(f"mAP@0.5 on {SOURCES[source]}, %")
        return closed(figure)


def gain_by_frequency(gains: pd.DataFrame, counts: Mapping[int, int]) -> NotebookFigure:
    """Plot what the relation head gains over linear in each class, against its frequency.

    Args:
        gains: by action id, columns ``gain``, ``low``, ``high`` in points of AP
            (``report.paired_difference(head, by="class")``).
        counts: training instances by action id.
    """
    gains = gains[[counts.get(action, 0) > 0 for action in gains.index]]
    if gains.empty:
        return unrun()
    xs = [counts[action] for action in gains.index]
    colors = [COLORS[group(action)] for action in gains.index]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(FigureClass=NotebookFigure, figsize=(WIDTH, 4.6))
        axes.axhline(0, color="black", lw=0.8)
        axes.vlines(xs, gains["low"], gains["high"], colors=colors, alpha=0.25, lw=2)
        axes.scatter(xs, gains["gain"], c=colors, s=22, zorder=3)
        axes.set(
            xscale="log", xlabel="training instances of the class", ylabel="gain in AP, points"
        )
        axes.margins(x=0.12, y=0.08)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        name_groups(axes)
        names = [short_name(action) for action in gains.index]
        spans = list(zip(gains["low"], gains["high"], strict=True))
        spans = [] if gains["low"].isna().any() else spans
        annotate_points(axes, xs, gains["gain"].tolist(), names, colors=colors, spans=spans)
        return closed(figure)


def class_frequencies(table: pd.DataFrame) -> NotebookFigure:
    """Plot how long-tailed a file is, and the share of draws that show each class, by sampler.

    Args:
        table: ``class_statistics.class_statistics``'s.
    """
    table = table[table["persons"] > 0]
    rows = range(len(table))
    colors = [COLORS[group(action)] for action in table.index]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(
            1,
            2,
            FigureClass=NotebookFigure,
            figsize=(WIDTH, 1.0 + 0.15 * len(table)),
            sharey=True,
        )
        left.barh(rows, table["persons"], color=colors, alpha=0.8)
        left.set(xscale="log", xlabel="persons with the label")
        left.xaxis.set_major_formatter("{x:,.0f}")
        left.set_yticks(rows, [short_name(action) for action in table.index], fontsize=6.5)
        for tick, color in zip(left.get_yticklabels(), colors, strict=True):
            tick.set_color(color)
        for word, color in (("instance", GREY), ("class-balanced", "#000000")):
            right.plot(100 * table[word], rows, "o", ms=3, color=color)
            place = (0.04, 0.965 if word == "instance" else 0.94)
            right.text(*place, f"● {word}", color=color, transform=right.transAxes)
        right.set(
            xscale="log", xlabel="draws that show the class, %", ylim=(len(table) - 0.4, -0.6)
        )
        right.xaxis.set_major_formatter("{x:g}")
        return closed(figure)


def lost_ap(lost: pd.DataFrame) -> NotebookFigure:
    """Plot what AP every class loses to each kind of error, as a coloured table.

    Args:
        lost: ``stadlib.metrics.diagnose``'s table: by action id, gains as fractions.
    """
    lost = lost.sort_index()
    points = 100 * lost[list(KINDS)].astype(float)
    with plt.rc_context(STYLE):
        height = 0.9 + 0.19 * len(points)
        figure, axes = plt.subplots(FigureClass=NotebookFigure, figsize=(WIDTH, height))
        seaborn.heatmap(
            points,
            ax=axes,
            annot=True,
            fmt=".1f",
            annot_kws={"size": 6.5},
            cmap="Blues",
            vmin=0,
            cbar=False,
            linewidths=0.6,
            yticklabels=[short_name(action) for action in points.index],
        )
        for tick, action in zip(axes.get_yticklabels(), points.index, strict=True):
            tick.set_color(COLORS[group(action)])
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set(ylabel="", xlabel="AP that mending this one kind of error would bring, points")
        _name_groups(axes, [group(action) for action in points.index], offset=0.5)
        return closed(figure)


def _by_head(
    records: Iterable[Record], measure: Callable[[dict], dict]
) -> dict[str, dict[object, list[float]]]:
    """Values over seeds by head and by what ``measure`` returns."""
    values: dict[str, dict[object, list[float]]] = {}
    for record in sorted(
        records, key=lambda record: choices("head").index(record.experiment["head"])
    ):
        head = values.setdefault(record.experiment["head"], {})
        for key, value in measure(record.metrics).items():
            head.setdefault(key, []).append(value)
    return values


def _bars(
    axes: Axes,
    values: dict[str, dict[object, list[float]]],
    keys: Sequence[object],
    colors: Sequence[str],
) -> None:
    """Horizontal bars: a row a key from top to bottom, in it a bar a head, the last the darkest."""
    height = 0.8 / len(values)
    for place, (head, rows) in enumerate(values.items()):
        strength = (place + 1) / len(values)
        for row, (key, color) in enumerate(zip(keys, colors, strict=True)):
            mean, half = interval(rows.get(key, ()))
            if isnan(mean):
                continue
            y = row - 0.4 + height * (place + 0.5)
            axes.barh(y, mean, height * 0.92, color=color, alpha=0.25 + 0.6 * strength)
            if not isnan(half):
                axes.errorbar(mean, y, xerr=half, color="#333333", lw=0.8, capsize=0)
            end = mean + (0 if isnan(half) else half)
            label = f"{mean:.0f}" + (f"  {head}" if row == 0 else "")
            axes.annotate(
                label, (end, y), (3, 0), textcoords="offset points", va="center", fontsize=6
            )
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(0, 108), ylim=(len(keys) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)


def _name_groups(axes: Axes, groups: Sequence[str], offset: float = 0.0) -> None:
    """Each group's name at the right of its classes, whose row i stands at i + ``offset``."""
    for name in dict.fromkeys(groups):
        rows = [row for row, other in enumerate(groups) if other == name]
        axes.axhline(rows[0] - 0.5 + offset, color=COLORS[name], lw=0.6)
        place = {
            "x": 1.02,
            "y": (rows[0] + rows[-1]) / 2 + offset,
            "rotation": 270,
            "weight": "bold",
        }
        axes.text(
            s=GROUP_NAMES[name],
            transform=axes.get_yaxis_transform(),
            ha="center",
            va="center",
            color=COLORS[name],
            **place,
        )

"""Each person's actions along the time of a video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from stadlib.data.labels import group
from stadlib.report.style import (
    ALARM,
    COLORS,
    GREY,
    PERSON_COLORS,
    STYLE,
    WIDTH,
    NotebookFigure,
    closed,
    name_groups,
    shortened,
)
from stadlib.video.sightings import SHOWN, Sighting

PERSONS, ACTIONS = 6, 4  # rows at most: persons, and actions of each
BINS = 600  # along the time; more could not be seen
_ROW = 0.17  # inches


@dataclass(eq=False)
class Line:
    """A person: (bins,) whether it is there, and (bins, A) its highest scores; NaN: none."""

    number: int
    there: np.ndarray
    scores: np.ndarray = field(repr=False)


@dataclass(eq=False)
class TimeLine:
    """What the figure shows, however long the video is.

    Attributes:
        lines: the persons seen longest, in the order of their numbers.
        others: how many persons are left out.
        width: seconds of a bin.
        count: of scored seconds.
        every: seconds from one to the next.
    """

    lines: list[Line]
    others: int
    width: float
    every: float


def read_time_line(
    sightings: Callable[[], Iterable[Sighting]], num_actions: int, every: float
) -> TimeLine:
    """Gather it in two passes over the sightings, in memory that does not grow with their number.

    Args:
        sightings: called once a pass.
        num_actions: A.
        every: seconds between sightings.
    """
    seen: Counter[int] = Counter()
    count = 0
    for sighting in sightings():
        seen.update(sighting.numbers)
        count += 1
    group_size = max(1, -(-count // BINS))
    bins = max(1, -(-count // group_size))
    chosen = sorted(number for number, _ in seen.most_common(PERSONS))
    lines = {
        number: Line(number, np.zeros(bins, bool), np.full((bins, num_actions), np.nan))
        for number in chosen
    }
    for place, sighting in enumerate(sightings()):
        for number, scores in zip(sighting.numbers, sighting.actions, strict=True):
            if number in lines:
                line, at = lines[number], place // group_size
                line.there[at] = True
                line.scores[at] = np.fmax(line.scores[at], scores)
    return TimeLine(list(lines.values()), len(seen) - len(lines), group_size * every, every)


def time_line(
    found: TimeLine, ids: Sequence[int], names: Mapping[int, str], warning: str = ""
) -> NotebookFigure:
    """Draw a block of rows a person: when it is there, and its actions, the darker the surer.

    Args:
        found: what to draw.
        ids: of the actions, in the order of the scores.
        names: of the actions.
        warning: stands in red above all.
    """
    rows = [(line, _chosen(line)) for line in found.lines]
    total = sum(1.4 + len(actions) for _, actions in rows) or 2
    head = 0.3 if warning else 0.05
    size = (WIDTH, total * _ROW + 0.75 + head)
    with plt.rc_context({**STYLE, "axes.grid": False, "figure.constrained_layout.use": False}):
        figure = plt.figure(FigureClass=NotebookFigure, figsize=size)
        warn(figure, warning)
        room = (1.6 / WIDTH, 0.42 / size[1], (WIDTH - 1.7) / WIDTH, total * _ROW / size[1])
        axes = figure.add_axes(room, ylim=(total, 0))
        if not rows:
            axes.text(0.5, 0.5, "nobody found", transform=axes.transAxes, ha="center", color=GREY)
            axes.set(yticks=[], xticks=[])
            return closed(figure)
        edges, word = _time_axis(found)
        labels = [label for line, actions in rows for label in _labels(line, actions, ids, names)]
        _draw_blocks(axes, edges, rows, labels)
        axes.set(xlim=(0, edges[-1]), xlabel=word)
        name_groups(axes, apart=0.19)
        if found.others:
            words = f"and {found.others} persons more, seen for less long"
            figure.text(0.99, 0.02, words, ha="right", color=GREY)
        return closed(figure)


def _chosen(line: Line) -> list[int]:
    """Columns of the actions that a person does most, of those that are ever worth showing."""
    highest = np.nanmax(line.scores, axis=0, initial=0.0)
    mean = np.nanmean(line.scores[line.there], axis=0)
    ranked = np.argsort(-mean, kind="stable")
    return [int(column) for column in ranked if highest[column] >= SHOWN][:ACTIONS]


def _time_axis(found: TimeLine) -> tuple[np.ndarray, str]:
    """Ends of the bins, round the seconds that were scored, and their unit."""
    bins = len(found.lines[0].there)
    edges = (np.arange(bins + 1) * found.width - found.every / 2).clip(min=0)
    return (edges / 60, "minutes") if edges[-1] > 600 else (edges, "seconds")


def _labels(
    line: Line, actions: Sequence[int], ids: Sequence[int], names: Mapping[int, str]
) -> list[tuple[str, str]]:
    """Words and colours of a person's rows."""
    own = [(shortened(names[ids[a]]), COLORS[group(ids[a])]) for a in actions]
    return [(f"person {line.number}", "black"), *own]


def _draw_blocks(
    axes: Axes,
    edges: np.ndarray,
    rows: Sequence[tuple[Line, list[int]]],
    labels: Sequence[tuple[str, str]],
) -> None:
    """A block a person: a thin strip while it is there, below it a strip an action."""
    places: list[float] = []
    y = 0.0
    for line, actions in rows:
        there = np.where(line.there, 1.0, np.nan)
        _strip(axes, edges, (y + 0.3, y + 0.7), there, color_of(line.number))
        for below, column in enumerate(actions, 1):
            between = (y + below + 0.06, y + below + 0.94)
            color = labels[len(places) + below][1]
            _strip(axes, edges, between, line.scores[:, column], color)
        places += [y + 0.5 + below for below in range(1 + len(actions))]
        y += 1.4 + len(actions)
    axes.set_yticks(places, [words for words, _ in labels])
    for tick, (words, color) in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set(color=color, weight="bold" if words.startswith("person ") else "normal")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _strip(
    axes: Axes, edges: np.ndarray, between: tuple[float, float], values: np.ndarray, color: str
) -> None:
    """A row of cells from white (0) to a colour (1); NaN leaves none."""
    shades = LinearSegmentedColormap.from_list("shades", ["white", color])
    grid = np.ma.masked_invalid(values[None])
    axes.pcolormesh(edges, between, grid, cmap=shades, vmin=0, vmax=1)


def warn(figure: Figure, warning: str) -> None:
    """A warning in red across the top of a figure; nothing where there is none."""
    if warning:
        high = figure.get_size_inches()[1]
        plate = {"facecolor": ALARM, "edgecolor": "none", "boxstyle": "square,pad=0.3"}
        where = {"ha": "left", "va": "top", "color": "white", "weight": "bold", "fontsize": 7}
        figure.text(0.008, 1 - 0.05 / high, warning, bbox=plate, **where)


def color_of(number: int) -> str:
    """A person's colour, the same in every picture."""
    return PERSON_COLORS[(number - 1) % len(PERSON_COLORS)]

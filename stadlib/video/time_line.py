"""Each person's actions along the time of a video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from stadlib.data.layout import LabelMap
from stadlib.report import style
from stadlib.report.frames import person_color
from stadlib.report.style import GREY, WIDTH, NotebookFigure, shortened
from stadlib.video.sightings import SHOWN, Sighting

PERSONS, ACTIONS = 6, 4  # rows at most: persons, and actions of each
BINS = 600  # along the time; more could not be seen
ROW = 0.17  # inches


def read_scores(
    sightings: Callable[[], Iterable[Sighting]], num_actions: int
) -> tuple[dict[int, np.ndarray], int, int]:
    """Gather the persons seen longest, in two passes and in memory that does not grow.

    Returns their highest scores (bins, A) by number, NaN where the person is absent, how many
    persons are left out, and how many sightings a bin holds.
    """
    seen, count = Counter(), 0
    for sighting in sightings():
        seen.update(sighting.numbers)
        count += 1
    size = max(1, -(-count // BINS))
    chosen = sorted(number for number, _ in seen.most_common(PERSONS))
    scores = {n: np.full((max(1, -(-count // size)), num_actions), np.nan) for n in chosen}
    for place, sighting in enumerate(sightings()):
        for number, row in zip(sighting.numbers, sighting.actions, strict=True):
            if number in scores:
                scores[number][place // size] = np.fmax(scores[number][place // size], row)
    return scores, len(seen) - len(scores), size


@style.in_style
def time_line(
    sightings: Callable[[], Iterable[Sighting]],
    names: Mapping[int, str],
    every: float,
    warning: str = "",
) -> NotebookFigure:
    """Draw a block of rows a person: when it is there, and its actions, darker for higher scores.

    ``sightings`` is called once a pass over them; they are ``every`` so many seconds apart.
    """
    ids, colors = list(names), style.action_colors(LabelMap(dict(names)))
    scores, others, size = read_scores(sightings, len(ids))
    rows = {}  # by person: the actions that it does most, if they are shown at least once
    for number, own in scores.items():
        there = own[~np.isnan(own).all(axis=1)]
        ranked = np.argsort(-there.mean(axis=0), kind="stable")
        rows[number] = [c for c in ranked.tolist() if there[:, c].max() >= SHOWN][:ACTIONS]
    total = sum(1.4 + len(columns) for columns in rows.values()) or 2
    head = 0.3 if warning else 0.05
    high = total * ROW + 0.75 + head
    figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, high), layout="none")
    if warning:
        style.warn(figure, warning)
    room = (1.6 / WIDTH, 0.42 / high, (WIDTH - 1.7) / WIDTH, total * ROW / high)
    axes = figure.add_axes(room, ylim=(total, 0))
    axes.grid(False)
    if not rows:
        axes.text(0.5, 0.5, "no person found", transform=axes.transAxes, ha="center", color=GREY)
        axes.set(yticks=[], xticks=[])
        return figure
    bins = len(next(iter(scores.values())))
    edges = (np.arange(bins + 1) * size * every - every / 2).clip(min=0)  # round what was scored
    edges, unit = (edges / 60, "minutes") if edges[-1] > 600 else (edges, "seconds")
    ticks: list[tuple[float, str, str]] = []  # height, label, colour
    y = 0.0
    for number, columns in rows.items():
        present = np.where(np.isnan(scores[number]).all(axis=1), np.nan, 1.0)
        _strip(axes, edges, (y + 0.3, y + 0.7), present, person_color(number - 1))
        ticks.append((y + 0.5, f"person {number}", "black"))
        for below, column in enumerate(columns, 1):
            color = colors[ids[column]]
            limits = (y + below + 0.06, y + below + 0.94)
            _strip(axes, edges, limits, scores[number][:, column], color)
            ticks.append((y + below + 0.5, shortened(names[ids[column]]), color))
        y += 1.4 + len(columns)
    axes.set_yticks([height for height, _, _ in ticks], [label for _, label, _ in ticks])
    for tick, (_, label, color) in zip(axes.get_yticklabels(), ticks, strict=True):
        tick.set(color=color, weight="bold" if label.startswith("person ") else "normal")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(0, edges[-1]), xlabel=unit)
    style.name_groups(axes, apart=0.19)
    if others:
        text = f"and {others} more people, seen for less long"
        figure.text(0.99, 0.02, text, ha="right", color=GREY)
    return figure


def _strip(
    axes: Axes, edges: np.ndarray, limits: tuple[float, float], values: np.ndarray, color: str
) -> None:
    """A row of cells from white (0) to a colour (1); NaN leaves none."""
    shades = LinearSegmentedColormap.from_list("shades", ["white", color])
    cells = np.ma.masked_invalid(values[None])
    axes.pcolormesh(edges, limits, cells, cmap=shades, vmin=0, vmax=1)

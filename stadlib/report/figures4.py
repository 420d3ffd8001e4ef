"""Figures about person boxes: what better ones bring, which ones are used, who is found and missed.

Colours mean sources (AVA, Kinetics), but for the bars of classes, where they mean AVA's groups.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from stadlib.recipes.experiment import Detections
from stadlib.report.figures import annotate_points, class_bars
from stadlib.report.runs import LOSSES
from stadlib.report.style import (
    COLORS,
    GREY,
    GROUP_NAMES,
    STYLE,
    WIDTH,
    NotebookFigure,
    closed,
    unrun,
)

_SOURCES = {"AVA": "#0072B2", "Kinetics": "#C04A00"}
_USED = Detections().threshold  # in Table 4's rows
_LINE = 9  # points between names at the ends of lines


def curve(ours: pd.DataFrame, paper: pd.DataFrame) -> NotebookFigure:
    """Plot mAP of actions against AP of the person boxes, the paper's numbers and ours apart.

    Args:
        ours: ``detector_report.by_detector``'s table.
        paper: ``detector_report.paper_by_detector``'s.
    """
    panels = {"mini": ours, "paper (AVA-Kinetics)": paper}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, FigureClass=NotebookFigure, figsize=(WIDTH, 3.3))
        for place, (title, table) in zip(axes, panels.items(), strict=True):
            place.set_title(title, fontsize=8, weight="bold")
            place.set(xlabel="AP@0.5 of person boxes, %", ylabel="mAP@0.5 of actions, %")
            _curves(place, table)
        return closed(figure)


def _curves(axes: Axes, table: pd.DataFrame) -> None:
    """A line a source; to ground truth, which no detector reaches, it is dotted."""
    if table.empty:
        axes.text(0.5, 0.5, "not run", color=GREY, ha="center", transform=axes.transAxes)
        return
    table = table.reset_index()
    colors = [_SOURCES[source] for source in table["source"]]
    for source, color in _SOURCES.items():
        own = table[table["source"] == source]
        found = own[own["detector"] != "GT"]
        axes.plot(own["AP"], own["mAP"], color=color, lw=1, ls=":")
        axes.plot(found["AP"], found["mAP"], color=color, lw=1.6)
    axes.vlines(table["AP"], table["low"], table["high"], colors=colors, alpha=0.3, lw=3)
    axes.scatter(table["AP"], table["mAP"], c=colors, s=20, zorder=3)
    axes.margins(0.12)
    last = ~table["source"].duplicated(keep="last")
    names = [
        f"{name}, {source}" if end else name
        for name, source, end in zip(table["detector"], table["source"], last, strict=True)
    ]
    spans = [] if table["low"].isna().any() else list(zip(table["low"], table["high"], strict=True))
    places = table["AP"].tolist(), table["mAP"].tolist()
    annotate_points(axes, *places, names, colors=colors, spans=spans)


def thresholds(table: pd.DataFrame) -> NotebookFigure:
    """Plot recall and precision of v3's boxes against their least score, and mAP below.

    Args:
        table: ``detector_report.by_threshold``'s.
    """
    if table.empty:
        return unrun()
    with plt.rc_context(STYLE):
        figure, (upper, lower) = plt.subplots(
            2, 1, FigureClass=NotebookFigure, figsize=(WIDTH, 4.8), sharex=True
        )
        for axes in (upper, lower):
            axes.axvline(_USED, color=GREY, lw=0.8, ls=":")
        lower.text(_USED, 0.02, " in Table 4", color=GREY, transform=lower.get_xaxis_transform())
        upper.set(ylabel="at IoU 0.5, %")
        lower.set(ylabel="mAP@0.5 of actions, %", xlabel="least score of a used box of v3")
        least = table.index.get_level_values("threshold")
        lower.set_xlim(least.min() - 0.02, least.max() + 0.17)
        _lines(upper, table, {"recall": "-", "precision": "--"})
        _lines(lower, table, {"mAP": "-"})
        return closed(figure)


def _lines(axes: Axes, table: pd.DataFrame, styles: Mapping[str, str]) -> None:
    """A line a source and column, named at its end; with an interval where there is one."""
    ends = []
    for source, color in _SOURCES.items():
        for column, style in styles.items():
            own = table[table.index.get_level_values("source") == source].dropna(subset=column)
            if own.empty:
                continue
            xs = own.index.get_level_values("threshold")
            axes.plot(xs, own[column], style, color=color, marker="o", ms=3, lw=1.4)
            if column == "mAP":
                axes.fill_between(xs, own["low"], own["high"], color=color, alpha=0.13, lw=0)
            name = source if len(styles) == 1 else f"{source}: {column}"
            ends.append((xs[-1], own[column].iloc[-1], name, color))
    if ends:
        _name_ends(axes, ends)
    else:
        axes.text(0.25, 0.5, "not run", color=GREY, ha="center", transform=axes.transAxes)


def _name_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names at the right of lines, pushed up where one would cover the one below."""
    axes.figure.draw_without_rendering()
    pixels = axes.figure.dpi / 72
    free = -np.inf
    for x, y, name, color in sorted(ends, key=lambda end: end[1]):
        height = axes.transData.transform((x, y))[1] / pixels
        free = max(height, free)
        axes.annotate(
            name, (x, y), (6, free - height), textcoords="offset points", color=color,
            va="center", weight="bold",
        )  # fmt: skip
        free += _LINE


def class_losses(table: pd.DataFrame) -> NotebookFigure:
    """Plot the AP that each class loses with detected boxes, sorted, with its interval.

    Args:
        table: ``detector_report.class_losses``'s.
    """
    if table.empty:
        return unrun()
    with plt.rc_context(STYLE):
        height = 0.9 + 0.17 * len(table)
        figure, axes = plt.subplots(FigureClass=NotebookFigure, figsize=(WIDTH, height))
        class_bars(axes, table, "AP@0.5 with ground-truth boxes minus AP@0.5 with v3's, points")
        for row, (name, color) in enumerate(COLORS.items()):  # where the shortest bars leave room
            axes.text(0.99, 0.12 - 0.04 * row, GROUP_NAMES[name], color=color, weight="bold",
                      ha="right", transform=axes.transAxes)  # fmt: skip
        return closed(figure)


def lost(tables: Mapping[str, pd.DataFrame]) -> NotebookFigure:
    """Plot what AP is lost to which kind of error, a panel a source, a bar a kind of boxes.

    Args:
        tables: ``detected_frames.lost``'s by whose boxes they are, the best boxes last.
    """
    if not tables:
        return unrun()
    sources = [name for name in _SOURCES if name in next(iter(tables.values())).index]
    size = 0.8 / len(tables)
    with plt.rc_context(STYLE):
        height = 0.8 + len(LOSSES) * (0.12 + 0.15 * len(tables))
        figure, panels = plt.subplots(
            1, len(sources), FigureClass=NotebookFigure, figsize=(WIDTH, height), sharex=True,
            sharey=True, squeeze=False,
        )  # fmt: skip
        for axes, source in zip(panels[0], sources, strict=True):
            for place, (boxes, table) in enumerate(tables.items()):
                name = "GT" if boxes == "ground-truth" else boxes
                ys = np.arange(len(LOSSES)) - 0.4 + size * (place + 0.5)
                values = table.loc[source, list(LOSSES)]
                shade = 0.25 + 0.6 * (place + 1) / len(tables)
                axes.barh(ys, values, size * 0.9, color=_SOURCES[source], alpha=shade)
                for y, value in zip(ys, values, strict=True):
                    axes.annotate(f"{value:.1f}  {name}", (max(value, 0), y), (3, 0), va="center",
                                  textcoords="offset points", fontsize=6.5)  # fmt: skip
            axes.set_title(source, color=_SOURCES[source], weight="bold", fontsize=8)
            axes.set_xlabel("mAP@0.5 that mending it brings, points")
            axes.set_yticks(range(len(LOSSES)), list(LOSSES))
            axes.set_ylim(len(LOSSES) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False, axis="y")
            axes.margins(x=0.3)
        return closed(figure)

"""Figures about decoupled training: which classes move, how far, and what is learned by heart."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from stadlib.data.labels import group
from stadlib.report.figures import annotate_points, class_bars
from stadlib.report.style import (
    COLORS,
    GREY,
    STYLE,
    WIDTH,
    NotebookFigure,
    closed,
    name_groups,
    short_name,
    unrun,
)

Curves = Mapping[int, tuple[np.ndarray, np.ndarray]]


def before_and_after(changes: pd.DataFrame, counts: Mapping[int, int]) -> NotebookFigure:
    """Plot the AP of every class before (ring) and after (dot) against its training instances.

    Args:
        changes: ``decoupling_report.by_class``'s table.
        counts: training instances by action id.
    """
    changes = changes[[counts.get(action, 0) > 0 for action in changes.index]]
    if changes.empty:
        return unrun()
    xs = [counts[action] for action in changes.index]
    colors = [COLORS[group(action)] for action in changes.index]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(FigureClass=NotebookFigure, figsize=(WIDTH, 4.6))
        axes.vlines(xs, changes["before"], changes["after"], colors=colors, lw=1.4)
        axes.scatter(xs, changes["before"], facecolors="white", edgecolors=colors, s=18, zorder=3)
        axes.scatter(xs, changes["after"], c=colors, s=20, zorder=4)
        axes.set(xscale="log", xlabel="training instances of the class", ylabel="AP@0.5, %")
        axes.margins(x=0.1, y=0.08)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        name_groups(axes)
        axes.text(0.0, 1.02, "○ before   ● after", transform=axes.transAxes, color=GREY)
        names = [short_name(action) for action in changes.index]
        annotate_points(axes, xs, changes["after"].tolist(), names, colors=colors)
        return closed(figure)


def differences(table: pd.DataFrame) -> NotebookFigure:
    """Plot what each class gains, sorted, with its interval.

    Args:
        table: by action id, columns ``gain``, ``low``, ``high`` in points.
    """
    if table.empty:
        return unrun()
    with plt.rc_context(STYLE):
        height = 0.8 + 0.17 * len(table)
        figure, axes = plt.subplots(FigureClass=NotebookFigure, figsize=(WIDTH, height))
        class_bars(axes, table, "difference in AP@0.5, points")
        return closed(figure)


def precision_recall(before: Curves, after: Curves) -> NotebookFigure:
    """Plot precision against recall of a few classes, before in grey and after in black."""
    columns = 3
    lines = -(-len(after) // columns)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            lines, columns, FigureClass=NotebookFigure, figsize=(WIDTH, 0.4 + 1.9 * lines),
            sharex=True, sharey=True, squeeze=False,
        )  # fmt: skip
        for place, axes in enumerate(panels.flat):
            if place >= len(after):
                axes.set_axis_off()
                continue
            action = list(after)[place]
            for curves, color in ((before, "#AAAAAA"), (after, "black")):
                recall, precision = curves[action]
                axes.plot(100 * recall, 100 * precision, color=color, lw=1.1)
            axes.set_title(short_name(action), color=COLORS[group(action)], fontsize=8)
            axes.set(xlim=(0, 100), ylim=(0, 102))
        for axes in panels[-1]:
            axes.set_xlabel("recall, %")
        for axes in panels[:, 0]:
            axes.set_ylabel("precision, %")
        panels[0, 0].text(0.97, 0.9, "after", transform=panels[0, 0].transAxes, ha="right")
        panels[0, 0].text(
            0.97, 0.78, "before", transform=panels[0, 0].transAxes, ha="right", color="#888888"
        )
        return closed(figure)


def overfitting(training: pd.Series, validation: pd.Series) -> NotebookFigure:
    """Plot the change in AP on validation against that on training data, a point a class.

    Below the diagonal a class gains more on what it was trained on than on what it was not; in the
    lower right corner it gains there and loses here, which is overfitting.

    Args:
        training: difference in AP by action id, points.
        validation: the same on validation.
    """
    actions = [action for action in validation.index if not np.isnan(training.get(action, np.nan))]
    xs, ys = training[actions].tolist(), validation[actions].tolist()
    colors = [COLORS[group(action)] for action in actions]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(FigureClass=NotebookFigure, figsize=(WIDTH, 4.6))
        axes.axhline(0, color="black", lw=0.8)
        axes.axvline(0, color="black", lw=0.8)
        axes.axline((0, 0), slope=1, color=GREY, lw=0.8, ls=":")
        axes.scatter(xs, ys, c=colors, s=22, zorder=3)
        axes.set(xlabel="difference on training data, points", ylabel="on validation, points")
        axes.margins(0.12)
        annotate_points(axes, xs, ys, [short_name(action) for action in actions], colors=colors)
        return closed(figure)

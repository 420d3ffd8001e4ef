"""A bar a class with its interval: differences in AP, the largest at the top."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from stadlib.labels import group
from stadlib.style import COLORS, short_name


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

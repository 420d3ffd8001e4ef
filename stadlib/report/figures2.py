"""Figures about memory: how much of it helps, and what a person's attention goes back to."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from stadlib.report.style import GREY, STYLE, WIDTH, NotebookFigure, closed, short_name, unrun
from stadlib.report.tour import Recollection

_SOURCES = {"AVA": "#0072B2", "Kinetics": "#C04A00", "A+K": "#333333"}
_SAME, _OTHER = "#007A5A", "#E69F00"
_PICTURES = 7  # of a time line, at most


def amount(effect: pd.DataFrame, full: tuple[int, int] = (30, 5)) -> NotebookFigure:
    """Plot mAP against the span of memory, and against the persons remembered of a second.

    Args:
        effect: ``memory_report.amount_effect``'s table.
        full: the span and persons that the tables use; each panel varies one of them.
    """
    if effect.empty:
        return unrun()
    table = effect.reset_index()
    nothing = table["span"] == 0
    panels = (
        ("span", "seconds remembered to each side", nothing | (table["persons"] == full[1])),
        ("persons", "persons remembered of a second", nothing | (table["span"] == full[0])),
    )
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 2, FigureClass=NotebookFigure, figsize=(WIDTH, 3.0), sharey=True
        )
        for place, (name, label, chosen) in zip(axes, panels, strict=True):
            _lines(place, table[chosen], name)
            place.set_xlabel(label)
        axes[0].set_ylabel("mAP@0.5, %")
        return closed(figure)


def _lines(axes: Axes, table: pd.DataFrame, name: str) -> None:
    """A line a source over evenly spaced amounts, its name at the end."""
    amounts = sorted(table[name].unique())
    for source, color in _SOURCES.items():
        own = table[table["source"] == source].sort_values(name)
        xs = [amounts.index(value) for value in own[name]]
        axes.plot(xs, own["mAP"], color=color, marker="o", ms=3.5, lw=1.4)
        axes.fill_between(xs, own["low"], own["high"], color=color, alpha=0.13, lw=0)
        if xs:
            end = (xs[-1], own["mAP"].iloc[-1])
            axes.annotate(
                source, end, (6, 0), textcoords="offset points", color=color, va="center",
                weight="bold",
            )  # fmt: skip
    axes.set_xticks(range(len(amounts)), [str(value) for value in amounts])
    axes.set_xlim(-0.2, len(amounts) - 0.35)


def timeline(recollection: Recollection) -> NotebookFigure:
    """Show a movie along time, and how much a person's attention goes to whom in which second."""
    seconds = recollection.seconds
    shown = _shown(seconds)
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, 3.6))
        height, width = recollection.frames[0].shape[:2]
        cell = 0.96 / len(shown)
        tall = cell * WIDTH * height / width / 3.6
        for column, place in enumerate(shown):
            box = (0.02 + column * cell, 0.86 - tall, cell * 0.96, tall)
            _picture(figure.add_axes(box), recollection, place)
        bars = figure.add_axes((0.08, 0.14, 0.9, 0.84 - tall - 0.2))
        _bars(bars, recollection)
        names = ", ".join(short_name(action) for action in recollection.actions)
        figure.text(0.02, 0.95, f"{recollection.title}; the person in green: {names}", color=GREY)
        return closed(figure)


def _shown(seconds: np.ndarray) -> list[int]:
    """Evenly spaced places of the pictures, the keyframe among them."""
    now = int(np.flatnonzero(seconds == 0)[0])
    before = np.linspace(0, now, _PICTURES // 2 + 1).round().astype(int)
    after = np.linspace(now, len(seconds) - 1, _PICTURES // 2 + 1).round().astype(int)
    return sorted({*before.tolist(), *after.tolist()})


def _picture(axes: Axes, recollection: Recollection, place: int) -> None:
    second = recollection.seconds[place]
    axes.imshow(recollection.frames[place], extent=(0, 1, 1, 0), aspect="auto")
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title("now" if second == 0 else f"{second:+d} s", fontsize=7, pad=2, color=GREY)
    boxes, same = recollection.boxes[place], recollection.same[place]
    strongest = max(float(weights.max(initial=0)) for weights in recollection.weights)
    shares = recollection.weights[place] / strongest
    for number, ((x1, y1, x2, y2), own, share) in enumerate(zip(boxes, same, shares, strict=True)):
        color = _SAME if own or (second == 0 and number == recollection.present) else _OTHER
        corners = ([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1])
        axes.plot(*corners, color="black", lw=1.0 + 2.6 * share)
        axes.plot(*corners, color=color, lw=0.6 + 2.2 * share)


def _bars(axes: Axes, recollection: Recollection) -> None:
    """Attention a second: to the person itself below, to others above."""
    own = np.array(
        [w[s].sum() for w, s in zip(recollection.weights, recollection.same, strict=True)]
    )
    whole = np.array([weights.sum() for weights in recollection.weights])
    axes.bar(recollection.seconds, 100 * own, 0.8, color=_SAME)
    axes.bar(recollection.seconds, 100 * (whole - own), 0.8, bottom=100 * own, color=_OTHER)
    axes.set(xlabel="seconds from the keyframe", ylabel="attention, %")
    axes.grid(visible=False, axis="x")
    total = 100 * own.sum()
    axes.text(0.99, 1.02, f"others {100 - total:.0f} %", color=_OTHER, weight="bold", ha="right",
              transform=axes.transAxes)  # fmt: skip
    axes.text(0.86, 1.02, f"the person itself {total:.0f} %", color=_SAME, weight="bold",
              ha="right", transform=axes.transAxes)  # fmt: skip

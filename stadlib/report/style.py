"""The one style of the study's figures: 7 in wide, colour-blind-safe, direct labels, units."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from stadlib.data.layout import AVA_ACTIONS, LabelMap

WIDTH = 7.0  # inches
GREY = "#777777"
ALARM = "#BE141E"  # behind a warning
COLORS = {"pose": "#0072B2", "object": "#C04A00", "person": "#007A5A"}  # AVA's groups of classes
OTHER = "#5B4B8A"  # of actions that are not AVA's
GROUP_NAMES = {"pose": "pose", "object": "person-object", "person": "person-person"}
PERSON_COLORS = ("#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#2BB58A", "#FF7F50")
_STYLE = Path(__file__).with_name("study.mplstyle")


def short_name(action_id: int) -> str:
    """AVA's name without its examples: ``talk to``, ``watch a person``, ``watch``."""
    return shortened(AVA_ACTIONS[action_id])


def action_colors(labels: LabelMap) -> dict[int, str]:
    """The colours of a map's actions by id: those of AVA's groups, or one for all others."""
    return {action: COLORS.get(labels.group(action), OTHER) for action in labels.ids}


def shortened(name: str) -> str:
    """The same of a name in AVA's manner."""
    name = re.sub(r"\((an?other|a) person\)", r"\1 person", name)
    return " ".join(re.sub(r"\([^)]*\)", "", name).split())


class NotebookFigure(Figure):
    """A figure that a notebook stores with 256 colours: a third of the bytes, no visible loss."""

    def png(self) -> bytes:
        """The picture as a notebook stores it."""
        drawn, stored = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png")
        image = Image.open(drawn).convert("RGB")
        few = image.quantize(256, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
        few.save(stored, format="png", optimize=True)
        return stored.getvalue()


def in_style(draw: Callable[..., NotebookFigure]) -> Callable[..., NotebookFigure]:
    """Draw in the study's style, and close the figure, so that a notebook shows it only once."""

    @wraps(draw)
    def styled(*args: object, **kwargs: object) -> NotebookFigure:
        with plt.style.context(_STYLE):
            figure = draw(*args, **kwargs)
        plt.close(figure)
        if (ipython := sys.modules.get("IPython")) and (shell := ipython.get_ipython()):
            # Matplotlib's printer is registered for every Figure; a subclass's comes before it.
            formatter = shell.display_formatter.formatters["image/png"]
            formatter.for_type(NotebookFigure, NotebookFigure.png)
        return figure

    return styled


def panels(height: float, rows: int = 1, columns: int = 1, **options: object) -> tuple:
    """A figure of the study's width, ``height`` in inches, and its axes (as pyplot does)."""
    size = (WIDTH, height)
    return plt.subplots(rows, columns, FigureClass=NotebookFigure, figsize=size, **options)


def name_groups(axes: Axes, apart: float = 0.15) -> None:
    """The groups of classes in their colours, above a plot at the right, ``apart`` widths apart."""
    for place, (name, color) in enumerate(COLORS.items()):
        style = {"transform": axes.transAxes, "ha": "right", "weight": "bold", "color": color}
        axes.text(1 - (2 - place) * apart, 1.02, GROUP_NAMES[name], **style)


def warn(figure: Figure, text: str) -> None:
    """Write a warning in white on red at a figure's top."""
    red = {"facecolor": ALARM, "edgecolor": "none", "boxstyle": "square,pad=0.3"}
    look = {"color": "white", "weight": "bold", "fontsize": 7, "va": "top", "bbox": red}
    figure.text(0.008, 1 - 0.05 / figure.get_figheight(), text, **look)


@in_style
def unrun() -> NotebookFigure:
    """A figure in the place of one whose numbers nobody has measured yet."""
    figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, 0.5))
    figure.text(0.5, 0.5, "not run", color=GREY, ha="center", va="center")
    return figure

"""What a reader of a figure sees: its texts, in their places; and records to draw."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.text import Text

from stadlib.recipes.experiment import Experiment
from stadlib.report.style import NotebookFigure
from stadlib.study import Record


def make_record(experiment: Experiment, metrics: dict, provenance: dict, folder: Path) -> Record:
    """A record that equals what will be read from its JSON."""
    content, metrics = json.loads(json.dumps([experiment.to_dict(), metrics]))
    return Record(content, experiment.digest, experiment.scale, metrics, provenance, folder)


def texts(figure: NotebookFigure) -> list[Text]:
    """All that is written in a figure and seen."""
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def words(figure: NotebookFigure) -> set[str]:
    return {text.get_text() for text in texts(figure)}


def require_readable(figure: NotebookFigure, *, most_bytes: int = 60_000) -> None:
    """It is 7 in wide, closed, drawn on, of few bytes (a notebook has 400 KB), and not cropped."""
    assert figure.get_figwidth() == 7
    assert not plt.get_fignums()
    assert 1_000 < len(figure.png()) < most_bytes
    tight, canvas = figure.get_tightbbox(), figure.bbox
    assert tight.x0 >= -0.01 and tight.y0 >= -0.01
    assert tight.x1 <= 7.01 and tight.y1 <= figure.get_figheight() + 0.01
    for text in [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]:
        box = text.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= canvas.x1 + 1
        assert inside and box.y1 <= canvas.y1 + 1, f"{text.get_text()!r} is cut off"


def require_apart(found: list[Text], least: float = 1) -> None:
    """No text covers another one by so many pixels in both directions."""
    boxes = [(text, text.get_window_extent()) for text in found]
    for (one, a), (other, b) in combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(wide, high) <= least, f"{one.get_text()!r} lies on {other.get_text()!r}"

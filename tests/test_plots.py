"""Figures: complete, labelled with units, legible, and closed after they are drawn."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from stadlib.data import labels
from stadlib.report import figures, frames, scores
from stadlib.report.figures import annotate_points
from stadlib.report.style import COLORS, NotebookFigure, short_name

ACTIONS = (1, 5, 8, 11, 12, 14, 15, 17, 27, 29, 36, 47, 48, 57, 61, 64, 65, 69, 74, 78, 79, 80)
SOURCES = ("ava", "kinetics", "ava+kinetics")


@pytest.fixture(autouse=True)
def agg() -> Iterator[None]:
    mpl.use("agg")
    yield
    plt.close("all")


def record(head: str, seed: int) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    ap = {str(a): (20 + a % 60 + 4 * (head != "linear") + rng.normal()) / 100 for a in ACTIONS}
    metrics = {source: {"mAP": 0.5, "AP": {**ap, "3": None}} for source in SOURCES}
    experiment = {"head": head, "seed": seed}
    return SimpleNamespace(experiment=experiment, scale="mini", metrics=metrics)


RECORDS = [record(head, seed) for head in ("t-only", "linear") for seed in range(4)]


def texts(figure: NotebookFigure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def words(figure: NotebookFigure) -> set[str]:
    figure.canvas.draw()
    return {text.get_text() for text in texts(figure)}


def picture(figure: NotebookFigure) -> np.ndarray:
    png = figure.png()
    assert len(png) < 60_000  # a notebook has 400 KB
    return imread(io.BytesIO(png))


def assert_inside(figure: NotebookFigure) -> None:
    """No text leaves the figure, and the whole is 7 in wide."""
    assert figure.get_figwidth() == 7
    assert not plt.get_fignums()
    pixels = picture(figure)
    ink = (pixels[..., :3] < 0.9).any(axis=2)
    assert 0.003 < ink.mean() < 0.99
    for text in texts(figure):
        box = text.get_window_extent()
        if text.get_window_extent().width and text.axes:
            assert box.x0 >= -1 and box.y0 >= -1, text
            assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text


def assert_apart(labels: list[Text]) -> None:
    boxes = [text.get_window_extent() for text in labels]
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            x = min(one.x1, other.x1) - max(one.x0, other.x0)
            y = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert x <= 1 or y <= 1, (one, other)


def test_short_names_stay_distinct() -> None:
    assert short_name(80) == "watch a person"
    assert short_name(65) == "give/serve to a person"
    assert len({short_name(action) for action in labels.AVA_ACTIONS}) == 60


def test_training_curve_has_loss_and_rate() -> None:
    steps = np.arange(0, 500, 5)
    log = pd.DataFrame({"iteration": steps, "loss": 0.1 + np.exp(-steps / 90), "lr": 0.01})
    figure = figures.training_curve(log)
    assert_inside(figure)
    upper, lower = figure.axes
    assert "loss" in upper.get_ylabel() and lower.get_ylabel() == "learning rate"
    assert lower.get_xlabel() == "iteration"
    raw, smooth = upper.get_lines()
    assert raw.get_alpha() < 0.5 and len(smooth.get_ydata()) == len(log)


def test_training_curve_of_a_single_line() -> None:
    log = pd.DataFrame({"iteration": [0], "loss": [0.7], "lr": [0.01]})
    assert_inside(figures.training_curve(log))


def test_every_class_has_a_bar_a_head_and_an_interval() -> None:
    figure = figures.ap_by_class(RECORDS)
    assert_inside(figure)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [short_name(a) for a in ACTIONS]
    assert len(axes.patches) == 2 * len(ACTIONS)
    assert len(axes.collections) == 2 * len(ACTIONS)
    assert {"pose", "person-object", "person-person"} <= words(figure)
    assert {"linear", "t-only"} <= {word.split()[-1] for word in words(figure)}
    assert axes.get_xlabel() == "AP@0.5 on A+K, %"
    assert_apart(axes.get_yticklabels())
    widths = [bar.get_width() for bar in axes.patches[: len(ACTIONS)]]  # linear is drawn first
    expected = [
        np.mean([100 * r.metrics["ava"]["AP"][str(a)] for r in RECORDS[4:]]) for a in ACTIONS
    ]
    assert widths == pytest.approx(expected)


def test_one_seed_has_no_interval() -> None:
    figure = figures.ap_by_class(RECORDS[:1])
    assert_inside(figure)
    assert len(figure.axes[0].patches) == len(ACTIONS)
    assert not figure.axes[0].collections


def test_groups() -> None:
    figure = figures.ap_by_group(RECORDS, source="kinetics")
    assert_inside(figure)
    assert len(figure.axes[0].patches) == 6
    assert figure.axes[0].get_xlabel() == "mAP@0.5 on Kinetics, %"


def test_nothing_to_plot_is_said() -> None:
    with pytest.raises(ValueError, match="no record to plot"):
        figures.ap_by_class([])


def test_gain_against_frequency_names_every_class_once() -> None:
    gains = scores.paired_difference(RECORDS, "t-only", by="class")
    counts = {action: 20 * 2 ** (index % 9) for index, action in enumerate(ACTIONS)}
    figure = figures.gain_by_frequency(gains, counts)
    assert_inside(figure)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel().endswith("points") and "instances" in axes.get_xlabel()
    names = [short_name(action) for action in ACTIONS]
    written = [text for text in axes.texts if text.get_text() in names]
    assert sorted(text.get_text() for text in written) == sorted(names)
    assert_apart(written)
    colors = {text.get_text(): text.get_color() for text in written}
    assert colors["watch a person"] == COLORS["person"] and colors["sit"] == COLORS["pose"]


def test_gain_of_one_seed_and_unseen_classes() -> None:
    pair = [RECORDS[0], RECORDS[4]]
    gains = scores.paired_difference(pair, "t-only", by="class")
    assert gains["low"].isna().all()
    figure = figures.gain_by_frequency(gains, {80: 10, 12: 4000})
    assert_inside(figure)
    assert {"watch a person", "stand"} <= words(figure)
    assert "sit" not in words(figure)


def test_crowded_names_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=(2, 25))
    figure, axes = plt.subplots(figsize=(7, 5))
    axes.scatter(xs, ys)
    names = [f"class number {index}" for index in range(25)]
    labels = annotate_points(axes, xs, ys, names, colors=["black"] * 25)
    plt.close(figure)
    assert [label.get_text() for label in labels] == names
    assert_apart(labels)
    for label in labels:
        box = label.get_window_extent()
        assert box.x0 >= axes.bbox.x0 - 1 and box.x1 <= axes.bbox.x1 + 1


def example(persons: int, height: int = 80) -> frames.Example:
    shade = np.linspace(60, 200, 120).astype(np.uint8)
    boxes = [(0.05 + 0.18 * i, 0.2, 0.2 + 0.18 * i, 0.95) for i in range(persons)]
    return frames.Example(
        title=f"ava: movie{persons}, 905 s",
        frame=np.broadcast_to(shade[:, None], (height, 120, 3)),
        boxes=np.array(boxes).reshape(-1, 4),
        truths=[[12, 80]] * persons,
        scores=[{12: 0.91, 80: 0.42, 79: 0.63, 57: 0.2, 65: 0.11}] * persons,
    )


def test_contact_sheet_shows_boxes_labels_and_scores() -> None:
    figure = frames.contact_sheet([example(3), example(1, height=90), example(5), example(0)])
    assert_inside(figure)
    assert len(figure.axes) == 4
    assert [len(axes.get_lines()) for axes in figure.axes] == [6, 2, 10, 0]
    first = figure.axes[0]
    captions = [text for text in first.texts if text.get_text() == "is: stand, watch a person"]
    assert len(captions) == 3
    bold = {text.get_text() for text in first.texts if text.get_weight() == "bold"}
    assert {"stand .91", "watch a person .42"} <= bold
    assert "talk to .63" in words(figure) - bold
    written = [text for axes in figure.axes for text in axes.texts if len(text.get_text()) > 1]
    assert_apart(written)


def test_lost_ap_shows_every_class_and_every_kind():
    rng = np.random.default_rng(0)
    kinds = ("missed", "box", "label", "duplicate", "background")
    lost = pd.DataFrame(rng.random((len(ACTIONS), 5)) / 3, index=ACTIONS, columns=kinds)
    lost.loc[80, "missed"] = np.nan
    figure = figures.lost_ap(lost)
    shown = words(figure)
    assert {*kinds, *map(short_name, ACTIONS), f"{100 * lost.loc[12, 'box']:.1f}"} <= shown
    assert_inside(figure)
    picture(figure)

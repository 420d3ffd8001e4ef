"""Figures of the tables' notebooks: values, order and names as a reader sees them."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from reading import require_apart, require_readable, words

from stadlib.data.layout import AVA_ACTIONS
from stadlib.report import figures, scores, tables
from stadlib.report.style import COLORS, short_name

ACTIONS = (1, 5, 8, 11, 12, 14, 15, 17, 27, 29, 36, 47, 48, 57, 61, 64, 65, 69, 74, 78, 79, 80)
NAMES = [short_name(action) for action in ACTIONS]
GROUPS = {"pose", "person-object", "person-person"}
COUNTS = {action: 20 * 2 ** (index % 9) for index, action in enumerate(ACTIONS)}


def record(head: str, seed: int) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    ap = {str(a): (20 + a % 60 + 4 * (head != "linear") + rng.normal()) / 100 for a in ACTIONS}
    metrics = {
        s: {"mAP": 0.5, "AP": {**ap, "3": None}} for s in ("ava", "kinetics", "ava+kinetics")
    }
    experiment = {"head": head, "seed": seed}
    return SimpleNamespace(experiment=experiment, scale="mini", metrics=metrics)


RECORDS = [record(head, seed) for head in ("t-only", "linear") for seed in range(4)]


def rows(axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def widths(axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches]


def points(axes) -> list[tuple[float, float]]:
    dots = [drawn for drawn in axes.collections if isinstance(drawn, PathCollection)]
    return [tuple(point) for drawn in dots for point in drawn.get_offsets()]


def gains(values: np.ndarray, actions=ACTIONS) -> pd.DataFrame:
    columns = {"gain": values, "low": values - 1, "high": values + 1}
    return pd.DataFrame(columns, index=pd.Index(actions, name="action_id"))


def maps(values: np.ndarray, *levels, names: list[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(levels, names=names)
    return pd.DataFrame({"mAP": values, "low": values - 1, "high": values + 1}, index)


def test_short_names_stay_distinct():
    assert short_name(80) == "watch a person"
    assert short_name(65) == "give/serve to a person"
    assert len({short_name(action) for action in AVA_ACTIONS}) == 60


@pytest.mark.parametrize("count", [1, 100])
def test_training_curve_ends_at_the_last_loss(count):
    steps = np.arange(0, 5 * count, 5)
    log = pd.DataFrame({"iteration": steps, "loss": 0.1 + np.exp(-steps / 90), "lr": 0.01})
    figure = figures.training_curve(log, [log.assign(loss=1.0)])
    require_readable(figure)
    upper, lower = figure.axes
    assert "loss" in upper.get_ylabel() and lower.get_ylabel() == "learning rate"
    assert lower.get_xlabel() == "iteration"
    *committed, raw, smooth = upper.get_lines()
    assert [set(line.get_ydata()) for line in committed] == [{1.0}] * 2
    assert raw.get_ydata().tolist() == log["loss"].tolist()
    assert f"{smooth.get_ydata()[-1]:.3f}" in words(figure)


def test_every_class_has_a_bar_a_head_and_an_interval():
    figure = figures.ap_by_class(RECORDS)
    require_readable(figure)
    (axes,) = figure.axes
    assert rows(axes) == NAMES
    assert {*GROUPS, "AP@0.5 on A+K, %"} <= words(figure)
    require_apart(axes.get_yticklabels())
    for place, heads in enumerate((RECORDS[4:], RECORDS[:4])):  # linear is drawn first
        bars = widths(axes)[place * len(ACTIONS) :][: len(ACTIONS)]
        aps = [[100 * r.metrics["ava"]["AP"][str(a)] for r in heads] for a in ACTIONS]
        assert bars == pytest.approx([np.mean(values) for values in aps])
        assert f"{bars[0]:.0f}  {('linear', 't-only')[place]}" in words(figure)
        (low, _), (high, _) = axes.collections[place].get_segments()[0]
        assert (high - low) / 2 == pytest.approx(scores.interval(aps[0])[1])


def test_gain_against_frequency_names_every_class_once():
    table = scores.gain_of_pairs(scores.paired_by_seed(RECORDS[:4], RECORDS[4:]), "class")
    figure = figures.gain_by_frequency(table, COUNTS)
    require_readable(figure)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel().endswith("points") and "instances" in axes.get_xlabel()
    assert points(axes) == [(COUNTS[a], table.loc[a, "gain"]) for a in ACTIONS]
    written = [text for text in axes.texts if text.get_text() in NAMES]
    assert sorted(text.get_text() for text in written) == sorted(NAMES)
    require_apart(written)
    colors = {text.get_text(): text.get_color() for text in written}
    assert colors["watch a person"] == COLORS["person"] and colors["sit"] == COLORS["pose"]


def test_one_seed_has_no_interval():
    figure = figures.ap_by_class(RECORDS[:1])
    require_readable(figure)
    for (low, _), (high, _) in figure.axes[0].collections[0].get_segments():
        assert low == high
    table = scores.gain_of_pairs([(0, RECORDS[0], RECORDS[4])], "class")
    assert table["low"].isna().all()
    figure = figures.gain_by_frequency(table, {80: 10, 12: 4000})
    require_readable(figure)
    assert {"watch a person", "stand"} <= words(figure) and "sit" not in words(figure)


def test_memory_amount_draws_what_was_run():
    names, sources = ["span", "persons", "source"], ("AVA", "Kinetics", "A+K")
    heights = {(0, 0): 40, (5, 5): 44, (30, 5): 46, (30, 1): 43}
    parts = [
        maps(np.full(3, height), [span], [persons], sources, names=names)
        for (span, persons), height in heights.items()
    ]
    figure = figures.memory_amount(pd.concat(parts))
    require_readable(figure)
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0", "5", "30"]
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["0", "1", "5"]
    assert left.lines[0].get_ydata().tolist() == [40, 44, 46]
    assert right.lines[0].get_ydata().tolist() == [40, 43, 46]
    assert {text.get_text() for text in left.texts} == {"AVA", "Kinetics", "A+K"}
    require_apart(left.texts)


def test_before_and_after_joins_both_dots():
    before = np.linspace(10, 60, len(ACTIONS))
    changes = gains(before).assign(before=before, after=before + 5)
    figure = figures.before_and_after(changes, COUNTS)
    require_readable(figure)
    xs = [COUNTS[action] for action in ACTIONS]
    ends = [*zip(xs, before, strict=True), *zip(xs, before + 5, strict=True)]
    assert points(figure.axes[0]) == ends
    assert {*NAMES, *GROUPS, "AP@0.5, %"} <= words(figure)


def test_class_differences_are_sorted_and_named():
    table = gains(np.array([5, -1, 2]), (12, 17, 80))
    figure = figures.class_differences(table, "theirs minus ours, points")
    require_readable(figure)
    (axes,) = figure.axes
    assert widths(axes) == [5, 2, -1]
    assert rows(axes) == ["stand", "watch a person", "carry/hold"]
    assert axes.yaxis_inverted()  # the largest stands at the top
    assert {*GROUPS, "theirs minus ours, points"} <= words(figure)
    segments = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()]
    assert segments == [[4, 6], [1, 3], [-2, 0]]


def test_precision_recall_has_a_panel_a_class():
    recall, after, before = np.array([0.5, 1]), np.array([1, 0.6]), np.array([0.5, 0.3])
    curves = [dict.fromkeys((12, 14, 79, 80), (recall, ys)) for ys in (before, after)]
    figure = figures.precision_recall(*curves)
    require_readable(figure)
    shown = figure.axes[:4]
    assert [axes.get_title() for axes in shown] == ["stand", "walk", "talk to", "watch a person"]
    for axes in shown:
        assert [line.get_ydata().tolist() for line in axes.lines] == [[50, 30], [100, 60]]
    assert {"recall, %", "precision, %", "before", "after"} <= words(figure)


def test_overfitting_shows_classes_that_both_know():
    validation = gains(np.linspace(-5, 5, len(ACTIONS)))["gain"]
    training = (validation + 1).drop(80).rename_axis("action_id")
    figure = figures.overfitting(training, validation)
    require_readable(figure)
    shown = [action for action in ACTIONS if action != 80]
    assert points(figure.axes[0]) == [(training[a], validation[a]) for a in shown]
    assert "watch a person" not in words(figure) and "talk to" in words(figure)


def by_detector(names: list[str]) -> pd.DataFrame:
    heights = np.linspace(30, 40, 2 * len(names))
    table = maps(heights, ["AVA", "Kinetics"], names, names=["source", "detector"])
    return table.assign(AP=[90.0, 95, 96, 100][-len(names) :] * 2)


def test_detector_curve_names_every_point_and_its_source_in_both_panels():
    ours, paper = by_detector(["v1", "v2", "v3", "GT"]), tables.paper_by_detector()
    figure = figures.detector_curve(ours, paper)
    require_readable(figure)
    assert [axes.get_title() for axes in figure.axes] == ["mini", "paper (AVA-Kinetics)"]
    for axes, table in zip(figure.axes, (ours, paper), strict=True):
        names = [text.get_text() for text in axes.texts if text.get_text()]
        assert sorted(names) == sorted(2 * ["v1", "v2", "v3"] + ["GT, AVA", "GT, Kinetics"])
        assert points(axes) == [tuple(row) for row in table[["AP", "mAP"]].to_numpy()]
        assert axes.get_ylabel() == "mAP@0.5 of actions, %"
    assert {"v3, AVA", "v3, Kinetics"} <= words(figures.detector_curve(by_detector(["v3"]), paper))
    nothing = figures.detector_curve(ours[:0], paper)
    assert "not run" in [text.get_text() for text in nothing.axes[0].texts]
    assert len(points(nothing.axes[1])) == 8


@pytest.fixture
def thresholds() -> pd.DataFrame:
    falling, names = np.linspace(90, 20, 6), ["source", "threshold"]
    table = maps(falling / 3, ["AVA", "Kinetics"], [0.2, 0.35, 0.5], names=names)
    return table.assign(recall=falling, precision=100 - falling)


def test_thresholds_share_their_axis_and_name_their_lines_apart(thresholds):
    thresholds.loc[("Kinetics", 0.5), "mAP"] = thresholds.loc[("AVA", 0.5), "mAP"]
    figure = figures.box_thresholds(thresholds)
    require_readable(figure)
    upper, lower = figure.axes
    assert upper.get_xlim() == lower.get_xlim()
    named = {"AVA: recall", "AVA: precision", "Kinetics: recall", "Kinetics: precision"}
    assert named == {text.get_text() for text in upper.texts}
    assert {"AVA", "Kinetics", " where they meet"} == {text.get_text() for text in lower.texts}
    require_apart(lower.texts)
    drawn = [line.get_ydata().tolist() for line in lower.lines if len(line.get_ydata()) == 3]
    assert drawn == [thresholds.loc[name, "mAP"].tolist() for name in ("AVA", "Kinetics")]


def test_thresholds_without_rows_or_boxes(thresholds):
    without = figures.box_thresholds(thresholds.assign(mAP=np.nan, low=np.nan, high=np.nan))
    assert {"not run", "AVA: recall"} <= words(without)
    without = figures.box_thresholds(thresholds.assign(recall=np.nan, precision=np.nan))
    assert {"not run", "AVA"} <= words(without)
    thresholds.loc[("AVA", 0.5), "precision"] = np.nan  # no box scores as much
    require_readable(figures.box_thresholds(thresholds))


def test_lost_ap_has_a_bar_a_kind_of_boxes():
    kinds = ["missed persons", "imprecise boxes", "false boxes", "wrong labels"]

    def lost(missed: float) -> pd.DataFrame:
        table = [[missed, 2.0, 1.0, 30.0], [missed + 1, 3.0, 0.5, 20.0]]
        return pd.DataFrame(table, index=["AVA", "Kinetics"], columns=kinds)

    figure = figures.lost_ap({"v3": lost(7), "ground-truth": lost(0)})
    require_readable(figure)
    for axes, source, missed in zip(figure.axes, ("AVA", "Kinetics"), (7, 8), strict=True):
        assert axes.get_title() == source
        assert widths(axes) == [*lost(7).loc[source], *lost(0).loc[source]]
        values = [text.get_text() for text in axes.texts]
        assert values[0] == f"{missed:.1f}  v3"
        assert sum(bool(re.fullmatch(r"\d+\.\d  GT", value)) for value in values) == 4
    assert rows(figure.axes[0]) == kinds


def test_class_frequencies_show_classes_that_occur():
    shares = np.linspace(0.9, 0.01, len(ACTIONS))
    columns = {"persons": [*COUNTS.values()], "instance": shares, "class-balanced": shares / 2}
    table = pd.DataFrame(columns, index=ACTIONS).assign(name=[AVA_ACTIONS[a] for a in ACTIONS])
    table.loc[80, "persons"] = 0
    figure = figures.class_frequencies(table)
    require_readable(figure)
    left, right = figure.axes
    assert widths(left) == [COUNTS[action] for action in ACTIONS[:-1]]
    assert rows(left) == NAMES[:-1]
    assert right.lines[1].get_xdata() == pytest.approx(50 * shares[:-1])
    assert {"persons with the label", "draws that show the class, %"} <= words(figure)


def test_figures_without_data_say_not_run():
    nothing = pd.DataFrame()
    drawn = [figures.ap_by_class([]), figures.lost_ap({}), figures.memory_amount(nothing)]
    drawn += [figures.class_differences(nothing), figures.box_thresholds(nothing)]
    drawn += [
        draw(gains(np.ones(22)), {})
        for draw in (figures.gain_by_frequency, figures.before_and_after)
    ]
    assert all(words(figure) == {"not run"} for figure in drawn)

"""Table 4's figures, and the frames and losses of a run that they show."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from stadlib import recipes
from stadlib.base import InputError
from stadlib.recipes.experiment import Detections, Experiment
from stadlib.report import figures4, frames, runs, table4
from stadlib.report.frames import DetectedFrame
from stadlib.study import Record, make_record, write_record


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def by_detector(names: list[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([["AVA", "Kinetics"], names], names=["source", "detector"])
    heights = np.linspace(30, 40, len(index))
    columns = {"AP": [90.0, 95, 96, 100][-len(names) :] * 2, "mAP": heights}
    return pd.DataFrame({**columns, "low": heights - 1, "high": heights + 1}, index=index)


def by_threshold() -> pd.DataFrame:
    pairs = [["AVA", "Kinetics"], recipes.THRESHOLDS]
    index = pd.MultiIndex.from_product(pairs, names=["source", "threshold"])
    falling = np.linspace(90, 20, len(index))
    columns = {"recall": falling, "precision": 100 - falling, "mAP": falling / 3}
    return pd.DataFrame(columns, index=index).assign(
        low=falling / 3 - 1, high=falling / 3 + 1, seeds=3
    )


def lost(missed: float) -> pd.DataFrame:
    rows = [[missed, 2.0, 1.0, 30.0], [missed + 1, 3.0, 0.5, 20.0]]
    return pd.DataFrame(rows, index=["AVA", "Kinetics"], columns=list(runs.LOSSES))


def points(axes) -> int:
    dots = [found for found in axes.collections if isinstance(found, PathCollection)]
    return sum(len(found.get_offsets()) for found in dots)


def test_curve_names_every_point_in_both_panels():
    paper = table4.paper_by_detector()
    figure = figures4.curve(by_detector(["v1", "v2", "v3", "GT"]), paper)
    assert figure.get_size_inches()[0] == 7
    assert [axes.get_title() for axes in figure.axes] == ["mini", "paper (AVA-Kinetics)"]
    for axes in figure.axes:
        names = [text.get_text() for text in axes.texts]
        assert sorted(filter(None, names)) == sorted(
            2 * ["v1", "v2", "v3"] + ["GT, AVA", "GT, Kinetics"]
        )
        assert points(axes) == 8
        assert axes.get_xlim()[1] > 100
        assert axes.get_ylabel() == "mAP@0.5 of actions, %"
    figure.png()
    assert not plt.get_fignums()


def test_curve_of_few_rows_names_its_source():
    figure = figures4.curve(by_detector(["v3"]), table4.paper_by_detector())
    assert {"v3, AVA", "v3, Kinetics"} <= set(texts(figure))
    nothing = figures4.curve(table4.by_detector([], {}), table4.paper_by_detector())
    assert "not run" in [text.get_text() for text in nothing.axes[0].texts]
    assert points(nothing.axes[1]) == 8


def test_thresholds_share_their_axis_and_name_their_lines():
    figure = figures4.thresholds(by_threshold())
    upper, lower = figure.axes
    assert upper.get_xlim() == lower.get_xlim()
    named = {"AVA: recall", "AVA: precision", "Kinetics: recall", "Kinetics: precision"}
    assert named == {text.get_text() for text in upper.texts}
    assert {"AVA", "Kinetics"} <= {text.get_text() for text in lower.texts}
    lines = [line for line in upper.lines if len(line.get_xdata()) == len(recipes.THRESHOLDS)]
    assert len(lines) == 4
    assert len(lower.collections) == 2  # intervals
    figure.png()


def test_thresholds_without_rows_or_boxes():
    table = by_threshold()
    figure = figures4.thresholds(table.assign(mAP=np.nan, low=np.nan, high=np.nan))
    assert "not run" in texts(figure) and "AVA: recall" in texts(figure)
    figure = figures4.thresholds(table.assign(recall=np.nan, precision=np.nan))
    assert "not run" in texts(figure) and "AVA" in texts(figure)
    table.loc[("AVA", recipes.THRESHOLDS[-1]), "precision"] = np.nan  # no box scores as much
    figures4.thresholds(table).png()
    assert "not run" in texts(figures4.thresholds(table4.by_threshold([], {})))


def test_names_at_the_ends_of_lines_do_not_cover_each_other():
    table = by_threshold()
    table.loc["Kinetics", "mAP"] = table.loc["AVA", "mAP"].to_numpy()
    axes = figures4.thresholds(table).axes[1]
    heights = [
        text.get_position()[1] for text in axes.texts if text.get_text() in ("AVA", "Kinetics")
    ]
    assert abs(heights[0] - heights[1]) >= 8


def test_classes_are_sorted_and_named():
    gain = np.array([5.0, -1, 2])
    table = pd.DataFrame({"gain": gain, "low": gain - 1, "high": gain + 1}, index=[12, 17, 80])
    figure = figures4.class_losses(table)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [-1, 2, 5]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "stand"
    assert {"pose", "person-object", "person-person"} <= set(texts(figure))
    assert "not run" in texts(figures4.class_losses(table4.class_losses([])))


def test_losses_have_a_bar_a_kind_of_boxes():
    figure = figures4.lost({"v3": lost(7), "ground-truth": lost(0)})
    for axes, source in zip(figure.axes, ("AVA", "Kinetics"), strict=True):
        assert axes.get_title() == source
        assert len(axes.patches) == 8
        assert sum(text.get_text().endswith("GT") for text in axes.texts) == 4
    assert "7.0  v3" in texts(figure) and "8.0  v3" in texts(figure)
    assert set(runs.LOSSES) <= set(texts(figure))
    assert "not run" in texts(figures4.lost({}))


def test_frames_draw_every_box():
    truth = np.array([[0.1, 0.1, 0.3, 0.9], [0.6, 0.1, 0.8, 0.9]])
    found, hits = np.array([True, False]), np.array([True, False])
    boxes = np.array([[0.1, 0.1, 0.3, 0.9], [0.3, 0.3, 1.2, 0.5]])
    picture = np.zeros((80, 120, 3), np.uint8)
    example = DetectedFrame(
        "AVA: m, 903 s", picture, truth, found, boxes, np.array([0.9, 0.6]), hits
    )
    none = replace(example, boxes=np.empty((0, 4)), scores=np.empty(0), hits=np.empty(0, bool))
    figure = frames.frames([example, none, example, none])
    assert len(figure.axes) == 4
    assert [len(axes.lines) for axes in figure.axes] == [8, 4, 8, 4]  # each on a dark rim
    assert texts(figure).count(".90") == 2
    assert any("missed" in text for text in texts(figure))
    figure.png()
    assert "not run" in texts(frames.frames([]))


def test_a_person_is_found_once():
    truth = np.array([[0, 0, 0.4, 1], [0.5, 0, 0.9, 1]], float)
    boxes = np.array([[0, 0, 0.4, 0.9], [0, 0, 0.4, 1], [0.7, 0, 0.9, 1], [0.45, 0, 0.5, 1]], float)
    hits, found = runs.match_persons(boxes, truth)
    assert hits.tolist() == [True, False, True, False]  # IoU 0.9, taken, 0.5, beside
    assert found.tolist() == [True, True]
    assert runs.match_persons(boxes, truth[:0])[0].tolist() == [False] * 4
    assert runs.match_persons(boxes[:0], truth)[1].tolist() == [False] * 2


@pytest.fixture
def run(tiny_dataset: Path, tmp_path: Path) -> Record:
    """A finished run: AVA's person is found after a false box, Kinetics' is missed."""
    root = shutil.copytree(tiny_dataset, tmp_path / "data")
    (root / "boxes").mkdir()
    (root / "boxes" / "v3_ava_val.csv").write_text(
        "b,901,0.1,0.1,0.2,0.2,,0.9\nb,901,0.25,0.25,0.75,0.75,,0.8\nb,901,0,0,1,1,,0.3\n"
    )
    (root / "boxes" / "v3_kinetics_val.csv").write_text("")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "detections_ava.csv").write_text(
        "b,901,0.1,0.1,0.2,0.2,14,0.9\nb,901,0.25,0.25,0.75,0.75,14,0.8\n"
    )
    (folder / "detections_kinetics.csv").write_text("")
    experiment = Experiment(
        scale="smoke", detector="v3", detections=Detections(threshold=0.5), dataset=str(root)
    )
    made = make_record(experiment, {}, {}, folder)
    write_record(made, folder / "record.json")
    return made


def test_examples_are_of_both_sources(run: Record):
    ava, kinetics = runs.detected_examples(run, count=2)
    assert ava.title == "AVA: b, 901 s"
    assert ava.frame.dtype == np.uint8 and ava.frame.shape == (48, 64, 3)
    assert ava.scores.tolist() == [0.9, 0.8]  # 0.3 is below the threshold
    assert ava.hits.tolist() == [False, True] and ava.found.tolist() == [True]
    assert kinetics.title.startswith("Kinetics: c, 5.01")
    assert len(kinetics.boxes) == 0 and kinetics.found.tolist() == [False]
    assert len(runs.detected_examples(run, count=9)) == 2  # no frame twice
    frames.frames([ava, kinetics]).png()


def test_ground_truth_boxes_find_everybody(run: Record):
    experiment = {k: v for k, v in run.experiment.items() if k != "detections"}
    truth = replace(run, experiment={**experiment, "detector": "ground-truth"})
    for example in runs.detected_examples(truth, count=2):
        assert example.hits.all() and example.found.all() and len(example.boxes) == 1


def test_lost_ap_is_a_mean_over_classes(run: Record):
    table = runs.lost(run)
    # The person's AP is 1/2 as a false box comes first; without it, 1.
    assert table.loc["AVA"].to_dict() == pytest.approx(
        {"missed persons": 0, "imprecise boxes": 0, "false boxes": 50, "wrong labels": 0}
    )
    assert table.loc["Kinetics"].to_dict() == pytest.approx(
        {"missed persons": 100, "imprecise boxes": 0, "false boxes": 0, "wrong labels": 0}
    )
    figures4.lost({"v3": table}).png()


def test_a_bare_record_is_refused(run: Record):
    for read in (runs.detected_examples, runs.lost):
        with pytest.raises(InputError, match="its run is not on this machine"):
            read(replace(run, folder=None))

"""Table 3's figures, and the numbers of runs that they show."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from stadlib import recipes, study
from stadlib.base import InputError
from stadlib.report import figures3, runs

ACTIONS = [4, 12, 17, 70, 79, 80]


def texts(figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text)}


@pytest.fixture
def changes() -> pd.DataFrame:
    gain = np.array([-3.0, 1, 0, 5, 2, -1])
    numbers = {"before": 40.0, "after": 40 + gain, "gain": gain, "low": gain - 1, "high": gain + 1}
    return pd.DataFrame(numbers, index=pd.Index(ACTIONS, name="action_id"))


@pytest.fixture(scope="module")
def pair():
    rows = recipes.table3(scale="smoke")
    return study.run(rows["before"]), study.run(rows["after"])


def test_every_class_is_named_once(changes):
    counts = dict(zip(ACTIONS, (10, 20, 40, 80, 160, 320), strict=True))
    figures = [
        figures3.before_and_after(changes, counts),
        figures3.differences(changes),
        figures3.overfitting(changes["gain"] + 1, changes["gain"]),
    ]
    for figure in figures:
        assert {"dance", "stand", "hug a person", "talk to"} <= texts(figure)
        assert figure.get_size_inches()[0] == 7
        figure.png()
    assert not plt.get_fignums()
    assert "not run" in texts(figures3.differences(changes[:0]))
    assert "not run" in texts(figures3.before_and_after(changes[:0], counts))


def test_differences_are_sorted(changes):
    axes = figures3.differences(changes).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == sorted(changes["gain"])


def test_class_differences_are_those_of_the_records(pair):
    before, after = pair
    table = runs.class_differences(after, before, num_resamples=50)
    for action, row in table.iterrows():
        aps = [record.metrics["ava"]["AP"][str(action)] for record in (after, before)]
        assert row["gain"] == pytest.approx(100 * (aps[0] - aps[1]), abs=1e-9)
        assert row["low"] <= row["high"]


def test_curves_end_where_all_detections_are_counted(pair):
    curves = runs.precision_recall(pair[0], [12, 14])
    for recall, precision in curves.values():
        assert (np.diff(recall) >= 0).all() and recall[-1] == 1  # ground-truth boxes: all found
        assert (precision <= 1).all()
    figure = figures3.precision_recall(curves, runs.precision_recall(pair[1], [12, 14]))
    assert {"stand", "walk", "recall, %", "before", "after"} <= texts(figure)


def test_training_ap_is_of_the_training_data(pair):
    found = runs.training_ap(pair[0])
    validation = pair[0].metrics["ava"]["AP"]
    assert found.between(0, 100).sum() > 20
    assert any(abs(found[int(a)] - 100 * v) > 1 for a, v in validation.items() if v is not None)


def test_a_bare_record_is_refused(pair):
    from dataclasses import replace

    with pytest.raises(InputError, match="its run is not on this machine"):
        runs.training_ap(replace(pair[0], folder=None))

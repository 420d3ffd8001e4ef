"""Memory's figures, and the attention that they show."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from stadlib.base import InputError
from stadlib.data.labels import LASTING
from stadlib.report import figures2
from stadlib.report.tour import recollection


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_recollection_shares_out_all_of_the_attention(with_memory):
    found = recollection(with_memory)
    assert sum(weights.sum() for weights in found.weights) == pytest.approx(1, abs=1e-5)
    assert len(found.seconds) == len(found.frames) == len(found.boxes) == len(found.same)
    assert (np.diff(found.seconds) > 0).all() and 0 in found.seconds
    now = found.seconds.tolist().index(0)
    assert found.same[now].sum() == 1 and found.same[now][found.present]
    assert LASTING & set(found.actions)
    for boxes, weights, same in zip(found.boxes, found.weights, found.same, strict=True):
        assert len(boxes) == len(weights) == len(same)
        assert same.sum() <= 1


def test_another_movie_can_be_asked_for(with_memory, smoke_record):
    titles = {recollection(with_memory, skip).title for skip in (0, 1)}
    assert len(titles) == 2
    with pytest.raises(InputError, match="no further validation movie"):
        recollection(with_memory, 1000)
    with pytest.raises(InputError, match="give a run with memory"):
        recollection(smoke_record)


def test_timeline_shows_now_and_both_kinds_of_attention(with_memory):
    figure = figures2.timeline(recollection(with_memory))
    words = texts(figure)
    assert "now" in words and "attention, %" in words
    assert any(word.startswith("the person itself") for word in words)
    assert figure.get_size_inches()[0] == 7
    assert not plt.get_fignums()
    figure.png()


def test_amount_draws_what_was_run():
    rows = [
        (span, persons, source, value, value - 1, value + 1, 3)
        for (span, persons), value in {(0, 0): 40, (5, 5): 44, (30, 5): 46, (30, 1): 43}.items()
        for source in ("AVA", "Kinetics", "A+K")
    ]
    names = ["span", "persons", "source", "mAP", "low", "high", "seeds"]
    effect = pd.DataFrame(rows, columns=names).set_index(names[:3])
    figure = figures2.amount(effect)
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0", "5", "30"]
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["0", "1", "5"]
    assert left.lines[0].get_ydata().tolist() == [40, 44, 46]
    assert right.lines[0].get_ydata().tolist() == [40, 43, 46]
    assert texts(figure).count("A+K") == 2
    figure.png()

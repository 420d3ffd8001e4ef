"""Counts of an annotation file, and what samplers make of them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.report import figures
from stadlib.report.runs import class_statistics


@pytest.fixture
def table(tiny_dataset):
    return class_statistics(tiny_dataset / "annotations" / "ava_train_v2.2.csv")


def test_persons_and_keyframes_are_counted(table):
    assert table.loc[12, ["persons", "keyframes"]].tolist() == [2, 2]
    assert table.loc[80, ["persons", "keyframes"]].tolist() == [1, 1]
    assert table["persons"].sum() == 3  # the class that nobody evaluates is left out
    assert table.index[0] == 12 and len(table) == 60


def test_samplers_shift_the_shares(table):
    assert table.loc[12, "instance"] == 1
    assert table.loc[80, "instance"] == pytest.approx(0.5, abs=0.02)
    assert table.loc[80, "class-balanced"] == pytest.approx(0.75, abs=0.02)
    assert (table.loc[table["persons"] == 0, "class-balanced"] == 0).all()


def test_a_file_without_labels_is_refused(tmp_path):
    (tmp_path / "none.csv").write_text("a,0902\n")
    with pytest.raises(InputError, match="no person of an evaluated class"):
        class_statistics(tmp_path / "none.csv")


def test_the_figure_names_every_class_that_occurs(table):
    figure = figures.class_frequencies(table)
    words = [text.get_text() for text in figure.findobj(Text)]
    assert {"stand", "watch a person", "persons with the label"} <= set(words)
    assert not plt.get_fignums()


def test_the_command_prints_and_draws(tiny_dataset, tmp_path, capsys):
    file = str(tiny_dataset / "annotations" / "ava_train_v2.2.csv")
    assert main(["classes", file, "--out", str(tmp_path / "out.png")]) == 0
    assert "class-balanced" in capsys.readouterr().out
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert main(["classes", str(tmp_path / "nothing.csv")]) == 1
    assert "nothing.csv" in capsys.readouterr().err

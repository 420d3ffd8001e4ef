"""Average voting: the plain mean, whatever the order; members of other boxes are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data.rows import COLUMNS, read_rows
from stadlib.evaluation.files import average

KEY = list(COLUMNS[:7])


def member(seed: int, persons: int = 40, actions: tuple[int, ...] = (12, 14, 80)) -> pd.DataFrame:
    """Scores of the same boxes, in an order of its own."""
    boxes, scores = np.random.default_rng(0), np.random.default_rng(seed)
    corners = np.sort(boxes.random((persons, 2, 2)).round(6), axis=1).reshape(-1, 4)
    rows = [
        ("a" if p % 2 else "b", 902 + p // 4 if p % 3 else 5.016949, *corners[p], action, score)
        for p in range(persons)
        for action, score in zip(actions, scores.random(len(actions)).round(8), strict=True)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sample(frac=1, random_state=seed)


def write(table: pd.DataFrame, path: Path) -> Path:
    table.to_csv(path, header=False, index=False)
    return path


def read(path: Path) -> pd.DataFrame:
    table = read_rows(path)
    return table.assign(video=table["video"].astype(str)).set_index(KEY)["score"].sort_index()


def averaged(tmp_path: Path, *tables: pd.DataFrame) -> pd.Series:
    files = [write(table, tmp_path / f"m{n}.csv") for n, table in enumerate(tables)]
    average(files, tmp_path / "out.csv")
    return read(tmp_path / "out.csv")


@pytest.mark.parametrize("members", [1, 2, 15])
def test_is_the_mean(tmp_path, members):
    tables = [member(seed) for seed in range(members)]
    expected = pd.concat(tables).groupby(KEY)["score"].mean()
    found = averaged(tmp_path, *tables)
    assert found.index.equals(expected.sort_index().index)
    np.testing.assert_allclose(found, expected.sort_index(), atol=1e-10)


def test_the_order_of_rows_and_members_does_not_matter(tmp_path):
    tables = [member(seed) for seed in range(4)]
    found = averaged(tmp_path, *tables)
    shuffled = [table.sample(frac=1, random_state=9) for table in tables[::-1]]
    np.testing.assert_allclose(averaged(tmp_path, *shuffled), found, atol=1e-10)


def test_equal_members_change_nothing(tmp_path):
    table = member(3)
    expected = table.set_index(KEY)["score"].sort_index()
    np.testing.assert_array_equal(averaged(tmp_path, table, table, table), expected)


def test_an_action_that_a_member_leaves_out_counts_as_zero(tmp_path):
    one, other = member(1), member(2, actions=(12, 14, 17))
    found = averaged(tmp_path, one, other)
    own = one.set_index(KEY)["score"]
    for action, source in ((80, own), (17, other.set_index(KEY)["score"])):
        mine = source[source.index.get_level_values("action_id") == action].sort_index()
        np.testing.assert_allclose(found[mine.index], mine / 2, atol=1e-10)
    assert len(found) == 40 * 4


def test_nobody_found_by_anybody(tmp_path):
    empty = member(0, persons=0)
    assert averaged(tmp_path, empty, empty).empty


def refused(tmp_path: Path, *tables: pd.DataFrame) -> str:
    with pytest.raises(InputError) as caught:
        averaged(tmp_path, *tables)
    assert not (tmp_path / "out.csv").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_members_of_other_boxes_are_refused(tmp_path):
    whole = member(0)
    moved = whole.copy()
    moved.iloc[7, moved.columns.get_loc("x1")] += 1e-5
    line = refused(tmp_path, whole, moved)
    assert line.startswith(f"{tmp_path}/m1.csv:8: a box that {tmp_path}/m0.csv does not have")
    assert line.endswith("score all members on one box file")
    assert "m1.csv:1: a box" in refused(tmp_path, whole, whole.assign(video="c"))
    fewer = member(1).sort_values(KEY).iloc[3:]
    line = refused(tmp_path, whole, fewer)
    assert "m1.csv: lacks 1 boxes of" in line and "one box file" in line
    assert "m1.csv:1: a box that" in refused(tmp_path, whole[:0], whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: pd.concat([t, t[:1]]), "csv:121: action"),
        (lambda t: t.assign(score=t["score"] - 1), "is outside [0, 1]; apply the sigmoid"),
        (lambda t: t.drop(columns="score"), "csv:1: 7 columns; a row has 8"),
    ],
)
def test_rows_that_cannot_be_averaged_are_named(tmp_path, change, words):
    assert words in refused(tmp_path, member(0), change(member(1)))


def test_a_member_is_neither_counted_twice_nor_overwritten(tmp_path):
    path = write(member(0), tmp_path / "a.csv")
    with pytest.raises(InputError, match="given twice"):
        average([path, tmp_path / "." / "a.csv"], tmp_path / "out.csv")
    with pytest.raises(InputError, match="is one of the members"):
        average([path], path)


def test_command(tmp_path, capsys):
    files = [str(write(member(seed), tmp_path / f"{seed}.csv")) for seed in range(3)]
    out = tmp_path / "ensemble.csv"
    assert main(["ensemble", *files, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 3 members, 40 boxes, 120 rows\n"
    assert main(["ensemble", *files, str(tmp_path / "none.csv"), "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "none.csv: no such file" in line

"""A submission has the detections' mAP, free of ties; its check finds every planted mistake."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data.layout import AVA_ACTIONS, AvaLayout, LabelMap, write_label_map
from stadlib.data.rows import COLUMNS, read_rows
from stadlib.evaluation.average_precision import frame_map, tie_interval
from stadlib.evaluation.matching import match
from stadlib.evaluation.submission import (
    ROWS,
    part_scores,
    split_keyframes,
    validate_submission,
    write_submission,
)

LABELS = LabelMap({action: AVA_ACTIONS[action] for action in (12, 17, 80)})
UNEVALUATED = 2


def world(seed: int, levels: int | None, persons: int = 30) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ground truth and detections of AVA and Kinetics, with more rows of an image than count."""
    rng, truth, found = np.random.default_rng(seed), [], []
    moments = [("m", float(t)) for t in range(902, 907)] + [("k", 5.016949), ("k", 6.5)]
    for video, second in moments:
        for _ in range(4):
            x, y = rng.random(2) * 0.5
            box = np.array([x, y, x + 0.4, y + 0.4])
            truth.append((video, second, *box, int(rng.choice(LABELS.ids)), 1.0))
            for _ in range(persons // 4):
                moved = (box + 0.1 * rng.random(4)).round(6)
                found += [(video, second, *moved, a, rng.random()) for a in (*LABELS.ids, 2)]
    found = pd.DataFrame(found, columns=list(COLUMNS))
    if levels:
        found["score"] = (found["score"] * levels).round() / levels
    return pd.DataFrame(truth, columns=list(COLUMNS)), found


def submitted(folder: Path, found: pd.DataFrame) -> tuple[Path, object]:
    """The file, written from one of AVA and one of Kinetics."""
    write_label_map(folder / "labels.pbtxt", LABELS)
    files = [folder / "ava.csv", folder / "kinetics.csv"]
    for file, video in zip(files, "mk", strict=True):
        found[found["video"] == video].to_csv(file, header=False, index=False)
    written = write_submission(files, folder / "labels.pbtxt", folder / "out.csv")
    return folder / "out.csv", written


@pytest.mark.parametrize("seed", range(5))
def test_has_the_map_of_the_detections(tmp_path, seed):
    truth, found = world(seed, levels=None)
    path, written = submitted(tmp_path, found)
    assert written.rows == 7 * ROWS and written.images == 7 and written.parted == 0
    assert written.rows + written.beyond == len(found) and written.size == path.stat().st_size
    ours, theirs = (frame_map(truth, rows, LABELS).AP for rows in (path, found))
    assert ours == pytest.approx(theirs, abs=1e-12) and max(ours.values()) > 0


@pytest.mark.parametrize("levels", [1, 3, 40])
def test_ties_are_parted_and_only_they(tmp_path, levels):
    truth, found = world(0, levels)
    path, written = submitted(tmp_path, found)
    assert written.parted > 0
    rows = read_rows(path)
    assert not rows.duplicated(["action_id", "score"]).any()
    assert rows["score"].between(0, 1).all()
    low, high = tie_interval(match(truth, path, LABELS))
    assert low == high == frame_map(truth, path, LABELS, ties="official").mAP
    ends = tie_interval(match(truth, found, LABELS))
    assert ends[0] - 1e-12 <= low <= ends[1] + 1e-12
    again, _ = submitted(tmp_path, found)
    assert read_rows(again).equals(rows)


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(
        st.one_of(
            st.sampled_from([0.0, 1.0, 0.5, 1 - 1e-9, 1e-9, 0.50000001]),
            st.floats(0, 1),
        ),
        max_size=30,
    ),
    classes=st.randoms(use_true_random=False),
)
def test_parted_scores_keep_the_order(scores, classes):
    score, column = np.array(scores), np.array([classes.randrange(3) for _ in scores], int)
    ticks, parted = part_scores(score, column)
    assert ((ticks >= 0) & (ticks <= 10**8)).all()
    rounded = np.rint(score * 1e8)
    assert parted == (ticks != rounded).sum()
    for own in (np.flatnonzero(column == c) for c in range(3)):
        before = own[np.argsort(-score[own], kind="stable")]
        assert (np.diff(ticks[before]) < 0).all()
        if len(set(rounded[own])) == len(own):
            assert (ticks[own] == rounded[own]).all()
        assert (abs(ticks[own] - rounded[own]) < max(1, len(own))).all()


def test_rows_stand_as_the_evaluator_orders_them(tmp_path):
    path, _ = submitted(tmp_path, world(1, levels=40)[1])
    rows = read_rows(path)
    for _, own in rows.groupby(["video", "timestamp"], sort=False, observed=True):
        columns = ["score", "action_id", "y1", "x1", "y2", "x2"]
        entries = list(own[columns].itertuples(index=False, name=None))
        assert entries == sorted(entries, reverse=True)
    assert list(rows["video"].unique()) == ["m", "k"]
    texts = {line.split(",")[1] for line in path.read_text().splitlines()}
    assert texts == {"0902", "0903", "0904", "0905", "0906", "5.016949", "6.500000"}


def test_boxes_without_an_area_use_up_places_but_are_not_written(tmp_path):
    truth, found = world(2, levels=None)
    empty = found.iloc[::3].assign(score=0.99 + found["score"] / 1000)
    empty["x2"] = empty["x1"]
    found = pd.concat([found, empty])
    path, written = submitted(tmp_path, found)
    assert written.rows < 7 * ROWS
    ours, theirs = (frame_map(truth, rows, LABELS).AP for rows in (path, found))
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": 1.5}, "csv:1: score 1.5 is outside [0, 1]; apply the sigmoid"),
        ({"y2": 230.0}, "csv:1: y2 230.0 is outside [0, 1]; divide"),
        ({"action_id": UNEVALUATED}, "no row of an evaluated action"),
    ],
)
def test_detections_that_cannot_be_submitted(tmp_path, change, words):
    with pytest.raises(InputError) as caught:
        submitted(tmp_path, world(0, levels=None)[1].assign(**change))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


# The check, on a small dataset.
GOOD = (
    "b,0901,0.2,0.2,0.7,0.7,14,0.9",
    "b,0901,0.2,0.2,0.7,0.7,12,0.8",
    "c,5.016949,0.3,0.4,0.6,0.9,11,0.7",
    "c,6.500000,0.3,0.4,0.6,0.9,11,0.6",
)


def checked(root: Path, *lines: str) -> tuple[list[str], list[str]]:
    path = root / "submission.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    layout = AvaLayout(root)
    keyframes = split_keyframes(layout, "val")
    problems, notes = validate_submission(path, keyframes, layout.label_map())
    assert not any("\n" in line for line in problems + notes)
    return [line.removeprefix(f"{path}") for line in problems], notes


@pytest.fixture
def root(tiny_dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_dataset, tmp_path / "copy")


def test_a_sound_file_has_no_problem(root):
    problems, notes = checked(root, *GOOD)
    assert problems == []
    assert len(notes) == 1 and "0.0 MB, 4 rows, 3 images" in notes[0]


def test_keyframes_without_a_row_are_counted(root):
    problems, notes = checked(root, *GOOD[:3])
    assert problems == [] and "1 of 2 keyframes of kinetics have no row: c,6.500000" in notes[1]
    problems, _ = checked(root, *GOOD[:2])
    assert "all 2 of 2 keyframes of kinetics have no row" in problems[0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("b,0901,0.2,0.2,0.7,0.7,13", ":5: 7 columns; a row has 8"),
        (",0901,0.2,0.2,0.7,0.7,13,0.5", ":5: ,901.000000 is no keyframe of the split"),
        ("b,soon,0.2,0.2,0.7,0.7,13,0.5", ":5: timestamp 'soon' is no number"),
        ("b,0901,0.2,0.2,0.7,1.7,13,0.5", ":5: y2 1.7 is outside [0, 1]"),
        ("b,0901,0.8,0.2,0.7,0.7,13,0.5", ":5: x1 0.8 >= x2 0.7"),
        ("b,0901,0.2,0.2,0.7,0.7,2,0.5", ":5: action '2' is none that this file may have"),
        ("b,0901,0.2,0.2,0.7,0.7,13,-2.5", ":5: score -2.5 is outside [0, 1]; apply the sigmoid"),
        ("b,0900,0.2,0.2,0.7,0.7,13,0.5", ":5: b,900.000000 is no keyframe of the split"),
        ("z,0902,0.2,0.2,0.7,0.7,13,0.5", ":5: z,902.000000 is no keyframe of the split"),
        ("b,0901,0.2,0.2,0.7,0.7,14,0.5", ":5: box and action again; keep one row"),
        ("b,0901,0.2,0.2,0.7,0.8,14,0.9", ":5: score 0.9 of action 14 stands in an earlier row"),
    ],
)
def test_one_planted_mistake_is_one_line(root, row, expected):
    (line,), _ = checked(root, *GOOD, row)
    assert line.startswith(expected)


def test_all_seconds_of_a_listed_movie_are_keyframes_but_the_excluded_ones(root):
    row = "b,1798.0,0.2,0.2,0.7,0.7,13,0.5"
    assert checked(root, *GOOD, row)[0] == []
    (root / "annotations" / "ava_val_excluded_timestamps_v2.2.csv").write_text("b,1798\n")
    (line,), _ = checked(root, *GOOD, row)
    assert line.startswith(":5: b,1798.000000 is an excluded timestamp")
    (root / "annotations" / "ava_val_v2.2.csv").unlink()  # as of the test split
    (line,), notes = checked(root, *GOOD[2:])
    assert "all 896 of 896 keyframes of ava have no row" in line and len(notes) == 1


def test_more_rows_of_an_image_than_count(root):
    rows = [f"b,0901,0.2,0.2,0.7,{0.7 + i / 1000},13,{0.1 + i / 1000}" for i in range(60)]
    (line,), _ = checked(root, *GOOD, *rows)
    assert line.startswith(":53: b,901.000000 has 62 rows, of which 50 count")


def test_many_mistakes_of_a_kind_are_counted(root):
    lines, _ = checked(root, *GOOD, *["b,0901,0.2,0.2,0.7,0.7,99,0.5"] * 30)
    assert len(lines) == 11 and lines[-1] == ": 20 more of the same: action"


def test_commands(root, tmp_path, capsys):
    (root / "d.csv").write_text("\n".join((*GOOD, "b,0901,0.2,0.2,0.7,0.7,13,0.9")))
    labels = next((root / "annotations").glob("*.pbtxt"))
    out = str(tmp_path / "s.csv")
    words = ["submit", "--detections", str(root / "d.csv"), "--labels", str(labels), "--out", out]
    assert main(words) == 0
    assert f"{out}: 5 rows of 3 images" in capsys.readouterr().out
    check = ["submit", "--check", out, "--data", str(root), "--split"]
    assert main([*check, "val"]) == 0
    assert "no problem found" in capsys.readouterr().out
    with open(out, "a") as file:
        file.write("b,0901,0.2\n")
    assert main([*check, "val"]) == 1
    printed = capsys.readouterr()
    assert f"{out}:6: 3 columns" in printed.out and "1 problems" in printed.err
    for wrong, words in (
        ([*check, "exam"], "choose from train, val, test"),
        ([*check, "test"], "no annotation file of test"),
        (["submit", "--check", out], "--data is missing"),
        (["submit", "--detections", out], "--labels is missing"),
        (["submit"], "give --detections"),
    ):
        assert main(wrong) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line

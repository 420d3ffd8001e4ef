"""Rows become keyframes without loss; a wrong row is named, never repaired."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from stadlib.base import InputError
from stadlib.data.keyframes import Keyframe, read_annotation_file, read_keyframes, require_agreement
from stadlib.data.labels import AVA_ACTIONS, LabelMap, read_label_map, write_label_map
from stadlib.data.layout import LABEL_MAP_FILE, AvaLayout
from stadlib.data.rows import read_annotation_rows

LABELS = LabelMap(AVA_ACTIONS)
GOOD = "v,0902,0.1,0.2,0.5,0.9,12,0"


def read(tmp_path: Path, *lines: str) -> list[Keyframe]:
    path = tmp_path / "rows.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return read_annotation_file(path, LABELS, "ava")


def actions_of(keyframe: Keyframe, person: int) -> list[int]:
    return [LABELS.ids[c] for c in np.flatnonzero(keyframe.actions[person])]


def by_hand(path: Path) -> dict[tuple[str, str], dict[tuple[float, ...], set[int]]]:
    """The oracle: one row after the other."""
    keyframes: dict = defaultdict(dict)
    with path.open() as file:
        for words in csv.reader(file):
            persons = keyframes[words[0], f"{float(words[1]):.6f}"]
            if len(words) > 2:
                box = tuple(np.array(words[2:6], np.float32).tolist())
                persons.setdefault(box, set()).add(int(words[6]))
    return keyframes


def assert_as_by_hand(keyframes: list[Keyframe], path: Path) -> None:
    expected = by_hand(path)
    assert [(k.video, f"{k.timestamp:.6f}") for k in keyframes] == list(expected)
    for keyframe, persons in zip(keyframes, expected.values(), strict=True):
        assert list(map(tuple, keyframe.boxes.tolist())) == list(persons)
        for person, ids in enumerate(persons.values()):
            assert actions_of(keyframe, person) == sorted(ids & set(LABELS.ids))


def test_rows_of_one_box_are_one_person(tmp_path: Path) -> None:
    lines = [GOOD, "v,902,0.6,0.2,0.9,0.9,14,1", "v,902.0,0.10,0.20,0.50,0.90,80,0", "v,0903"]
    first, second = read(tmp_path, *lines)
    assert first.key == "v,902.000000" and second.key == "v,903.000000"
    assert first.boxes.dtype == np.float32 and first.boxes.shape == (2, 4)
    assert actions_of(first, 0) == [12, 80] and actions_of(first, 1) == [14]
    assert first.person_ids.tolist() == [0, 1] and first.person_ids.dtype == np.int64
    assert second.boxes.shape == (0, 4) and second.actions.shape == (0, 60)


def test_a_class_that_is_not_evaluated_still_makes_a_person(tmp_path: Path) -> None:
    (keyframe,) = read(tmp_path, "v,1,0.1,0.2,0.5,0.9,2,0", "v,1,0.6,0.2,0.9,0.9,12,1")
    assert not keyframe.actions[0].any() and actions_of(keyframe, 1) == [12]


def test_persons_without_ids_and_scores(tmp_path: Path) -> None:
    (keyframe,) = read(tmp_path, "v,1,0.1,0.2,0.5,0.9,12", "v,1,0.2,0.2,0.5,0.9,12,1.0000")
    assert keyframe.person_ids.tolist() == [-1, -1]


def test_fractional_timestamps_stay_apart(tmp_path: Path) -> None:
    keyframes = read(tmp_path, "v,5.016949", "v,5.016950", "v,5", "v,0005.016949")
    assert [k.timestamp for k in keyframes] == [5.016949, 5.01695, 5.0]


def test_blank_lines_and_windows_line_ends_are_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(f"\ufeff{GOOD}\r\n\r\nv,0903\r\n".encode())
    assert len(read_annotation_file(path, LABELS, "ava")) == 2


def test_shuffled_rows_agree_with_the_oracle(tmp_path: Path) -> None:
    rng = random.Random(0)
    lines = []
    for _ in range(400):
        box = rng.choice(["0.1,0.2,0.5,0.9", "0.3,0.2,0.50,0.9", "0.300,0.2,0.5,0.9"])
        place = f"{rng.choice('abc')},{rng.choice(['0902', '902.5', '903', '902'])}"
        lines.append(rng.choice([place, f"{place},{box},{rng.randint(1, 80)}"]))
    assert_as_by_hand(read(tmp_path, *lines), tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("v,0902,0.1,0.2,0.5,0.9", "6 columns, expected 2, 7 or 8"),
        ("v", "1 columns, expected"),
        ("v,0902,0.1,0.2,0.5,0.9,12,0,1", "9 columns, expected"),
        ("v,soon", "timestamp 'soon' is no number"),
        ("v,inf", "timestamp 'inf' is no number"),
        (",0902", "no video id"),
        ("v,0902,left,0.2,0.5,0.9,12", "x1 'left' is no number"),
        ("v,0902,0.1,,0.5,0.9,12", "y1 '' is no number"),
        ("v,0902,0.1,0.2,nan,0.9,12", "x2 'nan' is no number"),
        ("v,0902,-0.1,0.2,0.5,0.9,12", "x1 -0.1 is outside [0, 1]"),
        ("v,0902,10,20,50,90,12", "x1 10 is outside [0, 1]; divide"),
        ("v,0902,0.1,0.2,0.5,1.001,12", "y2 1.001 is outside [0, 1]"),
        ("v,0902,0.9,0.2,0.3,0.9,12", "x1 0.9 >= x2 0.3; swap"),
        ("v,0902,0.1,0.5,0.3,0.5,12", "y1 0.5 >= y2 0.5; swap"),
        ("v,0902,0.1,0.2,0.5,0.9,81", "action '81' is no known class"),
        ("v,0902,0.1,0.2,0.5,0.9,0", "action '0' is no known class"),
        ("v,0902,0.1,0.2,0.5,0.9,-1", "action '-1' is no known class"),
        ("v,0902,0.1,0.2,0.5,0.9,12.0", "action '12.0' is no known class"),
        ("v,0902,0.1,0.2,0.5,0.9,", "action '' is no known class"),
        ("v,0902,0.1,0.2,0.5,0.9,stand", "action 'stand' is no known class"),
        ("v,0902,0.1,0.2,0.5,0.9,12,Anna", "person id 'Anna' is no number"),
        ("v,0902,0.1,0.2,0.6,0.9,12,0", "person 0 of v,902.000000 has another box in row 1"),
    ],
)
def test_a_wrong_row_is_named_in_one_line(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, GOOD, "", line, "w,0902")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'rows.csv'}:3: ") and complaint in text
    assert ("\n" not in text and ";" in text) or "no header" in text


def test_the_first_wrong_row_is_raised_and_all_are_listed(tmp_path: Path) -> None:
    lines = ["v,x", GOOD, "v,0902,0.9,0.2,0.3,0.9,12", "v", "v,0902,2,2,1,1,99"]
    with pytest.raises(InputError, match=r"rows\.csv:1: timestamp"):
        read(tmp_path, *lines)
    rows, problems = read_annotation_rows(tmp_path / "rows.csv", set(LABELS.ids))
    assert [p.row for p in problems] == [1, 3, 4, 5]
    assert rows["row"].tolist() == [2]


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: no such annotation file"):
        read_annotation_file(tmp_path / "none.csv", LABELS, "ava")
    with pytest.raises(InputError, match=r"rows\.csv: empty file"):
        read(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.csv: not readable as text"):
        read_annotation_file(tmp_path / "binary.csv", LABELS, "ava")


def test_own_classes_beyond_avas_are_known_if_the_map_names_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("v,1,0.1,0.2,0.5,0.9,90\n")
    (keyframe,) = read_annotation_file(path, LabelMap({90: "juggle"}), "ava")
    assert keyframe.actions.tolist() == [[True]]


def test_excluded_timestamps_are_left_out(tiny_dataset: Path) -> None:
    keyframes = read_keyframes(AvaLayout(tiny_dataset), "ava", "train")
    assert [k.key for k in keyframes] == ["a,902.000000"]
    assert actions_of(keyframes[0], 0) == [12, 80] and not keyframes[0].actions[1].any()


@pytest.mark.parametrize(
    ("other", "fine"),
    [
        ("v,0902,0.1,0.2,0.5,0.9,12", True),
        ("w,0902,0.1,0.2,0.6,0.9,12", True),
        ("v,0902,0.1,0.2,0.6,0.9,12", False),
        ("v,0902,0.1,0.2,0.5,0.9,14", False),
    ],
)
def test_two_files_must_not_contradict_each_other(tmp_path, other: str, fine: bool) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    write_label_map(folder / LABEL_MAP_FILE, LABELS)
    (folder / "ava_train_v2.2.csv").write_text(f"u,0902\n{GOOD}\n")
    (folder / "ava_val_v2.2.csv").write_text(f"{other}\n")
    if fine:
        require_agreement(AvaLayout(tmp_path), "ava")
        return
    with pytest.raises(InputError) as caught:
        require_agreement(AvaLayout(tmp_path), "ava")
    assert "ava_val_v2.2.csv:1: keyframe v,902.000000" in str(caught.value)
    assert "ava_train_v2.2.csv:2" in str(caught.value)


def test_real_kinetics_file(shared: Path) -> None:
    path = shared / "data" / "ava" / "kinetics_val_v1.0.csv"
    rows, problems = read_annotation_rows(path, set(range(1, 81)))
    assert len(rows) == 73_845 and not problems
    assert (rows["action"] < 0).sum() == 8_673
    keyframes = read_annotation_file(path, LABELS, "kinetics")
    assert len(keyframes) == 31_272
    assert len({k.video for k in keyframes}) == 31_228
    assert_as_by_hand(keyframes, path)


@pytest.mark.parametrize(
    ("name", "has_ids"),
    [
        ("ava_val_v2.2.1j20qq1JyX4_0902-1014.csv", True),
        ("slowfast_predictions.1j20qq1JyX4.groundtruth.csv", False),
    ],
)
def test_other_real_files(shared: Path, name: str, has_ids: bool) -> None:
    path = shared / "data" / "ava" / name
    label_map = read_label_map(path.with_name("ava_action_list_v2.2_for_activitynet_2019.pbtxt"))
    assert label_map == LABELS
    keyframes = read_annotation_file(path, label_map, "ava")
    assert len(keyframes) > 100
    assert_as_by_hand(keyframes, path)
    assert {bool(i >= 0) for k in keyframes for i in k.person_ids} == {has_ids}

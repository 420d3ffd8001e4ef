"""What people's files look like: faults seen on public data, each with what is right."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stadlib import base
from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data.check import check_dataset
from stadlib.data.keyframes import read_annotation_file, read_annotations
from stadlib.data.layout import AVA_ACTIONS, LabelMap, read_label_map
from stadlib.data.rows import read_excluded
from stadlib.evaluation import files
from stadlib.report import figures, runs, style

Write = Callable[[str, str], Path]
BIRDS = 'item {\n  name: "preen"\n  id: 2\n}\nitem {\n  name: "glide over"\n  id: 90\n}\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def measured(truth: Path, found: Path, labels: Path, **options) -> dict:
    return files.measure([truth], [found], labels, progress=lambda _: lambda *_: None, **options)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('\ufeffitem {\n name: "a"\n id: 1\n}', {1: "a"}),
        ('# one\nitem {\n  name: "walk # fast"  # why\n  id: 10\n}', {10: "walk # fast"}),
        ("item {\n id: 0\n name: 'man on foot'\n}", {0: "man on foot"}),
        ('item { name: "it\'s" id: 7 }', {7: "it's"}),
        ('label { name: "x" label_id: 300 label_type: POSE }', {300: "x"}),
    ],
)
def test_label_maps_of_ones_own(write, text, names):
    assert read_label_map(write("map.pbtxt", text)).names == names


@pytest.mark.parametrize("text", ["item { name: '' id: 1 }", "item { name: 'a\" id: 1 }"])
def test_a_name_that_is_none_is_refused(write, text):
    with pytest.raises(InputError, match=r"map\.pbtxt, row 1: no whole block with a name"):
        read_label_map(write("map.pbtxt", text))


def test_figures_and_groups_are_of_the_map(write):
    labels = write("map.pbtxt", BIRDS)
    rows = write("train.csv", "v,1,0.1,0.1,0.5,0.9,2,0\nv,2,0.1,0.1,0.5,0.9,90,0\n")
    table = runs.class_statistics(rows, labels)
    assert table["name"].to_dict() == {2: "preen", 90: "glide over"}
    drawn = figures.class_frequencies(table)
    texts = [tick.get_text() for tick in drawn.axes[0].get_yticklabels()]
    assert texts == ["preen", "glide over"]
    own = read_label_map(labels)
    assert not own.is_avas and own.group(2) == "other"
    assert set(style.action_colors(own).values()) == {style.OTHER}
    avas = LabelMap(AVA_ACTIONS)
    assert avas.is_avas and avas.group(12) == "pose"
    assert LabelMap({12: AVA_ACTIONS[12], 2: "one that is not evaluated"}).is_avas
    report = measured(rows, rows, labels)
    assert report["groups"] == {} and report["names"] == {"2": "preen", "90": "glide over"}


def test_an_id_that_the_map_lacks_is_named_with_its_file(write):
    labels = read_label_map(write("map.pbtxt", BIRDS))
    rows = write("train.csv", "v,1,0.1,0.1,0.5,0.9,7,0\n")
    with pytest.raises(
        InputError, match=r"train\.csv:1: action '7' is none that .*map\.pbtxt list"
    ):
        read_annotation_file(rows, labels, "ava")
    of_ava = LabelMap(dict(AVA_ACTIONS))
    assert read_annotation_file(write("a.csv", "v,1,0.1,0.1,0.5,0.9,2,0\n"), of_ava, "ava")


def test_one_box_with_other_rounding_is_one_person(write):
    rows = write(
        "train.csv",
        "A,2,0.11250000000000002,0.07999999999999996,0.35,0.95,1,0\n"
        "A,2,0.1125,0.08,0.35,0.95,4,0\nA,2,0.1125,0.0799999999999999,0.35,0.95,6,0\n",
    )
    (keyframe,) = read_annotation_file(rows, LabelMap(dict.fromkeys((1, 4, 6), "x")), "ava")
    assert len(keyframe.boxes) == 1 and keyframe.actions.all() and keyframe.person_ids == [0]


def test_a_box_that_sticks_out_a_little_is_clipped_and_said_once(write, capsys):
    base.tell_once.cache_clear()
    labels = LabelMap({1: "a", 2: "b"})
    text = "m,9,0.0042,-0.0021,0.9406,0.9087,1,1\nm,10,0.1,0.1,0.2,0.3,2,1\n"
    rows = write("train.csv", text + "m,11,0.8,0.7,1.009,0.9,2,1\n")
    for _ in range(2):
        first, _, last = read_annotation_file(rows, labels, "ava")
    assert first.boxes[0, 1] == 0 and last.boxes[0, 2] == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(
        "train.csv: of 2 rows the box sticks out of the frame and is clipped; the first is row 1"
    )
    beside = write("beside.csv", "m,11,-0.04,0.7,-0.01,0.9,2,1\n")
    with pytest.raises(InputError, match=r"x1 -0\.04 to x2 -0\.01 lies outside of the frame"):
        read_annotation_file(beside, labels, "ava")
    for corner, remedy in (
        ("1.06", "clip it or drop the row"),
        ("320", "divide by the frame's size"),
    ):
        far = write("far.csv", f"m,11,0.8,0.7,{corner},0.9,2,1\n")
        with pytest.raises(InputError, match=rf"far\.csv:1: x2 .* is outside \[0, 1\]; {remedy}"):
            read_annotation_file(far, labels, "ava")


def test_an_id_of_two_boxes_is_dropped_and_counted(write):
    text = "m,9,0.1,0.1,0.2,0.9,1,5\nm,9,0.3,0.1,0.5,0.9,1,5\nm,10,0.3,0.1,0.5,0.9,1,5\n"
    rows, problems = read_annotations(write("train.csv", text), LabelMap({1: "a"}))
    assert rows["person"].tolist() == [-1, -1, 5] and not problems.rows
    assert "2 boxes share their person's id with another of the same keyframe" in problems.notes[0]


def test_mmaction2_ignores_unnamed_keyframes_and_undetected_classes(write):
    truth = write("gt1.csv", "v,0001,0.1,0.1,0.5,0.9,1,0\n")
    found = write("d1.csv", "v,0002,0.1,0.1,0.5,0.9,1,0.9\nv,0001,0.1,0.1,0.5,0.9,1,0.8\n")
    one = write("one.pbtxt", "item { name: 'a' id: 1 }")
    more = write("gt2.csv", "v,0001,0.1,0.1,0.5,0.9,1,0\nv,0001,0.1,0.1,0.5,0.9,2,0\n")
    single = write("d2.csv", "v,0001,0.1,0.1,0.5,0.9,1,0.8\n")
    two = write("two.pbtxt", "item { name: 'a' id: 1 } item { name: 'b' id: 2 }")
    for rules, first, second in (("mmaction2", 1.0, 1.0), ("slowfast", 0.5, 0.5)):
        assert measured(truth, found, one, protocol=rules)["mAP"] == first
        assert measured(more, single, two, protocol=rules)["mAP"] == second


def test_boxes_of_other_keyframes_are_said_to_be(write):
    truth = write("gt.csv", "A,1,0.1,0.1,0.5,0.9,1,0\nA,2,0.1,0.1,0.5,0.9,1,0\n")
    found = write("d.csv", "B,1,0.1,0.1,0.5,0.9,1,0.8\n")
    labels = write("map.pbtxt", "item { name: 'sit' id: 1 }")
    line = files.lines(measured(truth, found, labels))[0]
    assert line.startswith("none of the 1 boxes lies on an annotated keyframe")
    assert "B,1.000000" in line and "A,1.000000" in line
    frames = {"A,0030": np.array([[0.1, 0.1, 0.5, 0.9, 0.8]])}
    boxes = write("proposals.pkl", pickle.dumps(frames))
    line = files.person_lines(files.measure_persons([truth], [boxes]))[0]
    assert "such as A,30.000000, annotated are such as A,1.000000" in line
    right = write("right.csv", "A,1,0.1,0.1,0.5,0.9,1,0.8\n")
    assert "note" not in measured(truth, right, labels)


def test_inverted_ground_truth_is_refused_as_the_official_evaluator_does(write):
    truth = write("gt.csv", "A,1,0.1,0.1,0.5,0.9,1,0\nA,1,0.5,0.1,0.1,0.9,1,0\n")
    labels = write("map.pbtxt", "item { name: 'sit' id: 1 }")
    with pytest.raises(InputError, match=r"gt\.csv:2: x1 is above x2; swap them"):
        measured(truth, truth, labels)


def test_one_video_bounds_nothing(write):
    rows = write("gt.csv", "A,1,0.1,0.1,0.5,0.9,1,0\nA,2,0.1,0.1,0.5,0.9,1,0\n")
    labels = write("map.pbtxt", "item { name: 'sit' id: 1 }")
    report = measured(rows, rows, labels, num_resamples=10)
    assert "interval" not in report
    assert "a single one bounds nothing" in files.lines(report)[0]


def test_a_spreadsheets_byte_order_mark_and_line_ends_change_nothing(write):
    text = "a,1,0.1,0.1,0.5,0.9,12,0.9\nb,1,0.1,0.1,0.5,0.9,12,0.8\n"
    plain = write("plain.csv", text)
    labels = write("map.pbtxt", "item { name: 'stand' id: 12 }")
    excel = codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode()
    doubled = text.replace("\n", "\r\r\n").encode()
    for name, content in (
        ("excel.csv", excel),
        ("bom.csv", codecs.BOM_UTF8 + text.encode()),
        ("cr.csv", doubled),
    ):
        saved = write(name, content)
        for truth, found in ((plain, saved), (saved, plain), (saved, saved)):
            assert measured(truth, found, labels)["mAP"] == 1.0, (name, truth.name)
    assert read_excluded([write("out.csv", codecs.BOM_UTF8 + b"a,1\r\n")]) == {("a", "1.000000")}


def test_check_shows_the_first_of_each_kind_and_writes_all_when_asked(write, tmp_path, capsys):
    folder = tmp_path / "annotations"
    folder.mkdir()
    lines = [f"v,{t},0.1,0.1,3.0,0.9,12,{t}" for t in range(900, 1000)]
    (folder / "ava_train_v2.2.csv").write_text("".join(f"{line}\n" for line in lines))
    (folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").write_text(
        "item { name: 'stand' id: 12 }"
    )
    assert main(["check", str(tmp_path)]) == 1
    shown = [line for line in capsys.readouterr().out.splitlines() if "x2" in line]
    assert len(shown) == 4 and "97 more of the same: x2 in pixels" in shown[-1]
    assert main(["check", str(tmp_path), "--out", str(tmp_path / "all.txt")]) == 1
    assert (tmp_path / "all.txt").read_text().count("divide by the frame's size") == 100
    text = "v,900,0.1,0.1,1.01,0.9,12,0\n"
    (folder / "ava_train_v2.2.csv").write_text(text)
    notes: list[str] = []
    before = check_dataset(tmp_path, notes=notes)
    assert len(notes) == 1 and not any("sticks out" in line for line in before)
    assert main(["check", str(tmp_path), "--strict"]) == 1
    assert "sticks out of the frame" in capsys.readouterr().out

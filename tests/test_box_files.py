"""Files of person boxes in the field's three forms: read right, or refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stadlib.base import InputError
from stadlib.data.boxes import BOX_COLUMNS, read_person_boxes, write_person_boxes

ROW = "v,0902,0.1,0.2,0.5,0.9,,0.75\n"
AVA_BOXES = "data/ava/ava_val_predicted_boxes.zC5Fh2tTS1U_1775-1798.csv"


def frame(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(BOX_COLUMNS))


def written(path: Path, content: object) -> Path:
    """``content`` in the form that the path's suffix names."""
    if isinstance(content, str | bytes):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        path.write_bytes(pickle.dumps(content))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_person_boxes(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and "\n" not in line
    return line.removeprefix(str(path))


def test_real_boxes_are_the_lines_of_their_file(shared):
    boxes = read_person_boxes(shared / AVA_BOXES)
    words = [line.split(",") for line in (shared / AVA_BOXES).read_text().splitlines()]
    assert len(boxes) == len(words) == 70
    assert list(boxes.columns) == list(BOX_COLUMNS)
    for column, place in zip(BOX_COLUMNS[1:], (1, 2, 3, 4, 5, 7), strict=True):
        assert boxes[column].tolist() == [float(row[place]) for row in words]
    assert set(boxes["video"]) == {"zC5Fh2tTS1U"}


def test_columns_have_one_type_whoever_read_them(tmp_path):
    fast = read_person_boxes(written(tmp_path / "fast.csv", ROW))
    careful = read_person_boxes(written(tmp_path / "careful.csv", '"v"' + ROW[1:]))
    others = [
        written(tmp_path / "none.csv", ""),
        written(tmp_path / "lines.csv", "\n\n"),
        written(tmp_path / "none.json", []),
        written(tmp_path / "none.pkl", {}),
    ]
    pd.testing.assert_frame_equal(fast, careful)
    for empty in map(read_person_boxes, others):
        assert len(empty) == 0
        assert empty.dtypes.equals(fast.dtypes)


def test_the_action_of_a_csv_is_empty_or_minus_one_and_its_first_wrong_row_is_named(tmp_path):
    expected = frame(("v", 902.0, 0.1, 0.2, 0.5, 0.9, 0.75))
    for text in (ROW, ROW.replace(",,", ",-1,"), "\ufeff\n" + ROW.replace("\n", "\r\n")):
        boxes = read_person_boxes(written(tmp_path / "boxes.csv", text))
        pd.testing.assert_frame_equal(boxes, expected, check_dtype=False, check_exact=True)
    for row, complaint in (
        (ROW.replace(",,", ",12,"), "action '12' is none that this file may"),
        (ROW.replace("0.5", "0.1"), "x1 0.1 >= x2 0.1; swap"),
        (ROW.replace(",,", ","), "7 columns; a row has 8"),
    ):
        path = written(tmp_path / "boxes.csv", ROW * 3 + row + ROW + "x\n")
        assert refusal(path).startswith(f":4: {complaint}")


def test_other_files_are_refused_by_name(tmp_path):
    line = refusal(written(tmp_path / "boxes.txt", ROW))
    assert all(word in line for word in (".csv", ".json", ".pkl"))
    assert "no such file; expected rows" in refusal(tmp_path / "none.pkl")
    assert len(read_person_boxes(written(tmp_path / "BOXES.CSV", ROW))) == 1


# -------------------------------------------------------------------------------------- writing

corner = st.tuples(st.floats(-0.1, 0.9), st.floats(1e-5, 1)).map(lambda c: (c[0], c[0] + c[1]))
video = st.text("aZ09-_ ü,\"'", min_size=1, max_size=12)
box = st.tuples(video, st.floats(0, 1e5), corner, corner, st.floats(0, 1)).map(
    lambda b: (*b[:2], b[2][0], b[3][0], b[2][1], b[3][1], b[4])
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(box, max_size=8))
def test_what_is_written_is_read_back(tmp_path, rows):
    boxes, path = frame(*rows), tmp_path / "folder" / "boxes.csv"
    write_person_boxes(boxes, path)
    again = read_person_boxes(path)
    assert again["video"].tolist() == boxes["video"].tolist()
    for name in BOX_COLUMNS[1:]:
        assert again[name].tolist() == [float(f"{value:.6f}") for value in boxes[name]]
    assert [other.name for other in path.parent.iterdir()] == ["boxes.csv"]


def test_the_written_form_is_avas(tmp_path):
    boxes = frame(("v", 902, 0.1, 0.2, 0.5, 0.9, 1), ("w", 5.0169494, 0.1, 0.2, 1, 0.9, 1e-7))
    boxes = boxes.assign(person=3, video=boxes["video"].astype("category"))
    write_person_boxes(boxes.astype({"x1": "float32"}), tmp_path / "boxes.csv")
    assert (tmp_path / "boxes.csv").read_text() == (
        "v,902.000000,0.100000,0.200000,0.500000,0.900000,,1.000000\n"
        "w,5.016949,0.100000,0.200000,1.000000,0.900000,,0.000000\n"
    )


@pytest.mark.parametrize("change", [{"score": [1.0, np.nan]}, {"x1": [0.1, 0.4999999]}])
def test_what_could_not_be_read_back_is_not_written(tmp_path, change):
    boxes = frame(*[("v", 902, 0.1, 0.2, 0.5, 0.9, 1)] * 2).assign(**change)
    with pytest.raises(InputError, match="row 2 to write has no box with an area"):
        write_person_boxes(boxes, tmp_path / "boxes.csv")
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------- COCO

ENTRY = {"image_id": 7, "bbox": [32, 48, 96, 120], "score": 0.5, "category_id": 1}
IMAGE = {"width": 320, "height": 240, "file_name": "v/0902.jpg"}
FRACTIONS = {"score": 0.5, "bbox": [0.1, 0.2, 0.3, 0.5]}
FOUND = frame(("v", 902.0, 0.1, 0.2, 0.4, 0.7, 0.5))


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY | IMAGE,
        ENTRY | IMAGE | {"file_name": "v,0902.PNG"},
        ENTRY | IMAGE | {"file_name": "v,902.0"},
        ENTRY | IMAGE | {"image_id": "v,0902", "file_name": "frame.jpg"},
        ENTRY | IMAGE | {"file_name": "w/1.jpg", "movie": "v", "timestamp": "0902"},
        FRACTIONS | {"image_id": 7, "video_id": "v", "timestamp": 902},
        FRACTIONS | {"image_id": "v/0902"},
        FRACTIONS | {"file_name": "v/902.jpeg", "category_id": 0},
    ],
)
def test_coco_forms_of_the_same_box(tmp_path, entry):
    boxes = read_person_boxes(written(tmp_path / "boxes.json", [entry]))
    pd.testing.assert_frame_equal(boxes, FOUND, check_dtype=False, rtol=1e-12)


def test_only_persons_are_kept(tmp_path):
    entries = [ENTRY | IMAGE | {"category_id": n, "score": n / 100} for n in (1, 62, 1, 3)]
    assert read_person_boxes(written(tmp_path / "a.json", entries))["score"].tolist() == [0.01] * 2
    line = refusal(written(tmp_path / "b.json", entries[1::2]))
    assert line.startswith(": nothing has category_id 1, a person's")


def second(**change: object) -> list[dict]:
    return [ENTRY | IMAGE, ENTRY | IMAGE | change]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        *((content, "not readable as JSON") for content in ("{", b"\xff\xfe\xfd", "[" * 100_000)),
        *((content, "not COCO's form; give a list") for content in ({"images": []}, "3", [3])),
        (second(bbox=[1, 2, 3]), "entry 2: "),
        ([{"bbox": [0, 0, 1, 1]}], "entry 1: no 'score'; add it"),
        *(
            (second(**change), "entry 2: [^;]* are not all numbers")
            for change in (
                {"score": None},
                {"score": float("nan")},
                {"score": True},
                {"bbox": [1, 2, float("inf"), 4]},
                {"height": None},
            )
        ),
        (second(bbox=[1, 2, 10**400, 4]), "entry 2: "),
        (second(bbox=[1, 2, 0, 4]), r"entry 2: bbox \[1, 2, 0, 4\] .* has no area"),
        (second(bbox=[0.1, 0.2, 0.3, 0.5]), "entry 2: bbox .* is a fraction perhaps"),
        (second(width=0), r"entry 2: .* frame of \(0, 240\) has no area"),
        (second(video="v", timestamp="x"), "entry 2: .*'x'"),
        (second(video="v", timestamp="nan"), "entry 2: timestamp nan is no number"),
        ([{**ENTRY, "image_id": "v,0902"}], "entry 1: bbox .* is in pixels; add"),
        ([{**ENTRY, "image_id": "v,0902", "width": 9}], "entry 1: no 'height'; add it"),
        *(
            (second(file_name=name), "entry 2: images .* tell no video and second; give")
            for name in (
                None,
                "v_0902.jpg",
                "v/000902.jpg",
                "val/v/0902.jpg",
                "v\\0902.jpg",
                "/0902.jpg",
                "v/0902.mp4",
            )
        ),
    ],
)
def test_coco_problems_are_one_line(tmp_path, content, expected):
    assert re.match(f": {expected}", refusal(written(tmp_path / "boxes.json", content)))


# ---------------------------------------------------------------------------------- proposals

PROPOSALS = {
    "0f39OWEqJ24,0902": np.array([[0.011, 0.157, 0.655, 0.983, 0.998163]]),
    "0f39OWEqJ24,0903": np.zeros((0, 5)),
    "a,b,5.5": np.asfortranarray([[0.054, 0.088, 0.91, 0.998], [0.016, 0.161, 0.519, 0.974]]),
    "w,0904": [[0, 0, 1, 1, np.float64(0.25)]],
    "w,0905": [],
    "w,0906": np.array([[0.25, 0.5, 0.75, 1, 0.5]], dtype=">f4"),
    "w,0907": np.array([[0, 0, 1, 1]], dtype=np.int64),
    "w,0908": [np.array([0.25, 0.5, 0.75, 1, 0.5])],
}
PROPOSED = frame(
    ("0f39OWEqJ24", 902.0, 0.011, 0.157, 0.655, 0.983, 0.998163),
    ("a,b", 5.5, 0.054, 0.088, 0.91, 0.998, 1.0),
    ("a,b", 5.5, 0.016, 0.161, 0.519, 0.974, 1.0),
    ("w", 904.0, 0.0, 0.0, 1.0, 1.0, 0.25),
    ("w", 906.0, 0.25, 0.5, 0.75, 1.0, 0.5),
    ("w", 907.0, 0.0, 0.0, 1.0, 1.0, 1.0),
    ("w", 908.0, 0.25, 0.5, 0.75, 1.0, 0.5),
)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("numpy_name", [b"numpy._core", b"numpy.core"])
def test_proposals_of_every_protocol_and_numpy(tmp_path, protocol, numpy_name):
    content = pickle.dumps(PROPOSALS, protocol=protocol)
    if protocol < 4:  # later ones tell the length of a name
        content = content.replace(b"numpy._core", numpy_name)
    boxes = read_person_boxes(written(tmp_path / "boxes.pkl", content))
    pd.testing.assert_frame_equal(boxes, PROPOSED, check_dtype=False, check_exact=True)


class Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_has_not_run(tmp_path, protocol):
    marker = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    calls = {
        f"{os.system.__module__}.system": (os.system, f"echo > {shlex.quote(str(marker))}"),
        "builtins.eval": (eval, code),
        "builtins.exec": (exec, code),
        "numpy.memmap": (np.memmap, str(marker), "f8", "w+", 0, (1,)),
    }
    for name, call in calls.items():
        named = name.replace("builtins", "__builtin__") if protocol < 3 else name
        for content in (Calls(*call), {"v,0902": Calls(*call)}, {Calls(*call): [[0, 0, 1, 1]]}):
            path = written(tmp_path / "boxes.pkl", pickle.dumps(content, protocol=protocol))
            expected = f": refused, it names {named}, which no file of boxes needs (it was not run)"
            assert refusal(path).startswith(expected)
            assert not marker.exists()
        pickle.loads(pickle.dumps(Calls(*call), protocol=protocol))
        assert marker.exists(), "the pickle is harmless, so the test tells nothing"
        marker.unlink()


def test_a_name_is_refused_without_an_import(tmp_path):
    module = "this"
    assert module not in sys.modules
    assert "it names this.s" in refusal(written(tmp_path / "a.pkl", b"cthis\ns\n."))
    assert "it names numpy.this.s" in refusal(written(tmp_path / "b.pkl", b"(inumpy.this\ns\n."))
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # What the notes are asked that numpy's own functions would do.
        (
            b"(dX\x03\x00\x00\x00v,1cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sbs.",
            "its ndarray is no",
        ),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "NEWOBJ class argument"),
        (b"ccodecs\nencode\n.", "it names codecs.encode"),
        (b"P1\n.", "it names an object outside the file, '1'"),
        (b"K\x01Q.", "it names an object outside the file, 1"),
        (b"\x80\x02\x82\x01.", "unregistered extension code 1"),
        (b"\x80\x05\x97.", "pickle stream refers to out-of-band data"),
        (b"", "Ran out of input"),
        (b"video,0902", "invalid load key"),
        (pickle.dumps(PROPOSALS)[:200], ""),
        (pickle.dumps({"v,1": np.array([[None]])}), "its dtype is no array of numbers"),
        (pickle.dumps({"v,1": np.zeros(1, "f8,i4")}), "its dtype is no array of numbers"),
        (pickle.dumps({"v,1": np.array(["x"])}), "its _reconstruct is no array of numbers"),
        (pickle.dumps({"v,1": pd.DataFrame({"x": [1]})}), "it names pandas."),
    ],
)
def test_pickles_of_other_things_are_refused(tmp_path, content, expected):
    assert refusal(written(tmp_path / "boxes.pkl", content)).startswith(f": refused, {expected}")


def test_an_array_is_never_larger_than_its_bytes(tmp_path):
    content = pickle.dumps({"v,1": np.zeros((3, 5))}, protocol=4).replace(
        b"K\x03K\x05", b"K\xffK\xff"
    )
    assert ": refused, cannot reshape" in refusal(written(tmp_path / "boxes.pkl", content))


GOOD = [0.1, 0.2, 0.5, 0.9, 0.5]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        *(
            (content, ": refused, .*; save a plain dict of 'video,0902'")
            for content in (
                [GOOD],
                {"v,1": {}},
                {"v,1": [["x"]]},
                {"v,1": [GOOD, GOOD[:4]]},
                {"v,1": [[10**400] * 4]},
            )
        ),
        *(
            ({key: [GOOD]}, r": key .* is no video,second .*; save a plain dict of 'video,0902'")
            for key in (("v", 1), "v", ",1", "v,nan")
        ),
        *(
            ({"v,1": boxes}, r": key 'v,1' with boxes \(.*\) is no video,second with boxes \(n, 5")
            for boxes in (np.ones((2, 6)), np.ones(5), None)
        ),
        ({"v,0": [], "v,3": [GOOD, [*GOOD[:4], np.nan]]}, r": key 'v,3': \[.* nan\] is no box"),
        ({"v,1": [[10, 20, 50, 90, 0.5]]}, ": key 'v,1': .*; divide pixels by"),
        ({"v,1": [[0.5, 0, 0.5, 1, 1]]}, ": key 'v,1': .* is no box"),
        ({"v,1": [[0, 1, 0.5, 0, 1]]}, ": key 'v,1': .* is no box"),
    ],
)
def test_proposals_that_are_none_are_named(tmp_path, content, expected):
    assert re.match(expected, refusal(written(tmp_path / "boxes.pkl", content)))


def test_a_refused_file_leaves_the_next_one_alone(tmp_path):
    """Instructions that set attributes of numpy's names find nothing to set them on."""
    for call in (b"cnumpy\ndtype\n", b"cnumpy._core.multiarray\n_reconstruct\n"):
        state = pickle.dumps((None, {"__defaults__": (), "_function": 3}), protocol=2)[2:-1]
        refusal(written(tmp_path / "bad.pkl", call + state + b"b."))
    boxes = read_person_boxes(written(tmp_path / "boxes.pkl", PROPOSALS))
    pd.testing.assert_frame_equal(boxes, PROPOSED, check_dtype=False, check_exact=True)

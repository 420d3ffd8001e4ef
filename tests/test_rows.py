"""One reader for all of AVA's CSV: its fast path and its careful one agree, problems are named."""

from __future__ import annotations

import math
import random
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stadlib.base import InputError
from stadlib.data import rows
from stadlib.data.rows import COLUMNS, EVALUATED, Form, Problems, read, read_rows, write_rows

BOX = "0.1,0.2,0.5,0.9"
ANNOTATED = Form(fractions=True, area=True, actions=range(1, 81), last="person")
DETECTED = Form(widths=(8,), area=True, actions=(-1,))
SUBMITTED = Form(widths=(8,), fractions=True, area=True, actions=(12, 80), last="probability")
FORMS = {
    EVALUATED: "12,0.5",
    ANNOTATED: "12,3",
    DETECTED: ",0.5",
    SUBMITTED: "80,0.25",
}


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("form", FORMS, ids=["evaluated", "annotated", "detected", "submitted"])
def test_the_fast_path_and_the_careful_one_agree_on_damaged_files(tmp_path, form):
    """Equal rows, or one clear line with file and row; never a traceback, never two opinions."""
    generator = random.Random(0)
    valid = "".join(f"{v},{t},{BOX},{FORMS[form]}\n" for v in "ab" for t in ("0902", "5.016949"))
    changes = [b"", b",", b"\n", b'"', b"x", b"9", b"\xff", b"-", b"\r", b" ", b"nan", b"e"]
    columns = [name for name in (*COLUMNS, "person") if form != ANNOTATED or name != "score"]
    fast = wrong = 0
    for _ in range(200):
        damaged = bytearray(valid.encode())
        for _ in range(generator.randint(0, 2)):
            at = generator.randrange(len(damaged))
            damaged[at : at + 1] = generator.choice(changes)
        path = written(tmp_path, bytes(damaged))
        problems = Problems(path, math.inf)
        careful = rows._read_carefully(path, form, problems)
        quick = rows._read_fast(path, form)
        if quick is not None:
            fast += 1
            assert not problems.rows, damaged
            kept = [name for name in ("row", *columns) if name in quick.columns]
            assert_frame_equal(quick.select(kept), careful.select(kept), check_exact=True)
        wrong += bool(problems.rows)
        assert not any("\n" in line for line in problems.lines())
        good, bad = set(careful["row"]), {row for row, _ in problems.rows}
        lines = path.read_text(errors="replace").split("\n")
        assert not good & bad and good | bad == {n for n, line in enumerate(lines, 1) if line}
    assert fast > 50 and wrong > 50


@pytest.mark.parametrize(
    ("form", "line", "complaint"),
    [
        (EVALUATED, "v,0902,0.1", "3 columns; a row has 2 or 7 or 8: video,timestamp"),
        (EVALUATED, "v", "1 columns; a row has 2 or 7 or 8"),
        (EVALUATED, f"v,0902,{BOX},12,0,1", "9 columns"),
        (DETECTED, f"v,0902,{BOX}", "6 columns; a row has 8"),
        (SUBMITTED, "v" * 200_000 + ",1", "2 columns; a row has 8"),
        (EVALUATED, b"\xff,0902", "not UTF-8 text; save"),
        (ANNOTATED, "v,soon", "timestamp 'soon' is no number"),
        (EVALUATED, "video,timestamp", "timestamp 'timestamp' is no number; .* has no header row"),
        (EVALUATED, "v,inf", "timestamp 'inf' is no number"),
        (EVALUATED, "v,0902,left,0.2,0.5,0.9,12", "x1 'left' is no number"),
        (DETECTED, "v,0902,0.1,,0.5,0.9,,1", "y1 '' is no number"),
        (EVALUATED, "v,0902,0.1,0.2,nan,0.9,12", "x2 'nan' is no number"),
        (ANNOTATED, "v,0902,-0.1,0.2,0.5,0.9,12", "x1 -0.1 is outside"),
        (ANNOTATED, "v,0902,10,20,50,90,12", "x1 10 is outside .*; divide"),
        (SUBMITTED, "v,0902,0.1,0.2,0.5,1.001,12,1", "y2 1.001 is outside"),
        (ANNOTATED, "v,0902,0.9,0.2,0.3,0.9,12", "x1 0.9 >= x2 0.3; swap"),
        (DETECTED, "v,0902,0.1,0.5,0.3,0.5,,1", "y1 0.5 >= y2 0.5; swap"),
        *((ANNOTATED, f"v,0902,{BOX},{a}", f"action '{a}'") for a in (81, 0, -1, "12.0", "", "x")),
        (EVALUATED, f"v,0902,{BOX},", "action '' is none"),
        (DETECTED, f"v,0902,{BOX},1,0.5", "action '1'"),
        (SUBMITTED, f"v,0902,{BOX},2,0.5", "action '2'"),
        (ANNOTATED, f"v,0902,{BOX},12,Anna", "person id 'Anna' is no number"),
        (EVALUATED, f"v,0902,{BOX},12,", "score '' is no number"),
        (SUBMITTED, f"v,0902,{BOX},12,1.5", "score 1.5 is outside .*; apply the sigmoid"),
    ],
)
def test_a_wrong_row_is_named_in_one_line(tmp_path, form, line, complaint):
    good = f"v,0902,{BOX},{FORMS[form]}\n".encode()
    line = line if isinstance(line, bytes) else line.encode()
    path = written(tmp_path, good + b"\n" + line + b"\n" + good + b"x\n")
    with pytest.raises(InputError, match=rf"rows\.csv:3: {complaint}") as caught:
        read_rows(path, form)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
@pytest.mark.parametrize(
    "row", ["v,902,0.1,0.2,0.5,0.9,12,0.5", '"v", 0902,.1,"0.2",5e-1,0.9,+12,0.5 ']
)
def test_spellings_of_the_same_row(tmp_path, row, start, ending):
    table = read_rows(written(tmp_path, start + row + ending + row))
    assert (
        table.astype({"video": str}).to_numpy().tolist()
        == [["v", 902.0, 0.1, 0.2, 0.5, 0.9, 12, 0.5]] * 2
    )


def test_problems_of_a_kind_are_counted_and_all_are_in_the_order_of_the_file(tmp_path):
    lines = [f"v,1,{BOX},99"] * 5 + ["v,x"] + [f"v,1,{BOX},12,7"]
    path = written(tmp_path, "\n".join(lines))
    table, problems = read(path, ANNOTATED, most=2)
    assert [line.removeprefix(f"{path}")[:12] for line in problems.lines()] == [
        ":1: action '", ":2: action '", ":6: timestam", ": 3 more of "
    ]  # fmt: skip
    assert table["row"].to_list() == [7] and table["person"].to_list() == [7]
    assert len(read(path, ANNOTATED, math.inf)[1].lines()) == 6
    with pytest.raises(InputError, match="no such file; expected rows"):
        read(tmp_path / "none.csv", ANNOTATED)


def test_small_numbers_are_written_in_plain_decimals(tmp_path):
    path = tmp_path / "rows.csv"
    assert write_rows(path, [pl.DataFrame({"a": [1e-8, 0.1]}), pl.DataFrame({"a": [0.0]})]) == 3
    assert path.read_text() == "0.00000001\n0.1\n0\n"

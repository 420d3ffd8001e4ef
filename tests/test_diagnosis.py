"""The oracle: each kind of error is found where it was made, and mending it brings its AP back."""

from __future__ import annotations

import pandas as pd
import pytest

from stadlib.data.labels import AVA_ACTIONS, LabelMap
from stadlib.data.rows import COLUMNS
from stadlib.evaluation.average_precision import frame_map
from stadlib.evaluation.diagnosis import KINDS, diagnose

LABELS = LabelMap({action: AVA_ACTIONS[action] for action in (12, 79, 80)})
LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0)
BESIDE = (0.2, 0.0, 0.6, 1.0)  # IoU 1/3 with LEFT, 0 with RIGHT


def rows(*entries: tuple) -> pd.DataFrame:
    return pd.DataFrame([("m", *entry) for entry in entries], columns=list(COLUMNS))


TRUTH = rows((902, *LEFT, 12, 1.0), (902, *RIGHT, 80, 1.0), (903, *LEFT, 12, 1.0))
GOOD = [(902, *LEFT, 12, 0.5), (902, *RIGHT, 80, 0.5), (903, *LEFT, 12, 0.4)]


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("missed", [row for row in GOOD if row[0] == 902]),
        ("box", [*GOOD[:2], (903, *BESIDE, 12, 0.4)]),
        ("label", [*GOOD, (902, *RIGHT, 12, 0.9)]),
        ("duplicate", [*GOOD[:2], (902, *LEFT, 12, 0.45), GOOD[2]]),
        ("background", [*GOOD, (903, *RIGHT, 12, 0.9)]),
    ],
)
def test_the_kind_of_error_that_was_made_is_the_one_that_pays(kind: str, found: list) -> None:
    table = diagnose(TRUTH, rows(*found), LABELS)
    assert table.loc[12, "AP"] == frame_map(TRUTH, rows(*found), LABELS).AP[12] < 1
    assert table.loc[12, "AP"] + table.loc[12, kind] == pytest.approx(1.0)
    others = [name for name in KINDS if name != kind]
    if kind == "box":  # nobody else found that person, so he is missed as well
        others.remove("missed")
    assert (table.loc[12, others] == 0).all()
    assert (table.loc[80, list(KINDS)] == 0).all()


def test_a_wrong_label_says_what_the_person_does_instead() -> None:
    truth = pd.concat([TRUTH, rows((904, *LEFT, 79, 1.0))])
    found = rows((902, *RIGHT, 79, 0.9), (902, *RIGHT, 12, 0.9), *GOOD)
    table = diagnose(truth, found, LABELS)
    assert table.loc[79, "instead"] == AVA_ACTIONS[80]
    assert table.loc[12, "instead"] == ""  # whoever watches does it in some pose
    assert table.loc[80, "instead"] == ""


def test_nothing_is_lost_by_perfect_detections_and_nothing_found_is_all_missed() -> None:
    perfect = diagnose(TRUTH, TRUTH, LABELS)
    assert (perfect["AP"] == 1).all()
    assert (perfect[list(KINDS)] == 0).all().all()
    nothing = diagnose(TRUTH, rows(), LABELS)
    assert (nothing["AP"] == 0).all()
    assert nothing["missed"].isna().all()  # no box is left that could be found

"""Frame mAP: the official evaluator's own numbers, and properties that need no shared file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stadlib.base import InputError
from stadlib.data.labels import AVA_ACTIONS, LabelMap, read_label_map
from stadlib.data.rows import COLUMNS, NO_LABEL, read_rows
from stadlib.evaluation import average_precision, matching
from stadlib.evaluation.average_precision import Result, frame_map

SHARED = Path(__file__).resolve().parents[2] / "shared"
CASES = SHARED / "evaluator_cases"
NAMES = sorted(path.name for path in CASES.glob("*") if path.is_dir()) or ["missing"]
LABELS = LabelMap({action: AVA_ACTIONS[action] for action in (12, 17, 79, 80)})


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_official_evaluator(name: str) -> None:
    if not CASES.is_dir():
        pytest.skip(f"the evaluator cases are not at {CASES}")
    case = CASES / name
    expected = json.loads((case / "expected.json").read_text())
    labels = read_label_map(case / "labelmap.pbtxt")
    if "error" in expected:
        with pytest.raises(InputError, match=r"det\.csv:1: (timestamp|action) "):
            frame_map(case / "gt.csv", case / "det.csv", labels)
        return
    result = frame_map(case / "gt.csv", case / "det.csv", labels).to_json()
    assert result["AP"].keys() == expected["AP"].keys()
    empty = [action for action, ap in expected["AP"].items() if ap is None]
    assert [action for action, ap in result["AP"].items() if ap is None] == empty
    if expected["ties_matter"]:
        ends = [expected["tie_interval_mAP"][end] for end in ("pessimistic", "optimistic")]
        assert ends[0] - 1e-12 <= result["mAP"] <= ends[1] + 1e-12
        matches = matching.match(case / "gt.csv", case / "det.csv", labels)
        assert average_precision.tie_interval(matches) == pytest.approx(ends, abs=1e-12)
    else:
        assert result["mAP"] == pytest.approx(expected["mAP"], abs=1e-12)
        assert result["AP"] == pytest.approx(expected["AP"], abs=1e-12)


def test_agrees_on_real_predictions() -> None:
    """The official 0.280017, to the last digit where numpy sorts as it did there.

    The scores have four decimals, so the official number depends on an unstable sort: 0.280017
    with AVX2 or AVX-512, 0.280612 without. In the order of the file it is another one of the
    numbers that the ties allow.
    """
    folder = SHARED / "data/ava"
    if not folder.is_dir():
        pytest.skip(f"the real predictions are not at {folder}")
    truth = read_rows(folder / "slowfast_predictions.1j20qq1JyX4.groundtruth.csv")
    found = read_rows(folder / "slowfast_predictions.1j20qq1JyX4.csv")
    labels = read_label_map(folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    official = frame_map(truth, found, labels, ties="official").mAP
    assert min(abs(official - 0.280017), abs(official - 0.280612)) < 5e-7
    matches = matching.match(truth, found, labels)
    low, high = average_precision.tie_interval(matches)
    assert low < min(official, average_precision.result(matches).mAP)
    assert max(official, average_precision.result(matches).mAP) < high


def rows(*entries: tuple) -> pd.DataFrame:
    return pd.DataFrame(entries, columns=list(COLUMNS))


def some_truth(num_keyframes: int = 20, seed: int = 0) -> pd.DataFrame:
    """Two persons a keyframe in separate halves, each with one of the classes."""
    rng = np.random.default_rng(seed)
    entries = []
    for second in range(num_keyframes):
        for left in (0.0, 0.5):
            x, y = left + 0.2 * rng.random(), 0.3 * rng.random()
            box = (x, y, x + 0.2, y + 0.5)
            entries.append(("movie", 902 + second, *box, int(rng.choice(LABELS.ids)), 1.0))
    return rows(*entries)


def noisy(truth: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """Every box scored for every class, with distinct scores that favour the right one."""
    rng = np.random.default_rng(seed)
    tables = [
        truth.assign(
            action_id=action,
            score=rng.random(len(truth)) * 0.6 + 0.4 * (truth["action_id"] == action),
        )
        for action in LABELS.ids
    ]
    return pd.concat(tables, ignore_index=True)


def test_perfect_detections_score_one() -> None:
    truth = some_truth()
    assert set(truth["action_id"]) == set(LABELS.ids)
    result = frame_map(truth, truth, LABELS)
    assert result.mAP == 1.0
    assert all(result.AP[action] == 1.0 for action in LABELS.ids)


def test_a_duplicate_lowers_the_score() -> None:
    truth = some_truth()
    assert frame_map(truth, truth.assign(score=0.5), LABELS).mAP == 1.0
    again = pd.concat([truth.assign(score=0.5), truth[:5], truth[:5]], ignore_index=True)
    assert 0.5 < frame_map(truth, again, LABELS).mAP < 1.0


def test_order_of_rows_does_not_matter_without_ties() -> None:
    truth = some_truth()
    found = noisy(truth)
    assert found["score"].is_unique
    shuffled = found.sample(frac=1, random_state=0)
    result = frame_map(truth, found, LABELS)
    assert 0.2 < result.mAP < 1.0
    assert frame_map(truth.sample(frac=1, random_state=3), shuffled, LABELS) == result


def test_equal_scores_give_one_number_for_one_file() -> None:
    truth = some_truth()
    found = noisy(truth).assign(score=0.5)
    assert frame_map(truth, found, LABELS) == frame_map(truth, found.copy(), LABELS)


def test_the_51st_row_of_a_keyframe_is_ignored() -> None:
    truth = rows(("movie", 902, 0.1, 0.1, 0.4, 0.9, 12, 1.0))
    elsewhere = [("movie", 902, 0.6, 0.1, 0.9, 0.9, 79, 0.5 + 0.001 * index) for index in range(50)]
    right = ("movie", 902, 0.1, 0.1, 0.4, 0.9, 12, 0.1)
    assert frame_map(truth, rows(*elsewhere[1:], right), LABELS).AP[12] == 1.0
    assert frame_map(truth, rows(*elsewhere, right), LABELS).AP[12] == 0.0
    assert frame_map(truth, rows(right, *elsewhere), LABELS).AP[12] == 0.0
    # Classes outside the label map do not use up the fifty.
    others = [(*row[:6], 5, row[7]) for row in elsewhere]
    assert frame_map(truth, rows(*others, right), LABELS).AP[12] == 1.0
    # Boxes without an area do: they are dropped after the cap.
    inverted = [(*row[:2], 0.9, 0.1, 0.6, 0.9, *row[6:]) for row in elsewhere]
    assert frame_map(truth, rows(*inverted, right), LABELS).AP[12] == 0.0


def test_an_iou_of_one_half_matches() -> None:
    truth = rows(("movie", 902, 0.0, 0.0, 0.5, 1.0, 12, 1.0))
    half = rows(("movie", 902, 0.0, 0.0, 0.25, 1.0, 12, 0.9))
    less = rows(("movie", 902, 0.0, 0.0, 0.2499, 1.0, 12, 0.9))
    assert frame_map(truth, half, LABELS).AP[12] == 1.0
    assert frame_map(truth, less, LABELS).AP[12] == 0.0
    assert frame_map(truth, less, LABELS, iou=0.4).AP[12] == 1.0


def test_no_second_best_when_the_best_box_is_taken() -> None:
    truth = rows(
        ("movie", 902, 0.0, 0.0, 0.50, 1.0, 12, 1.0), ("movie", 902, 0.1, 0.0, 0.60, 1.0, 12, 1.0)
    )
    found = rows(
        ("movie", 902, 0.0, 0.0, 0.50, 1.0, 12, 0.9), ("movie", 902, 0.01, 0.0, 0.51, 1.0, 12, 0.8)
    )
    assert frame_map(truth, found, LABELS).AP[12] == 0.5


def test_classes_without_truth_or_without_detections() -> None:
    truth = rows(("movie", 902, 0.1, 0.1, 0.4, 0.9, 12, 1.0))
    result = frame_map(truth, truth.assign(action_id=79), LABELS)
    assert result.AP == {12: 0.0, 17: None, 79: None, 80: None}
    nothing = frame_map(rows(), truth, LABELS)
    assert nothing.to_json() == {"mAP": None, "AP": dict.fromkeys(("12", "17", "79", "80"))}


def test_only_named_keyframes_count() -> None:
    truth = rows(("movie", 902, 0.1, 0.1, 0.4, 0.9, 12, 1.0))
    wrong = [("movie", 903, 0.1, 0.1, 0.4, 0.9, 12, 0.95)]
    found = rows(*wrong, ("movie", 902, 0.1, 0.1, 0.4, 0.9, 12, 0.9))
    assert frame_map(truth, found, LABELS).AP[12] == 1.0
    named = pd.concat([truth, rows(("movie", 903, *[np.nan] * 4, NO_LABEL, 1.0))])
    assert frame_map(named, found, LABELS).AP[12] == 0.5


def test_files_frames_and_joint_evaluation_agree(tmp_path: Path) -> None:
    ava, kinetics = some_truth(seed=2), some_truth(seed=3).assign(video="clip")
    kinetics["timestamp"] += 0.016949
    (tmp_path / "gt.csv").write_text(
        "".join(f"{','.join(map(str, row[:7]))}\n" for row in ava.itertuples(index=False))
        + "movie,0999\n"
    )
    found = pd.concat([noisy(ava), noisy(kinetics, seed=4)], ignore_index=True)
    joint = frame_map([tmp_path / "gt.csv", kinetics], found, LABELS)
    both = pd.concat([ava, kinetics], ignore_index=True)
    assert joint == frame_map(both, [noisy(ava), noisy(kinetics, seed=4)], LABELS)
    parts = [frame_map(part, found, LABELS).mAP for part in (ava, kinetics)]
    assert joint.mAP != pytest.approx(np.mean(parts), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("movie,0902,0.1,0.1,0.4,0.9,12\nmovie,0902,0.1\n", r":2: 3 columns; a row has 2, 7"),
        ("movie,0902,0.1,wide,0.4,0.9,12,0.5\n", r":1: y1 'wide' is no number"),
        ("movie,0902,0.1,0.1,nan,0.9,12,0.5\n", r":1: x2 'nan' is no number"),
        ("movie,0902,0.1,0.1,0.4,0.9,,0.5\n", r":1: action '' is no whole number"),
        ("video,timestamp,x1,y1,x2,y2,action_id\n", r":1: timestamp .*has no header row"),
    ],
)
def test_unreadable_rows_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "found.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"found\.csv{message}") as raised:
        read_rows(path)
    assert "\n" not in str(raised.value)


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file"):
        frame_map(tmp_path / "nowhere.csv", rows(), LABELS)
    with pytest.raises(InputError, match="column 'video' is missing"):
        frame_map(pd.DataFrame({"timestamp": [902]}), rows(), LABELS)


def test_json_has_text_keys() -> None:
    text = json.dumps(Result(mAP=0.5, AP={12: 0.5, 17: None}).to_json())
    assert text == '{"mAP": 0.5, "AP": {"12": 0.5, "17": null}}'

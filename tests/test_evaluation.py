"""Frame mAP: official numbers, the obvious evaluator, properties, the bootstrap, the command."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_evaluator import brute_force

from stadlib.base import ConfigError, InputError
from stadlib.cli import main
from stadlib.data.layout import AVA_ACTIONS, LabelMap, read_label_map, write_label_map
from stadlib.data.rows import COLUMNS, NO_LABEL, read_rows
from stadlib.evaluation.average_precision import (
    KINDS,
    Result,
    bootstrap,
    bootstrap_classes,
    class_aps,
    diagnose,
    frame_map,
    result,
    tie_interval,
)
from stadlib.evaluation.matching import match

SHARED = Path(__file__).resolve().parents[2] / "shared"
CASES = SHARED / "evaluator_cases"
NAMES = sorted(path.name for path in CASES.glob("*") if path.is_dir()) or ["missing"]
LABELS = LabelMap({action: AVA_ACTIONS[action] for action in (12, 17, 79, 80)})
BOX, ELSEWHERE = (0.1, 0.1, 0.4, 0.9), (0.6, 0.1, 0.9, 0.9)


def frame(entries: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(entries, columns=list(COLUMNS))


def rows(*entries: tuple) -> pd.DataFrame:
    return frame([("movie", *entry) for entry in entries])


# ------------------------------------------------------------------------- the official numbers


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
    ours = frame_map(case / "gt.csv", case / "det.csv", labels).to_json()
    assert ours["AP"].keys() == expected["AP"].keys()
    empty = [action for action, ap in expected["AP"].items() if ap is None]
    assert [action for action, ap in ours["AP"].items() if ap is None] == empty
    if expected["ties_matter"]:
        ends = [expected["tie_interval_mAP"][end] for end in ("pessimistic", "optimistic")]
        assert ends[0] - 1e-12 <= ours["mAP"] <= ends[1] + 1e-12
        matches = match(case / "gt.csv", case / "det.csv", labels)
        assert tie_interval(matches) == pytest.approx(ends, abs=1e-12)
    else:
        assert ours["mAP"] == pytest.approx(expected["mAP"], abs=1e-12)
        assert ours["AP"] == pytest.approx(expected["AP"], abs=1e-12)


def test_agrees_on_real_predictions() -> None:
    """The official 0.280017, to the last digit where numpy sorts as it did there.

    The scores have four decimals, so the official number depends on an unstable sort: 0.280017
    with AVX2 or AVX-512, 0.280612 without. The order of the file gives another number between the
    ends of the ties.
    """
    folder = SHARED / "data/ava"
    if not folder.is_dir():
        pytest.skip(f"the real predictions are not at {folder}")
    truth = read_rows(folder / "slowfast_predictions.1j20qq1JyX4.groundtruth.csv")
    found = read_rows(folder / "slowfast_predictions.1j20qq1JyX4.csv")
    labels = read_label_map(folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    official = frame_map(truth, found, labels, ties="official").mAP
    assert min(abs(official - 0.280017), abs(official - 0.280612)) < 5e-7
    matches = match(truth, found, labels)
    low, high = tie_interval(matches)
    assert low < min(official, result(matches).mAP) <= max(official, result(matches).mAP) < high


# ------------------------------------------------------------------------- the obvious evaluator

# A coarse grid makes ties, duplicates and an IoU of exactly one half common.
COORDINATE = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
ACTION = st.sampled_from([12, 17, 80, 5])
KEYFRAME = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([902.0, 903.0, 5.016949]))
SCORE = st.sampled_from([0.1, 0.2, 0.5, 0.9])


@st.composite
def tables(draw, unlabelled: bool, most: int) -> list[tuple]:
    """Rows of a file; boxes without an area and classes that are not evaluated included."""
    entries = []
    for _ in range(draw(st.integers(0, most))):
        video, second = draw(KEYFRAME)
        if unlabelled and draw(st.integers(0, 5)) == 0:
            entries.append((video, second, *[np.nan] * 4, NO_LABEL, 1.0))
            continue
        x1, y1, x2, y2 = (draw(COORDINATE) for _ in range(4))
        if unlabelled:
            x1, x2, y1, y2 = min(x1, x2), max(x1, x2) + 0.25, min(y1, y2), max(y1, y2) + 0.25
        entries.append((video, second, x1, y1, x2, y2, draw(ACTION), draw(SCORE)))
    return entries


@settings(max_examples=300, deadline=None)
@given(truth=tables(unlabelled=True, most=12), found=tables(unlabelled=False, most=40))
def test_equals_the_obvious_evaluator(truth: list[tuple], found: list[tuple]) -> None:
    ours = frame_map(frame(truth), frame(found), LABELS).AP
    assert ours == pytest.approx(brute_force(truth, found, LABELS.ids), abs=1e-12)


@pytest.mark.parametrize("scores", [4, 40, 4000])
def test_the_heap_of_fifty_equals_the_obvious_one(scores: int) -> None:
    """200 rows a keyframe, with many, some and no ties for the last places."""
    rng = np.random.default_rng(scores)
    truth, found = [], []
    for second in range(20):
        for _ in range(3):
            x, y = rng.random(2) * 0.5
            truth.append(("m", second, x, y, x + 0.4, y + 0.4, int(rng.choice(LABELS.ids)), 1.0))
        for _ in range(200):
            moved = np.array(truth[-1 - rng.integers(3)][2:6]) + 0.1 * rng.random(4)
            score = float(rng.integers(scores)) / scores
            found.append(("m", second, *moved, int(rng.choice(LABELS.ids)), score))
    expected = brute_force(truth, found, LABELS.ids)
    assert pytest.approx(expected, abs=1e-12) == frame_map(frame(truth), frame(found), LABELS).AP
    uncapped = frame_map(frame(truth), frame(found), LABELS, "slowfast").AP
    assert uncapped == pytest.approx(brute_force(truth, found, LABELS.ids, cap=10**9), abs=1e-12)
    assert uncapped != pytest.approx(expected, abs=1e-9)


# ---------------------------------------------------------------------------- rules, one by one


def videos(num_videos: int, seed: int, quality: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth and predictions of distinct scores; ``quality`` favours the right class."""
    rng, truth, found = np.random.default_rng(seed), [], []
    for video in range(num_videos):
        for second in range(6):
            action = int(rng.choice(LABELS.ids))
            truth.append((f"v{video}", second, *BOX, action, 1.0))
            for a in LABELS.ids:
                score = rng.random() + quality * (a == action)
                found.append((f"v{video}", second, *BOX, a, score))
    return frame(truth), frame(found)


def test_perfect_predictions_score_one_and_duplicates_lower_it() -> None:
    truth, _ = videos(6, seed=0, quality=0)
    perfect = frame_map(truth, truth.assign(score=0.5), LABELS)
    assert perfect == Result(mAP=1.0, AP=dict.fromkeys(LABELS.ids, 1.0))
    again = pd.concat([truth.assign(score=0.5), truth[:5], truth[:5]], ignore_index=True)
    assert 0.5 < frame_map(truth, again, LABELS).mAP < 1.0


def test_order_of_rows_does_not_matter_without_ties() -> None:
    truth, found = videos(6, seed=0, quality=0.4)
    assert found["score"].is_unique
    ours = frame_map(truth, found, LABELS)
    assert 0.2 < ours.mAP < 1.0
    shuffled = found.sample(frac=1, random_state=0)
    assert frame_map(truth.sample(frac=1, random_state=3), shuffled, LABELS) == ours


def test_the_51st_row_of_a_keyframe_is_ignored() -> None:
    truth = rows((902, *BOX, 12, 1.0))
    others = [(902, *ELSEWHERE, 79, 0.5 + 0.001 * index) for index in range(50)]
    right = (902, *BOX, 12, 0.1)
    # Classes outside the label map do not use up the fifty; boxes without an area do: they are
    # dropped after the cap.
    unknown = [(*row[:5], 5, row[6]) for row in others]
    inverted = [(902, 0.9, 0.1, 0.6, 0.9, *row[5:]) for row in others]
    for found, expected in (
        ([*others[1:], right], 1.0),
        ([*others, right], 0.0),
        ([right, *others], 0.0),
        ([*unknown, right], 1.0),
        ([*inverted, right], 0.0),
    ):
        assert frame_map(truth, rows(*found), LABELS).AP[12] == expected


def test_an_iou_of_one_half_matches() -> None:
    truth = rows((902, 0.0, 0.0, 0.5, 1.0, 12, 1.0))
    half, less = (rows((902, 0.0, 0.0, x2, 1.0, 12, 0.9)) for x2 in (0.25, 0.2499))
    assert frame_map(truth, half, LABELS).AP[12] == 1.0
    assert frame_map(truth, less, LABELS).AP[12] == 0.0
    assert frame_map(truth, less, LABELS, iou=0.4).AP[12] == 1.0


def test_no_second_best_when_the_best_box_is_taken() -> None:
    truth = rows((902, 0.0, 0.0, 0.50, 1.0, 12, 1.0), (902, 0.1, 0.0, 0.60, 1.0, 12, 1.0))
    found = rows((902, 0.0, 0.0, 0.50, 1.0, 12, 0.9), (902, 0.01, 0.0, 0.51, 1.0, 12, 0.8))
    assert frame_map(truth, found, LABELS).AP[12] == 0.5


def test_classes_without_truth_or_without_predictions() -> None:
    truth = rows((902, *BOX, 12, 1.0))
    ours = frame_map(truth, truth.assign(action_id=79), LABELS)
    assert ours.AP == {12: 0.0, 17: None, 79: None, 80: None}
    nothing = json.dumps(frame_map(rows(), truth, LABELS).to_json())
    assert nothing == '{"mAP": null, "AP": {"12": null, "17": null, "79": null, "80": null}}'


def test_only_named_keyframes_count() -> None:
    truth = rows((902, *BOX, 12, 1.0))
    found = rows((903, *BOX, 12, 0.95), (902, *BOX, 12, 0.9))
    assert frame_map(truth, found, LABELS).AP[12] == 1.0
    named = pd.concat([truth, rows((903, *[np.nan] * 4, NO_LABEL, 1.0))])
    assert frame_map(named, found, LABELS).AP[12] == 0.5


def test_protocols_differ_where_they_say() -> None:
    truth = frame([("m", 902, *BOX, 12, 1.0), ("k", 5.25, *BOX, 80, 1.0)])
    found = frame([("m", 950, *BOX, 12, 0.95), ("m", 902, *BOX, 12, 0.9)])
    assert frame_map(truth, found, LABELS).AP[12] == 1.0
    for rules in ("acar", "slowfast"):
        assert frame_map(truth, found, LABELS, rules).AP[12] == 0.5
        out = frozenset({("m", "950.000000")})
        assert frame_map(truth, found, LABELS, rules, excluded=out).AP[12] == 1.0
    assert frame_map(truth, found, LABELS, "acar").AP[80] == 0.0
    assert frame_map(truth, found, LABELS, "mmaction2").AP[80] is None
    later = frame([("k", 5.75, *BOX, 80, 0.9)])  # another keyframe, in the same second
    assert frame_map(truth, later, LABELS).AP[80] == 0.0
    assert frame_map(truth, later, LABELS, "acar").AP[80] == 1.0
    with pytest.raises(ConfigError, match="choose from official, acar, slowfast, mmaction2"):
        frame_map(truth, later, LABELS, "activitynet")


def test_files_frames_and_joint_evaluation_agree(tmp_path: Path) -> None:
    ava, found = videos(4, seed=2, quality=0.4)
    kinetics, more = (part.assign(video="clip") for part in videos(1, seed=3, quality=0.4))
    for part in (kinetics, more):
        part["timestamp"] += 0.016949
    ava.to_csv(tmp_path / "gt.csv", header=False, index=False)
    with (tmp_path / "gt.csv").open("a") as file:
        file.write("movie,0999\n")
    joint = frame_map([tmp_path / "gt.csv", kinetics], pd.concat([found, more]), LABELS)
    assert joint == frame_map(pd.concat([ava, kinetics]), [found, more], LABELS)
    parts = [frame_map(ava, found, LABELS).mAP, frame_map(kinetics, more, LABELS).mAP]
    assert joint.mAP != pytest.approx(np.mean(parts), abs=1e-6)
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file"):
        frame_map(tmp_path / "nowhere.csv", found, LABELS)
    with pytest.raises(InputError, match="column 'video' is missing"):
        frame_map(ava.drop(columns="video"), found, LABELS)


def test_videos_can_be_picked_out_of_matches() -> None:
    truth, found = videos(6, seed=5, quality=0.4)
    some = {"v1", "v4"}
    alone = frame_map(*(part[part["video"].isin(some)] for part in (truth, found)), LABELS)
    assert result(match(truth, found, LABELS).of_videos(some)) == alone


# -------------------------------------------------------------------- ties, and the bootstrap


def test_ties_in_the_official_order_stay_inside_their_interval() -> None:
    """Every order of equal scores, the official evaluator's included, lies between the ends."""
    truth, found = videos(12, seed=4, quality=0.2)
    coarse = found.round({"score": 1})
    low, high = tie_interval(match(truth, coarse, LABELS))
    values = [frame_map(truth, coarse, LABELS, ties="official").mAP]
    for seed in range(20):
        shuffled = coarse.sample(frac=1, random_state=seed)
        values.append(frame_map(truth, shuffled, LABELS).mAP)
        assert frame_map(truth, shuffled.copy(), LABELS).mAP == values[-1]  # a file, one number
    assert low <= min(values) < max(values) <= high
    distinct = match(truth, found, LABELS)
    assert tie_interval(distinct) == pytest.approx([result(distinct).mAP] * 2)
    official = frame_map(truth, found, LABELS, ties="official").mAP
    assert official == pytest.approx(result(distinct).mAP, abs=1e-12)


def blurred(found: pd.DataFrame) -> pd.DataFrame:
    """The same predictions, those of one class in a worse order."""
    noise = 0.4 * np.random.default_rng(9).random(len(found))
    return found.assign(score=found["score"] + noise * (found["action_id"] == 80))


def test_a_video_of_weight_two_equals_two_copies() -> None:
    """The bootstrap's AP is that of the copied files."""
    truth, found = videos(5, seed=0, quality=0.4)
    matches = match(truth, found, LABELS)
    drawn = Counter({"v0": 2, "v2": 3, "v4": 1})

    def copies(part: pd.DataFrame) -> pd.DataFrame:
        again = [part[part["video"] == v].assign(video=f"{v}-{n}")
                 for v, count in drawn.items() for n in range(count)]  # fmt: skip
        return pd.concat(again)

    weights = np.array([drawn[video] for video in matches.videos], dtype=float)
    expected = frame_map(copies(truth), copies(found), LABELS).mAP
    assert np.nanmean(class_aps(matches, weights)) == pytest.approx(expected, abs=1e-12)


def test_the_bootstrap_brackets_its_estimate_and_pairs_its_difference() -> None:
    truth, found = videos(40, seed=1, quality=0.3)
    one, two = (match(truth, part, LABELS) for part in (found, blurred(found)))
    (alone, low, high), other = (bootstrap(side, num_resamples=200) for side in (one, two))
    assert low < alone < high
    assert alone == pytest.approx(result(one).mAP, abs=1e-12)
    assert bootstrap(one, one, num_resamples=50) == (0, 0, 0)
    paired = bootstrap(one, two, num_resamples=200)
    assert paired[2] - paired[1] < 0.8 * np.hypot(high - low, other[2] - other[1])


def test_the_bootstrap_by_class_is_paired_and_adds_up_to_the_mean() -> None:
    truth, found = videos(40, seed=6, quality=0.3)
    one, two = (match(truth, part, LABELS) for part in (found, blurred(found)))
    by_class = bootstrap_classes(one, two, num_resamples=100)
    aps = [result(part).AP for part in (one, two)]
    gain = {action: aps[0][action] - aps[1][action] for action in LABELS.ids}
    assert {a: numbers[0] for a, numbers in by_class.items()} == pytest.approx(gain, abs=1e-12)
    assert by_class[80][1] < by_class[80][0] < by_class[80][2]
    assert by_class[12] == (0, 0, 0)
    whole, *_ = bootstrap(one, two, num_resamples=100)
    assert whole == pytest.approx(np.mean(list(gain.values())), abs=1e-12)


# --------------------------------------------------------------------------------- the diagnosis

LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0)
BESIDE = (0.2, 0.0, 0.6, 1.0)  # IoU 1/3 with LEFT, 0 with RIGHT
TRUTH = rows((902, *LEFT, 12, 1.0), (902, *RIGHT, 80, 1.0), (903, *LEFT, 12, 1.0))
GOOD = [(902, *LEFT, 12, 0.5), (902, *RIGHT, 80, 0.5), (903, *LEFT, 12, 0.4)]


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("missed", GOOD[:2]),
        ("box", [*GOOD[:2], (903, *BESIDE, 12, 0.4)]),
        ("label", [*GOOD, (902, *RIGHT, 12, 0.9)]),
        ("duplicate", [*GOOD[:2], (902, *LEFT, 12, 0.45), GOOD[2]]),
        ("background", [*GOOD, (903, *RIGHT, 12, 0.9)]),
    ],
)
def test_mending_the_kind_of_error_that_was_made_brings_its_ap_back(kind: str, found) -> None:
    table = diagnose(TRUTH, rows(*found), LABELS)
    assert table.loc[12, "AP"] == frame_map(TRUTH, rows(*found), LABELS).AP[12] < 1
    assert table.loc[12, "AP"] + table.loc[12, kind] == pytest.approx(1.0)
    # A person with no other box than a wrong one is missed as well.
    others = [name for name in KINDS if name != kind and (kind, name) != ("box", "missed")]
    assert (table.loc[12, others] == 0).all()
    assert (table.loc[80, list(KINDS)] == 0).all()


def test_a_wrong_label_says_what_the_person_does_instead() -> None:
    truth = pd.concat([TRUTH, rows((904, *LEFT, 79, 1.0))])
    found = rows((902, *RIGHT, 79, 0.9), (902, *RIGHT, 12, 0.9), *GOOD)
    table = diagnose(truth, found, LABELS)
    # A pose is not confused with an action of another group.
    assert table["instead"].to_dict() == {12: "", 79: AVA_ACTIONS[80], 80: ""}


def test_perfect_predictions_lose_nothing_and_without_predictions_all_is_missed() -> None:
    perfect = diagnose(TRUTH, TRUTH, LABELS)
    assert (perfect["AP"] == 1).all() and (perfect[list(KINDS)] == 0).all(axis=None)
    nothing = diagnose(TRUTH, rows(), LABELS)
    assert (nothing["AP"] == 0).all()
    assert nothing["missed"].isna().all()  # no box is left that could be found


# ----------------------------------------------------------------------------------- the command


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys) -> None:
    truth, found = videos(6, seed=3, quality=0.5)
    for name, part in (("gt", truth), ("det", found), ("worse", found[::2])):
        part.to_csv(tmp_path / f"{name}.csv", header=False, index=False)
    write_label_map(tmp_path / "map.pbtxt", LABELS)
    (tmp_path / "out_of_it.csv").write_text("v0,0\n")
    words = "evaluate --groundtruth gt.csv --detections det.csv --compare worse.csv --labels "
    words += "map.pbtxt --exclude out_of_it.csv --json out.json --bootstrap 20"
    arguments = [str(tmp_path / word) if "." in word else word for word in words.split()]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out.json").read_text())
    direct = frame_map(truth, found, LABELS, excluded=frozenset({("v0", "0.000000")}))
    assert {name: report[name] for name in ("mAP", "AP")} == direct.to_json()
    assert report["counts"]["boxes"] == len(truth) - 1
    assert report["difference"]["low"] <= report["difference"]["mAP"]
    assert f"mAP@0.5, %: {100 * direct.mAP:.4f} (official)" in printed
    assert main([*arguments, "--diagnose"]) == 0
    lost = json.loads((tmp_path / "out.json").read_text())["lost"]
    assert lost.keys() == {"12", "17", "79", "80"}
    assert all(lost[action]["label"] > 0 for action in lost)  # every person is scored for all
    assert "points of AP that mending one kind of error" in capsys.readouterr().out
    assert main([*arguments, "--protocol", "offical"]) == 1
    assert "protocol='offical'; choose from official, acar" in capsys.readouterr().err

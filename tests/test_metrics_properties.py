"""The evaluator against sixty lines of obvious Python, and its protocols, intervals and fuzz."""

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

from stadlib.base import ConfigError
from stadlib.cli import main
from stadlib.data.labels import AVA_ACTIONS, LabelMap, write_label_map
from stadlib.data.rows import COLUMNS, NO_LABEL
from stadlib.evaluation import average_precision, matching
from stadlib.evaluation.average_precision import _class_aps, frame_map

LABELS = LabelMap({action: AVA_ACTIONS[action] for action in (12, 17, 80)})
# A coarse grid makes ties, duplicates and an IoU of exactly one half common.
COORDINATE = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
ACTION = st.sampled_from([12, 17, 80, 5])
KEYFRAME = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([902.0, 903.0, 5.016949]))
SCORE = st.sampled_from([0.1, 0.2, 0.5, 0.9])


@st.composite
def tables(draw, unlabelled: bool, most: int) -> list[tuple]:
    """Rows of a file; boxes without an area and classes that nobody evaluates included."""
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


def frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))


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
            x1, y1, x2, y2 = np.array(truth[-1 - rng.integers(3)][2:6]) + 0.1 * rng.random(4)
            score = float(rng.integers(scores)) / scores
            found.append(("m", second, x1, y1, x2, y2, int(rng.choice(LABELS.ids)), score))
    expected = brute_force(truth, found, LABELS.ids)
    assert pytest.approx(expected, abs=1e-12) == frame_map(frame(truth), frame(found), LABELS).AP
    uncapped = frame_map(frame(truth), frame(found), LABELS, "slowfast").AP
    assert uncapped == pytest.approx(brute_force(truth, found, LABELS.ids, cap=10**9), abs=1e-12)
    assert uncapped != pytest.approx(expected, abs=1e-9)


BOX = (0.1, 0.1, 0.4, 0.9)


def test_protocols_differ_where_they_say() -> None:
    truth = frame([("m", 902, *BOX, 12, 1.0), ("k", 5.25, *BOX, 80, 1.0)])
    elsewhere = frame([("m", 950, *BOX, 12, 0.95), ("m", 902, *BOX, 12, 0.9)])
    assert frame_map(truth, elsewhere, LABELS).AP[12] == 1.0
    for rules in ("acar", "slowfast", "mmaction2"):
        assert frame_map(truth, elsewhere, LABELS, rules).AP[12] == 0.5
        out = frozenset({("m", "950.000000")})
        assert frame_map(truth, elsewhere, LABELS, rules, excluded=out).AP[12] == 1.0
    assert frame_map(truth, elsewhere, LABELS, "acar").AP[80] == 0.0
    assert frame_map(truth, elsewhere, LABELS, "mmaction2").AP[80] is None
    later = frame([("k", 5.75, *BOX, 80, 0.9)])  # another keyframe, in the same second
    assert frame_map(truth, later, LABELS).AP[80] == 0.0
    assert frame_map(truth, later, LABELS, "acar").AP[80] == 1.0
    with pytest.raises(ConfigError, match="choose from official, acar, slowfast, mmaction2"):
        frame_map(truth, later, LABELS, "activitynet")


def videos(num_videos: int, seed: int, quality: float) -> tuple[list[tuple], list[tuple]]:
    """Truth and detections of distinct scores; ``quality`` favours the right class."""
    rng, truth, found = np.random.default_rng(seed), [], []
    for video in range(num_videos):
        for second in range(6):
            action = int(rng.choice(LABELS.ids))
            truth.append((f"v{video}", second, *BOX, action, 1.0))
            found += [
                (f"v{video}", second, *BOX, a, rng.random() + quality * (a == action))
                for a in LABELS.ids
            ]
    return truth, found


def blurred(found: list[tuple]) -> list[tuple]:
    """The same detections, those of one class in a worse order."""
    rng = np.random.default_rng(9)
    return [(*row[:7], row[7] + 0.4 * rng.random() * (row[6] == 80)) for row in found]


def test_a_video_of_weight_two_equals_two_copies() -> None:
    """A resample in numbers of its own: the bootstrap's AP is that of the copied files."""
    truth, found = videos(5, seed=0, quality=0.4)
    matches = matching.match(frame(truth), frame(found), LABELS)
    drawn = Counter({"v0": 2, "v2": 3, "v4": 1})

    def copies(rows: list[tuple]) -> pd.DataFrame:
        again = [(f"{row[0]}-{n}", *row[1:]) for row in rows for n in range(drawn.get(row[0], 0))]
        return frame(again)

    weights = np.array([drawn.get(video, 0) for video in matches.videos], dtype=float)
    expected = frame_map(copies(truth), copies(found), LABELS).mAP
    assert np.nanmean(_class_aps(matches, weights)) == pytest.approx(expected, abs=1e-12)


def test_the_bootstrap_brackets_its_estimate_and_pairs_its_difference() -> None:
    truth, found = videos(40, seed=1, quality=0.3)
    worse = blurred(found)
    one, two = (matching.match(frame(truth), frame(rows), LABELS) for rows in (found, worse))
    alone = average_precision.bootstrap(one, num_resamples=200)
    assert alone.low < alone.estimate < alone.high
    assert alone.estimate == pytest.approx(average_precision.result(one).mAP, abs=1e-12)
    same = average_precision.bootstrap(one, one, num_resamples=50)
    assert (same.samples == 0).all()
    paired = average_precision.bootstrap(one, two, num_resamples=200)
    unpaired = np.subtract(
        alone.samples, average_precision.bootstrap(two, num_resamples=200, seed=7).samples
    )
    assert np.std(paired.samples) < 0.8 * np.std(unpaired)


def test_the_bootstrap_over_seeds_is_wider_and_paired() -> None:
    seeds = [videos(40, seed=number, quality=0.3) for number in (1, 2, 3)]
    truth = seeds[0][0]
    files = [[(*row[:7], found[7]) for row, found in zip(seeds[0][1], rows, strict=True)]
             for _, rows in seeds]  # fmt: skip
    matches = [matching.match(frame(truth), frame(rows), LABELS) for rows in files]
    over_seeds = average_precision.bootstrap(matches, num_resamples=200)
    mean = np.mean([average_precision.result(part).mAP for part in matches])
    assert over_seeds.estimate == pytest.approx(mean, abs=1e-12)
    assert over_seeds.low < mean < over_seeds.high
    same = average_precision.bootstrap(matches, matches, num_resamples=50)
    assert (same.samples == 0).all()
    with pytest.raises(ValueError, match="as many seeds"):
        average_precision.bootstrap(matches, matches[:2])


def test_the_bootstrap_by_class_is_paired_and_adds_up_to_the_mean() -> None:
    truth, found = videos(40, seed=6, quality=0.3)
    one, two = (
        matching.match(frame(truth), frame(rows), LABELS) for rows in (found, blurred(found))
    )
    by_class = average_precision.bootstrap_classes(one, two, num_resamples=100)
    aps = [average_precision.result(part).AP for part in (one, two)]
    gain = {action: aps[0][action] - aps[1][action] for action in LABELS.ids}
    assert {a: numbers[0] for a, numbers in by_class.items()} == pytest.approx(gain, abs=1e-12)
    assert by_class[80][1] < by_class[80][0] < by_class[80][2]
    assert by_class[12] == (0, 0, 0)
    whole = average_precision.bootstrap(one, two, num_resamples=100)
    assert whole.estimate == pytest.approx(np.mean(list(gain.values())), abs=1e-12)


def test_ties_in_the_official_order_stay_inside_their_interval() -> None:
    """Every order of equal scores, the official evaluator's included, lies between the ends."""
    rng = np.random.default_rng(0)
    truth, found = videos(12, seed=4, quality=0.2)
    coarse = [(*row[:7], round(row[7], 1)) for row in found]
    matches = matching.match(frame(truth), frame(coarse), LABELS)
    low, high = average_precision.tie_interval(matches)
    assert low < high
    values = [average_precision.frame_map(frame(truth), frame(coarse), LABELS, ties="official").mAP]
    for _ in range(20):
        shuffled = [coarse[place] for place in rng.permutation(len(coarse))]
        values.append(average_precision.frame_map(frame(truth), frame(shuffled), LABELS).mAP)
    assert low <= min(values) and max(values) <= high
    distinct = matching.match(frame(truth), frame(found), LABELS)
    assert average_precision.tie_interval(distinct)[0] == pytest.approx(
        average_precision.tie_interval(distinct)[1]
    )
    official = average_precision.frame_map(frame(truth), frame(found), LABELS, ties="official").mAP
    assert official == pytest.approx(average_precision.result(distinct).mAP, abs=1e-12)


def test_videos_can_be_picked_out_of_matches() -> None:
    truth, found = videos(6, seed=5, quality=0.4)
    matches = matching.match(frame(truth), frame(found), LABELS)
    some = {"v1", "v4"}
    alone = average_precision.frame_map(
        frame([row for row in truth if row[0] in some]),
        frame([row for row in found if row[0] in some]),
        LABELS,
    )
    assert average_precision.result(matches.of_videos(some)) == alone


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys) -> None:
    truth, found = videos(6, seed=3, quality=0.5)
    for name, rows in (("gt", truth), ("det", found), ("worse", found[::2])):
        frame(rows).to_csv(tmp_path / f"{name}.csv", header=False, index=False)
    write_label_map(tmp_path / "map.pbtxt", LABELS)
    (tmp_path / "out_of_it.csv").write_text("v0,0\n")
    words = ["evaluate", "--groundtruth", "gt.csv", "--detections", "det.csv", "--compare"]
    words += ["worse.csv", "--labels", "map.pbtxt", "--exclude", "out_of_it.csv"]
    words += ["--json", "out.json", "--bootstrap", "20"]
    arguments = [str(tmp_path / word) if "." in word else word for word in words]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out.json").read_text())
    direct = frame_map(frame(truth), frame(found), LABELS, excluded=frozenset({("v0", "0.000000")}))
    assert report["mAP"] == direct.mAP
    assert report["AP"] == {str(action): ap for action, ap in direct.AP.items()}
    assert report["counts"]["boxes"] == len(truth) - 1
    assert report["difference"]["low"] <= report["difference"]["mAP"]
    assert f"mAP@0.5, %: {100 * direct.mAP:.4f} (official)" in printed
    assert main([*arguments, "--diagnose"]) == 0
    lost = json.loads((tmp_path / "out.json").read_text())["lost"]
    assert lost.keys() == {"12", "17", "80"}
    assert all(lost[action]["label"] > 0 for action in lost)  # every person is scored for all
    assert "points of AP that mending one kind of error" in capsys.readouterr().out
    assert main([*arguments, "--protocol", "offical"]) == 1
    error = capsys.readouterr().err
    assert "protocol='offical'; choose from official, acar, slowfast, mmaction2" in error

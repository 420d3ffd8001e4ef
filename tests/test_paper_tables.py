"""The transcribed tables against what the paper's text says about them."""

from __future__ import annotations

import pandas as pd
import pytest

from stadlib.base import published_dir

SCORES = ["ava", "kinetics", "ava+kinetics"]


def table(number: int) -> pd.DataFrame:
    return pd.read_csv(published_dir("paper") / f"table{number}.csv")


def test_table1_has_every_row_once() -> None:
    rows = table(1)
    assert len(rows) == 15
    assert not rows.duplicated(["backbone", "pretrain", "input", "head", "memory"]).any()
    assert rows["backbone"].value_counts().to_dict() == {
        "ir-CSN-152": 9,
        "SlowFast-152": 5,
        "ensemble": 1,
    }
    assert rows["head"].value_counts().to_dict() == {
        "T-only": 8,
        "Linear": 3,
        "S-only": 3,
        "mixed": 1,
    }
    assert rows[SCORES].notna().all(axis=None)
    assert rows["ava+kinetics_test"].notna().sum() == 1


def test_best_single_model_and_ensemble() -> None:
    rows = table(1)
    single, ensemble = rows[:-1], rows.iloc[-1]
    best = single.loc[single["ava+kinetics"].idxmax()]
    assert best[SCORES].tolist() == [37.95, 35.26, 38.43]
    assert (best["backbone"], best["input"], best["memory"]) == ("ir-CSN-152", "64x1", "yes")
    assert (ensemble["ava+kinetics"], ensemble["ava+kinetics_test"]) == (40.97, 40.67)
    assert ensemble["ava+kinetics"] - ensemble["ava+kinetics_test"] == pytest.approx(0.3)
    assert (ensemble[SCORES] > single[SCORES].max()).all()


def test_relation_heads_gain_over_linear() -> None:
    rows = table(1)
    plain = rows[rows["memory"] == "no"].set_index(["backbone", "pretrain", "input", "head"])
    for score in SCORES:
        by_head = plain[score].unstack("head")
        assert len(by_head) == 3
        assert (by_head["S-only"] > by_head["Linear"]).all()
        assert (by_head["T-only"] > by_head["Linear"]).all()


def test_memory_gains_about_0_8_and_twice_the_time_about_0_6() -> None:
    rows = table(1)
    only_t = rows[rows["head"] == "T-only"]
    short = only_t[only_t["input"].isin(["8x8+32x2", "32x2"])]
    by_memory = short.pivot(index=["backbone", "pretrain"], columns="memory", values="ava+kinetics")
    gains = by_memory["yes"] - by_memory["no"]
    assert len(gains) == 3
    assert gains.between(0.4, 0.85).all()
    assert gains.max() == pytest.approx(0.8)
    memory = only_t[(only_t["memory"] == "yes") & (only_t["pretrain"] == "K700")]
    for _, pair in memory.groupby("backbone"):
        assert pair["ava+kinetics"].diff().iloc[-1] == pytest.approx(0.65, abs=0.13)


def test_joint_evaluation_is_not_the_mean_of_two() -> None:
    rows = table(1)
    assert (rows["ava+kinetics"] > rows[["ava", "kinetics"]].max(axis=1)).all()


def test_table2_ends_in_table1s_row() -> None:
    rows = table(2)
    assert len(rows) == 3
    chosen = table(1).query("backbone == 'SlowFast-152' and input == '8x8+32x2'").iloc[-1]
    assert rows.iloc[-1][["ava", "kinetics"]].tolist() == chosen[["ava", "kinetics"]].tolist()
    assert rows[["ava", "kinetics"]].idxmax().tolist() == [2, 2]
    assert (rows["finetune"] == "no").tolist() == [False, True, False]


def test_table3_small_classes_gain() -> None:
    rows = table(3).set_index("classes")["difference"]
    assert len(rows) == 9
    assert rows["bottom-20"] == 1.05
    assert rows["top-20"] == -0.16
    assert rows["cut"] == rows.max()
    assert rows["work on computer"] == rows.min()


def test_table4_follows_the_detector() -> None:
    rows = table(4).set_index("detector")
    assert len(rows) == 4
    assert rows["kinetics_person_AP"].dropna().tolist() == [77.0, 81.7, 82.3]
    for source, truth in (("ava", 43.53), ("kinetics", 48.49)):
        assert rows[source].is_monotonic_increasing
        assert rows.loc["GT", source] == truth
    detected = table(1).query("backbone == 'ir-CSN-152' and pretrain == 'K700' and input == '32x2'")
    detected = detected[(detected["head"] == "T-only") & (detected["memory"] == "no")]
    assert rows.loc["det-v3", ["ava", "kinetics"]].tolist() == [36.41, 34.80]
    assert detected[["ava", "kinetics"]].iloc[0].tolist() == [36.41, 34.80]

"""The ledger: rules of verdicts, pairing by seed, README and CSV as results/ give them."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from itertools import chain
from math import isnan, sqrt
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import make_record

from stadlib import base, recipes
from stadlib.recipes.experiment import Experiment
from stadlib.report import claims, scores, tables
from stadlib.report.claims import REPRODUCED, Claim, holm, p_value, verdict
from stadlib.study import Record, write_record

HEADS = {"linear": 0.0, "s-only": 0.05, "t-only": 0.05}


def record(row: Experiment, seed: int, shift: float = 0.0) -> Record:
    """mAP rises with the head and, for all heads alike, with the seed."""
    mean = 0.2 + 0.1 * seed + HEADS[row.head] * (1 + 0.01 * seed) + shift
    metrics = {source: {"mAP": mean, "AP": {"12": mean, "24": mean}} for source in scores.SOURCES}
    return make_record(replace(row, seed=seed), metrics, {"device": "cpu"}, Path("run"))


def row_of(head: str) -> Experiment:
    (row,) = recipes.table1(
        head=head, backbone="ir-csn-152", pretrain="K700", frames="32x2", memory="no"
    )
    return row


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Six seeds of three heads on v3's boxes as the committed reference."""
    folder = tmp_path / "reference"
    for head in HEADS:
        for seed in range(6):
            one = record(row_of(head), seed)
            write_record(one, folder / f"{one.digest}.json")
    shutil.copy(base.published_dir("reference") / "class_counts.csv", folder)
    folders = {"paper": base.published_dir("paper"), "reference": folder}
    for module in (base, claims, scores, tables):
        monkeypatch.setattr(module, "published_dir", folders.__getitem__)
    return folder


def found(text: str) -> list[Claim]:
    (places,) = [places for places in claims.measured() if places[0].text == text]
    return places


def one(kind: str, *values: float) -> Claim:
    words = {"table": "Table 1", "text": "so", "where": "here", "plus": ("a",), "minus": ("b",)}
    return Claim(**words, kind=kind, values=values, base=33.0)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("above", (1.0, 1.5, 2.0), "reproduced in miniature"),
        ("above", (-1.0, 1.5, 2.0), "not reproduced"),
        ("above", (-1.0, -1.5, -2.0), "contradicted"),
        ("below", (-1.0, -1.5, -2.0), "reproduced in miniature"),
        ("below", (1.0, 1.5, 2.0), "contradicted"),
        ("level", (-0.1, 0.0, 0.1), "reproduced in miniature"),
        ("level", (0.5, 0.6, 0.7), "reproduced in miniature"),
        ("level", (-1.0, 0.0, 1.0), "not reproduced"),
        ("level", (2.0, 2.1, 2.2), "contradicted"),
        ("level", (-2.0, -2.1, -2.2), "contradicted"),
        ("kept", (5.0, 9.0, 7.0), "reproduced in miniature"),
        ("kept", (-1.0, 9.0, 7.0), "not reproduced"),
        ("kept", (-2.0, -2.1, -2.2), "contradicted"),
    ],
)
def test_rules(kind, values, expected):
    assert verdict(kind, values, p_value(values), margin=1.0) == expected


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=9))
def test_the_p_value_agrees_with_the_interval(values):
    mean, half = scores.interval(values)
    if half > 1e-6 and abs(abs(mean) - half) > 1e-6:
        assert (p_value(values) < 0.05) == (abs(mean) > half)


def test_holm_corrects_as_by_hand():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5})
    assert corrected == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.5})
    # 0.04 alone would reject, three beside it forbid that
    assert sum(p < 0.05 for p in corrected.values()) == 1


@pytest.mark.parametrize(
    ("measured", "text", "reason"),
    [
        (one("above", 5.0), "+5.00", "1 of 3 seeds are there"),
        (one("above"), "not run", "no record of one seed on both sides at mini"),
        (one("above", -3.0, -2.0, -2.5), "-2.50 (-3.74 to -1.26)", "3 seeds scatter by 0.50"),
        (one("level", 3.0, 2.0, 2.5), "+2.50 (+1.26 to +3.74)", "3 seeds scatter by 0.50"),
        (one("above", 3.0, 2.0, 2.5), "+2.50 (+1.26 to +3.74)", ""),
        (one("height", 40.0, 41.0), "+40.50 (+34.15 to +46.85)", "no record is of that data"),
        (one("elsewhere", 40.0, 41.0), "+40.50 (+34.15 to +46.85)", "has not"),
    ],
)
def test_places_are_told_in_words(measured, text, reason):
    assert measured.mini == text
    assert reason in measured.reason
    assert (measured.verdict == REPRODUCED) == (measured.reason == "") == (reason == "")


def test_a_difference_is_also_a_share():
    measured = replace(one("above", 3.0, 2.0), base=25.0, paper=0.9, paper_base=36.0)
    assert measured.share == "+10 % (paper: +2 %)"
    assert one("above").share == "- (paper: -)"


def test_every_row_and_measure_has_a_name():
    rows, points = claims.committed(), claims.printed()
    known = {row for row, _ in points} | set(rows)
    everything = claims.read_claims()
    for places in everything:
        for place in places:
            assert {*place.plus, *place.minus} <= known, place.text
        named = {place.where: "x" for place in places}
        assert "{" not in places[0].because.format(**named)
    assert len({places[0].text for places in everything}) == len(everything)


def test_the_papers_numbers_are_those_of_its_tables():
    paper = {(m.text, m.where): m.paper for m in chain(*claims.measured())}
    for text, where, expected in (
        ("S-only is above the linear head", "SlowFast-152, K700", 36.92 - 36.26),
        ("T-only and S-only are level", "ir-CSN-152, K700", 36.98 - 37.16),
        ("Memory adds to T-only", "ir-CSN-152, K400+IG65M", 37.34 - 36.58),
        ("ir-CSN-152 is above SlowFast-152", "linear", 36.22 - 36.26),
        ("The ensemble is above the best single model", "the best of each seed", 40.97 - 38.43),
        ("From validation to test little is lost", "ensemble", 40.67 - 40.97),
        ("The empty Kinetics bank is above AVA first", "Kinetics", 33.44 - 28.59),
        ("Single classes drop: work on computer above all", "get up", -3.93),
        ("Ground-truth boxes are above v3's", "AVA", 43.53 - 36.41),
        ("Better boxes, better actions: ground truth above v1", "Kinetics", 15.79),
    ):
        assert paper[text, where] == pytest.approx(expected), (text, where)
    assert isnan(paper["Memory adds to T-only", "equal training"])


def test_seeds_are_paired(reference):
    lead, slowfast, *_ = found("S-only is above the linear head")
    assert lead.values[:3] == pytest.approx((5.0, 5.05, 5.1))
    assert lead.base == pytest.approx(45.0)
    assert lead.verdict == REPRODUCED  # the seeds' common 10 points cancel
    assert slowfast.verdict == "undecided" and slowfast.left == 3  # exploratory
    assert slowfast.reason.startswith("no record of slowfast-152 K700 8x8+32x2 s-only")
    assert found("T-only and S-only are level")[0].verdict == REPRODUCED
    for path in reference.glob("*.json"):
        if '"s-only"' in path.read_text() and '"seed": 1' not in path.read_text():
            path.unlink()
    lead = found("S-only is above the linear head")[0]
    assert lead.values == pytest.approx((5.05,)) and lead.verdict == "undecided"
    assert lead.left == 5 and lead.reason == "1 of 6 seeds are there"


def test_verdicts_are_of_the_test_split_once_it_is_scored(reference):
    for head in HEADS:
        for seed in range(6):
            tested = record(row_of(head), seed, shift=0.1 if head == "t-only" else 0.0)
            write_record(tested, reference / "test" / f"{tested.digest}.json")
    assert found("T-only is above the linear head")[0].values[0] == pytest.approx(15.0)
    assert found("S-only is above the linear head")[0].values[0] == pytest.approx(5.0)


def test_records_of_another_scale_or_recipe_do_not_count(reference):
    row = row_of("t-only")
    for number, other in enumerate((replace(row, flip=False), recipes.at(row, "smoke"))):
        write_record(record(other, 7), reference / f"{number}.json")
    assert len(found("T-only is above the linear head")[0].values) == 6


def test_ensembles_and_test_splits_are_picked_up(reference):
    text = "The ensemble is above the best single model"
    assert found(text)[0].reason == "no record of ensemble and of best single model at mini"
    for seed in range(2):
        single = record(row_of("t-only"), seed)
        mixed = {"head": "mixed", "seed": seed}
        better = record(row_of("t-only"), seed, 0.02)
        ensemble = replace(better, experiment=mixed, digest=f"e{seed}")
        write_record(ensemble, reference / "ensembles" / f"{seed}.json")
        write_record(single, reference / "ensembles/members" / f"{seed}.json")
        write_record(replace(single, digest="smoke", scale="smoke"), reference / "ensembles/x.json")
        for name, tested in (("single", single), ("ensemble", ensemble)):
            drop = {s: {**m, "mAP": m["mAP"] - 0.005} for s, m in tested.metrics.items()}
            write_record(replace(tested, metrics=drop), reference / "test" / f"{name}{seed}.json")
    assert found(text)[0].values == pytest.approx((2.0, 2.0))  # above its one member
    for place in found("From validation to test little is lost"):
        assert place.values == pytest.approx((-0.5, -0.5))
        assert place.verdict == "undecided"


def test_thirds_and_classes_are_averaged_over_their_classes():
    counts = {12: 900, 24: 10, 17: 500}
    run = record(row_of("t-only"), 0)
    run.metrics["ava"]["AP"] = {"12": 0.5, "24": 0.1, "17": None}
    for measure, expected in (("top third", 50), ("bottom third", 10), ("all", 30), ("cut", 10)):
        assert claims.by_seed([run], measure, counts) == pytest.approx({0: expected})
    assert claims.by_seed([run], "write", counts) == {}


def test_ledger_tells_what_is_not_shown():
    places = claims.measured()
    table = claims.ledger(places)
    assert list(table) == ["where", "paper", "mini", "share", "seeds", "verdict", "notes"]
    assert len(table) == len(places) == len(claims.read_claims())
    assert "|" not in table.to_csv()
    unshown = table[table["verdict"] != REPRODUCED]
    assert unshown["notes"].str.len().gt(0).all()
    longest = max(table["notes"], key=len)
    assert longest.replace("&", "&amp;") in table._repr_html_()


def test_every_place_is_a_line_of_the_csv(reference):
    table = pd.read_csv(io.StringIO(claims.csv()))
    assert len(table) == sum(map(len, claims.read_claims()))
    assert REPRODUCED in set(table["verdict"]) and f"**{REPRODUCED}**" in claims.markdown()


def test_a_run_lies_inside_or_outside_of_the_replicates(reference, monkeypatch):
    monkeypatch.setattr(scores, "published_dir", lambda kind: reference)
    values = [20 + 10 * seed for seed in range(6)]
    low, high = scores.predicted(values)
    assert (low + high) / 2 == pytest.approx(45)
    assert high - 45 == pytest.approx(2.5706 * 18.708 * sqrt(7 / 6), rel=1e-3)  # t of 5 degrees
    inside, outside = (record(row_of("linear"), 9, shift=shift) for shift in (-0.5, 0.5))
    told = scores.against_reference(inside)
    assert told.startswith("beside the 95 % prediction interval of 6 replicates")
    assert told.count("inside") == 3 and "A+K 60.00 inside -6.9" in told
    assert scores.against_reference(outside).count("OUTSIDE") == 3
    other = replace(row_of("linear"), flip=False)
    assert "0 replicates" in scores.against_reference(record(other, 0))
    for seed in range(3):  # of a row beyond the paper
        one = record(other, seed)
        write_record(one, reference / "beyond" / f"{one.digest}.json")
    assert "of 3 replicates" in scores.against_reference(record(other, 0))

"""The ledger: rules of verdicts, pairing by seed, README and CSV as results/ give them."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from itertools import chain
from math import isnan, nan
from pathlib import Path

import pandas as pd
import pytest

from stadlib import base, recipes
from stadlib.recipes.experiment import Experiment
from stadlib.report import claims, scores, tables
from stadlib.report.claims import Claim, Measured, Place, verdict
from stadlib.study import Record, make_record, write_record

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
    """Three seeds of three heads on v3's boxes as the committed reference."""
    folder = tmp_path / "reference"
    for head in HEADS:
        for seed in range(3):
            one = record(row_of(head), seed)
            write_record(one, folder / f"{one.digest}.json")
    shutil.copy(base.published_dir("reference") / "class_counts.csv", folder)
    folders = {"paper": base.published_dir("paper"), "reference": folder}
    for module in (base, claims, tables):
        monkeypatch.setattr(module, "published_dir", folders.__getitem__)
    return folder


def found(text: str) -> list[Measured]:
    (places,) = [places for places in claims.measured() if places[0].claim.text == text]
    return places


def one(kind: str, *values: float) -> Measured:
    place = Place(where="here", plus=("a",), minus=("b",))
    claim = Claim(table="Table 1", text="so", kind=kind, places=(place,))
    return Measured(claim, place, nan, values, ())


@pytest.mark.parametrize(
    ("kind", "low", "high", "expected"),
    [
        ("above", 0.1, 2, "shown"),
        ("above", -0.1, 2, "not shown"),
        ("above", 0, 2, "not shown"),
        ("above", -2, -0.1, "contradicted"),
        ("below", -2, -0.1, "shown"),
        ("below", 0.1, 2, "contradicted"),
        ("level", -0.9, 0.9, "shown"),
        ("level", -0.9, 1.1, "not shown"),
        ("level", 0.1, 0.9, "shown"),
        ("level", 1.1, 2, "contradicted"),
        ("level", -2, -1.1, "contradicted"),
        ("kept", -0.9, 9, "shown"),
        ("kept", -1.1, 9, "not shown"),
        ("kept", -9, -1.1, "contradicted"),
        ("above", nan, nan, "not measured"),
        ("height", 39, 41, "not measured"),
    ],
)
def test_rules(kind, low, high, expected):
    assert verdict(kind, low, high) == expected


@pytest.mark.parametrize(
    ("measured", "text", "reason"),
    [
        (one("above", 5.0), "+5.00", "one difference, +5.00, and one bounds nothing"),
        (one("above"), "not run", "no record of one seed on both sides at mini"),
        (one("above", -3.0, -2.0, -2.5), "-2.50 (-3.74 to -1.26)", "3 of 3 seeds lie on the other"),
        (one("level", 3.0, 2.0, 2.5), "+2.50 (+1.26 to +3.74)", "3 of 3 seeds lie outside"),
        (one("above", 3.0, 2.0, 2.5), "+2.50 (+1.26 to +3.74)", ""),
        (one("height", 40.0, 41.0), "+40.50 (+34.15 to +46.85)", "no record is of that data"),
    ],
)
def test_places_are_told_in_words(measured, text, reason):
    assert measured.text == text
    assert reason in measured.reason
    assert (measured.verdict == "shown") == (measured.reason == "") == (reason == "")


def test_every_row_and_measure_has_a_name():
    rows, points = claims.committed(), claims.printed()
    known = {row for row, _ in points} | set(rows)
    everything = claims.read_claims()
    for claim in everything:
        for place in claim.places:
            assert {*place.plus, *place.minus} <= known, claim.text
        named = {place.where: "x" for place in claim.places}
        assert "{" not in claim.because.format(**named)
    assert len({claim.text for claim in everything}) == len(everything)


def test_the_papers_numbers_are_those_of_its_tables():
    paper = {(m.claim.text, m.place.where): m.paper for m in chain(*claims.measured())}
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
    ):
        assert paper[text, where] == pytest.approx(expected), (text, where)
    assert isnan(paper["Memory adds to T-only", "equal training"])


def test_seeds_are_paired(reference):
    lead, slowfast, *_ = found("S-only is above the linear head")
    assert lead.values == pytest.approx((5.0, 5.05, 5.1))
    assert lead.verdict == "shown"  # the seeds' common 10 points cancel
    assert slowfast.verdict == "not measured"
    assert slowfast.reason.startswith("no record of slowfast-152 K700 8x8+32x2 s-only")
    assert found("T-only and S-only are level")[0].verdict == "shown"
    for path in reference.glob("*.json"):
        if '"s-only"' in path.read_text() and '"seed": 1' not in path.read_text():
            path.unlink()
    lead = found("S-only is above the linear head")[0]
    assert lead.values == pytest.approx((5.05,)) and lead.verdict == "not measured"


def test_records_of_another_scale_or_recipe_do_not_count(reference):
    row = row_of("t-only")
    for number, other in enumerate((replace(row, flip=False), recipes.at(row, "smoke"))):
        write_record(record(other, 7), reference / f"{number}.json")
    assert len(found("T-only is above the linear head")[0].values) == 3


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
        assert place.verdict == "shown"


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
    assert list(table) == ["where", "paper", "mini", "seeds", "verdict", "notes"]
    assert len(table) == len(places) == len(claims.read_claims())
    assert "|" not in table.to_csv()
    unshown = table[table["verdict"] != "shown"]
    assert unshown["notes"].str.len().gt(0).all()
    longest = max(table["notes"], key=len)
    assert longest.replace("&", "&amp;") in table._repr_html_()


def test_every_place_is_a_line_of_the_csv(reference):
    table = pd.read_csv(io.StringIO(claims.csv()))
    assert len(table) == sum(len(claim.places) for claim in claims.read_claims())
    assert "shown" in set(table["verdict"]) and "**shown**" in claims.markdown()

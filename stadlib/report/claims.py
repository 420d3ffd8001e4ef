"""What the paper says, as comparisons of rows of its tables.

Numbers are not here: the paper's stand in ``results/paper``, ours in ``results/reference``. What it
only supposes ("may attribute to") is left out.

What a measurement says about a claim.

The rules (:func:`verdict`) look at the 95 % interval over seeds:

- *not measured*: no seed was run on both sides, or one only, which bounds nothing.
- *shown*: the whole interval lies on the claim's side of zero; for "level", within
  :data:`MARGIN` points around zero; for "kept", above minus that margin.
- *contradicted*: the whole interval lies on the other side, or outside the margin.
- *not shown*: neither; more seeds would tell.

A claim about a table's height is never measured at ``mini``: heights are those of AVA-Kinetics. The
interval bounds what other seeds would give on the same miniature world, not what other movies
would, and nothing corrects for the number of claims.

The numbers behind the claims by row and measure: the paper's, and ours by seed.

A row of Table 1 is named by its words (``ir-csn-152 K700 32x2 t-only +M``), with ``, ground-truth
boxes`` where it is not scored on v3's; those of the other tables as in :mod:`stadlib.recipes`.
Beside them stand ``ensemble``, ``best single model``, ``new head without memory`` and ``boxes v1``
to ``v3``. ``, test`` is the test split. A measure is a source (mAP), a third of the classes or one
class (AP on AVA), or ``ava AP@0.5`` of person boxes. All in %.

Ours are committed records at ``mini``. Beyond those of the runs: ``ensembles/*.json``, records
whose experiment has the ``seed`` of the members; ``ensembles/members/*.json``, the members' own,
which may be of another machine, and thereby of another pretrained backbone, than the rows; and
``test/*.json``, records of a member or an ensemble, under the same digest, with the metrics of the
test split.

The ledger: every claim of the paper, its number, ours at ``mini``, and a verdict.

Differences in points, paired by seed where all else is equal but the words of the rows compared;
intervals are Student's t over seeds, 95 %. :mod:`stadlib.verdicts` has the rules of the verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf, isnan, nan, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import pandas as pd

from stadlib import recipes, study
from stadlib.base import published_dir, write_whole
from stadlib.data.labels import AVA_ACTIONS
from stadlib.report import scores, table1
from stadlib.report.scores import NOT_RUN, SOURCES, interval, percent, t95
from stadlib.report.table3 import thirds
from stadlib.study import Record, read_records

Kind = Literal["above", "below", "level", "kept", "height"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One place where a claim can be seen.

    Rows and measures are those of :mod:`stadlib.claim_values`: the points of ``plus`` are added,
    those of ``minus`` taken off.
    """

    where: str
    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()
    measure: str = "ava+kinetics"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper.

    Attributes:
        text: what is claimed.
        kind: ``above`` zero, ``below`` zero, ``level`` (zero within a margin), ``kept`` (no loss
            beyond the margin), or ``height`` (of a table, not a difference).
        places: where it can be seen. The first is where the ledger looks; the others are told
            beside it.
        words: the paper's own for how much.
        because: why the first place may look otherwise here. The text of another place's
            measurement is named in braces: ``{ground-truth boxes}``.
    """

    text: str
    kind: Kind
    places: tuple[Comparison, ...]
    words: str = ""
    because: str = ""


_TRUNKS = {
    "ir-CSN-152, K700": "ir-csn-152 K700 32x2",
    "SlowFast-152, K700": "slowfast-152 K700 8x8+32x2",
    "ir-CSN-152, K400+IG65M": "ir-csn-152 K400+IG65M 32x2",
}
_CSN, _SLOWFAST, _K400 = _TRUNKS.values()
_FINE_CSN, _FINE_SLOWFAST = (
    f"{trunk} t-only +M" for trunk in ("ir-csn-152 K700 64x1", "slowfast-152 K700 16x4+64x1")
)
_HEADS = ("t-only", "linear", "s-only", "t-only +M")
_PLACES = {"ava": "AVA", "kinetics": "Kinetics"}


def _of(where: str, plus: str, minus: str, measure: str = "ava+kinetics") -> Comparison:
    return Comparison(where=where, plus=(plus,), minus=(minus,), measure=measure)


def _heads(better: str, plain: str) -> tuple[Comparison, ...]:
    """Two heads on every backbone of Table 1, and on boxes that miss nobody."""
    rows = [_of(name, f"{trunk} {better}", f"{trunk} {plain}") for name, trunk in _TRUNKS.items()]
    found = "ground-truth boxes"
    return (*rows, _of(found, f"{_CSN} {better}, {found}", f"{_CSN} {plain}, {found}"))


def _trunks(better: str, plain: str) -> tuple[Comparison, ...]:
    """Two backbones under every head."""
    return tuple(_of(head, f"{better} {head}", f"{plain} {head}") for head in _HEADS)


def _both(better: str, plain: str) -> tuple[Comparison, ...]:
    return tuple(_of(place, better, plain, source) for source, place in _PLACES.items())


def _after(measure: str, *others: str) -> tuple[Comparison, ...]:
    """Decoupled training as the paper measures it, and against as much training without balance."""
    return (
        _of("AVA, after − before", "after", "before", measure),
        _of("against equal training", "after", "instance", measure),
        *(_of(other, "after", "before", other) for other in others),
    )


_TABLE1_paper_claims = (
    Claim(
        "S-only is above the linear head",
        "above",
        _heads("s-only", "linear"),
        "great improvement",
    ),
    Claim(
        "T-only is above the linear head",
        "above",
        _heads("t-only", "linear"),
        "great improvement",
    ),
    Claim(
        "T-only and S-only are level",
        "level",
        _heads("t-only", "s-only"),
        "similar results",
        because="on ground-truth boxes T-only differs by {ground-truth boxes}",
    ),
    Claim(
        "Memory adds to T-only",
        "above",
        (
            *_heads("t-only +M", "t-only"),
            _of("equal training", "A+K first, new head", "new head without memory"),
        ),
        "about 0.8",
    ),
    Claim(
        "Twice the temporal resolution adds",
        "above",
        (
            _of("ir-CSN-152", _FINE_CSN, f"{_CSN} t-only +M"),
            _of("SlowFast-152", _FINE_SLOWFAST, f"{_SLOWFAST} t-only +M"),
        ),
        "around 0.6",
    ),
    Claim("K700 pretraining is above K400+IG65M", "above", _trunks(_CSN, _K400), "generally 1"),
    Claim(
        "ir-CSN-152 is above SlowFast-152",
        "above",
        (
            *_trunks(_CSN, _SLOWFAST),
            _of("t-only +M, twice the resolution", _FINE_CSN, _FINE_SLOWFAST),
        ),
        "better",
    ),
    Claim(
        "The ensemble is above the best single model",
        "above",
        (_of("the best of each seed", "ensemble", "best single model"),),
    ),
    Claim(
        "From validation to test little is lost",
        "kept",
        (
            _of("ensemble", "ensemble, test", "ensemble"),
            _of("single models", "single models, test", "single models"),
        ),
        "only drop 0.3",
    ),
    Claim(
        "The ensemble's height on the test set of AVA-Kinetics",
        "height",
        (Comparison(where="ensemble", plus=("ensemble, test",)),),
        "1st place",
    ),
)
_FIRST, _NEW, _EMPTY = "A first", "A+K first, new head", "A+K first, empty Kinetics bank"
_TABLE2 = (
    Claim(
        "Trained on AVA first, Kinetics stays poor: below the new head",
        "below",
        (_of("Kinetics", _FIRST, _NEW, "kinetics"),),
        "a large margin",
    ),
    Claim(
        "Trained on AVA first, AVA is satisfying: level with the new head",
        "level",
        (_of("AVA", _FIRST, _NEW, "ava"),),
        "satisfying",
    ),
    Claim("The empty Kinetics bank is above the new head", "above", _both(_EMPTY, _NEW), "best"),
    Claim("The empty Kinetics bank is above AVA first", "above", _both(_EMPTY, _FIRST), "best"),
)
_DROPPED = ("work on a computer", "give/serve (an object) to (a person)", "get up")
_TABLE3_paper_claims = (
    Claim(
        "Decoupled training lifts the rarest third of the classes",
        "above",
        _after("bottom third"),
        "improvement of 1.05",
    ),
    Claim("The most frequent third hardly drops", "kept", _after("top third"), "almost"),
    Claim("All classes together gain", "above", _after("all")),
    Claim(
        "Single classes gain much: cut above all",
        "above",
        _after("cut", "write", "text on/look at a cellphone"),
        "great improvement",
    ),
    Claim(
        "Single classes drop: work on computer above all",
        "below",
        _after(*_DROPPED),
        "dropped performance",
        because="against equal training the difference is {against equal training}",
    ),
)
_TABLE4_paper_claims = (
    Claim("Better boxes, better actions: v2 above v1", "above", _both("v2", "v1"), "about 1"),
    Claim(
        "More precise boxes, better actions: v3 above v2",
        "above",
        _both("v3", "v2"),
        "corresponding gains",
    ),
    Claim("Ground-truth boxes are above v3's", "above", _both("ground-truth", "v3")),
    Claim(
        "The detector is a bottleneck: from v3 to ground truth is farther than from v1 to v3",
        "above",
        tuple(
            Comparison(where=place, plus=("ground-truth", "v1"), minus=("v3", "v3"), measure=source)
            for source, place in _PLACES.items()
        ),
        "one of bottleneck modules",
    ),
    Claim(
        "v3's boxes are level with v2's at AP@0.5 on AVA",
        "level",
        (_of("AVA's persons", "boxes v3", "boxes v2", "ava AP@0.5"),),
        "similar",
    ),
    Claim(
        "v3's boxes are better than v2's at AP@0.5:0.95 on AVA",
        "above",
        (_of("AVA's persons", "boxes v3", "boxes v2", "ava AP@0.5:0.95"),),
        "better performance",
    ),
)
CLAIMS = {
    "Table 1, A+K": _TABLE1_paper_claims,
    "Table 2 (ours: ir-CSN-152)": _TABLE2,
    "Table 3": _TABLE3_paper_claims,
    "Table 4": _TABLE4_paper_claims,
}
MARGIN = 1.0  # points; the gain that the paper calls significant (section 3.3)
SHOWN, NOT_SHOWN, CONTRADICTED, NOT_MEASURED = VERDICTS = (
    "shown",
    "not shown",
    "contradicted",
    "not measured",
)
_MOST_SEEDS = 1_000


def verdict(kind: Kind, low: float, high: float) -> str:
    """Judge an interval by the rules above; a NaN is an interval that is not there."""
    if isnan(low) or kind == "height":
        return NOT_MEASURED
    if kind == "below":
        return verdict("above", -high, -low)
    least = {"above": 0.0, "level": -MARGIN, "kept": -MARGIN}[kind]
    most = MARGIN if kind == "level" else inf
    if low > least and high < most:
        return SHOWN
    return CONTRADICTED if high < least or low > most else NOT_SHOWN


@dataclass(frozen=True)
class Measured:
    """A claim at one place, with its numbers.

    Attributes:
        table: of the paper.
        claim: what is claimed.
        place: where it is looked at.
        paper: the paper's difference in points; NaN where it prints none.
        values: ours, one a seed.
        missing: rows of the comparison for which no record has the measure.
    """

    table: str
    claim: Claim
    place: Comparison
    paper: float
    values: tuple[float, ...]
    missing: tuple[str, ...]

    @property
    def where(self) -> str:
        """The place, with its table."""
        return f"{self.table}: {self.place.where}"

    @property
    def bounds(self) -> tuple[float, float, float]:
        """Mean, low and high of ours; NaN where nothing bounds it."""
        mean, half = interval(self.values)
        return mean, mean - half, mean + half

    @property
    def verdict(self) -> str:
        """One of :data:`VERDICTS`."""
        return verdict(self.claim.kind, *self.bounds[1:])

    @property
    def text(self) -> str:
        """``+5.92 (+3.76 to +8.07)``; of one seed its difference alone."""
        mean, low, high = self.bounds
        if not self.values:
            return NOT_RUN
        return f"{mean:+.2f}" + ("" if isnan(low) else f" ({low:+.2f} to {high:+.2f})")


def reason(one: Measured) -> str:
    """Return why a place does not show its claim, in a sentence; empty where it does."""
    mean, count = one.bounds[0], len(one.values)
    if one.verdict == SHOWN:
        return ""
    if one.claim.kind == "height":
        return "a height on AVA-Kinetics; no record is of that data"
    if count == 0:
        rows = " and of ".join(one.missing or ("one seed on both sides",))
        return f"no record of {rows} at mini"
    if count == 1:
        return f"there is one difference, {mean:+.2f}, and one bounds nothing"
    if one.verdict == CONTRADICTED:
        against = sum(verdict(one.claim.kind, x, x) == CONTRADICTED for x in one.values)
        side = "outside the margin" if one.claim.kind in ("level", "kept") else "on the other side"
        return f"{against} of {count} seeds lie {side}, at {mean:+.2f} on average"
    needed = _needed_seeds(one)
    decides = f"about {needed} would decide" if needed else f"{_MOST_SEEDS} would not decide"
    scatter = f"{stdev(one.values):.2f} (standard deviation)"
    return f"{count} seeds scatter by {scatter} around {mean:+.2f}; {decides}"


def _needed_seeds(one: Measured) -> int | None:
    """How many seeds decide if mean and scatter stay as they are."""
    mean, scatter = one.bounds[0], stdev(one.values)
    for count in range(len(one.values), _MOST_SEEDS + 1):
        half = t95(count - 1) * scatter / sqrt(count)
        if verdict(one.claim.kind, mean - half, mean + half) != NOT_SHOWN:
            return count
    return None


Points = dict[tuple[str, str], float]  # by row and measure
_TABLE1_claim_values = [" ".join([*row[:4], *["+M"] * row[4]]) for row in recipes.TABLE1]
_TABLE3_claim_values = {  # the paper's short words, where ours differ
    "top-20": "top third",
    "bottom-20": "bottom third",
    "all-60": "all",
    "text on cellphone": "text on/look at a cellphone",
    "give/serve to": "give/serve (an object) to (a person)",
    "work on computer": "work on a computer",
}
_TABLE4_claim_values = {"det-v1": "v1", "det-v2": "v2", "det-v3": "v3", "GT": "ground-truth"}
_ACTIONS = {name: action for action, name in AVA_ACTIONS.items()}


def printed() -> Points:
    """The paper's numbers. Table 3 prints differences, so "before" is 0 there."""
    points: Points = {}
    tables = [None, *(pd.read_csv(published_dir("paper") / f"table{n}.csv") for n in (1, 2, 3, 4))]
    for name, (_, row) in zip(
        [*_TABLE1_claim_values, "ensemble"], tables[1].iterrows(), strict=True
    ):
        points |= {(name, source): row[source] for source in SOURCES}
    points["ensemble, test", "ava+kinetics"] = tables[1]["ava+kinetics_test"].iloc[-1]
    for source in SOURCES:
        points["best single model", source] = max(
            points[name, source] for name in _TABLE1_claim_values
        )
    for name, (_, row) in zip(recipes.TABLE2, tables[2].iterrows(), strict=True):
        points |= {(name, source): row[source] for source in ("ava", "kinetics")}
    for word, gain in tables[3].itertuples(index=False):
        measure = _TABLE3_claim_values.get(word, word)
        points |= {("after", measure): gain, ("before", measure): 0.0}
    for _, row in tables[4].iterrows():
        name = _TABLE4_claim_values[row["detector"]]
        points |= {(name, source): row[source] for source in ("ava", "kinetics")}
        points[f"boxes {name}", "ava AP@0.5"] = row["ava_person_AP"]
    return points


def committed() -> dict[str, list[Record]]:
    """Our records by row; a row that nobody ran has none, or is not named.

    Raises:
        InputError: a file is not a record, or as :func:`stadlib.report.reference_ensembles`.
    """
    folder = published_dir("reference")
    records = read_records(folder)
    tests = {record.digest: record for record in read_records(folder / "test")}
    found = _runs(records)
    members = [r for r in read_records(folder / "ensembles/members") if r.scale == "mini"]
    found["best single model"] = _best(members)
    found["ensemble"] = table1.reference_ensembles()
    found["single models"] = [record for record in members if record.digest in tests]
    for name in ("ensemble", "single models"):
        found[f"{name}, test"] = [tests[r.digest] for r in found[name] if r.digest in tests]
    for version, record in study.reference_detectors().items():
        found[f"boxes {version}"] = [record]
    return found


def by_seed(records: Iterable[Record], measure: str, counts: Mapping[int, int]) -> dict[int, float]:
    """What records measure, by seed; several of one seed are averaged.

    A seed whose records lack the class is left out.

    Args:
        records: of one row.
        measure: as in the module's text.
        counts: training instances by action id, which make the thirds.
    """
    values: dict[int, list[float]] = {}
    for record in records:
        seed = record.experiment.get("seed", 0)  # a detector has none: there is one of each
        if (value := _value(record, measure, counts)) is not None:
            values.setdefault(seed, []).append(value)
    return {seed: fmean(found) for seed, found in values.items()}


def _value(record: Record, measure: str, counts: Mapping[int, int]) -> float | None:
    if measure in SOURCES:
        return percent(record.metrics[measure]["mAP"])
    if " AP@" in measure:
        source, name = measure.split(" ")
        return percent(record.metrics[source][name])
    ap = scores.by_class(record.metrics, "ava")
    if measure in _ACTIONS:
        return ap.get(_ACTIONS[measure])
    return fmean(ap[action] for action in thirds(counts)[measure] if action in ap)


def _runs(records: list[Record]) -> dict[str, list[Record]]:
    """The records of every row that a recipe names."""
    rows = dict(zip(_TABLE1_claim_values, recipes.table1(), strict=True))
    truth = recipes.table1(detector="ground-truth")
    rows |= {
        f"{name}, ground-truth boxes": row
        for name, row in zip(_TABLE1_claim_values, truth, strict=True)
    }
    backbone = "ir-csn-152"
    rows |= recipes.table2(backbone=backbone) | recipes.table3(backbone=backbone)
    rows |= recipes.table4(backbone=backbone)
    rows["new head without memory"] = recipes.memory_ablation(backbone=backbone)[0, 0]
    return {name: scores.of_experiment(row, records) for name, row in rows.items()}


def _best(singles: list[Record]) -> list[Record]:
    """Of each seed the record that validates best: the hardest to beat."""
    best: dict[int, Record] = {}
    for record in sorted(singles, key=lambda r: r.metrics["ava+kinetics"]["mAP"]):
        best[record.experiment["seed"]] = record
    return list(best.values())


START, END = "<!-- claims:start -->", "<!-- claims:end -->"
CSV = published_dir("claims.csv")
Places = list[list[Measured]]  # by claim


def measured() -> Places:
    """Measure every place of every claim on the committed records.

    Raises:
        InputError: as :func:`stadlib.claim_values.committed`.
    """
    points, records = printed(), committed()
    counts = table1.reference_counts().to_dict()

    def one(table: str, claim: Claim, place: Comparison) -> Measured:
        signs = [(1, row) for row in place.plus] + [(-1, row) for row in place.minus]
        ours = {row: by_seed(records.get(row, []), place.measure, counts) for _, row in signs}
        seeds = sorted(set.intersection(*map(set, ours.values())))
        return Measured(
            table=table,
            claim=claim,
            place=place,
            paper=sum(sign * points.get((row, place.measure), nan) for sign, row in signs),
            values=tuple(sum(sign * ours[row][seed] for sign, row in signs) for seed in seeds),
            missing=tuple(row for row, found in ours.items() if not found),
        )

    return [
        [one(table, claim, place) for place in claim.places]
        for table, claims in CLAIMS.items()
        for claim in claims
    ]


class Ledger(pd.DataFrame):
    """A table whose sentences a notebook shows in full."""

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return super()._repr_html_()


def ledger(found: Places | None = None) -> Ledger:
    """Return the ledger as text, one claim a row.

    Args:
        found: measurements; the default is the committed reference's.

    Returns:
        By claim: ``where`` (the place of the numbers), ``paper`` (with its own words), ``mini``
        (with the 95 % interval), ``seeds``, ``verdict``, and ``notes``: why it is not shown, and
        the verdicts at the other places.
    """
    rows = {}
    for lead, *others in measured() if found is None else found:
        rows[lead.claim.text] = {
            "where": lead.where,
            "paper": _printed(lead),
            "mini": lead.text,
            "seeds": len(lead.values),
            "verdict": lead.verdict,
            "notes": " ".join([*_why(lead, others), *_elsewhere(others)]),
        }
    return Ledger(pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns="claim"))


def places(found: Places | None = None) -> pd.DataFrame:
    """Return every place of every claim in numbers, one a row: ``results/claims.csv``."""
    rows = []
    for one in chain.from_iterable(measured() if found is None else found):
        mean, low, high = one.bounds
        rows.append(
            {
                "claim": one.claim.text,
                "kind": one.claim.kind,
                "where": one.where,
                "paper_words": one.claim.words,
                "paper": one.paper,
                "mini": mean,
                "low": low,
                "high": high,
                "seeds": len(one.values),
                "verdict": one.verdict,
                "why": reason(one),
            }
        )
    return pd.DataFrame(rows).round(2)


def markdown(found: Places | None = None) -> str:
    """Return the ledger in Markdown, with the number of verdicts of each kind before it."""
    table = ledger(found)
    tally = Counter(table["verdict"])
    words = ", ".join(f"{tally[word]} {word}" for word in VERDICTS)
    table["verdict"] = "**" + table["verdict"] + "**"
    lines = [["claim", *table], ["---"] * (1 + len(table.columns))]
    lines += [[str(cell) for cell in row] for row in table.itertuples()]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"Of {len(table)} claims: {words}.\n\n{rows}"


def csv(found: Places | None = None) -> str:
    """Return :func:`places` as the text of a CSV file."""
    return places(found).to_csv(index=False, lineterminator="\n")


def update(readme: Path) -> None:
    """Rewrite the ledger in a Markdown file, and ``results/claims.csv``.

    Raises:
        InputError: the file lacks the two ``claims`` marks.
    """
    found = measured()
    table1.rewrite(readme, (START, END), markdown(found))
    write_whole(CSV, csv(found))


def _printed(one: Measured) -> str:
    """``+0.80 (“about 0.8”)``; a height has no sign."""
    sign = "" if one.claim.kind == "height" else "+"
    number = "-" if isnan(one.paper) else f"{one.paper:{sign}.2f}"
    return f"{number} (“{one.claim.words}”)" if one.claim.words else number


def _why(lead: Measured, others: Sequence[Measured]) -> list[str]:
    """One sentence, or none where the claim is shown."""
    if not (why := reason(lead)):
        return []
    if lead.values and lead.claim.because:
        texts = {one.place.where: one.text for one in others}
        why += "; " + lead.claim.because.format(**texts)
    return [f"{why[0].upper()}{why[1:]}."]


def _elsewhere(others: Sequence[Measured]) -> list[str]:
    """``Elsewhere shown: Kinetics +4.05.``, one sentence a verdict."""
    sentences = []
    for word in VERDICTS:
        names = [
            one.place.where + (f" {one.bounds[0]:+.2f}" if one.values else "")
            for one in others
            if one.verdict == word
        ]
        sentences += [f"Elsewhere {word}: {'; '.join(names)}."] if names else []
    return sentences

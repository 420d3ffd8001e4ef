"""The ledger: every claim of the paper, its number, ours at ``mini``, and a verdict.

``claims.toml`` has the claims and explains their words; ``results/protocol.md`` was written before
the records and says how they are judged. Differences are in points, paired by seed, on the test
split where it was scored. Of differences of the planned number of seeds (:func:`verdict`):

- *reproduced in miniature*: the mean lies on the claim's side, and the two-sided test of Student's
  t rejects zero at 5 % (for primary claims after Holm's correction). For "level", and for "kept" on
  one side, the mean is bounded within :data:`MARGIN` by one-sided tests at 5 %.
- *contradicted*: the same on the other side, or outside the margin.
- *not reproduced*: neither.
- *undecided*: fewer seeds than planned.
- *not examinable here*: of AVA-Kinetics, of large networks or of named classes.
"""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import inf, isnan, nan, sqrt
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd
import scipy

from stadlib import recipes
from stadlib.base import published_dir
from stadlib.data.layout import AVA_ACTIONS
from stadlib.report import scores, tables
from stadlib.report.scores import SOURCES, interval
from stadlib.study import Record

MARGIN = 0.03  # as a share of the mAP that is compared with
PLANNED = {True: 6, False: 3}  # seeds of a primary claim, of another
VERDICTS = (
    *("reproduced in miniature", "not reproduced", "contradicted", "undecided"),
    "not examinable here",
)
REPRODUCED, NOT_REPRODUCED, CONTRADICTED, UNDECIDED, ELSEWHERE = VERDICTS
TABLE1 = [" ".join([*row[:4], *["+M"] * row[4]]) for row in recipes.TABLE1]
SHORT = {  # the paper's short words in Table 3, where ours differ
    **{printed: name for name, printed in tables.THIRDS.items()},
    "text on cellphone": "text on/look at a cellphone",
    "give/serve to": "give/serve (an object) to (a person)",
    "work on computer": "work on a computer",
}
ACTIONS = {name: action for action, name in AVA_ACTIONS.items()}


def p_value(values: Sequence[float]) -> float:
    """Of the two-sided test that the mean is zero; 1 of fewer than two values."""
    if len(values) < 2:
        return 1.0
    error = stdev(values) / sqrt(len(values))
    t = -abs(fmean(values)) / error if error else -inf
    return 2 * float(scipy.special.stdtr(len(values) - 1, t))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction of several tests: rejecting what is below 5 % errs in 5 % of all cases."""
    corrected, least = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = least
    return corrected


def verdict(kind: str, values: Sequence[float], p: float, margin: float = nan) -> str:
    """Judge differences by the rules above; ``margin`` in points is for "level" and "kept"."""
    mean, half = interval(values)
    if kind in ("above", "below"):
        if p >= 0.05:
            return NOT_REPRODUCED
        return REPRODUCED if (mean > 0) == (kind == "above") else CONTRADICTED
    least, most = -margin, margin if kind == "level" else inf
    inner = interval(values, 0.9)[1]
    if least < mean - inner and mean + inner < most:
        return REPRODUCED
    return CONTRADICTED if mean + half < least or mean - half > most else NOT_REPRODUCED


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper at one place where it can be seen, and what was measured there.

    Differences are the points of ``plus`` minus those of ``minus``; ``claims.toml`` explains them.
    """

    table: str
    text: str
    kind: str
    where: str
    plus: Sequence[str]
    minus: Sequence[str] = ()
    measure: str = "ava+kinetics"
    primary: bool = False  # whether it is the contrast of a primary claim; others are exploratory
    words: str = ""
    because: str = ""
    paper: float = nan  # the paper's difference in points; NaN where it prints none
    values: tuple[float, ...] = ()  # ours, one a seed
    missing: tuple[str, ...] = ()  # rows of the comparison for which no record has the measure
    base: float = nan  # our mean of what is compared with
    paper_base: float = nan
    p: float | None = None  # corrected for the other primary claims; None: of this one alone

    @property
    def bounds(self) -> tuple[float, float, float]:
        """Mean, low and high of ours; NaN without an interval."""
        mean, half = interval(self.values)
        return mean, mean - half, mean + half

    @property
    def left(self) -> int:
        """How many seeds are missing."""
        return max(0, PLANNED[self.primary] - len(self.values))

    @property
    def verdict(self) -> str:
        """One of :data:`VERDICTS`."""
        if self.kind in ("height", "elsewhere"):
            return ELSEWHERE
        if self.left:
            return UNDECIDED
        p = p_value(self.values) if self.p is None else self.p
        return verdict(self.kind, self.values, p, MARGIN * self.base)

    @property
    def share(self) -> str:
        """``+20 % (paper: +2 %)``: the difference as a share of what is compared with."""
        numbers = ((self.bounds[0], self.base), (self.paper, self.paper_base))
        ours, theirs = (
            f"{100 * part / whole:+.0f} %" if whole and not isnan(part / whole) else "-"
            for part, whole in numbers
        )
        return f"{ours} (paper: {theirs})"

    @property
    def mini(self) -> str:
        """Ours, as :func:`.scores.difference_text` has it."""
        return scores.difference_text(*self.bounds)

    @property
    def reason(self) -> str:
        """Why this place does not show the claim, in a sentence; empty where it does."""
        mean, count, kind = self.bounds[0], len(self.values), self.kind
        if self.verdict == REPRODUCED:
            return ""
        if kind == "height":
            return "a height on AVA-Kinetics; no record is of that data"
        if kind == "elsewhere":
            return "of networks, data or classes that the miniature world has not"
        if count == 0:
            rows = " and of ".join(self.missing or ("one seed on both sides",))
            return f"no record of {rows} at mini"
        if self.left:
            return f"{count} of {count + self.left} seeds are there"
        scatter = f"{stdev(self.values):.2f} (standard deviation)"
        return f"{count} seeds scatter by {scatter} around {mean:+.2f}"


def printed() -> dict[tuple[str, str], float]:
    """The paper's numbers by row and measure; Table 3 has differences, so "before" is 0 there."""
    points: dict[tuple[str, str], float] = {}
    first, second, third, fourth = (
        pd.read_csv(published_dir("paper") / f"table{number}.csv") for number in (1, 2, 3, 4)
    )
    for name, (_, row) in zip([*TABLE1, "ensemble"], first.iterrows(), strict=True):
        points |= {(name, source): row[source] for source in SOURCES}
    points["ensemble, test", "ava+kinetics"] = first["ava+kinetics_test"].iloc[-1]
    for source in SOURCES:
        points["best single model", source] = max(points[name, source] for name in TABLE1)
    for name, (_, row) in zip(recipes.TABLE2, second.iterrows(), strict=True):
        points |= {(name, source): row[source] for source in tables.PLACES}
    for word, gain in third.itertuples(index=False):
        measure = SHORT.get(word, word)
        points |= {("after", measure): gain, ("before", measure): 0.0}
    for _, row in fourth.iterrows():
        name = tables.PAPER_ROWS[row["detector"]]
        points |= {(name, source): row[source] for source in tables.PLACES}
        points[f"boxes {name}", "ava AP@0.5"] = row["ava_person_AP"]
    return points


def committed() -> dict[str, list[Record]]:
    """Our records at ``mini`` by row; a row without records is empty or missing.

    ``ensembles/members`` are copies of rows. ``test`` holds records under the same digests, with
    the test split's metrics.
    """
    runs = {}
    for detector, ending in (("v3", ""), ("ground-truth", ", ground-truth boxes")):
        names = [name + ending for name in TABLE1]
        rows = zip(names, recipes.table1(detector=detector), strict=True)
        runs |= scores.replicates(dict(rows))
    for table in (2, 3, 4):
        runs |= tables.records_of(table)
    chosen = scores.choice_records()
    runs["new head, ground-truth boxes"] = chosen["memory", "yes"]
    runs["new head without memory, ground-truth boxes"] = chosen["memory", "no"]
    members = scores.reference_records("ensembles/members")
    members.sort(key=lambda record: record.metrics["ava+kinetics"]["mAP"])
    best = {record.experiment["seed"]: record for record in members}  # the last one of a seed
    tests = {record.digest: record for record in scores.reference_records("test")}
    runs["best single model"] = list(best.values())
    runs["ensemble"] = scores.reference_records("ensembles")
    runs["single models"] = [record for record in members if record.digest in tests]
    for name in ("ensemble", "single models"):
        runs[f"{name}, test"] = [tests[r.digest] for r in runs[name] if r.digest in tests]
    boxes = tables.reference_boxes()
    return runs | {f"boxes {version}": records for version, records in boxes.items()}


def by_seed(
    records: Iterable[Record], measure: str, counts: Mapping[int, int] | pd.Series
) -> dict[int, float]:
    """What the records of one row measure, by seed: a mean over those that have the measure.

    ``counts`` (by action id) make the thirds.
    """
    values = defaultdict(list)
    for record in records:
        if measure in SOURCES or " AP@" in measure:
            (value,) = scores.values_of([record], *measure.split(" "))
        elif measure in ACTIONS:
            value = scores.by_class(record.metrics, "ava").get(ACTIONS[measure])
        else:
            ap = scores.by_class(record.metrics, "ava")
            of_third = [ap[a] for a in tables.thirds(counts)[measure] if a in ap]
            value = fmean(of_third) if of_third else None
        if value is not None:
            values[record.experiment.get("seed", 0)].append(value)  # a detector has no seed
    return {seed: fmean(those) for seed, those in values.items()}


def read_claims() -> list[list[Claim]]:
    """The claims in the paper's order, each at all its places, the contrast first."""
    content = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    claims = []
    for claim in content["claim"]:
        places, primary = claim.pop("places"), claim.pop("primary", False)
        first, *others = (Claim(**claim, **place) for place in places)
        claims.append([replace(first, primary=primary), *others])
    return claims


def measured() -> list[list[Claim]]:
    """Measure every place of every claim on the committed records, by claim.

    On the test split, where all rows of a comparison have been scored there, else on validation.
    """
    points, records, counts = printed(), committed(), tables.reference_counts()
    tests = {r.digest: r for r in scores.reference_records("test")}
    measurements = []
    for places in read_claims():
        measurements.append([])
        for place in places:
            signs = [(1, row) for row in place.plus] + [(-1, row) for row in place.minus]
            rows = {row: records.get(row, []) for _, row in signs}
            found = {row: [tests[r.digest] for r in rows[row] if r.digest in tests] for row in rows}
            if all(found.values()) and not any(row.endswith(", test") for row in rows):
                rows = found
            ours = {row: by_seed(of, place.measure, counts) for row, of in rows.items()}
            first = next(iter(place.minus), place.plus[0])
            seeds = sorted(set.intersection(*map(set, ours.values())))
            measurements[-1].append(
                replace(
                    place,
                    paper=sum(sign * points.get((row, place.measure), nan) for sign, row in signs),
                    values=tuple(
                        sum(sign * ours[row][seed] for sign, row in signs) for seed in seeds
                    ),
                    missing=tuple(row for row, by_row in ours.items() if not by_row),
                    base=fmean([*ours[first].values()] or [nan]),
                    paper_base=points.get((first, place.measure), nan),
                )
            )
    tested = {
        lead.text: p_value(lead.values)
        for lead, *_ in measurements
        if lead.primary and lead.kind in ("above", "below") and not lead.left
    }
    corrected = holm(tested)
    return [[replace(lead, p=corrected.get(lead.text)), *others] for lead, *others in measurements]


class Ledger(pd.DataFrame):
    """A table whose sentences a notebook shows in full."""

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return super()._repr_html_()


def ledger(measurements: list[list[Claim]] | None = None) -> Ledger:
    """The ledger as text, one claim a row; ``notes`` say why it is not shown, and other places'."""
    rows = {}
    for lead, *others in measured() if measurements is None else measurements:
        notes = []
        if why := lead.reason:
            if lead.values and lead.because:
                texts = {one.where: one.mini for one in others}
                why += "; " + lead.because.format(**texts)
            notes.append(f"{why[0].upper()}{why[1:]}.")
        for word in VERDICTS:
            names = [
                one.where + (f" {one.bounds[0]:+.2f}" if one.values else "")
                for one in others
                if one.verdict == word
            ]
            notes += [f"Elsewhere {word}: {'; '.join(names)}."] if names else []
        sign = "" if lead.kind == "height" else "+"
        paper = "-" if isnan(lead.paper) else f"{lead.paper:{sign}.2f}"
        rows[lead.text] = {
            "where": f"{lead.table}: {lead.where}",
            "paper": paper + (f" (“{lead.words}”)" if lead.words else ""),
            "mini": lead.mini,
            "share": lead.share,
            "seeds": len(lead.values),
            "verdict": lead.verdict + f" ({lead.left} more)" * (lead.verdict == UNDECIDED),
            "notes": " ".join(notes),
        }
    return Ledger(pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns="claim"))


def markdown(measurements: list[list[Claim]] | None = None) -> str:
    """The ledger in Markdown, with the number of verdicts of each kind before it."""
    table = ledger(measurements)
    tally = Counter(verdict.partition(" (")[0] for verdict in table["verdict"])
    words = ", ".join(f"{tally[word]} {word}" for word in VERDICTS)
    table["verdict"] = "**" + table["verdict"] + "**"
    rows = scores.markdown(["claim", *table], table.itertuples())
    return f"Of {len(table)} claims: {words}.\n\n{rows}"


def csv(measurements: list[list[Claim]] | None = None) -> str:
    """Every place of every claim in numbers, one a row: ``results/claims.csv``."""
    rows = []
    for one in chain.from_iterable(measured() if measurements is None else measurements):
        row = {"claim": one.text, "kind": one.kind, "where": f"{one.table}: {one.where}"}
        row |= {"paper_words": one.words, "paper": one.paper}
        row |= dict(zip(("mini", "low", "high"), one.bounds, strict=True))
        row |= {"seeds": len(one.values), "primary": one.primary}
        rows.append(row | {"verdict": one.verdict, "why": one.reason})
    return pd.DataFrame(rows).round(2).to_csv(index=False, lineterminator="\n")

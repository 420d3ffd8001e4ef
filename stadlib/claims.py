"""The ledger: every claim of the paper, its number, ours at ``mini``, and a verdict.

Differences in points, paired by seed where all else is equal but the words of the rows compared;
intervals are Student's t over seeds, 95 %. :mod:`stadlib.verdicts` has the rules of the verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from math import isnan, nan
from pathlib import Path

import pandas as pd

from stadlib import claim_values, report, verdicts
from stadlib.paper_claims import CLAIMS, Claim, Comparison
from stadlib.paths import published_dir, write_whole
from stadlib.verdicts import VERDICTS, Measured

START, END = "<!-- claims:start -->", "<!-- claims:end -->"
CSV = published_dir("claims.csv")

Places = list[list[Measured]]  # by claim


def measured() -> Places:
    """Measure every place of every claim on the committed records.

    Raises:
        InputError: as :func:`stadlib.claim_values.committed`.
    """
    points, records = claim_values.printed(), claim_values.committed()
    counts = report.reference_counts().to_dict()

    def one(table: str, claim: Claim, place: Comparison) -> Measured:
        signs = [(1, row) for row in place.plus] + [(-1, row) for row in place.minus]
        ours = {
            row: claim_values.by_seed(records.get(row, []), place.measure, counts)
            for _, row in signs
        }
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
                "why": verdicts.why(one),
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
    report.rewrite(readme, (START, END), markdown(found))
    write_whole(CSV, csv(found))


def _printed(one: Measured) -> str:
    """``+0.80 (“about 0.8”)``; a height has no sign."""
    sign = "" if one.claim.kind == "height" else "+"
    number = "-" if isnan(one.paper) else f"{one.paper:{sign}.2f}"
    return f"{number} (“{one.claim.words}”)" if one.claim.words else number


def _why(lead: Measured, others: Sequence[Measured]) -> list[str]:
    """One sentence, or none where the claim is shown."""
    if not (why := verdicts.why(lead)):
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

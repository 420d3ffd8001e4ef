"""What a measurement says about a claim.

The rules (:func:`verdict`) look at the 95 % interval over seeds:

- *not measured*: no seed was run on both sides, or one only, which bounds nothing.
- *shown*: the whole interval lies on the claim's side of zero; for "level", within
  :data:`MARGIN` points around zero; for "kept", above minus that margin.
- *contradicted*: the whole interval lies on the other side, or outside the margin.
- *not shown*: neither; more seeds would tell.

A claim about a table's height is never measured at ``mini``: heights are those of AVA-Kinetics. The
interval bounds what other seeds would give on the same miniature world, not what other movies
would, and nothing corrects for the number of claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan, sqrt
from statistics import stdev

from stadlib.intervals import interval, t95
from stadlib.paper_claims import Claim, Comparison, Kind
from stadlib.scores import NOT_RUN

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


def why(one: Measured) -> str:
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

"""What the paper says, as comparisons of rows of its tables.

Numbers are not here: the paper's stand in ``results/paper``, ours in ``results/reference``. What it
only supposes ("may attribute to") is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


_TABLE1 = (
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
_TABLE3 = (
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

_TABLE4 = (
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
    "Table 1, A+K": _TABLE1,
    "Table 2 (ours: ir-CSN-152)": _TABLE2,
    "Table 3": _TABLE3,
    "Table 4": _TABLE4,
}

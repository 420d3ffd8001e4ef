"""Tables beside the paper's, the ledger of claims and every figure.

A notebook says ``report.beside_paper(runs, table=1)``, and ``report.figures.x(...)`` for a module
that is slow to import.
"""

from importlib import import_module

_TABLES = (
    "amount_effect", "beside_paper", "by_class", "by_detector", "by_threshold", "differences",
    "experiments", "most_changed", "paired_difference", "paper", "paper_by_detector",
    "person_boxes", "provenance", "reference", "reference_counts", "reference_rows", "stages",
)  # fmt: skip
_MODULES = (
    "beyond", "claims", "figures", "frames", "own_data", "readme", "runs", "scores", "tables",
    "tour",
)  # fmt: skip


def __getattr__(name: str) -> object:
    """A submodule or a function of :mod:`stadlib.report.tables`, imported at its first use."""
    if name in _TABLES:
        return getattr(import_module("stadlib.report.tables"), name)
    if name in _MODULES:
        return import_module(f"stadlib.report.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

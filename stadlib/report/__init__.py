"""Tables beside the paper's, the ledger of claims and every figure.

A notebook says ``report.beside_paper(runs, table=1)``, and ``report.figures.x(...)`` for a module
that is slow to import.
"""

from importlib import import_module
from importlib.util import find_spec


def __getattr__(name: str) -> object:
    """A submodule or a function of :mod:`stadlib.report.tables`, imported at its first use."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    return getattr(import_module(f"{__name__}.tables"), name)

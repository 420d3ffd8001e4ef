"""Tables beside the paper's, the ledger of claims and every figure."""

from importlib import import_module


def __getattr__(name: str) -> object:
    """``report.figures``, ``report.tour``: a submodule is imported when it is first used."""
    if name in ("claims", "figures", "frames", "runs", "scores", "tour"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The models: backbones, RoIAlign that keeps time, heads, and the detector made of them.

``from stadlib.models import RelationHead`` gives the heads without the rest of the package.
"""

_HEADS = ("LinearHead", "MemoryTokens", "Places", "Recall", "RelationHead", "no_memory")


def __getattr__(name: str) -> object:
    """The heads' classes; torch is imported only when one is asked for."""
    if name not in _HEADS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stadlib.models import heads  # noqa: PLC0415

    return getattr(heads, name)

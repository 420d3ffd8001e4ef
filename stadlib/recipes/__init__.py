"""The paper's experiments as values: words and numbers, no torch."""

from stadlib.recipes.tables import (  # noqa: F401
    DECOUPLED,
    DETECTORS,
    MEMORY_WORDS,
    REMEMBERED,
    SPAN,
    TABLE1,
    TABLE2,
    THRESHOLDS,
    WITH_MEMORY,
    WORDS,
    at,
    box_uses,
    ensemble1,
    memory_ablation,
    strategy,
    table1,
    table2,
    table3,
    table4,
)

"""The paper's experiments as values: words and numbers, no torch."""

from stadlib.recipes.tables import *  # noqa: F403

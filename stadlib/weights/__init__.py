"""Public backbone weights: names, files read and checked, and where they are published."""

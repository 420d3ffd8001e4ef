"""Every command of ``python -m stadlib``."""

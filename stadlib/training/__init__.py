"""Training: the loop, its stages, pretraining, the person detector, the memory bank."""

from stadlib.base import lazy_modules

__getattr__ = lazy_modules(__name__)

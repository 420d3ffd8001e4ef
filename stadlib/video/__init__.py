"""Actions of the people in a video of one's own."""

from stadlib.base import lazy_modules

__getattr__ = lazy_modules(__name__)

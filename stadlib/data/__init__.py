"""Everything that turns files into batches: layout, annotations, video, transforms, clips."""

from stadlib.base import lazy_modules

__getattr__ = lazy_modules(__name__)

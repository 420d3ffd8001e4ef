"""Frame mAP as the official AVA-Kinetics evaluator computes it, its intervals and its diagnosis."""

from stadlib.base import lazy_modules

__getattr__ = lazy_modules(__name__)

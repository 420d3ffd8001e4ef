"""What the circulating evaluators disagree on, as four words.

``official`` is ActivityNet's ``get_ava_performance.py`` (HEAD), the challenge's; the others are
the files that ACAR, SlowFast (also LFB, AlphAction) and mmaction2 carry. Papers compare numbers
from all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from stadlib.config import check_word


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The rules in which evaluators differ.

    Attributes:
        cap: detection rows of evaluated classes kept a keyframe, the highest; None keeps all.
        whole_seconds: keyframes are named by ``int(timestamp)``, so that fractional Kinetics
            timestamps of one second fall together; otherwise by ``%.6f``.
        unnamed_are_wrong: detections in keyframes that no ground-truth row names are false
            positives unless the keyframe is excluded; otherwise they are ignored.
        undetected_count: a class with ground truth and no detection has AP 0; otherwise it is
            left out of the mean, which raises it.
    """

    cap: int | None = 50
    whole_seconds: bool = False
    unnamed_are_wrong: bool = False
    undetected_count: bool = True


PROTOCOLS: dict[str, Protocol] = {
    "official": Protocol(),
    "acar": Protocol(whole_seconds=True, unnamed_are_wrong=True),
    "slowfast": Protocol(cap=None, whole_seconds=True, unnamed_are_wrong=True),
    "mmaction2": Protocol(
        cap=None, whole_seconds=True, unnamed_are_wrong=True, undetected_count=False
    ),
}


def protocol(word: str) -> Protocol:
    """The rules of an evaluator.

    Raises:
        ConfigError: an unknown word; the message names the choices.
    """
    check_word("protocol", word, tuple(PROTOCOLS))
    return PROTOCOLS[word]

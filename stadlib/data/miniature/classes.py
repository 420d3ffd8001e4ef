"""The miniature's action classes and how often the stories deal them: the long tail by quota.

Ids and names are AVA's. Rare events are not left to luck: every split has a deck of story cards
whose counts follow from the shares below (largest remainder), with a floor for rare ones so that
every class of the label map has at least 25 validation instances at ``MINI``; the deck is shuffled
and dealt to the split's videos.
"""

from __future__ import annotations

import numpy as np

from stadlib.data.miniature.activities import Segment

NAMES: dict[int, str] = {
    1: "bend/bow (at the waist)", 3: "crouch/kneel", 4: "dance", 5: "fall down", 6: "get up",
    8: "lie/sleep", 9: "martial art", 10: "run/jog", 11: "sit", 12: "stand", 14: "walk",
    15: "answer phone", 17: "carry/hold (an object)", 24: "cut", 27: "drink", 29: "eat",
    41: "play musical instrument", 48: "read", 57: "text on/look at a cellphone",
    59: "touch (an object)", 62: "work on a computer", 64: "fight/hit (a person)",
    65: "give/serve (an object) to (a person)", 68: "hand shake", 69: "hand wave",
    70: "hug (a person)", 74: "listen to (a person)", 78: "take (an object) from (a person)",
    79: "talk to (e.g., self, a person, a group)", 80: "watch (a person)",
}  # fmt: skip

_POSE_OF_ACTION = {"dance": 4, "martial": 9, "bend": 1, "fall": 5, "getup": 6}
_POSE_OF_POSTURE = {"stand": 12, "sit": 11, "crouch": 3, "lie": 8, "walk": 14, "run": 10}
_OTHER = {
    "phone": 15, "hold": 17, "cut": 24, "drink": 27, "eat": 29, "instrument": 41, "read": 48,
    "text": 57, "touch": 59, "computer": 62, "fight": 64, "give": 65, "shake": 68, "wave": 69,
    "hug": 70, "take": 78, "talk": 79,
}  # fmt: skip
LISTEN, WATCH, TALK = 74, 80, 79
WATCHED = frozenset(_OTHER) - {"talk"} | {"dance", "martial", "bend"}
ATTENTIVE = frozenset({"quiet", "hold"})  # those who may listen or watch; both look alike

#                     duo units                trio units             single persons
UNIT_SHARES: dict[str, dict[int, dict[str, float]]] = {
    "ava": {
        2: {"talk": 0.40, "show": 0.33, "apart": 0.14, "fight": 0.05, "quiet": 0.08},
        3: {
            "talk": 0.20,
            "show": 0.24,
            "side": 0.18,
            "split": 0.10,
            "crossed": 0.16,
            "behind": 0.12,
        },
        1: {"alone": 0.42, "quiet": 0.28, "wander": 0.18, "passer": 0.12},
    },
    "kinetics": {
        2: {"talk": 0.32, "show": 0.36, "apart": 0.14, "fight": 0.10, "quiet": 0.08},
        3: {
            "talk": 0.20,
            "show": 0.30,
            "side": 0.16,
            "split": 0.08,
            "crossed": 0.16,
            "behind": 0.10,
        },
        1: {"alone": 0.60, "quiet": 0.14, "wander": 0.18, "passer": 0.08},
    },
}
PERFORM_SHARES: dict[str, dict[str, float]] = {
    "ava": {
        "hold": 0.18, "read": 0.15, "phone": 0.13, "dance": 0.08, "instrument": 0.07, "eat": 0.07,
        "drink": 0.07, "computer": 0.06, "text": 0.06, "touch": 0.06, "martial": 0.05,
        "crouch": 0.05, "lie": 0.04, "cut": 0.05,
    },
    "kinetics": {
        "hold": 0.10, "read": 0.07, "phone": 0.06, "dance": 0.15, "instrument": 0.14, "eat": 0.09,
        "drink": 0.07, "computer": 0.06, "text": 0.05, "touch": 0.05, "martial": 0.12,
        "crouch": 0.05, "lie": 0.02, "cut": 0.05,
    },
}  # fmt: skip
#: events a video: (training, validation and test)
EVENT_RATES: dict[str, dict[str, tuple[float, float]]] = {
    "ava": {
        "give": (0.17, 0.30), "shake": (0.07, 0.15), "hug": (0.07, 0.15), "wave": (0.24, 0.30),
        "fall": (0.15, 0.30), "getup": (0.15, 0.25), "bend": (0.30, 0.40), "dash": (0.20, 0.30),
        "leave": (0.30, 0.30),
    },
    "kinetics": {
        "give": (0.03, 0.04), "shake": (0.02, 0.03), "hug": (0.02, 0.03), "wave": (0.03, 0.03),
        "fall": (0.02, 0.03), "getup": (0.02, 0.03), "bend": (0.03, 0.03), "dash": (0.03, 0.03),
    },
}  # fmt: skip
PAIR_EVENTS = frozenset({"give", "shake", "hug", "wave"})
#: persons in a scene (1 to 5)
PERSON_SHARES = {"ava": (0.05, 0.31, 0.32, 0.26, 0.06), "kinetics": (0.28, 0.42, 0.2, 0.1, 0.0)}
#: seconds of visible evidence and seconds without, drawn uniformly for every performance
BURSTS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "talk": ((1.5, 3.0), (2.2, 4.0)), "read": ((2.0, 3.5), (2.2, 4.0)),
    "phone": ((2.0, 3.5), (2.2, 4.0)), "text": ((2.0, 3.5), (2.0, 3.5)),
    "drink": ((1.6, 2.4), (2.0, 3.5)), "eat": ((2.0, 3.0), (2.0, 3.5)),
    "hold": ((2.5, 4.0), (2.2, 4.0)),
}  # fmt: skip


def own_labels(segment: Segment) -> tuple[int, ...]:
    """Action ids that follow from a person's own segment: one pose, then what is done."""
    pose = _POSE_OF_ACTION.get(segment.action, _POSE_OF_POSTURE[segment.posture])
    other = _OTHER.get(segment.action)
    return (pose,) if other is None else (pose, other)


def deck(shares: dict[str, float], size: int, rng: np.random.Generator) -> list[str]:
    """``size`` shuffled cards in the proportions of ``shares`` by largest remainder."""
    names = list(shares)
    exact = np.array([shares[name] for name in names]) / sum(shares.values()) * size
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: size - counts.sum()]
    counts[rest] += 1
    cards = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    rng.shuffle(cards)
    return cards

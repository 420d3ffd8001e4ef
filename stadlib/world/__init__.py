"""A miniature world of drawn people, written to disk in AVA-Kinetics' official layout.

A world is named by its :class:`WorldSpec`: numbers only. It contains

- AVA-like movies: still or slowly panning, dim, one to five people, a keyframe every second;
- Kinetics-like clips: hand-held, bright, one keyframe each;
- close-ups in Kinetics' layout, two classification sets that stand for K400 and K700;
- pictures in COCO's layout, for a person detector.

``script`` deals the cards of a split to its videos, ``story`` plays the cards and ``actions``
moves the bodies. ``render`` draws frames out of ``scenery``, ``objects`` and ``figures``,
``annotate`` finds boxes and labels, ``sets`` writes everything. ``world.toml`` and ``objects.csv``
hold the numbers: shares of stories, limbs of every activity, strokes of every thing.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

#: what happens in a world: shares of stories, the limbs of every activity
WORLD = tomllib.loads(Path(__file__).with_name("world.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """Sizes of one miniature world.

    ``version`` counts the drawing and story code. Raise it with every changed pixel or label, so
    that a world in the cache that older code rendered is not taken for this one.
    """

    version: int = 2
    seed: int = 0
    movies: tuple[int, int, int]  # AVA-like movies in train, val, test
    movie_seconds: int = 24
    clips: tuple[int, int, int]  # Kinetics-like clips in train, val, test
    clip_seconds: int = 10
    pretraining_clips: tuple[int, int]  # classification clips in train, val; as many stills
    pretraining_seconds: int = 2
    frames_per_second: int = 8

    @property
    def digest(self) -> str:
        """Eight characters that name the spec."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


# So few movies, and still every class in training: samplers by class need it.
SMOKE = WorldSpec(movies=(14, 6, 2), movie_seconds=12, clips=(14, 6, 2), pretraining_clips=(80, 40))
MINI = WorldSpec(movies=(480, 60, 20), clips=(500, 160, 40), pretraining_clips=(3200, 480))

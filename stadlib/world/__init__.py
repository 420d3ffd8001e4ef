"""A miniature world of drawn people, written to disk in AVA-Kinetics' official layout.

It has AVA-like movies (dim, cut into shots, a keyframe every second), Kinetics-like clips (bright
and hand-held, one keyframe each), close-ups in Kinetics' layout that stand for K400 and K700, and
pictures in COCO's layout. ``script`` deals cards to videos, ``actions`` plays them and moves
bodies, ``render`` draws ``scenery`` and ``figures`` and labels, ``sets`` writes files.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

#: the numbers of the world: shares of stories, limbs of activities, strokes of things
WORLD = tomllib.loads(Path(__file__).with_name("world.toml").read_text(encoding="utf-8"))


#: the splits of AVA-Kinetics in each part that has them; most readers need no test videos
PART_SPLITS = {"world": ("train", "val"), "test": ("test",)}


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """Sizes of one miniature world; the spec names it.

    Raise ``version`` with every changed pixel or label, so that no cached world passes for it.
    """

    version: int = 3
    seed: int = 0
    movies: tuple[int, int, int]  # AVA-like movies in train, val, test
    movie_seconds: tuple[int, ...] = (12,) * 5 + (24,) * 4 + (72,)  # dealt in turns
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
SMOKE = WorldSpec(
    movies=(12, 4, 2), movie_seconds=(12,), clips=(30, 4, 2), clip_seconds=6,
    pretraining_clips=(80, 40),
)  # fmt: skip
MINI = WorldSpec(movies=(100, 60, 200), clips=(1300, 200, 700), pretraining_clips=(8000, 800))

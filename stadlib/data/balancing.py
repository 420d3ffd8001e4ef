"""Samplers that show rare classes more often than they are (paper section 2.4).

Keyframes have several persons and a person several classes, so whatever is drawn for one class
brings others along. Each sampler is a :data:`stadlib.data.sampling.Draw`: what comes at a position
is computed from the position and the seed.

- ``class-balanced``: a class uniformly among those evaluated, then a keyframe that contains it
  (Kang et al. 2020, "Decoupling representation and classifier", the paper's reference [11]).
- ``square-root``: a class with probability proportional to the square root of its keyframes, then
  such a keyframe (Mahajan et al. 2018; Kang et al. 2020).
- ``repeat-factor``: every keyframe ``max(1, sqrt(t / f))`` times an epoch, f being the share of
  keyframes that contain the rarest of its classes (LVIS, Gupta et al. 2019). Their t of 0.001 is
  for 1,203 classes; here t is the share that each class would have if all were alike, 1 / classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from stadlib.config import InputError, SamplerName, check_word
from stadlib.data.sampling import Draw, Shuffled

SAMPLERS = get_args(SamplerName)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd


def make_draw(word: str, contains_KA: np.ndarray, names: Sequence[str], seed: int) -> Draw:
    """A sampler by its word.

    Args:
        word: one of :data:`SAMPLERS`.
        contains_KA: whether keyframe k contains action a, bool.
        names: of the A actions, for messages.
        seed: of the draws.

    Raises:
        ConfigError: an unknown word.
        InputError: a class without a keyframe, by name, where classes are drawn.
    """
    check_word("sampler", word, SAMPLERS)
    if word == "instance":
        return Shuffled(len(contains_KA), seed)
    counts_A = contains_KA.sum(axis=0)
    if word == "repeat-factor":
        return Repeated(repeat_factors(contains_KA), seed)
    if not counts_A.all():
        missing = names[int(np.flatnonzero(counts_A == 0)[0])]
        raise InputError(
            f"class {missing!r} is in no training keyframe, so it cannot be drawn; "
            "leave it out of the label map, or sample by instance or repeat-factor"
        )
    weights_A = np.ones(len(counts_A)) if word == "class-balanced" else np.sqrt(counts_A)
    return ByClass(contains_KA, weights_A, seed)


class ByClass:
    """A class by its weight, then one of the keyframes that contain it.

    Classes follow each other along a golden-ratio sequence, so their frequencies are closer to the
    weights than chance would bring them. In a batch a keyframe comes once, as long as its class has
    others: processes that share a batch do not share keyframes.

    Args:
        contains_KA: whether keyframe k contains action a, bool; every column has one.
        weights_A: of the actions, any scale.
        seed: of the draws.
    """

    def __init__(self, contains_KA: np.ndarray, weights_A: np.ndarray, seed: int) -> None:
        self.edges_A = np.cumsum(weights_A) / np.sum(weights_A)
        self.counts_A = contains_KA.sum(axis=0)
        self.starts_A = np.cumsum(self.counts_A) - self.counts_A
        self.members = np.nonzero(contains_KA.T)[1]  # class after class
        self.seed = np.random.SeedSequence(seed).generate_state(2, np.uint64)

    def classes(self, positions: np.ndarray) -> np.ndarray:
        """The columns of the classes that are asked for at these positions."""
        with np.errstate(over="ignore"):
            turn = positions.astype(np.uint64) * _GOLDEN + self.seed[0]
        share = turn / 2.0**64
        return np.minimum(
            np.searchsorted(self.edges_A, share, side="right"), len(self.counts_A) - 1
        )

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The keyframes at the positions of one batch."""
        asked = self.classes(positions)
        count, start = self.counts_A[asked], self.starts_A[asked]
        offset = _mixed(positions.astype(np.uint64) ^ self.seed[1]) % count.astype(np.uint64)
        items = self.members[start + offset.astype(np.int64)]
        taken: set[int] = set()
        for place in range(len(items)):
            if items[place] in taken:
                items[place] = self._other(asked[place], int(offset[place]), taken)
            taken.add(int(items[place]))
        return items

    def _other(self, column: int, offset: int, taken: set[int]) -> int:
        """The next keyframe of a class that is not taken; the same one if all are."""
        start, count = int(self.starts_A[column]), int(self.counts_A[column])
        for step in range(count):
            item = int(self.members[start + (offset + step) % count])
            if item not in taken:
                return item
        return int(self.members[start + offset])


class Repeated:
    """Every item as often an epoch as its factor says, fractions by turns.

    Args:
        factors_K: 1 or more each; scaled so that an epoch has a whole number of draws.
        seed: of the fractions and of the orders.
    """

    def __init__(self, factors_K: np.ndarray, seed: int) -> None:
        self.length = round(float(factors_K.sum()))
        self.ends_K = np.cumsum(factors_K) * (self.length / factors_K.sum())
        self.seed = seed
        self._epochs: dict[int, np.ndarray] = {}

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The items at these positions."""
        epochs, offsets = np.divmod(positions, self.length)
        items = [
            self._epoch(epoch)[offset]
            for epoch, offset in zip(epochs.tolist(), offsets.tolist(), strict=True)
        ]
        return np.array(items, dtype=np.int64)

    def _epoch(self, epoch: int) -> np.ndarray:
        """The draws of an epoch; systematic sampling rounds each factor down or up by turns."""
        if epoch not in self._epochs:
            rng = np.random.default_rng([self.seed, epoch])
            steps = np.floor(self.ends_K + rng.random())
            counts = np.diff(steps, prepend=0.0).astype(np.int64)
            counts[0] = self.length - counts[1:].sum()
            drawn = np.repeat(np.arange(len(counts)), counts)
            self._epochs = {epoch: rng.permutation(drawn)}
        return self._epochs[epoch]


def repeat_factors(contains_KA: np.ndarray) -> np.ndarray:
    """(K,) how often an epoch shows each keyframe (LVIS, section 5, with t = 1 / classes)."""
    share_A = contains_KA.mean(axis=0)
    with np.errstate(divide="ignore"):
        factor_A = np.maximum(1.0, np.sqrt(1.0 / (len(share_A) * share_A)))
    return np.maximum(1.0, np.where(contains_KA, factor_A, 1.0).max(axis=1))


def _mixed(x: np.ndarray) -> np.ndarray:
    """Well mixed 64 bits of each number (splitmix64's finaliser, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

"""Which keyframe comes when: a sequence of global batches that depends on its seed alone.

Iteration ``i`` is computed from ``i``. So the sequence is the same for any number of processes and
of shares that a process takes in turns, and after any number of interruptions.

A :data:`Draw` decides what comes at a position: every keyframe once an epoch, lists in turns, or
rare classes more often (paper section 2.4). A keyframe has several people and a person several
classes, so what is drawn for one class brings others along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np
from torch.utils.data import Sampler

from stadlib.base import ConfigError, InputError, check_word
from stadlib.recipes.experiment import SamplerName

SAMPLERS = get_args(SamplerName)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd

# Takes the positions of a global batch, consecutive integers from 0 on; gives items.
Draw = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Share:
    """The persons of one share: their places among all ``total`` persons of the global batch."""

    rows: tuple[int, ...]
    total: int


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """Shares of batches of (item index, item seed) for the iterations ``start`` to ``stop``.

    The item seed decides the augmentation of an item, so a batch is the same in any worker.
    Of ``S = num_processes * accumulate`` shares of a global batch this process takes ``rank``,
    ``rank + num_processes``, ... one after the other before it updates the weights; share ``s``
    has the items ``s, s + S, ...``. Without ``draw`` each of ``num_items`` comes once an epoch.

    Raises:
        ConfigError: if there is nothing to draw or not an item for each share.
    """

    def __init__(
        self,
        num_items: int,
        batch: int,
        *,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        num_processes: int = 1,
        accumulate: int = 1,
        draw: Draw | None = None,
    ) -> None:
        if num_items < 1:
            raise ConfigError("no keyframe to train on: the lists of this stage are empty")
        num_shares = num_processes * accumulate
        if batch < num_shares:
            raise ConfigError(
                f"a batch of {batch} cannot be shared by {num_processes} processes"
                + f" in {accumulate} turns" * (accumulate > 1)
            )
        self.batch, self.seed, self.accumulate = batch, seed, accumulate
        self.start, self.stop = start, stop
        self.draw = draw or Shuffled(num_items, seed)
        # the places in a global batch of each share of this process
        self._shares = [
            range(share, batch, num_shares) for share in range(rank, num_shares, num_processes)
        ]

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in range(self.start, self.stop):
            batch = self.at(iteration)
            for places in self._shares:
                yield [batch[place] for place in places]

    def shares(self, counts: Sequence[int]) -> Iterator[Share]:
        """The persons of each of these shares; item ``i`` shows ``counts[i]`` of them."""
        for iteration in range(self.start, self.stop):
            persons = [counts[item] for item, _ in self.at(iteration)]
            first = np.concatenate([[0], np.cumsum(persons)])
            for places in self._shares:
                rows = (row for p in places for row in range(first[p], first[p + 1]))
                yield Share(tuple(rows), int(first[-1]))

    def at(self, iteration: int) -> list[tuple[int, int]]:
        """The global batch of one iteration."""
        positions = np.arange(iteration * self.batch, (iteration + 1) * self.batch)
        seeds = [
            int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])
            for position in positions.tolist()
        ]
        return list(zip(self.draw(positions).tolist(), seeds, strict=True))


def batches_by_size(sizes: Sequence[tuple[int, int]], batch: int) -> list[list[int]]:
    """Items in batches of one size, the sizes in the order in which they first occur."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for item, size in enumerate(sizes):
        by_size.setdefault(size, []).append(item)
    return [
        items[start : start + batch]
        for items in by_size.values()
        for start in range(0, len(items), batch)
    ]


def make_draw(word: str, contains_KA: np.ndarray, names: Sequence[str], seed: int) -> Draw:
    """A sampler by its word; ``contains_KA``: whether keyframe k contains action a, bool.

    - ``class-balanced``: a class uniformly among those evaluated, then a keyframe that contains it
      (Kang et al. 2020, "Decoupling representation and classifier", the paper's reference [11]).
    - ``square-root``: a class in proportion to the square root of its number of keyframes, then
      such a keyframe (Mahajan et al. 2018; Kang et al. 2020).
    - ``repeat-factor``: every keyframe ``max(1, sqrt(t / f))`` times an epoch, f being the share
      of keyframes that contain the rarest of its classes (LVIS, Gupta et al. 2019). Their t of
      0.001 is for 1,203 classes; here t is the share if all were alike, 1 / classes.

    Raises:
        ConfigError: an unknown word.
        InputError: a class without a keyframe, by name, where classes are drawn.
    """
    check_word("sampler", word, SAMPLERS)
    if word == "instance":
        return Shuffled(len(contains_KA), seed)
    if word == "repeat-factor":
        return Repeated(repeat_factors(contains_KA), seed)
    counts_A = contains_KA.sum(axis=0)
    if not counts_A.all():
        missing = names[int(np.flatnonzero(counts_A == 0)[0])]
        raise InputError(
            f"class {missing!r} is in no training keyframe, so it cannot be drawn; "
            "leave it out of the label map, or sample by instance or repeat-factor"
        )
    weights_A = np.ones(len(counts_A)) if word == "class-balanced" else np.sqrt(counts_A)
    return ByClass(contains_KA, weights_A, seed)


class Shuffled:
    """Every one of ``length`` items once an epoch, in a fresh order each time."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self._kept = lru_cache(maxsize=2)(self.epoch)  # a batch may span two

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The items at these positions."""
        epochs, offsets = np.divmod(positions, self.length)
        pairs = zip(epochs.tolist(), offsets.tolist(), strict=True)
        return np.array([self._kept(epoch)[offset] for epoch, offset in pairs], dtype=np.int64)

    def epoch(self, epoch: int) -> np.ndarray:
        """The items of an epoch in their order."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.length)


class Repeated(Shuffled):
    """Every item as often an epoch as its factor says, 1 or more; fractions by turns.

    Factors are scaled so that an epoch has a whole number of draws.
    """

    def __init__(self, factors_K: np.ndarray, seed: int) -> None:
        super().__init__(round(float(factors_K.sum())), seed)
        self.ends_K = np.cumsum(factors_K) * (self.length / factors_K.sum())

    def epoch(self, epoch: int) -> np.ndarray:
        """The items of an epoch; systematic sampling rounds each factor down or up by turns."""
        rng = np.random.default_rng([self.seed, epoch])
        steps = np.floor(self.ends_K + rng.random())
        counts = np.diff(steps, prepend=0.0).astype(np.int64)
        counts[0] = self.length - counts[1:].sum()
        return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def repeat_factors(contains_KA: np.ndarray) -> np.ndarray:
    """(K,) how often an epoch shows each keyframe (LVIS, section 5, with t = 1 / classes)."""
    share_A = contains_KA.mean(axis=0)
    with np.errstate(divide="ignore"):
        factor_A = np.maximum(1.0, np.sqrt(1.0 / (len(share_A) * share_A)))
    return np.maximum(1.0, np.where(contains_KA, factor_A, 1.0).max(axis=1))


class InTurns:
    """Concatenated lists of ``sizes`` > 0 in turns: a short one comes as often as a long one."""

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.lists = [Shuffled(size, seed) for size in sizes]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The items at these positions."""
        rounds, turns = np.divmod(positions, len(self.lists))
        items = np.empty(len(positions), dtype=np.int64)
        for turn, (start, draw) in enumerate(zip(self.starts, self.lists, strict=True)):
            items[turns == turn] = start + draw(rounds[turns == turn])
        return items


class ByClass:
    """A class by its weight, then one of the keyframes that contain it.

    Classes follow each other along a golden-ratio sequence, so their frequencies are closer to the
    weights than by chance. A keyframe comes once in a batch, as long as its class has others:
    processes that share a batch do not share keyframes. Every class needs a keyframe.
    """

    def __init__(self, contains_KA: np.ndarray, weights_A: np.ndarray, seed: int) -> None:
        self.edges_A = np.cumsum(weights_A) / np.sum(weights_A)
        self.counts_A = contains_KA.sum(axis=0)
        self.starts_A = np.cumsum(self.counts_A) - self.counts_A
        self.members = np.nonzero(contains_KA.T)[1]  # class after class
        self.seed = np.random.SeedSequence(seed).generate_state(2, np.uint64)

    def classes(self, positions: np.ndarray) -> np.ndarray:
        """The columns of the classes that are drawn at these positions."""
        with np.errstate(over="ignore"):
            turn = positions.astype(np.uint64) * _GOLDEN + self.seed[0]
        columns = np.searchsorted(self.edges_A, turn / 2.0**64, side="right")
        return np.minimum(columns, len(self.counts_A) - 1)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The keyframes at the positions of one batch."""
        columns = self.classes(positions)
        counts, starts = self.counts_A[columns].tolist(), self.starts_A[columns].tolist()
        offsets = _mixed(positions.astype(np.uint64) ^ self.seed[1]).tolist()
        taken: set[int] = set()
        items = []
        for count, start, offset in zip(counts, starts, offsets, strict=True):
            # the keyframe at the offset, or the next of its class that this batch does not have
            choices = (int(self.members[start + (offset + step) % count]) for step in range(count))
            first = int(self.members[start + offset % count])
            item = next((choice for choice in choices if choice not in taken), first)
            taken.add(item)
            items.append(item)
        return np.array(items, dtype=np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Well mixed 64 bits of each number (splitmix64's finaliser, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

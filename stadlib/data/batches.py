"""Which keyframe comes when: a sequence of global batches that depends on its seed alone.

Iteration ``i`` is computed from ``i``. So the sequence is the same for any number of processes and
of shares that a process takes in turns, and after any number of interruptions.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import NamedTuple, get_args

import numpy as np
from torch.utils.data import Sampler

from stadlib.base import ConfigError, InputError, check_word
from stadlib.recipes.experiment import SamplerName

SAMPLERS = get_args(SamplerName)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd

# Takes the positions of a global batch, consecutive integers from 0 on; gives items.
Draw = Callable[[np.ndarray], np.ndarray]


class Share(NamedTuple):
    """The persons of one share: their places among all ``total`` persons of the global batch."""

    rows: tuple[int, ...]
    total: int


@dataclass(eq=False)
class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """Shares of batches of (item index, item seed) for the iterations ``start`` to ``stop``.

    The item seed decides the augmentation of an item. Of ``S = num_processes * accumulate`` shares
    of a global batch this process takes ``rank``, ``rank + num_processes``, ... one after the other
    before it updates the weights; share ``s`` has the items ``s, s + S, ...``. Without ``draw``
    each of ``num_items`` comes once an epoch.
    """

    num_items: int
    batch: int
    _: KW_ONLY
    seed: int
    start: int
    stop: int
    rank: int = 0
    num_processes: int = 1
    accumulate: int = 1
    draw: Draw | None = None

    def __post_init__(self) -> None:
        if self.num_items < 1:
            raise ConfigError("no keyframe to train on: the lists of this stage are empty")
        self.num_shares = self.num_processes * self.accumulate
        if self.batch < self.num_shares:
            turns = f" in {self.accumulate} turns" * (self.accumulate > 1)
            shared = f"{self.num_processes} processes{turns}"
            raise ConfigError(f"a batch of {self.batch} cannot be shared by {shared}")
        self.iterations = range(self.start, self.stop)
        self.draw = self.draw or _Shuffled(self.num_items, self.seed)
        self._own = range(self.rank, self.num_shares, self.num_processes)

    def __len__(self) -> int:
        return len(self.iterations) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in self.iterations:
            batch = self.at(iteration)
            yield from (batch[share :: self.num_shares] for share in self._own)

    def shares(self, counts: Sequence[int]) -> Iterator[Share]:
        """The persons of each of these shares; item ``i`` shows ``counts[i]`` of them."""
        for iteration in self.iterations:
            persons = [counts[item] for item, _ in self.at(iteration)]
            share_of_person = np.repeat(np.arange(self.batch) % self.num_shares, persons)
            for share in self._own:
                rows = np.flatnonzero(share_of_person == share)
                yield Share(tuple(rows.tolist()), len(share_of_person))

    def at(self, iteration: int) -> list[tuple[int, int]]:
        """The global batch of one iteration."""
        positions = np.arange(iteration * self.batch, (iteration + 1) * self.batch)
        sequences = (np.random.SeedSequence([self.seed, place]) for place in positions.tolist())
        seeds = [int(sequence.generate_state(1)[0]) for sequence in sequences]
        return list(zip(self.draw(positions).tolist(), seeds, strict=True))


def batches_by_size(sizes: Sequence[tuple[int, int]], batch: int) -> list[list[int]]:
    """Items in batches of one size, the sizes in the order in which they first occur."""
    by_size = defaultdict(list)
    for item, size in enumerate(sizes):
        by_size[size].append(item)
    return [
        items[start : start + batch]
        for items in by_size.values()
        for start in range(0, len(items), batch)
    ]


def make_draw(word: str, contains_KA: np.ndarray, names: Sequence[str], seed: int) -> Draw:
    """A sampler by its word; ``contains_KA``: whether keyframe k contains action a, bool.

    A keyframe has several people and a person several classes, so what is drawn for one class
    brings others along (paper section 2.4). ``class-balanced`` draws a class uniformly, then a
    keyframe that contains it (Kang et al. 2020, the paper's reference [11]); ``square-root`` draws
    it in proportion to the square root of its number of keyframes (Mahajan et al. 2018);
    ``repeat-factor``: see :func:`repeat_factors`.
    """
    check_word("sampler", word, SAMPLERS)
    if word == "instance":
        return _Shuffled(len(contains_KA), seed)
    if word == "repeat-factor":
        return _Repeated(repeat_factors(contains_KA), seed)
    counts_A = contains_KA.sum(axis=0)
    if not counts_A.all():
        missing = names[int(np.flatnonzero(counts_A == 0)[0])]
        raise InputError(
            f"class {missing!r} is in no training keyframe, so it cannot be drawn; "
            "leave it out of the label map, or sample by instance or repeat-factor"
        )
    weights_A = np.ones(len(counts_A)) if word == "class-balanced" else np.sqrt(counts_A)
    return _ByClass(contains_KA, weights_A, seed)


class _Shuffled:
    """Every one of ``length`` items once an epoch, in a fresh order each time."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self._kept = lru_cache(maxsize=2)(self._epoch)  # a batch may span two

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        epochs, offsets = np.divmod(positions, self.length)
        pairs = zip(epochs.tolist(), offsets.tolist(), strict=True)
        return np.array([self._kept(epoch)[offset] for epoch, offset in pairs], dtype=np.int64)

    def _epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.length)


class _Repeated(_Shuffled):
    """Every item as often an epoch as its factor says, scaled to a whole number of draws."""

    def __init__(self, factors_K: np.ndarray, seed: int) -> None:
        super().__init__(round(float(factors_K.sum())), seed)
        self._ends_K = np.cumsum(factors_K) * (self.length / factors_K.sum())

    def _epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        steps = np.floor(self._ends_K + rng.random())  # systematic: rounds up or down by turns
        counts = np.diff(steps, prepend=0.0).astype(np.int64)
        counts[0] = self.length - counts[1:].sum()
        return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def repeat_factors(contains_KA: np.ndarray) -> np.ndarray:
    """(K,) how often an epoch shows each keyframe: ``max(1, sqrt(t / f))``, f being the share of
    keyframes with the rarest of its classes, t 1 / classes (LVIS, Gupta et al. 2019, section 5).
    """
    share_A = contains_KA.mean(axis=0)
    with np.errstate(divide="ignore"):
        factor_A = np.maximum(1.0, np.sqrt(1.0 / (len(share_A) * share_A)))
    return np.maximum(1.0, np.where(contains_KA, factor_A, 1.0).max(axis=1))


class InTurns:
    """Concatenated lists of ``sizes`` > 0 in turns: a short one comes as often as a long one."""

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._lists = [_Shuffled(size, seed) for size in sizes]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The items at these positions."""
        rounds, turns = np.divmod(positions, len(self._lists))
        items = np.empty(len(positions), dtype=np.int64)
        for turn, (start, draw) in enumerate(zip(self._starts, self._lists, strict=True)):
            items[turns == turn] = start + draw(rounds[turns == turn])
        return items


class _ByClass:
    """A class by its weight, then one of the keyframes that contain it.

    Classes follow each other along a golden-ratio sequence, so their frequencies are closer to the
    weights than by chance. A keyframe comes once in a batch, as long as its class has others.
    """

    def __init__(self, contains_KA: np.ndarray, weights_A: np.ndarray, seed: int) -> None:
        self._edges_A = np.cumsum(weights_A) / np.sum(weights_A)
        self._members = [np.flatnonzero(contains_K) for contains_K in contains_KA.T]
        self._seed = np.random.SeedSequence(seed).generate_state(2, np.uint64)

    def classes(self, positions: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            turn = positions.astype(np.uint64) * _GOLDEN + self._seed[0]
        columns = np.searchsorted(self._edges_A, turn / 2.0**64, side="right")
        return np.minimum(columns, len(self._members) - 1)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        x = positions.astype(np.uint64) ^ self._seed[1]
        with np.errstate(over="ignore"):  # splitmix64's finaliser (Steele et al. 2014)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        offsets = x ^ (x >> np.uint64(31))
        items: list[int] = []
        taken: set[int] = set()
        for column, offset in zip(self.classes(positions).tolist(), offsets.tolist(), strict=True):
            # the keyframe at the offset, or the next of its class that this batch does not have
            members = self._members[column]
            steps = range(offset, offset + len(members))
            choices = (int(members[step % len(members)]) for step in steps)
            first = int(members[offset % len(members)])
            items.append(next((choice for choice in choices if choice not in taken), first))
            taken.add(items[-1])
        return np.array(items, dtype=np.int64)

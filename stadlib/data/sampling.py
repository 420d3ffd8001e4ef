"""Which keyframe comes when: a sequence of global batches that depends on nothing but its seed.

The sequence is the same for any number of processes, of shares that a process takes one after the
other, and after any number of interruptions, since iteration ``i`` is computed, not remembered.
What is drawn at a position is a :data:`Draw`'s matter: every keyframe once an epoch
(:class:`Shuffled`), lists in turns (:class:`InTurns`), or rare classes more often
(:mod:`.balancing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

from stadlib.config import ConfigError

# Takes the positions of a global batch, consecutive integers from 0 on; gives items.
Draw = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Share:
    """Which of a global batch's persons a share of it has.

    Attributes:
        rows: their places among all persons, those of the share's first clip first.
        total: persons of the global batch.
    """

    rows: tuple[int, ...]
    total: int


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """Shares of batches of (item index, item seed) for the iterations ``start`` to ``stop``.

    The item seed decides the augmentation of an item, so a batch is the same whichever worker
    makes it. Of ``S = num_processes * accumulate`` shares of a global batch this process takes
    ``rank``, ``rank + num_processes``, ...; share ``s`` has the items ``s, s + S, ...``.

    Args:
        num_items: length of the concatenated lists (AVA and Kinetics mixed, paper section 3.1).
        batch: items in a *global* batch.
        seed: of the experiment.
        start: first iteration, later than 0 after a resume.
        stop: one past the last iteration.
        rank: of this process.
        num_processes: how many share a batch.
        accumulate: shares that a process takes one after the other before it updates the weights.
        draw: what comes at a position; by default each item once an epoch, a batch may span two.

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
        if batch < num_processes * accumulate:
            raise ConfigError(
                f"a batch of {batch} cannot be shared by {num_processes} processes"
                + f" in {accumulate} turns" * (accumulate > 1)
            )
        self.batch, self.seed = batch, seed
        self.start, self.stop = start, stop
        self.rank, self.num_processes, self.accumulate = rank, num_processes, accumulate
        self.draw = draw or Shuffled(num_items, seed)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in range(self.start, self.stop):
            batch = self.at(iteration)
            for own in self._places():
                yield [batch[place] for place in own]

    def shares(self, counts: Sequence[int]) -> Iterator[Share]:
        """Whose persons each of these shares has; item ``i`` shows ``counts[i]`` of them."""
        for iteration in range(self.start, self.stop):
            persons = [counts[item] for item in self._items(iteration)]
            first = np.concatenate([[0], np.cumsum(persons)])
            for own in self._places():
                rows = (row for p in own for row in range(first[p], first[p + 1]))
                yield Share(tuple(rows), int(first[-1]))

    def _places(self) -> list[range]:
        """Places in the global batch of each share of this process."""
        shares = self.num_processes * self.accumulate
        own = range(self.rank, shares, self.num_processes)
        return [range(share, self.batch, shares) for share in own]

    def at(self, iteration: int) -> list[tuple[int, int]]:
        """The global batch of one iteration."""
        positions = range(iteration * self.batch, (iteration + 1) * self.batch)
        return list(zip(self._items(iteration), map(self._item_seed, positions), strict=True))

    def _items(self, iteration: int) -> list[int]:
        return self.draw(np.arange(iteration * self.batch, (iteration + 1) * self.batch)).tolist()

    def _item_seed(self, position: int) -> int:
        return int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])


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


class Shuffled:
    """Every item once an epoch, in a fresh order each time: instance sampling.

    Args:
        num_items: how many there are.
        seed: of the orders.
    """

    def __init__(self, num_items: int, seed: int) -> None:
        self.num_items, self.seed = num_items, seed

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The items at these positions."""
        epochs, offsets = np.divmod(positions, self.num_items)
        items = [
            _permutation(self.num_items, self.seed, epoch)[offset]
            for epoch, offset in zip(epochs.tolist(), offsets.tolist(), strict=True)
        ]
        return np.array(items, dtype=np.int64)


class InTurns:
    """The lists of a concatenation in turns, so that a short one is seen as often as a long one.

    Args:
        sizes: how many items each list has, none of them 0.
        seed: of the orders.
    """

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.lists = [Shuffled(size, seed) for size in sizes]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The items at these positions."""
        rounds, turns = np.divmod(positions, len(self.lists))
        items = np.empty(len(positions), dtype=np.int64)
        for turn, (start, own) in enumerate(zip(self.starts, self.lists, strict=True)):
            items[turns == turn] = start + own(rounds[turns == turn])
        return items


@lru_cache(maxsize=4)
def _permutation(num_items: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_items)

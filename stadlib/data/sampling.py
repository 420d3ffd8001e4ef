"""Which keyframe comes when: a sequence of global batches that depends on nothing but its seed.

The sequence is the same for any number of processes and after any number of interruptions, since
iteration ``i`` is computed, not remembered. What is drawn at a position is a :data:`Draw`'s matter:
every keyframe once an epoch (:class:`Shuffled`), lists in turns (:class:`InTurns`), or rare
classes more often (:mod:`.balancing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

# Takes the positions of a global batch, consecutive integers from 0 on; gives items.
Draw = Callable[[np.ndarray], np.ndarray]


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (item index, item seed) for the iterations ``start`` to ``stop``.

    The item seed decides the augmentation of an item, so a batch is the same whichever worker
    makes it.

    Args:
        num_items: length of the concatenated lists (AVA and Kinetics mixed, paper section 3.1).
        batch: items in a *global* batch.
        seed: of the experiment.
        start: first iteration, later than 0 after a resume.
        stop: one past the last iteration.
        rank: this process takes the items ``rank, rank + num_processes, ...`` of each batch.
        num_processes: how many share a batch.
        draw: what comes at a position; by default each item once an epoch, a batch may span two.

    Raises:
        ValueError: if there is nothing to draw or not an item for each process.
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
        draw: Draw | None = None,
    ) -> None:
        if num_items < 1:
            raise ValueError("no keyframe to train on: the lists of this stage are empty")
        if batch < num_processes:
            raise ValueError(f"a batch of {batch} cannot be shared by {num_processes} processes")
        self.batch, self.seed = batch, seed
        self.start, self.stop = start, stop
        self.rank, self.num_processes = rank, num_processes
        self.draw = draw or Shuffled(num_items, seed)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in range(self.start, self.stop):
            yield self.at(iteration)[self.rank :: self.num_processes]

    def at(self, iteration: int) -> list[tuple[int, int]]:
        """The global batch of one iteration."""
        positions = np.arange(iteration * self.batch, (iteration + 1) * self.batch)
        items = self.draw(positions).tolist()
        return list(zip(items, map(self._item_seed, positions.tolist()), strict=True))

    def _item_seed(self, position: int) -> int:
        return int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])


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

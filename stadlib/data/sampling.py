"""Which keyframe comes when: a sequence of global batches that depends on nothing but its seed.

The sequence is the same for any number of processes and after any number of interruptions, since
iteration ``i`` is computed, not remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (item index, item seed) for the iterations ``start`` to ``stop``.

    Every epoch is a fresh permutation of all items; a batch may span two epochs. The item seed
    decides the augmentation of an item, so a batch is the same whichever worker makes it.

    Args:
        num_items: length of the concatenated lists (AVA and Kinetics mixed, paper section 3.1).
        batch: items in a *global* batch.
        seed: of the experiment.
        start: first iteration, later than 0 after a resume.
        stop: one past the last iteration.
        rank: this process takes the items ``rank, rank + num_processes, ...`` of each batch.
        num_processes: how many share a batch.

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
    ) -> None:
        if num_items < 1:
            raise ValueError("no keyframe to train on: the lists of this stage are empty")
        if batch < num_processes:
            raise ValueError(f"a batch of {batch} cannot be shared by {num_processes} processes")
        self.num_items, self.batch, self.seed = num_items, batch, seed
        self.start, self.stop = start, stop
        self.rank, self.num_processes = rank, num_processes

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in range(self.start, self.stop):
            yield self.at(iteration)[self.rank :: self.num_processes]

    def at(self, iteration: int) -> list[tuple[int, int]]:
        """The global batch of one iteration."""
        positions = range(iteration * self.batch, (iteration + 1) * self.batch)
        return [(self._index(position), self._item_seed(position)) for position in positions]

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, self.num_items)
        return int(_permutation(self.num_items, self.seed, epoch)[offset])

    def _item_seed(self, position: int) -> int:
        return int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])


@lru_cache(maxsize=4)
def _permutation(num_items: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_items)

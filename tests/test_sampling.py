"""The order of keyframes is computed: the same after a resume and for any number of processes."""

from __future__ import annotations

from collections import Counter

import pytest

from stadlib.data.batches import GlobalBatches, InTurns, batches_by_size


def batches(start=0, stop=10, **how):
    how = {"seed": 3, "num_items": 13, "batch": 4} | how
    return list(
        GlobalBatches(how.pop("num_items"), how.pop("batch"), start=start, stop=stop, **how)
    )


def test_resume_continues_the_same_sequence():
    assert batches(start=6) == batches()[6:]


@pytest.mark.parametrize("num_processes", [2, 3, 4])
def test_processes_share_each_global_batch(num_processes):
    shares = [batches(rank=r, num_processes=num_processes) for r in range(num_processes)]
    for iteration, whole in enumerate(batches()):
        parts = [item for share in shares for item in share[iteration]]
        assert sorted(parts) == sorted(whole)


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_shares_are_a_global_batch_and_know_whose_persons_they_have(num_processes, accumulate):
    counts = [item % 4 for item in range(13)]
    how = {"num_processes": num_processes, "accumulate": accumulate}
    orders = [
        GlobalBatches(13, 7, seed=3, start=2, stop=6, rank=rank, **how)
        for rank in range(num_processes)
    ]
    shares = [list(zip(order, order.shares(counts), strict=True)) for order in orders]
    for turn, whole in enumerate(batches(start=2, stop=6, batch=7)):
        own = [part for parts in shares for part in parts[turn * accumulate :][:accumulate]]
        assert sorted(item for items, _ in own for item in items) == sorted(whole)
        persons = [item for item, _ in whole for _ in range(counts[item])]
        for items, share in own:
            assert share.total == len(persons)
            shown = [item for item, _ in items for _ in range(counts[item])]
            assert [persons[row] for row in share.rows] == shown
        rows = sorted(row for _, share in own for row in share.rows)
        assert rows == list(range(len(persons)))


def test_batches_of_one_size_hold_every_item_once():
    sizes = [(2, 3), (3, 2), (2, 3), (2, 3), (3, 2), (2, 3), (9, 9)]
    found = batches_by_size(sizes, 3)
    assert found == [[0, 2, 3], [5], [1, 4], [6]]


def test_every_item_comes_once_an_epoch():
    drawn = [index for batch in batches(stop=13) for index, _ in batch]
    for epoch in range(4):
        assert Counter(drawn[13 * epoch : 13 * (epoch + 1)]) == Counter(range(13))


def test_augmentation_differs_between_epochs_and_seeds():
    seeds = [seed for batch in batches(stop=26) for _, seed in batch]
    assert len(set(seeds)) == len(seeds)
    assert batches(seed=4) != batches()


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no keyframe to train on"):
        batches(num_items=0)
    with pytest.raises(ValueError, match="cannot be shared by 5 processes"):
        batches(num_processes=5)


def in_turns(*sizes: int, batch: int = 6, stop: int = 20, seed: int = 3) -> list[int]:
    draw = InTurns(sizes, seed)
    order = GlobalBatches(sum(sizes), batch, seed=seed, start=0, stop=stop, draw=draw)
    return [index for items in order for index, _ in items]


@pytest.mark.parametrize("sizes", [(10, 4), (4, 10), (5, 7, 1), (9,)])
@pytest.mark.parametrize("batch", [2, 5, 6])
def test_lists_in_turns_come_equally_often(sizes, batch):
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    drawn = in_turns(*sizes, batch=batch)
    owners = [max(k for k, start in enumerate(starts) if start <= index) for index in drawn]
    assert owners == [position % len(sizes) for position in range(20 * batch)]
    for k, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        own = [index - start for index, owner in zip(drawn, owners, strict=True) if owner == k]
        for epoch in range(len(own) // size):  # every item of a list once an epoch of that list
            assert sorted(own[size * epoch : size * (epoch + 1)]) == [*range(size)]


def test_lists_in_turns_are_shuffled_anew_by_epoch_and_seed():
    drawn = in_turns(12)
    assert drawn[:12] != drawn[12:24] != [*range(12)]
    assert in_turns(12, 5) != in_turns(12, 5, seed=4)
    assert in_turns(12, 5) == in_turns(12, 5)

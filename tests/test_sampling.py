"""The order of keyframes is computed: the same after a resume and for any number of processes."""

from __future__ import annotations

from collections import Counter

import pytest

from stadlib.data.sampling import GlobalBatches


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

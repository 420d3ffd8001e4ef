"""The order of keyframes is computed: frequencies, resumes, shares, refusals."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from stadlib.base import ConfigError, InputError
from stadlib.data.batches import (
    SAMPLERS,
    GlobalBatches,
    InTurns,
    batches_by_size,
    make_draw,
    repeat_factors,
)
from stadlib.data.keyframes import read_annotation_file
from stadlib.data.layout import read_label_map

NAMES = ("stand", "talk", "read", "hug")


def long_tailed(num_items: int = 4000, seed: int = 0) -> np.ndarray:
    """Keyframes of which 60, 30, 3 and 0.5 % contain the classes; some contain none."""
    rng = np.random.default_rng(seed)
    contains = rng.random((num_items, 4)) < np.array([0.6, 0.3, 0.03, 0.005])
    contains[0] = True
    return contains


def plain(start=0, stop=10, num_items=13, batch=4, seed=3, **options) -> list:
    return list(GlobalBatches(num_items, batch, seed=seed, start=start, stop=stop, **options))


def batches(word: str, start: int = 0, stop: int = 40, seed: int = 0, **options) -> list:
    draw = make_draw(word, long_tailed(), NAMES, seed)
    return plain(start, stop, 4000, 8, seed, draw=draw, **options)


def in_turns(*sizes: int, batch: int = 6, seed: int = 3) -> list[int]:
    draw = InTurns(sizes, seed)
    return [i for items in plain(0, 20, sum(sizes), batch, seed, draw=draw) for i, _ in items]


# ------------------------------------------------------------------------------- global batches


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_shares_are_a_global_batch_and_know_whose_persons_they_have(num_processes, accumulate):
    counts = [item % 4 for item in range(13)]
    options = {"num_processes": num_processes, "accumulate": accumulate}
    orders = [
        GlobalBatches(13, 7, seed=3, start=2, stop=6, rank=rank, **options)
        for rank in range(num_processes)
    ]
    assert all(len(order) == 4 * accumulate for order in orders)
    shares = [list(zip(order, order.shares(counts), strict=True)) for order in orders]
    for turn, whole in enumerate(plain(2, 6, batch=7)):
        parts = [part for share in shares for part in share[turn * accumulate :][:accumulate]]
        assert sorted(item for items, _ in parts for item in items) == sorted(whole)
        persons = [item for item, _ in whole for _ in range(counts[item])]
        for items, share in parts:
            assert share.total == len(persons)
            shown = [item for item, _ in items for _ in range(counts[item])]
            assert [persons[row] for row in share.rows] == shown
        rows = sorted(row for _, share in parts for row in share.rows)
        assert rows == list(range(len(persons)))


def test_every_item_comes_once_an_epoch_and_never_with_the_same_seed():
    drawn = [item for batch in plain(stop=13) for item in batch]
    for epoch in range(4):
        indices = [index for index, _ in drawn[13 * epoch : 13 * (epoch + 1)]]
        assert Counter(indices) == Counter(range(13))
    assert len({seed for _, seed in drawn}) == len(drawn)


def test_batches_of_one_size_hold_every_item_once():
    sizes = [(2, 3), (3, 2), (2, 3), (2, 3), (3, 2), (2, 3), (9, 9)]
    assert batches_by_size(sizes, 3) == [[0, 2, 3], [5], [1, 4], [6]]


def test_nothing_to_draw_is_refused():
    with pytest.raises(ConfigError, match="no keyframe to train on"):
        plain(num_items=0)
    with pytest.raises(ConfigError, match="cannot be shared by 5 processes"):
        plain(num_processes=5)


@pytest.mark.parametrize("word", SAMPLERS)
def test_the_sequence_is_a_function_of_its_seed_and_processes_share_no_keyframe(word):
    wholes = batches(word)
    assert batches(word) == wholes != batches(word, seed=1)
    assert batches(word, start=17) == wholes[17:]  # resumed in the middle of an epoch
    shares = [batches(word, rank=rank, num_processes=3) for rank in range(3)]
    for whole, *parts in zip(wholes, *shares, strict=True):
        assert sorted(item for part in parts for item in part) == sorted(whole)
        if word not in ("instance", "repeat-factor"):
            assert len({index for index, _ in whole}) == len(whole)


# ----------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize(("sizes", "batch"), [((10, 4), 2), ((5, 7, 1), 5), ((9,), 6)])
def test_lists_in_turns_come_equally_often_and_are_shuffled(sizes, batch):
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    drawn = in_turns(*sizes, batch=batch)
    owners = [max(k for k, start in enumerate(starts) if start <= index) for index in drawn]
    assert owners == [position % len(sizes) for position in range(20 * batch)]
    for k, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        part = [index - start for index, owner in zip(drawn, owners, strict=True) if owner == k]
        for epoch in range(len(part) // size):  # every item of a list once an epoch of that list
            assert sorted(part[size * epoch : size * (epoch + 1)]) == [*range(size)]
    assert drawn != in_turns(*sizes, batch=batch, seed=4)
    assert drawn == in_turns(*sizes, batch=batch)


@pytest.mark.parametrize("word", ["class-balanced", "square-root"])
def test_classes_are_drawn_by_their_weight_and_keyframes_contain_them(word):
    contains = long_tailed()
    draw = make_draw(word, contains, NAMES, seed=1)
    shares = np.bincount(draw.classes(np.arange(60_000)), minlength=4) / 60_000
    weights = np.sqrt(contains.sum(axis=0)) if word == "square-root" else np.ones(4)
    assert shares == pytest.approx(weights / weights.sum(), rel=0.01)
    for start in range(0, 4000, 20):
        positions = np.arange(start, start + 20)
        assert contains[draw(positions), draw.classes(positions)].all()


def test_keyframes_of_a_class_come_alike():
    """The common class's 2,400 keyframes, drawn 20,000 times: no favourites, none left out."""
    contains = long_tailed()[:, :1]
    draw = make_draw("class-balanced", contains, NAMES[:1], seed=3)
    items = np.concatenate([draw(np.arange(i, i + 10)) for i in range(0, 20_000, 10)])
    counts = np.bincount(items, minlength=len(contains))[contains[:, 0]]
    expected = 20_000 / contains.sum()
    assert counts.min() >= 1 and counts.max() < 4 * expected
    assert counts.std() == pytest.approx(np.sqrt(expected), rel=0.1)  # as chance would have it


def test_repeat_factor_epochs_repeat_as_often_as_the_definition_says():
    contains = long_tailed()
    factors, share = repeat_factors(contains), contains.mean(axis=0)
    for item in range(0, 4000, 37):
        wanted = [max(1, np.sqrt(1 / (4 * share[c]))) for c in range(4) if contains[item, c]]
        assert factors[item] == pytest.approx(max(wanted, default=1.0))
    draw = make_draw("repeat-factor", contains, NAMES, seed=0)
    epochs = [draw(np.arange(e * draw.length, (e + 1) * draw.length)) for e in range(30)]
    counts = np.array([np.bincount(epoch, minlength=4000) for epoch in epochs])
    assert (np.abs(counts - factors) < 1.5).all() and (counts >= 1).all()
    assert counts.mean(axis=0) == pytest.approx(factors, abs=0.4)


def test_a_class_with_one_keyframe_may_come_twice_in_a_batch():
    contains = np.ones((10, 4), bool)
    contains[:, 3] = np.arange(10) == 7
    items = make_draw("class-balanced", contains, NAMES, seed=0)(np.arange(40))
    assert Counter(items.tolist())[7] >= 10


def test_a_class_without_a_keyframe_is_refused_by_name():
    contains = long_tailed()
    contains[:, 2] = False
    for word in ("class-balanced", "square-root"):
        with pytest.raises(InputError, match="class 'read' is in no training keyframe"):
            make_draw(word, contains, NAMES, seed=0)
    make_draw("repeat-factor", contains, NAMES, seed=0)
    with pytest.raises(ConfigError, match="choose from instance, class-balanced, square-root"):
        make_draw("balanced", contains, NAMES, seed=0)


def test_it_is_quick_at_the_size_of_ava_kinetics():
    """240k keyframes of 60 classes; bounds are ten times what was seen, for busy machines."""
    rng = np.random.default_rng(0)
    contains = rng.random((240_000, 60)) < 0.3 / np.arange(1, 61) ** 1.5
    contains[0] = True
    for word in SAMPLERS[1:]:
        start = time.perf_counter()
        draw = make_draw(word, contains, [""] * 60, seed=0)
        draw(np.arange(64))
        ready = time.perf_counter()
        for iteration in range(100):
            draw(np.arange(iteration * 64, (iteration + 1) * 64))
        assert ready - start < 5 and (time.perf_counter() - ready) / 6400 < 200e-6


def test_every_evaluated_class_of_real_ava_kinetics_is_drawn_alike(shared):
    folder = shared / "data/ava"
    labels = read_label_map(folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    keyframes = read_annotation_file(folder / "kinetics_val_v1.0.csv", labels, "kinetics")
    contains = np.array([k.actions.any(axis=0) for k in keyframes if len(k.boxes)])
    contains = contains[:, contains.any(axis=0)]
    classes = contains.shape[1]
    draw = make_draw("class-balanced", contains, [""] * classes, seed=0)
    counts = Counter(draw.classes(np.arange(60_000)).tolist())
    assert all(abs(counts[c] / (60_000 / classes) - 1) < 0.05 for c in range(classes))
    items = np.concatenate([draw(np.arange(i, i + 60)) for i in range(0, 60_000, 60)])
    before, after = contains.mean(axis=0), contains[items].mean(axis=0)
    assert after.max() / after.min() < 0.2 * before.max() / before.min()

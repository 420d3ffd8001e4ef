"""Samplers that favour rare classes: expected frequencies, determinism, shares, refusals."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from stadlib.base import ConfigError, InputError
from stadlib.data.batches import SAMPLERS, ByClass, GlobalBatches, make_draw, repeat_factors
from stadlib.data.keyframes import read_annotation_file
from stadlib.data.labels import read_label_map

NAMES = ("stand", "talk", "read", "hug")


def long_tailed(num_items: int = 4000, seed: int = 0) -> np.ndarray:
    """Keyframes of which 60, 30, 3 and 0.5 % contain the classes; some contain none."""
    rng = np.random.default_rng(seed)
    contains = rng.random((num_items, 4)) < np.array([0.6, 0.3, 0.03, 0.005])
    contains[0] = True
    return contains


def batches(word: str, start: int = 0, stop: int = 40, batch: int = 8, **how) -> list:
    draw = make_draw(word, how.pop("contains", long_tailed()), NAMES, seed=how.get("seed", 0))
    how = {"seed": 0} | how
    return list(GlobalBatches(4000, batch, start=start, stop=stop, draw=draw, **how))


def drawn(word: str, contains: np.ndarray, number: int) -> np.ndarray:
    draw = make_draw(word, contains, NAMES, seed=1)
    return np.concatenate([draw(np.arange(i, i + 50)) for i in range(0, number, 50)])


def test_class_balanced_asks_for_every_class_alike():
    draw = make_draw("class-balanced", long_tailed(), NAMES, seed=1)
    asked = Counter(draw.classes(np.arange(60_000)).tolist())
    assert all(abs(asked[column] / 15_000 - 1) < 0.001 for column in range(4))


def test_square_root_asks_in_proportion_to_the_root():
    contains = long_tailed()
    draw = make_draw("square-root", contains, NAMES, seed=1)
    asked = np.bincount(draw.classes(np.arange(60_000)), minlength=4) / 60_000
    roots = np.sqrt(contains.sum(axis=0))
    assert asked == pytest.approx(roots / roots.sum(), rel=0.01)


@pytest.mark.parametrize("word", ["class-balanced", "square-root"])
def test_what_is_drawn_contains_what_was_asked_for(word):
    contains = long_tailed()
    draw = make_draw(word, contains, NAMES, seed=2)
    for start in range(0, 4000, 20):
        positions = np.arange(start, start + 20)
        assert contains[draw(positions), draw.classes(positions)].all()


def test_keyframes_of_a_class_come_alike():
    """The common class's 2,400 keyframes, drawn 20,000 times: no favourites, none left out."""
    contains = long_tailed()[:, :1]
    draw = ByClass(contains, np.ones(1), seed=3)
    items = np.concatenate([draw(np.arange(i, i + 10)) for i in range(0, 20_000, 10)])
    counts = np.bincount(items, minlength=len(contains))[contains[:, 0]]
    expected = 20_000 / contains.sum()
    assert counts.min() >= 1 and counts.max() < 4 * expected
    assert counts.std() == pytest.approx(np.sqrt(expected), rel=0.1)  # as chance would have it


def test_repeat_factors_are_the_definition():
    contains = long_tailed()
    share = contains.mean(axis=0)
    factors = repeat_factors(contains)
    for item in range(0, 4000, 37):
        own = [max(1, np.sqrt(1 / (4 * share[c]))) for c in range(4) if contains[item, c]]
        assert factors[item] == pytest.approx(max(own, default=1.0))


def test_repeat_factor_epochs_repeat_as_often_as_the_factors_say():
    contains = long_tailed()
    factors = repeat_factors(contains)
    draw = make_draw("repeat-factor", contains, NAMES, seed=0)
    epochs = [draw(np.arange(e * draw.length, (e + 1) * draw.length)) for e in range(30)]
    counts = np.array([np.bincount(epoch, minlength=4000) for epoch in epochs])
    assert (np.abs(counts - factors) < 1.5).all() and (counts >= 1).all()
    assert counts.mean(axis=0) == pytest.approx(factors, abs=0.4)
    assert counts[:, contains[:, 3]].mean() > 5 * counts[:, ~contains[:, 2:].any(axis=1)].mean()


@pytest.mark.parametrize("word", SAMPLERS)
def test_the_sequence_is_a_function_of_its_seed(word):
    assert batches(word) == batches(word)
    assert batches(word, start=17) == batches(word)[17:]  # resumed in the middle of an epoch
    assert batches(word, seed=1) != batches(word)


@pytest.mark.parametrize("word", SAMPLERS)
@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_the_batches_and_no_keyframe(word, num_processes):
    shares = [batches(word, rank=r, num_processes=num_processes) for r in range(num_processes)]
    for iteration, whole in enumerate(batches(word)):
        parts = [set(share[iteration]) for share in shares]
        assert set().union(*parts) == set(whole)
        items = [{index for index, _ in part} for part in parts]
        if word not in ("instance", "repeat-factor"):
            assert len(set().union(*items)) == sum(map(len, items))


def test_a_class_with_one_keyframe_may_come_twice_in_a_batch():
    contains = np.zeros((10, 4), bool)
    contains[:, :3] = True
    contains[7, 3] = True
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
    names = [str(number) for number in range(60)]
    for word in SAMPLERS[1:]:
        start = time.perf_counter()
        draw = make_draw(word, contains, names, seed=0)
        draw(np.arange(64))
        assert time.perf_counter() - start < 5
        start = time.perf_counter()
        for iteration in range(100):
            draw(np.arange(iteration * 64, (iteration + 1) * 64))
        assert (time.perf_counter() - start) / 6400 < 200e-6


def test_every_evaluated_class_of_real_ava_kinetics_is_drawn_alike(shared):
    folder = shared / "data/ava"
    labels = read_label_map(folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    keyframes = read_annotation_file(folder / "kinetics_val_v1.0.csv", labels, "kinetics")
    contains = np.array([k.actions.any(axis=0) for k in keyframes if len(k.boxes)])
    there = contains.any(axis=0)
    names = [labels.name(action) for action in labels.ids]
    draw = make_draw("class-balanced", contains[:, there], np.array(names)[there].tolist(), seed=0)
    asked = np.bincount(draw.classes(np.arange(60_000)), minlength=there.sum())
    assert (np.abs(asked / (60_000 / there.sum()) - 1) < 0.05).all()
    items = np.concatenate([draw(np.arange(i, i + 60)) for i in range(0, 60_000, 60)])
    before, after = contains[:, there].mean(axis=0), contains[items][:, there].mean(axis=0)
    assert after.max() / after.min() < 0.2 * before.max() / before.min()

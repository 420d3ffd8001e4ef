"""The online bank goes back with the checkpoint, and keeps what it has room for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stadlib.data.keyframes import Keyframe
from stadlib.training.memory import OnlineBanks


def keyframe(source: str, video: str, timestamp: float, persons: int) -> Keyframe:
    boxes = np.tile(np.array([[0.1, 0.1, 0.5, 0.9]], np.float32), (persons, 1))
    return Keyframe(
        source, video, timestamp, boxes, np.ones((persons, 1), bool), np.zeros(persons, int)
    )


KEYFRAMES = {
    "ava": [keyframe("ava", "a", 902.0, 2), keyframe("ava", "a", 903.0, 1)],
    "kinetics": [keyframe("kinetics", "k", 5.03, 1), keyframe("kinetics", "k", 5.04, 3)],
}


@pytest.fixture
def online(tmp_path) -> OnlineBanks:
    banks = OnlineBanks(tmp_path, {"stage": "x"}, (2, 4), KEYFRAMES)
    banks.restore(0)
    return banks


def update(online: OnlineBanks, keyframes: list[Keyframe], value: float) -> None:
    counts = torch.tensor([len(k.boxes) for k in keyframes])
    tokens = torch.full((int(counts.sum()), 2, 4), value)
    boxes = torch.from_numpy(np.concatenate([k.boxes for k in keyframes]))
    online.update([(k.source, k.video, k.timestamp) for k in keyframes], counts, tokens, boxes)
    online.settle()


def seen(online: OnlineBanks, second: int) -> list[float]:
    memory = online.banks["ava"].window([("a", second)], 1, 5)
    return memory.tokens_BMLC[memory.mask_BM][:, 0, 0].tolist()


def test_nobody_is_remembered_before_the_first_iteration(online):
    assert all(bank.num_written == 0 for bank in online.banks.values())


def test_a_clip_replaces_what_was_known_of_it(online):
    update(online, KEYFRAMES["ava"], 1.0)
    update(online, KEYFRAMES["ava"][:1], 2.0)
    assert seen(online, 903) == [2.0, 2.0]
    assert seen(online, 902) == [1.0]


def test_going_back_is_exact_and_two_copies_are_kept(online, tmp_path):
    for iteration in (1, 2, 3):
        update(online, KEYFRAMES["ava"], float(iteration))
        online.keep(iteration)
    update(online, KEYFRAMES["ava"], 9.0)
    assert sorted(p.name for p in tmp_path.glob("ava-*")) == ["ava-00000002", "ava-00000003"]
    for iteration in (2, 3):
        online.restore(iteration)
        assert seen(online, 902) == [float(iteration)]
    online.restore(0)
    assert seen(online, 902) == []


def test_of_two_keyframes_in_a_second_the_first_is_remembered(online):
    update(online, KEYFRAMES["kinetics"][::-1], 1.0)
    assert online.banks["kinetics"].num_written == 1


def test_sources_without_a_bank_are_passed_over(tmp_path):
    online = OnlineBanks(tmp_path, {"stage": "x"}, (2, 4), {"ava": KEYFRAMES["ava"]})
    online.restore(0)
    update(online, KEYFRAMES["ava"] + KEYFRAMES["kinetics"], 1.0)
    assert online.banks["ava"].num_written == 3
    nothing = OnlineBanks(tmp_path, {"stage": "x"}, (2, 4), {})
    nothing.restore(0)
    update(nothing, KEYFRAMES["ava"], 1.0)
    nothing.keep(1)


def test_what_an_iteration_saw_is_remembered_from_the_next_one_on(online):
    first, second = (KEYFRAMES["ava"][:1], KEYFRAMES["ava"][1:])
    for keyframes, value in ((first, 1.0), (second, 2.0), (first, 3.0)):
        counts = torch.tensor([len(k.boxes) for k in keyframes])
        tokens = torch.full((int(counts.sum()), 2, 4), value)
        boxes = torch.from_numpy(np.concatenate([k.boxes for k in keyframes]))
        online.update([(k.source, k.video, k.timestamp) for k in keyframes], counts, tokens, boxes)
    assert seen(online, 902) == seen(online, 903) == []
    online.settle()
    assert seen(online, 902) == [2.0]
    assert seen(online, 903) == [3.0, 3.0]  # of two showings the later one counts

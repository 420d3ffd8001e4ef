"""The feature bank: what is handed out was written, and nothing else is."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stadlib.base import InputError
from stadlib.models.heads import no_memory
from stadlib.training.bank import IN_HAND, FeatureBank, second_of, windows

L, C = 2, 3
WHAT = {"backbone": "abc", "detector": "ground-truth", "threshold": 0.8}


def persons(video: str, second: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, boxes and scores that tell where they belong; all exact in float16."""
    name = float(ord(video) % 16)
    tokens = torch.zeros(count, L, C)
    tokens[..., 0], tokens[..., 1] = name, second
    tokens[..., 2] = torch.arange(count)[:, None]
    boxes = torch.tensor([[0.0, 0.0, 0.5, 1.0]]).repeat(count, 1) + torch.arange(count)[:, None] / 8
    return tokens, boxes, torch.arange(count) % 3 / 2.0


def filled(folder, seconds: dict[tuple[str, int], int], skip=()) -> FeatureBank:
    bank = FeatureBank.create(folder, WHAT, length=L, width=C)
    bank.add((*key, count) for key, count in seconds.items())
    for (video, second), count in seconds.items():
        if (video, second) not in skip:
            bank.write([(video, second)], torch.tensor([count]), *persons(video, second, count))
    return bank


def by_loops(seconds: dict, skip: set, key: tuple[str, int], span: int, most: int) -> list[tuple]:
    """(relative second, number of the person) of everybody remembered, one after the other."""
    found = []
    for offset in range(-span, span + 1):
        there = (key[0], key[1] + offset)
        if offset and there in seconds and there not in skip:
            scores = persons(*there, seconds[there])[2].tolist()
            best = sorted(range(seconds[there]), key=lambda n: -scores[n])[:most]
            found += [(offset, number) for number in sorted(best)]
    return found


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.integers(-2, 9)), st.integers(0, 6), min_size=1
    ),
    skipped=st.integers(0, 3),
    span=st.integers(0, 5),
    most=st.integers(1, 4),
    keys=st.lists(st.tuples(st.sampled_from("abx"), st.integers(-3, 12)), min_size=1, max_size=5),
)
def test_a_window_equals_a_loop_over_seconds(tmp_path_factory, seconds, skipped, span, most, keys):
    skip = set(list(seconds)[:skipped])
    bank = filled(tmp_path_factory.mktemp("bank"), seconds, skip)
    memory = bank.window(keys, span, most)
    for clip, key in enumerate(keys):
        written = memory.mask_BM[clip]
        expected = by_loops(seconds, skip, key, span, most)
        numbers = memory.tokens_BMLC[clip, written, 0, 2].int().tolist()
        assert (
            list(zip(memory.seconds_BM[clip, written].tolist(), numbers, strict=True)) == expected
        )
        assert (memory.tokens_BMLC[clip, written, :, 0] == ord(key[0]) % 16).all()
        times = key[1] + memory.seconds_BM[clip, written]
        assert (memory.tokens_BMLC[clip, written, 0, 1] == times).all()
        assert not memory.tokens_BMLC[clip, ~written].any()
    assert memory.mask_BM.any(dim=0).all()  # no wider than the fullest clip
    assert memory.tokens_BMLC.shape[1:] == (memory.mask_BM.shape[1], L, C)


def test_what_is_read_was_written_in_half_precision(tmp_path):
    bank = FeatureBank.create(tmp_path, WHAT, length=L, width=C)
    bank.add([("a", 1, 2), ("b", 7, 1)])
    tokens = torch.randn(3, L, C)
    bank.write([("b", 7), ("a", 1)], torch.tensor([1, 2]), tokens, torch.rand(3, 4))
    read, counts = FeatureBank(tmp_path, WHAT).read([("a", 1), ("b", 7)])
    assert counts.tolist() == [2, 1]
    assert torch.equal(read, tokens[[1, 2, 0]].half().float())


def test_tokens_of_a_network_in_bfloat16_are_taken(tmp_path):
    bank = FeatureBank.create(tmp_path / "bank", WHAT, length=L, width=C)
    bank.add([("a", 1, 2)])
    tokens, boxes, scores = persons("a", 1, 2)
    bank.write([("a", 1)], torch.tensor([2]), tokens.bfloat16(), boxes, scores)
    assert torch.equal(bank.read([("a", 1)])[0], tokens)


def test_fewer_persons_than_last_time_leave_the_others_unwritten(tmp_path):
    bank = filled(tmp_path, {("a", 1): 3})
    bank.write([("a", 1)], torch.tensor([1]), *persons("a", 1, 1))
    assert bank.window([("a", 0)], 2, 5).mask_BM.tolist() == [[True]]
    assert not bank.has([("a", 1)])[0]


def test_seconds_are_appended_and_the_old_ones_stay(tmp_path):
    before = filled(tmp_path, {("a", 1): 2, ("b", 1): 1})
    window = before.window([("a", 2)], 3, 5)
    bank = FeatureBank.create(tmp_path, WHAT, length=L, width=C)
    bank.add([("a", 1, 2), ("a", 3, 1), ("c", 5, 4)])
    assert len(bank) == 4 and bank.num_written == 3
    for now, then in zip(bank.window([("a", 2)], 3, 5), window, strict=True):
        assert torch.equal(now, then)
    bank.write([("a", 3)], torch.tensor([1]), *persons("a", 3, 1))
    assert bank.window([("a", 2)], 3, 5).seconds_BM.tolist() == [[-1, -1, 1]]
    with pytest.raises(ValueError, match="a, second 1: room for 2, not 5"):
        bank.add([("a", 1, 5)])


def test_a_bank_of_something_else_is_refused_by_name(tmp_path):
    filled(tmp_path, {("a", 1): 1})
    for name, value in (("backbone", "xyz"), ("detector", "v3"), ("threshold", 0.5)):
        with pytest.raises(InputError, match=f"a bank of another {name}.*delete it"):
            FeatureBank(tmp_path, WHAT | {name: value})
    with pytest.raises(InputError, match="no feature bank; extract one"):
        FeatureBank(tmp_path / "elsewhere", WHAT)


@pytest.mark.parametrize("name", ["bank.json", "rows-1.npy", "tokens.f16"])
def test_a_damaged_bank_is_one_line(tmp_path, name):
    filled(tmp_path, {("a", 1): 1}).flush()
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"delete the bank$") as caught:
        FeatureBank(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def test_what_is_not_there_is_named(tmp_path):
    bank = filled(tmp_path, {("a", 1): 1, ("a", 2): 1}, skip={("a", 2)})
    with pytest.raises(InputError, match="a, second 2 is not written; extract it"):
        bank.read([("a", 1), ("a", 2)])
    with pytest.raises(ValueError, match="b, second 1: no room"):
        bank.write([("b", 1)], torch.tensor([1]), *persons("b", 1, 1))


def test_a_write_that_is_cut_short_is_told_and_masked(tmp_path, monkeypatch):
    bank = filled(tmp_path, {("a", 1): 2, ("a", 2): 2})

    class Interrupted(np.ndarray):
        def __setitem__(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr(bank, "_boxes", bank._boxes.view(Interrupted))
    with pytest.raises(KeyboardInterrupt):
        bank.write([("a", 2)], torch.tensor([2]), *persons("a", 2, 2))
    reader = FeatureBank(tmp_path)
    assert reader.window([("a", 0)], 3, 5).seconds_BM.tolist() == [[1, 1]]
    assert (reader._states == IN_HAND).sum() == 2
    again = FeatureBank(tmp_path, WHAT, writable=True)
    assert again.lost == 2 and again.num_written == 2
    assert again.has([("a", 1), ("a", 2)]).tolist() == [True, False]


WRITER = """
import sys, torch
from stadlib.training.bank import FeatureBank
bank = FeatureBank.create(sys.argv[1], {}, length=8, width=512)
bank.add([("v", second, 4) for second in range(500)])
print("ready", flush=True)
while True:
    for second in range(0, 500, 10):
        keys = [("v", second + i) for i in range(10)]
        value = float(torch.randint(1, 100, ()))
        bank.write(keys, torch.full((10,), 4), torch.full((40, 8, 512), value), torch.rand(40, 4))
"""


def test_a_killed_writer_loses_at_most_the_batch_in_hand(tmp_path):
    for delay in (0.05, 0.11, 0.23):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        bank = FeatureBank(tmp_path, {}, writable=True)
        assert bank.lost in (0, 40)
        written = [("v", second) for second in range(500) if bank.has([("v", second)])[0]]
        assert written
        tokens, _ = bank.read(written)
        whole = tokens.flatten(1)
        assert (whole == whole[:, :1]).all() and (whole > 0).all()  # no slot is half of each


def test_workers_read_what_the_process_before_them_writes(tmp_path):
    bank = filled(tmp_path, {("a", 1): 1}, skip={("a", 1)})
    reader = pickle.loads(pickle.dumps(bank))
    assert not reader.writable and not reader.has([("a", 1)])[0]
    bank.write([("a", 1)], torch.tensor([1]), *persons("a", 1, 1))
    assert reader.has([("a", 1)])[0]
    with pytest.raises(ValueError, match="read-only"):
        reader.write([("a", 1)], torch.tensor([1]), *persons("a", 1, 1))


def test_a_copy_is_of_its_moment(tmp_path):
    bank = filled(tmp_path / "live", {("a", 1): 1, ("a", 2): 1}, skip={("a", 2)})
    bank.copy(tmp_path / "aside")
    bank.write([("a", 2)], torch.tensor([1]), *persons("a", 2, 1))
    assert FeatureBank(tmp_path / "aside", WHAT).num_written == 1
    bank.copy(tmp_path / "aside")
    assert FeatureBank(tmp_path / "aside", WHAT).num_written == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside", "live"]


def test_sources_remember_their_own(tmp_path):
    one = filled(tmp_path / "ava", {("a", 1): 1, ("a", 2): 2})
    other = filled(tmp_path / "kinetics", {("a", 5): 3})
    keys = [("ava", "a", 3.0), ("kinetics", "a", 4.016949), ("ava", "b", 1.0)]
    empty = no_memory(3, C)
    both = windows({"ava": one, "kinetics": other}, keys, 4, 5, empty)
    assert both.mask_BM.sum(dim=1).tolist() == [3, 3, 0]
    assert both.seconds_BM[1].tolist() == [1, 1, 1]
    only = windows({"ava": one}, keys, 4, 5, empty)
    assert only.mask_BM.sum(dim=1).tolist() == [3, 0, 0]
    assert torch.equal(only.tokens_BMLC[0], both.tokens_BMLC[0])
    assert windows({}, keys, 4, 5, empty) is empty


def test_the_nearest_second_is_meant():
    assert [second_of(t) for t in (5.016949, 4.51, 902.0, 2.5)] == [5, 5, 902, 3]

"""The feature bank hands out what was written and nothing else; the online memory goes back with
the checkpoint."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stadlib.base import InputError
from stadlib.data.clips import Batch
from stadlib.data.keyframes import Keyframe
from stadlib.models.heads import no_memory
from stadlib.recipes.experiment import Experiment
from stadlib.training import build, processes
from stadlib.training.bank import WRITTEN, FeatureBank, second_of, windows
from stadlib.training.memory import OfflineMemory, OnlineMemory, clip_key

L, C = 2, 3
WHAT = {"backbone": "abc", "detector": "ground-truth", "threshold": 0.8}


def persons(video: str, second: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and boxes that tell where they belong; all exact in float16."""
    tokens = torch.zeros(count, L, C)
    tokens[..., 0], tokens[..., 1] = float(ord(video) % 16), second
    tokens[..., 2] = torch.arange(count)[:, None]
    return tokens, torch.tensor([[0.0, 0.0, 0.5, 1.0]]) + torch.arange(count)[:, None] / 8


def create(folder, seconds: dict[tuple[str, int], int]) -> FeatureBank:
    rows = [(*key, count) for key, count in seconds.items()]
    return FeatureBank.create(folder, WHAT, rows, length=L, width=C)


def filled(folder, seconds: dict[tuple[str, int], int], skip=()) -> FeatureBank:
    bank = create(folder, seconds)
    for (video, second), count in seconds.items():
        if (video, second) not in skip:
            bank.write([(video, second)], torch.tensor([count]), *persons(video, second, count))
    return bank


def num_written(bank: FeatureBank) -> int:
    return int((bank.states == WRITTEN).sum())


def by_loops(seconds: dict, skip: set, key: tuple, span: int, most: int, own: bool) -> list[tuple]:
    """(relative second, number of the person) of all in memory, one after the other."""
    return [
        (offset, number)
        for offset in range(-span, span + 1)
        if (offset or own) and (key[0], key[1] + offset) not in skip
        for number in range(seconds.get((key[0], key[1] + offset), 0))[:most]
    ]


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.integers(-2, 9)), st.integers(0, 6), min_size=1
    ),
    skipped=st.integers(0, 3),
    span=st.integers(0, 5),
    most=st.integers(1, 4),
    keys=st.lists(st.tuples(st.sampled_from("abx"), st.integers(-3, 12)), min_size=1, max_size=5),
    own=st.booleans(),
)
def test_a_window_equals_a_loop_over_seconds(
    tmp_path_factory, seconds, skipped, span, most, keys, own
):
    skip = set(list(seconds)[:skipped])
    bank = filled(tmp_path_factory.mktemp("bank"), seconds, skip)
    memory = bank.window(keys, span, most, own)
    for clip, key in enumerate(keys):
        written = memory.mask_BM[clip]
        times, tokens = memory.seconds_BM[clip, written], memory.tokens_BMLC[clip, written]
        numbers = tokens[:, 0, 2].int().tolist()
        expected = by_loops(seconds, skip, key, span, most, own)
        assert list(zip(times.tolist(), numbers, strict=True)) == expected
        assert (tokens[..., 0] == ord(key[0]) % 16).all()
        assert (tokens[:, 0, 1] == key[1] + times).all()
        assert not memory.tokens_BMLC[clip, ~written].any()
    assert memory.mask_BM.any(dim=0).all()  # no wider than the fullest clip
    assert memory.tokens_BMLC.shape[1:] == (memory.mask_BM.shape[1], L, C)


def test_drawn_persons_are_some_of_a_seconds_and_depend_on_seed_and_clip_alone(tmp_path):
    bank = filled(tmp_path, {("a", 1): 6, ("a", 2): 1, ("a", 3): 2, ("b", 1): 6})

    def persons_of(memory, clip):
        written = memory.mask_BM[clip]
        numbers = memory.tokens_BMLC[clip, written][:, 0, 2].int().tolist()
        return list(zip(memory.seconds_BM[clip, written].tolist(), numbers, strict=True))

    seen = set()
    for seed in range(40):
        drawn = persons_of(bank.window([("a", 2)], 2, 2, draw=seed), 0)
        assert drawn[2:] == [(1, 0), (1, 1)]  # two of two
        assert drawn[0][0] == drawn[1][0] == -1 and 0 <= drawn[0][1] < drawn[1][1] < 6
        both = bank.window([("b", 2), ("a", 2)], 2, 2, draw=seed)
        assert persons_of(both, 1) == drawn
        seen |= {number for second, number in drawn if second == -1}
    assert seen == {*range(6)}
    surest = persons_of(bank.window([("a", 2)], 2, 2), 0)
    assert surest[:2] == [(-1, 0), (-1, 1)]


def test_what_is_read_was_written_in_half_precision(tmp_path):
    bank, tokens = create(tmp_path, {("a", 1): 2, ("b", 7): 1}), torch.randn(3, L, C)
    bank.write([("b", 7), ("a", 1)], torch.tensor([1, 2]), tokens, torch.rand(3, 4))
    read, counts = FeatureBank(tmp_path, WHAT).read([("a", 1), ("b", 7)])
    assert counts.tolist() == [2, 1]
    assert torch.equal(read, tokens[[1, 2, 0]].half().float())
    tokens, boxes = persons("a", 1, 2)  # of a network in bfloat16
    bank.write([("a", 1)], torch.tensor([2]), tokens.bfloat16(), boxes)
    assert torch.equal(bank.read([("a", 1)])[0], tokens)


def test_fewer_persons_than_last_time_leave_the_others_unwritten(tmp_path):
    bank = filled(tmp_path, {("a", 1): 3})
    bank.write([("a", 1)], torch.tensor([1]), *persons("a", 1, 1))
    assert bank.window([("a", 0)], 2, 5).mask_BM.tolist() == [[True]]
    assert not bank.has([("a", 1)])[0]


def test_a_bank_of_something_else_is_refused_by_name(tmp_path):
    seconds = {("a", 1): 1, ("b", 1): 2}
    filled(tmp_path, seconds)
    for name, value in (("backbone", "xyz"), ("detector", "v3"), ("threshold", 0.5)):
        with pytest.raises(InputError, match=f"a bank of another {name}.*delete it"):
            FeatureBank(tmp_path, WHAT | {name: value})
    with pytest.raises(InputError, match="no feature bank; extract one"):
        FeatureBank(tmp_path / "elsewhere", WHAT)
    assert num_written(create(tmp_path, seconds)) == 3
    for other in (seconds | {("b", 1): 1}, seconds | {("b", 2): 1}, {("a", 1): 1, ("c", 1): 2}):
        with pytest.raises(InputError, match=r"a bank of other seconds or persons.*delete it"):
            create(tmp_path, other)


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
    with pytest.raises(ValueError, match="b, second 1: no room for that many"):
        bank.write([("b", 1)], torch.tensor([1]), *persons("b", 1, 1))
    with pytest.raises(ValueError, match="a, second 1: no room"):
        bank.write([("a", 1)], torch.tensor([2]), *persons("a", 1, 2))


def test_a_write_that_is_cut_short_is_masked(tmp_path, monkeypatch):
    bank = filled(tmp_path, {("a", 1): 2, ("a", 2): 2})

    class Interrupted(np.ndarray):
        def __setitem__(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr(bank, "boxes", bank.boxes.view(Interrupted))
    with pytest.raises(KeyboardInterrupt):
        bank.write([("a", 2)], torch.tensor([2]), *persons("a", 2, 2))
    reader = FeatureBank(tmp_path)
    assert reader.window([("a", 0)], 3, 5).seconds_BM.tolist() == [[1, 1]]
    again = FeatureBank(tmp_path, WHAT, writable=True)
    assert num_written(again) == 2
    assert again.has([("a", 1), ("a", 2)]).tolist() == [True, False]


WRITER = """
import sys, torch
from stadlib.training import build, processes
from stadlib.training.bank import FeatureBank
rows = [("v", second, 4) for second in range(500)]
bank = FeatureBank.create(sys.argv[1], {}, rows, length=8, width=512)
print("ready", flush=True)
while True:
    for second in range(0, 500, 10):
        keys = [("v", second + i) for i in range(10)]
        value = float(torch.randint(1, 100, ()))
        bank.write(keys, torch.full((10,), 4), torch.full((40, 8, 512), value), torch.rand(40, 4))
"""


def test_a_killed_writer_leaves_no_half_written_token(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"ready\n"
    time.sleep(0.2)
    writer.kill()
    writer.wait()
    writer.stdout.close()
    bank = FeatureBank(tmp_path, {}, writable=True)
    written = [("v", second) for second in range(500) if bank.has([("v", second)])[0]]
    assert written
    whole = bank.read(written)[0].flatten(1)
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
    assert num_written(FeatureBank(tmp_path / "aside", WHAT)) == 1
    bank.copy(tmp_path / "aside")
    assert num_written(FeatureBank(tmp_path / "aside", WHAT)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside", "live"]


def test_sources_remember_their_own_by_the_nearest_second(tmp_path):
    assert [second_of(t) for t in (5.016949, 4.51, 902.0, 2.5)] == [5, 5, 902, 3]
    one = filled(tmp_path / "ava", {("a", 1): 1, ("a", 2): 2})
    other = filled(tmp_path / "kinetics", {("a", 5): 3})
    keys = [("ava", "a", 3.0), ("kinetics", "a", 4.016949), ("ava", "b", 1.0)]
    empty = no_memory(3, C)
    limits = {"span": 4, "max_persons": 5}
    both = windows({"ava": one, "kinetics": other}, keys, empty, **limits)
    assert both.mask_BM.sum(dim=1).tolist() == [3, 3, 0]
    assert both.seconds_BM[1].tolist() == [1, 1, 1]
    only = windows({"ava": one}, keys, empty, **limits)
    assert only.mask_BM.sum(dim=1).tolist() == [3, 0, 0]
    assert torch.equal(only.tokens_BMLC[0], both.tokens_BMLC[0])
    assert windows({}, keys, empty, **limits) is empty


def test_a_bank_takes_its_room_at_once_and_says_when_there_is_none(tmp_path, monkeypatch):
    bank = create(tmp_path / "new", {("a", 1): 3000})
    size = (tmp_path / "new" / "tokens.f16").stat()
    assert size.st_blocks * 512 >= size.st_size == bank.tokens.nbytes > 0

    def full(file, start, count):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    line = (
        r"^.*tokens\.f16: No space left on device: 3.6e-05 GB; free space or set STADLIB_RESULTS$"
    )
    with pytest.raises(InputError, match=line):
        create(tmp_path / "none", {("a", 1): 3000})


def test_a_bank_takes_what_another_has_and_it_lacks(tmp_path):
    seconds = {("a", 1): 2, ("a", 2): 1, ("b", 1): 3}
    one = filled(tmp_path / "one", seconds, skip={("a", 2), ("b", 1)})
    other = filled(tmp_path / "other", seconds, skip={("b", 1)})
    other.tokens[:2] = 9.0
    one.take(other)
    assert one.has(list(seconds)).tolist() == [True, True, False]
    for key in (("a", 1), ("a", 2)):
        expected, boxes = persons(*key, seconds[key])
        assert torch.equal(one.read([key])[0], expected)
    assert np.array_equal(one.boxes[2:3], boxes)


# ------------------------------------------------------------------------------ the online memory


def keyframe(source: str, video: str, timestamp: float, count: int) -> Keyframe:
    boxes = np.tile(np.array([[0.1, 0.1, 0.5, 0.9]], np.float32), (count, 1))
    actions = np.ones((count, 1), bool)
    return Keyframe(source, video, timestamp, boxes, actions, np.zeros(count, int))


AVA = [keyframe("ava", "a", 902.0, 2), keyframe("ava", "a", 903.0, 1)]
KINETICS = [keyframe("kinetics", "k", 5.03, 1), keyframe("kinetics", "k", 5.04, 3)]


def make_online(folder, **keyframes: list[Keyframe]) -> OnlineMemory:
    online = OnlineMemory(folder, {"stage": "x"}, (2, 4), keyframes)
    online.restore(0)
    return online


@pytest.fixture
def online(tmp_path) -> OnlineMemory:
    return make_online(tmp_path, ava=AVA, kinetics=KINETICS)


def update(online: OnlineMemory, keyframes: list[Keyframe], value: float) -> None:
    counts = torch.tensor([len(k.boxes) for k in keyframes])
    tokens = torch.full((int(counts.sum()), 2, 4), value)
    boxes = torch.from_numpy(np.concatenate([k.boxes for k in keyframes]))
    online.update([clip_key(k) for k in keyframes], counts, tokens, boxes)


def seen(online: OnlineMemory, second: int) -> list[float]:
    """What a clip of video a remembers of the seconds beside it."""
    memory = online.banks["ava"].window([("a", second)], 1, 5)
    return memory.tokens_BMLC[memory.mask_BM][:, 0, 0].tolist()


def test_a_clip_replaces_what_was_known_of_it_from_the_next_iteration_on(online):
    assert seen(online, 902) == seen(online, 903) == []
    update(online, AVA, 1.0)
    online.settle()
    assert seen(online, 903) == [1.0, 1.0] and seen(online, 902) == [1.0]
    for keyframes, value in ((AVA[:1], 2.0), (AVA[1:], 3.0), (AVA[:1], 4.0)):
        update(online, keyframes, value)
    assert seen(online, 903) == [1.0, 1.0] and seen(online, 902) == [1.0]
    online.settle()
    assert seen(online, 903) == [4.0, 4.0]  # of two showings the later one counts
    assert seen(online, 902) == [3.0]


def test_going_back_is_exact_and_two_copies_are_kept(online, tmp_path):
    for iteration in (1, 2, 3):
        update(online, AVA, float(iteration))
        online.keep(iteration)
    update(online, AVA, 9.0)
    assert sorted(p.name for p in tmp_path.glob("ava-*")) == ["ava-00000002", "ava-00000003"]
    for iteration in (2, 3):
        online.restore(iteration)
        assert seen(online, 902) == [float(iteration)]
    online.restore(0)
    assert seen(online, 902) == []


def test_the_first_of_two_keyframes_in_a_second_is_kept_and_only_of_sources_with_a_bank(tmp_path):
    online = make_online(tmp_path, ava=AVA, kinetics=KINETICS)
    update(online, KINETICS[::-1], 1.0)
    online.settle()
    assert [num_written(online.banks[source]) for source in ("ava", "kinetics")] == [0, 1]
    nothing = make_online(tmp_path / "none")
    update(nothing, AVA, 1.0)
    nothing.keep(1)
    assert not (tmp_path / "none").exists()
    online = make_online(tmp_path / "ava", ava=AVA)
    update(online, AVA + KINETICS, 1.0)
    online.settle()
    assert num_written(online.banks["ava"]) == 3


# -------------------------------------------------------------------------------- several machines


def on_machine_of_its_own() -> None:
    """Each of two processes is the first of its machine."""
    os.environ |= {"GROUP_RANK": os.environ["RANK"], "LOCAL_RANK": "0"}


def two_machines(folder) -> list[list[float]]:
    """What each remembers of both processes' clips, and after a return to a copy."""
    on_machine_of_its_own()
    online, remembered = make_online(folder, ava=AVA), []
    for iteration, value in enumerate((1.0, 2.0), 1):
        update(online, [AVA[processes.rank()]], value + 10 * processes.rank())
        online.keep(iteration)
        remembered.append(seen(online, 902) + seen(online, 903))
    online.restore(1)
    return [*remembered, seen(online, 902) + seen(online, 903)]


def test_machines_that_do_not_see_each_others_files_remember_the_same(tmp_path, pair):
    expected = [[11.0, 1.0, 1.0], [12.0, 2.0, 2.0], [11.0, 1.0, 1.0]]
    assert pair.run(two_machines, tmp_path) == [expected, expected]
    # Neither writes into what the other has mapped.
    assert {path.name for path in tmp_path.iterdir()} > {"ava", "ava@1"}


class Constant(nn.Module):
    """A network whose tokens are the number of its process."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)  # the same in all processes
        self.backbone, self.fusion = nn.Linear(1, 1), nn.Linear(1, 1)

    def tokens(self, clips, boxes_N4, *_):
        return torch.full((len(boxes_N4), L, C), float(processes.rank()))


class Shares(list):
    """Batches of a keyframe in one view each."""

    @property
    def batch_sampler(self):
        return self


def extracted(folder, lost: bool = False):
    """The first tokens and the states of a bank of six seconds, of which each process sees some."""
    if processes.num_processes() > 1:
        on_machine_of_its_own()
    keyframes = {("a", second): keyframe("ava", "a", float(second), 2) for second in range(6)}

    def batches(experiment, layout, every, views, items, **options):
        own = [] if lost else items[processes.rank() :: processes.num_processes()]
        return Shares([clip_of(every[item])] for item in own)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "token_size", lambda *_: (L, C))
        patch.setattr(build, "test_batches", batches)
        memory = OfflineMemory(None, Experiment(), folder, lambda title: lambda *_: None, 0.0)
        (bank,) = memory._extracted(Constant(), {"view": None}, keyframes, False)
    return bank.tokens[::2, 0, 0].tolist(), bank.states.tolist()


def clip_of(keyframe: Keyframe) -> Batch:
    boxes, counts = torch.from_numpy(keyframe.boxes), torch.tensor([len(keyframe.boxes)])
    clip, actions = torch.zeros(1, 3, 1, 8, 8), torch.zeros(len(boxes), 1)
    return Batch(clip, boxes, counts, actions, boxes, [(8, 8)], [clip_key(keyframe)])


def test_machines_extract_into_files_of_their_own_which_are_joined(tmp_path, pair):
    expected = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0], [WRITTEN] * 12
    assert pair.run(extracted, tmp_path) == [expected, expected]
    assert [path.name for path in (tmp_path / "banks").iterdir()] == ["view"]


def test_what_a_machine_extracted_before_a_kill_is_used(tmp_path):
    kept = tmp_path / "banks" / "view@1"
    extracted(tmp_path)
    (tmp_path / "banks" / "view").rename(kept)
    FeatureBank(kept, writable=True).tokens[:] = 5.0
    assert extracted(tmp_path) == ([5.0] * 6, [WRITTEN] * 12) and not kept.exists()


def test_a_bank_that_stays_empty_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"not all that was written is there; .*on one machine"):
        extracted(tmp_path, lost=True)

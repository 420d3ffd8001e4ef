"""The loop: the paper's schedule, resume bit for bit, checkpoints that know whose they are."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from stadlib.base import InputError
from stadlib.training.loop import Schedule, fit, read_weights

SCHEDULE = Schedule(iterations=20, lr=0.05, seed=5)


def test_schedule_is_the_papers():
    schedule = Schedule(iterations=30_000, lr=1e-2)
    lr = schedule.lr_at
    assert lr(0) == pytest.approx(0.25e-2)
    assert lr(750) == pytest.approx(0.625e-2)
    assert lr(1500) == lr(13_499) == pytest.approx(1e-2)
    for drops, (first, last) in enumerate(
        [(13_500, 17_999), (18_000, 22_499), (22_500, 26_999), (27_000, 29_999)], 1
    ):
        assert lr(first) == lr(last) == pytest.approx(1e-2 * 0.66**drops)


class Interrupted(Exception):
    pass


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 32), nn.Dropout(0.1), nn.ReLU(), nn.Linear(32, 2))


def batches(start: int):
    for iteration in range(start, SCHEDULE.iterations):
        generator = torch.Generator().manual_seed(iteration)
        x = torch.randn(4, 3, generator=generator)
        yield x, x[:, :2]


def objective(model, batch):
    x, y = batch
    return (model(x) - y).square().sum(), len(x)


def silent(done, total, text):
    pass


def train(folder, digest="a", stop_after=None):
    def progress(done, total, text):
        if done == stop_after:
            raise Interrupted

    model = network().train()
    fit(model, objective, batches, SCHEDULE, folder=folder, digest=digest, progress=progress)
    return model


def test_interrupted_equals_uninterrupted_bit_for_bit(tmp_path):
    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", stop_after=13)
    resumed = train(tmp_path / "parts")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key])
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    values = [
        [{k: json.loads(x)[k] for k in ("iteration", "loss", "lr")} for x in log] for log in logs
    ]
    assert values[0] == values[1]
    assert [line["iteration"] for line in values[0]] == list(range(20))


def test_training_learns_and_a_finished_run_trains_no_more(tmp_path):
    model = train(tmp_path)
    x, y = next(batches(0))
    with torch.inference_mode():
        losses = [(trained.eval()(x) - y).square().mean() for trained in (network(), model)]
    assert losses[1] < losses[0] / 2
    again = train(tmp_path)
    assert torch.equal(model[0].weight, again[0].weight)


def test_checkpoint_of_another_experiment_is_refused(tmp_path):
    train(tmp_path, digest="a")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match="checkpoint of another experiment") as caught:
        train(tmp_path, digest="b")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.pt: not a readable checkpoint") as caught:
        read_weights(tmp_path / "checkpoint.pt", "a")
    assert "\n" not in str(caught.value)


def test_a_line_cut_by_a_kill_is_dropped_from_the_log(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, stop_after=13)
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"iteration": 13, "lo')
    train(tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(20))


def test_a_loss_that_is_not_finite_stops_training(tmp_path):
    def exploding(model, batch):
        return model(batch[0]).sum() * float("nan"), 1

    with pytest.raises(FloatingPointError, match="at iteration 0"):
        fit(
            network(),
            exploding,
            batches,
            SCHEDULE,
            folder=tmp_path,
            digest="a",
            progress=silent,
        )
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("accumulate", [2, 3])
def test_parts_of_a_batch_one_after_the_other_give_its_gradient(tmp_path, accumulate):
    """Ragged parts: 4 units, then 1, then none; the loss is their mean, not a mean of means."""

    def parts(start):
        for iteration in range(start, SCHEDULE.iterations):
            generator = torch.Generator().manual_seed(iteration)
            x = torch.randn(5, 3, generator=generator)
            yield from (part for part in (x[:4], x[4:], x[:0])[:accumulate])

    def whole(start):
        turns = iter(parts(start))
        for _ in range(start, SCHEDULE.iterations):
            yield torch.cat([next(turns) for _ in range(accumulate)])

    def loss(model, x):
        return (model(x) - x[:, :2]).square().sum(), len(x)

    found = {}
    for name, batches_of, turns in (("parts", parts, accumulate), ("whole", whole, 1)):
        model = network().eval()  # no dropout: its noise is a matter of PersonDropout
        how = {"folder": tmp_path / name, "digest": "a", "progress": silent, "accumulate": turns}
        fit(model, loss, batches_of, SCHEDULE, **how)
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        found[name] = model.state_dict(), [json.loads(line)["loss"] for line in lines]
    for key, value in found["whole"][0].items():
        torch.testing.assert_close(found["parts"][0][key], value, rtol=1e-5, atol=1e-6)
    assert found["parts"][1] == pytest.approx(found["whole"][1], rel=1e-5)


def test_clipped_gradients_move_weights_no_further(tmp_path):
    schedule = Schedule(iterations=1, lr=1.0, clip=0.01, weight_decay=0.0)
    model, before = network().eval(), network().state_dict()
    fit(model, objective, batches, schedule, folder=tmp_path, digest="a", progress=silent)
    moved = [(value - before[key]).flatten() for key, value in model.state_dict().items()]
    step = schedule.lr_at(0) * 0.01
    assert torch.cat(moved).norm() == pytest.approx(step, rel=1e-3)


def test_checkpoints_come_as_often_as_asked_for(tmp_path):
    kept = []
    how = {"folder": tmp_path, "digest": "a", "progress": silent}
    fit(network(), objective, batches, SCHEDULE, **how, keep=kept.append, save_every=8)
    assert kept == [8, 16, 20]


def test_half_precision_computes_in_bfloat16_and_keeps_float32_weights(tmp_path):
    seen = []

    def loss(model, batch):
        out = model(batch[0])
        seen.append(out.dtype)
        return (out.float() - batch[1]).square().sum(), len(out)

    model = network()
    fit(model, loss, batches, SCHEDULE, folder=tmp_path, digest="a", progress=silent, half=True)
    assert set(seen) == {torch.bfloat16}
    assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}

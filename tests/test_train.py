"""The loop: the paper's schedule, resume bit for bit, checkpoints that know whose they are."""

from __future__ import annotations

import json
import resource

import pytest
import torch
from torch import nn

from stadlib.base import InputError
from stadlib.training.loop import Schedule, fit, read_weights

SCHEDULE = Schedule(iterations=20, lr=0.05, seed=5)


class Interrupted(Exception):
    pass


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 32), nn.Dropout(0.1), nn.ReLU(), nn.Linear(32, 2))


def drawn(iteration: int, count: int) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(iteration))


def batches(start: int):
    for iteration in range(start, SCHEDULE.iterations):
        yield drawn(iteration, 4)


def objective(model, x):
    return (model(x) - x[:, :2]).square().sum(), len(x)


def train(folder, model=None, stop_after=None, schedule=SCHEDULE, **options):
    """Options are those of ``fit``."""

    def progress(done, total, text):
        if done == stop_after:
            raise Interrupted

    model = model or network().train()
    defaults = {"objective": objective, "batches": batches, "digest": "a"}
    fit(model, schedule=schedule, folder=folder, progress=progress, **defaults | options)
    return model


def log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_schedule_is_the_papers():
    lr = Schedule(iterations=30_000, lr=1e-2).lr_at
    assert lr(0) == pytest.approx(0.25e-2)
    assert lr(750) == pytest.approx(0.625e-2)
    assert lr(1500) == lr(13_499) == pytest.approx(1e-2)
    for drops, (first, last) in enumerate(
        [(13_500, 17_999), (18_000, 22_499), (22_500, 26_999), (27_000, 29_999)], 1
    ):
        assert lr(first) == lr(last) == pytest.approx(1e-2 * 0.66**drops)


def test_the_backbone_learns_at_its_share_of_the_rate(tmp_path):
    moved = {}
    for share in (1.0, 0.25):
        model = nn.ModuleDict({"backbone": nn.Linear(3, 2), "head": nn.Linear(3, 2)})
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        schedule = Schedule(iterations=1, lr=0.1, backbone_lr=share, weight_decay=0.0)
        options = {"batches": lambda start: [drawn(0, 4)][start:], "schedule": schedule}
        options["objective"] = lambda m, x: (m["backbone"](x).sum() + m["head"](x).sum(), 1)
        train(tmp_path / str(share), model, **options)
        now = dict(model.named_parameters())
        moved[share] = {name: (now[name] - old).detach() for name, old in before.items()}
    for name, whole in moved[1.0].items():
        share = 0.25 if name.startswith("backbone") else 1.0
        torch.testing.assert_close(moved[0.25][name], share * whole)


def test_interrupted_equals_uninterrupted_bit_for_bit(tmp_path):
    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", stop_after=13)
    with open(tmp_path / "parts" / "log.jsonl", "a") as file:
        file.write('{"iteration": 13, "lo')  # a line that a kill cut short
    resumed = train(tmp_path / "parts")
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    names = ("iteration", "loss", "lr")
    values = [[[line[n] for n in names] for line in log(tmp_path / f)] for f in ("whole", "parts")]
    assert values[0] == values[1]
    assert [line[0] for line in values[0]] == list(range(20))


def test_training_learns_and_a_finished_run_trains_no_more(tmp_path):
    model, x = train(tmp_path), next(batches(0))
    with torch.inference_mode():
        losses = [objective(trained.eval(), x)[0] for trained in (network(), model)]
    assert losses[1] < losses[0] / 2
    assert torch.equal(model[0].weight, train(tmp_path)[0].weight)


def test_checkpoint_of_another_experiment_is_refused(tmp_path):
    train(tmp_path, digest="a")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=r"^.*checkpoint of another experiment.*\Z"):
        train(tmp_path, digest="b")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^.*checkpoint\.pt: not a readable checkpoint.*\Z"):
        read_weights(path, "a")


def test_a_loss_that_is_not_finite_stops_training(tmp_path):
    with pytest.raises(InputError, match=r"the loss is nan at iteration 0; a lower .*--lr"):
        train(tmp_path, objective=lambda model, x: (model(x).sum() * float("nan"), 1))
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("accumulate", [2, 3])
def test_parts_of_a_batch_one_after_the_other_give_its_gradient(tmp_path, accumulate):
    """Ragged parts: 4 units, then 1, then none; the loss is their mean, not a mean of means."""

    def parts(start):
        for iteration in range(start, SCHEDULE.iterations):
            x = drawn(iteration, 5)
            yield from (part for part in (x[:4], x[4:], x[:0])[:accumulate])

    def whole(start):
        turns = iter(parts(start))
        for _ in range(start, SCHEDULE.iterations):
            yield torch.cat([next(turns) for _ in range(accumulate)])

    def of_all(model, x):
        return objective(model, x)[0], 5

    trained = {}
    for name, batches_of, turns in (("parts", parts, accumulate), ("whole", whole, 1)):
        model = network().eval()  # no dropout: its noise is a matter of PersonDropout
        train(tmp_path / name, model, batches=batches_of, accumulate=turns, objective=of_all)
        trained[name] = model.state_dict(), [line["loss"] for line in log(tmp_path / name)]
    torch.testing.assert_close(trained["parts"][0], trained["whole"][0], rtol=1e-5, atol=1e-6)
    assert trained["parts"][1] == pytest.approx(trained["whole"][1], rel=1e-5)


def test_clipped_gradients_move_weights_no_further(tmp_path):
    schedule = Schedule(iterations=1, lr=1.0, clip=0.01, weight_decay=0.0)
    model, before = network().eval(), network().state_dict()
    train(tmp_path, model, schedule=schedule)
    moved = [(value - before[key]).flatten() for key, value in model.state_dict().items()]
    assert torch.cat(moved).norm() == pytest.approx(schedule.lr_at(0) * 0.01, rel=1e-3)


def test_checkpoints_come_as_often_as_asked_for(tmp_path):
    kept = []
    train(tmp_path, keep=kept.append, save_every=8)
    assert kept == [8, 16, 20]


def test_half_precision_computes_in_bfloat16_and_keeps_float32_weights(tmp_path):
    seen = []

    def loss(model, x):
        seen.append((out := model(x)).dtype)
        return (out.float() - x[:, :2]).square().sum(), len(out)

    model = train(tmp_path, objective=loss, half=True)
    assert set(seen) == {torch.bfloat16}
    assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}


def test_a_checkpoint_of_which_a_bit_has_changed_is_refused(tmp_path):
    train(tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole, good = path.read_bytes(), read_weights(path, "a")
    refused = 0
    for place in range(30, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:  # a byte of the archive may say nothing
            content = read_weights(path, "a")
            torch.testing.assert_close(content["model"], good["model"], rtol=0, atol=0)
            assert content["iteration"] == 20
        except InputError:
            refused += 1
    assert refused > 10


def test_a_disk_that_is_full_is_one_line_and_the_last_checkpoint_stays(tmp_path):
    """A limit on the size of files stands for the disk."""
    train(tmp_path, schedule=Schedule(iterations=2, lr=0.05))
    path = tmp_path / "checkpoint.pt"
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    path.rename(tmp_path / "kept.pt")
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be written .*free space"):
            train(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.glob("*.pt")] == ["kept.pt"]
    assert not [*tmp_path.glob(".checkpoint*")]

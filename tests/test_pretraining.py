"""Pretraining on files in Kinetics' form: resumable, shared by processes, to files of weights."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn

from stadlib import base
from stadlib.base import InputError
from stadlib.cli import main
from stadlib.models import backbones
from stadlib.models.published import find_pretrained
from stadlib.models.weights import (
    read_backbone,
    read_state,
    round_weights,
    save_backbone,
    state_digest,
)
from stadlib.recipes.experiment import Execution, Experiment
from stadlib.recipes.scales import RECIPES, SCALES
from stadlib.training import build, pretraining
from stadlib.training.pretraining import CosineSchedule, Pretraining, pretrain
from stadlib.world import WorldSpec, sets

CSN = Experiment(backbone="ir-csn-152", pretrain="K400", scale="smoke", frames="32x2")
ITERATIONS = 4
WORLD = WorldSpec(movies=(1, 1, 1), clips=(1, 1, 1), pretraining_clips=(8, 4))


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch) -> Path:
    """A data folder of the test's own, and a recipe that is over at once."""
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path / "data"))
    tiny = {"batch": 4, "short_sides": (20, 24), "crop": 16, "test_side": 16, "dropout": 0.5}
    tiny |= {"test_clips": 2, "test_crops": 3, "small": False, "whole_batches": False}
    monkeypatch.setitem(RECIPES, "smoke", replace(RECIPES["smoke"], **tiny))
    return tmp_path / "data"


def silent(title):
    return lambda done, total, text="": None


def plan(root, experiment=CSN, iterations=ITERATIONS):
    return Pretraining(experiment, root, iterations)


def test_schedule_is_slowfasts():
    """Values of its ``lr_policy.get_lr_at_epoch`` with the configuration's numbers."""
    recipe = RECIPES["paper"]
    options = {name: getattr(recipe, name) for name in ("lr", "warm_up", "warm_up_lr")}
    lr = CosineSchedule(iterations=1_960, **options).lr_at
    peak = 0.1 * (math.cos(math.pi * 34 / 196) + 1) / 2
    assert [lr(0), lr(980)] == pytest.approx([0.01, 0.05])
    assert [lr(170), lr(340)] == pytest.approx([0.01 + (peak - 0.01) / 2, peak])
    assert 0 < lr(1_959) < 1e-6


def test_an_epoch_is_a_clip_of_every_video_that_is_there(tiny_kinetics, monkeypatch):
    recipe = replace(RECIPES["smoke"], iterations=None, epochs=12)
    monkeypatch.setitem(RECIPES, "smoke", recipe)
    assert plan(tiny_kinetics, iterations=None).iterations == round(7 * recipe.epochs / 4)
    assert RECIPES["paper"].epochs * 240_000 / RECIPES["paper"].batch == 735_000


def test_weights_are_measured_and_found(tiny_kinetics, data, capsys):
    made = plan(tiny_kinetics)
    record = pretrain(made, silent)
    said = capsys.readouterr().out
    assert "7 of 8 train videos; missing and left out: gone1234567_000001_000011\n" in said
    assert (made.folder / "train_missing.txt").read_text() == "gone1234567_000001_000011\n"
    assert (made.folder / "val_missing.txt").read_text() == ""
    assert json.loads(made.record.read_text()) == record
    folder = data / "pretrained" / f"ir-csn-152_k400_smoke_seed0-{made.digest}"
    assert made.weights == folder / "backbone.safetensors"
    assert (record["classes"], record["training_videos"], record["validation_videos"]) == (3, 7, 3)
    assert record["top1"] in (0, 0.3333, 0.6667, 1) and record["top5"] == 1
    assert record["missing"] == {"train": 1, "val": 0} and record["views"] == [2, 3]
    assert record["unreadable"] == 1  # the damaged one was drawn

    network = build.backbone(CSN)
    state, report = read_backbone(network, made.weights)
    assert (report.naming, report.left_over, report.unexpected) == ("stadlib", (), ())
    network.load_state_dict(state)
    trained = torch.load(made.folder / "checkpoint.pt", weights_only=True)["model"]
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, trained[f"backbone.{name}"])
    name = "net.blocks.0.norm.running_mean"
    assert not torch.equal(state[name], trained[f"backbone.{name}"])  # taken anew, weights at rest

    before = made.weights.stat().st_mtime_ns
    assert pretrain(plan(tiny_kinetics), silent) == record
    assert made.weights.stat().st_mtime_ns == before


def test_weights_of_somebody_else_stay(tiny_kinetics):
    made = plan(tiny_kinetics, replace(CSN, scale="paper"))
    made.weights.write_bytes(b"theirs")
    with pytest.raises(InputError, match=r"_k400\.safetensors: already there, and not of this"):
        pretrain(made, silent)
    assert made.weights.read_bytes() == b"theirs"


def test_rows_of_a_family_share_the_weights_of_the_rendered_set(monkeypatch):
    rows = [CSN, replace(CSN, frames="64x1"), replace(CSN, head="linear")]
    assert len({Pretraining(row).digest for row in rows}) == 1
    others = [replace(CSN, pretrain="K700"), replace(CSN, scale="mini"), replace(CSN, seed=1)]
    others.append(replace(CSN, backbone="slowfast-101", frames="8x8+32x2"))
    digests = {Pretraining(row).digest for row in (CSN, *others)}
    monkeypatch.setitem(RECIPES, "smoke", replace(RECIPES["smoke"], lr=0.2))
    assert len(digests | {Pretraining(CSN).digest}) == 6


def test_every_other_seed_lives_in_another_world():
    roots = [Pretraining(replace(CSN, scale="mini", seed=seed)).root for seed in range(4)]
    assert roots[0] == roots[2] != roots[1] == roots[3]
    assert Pretraining(replace(CSN, seed=1)).root == Pretraining(CSN).root  # of smoke there is one


def test_the_studys_own_weights_come_first(tmp_path, data, monkeypatch):
    monkeypatch.setattr(base, "published_dir", lambda kind: tmp_path / kind)
    made, seen = Pretraining(CSN), []
    monkeypatch.setattr(pretraining, "pretrain", lambda plan, _: seen.append(plan.weights))
    path = tmp_path / "reference" / "weights" / f"{made.name}.safetensors"
    network = build.backbone(CSN)
    round_weights(network)
    save_backbone(network, path, pretraining="K400", half=True)
    path.with_suffix(".accuracy.json").write_text('{"top1": 0.5}')
    assert path.stat().st_size < 0.6 * sum(4 * w.numel() for w in network.state_dict().values())
    found, known = pretraining.pretrained_backbone(CSN, silent)
    other = build.backbone(CSN)
    other.load_state_dict(found)
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    assert known == {"backbone": state_digest(found), "top1": 0.5} and not seen
    with pytest.raises(InputError, match="no such file"):  # nothing was trained in its place
        pretraining.pretrained_backbone(replace(CSN, weights="anew"), silent)
    assert seen == [made.weights]


def trained(root: Path | None, data: str, recipe, spec=WORLD) -> tuple:
    """A short training: what every batch showed, its record and the weights."""
    shown, loss = [], pretraining.classification_loss

    def watching(model, batch):
        sums = batch[0].long().sum(dim=(1, 2, 3, 4)).tolist()
        shown.append(sorted(zip(sums, batch[1].tolist(), strict=True)))
        return loss(model, batch)

    with (
        patch.dict(RECIPES, smoke=recipe),
        patch.dict(pretraining.WORLDS, smoke=spec),
        patch.dict(os.environ, STADLIB_DATA=data),
        patch.object(pretraining, "classification_loss", watching),
    ):
        made = Pretraining(CSN, root, iterations=2 if root else None)
        record = pretrain(made, silent)
        return shown, record, read_state(made.weights)[0]


def test_the_rendered_set_gives_the_same_weights_in_two_processes(tmp_path, pair, monkeypatch):
    monkeypatch.setattr(sets, "render", partial(sets.render, workers=1))  # no pool for six clips
    tiny = {"small": True, "whole_batches": True, "iterations": 2, "dropout": 0.0}
    recipe = replace(RECIPES["smoke"], **tiny)
    shown, record, state = trained(None, str(tmp_path / "one"), recipe)
    (world,) = (tmp_path / "one").glob("miniature-*")
    shutil.copytree(world, tmp_path / "two" / world.name)
    for batches, again, weights in pair.run(trained, None, str(tmp_path / "two"), recipe):
        assert batches == shown
        assert all(again[name] == record[name] for name in ("training_videos", "top1", "digest"))
        assert all(torch.equal(weights[name], tensor) for name, tensor in state.items())


def test_two_processes_share_the_batches_of_one(tiny_kinetics, tmp_path, pair):
    recipe = RECIPES["smoke"]
    shown, record, state = trained(tiny_kinetics, str(tmp_path / "one"), recipe)
    shares = pair.run(trained, tiny_kinetics, str(tmp_path / "two"), recipe)
    for whole, *parts in zip(shown, *(batches for batches, _, _ in shares), strict=True):
        assert [len(part) for part in parts] == [2, 2]
        assert sorted(parts[0] + parts[1]) == whole
    (_, ours, first), (_, _, second) = shares
    assert len(shown) == 2 and state.keys() == first.keys()
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
    assert ours["provenance"]["processes"] == 2 and ours["top5"] == 1
    assert ours["validation_videos"] == record["validation_videos"] == 3


class Interrupted(Exception):
    pass


def test_interrupted_equals_uninterrupted_bit_for_bit(tiny_kinetics, tmp_path, monkeypatch):
    root = shutil.copytree(tiny_kinetics, tmp_path / "kinetics")
    whole = pretrain(plan(root), silent)
    weights, _ = read_state(plan(root).weights)
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path / "other"))

    def interrupting(title):
        def progress(done, total, text):
            if title.startswith("pretrain") and done == 3:
                raise Interrupted

        return progress

    with pytest.raises(Interrupted):
        pretrain(plan(root), interrupting, Execution(save_every=2))
    shutil.copy(root / "videos" / "-bbbbbbbbbb.mp4", root / "videos" / "gone1234567.mp4")
    resumed = pretrain(plan(root), silent, Execution(save_every=2))
    again, _ = read_state(plan(root).weights)
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    for record in (whole, resumed):
        del record["provenance"]
    assert whole == resumed
    log = (plan(root).folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in log] == list(range(ITERATIONS))


class Opinions(nn.Module):
    """Gives every call the next logits, whatever the clips show."""

    def __init__(self, *logits):
        super().__init__()
        self.logits, self.calls = logits, []

    def forward(self, clips):
        self.calls.append(len(clips))
        return torch.tensor([self.logits[len(self.calls) % len(self.logits)]] * len(clips))


def test_top1_and_top5_average_over_views(tiny_kinetics):
    made = plan(tiny_kinetics)
    # of the last, class 1 is surer than class 0
    for logits in ([[0.0, 0, 9]], [[9.0, 0, 0]], [[0.0, 8, 0], [7.0, 0, 0]]):
        model = Opinions(*logits)
        measured = pretraining._measure(made, model, False, Execution(), silent(""))
        assert measured["top1"] == 0.3333 and model.calls == [3] * 6


def test_nothing_readable_is_one_line(tiny_kinetics, tmp_path):
    root = shutil.copytree(tiny_kinetics, tmp_path / "kinetics")
    for path in root.rglob("*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(InputError, match=r"\.mp4: .*") as caught:
        pretrain(plan(root), silent)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"unreadable\.txt: no validation video can be read"):
        pretraining._measure(plan(root), Opinions([1.0, 0, 0]), False, Execution(), silent(""))


def command(*words) -> list[str]:
    return ["pretrain", "--backbone", "ir-csn-152", "--pretrain", "K400", *map(str, words)]


def test_command_trains_on_a_folder(tiny_kinetics, data, capsys):
    words = ("--scale", "smoke", "--data", tiny_kinetics, "--iterations", "2")
    assert main(command(*words)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith(f"{data}/pretrained/ir-csn-152_k400_smoke_seed0-")
    assert "/backbone.safetensors: top-1 " in said[-2]
    assert said[-1].endswith("unreadable.txt: 1 videos could not be read")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--pretrain", "K400+IG65M"), "pretrain='K400+IG65M'; choose from K400, K700"),
        (("--backbone", "csn"), "backbone='csn'; choose from slowfast-101, slowfast-152, ir-csn"),
        (("--frames", "8x8+32x2"), "does not fit ir-csn-152; choose from 32x2, 64x1"),
        (("--scale", "huge"), "scale='huge'; choose from smoke, mini, paper"),
        (("--precision", "half"), "precision='half'; choose from auto, float32, bfloat16"),
        (("--iterations", "0"), "--iterations 0: give 1 or more"),
        (("--processes", "-1"), "--processes -1: give 0 or more"),
        (("--scale", "smoke", "--iterations", "1"), "--iterations is for real files"),
        ((), "data/kinetics-400/train.csv: no such list; put Kinetics' official train.csv there"),
    ],
)
def test_wrong_words_are_one_line(words, answer, capsys):
    assert main(command(*words)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert answer in line


def test_kinetics_networks_have_detections_weights():
    """Striding or dilating, the last stage has the same weights; ir-CSN does neither (3.2)."""
    with torch.device("meta"):
        for name, stride in (("slowfast-101", 32), ("ir-csn-152", 16)):
            theirs = backbones.build(name, detection=False)
            detection = backbones.build(name)
            assert theirs.spatial_stride == stride and detection.spatial_stride == 16
            shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (theirs, detection)]
            assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_the_papers_network_takes_a_step(tiny_kinetics, data, monkeypatch):
    tiny = {"batch": 2, "short_sides": (36, 40), "crop": 32, "test_side": 32, "settling": 1}
    tiny |= {"test_clips": 1, "test_crops": 1}
    monkeypatch.setitem(RECIPES, "paper", replace(RECIPES["paper"], **tiny))
    monkeypatch.setitem(SCALES, "paper", replace(SCALES["paper"], num_workers=0))
    experiment = Experiment(backbone="slowfast-101", pretrain="K400", frames="8x8+32x2")
    record = pretrain(plan(tiny_kinetics, experiment, iterations=1), silent)
    assert record["scale"] == "paper"
    path, _ = find_pretrained(experiment)
    assert path == data / "pretrained" / "slowfast-101_k400.safetensors"
    with torch.device("meta"):
        network = build.backbone(experiment)
    state, report = read_backbone(network, path)
    assert report.loaded == len(state) == len(network.state_dict())

"""Stages: what is shared, what is frozen, and memory that survives a kill bit for bit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from stadlib import recipes, study
from stadlib.base import ConfigError, InputError
from stadlib.data import clips
from stadlib.recipes.experiment import Experiment, Stage, from_dict
from stadlib.recipes.scales import SCALES
from stadlib.training import build, predictions, stages
from stadlib.training.bank import WRITTEN, FeatureBank
from stadlib.training.loop import read_weights
from stadlib.training.memory import weights_digest
from stadlib.training.pretraining import Pretraining
from stadlib.training.stages import share_loss
from stadlib.video.predict import predict
from stadlib.world import SMOKE

STRATEGIES = recipes.table2(scale="smoke", backbone="ir-csn-152", detector="ground-truth")
EMPTY = STRATEGIES["A+K first, empty Kinetics bank"]
NEW_HEAD = STRATEGIES["A+K first, new head"]


def test_killed_while_it_remembers_and_while_it_extracts(with_memory, tmp_path, monkeypatch):
    """Twice: in online training, whose bank must go back with the checkpoint, and in extraction."""
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    stage = study.stage_folder(EMPTY, 1)
    moments = [
        lambda: list((stage / "online").glob("ava-*5")) and (stage / "checkpoint.pt").exists(),
        (stage / "banks" / "kinetics_train" / "bank.json").exists,
    ]
    command = [sys.executable, "-m", "stadlib", "train"]
    command += ["--experiment", json.dumps(EMPTY.to_dict())]
    for moment in moments:
        process, deadline = subprocess.Popen(command), time.monotonic() + 120
        while not moment():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert not (study.run_folder(EMPTY) / "record.json").exists()
    again = study.run(EMPTY)
    assert again.metrics == with_memory.metrics
    for name in ("detections_ava.csv", "detections_kinetics.csv"):
        assert (again.folder / name).read_bytes() == (with_memory.folder / name).read_bytes()


def stage_weights(row: Experiment) -> list[dict[str, torch.Tensor]]:
    return [
        read_weights(study.stage_folder(row, n) / "checkpoint.pt", row.stage_digest(n))["model"]
        for n in (1, 2)
    ]


def test_the_second_stage_changes_the_head_and_nothing_else(with_memory):
    first, second = stage_weights(EMPTY)
    assert {f"head.{name}" for name in second} == {n for n in first if n.startswith("head.")}
    assert all(not torch.equal(first[f"head.{name}"], value) for name, value in second.items())


@pytest.mark.parametrize("name", ["after", "after, new classifier"])
def test_decoupled_training_moves_the_classifier_and_nothing_else(smoke_record, name):
    """Paper section 2.4; over every parameter and buffer of head, fusion and backbone."""
    rows = recipes.table3(scale="smoke", detector="ground-truth")
    row = rows[name]
    assert row.stage_digest(1) == rows["before"].stage_digest(1)
    study.run(row)
    first, second = stage_weights(row)
    moved = {n for n, value in second.items() if not torch.equal(first[f"head.{n}"], value)}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert {n for n in first if n.startswith("head.")} == {f"head.{n}" for n in second}
    model = build.action_detector(row, len(first["head.classifier.bias"]))
    model.load_state_dict(first)
    bank = FeatureBank(study.stage_folder(row, 1) / "banks" / "ava_annotated")
    assert bank.provenance["backbone"] == weights_digest(model.backbone, model.fusion)


def test_an_empty_bank_is_for_the_source_that_keeps_none(with_memory):
    online = study.stage_folder(EMPTY, 1) / "online"
    banks = {path.name for path in online.iterdir() if "-" not in path.name}
    assert banks == {"ava"}
    written = FeatureBank(online / "ava").states == WRITTEN
    assert written.any() and not written.all()  # what training has shown


def test_offline_every_second_is_known(with_memory):
    banks = study.stage_folder(EMPTY, 1) / "banks"
    for source, seconds in (("ava", 12), ("kinetics", SMOKE.clip_seconds)):
        bank = FeatureBank(banks / f"{source}_train")
        rows = bank.rows
        assert (bank.states == WRITTEN).all()
        spans = [np.ptp(rows["second"][rows["video"] == v]) + 1 for v in np.unique(rows["video"])]
        assert max(spans) == seconds  # Kinetics too, whose clips have one annotated second


def test_the_second_strategy_begins_as_the_row_without_memory(smoke_record):
    row = from_dict(smoke_record.experiment)
    assert NEW_HEAD.stage_digest(1) == row.stage_digest(1)
    assert EMPTY.stage_digest(1) != row.stage_digest(1)
    shared = study.stage_folder(row, 1) / "checkpoint.pt"
    trained = shared.stat().st_mtime_ns
    record = study.run(NEW_HEAD)
    assert shared.stat().st_mtime_ns == trained
    assert record.metrics != smoke_record.metrics


def test_what_only_tests_does_not_train_again():
    other = replace(EMPTY, scales=(64,), flip=False)
    assert other.digest != EMPTY.digest
    assert [other.stage_digest(n) for n in (1, 2)] == [EMPTY.stage_digest(n) for n in (1, 2)]
    for change in ({"span": 5}, {"remembered": 2}, {"seed": 1}, {"head": "s-only"}):
        assert replace(EMPTY, **change).stage_digest(1) != EMPTY.stage_digest(1)
    nearer = replace(NEW_HEAD, span=5)
    assert nearer.stage_digest(1) == NEW_HEAD.stage_digest(1)
    assert nearer.stage_digest(2) != NEW_HEAD.stage_digest(2)


REMEMBERS = Stage(memory=("ava",))
KEEPS_HEAD = Stage(memory=("ava",), start="previous", train="head")


@pytest.mark.parametrize(
    ("stages", "words", "answer"),
    [
        ((REMEMBERS,), {}, "needs span and remembered"),
        ((Stage(),), {"span": 30}, "span is for memory"),
        ((REMEMBERS,), {"span": 0, "remembered": 5}, "span=0; give a whole"),
        (
            (REMEMBERS,),
            {"span": 3, "remembered": 5, "head": "linear"},
            "choose from s-only, t-only",
        ),
        ((Stage(train="head"),), {}, "train='head'; say 'all'"),
        ((Stage(), KEEPS_HEAD), {"span": 3, "remembered": 5}, "start 'previous-backbone'"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages, words, answer):
    with pytest.raises(ConfigError, match=answer):
        Experiment(stages=stages, **words)


def test_features_are_seen_once_and_train_every_head(smoke_record, tmp_path, monkeypatch):
    """After ``extract`` no clip is read, whatever the head; a killed training gives the same."""
    words = {"scale": "smoke", "detector": "ground-truth", "backbone": "ir-csn-152"}
    words |= {"start": "features"}
    rows = recipes.beyond(**words, head="linear")
    rows |= recipes.beyond(**words, memory="yes", head="t-only")
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    linear, t_only = rows.values()
    text = study.extract(linear)
    assert re.fullmatch(r".*/stages/maps-[0-9a-f]{12}: [1-9]\d* MB", text)
    monkeypatch.setattr(clips, "read_frames", None)
    records = [study.run(row) for row in (linear, t_only)]
    assert all(record.metrics["ava"]["mAP"] > 0 for record in records)
    assert {path.name for path in (study.stage_folder(t_only, 1) / "online").iterdir()} >= {
        "ava",
        "kinetics",
    }

    folder, times = study.stage_folder(t_only, 1), []

    def dies(*args, **options):
        times.append(1)
        if len(times) == 14:
            raise KeyboardInterrupt
        return share_loss(*args, **options)

    for path in (folder, study.run_folder(t_only)):
        path.rename(tmp_path / path.name)
    monkeypatch.setattr(stages, "share_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        study.run(t_only)
    monkeypatch.setattr(stages, "share_loss", share_loss)
    assert study.run(t_only).metrics == records[1].metrics
    first, again = (place / "checkpoint.pt" for place in (tmp_path / folder.name, folder))
    for name, value in read_weights(first, t_only.stage_digest(1))["model"].items():
        assert torch.equal(value, read_weights(again, t_only.stage_digest(1))["model"][name])
    # A model that is opened again scores as the one that was trained.
    opened = study.open_run(records[1])
    assert predictions.predict(opened, stages.trained_model(opened)) == records[1].metrics


def test_more_views_are_augmented_and_the_same_after_a_kill(smoke_record, monkeypatch):
    """A second stage on the plain view and others; a bank that was cut short is filled the same."""
    rows = recipes.choices_compared(scale="smoke")
    row, plain = rows["views", 4], rows["views", 1]
    record = study.run(row)
    assert row.stage_digest(1) == plain.stage_digest(1) == shared_first(smoke_record)
    assert row.stage_digest(2) != plain.stage_digest(2)
    banks = study.stage_folder(row, 1) / "banks"
    names = [f"ava_{name}" for name in ("train", "view1", "view2", "view3")]
    seen = [FeatureBank(banks / name) for name in names]
    keys = [key for key in bank_keys(seen[1]) if seen[1].has([key])[0]][:20]
    tokens = [bank.read(keys)[0] for bank in seen]
    for number, other in enumerate(tokens[1:], 1):
        assert not any(torch.equal(other, before) for before in tokens[:number])
    again = FeatureBank(banks / "ava_view1", writable=True)
    again.states[len(again.states) // 3 :] = 0
    again.flush()
    before = np.array(seen[2].tokens)
    monkeypatch.setattr(study, "find", lambda _: None)
    (study.stage_folder(row, 2) / "checkpoint.pt").unlink()
    assert study.run(row).metrics == record.metrics
    assert np.array_equal(before, FeatureBank(banks / "ava_view2").tokens)
    assert torch.equal(FeatureBank(banks / "ava_view1").read(keys)[0], tokens[1])


def shared_first(record) -> str:
    return from_dict(record.experiment).stage_digest(1)


def bank_keys(bank: FeatureBank) -> list[tuple[str, int]]:
    videos = list(bank._videos)
    return [(videos[row["video"]], int(row["second"])) for row in bank.rows if row["count"]]


OWN = """
from torch import nn
from stadlib.models.networks import Backbone

def tiny():
    return Backbone(nn.Conv3d(3, 12, (2, 8, 8), (2, 8, 8)), out_channels=12, spatial_stride=8,
                    temporal_stride=2, mean=(0.4, 0.5, 0.6), multiple=8)
"""


@pytest.mark.parametrize(("head", "start"), [("s-only", "pretrained"), ("linear", "features")])
def test_a_backbone_of_ones_own_trains_remembers_and_predicts(head, start, tmp_path, monkeypatch):
    """With memory where the head has one, on three scales with flips, and on a video."""
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    (tmp_path / "own.py").write_text(OWN)
    words = {"scale": "smoke", "detector": "ground-truth", "head": head, "start": start}
    words["memory"] = "no" if head == "linear" else "yes"
    (row,) = recipes.beyond(backbone=f"{tmp_path}/own.py:tiny", **words).values()
    row = replace(row, scales=SCALES["mini"].test_sides)
    record = study.run(row)
    assert record.folder.name.startswith("own.tiny_k700_32x2")
    assert record.metrics["ava+kinetics"]["mAP"] > 0 and len(build.views(row)) == 6
    boxes = tmp_path / "boxes.csv"  # of the movie that is drawn for want of another
    boxes.write_text("".join(f"ava_val_0000,{t},0.1,0.2,0.4,0.9,,0.9\n" for t in range(12)))
    predict(weights=str(record.folder), detector=str(boxes), out=tmp_path / "seen", scale="smoke")
    assert (tmp_path / "seen" / "detections.csv").stat().st_size
    with pytest.raises(InputError, match="its function returns its weights; train there"):
        Pretraining(row)

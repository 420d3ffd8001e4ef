"""Experiments validate themselves and are named by everything that decides them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest

from stadlib.base import ConfigError
from stadlib.recipes import scales
from stadlib.recipes.experiment import Detections, Experiment, Stage, from_dict


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (lambda: Experiment(head="tonly"), r"^head='tonly'; choose from linear, s-only, t-only$"),
        (lambda: Stage(data=("ava", "charades")), "choose from ava, kinetics"),
        (lambda: Experiment(backbone="slowfast-152"), r"does not fit slowfast-152; .*8x8\+32x2"),
        (lambda: Experiment(backbone="swin"), "choose from slowfast-101, .*, videoprism-l"),
        (
            lambda: Experiment(backbone="videoprism-b", frames="16x4"),
            "start='frozen' or 'features'",
        ),
        (
            lambda: Experiment(backbone="videoprism-b", frames="16x4", scale="mini"),
            "has no miniature member; give scale='paper'",
        ),
        (lambda: Experiment(stages=()), "at least one"),
        (lambda: Experiment(scales=()), "at least one"),
        (lambda: Experiment(stages=(Stage(start="previous"),)), "say 'pretrained'"),
        (lambda: Experiment(stages=(Stage(), Stage(start="frozen"))), "a later stage has"),
        (lambda: from_dict({"haed": "t-only"}), "unknown field 'haed'"),
        (lambda: Experiment(detections=Detections()), "need a detector; choose from v1, v2, v3"),
        (lambda: Detections(threshold=1.5), r"threshold=1\.5; give a score from 0 to 1"),
        (lambda: Detections(training="detected"), "choose from ground-truth, ground-truth"),
        (lambda: Experiment(recall="geometry"), "recall is for memory; name datasets"),
        (lambda: Experiment(own_second=True), "own_second is for memory"),
        (lambda: Experiment(linear="fused"), "linear='fused' is for head='linear'"),
        (lambda: Stage(views=0), "views=0; give a whole number, 1 or more"),
        (lambda: Stage(views=2), "views are of a stage on features; give train='head'"),
    ],
)
def test_a_wrong_word_is_answered_with_the_choices(make, answer):
    with pytest.raises(ConfigError, match=answer):
        make()


REMEMBERS = (
    Stage(memory=("ava",)),
    Stage(memory=("ava",), start="previous", train="head"),
)
WHOLE = Experiment(stages=REMEMBERS, span=30, remembered=5, detector="v3", scale="mini")
LINEAR = Experiment(head="linear", scale="mini")
CHANGES = {  # of a field: another value, and the experiment that takes it
    "backbone": (Experiment(), {"backbone": "slowfast-152", "frames": "8x8+32x2"}),
    "frames": (WHOLE, "64x1"),
    "head": (WHOLE, "s-only"),
    "pretrain": (WHOLE, "K400"),
    "aggregate": (WHOLE, "max"),
    "fusion": (WHOLE, "grid"),
    "linear": (LINEAR, "fused"),
    "loss": (WHOLE, "pose-softmax"),
    "stages": (WHOLE, REMEMBERS[:1]),
    "span": (WHOLE, 5),
    "remembered": (WHOLE, 2),
    "recall": (WHOLE, "geometry"),
    "own_second": (WHOLE, True),
    "chosen": (WHOLE, "random"),
    "detector": (WHOLE, "v2"),
    "detections": (WHOLE, Detections(product=True)),
    "scales": (WHOLE, (64,)),
    "flip": (WHOLE, False),
    "seed": (WHOLE, 1),
    "scale": (WHOLE, "paper"),
    "weights": (WHOLE, "anew"),
}
STAGE_CHANGES = {
    "data": ("ava",),
    "memory": ("ava", "kinetics"),
    "start": "previous-but-classifier",
    "train": "classifier",
    "sampler": "class-balanced",
    "iterations": 7,
    "batch": 3,
    "lr": 0.5,
    "backbone_lr": 0.5,
    "drop": 0.1,
    "weight_decay": 0.0,
    "clip": 1.0,
    "views": 4,
}
ONLY_TESTED = {"stages", "detector", "detections", "scales", "flip"}  # once the stages are the same


def test_every_field_has_a_change_here():
    others = {"dataset"}  # a folder, whose files are in the digest: see test_study
    assert {field.name for field in fields(Experiment)} == {*CHANGES} | others
    assert {field.name for field in fields(Stage)} == {*STAGE_CHANGES}


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_of_an_experiment_is_in_its_digest(field):
    experiment, value = CHANGES[field]
    other = replace(experiment, **(value if isinstance(value, dict) else {field: value}))
    assert other.digest != experiment.digest
    if field not in ONLY_TESTED:
        assert other.stage_digest(len(other.stages)) != experiment.stage_digest(
            len(experiment.stages)
        )


@pytest.mark.parametrize("field", STAGE_CHANGES)
def test_every_field_of_a_stage_is_in_its_digest(field):
    plain = Experiment(stages=(Stage(), Stage(start="previous", train="head")), scale="mini")
    experiment = WHOLE if field == "memory" else plain
    first, second = experiment.stages
    changed = replace(second, **{field: STAGE_CHANGES[field]})
    other = replace(experiment, stages=(first, changed))
    assert other.digest != experiment.digest
    assert other.stage_digest(2) != experiment.stage_digest(2)


@pytest.mark.parametrize("numbers", [scales.SCALES, scales.RECIPES, scales.DETECTOR_SCALES])
def test_every_number_of_a_scale_is_in_the_digest(numbers, monkeypatch):
    experiment, own = Experiment(scale="mini", detector="v3"), numbers["mini"]
    before = experiment.digest
    for field in fields(own):
        if field.name == "start":  # in the stages, which the scale gives it to
            continue
        value = getattr(own, field.name)
        value = "other" if isinstance(value, str) else (1,) if isinstance(value, tuple) else 77
        monkeypatch.setitem(numbers, "mini", replace(own, **{field.name: value}))
        assert experiment.digest != before, field.name
    monkeypatch.setitem(numbers, "mini", own)
    assert experiment.digest == before


def test_an_experiment_survives_json():
    stages = (Stage(memory=("ava",)), Stage(memory=("ava",), start="previous", train="head"))
    experiment = Experiment(seed=3, stages=stages, span=30, remembered=5)
    back = from_dict(json.loads(json.dumps(asdict(experiment))))
    assert back == experiment and back.digest == experiment.digest
    experiment = Experiment(detector="v3", detections=Detections(threshold=0.2, product=True))
    assert from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment
    assert Experiment(detector="v1").detections == Detections()


def test_words_are_refused_before_torch_is_imported():
    code = (
        "import sys; from stadlib import recipes, study\n"
        "from stadlib.report import figures, tables\n"
        "try: study.check_parameters({'head': 'tonly'}, 'head')\n"
        "except ValueError as error: print(error)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer = "head='tonly'; choose from linear, s-only, t-only, all"
    assert done.stdout.splitlines() == [answer, "False"]


def test_boxes_that_are_scored_change_what_is_trained_only_where_they_are_trained_on():
    truth, detected = Experiment(), Experiment(detector="v3")
    assert truth.digest != detected.digest
    assert truth.stage_digest(1) == detected.stage_digest(1)
    both = replace(detected, detections=Detections(training="ground-truth+detected"))
    assert both.stage_digest(1) != detected.stage_digest(1)
    # An offline memory holds boxes of seconds without annotation, an online one does not.
    offline = Stage(memory=("ava",), start="previous", train="head")
    truth = Experiment(stages=(Stage(memory=("ava",)), offline), span=30, remembered=5)
    detected = replace(truth, detector="v3")
    assert truth.stage_digest(1) == detected.stage_digest(1)
    assert truth.stage_digest(2) != detected.stage_digest(2)


def test_a_detector_made_otherwise_is_another_experiment(monkeypatch):
    experiment = Experiment(detector="v2", scale="mini")
    before = experiment.digest, experiment.boxes_name
    stages = scales.DETECTORS["v2"]
    monkeypatch.setitem(scales.DETECTORS, "v2", (stages[0], replace(stages[1], share=2.0)))
    assert experiment.digest != before[0] and experiment.boxes_name != before[1]
    assert replace(experiment, scale="paper").boxes_name == "v2", "real data brings its own files"

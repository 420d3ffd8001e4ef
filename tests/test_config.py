"""Experiments validate themselves and are named by everything that decides them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

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
        (lambda: Experiment(stages=()), "at least one"),
        (lambda: Experiment(scales=()), "at least one"),
        (lambda: Experiment(stages=(Stage(start="previous"),)), "say 'pretrained'"),
        (lambda: from_dict({"haed": "t-only"}), "unknown field 'haed'"),
        (lambda: Experiment(detections=Detections()), "need a detector; choose from v1, v2, v3"),
        (lambda: Detections(threshold=1.5), r"threshold=1\.5; give a score from 0 to 1"),
        (lambda: Detections(training="detected"), "choose from ground-truth, ground-truth"),
    ],
)
def test_a_wrong_word_is_answered_with_the_choices(make, answer):
    with pytest.raises(ConfigError, match=answer):
        make()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"head": "linear"},
        {"scale": "mini"},
        {"stages": (Stage(lr=0.5),)},
        {"scales": (256,)},
    ],
)
def test_digest_changes_with_every_deciding_word(change):
    experiment = Experiment()
    assert replace(experiment, **change).digest != experiment.digest


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

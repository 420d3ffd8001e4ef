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


def test_unknown_word_is_answered_with_the_choices():
    with pytest.raises(ConfigError, match=r"^head='tonly'; choose from linear, s-only, t-only$"):
        Experiment(head="tonly")


def test_unknown_word_inside_a_tuple_is_refused():
    with pytest.raises(ConfigError, match="choose from ava, kinetics"):
        Stage(data=("ava", "charades"))


def test_input_must_fit_the_backbone():
    with pytest.raises(ConfigError, match=r"does not fit slowfast-152; choose from 8x8\+32x2"):
        Experiment(backbone="slowfast-152", frames="32x2")


@pytest.mark.parametrize("broken", [{"stages": ()}, {"scales": ()}])
def test_an_experiment_needs_stages_and_scales(broken):
    with pytest.raises(ConfigError, match="at least one"):
        Experiment(**broken)


def test_first_stage_cannot_follow_another():
    with pytest.raises(ConfigError, match="say 'pretrained'"):
        Experiment(stages=(Stage(start="previous"),))


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
    assert back == experiment
    assert back.digest == experiment.digest


def test_unknown_field_is_named():
    with pytest.raises(ConfigError, match="unknown field 'haed'"):
        from_dict({"haed": "t-only"})


def test_words_are_refused_before_torch_is_imported():
    code = (
        "import sys; from stadlib import recipes, study\n"
        "from stadlib.report import figures, tables\n"
        "try: study.check_parameters({'head': 'tonly'}, 'head')\n"
        "except ValueError as error: print(error)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "head='tonly'; choose from linear, s-only, t-only, all",
        "False",
    ]


def test_detected_boxes_survive_json_and_need_a_detector():
    experiment = Experiment(detector="v3", detections=Detections(threshold=0.2, product=True))
    assert from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment
    assert Experiment(detector="v1").detections == Detections()
    with pytest.raises(ConfigError, match="need a detector; choose from v1, v2, v3"):
        Experiment(detections=Detections())
    with pytest.raises(ConfigError, match=r"threshold=1\.5; give a score from 0 to 1"):
        Detections(threshold=1.5)
    with pytest.raises(ConfigError, match="choose from ground-truth, ground-truth"):
        Detections(training="detected")


def test_whose_boxes_are_scored_changes_the_digest_but_not_what_was_trained():
    truth, found = Experiment(), Experiment(detector="v3")
    assert truth.digest != found.digest
    assert truth.stage_digest(1) == found.stage_digest(1)
    both = replace(found, detections=Detections(training="ground-truth+detected"))
    assert both.stage_digest(1) != found.stage_digest(1)


def test_boxes_matter_to_a_stage_that_remembers_seconds_nobody_annotated():
    online = Stage(memory=("ava",))
    offline = Stage(memory=("ava",), start="previous", train="head")
    truth = Experiment(stages=(online, offline), span=30, remembered=5)
    found = replace(truth, detector="v3")
    assert truth.stage_digest(1) == found.stage_digest(1)
    assert truth.stage_digest(2) != found.stage_digest(2)


def test_a_detector_made_otherwise_is_another_experiment(monkeypatch):
    before = Experiment(detector="v2", scale="mini")
    digests, names = [before.digest], [before.boxes_name]
    stages = scales.DETECTORS["v2"]
    longer = replace(stages[1], share=2.0)
    monkeypatch.setitem(scales.DETECTORS, "v2", (stages[0], longer))
    assert before.digest not in digests
    assert before.boxes_name not in names
    assert replace(before, scale="paper").boxes_name == "v2", "real data brings its own files"

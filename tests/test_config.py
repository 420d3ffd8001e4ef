"""Experiments validate themselves and are named by everything that decides them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from stadlib.config import ConfigError, Experiment, Stage, from_dict


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
        {"dataset": "elsewhere"},
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
        "import sys; from stadlib import recipes, report, plots, study\n"
        "try: study.check_parameters({'head': 'tonly'}, 'head')\n"
        "except ValueError as error: print(error)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "head='tonly'; choose from linear, s-only, t-only, all",
        "False",
    ]

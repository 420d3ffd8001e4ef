"""Losses and probabilities of actions, against slow definitions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from stadlib.base import InputError, published_dir
from stadlib.data.keyframes import Keyframe
from stadlib.data.layout import AVA_ACTIONS, LabelMap
from stadlib.models.action_detector import ActionLoss
from stadlib.recipes.experiment import Experiment, Stage, from_dict
from stadlib.training import build

RECORDS = sorted(published_dir("reference").glob("ir-csn-152_*_mini_seed0-*.json"))
LOGITS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ACTIONS = torch.tensor(
    [[1, 0, 0, 1, 0, 1], [0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0]]
).double()
POSES = [0, 1, 4]


def binary(x: float, target: float) -> float:
    p = 1 / (1 + math.exp(-x))
    return -math.log(p if target else 1 - p)


@pytest.mark.parametrize("poses", [[], POSES])
def test_the_loss_of_a_person_is_that_of_loops(poses):
    for logits, actions, loss in zip(
        LOGITS.tolist(), ACTIONS.tolist(), ActionLoss(poses)(LOGITS, ACTIONS).tolist(), strict=True
    ):
        expected = sum(binary(logits[a], actions[a]) for a in range(6) if a not in poses)
        total = sum(math.exp(logits[a]) for a in poses)
        own = [a for a in poses if actions[a]]
        expected -= sum(math.log(math.exp(logits[a]) / total) / len(own) for a in own)
        assert loss == pytest.approx(expected / 6)


def test_poses_are_one_choice_and_other_actions_are_not():
    plain, chosen = ActionLoss().probabilities(LOGITS), ActionLoss(POSES).probabilities(LOGITS)
    torch.testing.assert_close(plain, LOGITS.sigmoid())
    torch.testing.assert_close(chosen[:, POSES].sum(dim=1), torch.ones(4).double())
    assert torch.equal(chosen[:, [2, 3, 5]], plain[:, [2, 3, 5]])
    order = LOGITS[:, POSES].argsort(dim=1)
    assert torch.equal(chosen[:, POSES].argsort(dim=1), order)


def test_an_experiments_word_names_avas_poses():
    labels = LabelMap(AVA_ACTIONS)
    assert build.action_loss(Experiment(), labels).poses == []
    columns = build.action_loss(Experiment(loss="pose-softmax"), labels).poses
    names = [labels.names[labels.ids[column]] for column in columns]
    assert {"stand", "sit", "walk"} <= {
        *names
    } and "talk to (e.g., self, a person, a group)" not in names


def test_softmax_is_the_usual_cross_entropy_and_its_probabilities_sum_to_one():
    loss = build.action_loss(Experiment(loss="softmax"), LabelMap({3: "a", 5: "b", 9: "c"}))
    logits, target = LOGITS[:, :3], torch.tensor([2, 0, 1, 1])
    actions = torch.nn.functional.one_hot(target, 3).double()
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(loss(logits, actions), expected)
    assert not loss(logits, torch.zeros_like(actions)).any()  # nobody's action is known
    torch.testing.assert_close(loss.probabilities(logits), logits.softmax(dim=1))


def test_softmax_refuses_a_person_with_several_actions():
    labels, stage = LabelMap({3: "a", 5: "b"}), Stage(iterations=2, batch=1)

    def keyframe(second: float, *actions: list[bool]) -> Keyframe:
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (len(actions), 1))
        ids = np.arange(len(actions))
        return Keyframe("ava", "film", second, boxes, np.array(actions), ids)

    single, several = keyframe(1, [True, False], [False, True]), keyframe(2.5, [True, True])
    build.order(Experiment(loss="softmax"), stage, [single], labels, 0)
    build.order(Experiment(), stage, [single, several], labels, 0)
    with pytest.raises(InputError, match=r"film,2\.500000: a person has several actions.*bce"):
        build.order(Experiment(loss="softmax"), stage, [single, several], labels, 0)


def test_a_word_that_is_not_used_changes_no_digest():
    """Of the reference's experiments, whose records were written before there was the word."""
    digests = {Path(path).stem.rpartition("-")[2]: path for path in RECORDS}
    assert digests
    for digest, path in digests.items():
        assert from_dict(json.loads(path.read_text())["experiment"]).digest == digest

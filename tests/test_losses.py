"""Losses and probabilities of actions, against slow definitions."""

from __future__ import annotations

import math

import pytest
import torch

from stadlib.data.labels import AVA_ACTIONS, LabelMap
from stadlib.models.losses import ActionLoss
from stadlib.recipes.experiment import Experiment
from stadlib.training import build

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
    names = [labels.name(labels.ids[column]) for column in columns]
    assert {"stand", "sit", "walk"} <= {
        *names
    } and "talk to (e.g., self, a person, a group)" not in names

"""From logits to losses and to probabilities, as the field has them. The paper names none.

Legend: N persons, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stadlib.models.roi_fusion import to_device


class ActionLoss:
    """Binary cross-entropy of every action, or ``poses``, if any, as one choice (ACAR, AlphAction).

    ``poses`` are columns of the actions that exclude each other: sitting, standing and so on. Their
    binary cross-entropies are then one cross-entropy of their softmax, and a person without any of
    them has none. SlowFast and LFB take binary cross-entropy alone. Where ``poses`` are all actions
    the loss is the usual cross-entropy, as ACT and MOC take it on UCF101-24: one action a person.
    """

    def __init__(self, poses: Sequence[int] = ()) -> None:
        self.poses = list(poses)

    def __call__(self, logits_NA: Tensor, actions_NA: Tensor) -> Tensor:
        """The loss of each person, (N,): a mean over the A actions, or over the one choice."""
        losses_NA = F.binary_cross_entropy_with_logits(logits_NA, actions_NA, reduction="none")
        if not self.poses:
            return losses_NA.mean(dim=1)
        poses = to_device(torch.tensor(self.poses), logits_NA.device)
        others_N = losses_NA.sum(dim=1) - losses_NA[:, poses].sum(dim=1)
        target_NP = actions_NA[:, poses]
        target_NP = target_NP / target_NP.sum(dim=1, keepdim=True).clamp(min=1)
        pose_N = -(target_NP * logits_NA[:, poses].log_softmax(dim=1)).sum(dim=1)
        num_actions = logits_NA.shape[1]
        return pose_N if len(self.poses) == num_actions else (others_N + pose_N) / num_actions

    def probabilities(self, logits_NA: Tensor) -> Tensor:
        """What a person is scored by, (N, A)."""
        scores_NA = logits_NA.sigmoid()
        if self.poses:
            softmax_NP = logits_NA[:, self.poses].softmax(dim=1)
            columns = to_device(torch.tensor(self.poses), logits_NA.device)
            scores_NA = scores_NA.index_copy(1, columns, softmax_NP)
        return scores_NA

"""Networks that watch a video without having learned anything."""

from __future__ import annotations

import torch
from torch import nn

from stadlib import recipes
from stadlib.data.layout import AVA_ACTIONS, LabelMap
from stadlib.models.action_detector import ActionLoss
from stadlib.models.person_detector import PERSON
from stadlib.training import build

WORDS = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "head": "t-only"}


class Everywhere(nn.Module):
    """Finds the same two persons in every picture, or nobody."""

    def __init__(self, boxes: list[list[float]]) -> None:
        super().__init__()
        self.boxes = nn.Parameter(torch.tensor(boxes).reshape(-1, 4))

    def forward(self, images):
        count = len(self.boxes)
        labels = torch.full((count,), PERSON)
        return [
            {
                "boxes": self.boxes * torch.tensor([*image.shape[:0:-1]] * 2),
                "scores": torch.linspace(0.9, 0.8, count),
                "labels": labels,
            }
            for image in images
        ]


def networks(persons: bool = True, span: int = 2):
    """An untrained model of the smoke scale that remembers two seconds."""
    from stadlib.video.scorer import Networks

    (row,) = recipes.table1(scale="smoke", memory="no", **WORDS)
    torch.manual_seed(0)
    labels = LabelMap(AVA_ACTIONS)
    boxes = [[0.1, 0.2, 0.4, 0.9], [0.5, 0.2, 0.9, 0.9]] if persons else []
    return Networks(
        detector=Everywhere(boxes),
        threshold=0.5,
        model=build.action_detector(row, labels.num_actions),
        labels=labels,
        loss=ActionLoss(),
        sampling=build.sampling(row),
        view=build.memory_view(row),
        multiple=build.numbers(row).pad_multiple,
        span=span,
        remembered=4,
        made_by={"model": "untrained"},
        warning="MINIATURE MODEL ON REAL VIDEO",
    )


def silent(title: str):
    return lambda *_: None

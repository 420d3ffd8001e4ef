"""The whole network: clips and boxes to logits and tokens, one clip independent of another."""

import copy

import pytest
import torch

from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import LinearHead, RelationHead, no_memory
from stadlib.models.networks import csn_mini, freeze_batchnorm, slowfast_mini
from stadlib.models.roi_fusion import Fusion, RoIAlign3d

COUNTS = torch.tensor([2, 0, 1])
BOXES = torch.tensor([[3.0, 5.0, 30.0, 40.0], [20.0, 10.0, 44.0, 47.0], [0.0, 0.0, 20.0, 48.0]])
WIDTH, ACTIONS = 16, 5
CLIPS = torch.randint(256, (3, 3, 8, 48, 48), generator=torch.Generator().manual_seed(1)).byte()


def make_detector(make_backbone, kind: str) -> ActionDetector:
    torch.manual_seed(0)
    backbone = make_backbone()
    if kind == "linear":
        head = LinearHead(WIDTH, ACTIONS)
    else:
        averaged = {"t-only": ("H", "W"), "s-only": ("T",)}[kind]
        head = RelationHead(WIDTH, ACTIONS, averaged, num_heads=4)
        torch.nn.init.normal_(head.attention.output.weight)
    for parameter in (*backbone.parameters(), *head.parameters()):
        if parameter.ndim == 1:  # norms of residual branches and biases start at zero
            torch.nn.init.normal_(parameter, mean=0.5, std=0.1)
    roi = RoIAlign3d(4, 1 / backbone.spatial_stride)
    detector = ActionDetector(backbone, roi, Fusion(backbone.out_channels, WIDTH), head)
    freeze_batchnorm(detector)
    return detector.eval()


def forward(detector, clips=CLIPS, boxes=BOXES, counts=COUNTS):
    return detector(clips, boxes, counts, boxes / 48, no_memory(len(counts), WIDTH))


@pytest.mark.parametrize("make_backbone", [csn_mini, slowfast_mini])
@pytest.mark.parametrize("kind", ["linear", "s-only", "t-only"])
def test_clips_and_boxes_become_logits_and_everything_learns(make_backbone, kind):
    detector = make_detector(make_backbone, kind).train()
    logits, _ = forward(detector)
    assert logits.shape == (3, ACTIONS)
    logits.square().sum().backward()
    learning = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"backbone", "fusion", "head"}
    if kind == "linear":
        assert all(parameter.grad.any() for parameter in learning.values())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["linear", "t-only"])
def test_another_clip_changes_no_bit(kind):
    detector, changed = make_detector(csn_mini, kind), CLIPS.clone()
    changed[1:] = 255 - changed[1:]
    for before, after in zip(forward(detector), forward(detector, changed), strict=True):
        assert torch.equal(before[:2], after[:2])
        assert not torch.isclose(before[2], after[2]).all()


@torch.no_grad()
@pytest.mark.parametrize(("kind", "sees"), [("linear", False), ("t-only", True)])
def test_only_a_relation_sees_another_persons_box(kind, sees):
    detector, moved = make_detector(csn_mini, kind), BOXES.clone()
    moved[1] = torch.tensor([0.0, 0.0, 10.0, 12.0])
    (before, tokens), (after, others) = forward(detector), forward(detector, boxes=moved)
    assert torch.equal(tokens[0], others[0]) and not torch.equal(tokens[1], others[1])
    assert torch.equal(before[0], after[0]) is not sees
    assert torch.equal(before[2], after[2])


@torch.no_grad()
def test_tokens_are_what_the_head_reads():
    detector = make_detector(csn_mini, "t-only")
    logits, tokens = forward(detector)
    assert tokens.shape == (3, 4, WIDTH)
    assert torch.equal(detector.tokens(CLIPS, BOXES, COUNTS), tokens)
    assert torch.equal(detector.head(tokens, BOXES / 48, COUNTS, no_memory(3, WIDTH)), logits)


def test_a_batch_without_persons_trains():
    detector = make_detector(csn_mini, "t-only").train()
    logits, _ = forward(detector, boxes=torch.zeros(0, 4), counts=torch.zeros_like(COUNTS))
    assert logits.shape == (0, ACTIONS)
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


@torch.no_grad()
def test_a_copy_is_independent_and_equal():
    detector = make_detector(csn_mini, "t-only")
    twin, before = copy.deepcopy(detector), forward(detector)[0]
    for buffer in detector.backbone.buffers():
        buffer.zero_()
    assert torch.equal(forward(twin)[0], before)
    assert not torch.equal(forward(detector)[0], before)

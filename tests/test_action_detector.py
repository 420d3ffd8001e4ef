import copy

import pytest
import torch

from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import LinearHead, RelationHead
from stadlib.models.networks import csn_mini, freeze_batchnorm, slowfast_mini
from stadlib.models.roi_fusion import Fusion, RoIAlign3d

COUNTS = torch.tensor([2, 0, 1])
BOXES = torch.tensor([[3.0, 5.0, 30.0, 40.0], [20.0, 10.0, 44.0, 47.0], [0.0, 0.0, 20.0, 48.0]])
PLACES = BOXES / 48
ACTIONS = 5


def make_detector(make_backbone, head) -> ActionDetector:
    torch.manual_seed(0)
    backbone = make_backbone()
    for parameter in (*backbone.parameters(), *head.parameters()):
        if parameter.ndim == 1:  # norms of residual branches and biases start at zero
            torch.nn.init.normal_(parameter, mean=0.5, std=0.1)
    roi = RoIAlign3d(4, 1 / backbone.spatial_stride)
    detector = ActionDetector(backbone, roi, Fusion(backbone.out_channels, 16), head)
    freeze_batchnorm(detector)
    return detector.eval()


def make_head(kind: str) -> torch.nn.Module:
    if kind == "linear":
        return LinearHead(16, ACTIONS)
    head = RelationHead(16, ACTIONS, {"t-only": ("H", "W"), "s-only": ("T",)}[kind], num_heads=4)
    torch.nn.init.normal_(head.attention.output.weight)
    return head


def make_clips() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (3, 3, 8, 48, 48), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("make_backbone", [csn_mini, slowfast_mini])
@pytest.mark.parametrize("kind", ["linear", "s-only", "t-only"])
def test_clips_and_boxes_become_logits_and_everything_learns(make_backbone, kind):
    detector = make_detector(make_backbone, make_head(kind)).train()
    logits = detector(make_clips(), BOXES, COUNTS, PLACES, detector.empty_memory(COUNTS))
    assert logits.shape == (3, ACTIONS)
    logits.square().sum().backward()
    learning = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"backbone", "fusion", "head"}
    if kind == "linear":
        assert all(parameter.grad.any() for parameter in learning.values())


@pytest.mark.parametrize("kind", ["linear", "t-only"])
def test_another_clip_changes_no_bit(kind):
    detector = make_detector(csn_mini, make_head(kind))
    clips = make_clips()
    changed = clips.clone()
    changed[1:] = 255 - changed[1:]
    with torch.no_grad():
        before, after = (
            detector(x, BOXES, COUNTS, PLACES, detector.empty_memory(COUNTS))
            for x in (clips, changed)
        )
    assert torch.equal(before[:2], after[:2])
    assert not torch.isclose(before[2], after[2]).all()


def test_only_a_relation_sees_another_persons_box():
    moved = BOXES.clone()
    moved[1] = torch.tensor([0.0, 0.0, 10.0, 12.0])
    seen = {}
    for kind in ("linear", "t-only"):
        detector = make_detector(csn_mini, make_head(kind))
        with torch.no_grad():
            before, after = (
                detector(make_clips(), x, COUNTS, PLACES, detector.empty_memory(COUNTS))
                for x in (BOXES, moved)
            )
        seen[kind] = not torch.equal(before[0], after[0])
        assert torch.equal(before[2], after[2])
    assert seen == {"linear": False, "t-only": True}


def test_person_features_are_what_the_head_reads():
    detector = make_detector(csn_mini, make_head("t-only"))
    memory = detector.empty_memory(COUNTS)
    with torch.no_grad():
        features = detector.person_features(make_clips(), BOXES, COUNTS)
        logits = detector(make_clips(), BOXES, COUNTS, PLACES, memory)
        assert features.shape == (3, 16, 4, 4, 4)
        tokens = detector.head.tokens(features)
        assert torch.equal(detector.tokens(make_clips(), BOXES, COUNTS), tokens)
        assert torch.equal(detector.head(tokens, PLACES, COUNTS, memory), logits)


def test_a_batch_without_persons_trains():
    detector = make_detector(csn_mini, make_head("t-only")).train()
    nobody = torch.zeros(3, dtype=torch.int64)
    memory = detector.empty_memory(nobody)
    logits = detector(make_clips(), torch.zeros(0, 4), nobody, torch.zeros(0, 4), memory)
    assert logits.shape == (0, ACTIONS)
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


def test_a_copy_is_independent_and_equal():
    detector = make_detector(csn_mini, make_head("t-only"))
    twin = copy.deepcopy(detector)
    memory = detector.empty_memory(COUNTS)
    with torch.no_grad():
        before = detector(make_clips(), BOXES, COUNTS, PLACES, memory)
        for buffer in detector.backbone.buffers():
            buffer.zero_()
        assert torch.equal(twin(make_clips(), BOXES, COUNTS, PLACES, memory), before)
        assert not torch.equal(detector(make_clips(), BOXES, COUNTS, PLACES, memory), before)

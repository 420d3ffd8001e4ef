"""The whole network: clips and boxes to logits and tokens, one clip independent of another."""

import copy

import pytest
import torch

from stadlib import recipes
from stadlib.models import backbones
from stadlib.models.action_detector import ActionDetector, OnMaps
from stadlib.models.heads import LinearHead, RelationHead, no_memory
from stadlib.models.networks import csn_mini, freeze_batchnorm, slowfast_mini
from stadlib.models.roi_fusion import Fusion, Places, RoIAlign3d, Unfused
from stadlib.recipes.experiment import Experiment
from stadlib.training import build

COUNTS = torch.tensor([2, 0, 1])
BOXES = torch.tensor([[3.0, 5.0, 30.0, 40.0], [20.0, 10.0, 44.0, 47.0], [0.0, 0.0, 20.0, 48.0]])
WIDTH, ACTIONS = 16, 5
CLIPS = torch.randint(256, (3, 3, 8, 48, 48), generator=torch.Generator().manual_seed(1)).byte()


def make_detector(make_backbone, kind: str, beside="tiled", layers=2) -> ActionDetector:
    torch.manual_seed(0)
    backbone = make_backbone()
    fusion = Fusion(backbone.out_channels, WIDTH, beside, layers)
    if kind == "raw":
        fusion = Unfused(backbone.out_channels)
        head = LinearHead(backbone.out_channels, ACTIONS)
    elif kind == "linear":
        head = LinearHead(WIDTH, ACTIONS, "mean")
    else:
        averaged = {"t-only": ("H", "W"), "s-only": ("T",)}[kind]
        head = RelationHead(WIDTH, ACTIONS, averaged, num_heads=4)
        torch.nn.init.normal_(head.attention.output.weight)
    for parameter in (*backbone.parameters(), *head.parameters()):
        if parameter.ndim == 1:  # norms of residual branches and biases start at zero
            torch.nn.init.normal_(parameter, mean=0.5, std=0.1)
    roi = RoIAlign3d(4, 1 / backbone.spatial_stride)
    detector = ActionDetector(backbone, roi, fusion, head)
    freeze_batchnorm(detector)
    return detector.eval()


SIZES = [(48, 48)] * 3


def forward(detector, clips=CLIPS, boxes=BOXES, counts=COUNTS, sizes=SIZES):
    return detector(clips, boxes, counts, sizes, boxes / 48, no_memory(len(counts), WIDTH))


@pytest.mark.parametrize("make_backbone", [csn_mini, slowfast_mini])
@pytest.mark.parametrize("kind", ["raw", "linear", "s-only", "t-only"])
def test_clips_and_boxes_become_logits_and_everything_learns(make_backbone, kind):
    detector = make_detector(make_backbone, kind).train()
    logits, _ = forward(detector)
    assert logits.shape == (3, ACTIONS)
    logits.square().sum().backward()
    learning = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    fused = {"fusion"} if kind != "raw" else set()
    assert {name.split(".")[0] for name in learning} == {"backbone", "head"} | fused
    if kind in ("raw", "linear"):
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
    assert torch.equal(detector.tokens(CLIPS, BOXES, COUNTS, SIZES), tokens)
    assert torch.equal(
        detector.head(tokens, BOXES / 48, Places.of(COUNTS), no_memory(3, WIDTH)), logits
    )


@torch.no_grad()
@pytest.mark.parametrize("make_backbone", [csn_mini, slowfast_mini])
@pytest.mark.parametrize("kind", ["raw", "linear", "s-only", "t-only"])
def test_a_clip_scores_the_same_alone_and_padded_beside_others(make_backbone, kind):
    """A landscape, a portrait and a small clip in one batch; whatever stands in the padding."""
    detector = make_detector(make_backbone, kind)
    sizes = [(48, 32), (32, 48), (24, 24)]
    boxes = BOXES.clamp(max=22)
    counts = torch.tensor([1, 1, 1])
    together, _ = forward(detector, CLIPS, boxes, counts, sizes)
    for clip, (height, width) in enumerate(sizes):
        alone = CLIPS[clip : clip + 1, :, :, :height, :width]
        one = slice(clip, clip + 1)
        logits, _ = forward(detector, alone, boxes[one], counts[one], sizes[one])
        torch.testing.assert_close(together[one], logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_persons_keep_their_order_whatever_the_sizes_of_their_clips():
    detector = make_detector(csn_mini, "t-only")
    counts, sizes = torch.tensor([1, 1, 1]), [(48, 48), (40, 48), (48, 48)]
    logits, tokens = forward(detector, counts=counts, sizes=sizes)
    swapped = [2, 0, 1]
    again = forward(detector, CLIPS[swapped], BOXES[swapped], counts, [sizes[i] for i in swapped])
    torch.testing.assert_close(again[0], logits[swapped], rtol=0, atol=1e-5)
    torch.testing.assert_close(again[1], tokens[swapped], rtol=0, atol=1e-5)


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


@pytest.mark.slow
def test_paper_size_models_of_every_word():
    """Parameters by part: those of the paper's rows and of every choice that the paper leaves."""
    rows = [*recipes.table1(scale="paper"), *recipes.choices_compared(scale="paper").values()]
    counted, networks = {}, {}
    for row in rows:  # the same network stands in many
        words = row.backbone, row.head, row.fusion, row.linear, row.recall
        networks[(*words, row.memory)] = row
    for (*words, _), row in networks.items():
        with torch.device("meta"):
            model = build.action_detector(row, 60, row.memory)
        parts = {name: part for name, part in model.named_children() if name != "roi"}
        millions = {n: sum(p.numel() for p in m.parameters()) / 1e6 for n, m in parts.items()}
        counted[tuple(words)] = {name: round(number, 2) for name, number in millions.items()}
        assert (model.backbone.spatial_stride, model.roi.options[1]) == (16, 1 / 16)
    csn, slowfast = 28.88, 84.81
    tiled = {"backbone": csn, "fusion": 4.46, "head": 3.18}
    assert counted["ir-csn-152", "t-only", "tiled", "raw", "none"] == tiled
    assert counted["ir-csn-152", "t-only", "tiled", "raw", "geometry"] == tiled | {"head": 3.21}
    linear = {"backbone": slowfast, "fusion": 0.0, "head": 0.14}
    assert counted["slowfast-152", "linear", "tiled", "raw", "none"] == linear


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("backbone", ["ir-csn-152", "slowfast-101"])
def test_portrait_beside_landscape_at_paper_size(backbone):
    """Logits are those of each clip alone, to 1e-4: sums of a batch are taken in another order."""
    torch.manual_seed(0)
    frames = "32x2" if backbone == "ir-csn-152" else "8x8+32x2"
    row = Experiment(backbone=backbone, frames=frames)
    detector = build.action_detector(row, 60).eval()
    torch.nn.init.normal_(detector.head.classifier.weight)
    clips = torch.randint(256, (2, 3, 16, 96, 96), dtype=torch.uint8)
    sizes, counts = [(64, 96), (96, 64)], torch.tensor([1, 2])
    boxes = torch.tensor([[5.0, 4, 40, 60], [10, 20, 50, 90], [0, 0, 64, 96]])
    together, _ = detector(clips, boxes, counts, sizes, boxes / 96, no_memory(2, 512))
    persons = boxes.split(counts.tolist())
    for clip, (height, width) in enumerate(sizes):
        one = slice(clip, clip + 1)
        alone = clips[one, :, :, :height, :width], persons[clip], counts[one], sizes[one]
        logits, _ = detector(*alone, persons[clip] / 96, no_memory(1, 512))
        torch.testing.assert_close(together.split(counts.tolist())[clip], logits, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("make_backbone", backbones.MINIATURE.values(), ids=backbones.MINIATURE)
@pytest.mark.parametrize("beside", ["tiled", "grid"])
@pytest.mark.parametrize("kind", ["raw", "linear", "s-only", "t-only"])
def test_maps_give_the_tokens_that_clips_give(make_backbone, kind, beside):
    """Of clips of two sizes, one without a person."""
    detector, sizes = make_detector(make_backbone, kind, beside), [(48, 48), (48, 40), (48, 48)]
    logits, tokens = forward(detector, sizes=sizes)
    maps = detector.maps(CLIPS, BOXES, COUNTS, sizes)
    assert maps.shape == (len(BOXES) + len(COUNTS), 4 * 16, detector.backbone.out_channels)
    on_maps = OnMaps(detector)
    from_maps = on_maps(maps, BOXES / 48, Places.of(COUNTS), no_memory(len(COUNTS), WIDTH))
    torch.testing.assert_close(from_maps, (logits, tokens), rtol=1e-4, atol=1e-5)
    assert {name.split(".")[0] for name, _ in on_maps.named_parameters()} <= {"fusion", "head"}
    stranger = maps.clone()
    stranger[-2:] += 1  # the last clip's scene and person
    changed = on_maps(stranger, BOXES / 48, Places.of(COUNTS), no_memory(len(COUNTS), WIDTH))[0]
    assert torch.equal(changed[:2], from_maps[0][:2]) and not torch.equal(changed, from_maps[0])

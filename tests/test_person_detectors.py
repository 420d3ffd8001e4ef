"""The detectors by name: all take pictures and give boxes, scores and labels."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import detection

from stadlib.base import ConfigError, InputError
from stadlib.data.video import probe, read_frames
from stadlib.models.person_detector import (
    PERSON,
    TORCHVISION,
    GFocalV2,
    gfocal_mini,
    gfocal_resnet,
    torchvision_detector,
)

FAMILIES = {
    "fasterrcnn_mobilenet_v3_large_fpn": lambda model: model.roi_heads.score_thresh,
    "retinanet_resnet50_fpn": lambda model: model.score_thresh,
    "fcos_resnet50_fpn": lambda model: model.score_thresh,
}


@pytest.fixture(scope="module")
def large() -> GFocalV2:
    torch.manual_seed(0)
    return gfocal_resnet(50, (160,), 240)


@pytest.mark.slow
def test_the_trunk_takes_torchvisions_weights_name_by_name(large):
    weights = torchvision.models.resnet50().state_dict()
    body = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    large.body.body.load_state_dict(body)
    kept = large.body.body.state_dict()
    assert {*body} - {*kept} == {name for name in body if name.endswith("num_batches_tracked")}
    assert all(torch.equal(body[name], value) for name, value in kept.items())


@pytest.mark.slow
def test_the_papers_size_has_five_levels_of_256_channels(large):
    maps = large.eval().body(torch.zeros(1, 3, 160, 224)).values()
    sides = [(20, 28), (10, 14), (5, 7), (3, 4), (2, 2)]
    assert [tuple(map_BCHW.shape) for map_BCHW in maps] == [(1, 256, *side) for side in sides]
    assert large.strides == (8, 16, 32, 64, 128)
    towers = [large.head.score_tower, large.head.box_tower]
    convs = [sum(isinstance(layer, nn.Conv2d) for layer in tower) for tower in towers]
    assert convs == [4, 4]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in large.modules())


@pytest.mark.slow
def test_the_papers_size_learns_and_detects_on_real_frames(large, shared):
    path = shared / "data" / "videos" / "fencing.mp4"
    pictures = [frame.float() / 255 for frame in read_frames(path, [0.0, 3.0])]
    height, width = pictures[0].shape[1:]
    persons = torch.tensor([[0.04, 0.27, 0.45, 0.90], [0.67, 0.22, 0.99, 0.77]])
    targets = [{"boxes": persons * torch.tensor([width, height] * 2)}] * 2
    trained = {n: p.detach().clone() for n, p in large.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD([p for p in large.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(3):
        sums = large.train()(pictures, targets)
        loss = sums.total(sums.positives, sums.weights)
        assert torch.isfinite(loss) and sums.positives >= 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    parameters = dict(large.named_parameters())
    still = {name for name, before in trained.items() if torch.equal(before, parameters[name])}
    assert not still
    assert "body.body.layer2.0.conv1.weight" in trained
    assert not any(name.startswith(("body.body.conv1", "body.body.layer1")) for name in trained)
    nn.init.constant_(large.head.score.bias, 0.0)  # three steps make nobody sure of a person
    with torch.inference_mode():
        found = large.eval()(pictures)
    for one in found:
        assert len(one["boxes"]) > 0 and torch.isfinite(one["boxes"]).all()
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= torch.tensor([width, height] * 2) + 1e-3).all()
    assert probe(path).width == width == 340


def test_a_depth_that_no_trunk_has_is_refused():
    with pytest.raises(ConfigError, match="depth=34; choose from 50, 101"):
        gfocal_resnet(34, (160,), 240)


def test_the_miniatures_levels_are_as_far_apart_as_their_strides_say():
    model = gfocal_mini((64,), 144).eval()
    maps = model.body(torch.zeros(1, 3, 64, 96)).values()
    expected = [(64 // stride, 96 // stride) for stride in model.strides]
    assert [tuple(map_BCHW.shape[2:]) for map_BCHW in maps] == expected


def test_a_name_that_torchvision_does_not_have_is_refused_with_the_choices():
    with pytest.raises(ConfigError) as caught:
        torchvision_detector("yolo")
    assert str(caught.value).startswith("torchvision detector='yolo'; choose from ")
    assert all(name in str(caught.value) for name in TORCHVISION)
    assert all(hasattr(detection, name) for name in TORCHVISION)


def test_weights_that_cannot_be_fetched_have_a_remedy(monkeypatch):
    def unreachable(**_):
        raise URLError("no route to host")

    monkeypatch.setattr(detection, "fcos_resnet50_fpn", unreachable)
    with pytest.raises(InputError, match="fcos_resnet50_fpn: weights cannot be fetched") as caught:
        torchvision_detector("fcos_resnet50_fpn")
    line = str(caught.value)
    assert "no route to host" in line and "hub/checkpoints" in line and "\n" not in line


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_torchvisions_detectors_answer_as_ours_do(name, monkeypatch):
    """And with every box of a score of 0.05 or more, whatever the family calls that."""
    build = getattr(detection, name)

    def without_weights(*, weights: str, **words) -> nn.Module:
        assert weights == "DEFAULT"
        return build(weights=None, weights_backbone=None, min_size=64, max_size=96, **words)

    monkeypatch.setattr(detection, name, without_weights)
    torch.manual_seed(0)
    model = torchvision_detector(name).eval()
    assert FAMILIES[name](model) == 0.05
    pictures = [torch.rand(3, 64, 80), torch.rand(3, 60, 72)]
    with torch.inference_mode():
        theirs, ours = model(pictures), gfocal_mini((64,), 144).eval()(pictures)
    assert len(theirs) == len(ours) == 2
    for one, other in zip(theirs, ours, strict=True):
        assert {*one} == {*other} == {"boxes", "scores", "labels"}
        assert one["labels"].dtype == other["labels"].dtype
        assert one["boxes"].shape[1:] == other["boxes"].shape[1:] == (4,)
    categories = detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    assert categories[PERSON] == "person"

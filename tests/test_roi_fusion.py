"""Padding, 3D RoIAlign and fusion: equal to their definitions, one person at a time."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from stadlib.models.roi_fusion import Fusion, Places, RoIAlign3d, clip_index

COUNTS = torch.tensor([2, 0, 1])
CLIPS = clip_index(COUNTS)
BOXES = torch.tensor([[3.0, 5.0, 40.0, 60.0], [-8.0, 10.0, 20.0, 90.0], [50.0, 0.0, 96.0, 33.3]])


@pytest.mark.parametrize("counts", [[2, 0, 3], [1], [0, 0], [4, 1, 1, 0]])
def test_unpad_undoes_pad_forward_and_backward(counts):
    counts_B = torch.tensor(counts)
    x_NC = torch.randn(sum(counts), 3, requires_grad=True)
    places = Places.of(counts_B)
    x_BPC = places.pad(x_NC)
    assert places.mask_BP.sum(1).tolist() == counts
    assert x_BPC.shape == (len(counts), max(counts), 3)
    assert torch.equal(places.unpad(x_BPC), x_NC)
    weights = torch.randn_like(x_NC)
    (gradient,) = torch.autograd.grad((places.unpad(x_BPC) * weights).sum(), x_NC)
    assert torch.equal(gradient, weights)


def test_every_clip_has_its_persons_in_its_own_row_and_zeros_behind():
    assert clip_index(COUNTS).tolist() == [0, 0, 2]
    x_N = torch.tensor([10.0, 11.0, 20.0], requires_grad=True)
    places = Places.of(COUNTS)
    x_BP = places.pad(x_N)
    assert x_BP.tolist() == [[10, 11], [0, 0], [20, 0]]
    assert places.mask_BP.tolist() == [[True, True], [False, False], [True, False]]
    (x_BP * torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).sum().backward()
    assert x_N.grad.tolist() == [1, 2, 5]  # padded slots give no gradient


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [-1, 2])
def test_every_frame_is_torchvisions_roi_align_of_that_frame(aligned, sampling_ratio):
    features = torch.randn(3, 5, 4, 8, 12, dtype=torch.float64, requires_grad=True)
    boxes = BOXES.double()
    roi = RoIAlign3d(7, 1 / 8, aligned=aligned, sampling_ratio=sampling_ratio)
    rois = torch.cat((torch.tensor([[0.0], [0.0], [2.0]]), boxes), dim=1)
    expected = torch.stack(
        [roi_align(features[:, :, t], rois, 7, 1 / 8, sampling_ratio, aligned) for t in range(4)],
        dim=2,
    )
    pooled = roi(features, boxes, CLIPS)
    assert pooled.shape == (3, 5, 4, 7, 7)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(pooled)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), features) for x in (pooled, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_pooling_sees_its_own_clip_in_any_layout():
    features = torch.randn(3, 5, 4, 8, 12)
    changed = features.clone()
    changed[1:] = torch.randn_like(changed[1:])
    roi = RoIAlign3d(4, 1 / 8)
    before, after = roi(features, BOXES, CLIPS), roi(changed, BOXES, CLIPS)
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2], after[2])
    last = features.to(memory_format=torch.channels_last_3d)
    assert torch.equal(before, roi(last, BOXES, CLIPS))
    assert roi(features, BOXES[:0], CLIPS[:0]).shape == (0, 5, 4, 4, 4)


def test_boxes_keep_their_pixels_in_bfloat16():
    """On a map of 256 x 464 pixels; coordinates in bfloat16 would be off by up to a pixel."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 4, 2, 16, 29, generator=generator).bfloat16()
    low = torch.rand(20, 2, generator=generator) * torch.tensor([300.0, 150.0])
    boxes = torch.cat((low, low + 30 + 70 * torch.rand(20, 2, generator=generator)), dim=1)
    roi, clips = RoIAlign3d(7, 1 / 16), clip_index(torch.tensor([20]))
    exact, rounded = (roi(features.float(), b, clips) for b in (boxes, boxes.bfloat16().float()))
    with torch.autocast("cpu", torch.bfloat16):
        pooled = roi(features, boxes, clips)
    torch.testing.assert_close(pooled, exact, rtol=0, atol=1e-6)
    assert (rounded - exact).abs().max() > 0.05


@pytest.mark.parametrize("beside", ["tiled", "mean", "grid"])
@pytest.mark.parametrize("layers", [1, 2])
def test_fusion_is_convolutions_of_the_concatenation(beside, layers):
    """Paper section 2.1, word by word: RoIs and scene side by side, then convolutions."""
    fusion, boxes = Fusion(8, 16, beside, layers).double(), BOXES.double()
    scene = torch.randn(3, 8, 4, 8, 12, dtype=torch.float64)
    fused = fusion(RoIAlign3d(3, 1 / 8)(fusion.project(scene), boxes, CLIPS), scene, CLIPS)
    clips = torch.tensor([0, 0, 2])
    rois = torch.cat((clips[:, None], boxes), dim=1)
    persons = [roi_align(scene[:, :, t], rois, 3, 1 / 8, -1, True) for t in range(4)]
    persons = torch.stack(persons, dim=2)
    around = F.adaptive_avg_pool3d(scene, (4, 3, 3))[clips]
    if beside == "mean":
        around = F.adaptive_avg_pool3d(scene, (4, 1, 1))[clips].expand_as(around)
    if beside == "tiled":
        persons = persons.mean(dim=(3, 4), keepdim=True).expand_as(around)
    weight = torch.cat((fusion.project.weight, fusion.scene.weight), dim=1)
    both = torch.cat((persons, around), dim=1)
    expected = F.relu(fusion.norm(F.conv3d(both, weight, fusion.scene.bias)))
    if layers == 2:
        convolution, norm, _ = fusion.second
        second = F.conv3d(expected, convolution.weight, padding=(0, 1, 1))
        expected = F.relu(norm(second))
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("beside", ["tiled", "mean", "grid"])
def test_fusion_looks_at_one_person_alone(beside):
    fusion = Fusion(8, 16, beside)
    scene, persons = torch.randn(3, 8, 4, 6, 6), torch.randn(3, 16, 4, 3, 3)
    changed = persons.clone()
    changed[1] += 1
    before, after = fusion(persons, scene, CLIPS), fusion(changed, scene, CLIPS)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])

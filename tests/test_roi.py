import pytest
import torch
from torchvision.ops import roi_align

from stadlib.models.roi_fusion import RoIAlign3d

COUNTS = torch.tensor([2, 0, 1])
BOXES = torch.tensor([[3.0, 5.0, 40.0, 60.0], [-8.0, 10.0, 20.0, 90.0], [50.0, 0.0, 96.0, 33.3]])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [-1, 2])
def test_every_frame_is_torchvisions_roi_align_of_that_frame(aligned, sampling_ratio):
    features = torch.randn(3, 5, 4, 8, 12, dtype=torch.float64, requires_grad=True)
    boxes = BOXES.double()
    roi = RoIAlign3d(7, 1 / 8, aligned=aligned, sampling_ratio=sampling_ratio)
    clips = torch.tensor([[0.0], [0.0], [2.0]], dtype=torch.float64)
    rois = torch.cat((clips, boxes), dim=1)
    expected = torch.stack(
        [roi_align(features[:, :, t], rois, 7, 1 / 8, sampling_ratio, aligned) for t in range(4)],
        dim=2,
    )
    pooled = roi(features, boxes, COUNTS)
    assert pooled.shape == (3, 5, 4, 7, 7)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(pooled)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), features) for x in (pooled, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_memory_format_does_not_matter():
    features = torch.randn(3, 5, 4, 8, 12)
    roi = RoIAlign3d(4, 1 / 8)
    last = features.to(memory_format=torch.channels_last_3d)
    assert torch.equal(roi(features, BOXES, COUNTS), roi(last, BOXES, COUNTS))


def test_another_clip_changes_nothing():
    features = torch.randn(3, 5, 4, 8, 12)
    changed = features.clone()
    changed[1:] = torch.randn_like(changed[1:])
    roi = RoIAlign3d(4, 1 / 8)
    before, after = roi(features, BOXES, COUNTS), roi(changed, BOXES, COUNTS)
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2], after[2])


def test_nobody_gives_an_empty_tensor():
    roi = RoIAlign3d(4, 1 / 8)
    pooled = roi(torch.randn(2, 5, 4, 8, 12), torch.zeros(0, 4), torch.tensor([0, 0]))
    assert pooled.shape == (0, 5, 4, 4, 4)

import pytest
import torch

from stadlib.models import roi_fusion

COUNTS = [[2, 0, 3], [1], [0, 0], [4, 1, 1, 0]]


@pytest.mark.parametrize("counts", COUNTS)
def test_unpad_undoes_pad_forward_and_backward(counts):
    counts_B = torch.tensor(counts)
    x_NC = torch.randn(sum(counts), 3, requires_grad=True)
    x_BPC, mask_BP = roi_fusion.pad(x_NC, counts_B)
    assert mask_BP.sum(1).tolist() == counts
    assert x_BPC.shape == (len(counts), max(counts), 3)
    assert torch.equal(roi_fusion.unpad(x_BPC, counts_B), x_NC)
    weights = torch.randn_like(x_NC)
    (gradient,) = torch.autograd.grad((roi_fusion.unpad(x_BPC, counts_B) * weights).sum(), x_NC)
    assert torch.equal(gradient, weights)


def test_every_clip_has_its_persons_in_its_own_row_and_zeros_behind():
    x_BP, mask_BP = roi_fusion.pad(torch.tensor([10.0, 11.0, 20.0]), torch.tensor([2, 0, 1]))
    assert x_BP.tolist() == [[10, 11], [0, 0], [20, 0]]
    assert mask_BP.tolist() == [[True, True], [False, False], [True, False]]


def test_a_padded_slot_gets_no_gradient_and_gives_none():
    x_N = torch.ones(3, requires_grad=True)
    x_BP, mask_BP = roi_fusion.pad(x_N, torch.tensor([2, 1]))
    x_BP.masked_fill(~mask_BP, 1.0).sum().backward()
    with_stranger = x_N.grad.clone()
    x_N.grad = None
    (
        roi_fusion.pad(x_N, torch.tensor([2, 1]))[0] * torch.tensor([[1.0, 1.0], [1.0, 7.0]])
    ).sum().backward()
    assert torch.equal(x_N.grad, with_stranger)


def test_clip_index_names_the_clip_of_every_person():
    assert roi_fusion.clip_index(torch.tensor([2, 0, 1])).tolist() == [0, 0, 2]

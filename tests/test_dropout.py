"""Dropout's noise does not depend on how a batch is shared."""

from __future__ import annotations

import torch

from stadlib.models.heads import PersonDropout, set_share


def test_shares_have_the_noise_of_the_whole_batch():
    x_NC = torch.rand(11, 6) + 1
    dropout = PersonDropout(0.5).train()
    torch.manual_seed(4)
    whole = dropout(x_NC)
    for rows in ((0, 3, 9), (1, 2), (), tuple(range(11))):
        set_share(dropout, rows, 11)
        torch.manual_seed(4)
        assert torch.equal(dropout(x_NC[list(rows)]), whole[list(rows)])
    assert (whole == 0).any() and (whole != 0).any()


def test_evaluation_drops_nothing():
    dropout = PersonDropout(0.5).eval()
    set_share(dropout, (1,), 3)
    assert torch.equal(dropout(torch.ones(1, 2)), torch.ones(1, 2))

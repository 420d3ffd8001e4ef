"""One clip's journey: its tensors are the model's, its clip is the rule's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stadlib import recipes
from stadlib.base import InputError, Progress
from stadlib.data.clips import Batch
from stadlib.data.labels import group
from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import MemoryTokens
from stadlib.recipes.experiment import from_dict
from stadlib.report import tour
from stadlib.report.tour import walk
from stadlib.training import build, stages

ACTIONS, REMEMBERED = 7, 5


def made(head: str) -> tuple[ActionDetector, Batch, MemoryTokens]:
    """A model that was never trained, two clips with three persons and one, and a memory."""
    torch.manual_seed(0)
    row = recipes.table2(scale="smoke", backbone="ir-csn-152", head=head)["A first"]
    model = build.action_detector(row, ACTIONS, remembers=True)
    torch.nn.init.normal_(model.head.classifier.weight)
    boxes = torch.rand(4, 2).repeat(1, 2) * 0.5 + torch.tensor([0, 0, 0.3, 0.5])
    batch = Batch(
        clips_BCTHW=torch.randint(256, (2, 3, 8, 32, 48), dtype=torch.uint8),
        boxes_N4=boxes * torch.tensor([48, 32, 48, 32]),
        counts_B=torch.tensor([3, 1]),
        actions_NA=torch.zeros(4, ACTIONS),
        boxes_norm_N4=boxes,
        keys=[("ava", "a", 902.0), ("ava", "b", 902.0)],
        person_ids_N=torch.arange(4),
    )
    length, width = build.token_size(row, model)
    memory = MemoryTokens(
        tokens_BMLC=torch.randn(2, REMEMBERED, length, width),
        mask_BM=torch.tensor([[True] * REMEMBERED, [True, True, False, False, False]]),
        seconds_BM=torch.tensor([[-2, -1, 1, 2, 3], [-1, 1, 0, 0, 0]]),
        boxes_BM4=torch.rand(2, REMEMBERED, 2).sort().values.repeat(1, 1, 2),
    )
    return model, batch, memory


@pytest.mark.parametrize("head", ["s-only", "t-only"])
def test_a_walk_ends_where_the_model_does(head):
    model, batch, memory = made(head)
    found = walk(model.train(), batch, memory)
    inputs = (batch.clips_BCTHW, batch.boxes_N4, batch.counts_B, batch.boxes_norm_N4)
    with torch.inference_mode():
        assert torch.equal(found.scores_NA, model.eval()(*inputs, memory).sigmoid())
        assert torch.equal(found.fused_NCThw, model.person_features(*inputs[:3]))
    sums = found.attention_NLES.sum(dim=-1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)
    assert found.attention_NLES.shape[-1] == 3 + REMEMBERED


def test_sequences_have_the_heads_sizes():
    model, batch, memory = made("t-only")
    found = walk(model, batch, memory)
    for head, tokens_NLC in (("s-only", found.s_only_NLC), ("t-only", found.t_only_NLC)):
        row = recipes.table2(scale="smoke", backbone="ir-csn-152", head=head)["A first"]
        assert tokens_NLC.shape == (4, *build.token_size(row, model))
    fused = found.fused_NCThw
    assert torch.allclose(found.s_only_NLC[1, 0], fused[1, :, :, 0, 0].mean(dim=1), atol=1e-6)
    assert torch.allclose(found.t_only_NLC[1, 0], fused[1, :, 0].mean(dim=(1, 2)), atol=1e-6)


def test_fusion_is_what_its_halves_give():
    """The figure's equation: normalise the sum, cut off what is negative."""
    model, batch, memory = made("t-only")
    found = walk(model, batch, memory)
    scene = found.scene_BCThw[[0, 0, 0, 1]]
    with torch.inference_mode():
        fused = model.fusion.norm(found.persons_NCThw + scene).relu()
    assert torch.allclose(found.fused_NCThw, fused, atol=1e-6)


@pytest.fixture(scope="module")
def journey(with_memory) -> tour.Journey:
    return tour.journey(with_memory)


def test_a_journey_is_the_trained_models(journey, with_memory):
    experiment = from_dict(with_memory.experiment)
    run = stages.open_run(experiment, with_memory.folder, Progress)
    model = stages.trained_model(run).eval()
    clip = torch.from_numpy(journey.frames).permute(3, 0, 1, 2)[None]
    high, wide = journey.frames.shape[1:3]
    places = torch.from_numpy(journey.boxes).float()
    boxes = places * torch.tensor([wide, high, wide, high])
    with torch.inference_mode():
        logits = model(clip, boxes, torch.tensor([len(boxes)]), places, journey.memory)
    assert torch.allclose(journey.walk.scores_NA, logits.sigmoid(), atol=1e-5)
    assert journey.attention.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for head, tokens in (("s-only", "s_only_NLC"), ("t-only", "t_only_NLC")):
        size = build.token_size(replace(experiment, head=head), model)
        assert getattr(journey.walk, tokens).shape[1:] == size


def test_the_clip_is_the_first_of_the_rule(journey, with_memory):
    run = stages.open_run(from_dict(with_memory.experiment), with_memory.folder, Progress)
    keyframes = stages.annotated(run.layout, ["ava"], "val")
    videos = {k.video: [o for o in keyframes if o.video == k.video] for k in keyframes}
    relating = [action for action in journey.ids if group(action) == "person"]
    columns = [journey.ids.index(action) for action in relating]
    for own in videos.values():
        middle = own[len(own) // 2]
        if len(middle.boxes) == 3 and middle.actions[:, columns].any(axis=1).sum() >= 2:
            break
    assert journey.title == f"ava: {middle.video}, {middle.timestamp:g} s"
    assert np.array_equal(journey.actions, middle.actions)
    assert np.allclose(journey.boxes, middle.boxes, atol=1e-6)
    assert journey.times[journey.now] == 0
    assert set(journey.truth(journey.related)) & set(relating)


def test_every_remembered_second_has_a_picture(journey):
    seconds = journey.memory.seconds_BM[0].tolist()
    assert seconds and 0 not in seconds
    assert set(journey.recalled) == set(seconds)
    assert all(frame.dtype == np.uint8 for frame in journey.recalled.values())


def test_a_run_that_remembers_nothing_is_refused(smoke_record, with_memory):
    for record in (smoke_record, replace(with_memory, folder=None)):
        with pytest.raises(InputError, match="give a run with memory"):
            tour.journey(record)


def test_no_movie_like_that_is_said_in_one_line():
    with pytest.raises(InputError, match="two of whom act on others; add one"):
        tour._chosen([], (12, 80))

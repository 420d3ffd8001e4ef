"""One clip's journey: tensors are the model's, the clip is the rule's, figures are whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from reading import require_apart, require_readable, texts, words

from stadlib import recipes
from stadlib.base import InputError, Progress, published_dir
from stadlib.data.clips import Batch
from stadlib.data.layout import LASTING, group
from stadlib.models.action_detector import ActionLoss
from stadlib.models.heads import MemoryTokens
from stadlib.models.roi_fusion import Places
from stadlib.recipes.experiment import from_dict
from stadlib.report import journey as journey_of
from stadlib.report import tour
from stadlib.training import build, stages

ACTIONS, REMEMBERED = 7, 5


@pytest.mark.parametrize("head", ["s-only", "t-only"])
def test_a_walk_ends_where_the_model_does(head):
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
        sizes=[(32, 48)] * 2,
        keys=[("ava", "a", 902.0), ("ava", "b", 902.0)],
    )
    length, width = build.token_size(row, model)
    memory = MemoryTokens(
        tokens_BMLC=torch.randn(2, REMEMBERED, length, width),
        mask_BM=torch.tensor([[True] * REMEMBERED, [True, True, False, False, False]]),
        seconds_BM=torch.tensor([[-2, -1, 1, 2, 3], [-1, 1, 0, 0, 0]]),
        boxes_BM4=torch.rand(2, REMEMBERED, 2).sort().values.repeat(1, 1, 2),
    )
    steps = journey_of.walk(model.train(), batch, memory)
    inputs = stages.model_inputs(batch)
    with torch.inference_mode():
        assert torch.equal(steps["logits_NA"], model.eval()(*inputs, memory)[0])
        assert torch.equal(model.head.tokens(steps["fused_NCThw"]), model.tokens(*inputs[:4]))
        # The figure's equation: normalise the sum of both halves, cut off what is negative.
        persons = steps["persons_NCThw"]
        if row.fusion == "tiled":
            persons = persons.mean(dim=(3, 4), keepdim=True)
        halves = persons + steps["scene_BCThw"][[0, 0, 0, 1]]
        fused = model.fusion.second(model.fusion.norm(halves).relu())
    assert torch.allclose(steps["fused_NCThw"], fused, atol=1e-6)
    assert steps["attention_NLES"].shape[-1] == 3 + REMEMBERED
    sums = steps["attention_NLES"].sum(dim=-1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)


@pytest.fixture(scope="module")
def journey(with_memory) -> tour.Journey:
    return tour.journey(with_memory)


def test_a_journey_is_the_trained_models(journey, with_memory):
    experiment = from_dict(with_memory.experiment)
    run = stages.open_run(experiment, with_memory.folder, Progress)
    model = stages.trained_model(run).eval()
    clip = torch.from_numpy(journey.frames).permute(3, 0, 1, 2)[None]
    high, wide = journey.frames.shape[1:3]
    boxes = torch.from_numpy(journey.boxes).float() * torch.tensor([wide, high, wide, high])
    after = (journey.places.counts_B, [(high, wide)], journey.boxes_N4, journey.memory)
    with torch.inference_mode():
        logits, _ = model(clip, boxes, *after)
    assert torch.allclose(journey.logits_NA, logits, atol=1e-4)
    assert journey.attention.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for head, name in (("s-only", "S-only"), ("t-only", "T-only")):
        shape = (len(boxes), *build.token_size(replace(experiment, head=head), model))
        assert f"{name}: {' × '.join(map(str, shape))}" in words(tour.sequences(journey))


def test_the_notebooks_call_of_the_head_gives_the_models_logits(journey):
    tokens = journey.head.tokens(journey.fused_NCThw)
    logits = journey.head(tokens, journey.boxes_N4, journey.places, journey.memory)
    assert torch.allclose(logits, journey.logits_NA, atol=1e-5)


def test_the_clip_is_the_first_of_the_rule(journey, with_memory):
    run = stages.open_run(from_dict(with_memory.experiment), with_memory.folder, Progress)
    keyframes = stages.annotated(run.layout, ["ava"], "val")
    videos = {k.video: [o for o in keyframes if o.video == k.video] for k in keyframes}
    relating = [action for action in journey.ids if group(action) == "person"]
    columns = [journey.ids.index(action) for action in relating]
    for movie in videos.values():
        middle = movie[len(movie) // 2]
        if len(middle.boxes) == 3 and middle.actions[:, columns].any(axis=1).sum() >= 2:
            break
    assert journey.title == f"ava: {middle.video}, {middle.timestamp:g} s"
    assert np.array_equal(journey.actions, middle.actions)
    assert np.allclose(journey.boxes, middle.boxes, atol=1e-6)
    assert journey.times[journey.now] == 0
    assert set(journey.truth(journey.person)) & set(relating)


@pytest.mark.parametrize("shows", ["relation", "lasting"])
def test_memory_has_pictures_and_knows_the_person(shows, with_memory, monkeypatch):
    journey = tour.journey(with_memory, shows)
    seconds = journey.memory.seconds_BM[0].tolist()
    assert seconds and 0 not in seconds
    assert set(journey.pictures) == {0, *seconds}
    assert all(picture.dtype == np.uint8 for picture in journey.pictures.values())
    N = len(journey.boxes)
    assert journey.same_S[:N].tolist() == [person == journey.person for person in range(N)]
    itself = np.array(seconds)[journey.same_S[N:]]
    assert len(itself) and len(set(itself)) == len(itself)  # once a second at most
    if shows == "lasting":
        assert N > 1 and LASTING & set(journey.truth(journey.person))
    monkeypatch.setattr(stages, "annotated", lambda layout, sources, split: [])
    with pytest.raises(InputError, match=r"no validation movie .* add one"):
        tour.journey(with_memory, shows)


def test_a_run_that_remembers_nothing_is_refused(smoke_record, with_memory):
    for record in (smoke_record, replace(with_memory, folder=None)):
        with pytest.raises(InputError, match="give a run with memory"):
            tour.journey(record)


IDS = (11, 12, 17, 74, 78, 79, 80)
MINI = {"frames": 8, "side": 64, "channels": 128, "width": 64, "grid": 4, "span": 12, "persons": 3}
PAPER = dict(zip(MINI, (32, 256, 2048, 512, 7, 30, 5), strict=True))
FIGURES = {
    "clip": tour.clip,
    "feature map": tour.feature_map,
    "person features": tour.persons,
    "fused": tour.sequences,
    "attention": tour.attention,
    "memory": tour.attention_timeline,
    "scores": tour.scores,
}


@pytest.fixture(params=[MINI, PAPER], ids=["mini", "paper"])
def drawn(request) -> tour.Journey:
    """Random tensors of a scale's sizes."""
    n = request.param
    torch.manual_seed(0)
    rows, columns, grid = n["side"] // 16, n["side"] // 16 * 3 // 2, n["grid"]
    seconds = [s for s in range(-n["span"], n["span"] + 1) if s for _ in range(n["persons"])]
    M = len(seconds)
    actions = np.zeros((3, len(IDS)), bool)
    actions[0, [0, 2, 4]], actions[1, [1, 5]] = True, True
    boxes = np.array([[0.02, 0.0, 0.2, 0.9], [0.4, 0.2, 0.5, 0.8], [0.6, 0.7, 1.0, 1.0]])
    return tour.Journey(
        title="ava: a, 902 s",
        times=(np.arange(n["frames"]) - n["frames"] // 2) / 15,
        frames=np.zeros((n["frames"], n["side"], n["side"] * 3 // 2, 3), np.uint8),
        boxes=boxes,
        boxes_N4=torch.from_numpy(boxes).float(),
        places=Places.of(torch.tensor([3])),
        ids=IDS,
        actions=actions,
        person=1,
        memory=MemoryTokens(
            tokens_BMLC=torch.rand(1, M, 4, n["width"]),
            mask_BM=torch.ones(1, M, dtype=torch.bool),
            seconds_BM=torch.tensor([seconds]),
            boxes_BM4=torch.tensor([0.1, 0.1, 0.3, 0.9]).repeat(1, M, 1),
        ),
        same_S=np.arange(3 + M) % n["persons"] == 1,
        pictures={second: np.zeros((80, 120, 3), np.uint8) for second in {0, *seconds}},
        head=None,
        loss=ActionLoss(),
        map_BCTHW=torch.rand(1, n["channels"], 4, rows, columns),
        persons_NCThw=torch.randn(3, n["width"], 4, grid, grid),
        scene_BCThw=torch.randn(1, n["width"], 4, grid, grid),
        fused_NCThw=torch.rand(3, n["width"], 4, grid, grid),
        attention_NLES=torch.rand(3, 4, 8, 3 + M).softmax(dim=-1),
        logits_NA=torch.randn(3, len(IDS)),
    )


@pytest.mark.parametrize("name", FIGURES)
def test_figures_name_their_tensor_and_have_room_for_their_words(drawn, name):
    figure = FIGURES[name](drawn)
    require_readable(figure, most_bytes=90_000)
    ticks = {tick for axes in figure.axes for tick in axes.get_yticklabels()}
    require_apart([text for text in texts(figure) if text not in ticks], least=2)
    shape = {
        "clip": drawn.frames.shape,
        "feature map": drawn.map_BCTHW.shape[1:],
        "person features": drawn.persons_NCThw.shape,
        "fused": drawn.fused_NCThw.shape,
        "attention": drawn.attention_NLES.shape,
        "memory": drawn.memory.tokens_BMLC.shape[1:],
        "scores": drawn.logits_NA.shape,
    }[name]
    assert f"{name}: {' × '.join(map(str, shape))}" in words(figure)


def test_attention_that_is_drawn_sums_to_all_of_it(drawn):
    """A person's panel and the line below it name shares that make 100 %, up to rounding."""
    for person, axes in enumerate(tour.attention(drawn).axes):
        shares = [text.get_text().split()[-2] for text in axes.texts if "%" in text.get_text()]
        expected = 100 * drawn.attention[person]
        assert list(map(int, shares)) == expected[:3].round().astype(int).tolist()
        assert axes.get_xlabel().endswith(f": {expected[3:].sum():.0f} %")


def test_bars_of_the_timeline_are_the_persons_attention(drawn):
    figure = tour.attention_timeline(drawn)
    bars = figure.axes[1].patches
    seconds = sorted(drawn.pictures)
    itself, others = bars[: len(seconds)], bars[len(seconds) :]
    assert sum(bar.get_height() for bar in bars) == pytest.approx(100, abs=1e-3)
    shares = 100 * drawn.attention[drawn.person]
    total = shares[drawn.same_S].sum()
    assert sum(bar.get_height() for bar in itself) == pytest.approx(total)
    now = seconds.index(0)
    here = itself[now].get_height() + others[now].get_height()
    assert here == pytest.approx(shares[:3].sum(), abs=1e-3)
    assert {f"the person itself {total:.0f} %", f"others {100 - total:.0f} %"} <= words(figure)
    assert "now" in [tick.get_text() for tick in figure.axes[1].get_xticklabels()]


def test_scores_are_sorted_and_true_ones_are_marked(drawn):
    for person, axes in enumerate(tour.scores(drawn).axes[3:]):
        scores_A = drawn.logits_NA[person].sigmoid()
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == pytest.approx(sorted(scores_A.tolist())[:-7:-1])
        marked = [text.get_text() for text in axes.texts if "✓" in text.get_text()]
        best = np.argsort(-scores_A.numpy())[:6]
        assert len(marked) == drawn.actions[person, best].sum()


def test_the_overview_is_the_readmes_figure():
    assert "<svg" in tour.overview().data
    readme = published_dir("paper").parents[1] / "README.md"
    assert 'src="results/pipeline.svg"' in readme.read_text()

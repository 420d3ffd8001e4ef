"""Figures of the tour: at every scale's sizes nothing is cut off, and numbers are the tensors'."""

from __future__ import annotations

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text

from stadlib.models.heads import MemoryTokens
from stadlib.report import pipeline, tour
from stadlib.report.tour import Journey, Walk

IDS = (11, 12, 17, 74, 78, 79, 80)
MINI = {"frames": 8, "side": 64, "channels": 128, "width": 64, "grid": 4, "span": 12, "persons": 3}
PAPER = {
    "frames": 32, "side": 256, "channels": 2048, "width": 512, "grid": 7, "span": 30, "persons": 5,
}  # fmt: skip
FIGURES = (
    tour.clip,
    tour.feature_map,
    tour.persons,
    tour.sequences,
    tour.attention,
    tour.remembered,
    tour.scores,
)


@pytest.fixture(params=[MINI, PAPER], ids=["mini", "paper"])
def journey(request) -> Journey:
    """Random tensors of a scale's sizes."""
    n = request.param
    torch.manual_seed(0)
    rows, columns, grid = n["side"] // 16, n["side"] // 16 * 3 // 2, n["grid"]
    seconds = [s for s in range(-n["span"], n["span"] + 1) if s for _ in range(n["persons"])]
    M, E = len(seconds), 8
    fused = torch.rand(3, n["width"], 4, grid, grid)
    boxes = np.array([[0.02, 0.0, 0.2, 0.9], [0.4, 0.2, 0.5, 0.8], [0.6, 0.7, 1.0, 1.0]])
    actions = np.zeros((3, len(IDS)), bool)
    actions[0, [0, 2, 4]], actions[1, [1, 5]] = True, True
    memory = MemoryTokens(
        tokens_BMLC=torch.rand(1, M, 4, n["width"]),
        mask_BM=torch.ones(1, M, dtype=torch.bool),
        seconds_BM=torch.tensor([seconds]),
        boxes_BM4=torch.tensor([0.1, 0.1, 0.3, 0.9]).repeat(1, M, 1),
    )
    return Journey(
        title="ava: a, 902 s",
        times=(np.arange(n["frames"]) - n["frames"] // 2) / 15,
        frames=np.zeros((n["frames"], n["side"], n["side"] * 3 // 2, 3), np.uint8),
        boxes=boxes,
        ids=IDS,
        actions=actions,
        walk=Walk(
            map_BCTHW=torch.rand(1, n["channels"], 4, rows, columns),
            persons_NCThw=torch.randn(3, n["width"], 4, grid, grid),
            scene_BCThw=torch.randn(1, n["width"], 4, grid, grid),
            fused_NCThw=fused,
            s_only_NLC=fused.mean(dim=2).flatten(2).transpose(1, 2),
            t_only_NLC=fused.mean(dim=(3, 4)).transpose(1, 2),
            attention_NLES=torch.rand(3, 4, E, 3 + M).softmax(dim=-1),
            scores_NA=torch.rand(3, len(IDS)),
        ),
        memory=memory,
        recalled={second: np.zeros((80, 120, 3), np.uint8) for second in seconds},
    )


def texts(figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def require_room(figure) -> None:
    """Every text is inside the figure, and none lies on another."""
    figure.draw_without_rendering()
    assert figure.get_size_inches()[0] == 7
    extents = {text: text.get_window_extent() for text in texts(figure)}
    for text, extent in extents.items():
        inside = extent.x0 >= 0 and extent.y0 >= 0
        inside &= extent.x1 <= figure.bbox.x1 and extent.y1 <= figure.bbox.y1
        assert inside, f"{text.get_text()!r} is cut off"
    for (one, a), (other, b) in combinations(extents.items(), 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(wide, high) < 2, f"{one.get_text()!r} lies on {other.get_text()!r}"


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_figures_have_room_for_their_words(journey, draw):
    figure = draw(journey)
    assert not plt.get_fignums()
    require_room(figure)


def test_headings_are_the_tensors_shapes(journey):
    words = {text.get_text() for draw in FIGURES for text in texts(draw(journey))}
    n = journey.walk
    for name, shape in {
        "clip": journey.frames.shape,
        "boxes": (3, 4),
        "feature map": n.map_BCTHW.shape[1:],
        "person features": n.persons_NCThw.shape,
        "fused": n.fused_NCThw.shape,
        "S-only": n.s_only_NLC.shape,
        "T-only": n.t_only_NLC.shape,
        "attention": n.attention_NLES.shape,
        "memory": journey.memory.tokens_BMLC.shape[1:],
        "scores": n.scores_NA.shape,
    }.items():
        assert f"{name}: {' × '.join(map(str, shape))}" in words


def test_attention_that_is_drawn_sums_to_all_of_it(journey):
    """A person's panel and the line below it name shares that make 100 %, up to rounding."""
    figure = tour.attention(journey)
    lines = [text.get_text() for text in figure.texts if "remembered" in text.get_text()]
    assert len(lines) == len(figure.axes) == 3
    for axes, line in zip(figure.axes, lines, strict=True):
        shares = [text.get_text().split()[-2] for text in axes.texts if "%" in text.get_text()]
        assert len(shares) == 3
        assert sum(map(int, [*shares, line.split()[-2]])) == pytest.approx(100, abs=2)


def test_bars_of_seconds_are_a_persons_attention(journey):
    bars = tour.remembered(journey).axes[-1].patches
    assert sum(bar.get_height() for bar in bars) == pytest.approx(100, abs=1e-3)
    assert len(bars) == 1 + len(journey.recalled)
    now = min(bars, key=lambda bar: abs(bar.get_x() + bar.get_width() / 2))
    here = 100 * journey.attention[journey.related, :3].sum()
    assert now.get_height() == pytest.approx(here, abs=1e-3)


def test_scores_are_sorted_and_true_ones_are_marked(journey):
    figure = tour.scores(journey)
    for person, axes in enumerate(figure.axes[1::2]):
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == sorted(journey.walk.scores_NA[person].tolist(), reverse=True)[:6]
        marked = [text.get_text() for text in axes.texts if "✓" in text.get_text()]
        best = np.argsort(-journey.walk.scores_NA[person].numpy())[:6]
        assert len(marked) == journey.actions[person, best].sum()


def test_the_pipeline_is_the_readmes():
    require_room(pipeline.pipeline())
    drawn, committed = pipeline.svg(), pipeline.SVG.read_text()
    assert drawn == pipeline.svg()
    readme = pipeline.SVG.parents[1] / "README.md"
    assert "](results/pipeline.svg)" in readme.read_text()
    # Matplotlib names every text in a comment; coordinates may differ with its version.
    assert _comments(drawn) == _comments(committed), "run: stadlib readme"


def _comments(svg: str) -> list[str]:
    return [part.split("-->")[0].strip() for part in svg.split("<!--")[1:]]

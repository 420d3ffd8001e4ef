"""The tables' rows are the paper's, and a scale changes numbers only."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from stadlib import recipes
from stadlib.base import ConfigError, published_dir
from stadlib.recipes.experiment import Experiment
from stadlib.recipes.scales import SCALES


def test_table1_has_the_rows_of_the_paper_in_its_order():
    paper = pd.read_csv(published_dir("paper") / "table1.csv", keep_default_na=False)
    rows = [(e.backbone.lower(), e.pretrain, e.frames, e.head, e.memory) for e in recipes.table1()]
    written = [
        (r.backbone.lower(), r.pretrain, r.input, r.head.lower(), r.memory == "yes")
        for r in paper.itertuples()
        if r.backbone != "ensemble"
    ]
    assert rows == written
    assert len(rows) == 14


def test_words_select_rows():
    rows = recipes.table1(backbone="ir-csn-152", pretrain="K700", frames="32x2", head="all")
    heads = [("linear", False), ("s-only", False), ("t-only", False), ("t-only", True)]
    assert [(row.head, row.memory) for row in rows] == heads
    assert recipes.at(Experiment(detector="v3"), "mini") in rows


def test_table2_is_three_sequences_of_stages():
    paper = pd.read_csv(published_dir("paper") / "table2.csv", keep_default_na=False, dtype=str)
    rows = recipes.table2(scale="paper")
    assert [row.backbone for row in rows.values()] == ["slowfast-152"] * 3
    for row, (_, words) in zip(rows.values(), paper.iterrows(), strict=True):
        first, second = row.stages
        assert first.data == (("ava",) if words["stage1_data"] == "A" else ("ava", "kinetics"))
        assert ("ava" in first.memory) == (words["stage1_memory_ava"] == "yes")
        assert ("kinetics" in first.memory) == (words["stage1_memory_kinetics"] == "yes")
        assert second.data == second.memory == ("ava", "kinetics")
        assert (second.start == "previous") == (words["finetune"] == "yes")
        assert second.train == "head"
        assert (row.span, row.remembered) == (30, 5)


def test_tables_2_and_3_are_on_the_papers_boxes_and_take_the_words_of_table_1():
    """Row 3 of the paper's Table 2 is a row of its Table 1."""
    best = recipes.table2(scale="paper")["A+K first, empty Kinetics bank"]
    words = {"backbone": "slowfast-152", "frames": "8x8+32x2", "memory": "yes", "head": "t-only"}
    assert recipes.table1(scale="paper", **words) == (best,)
    rows = recipes.table3(frames="64x1", pretrain="K400", detector="v1")
    assert {(r.frames, r.pretrain, r.detector) for r in rows.values()} == {("64x1", "K400", "v1")}
    assert {row.detector for row in recipes.table3().values()} == {"v3"}


def test_what_the_paper_leaves_open_differs_in_one_field():
    rows = recipes.choices_compared()
    for field, (own, *others) in (recipes.CHOICES | recipes.MEMORY_CHOICES).items():
        for word in others:
            here, there = rows[field, own].to_dict(), rows[field, word].to_dict()
            differ = {name for name in here | there if here.get(name) != there.get(name)}
            memory = {"stages", "span", "remembered"}
            expected = {"memory": memory, "views": {"stages"}}.get(field, {field})
            assert differ == expected, (field, word)
    table1 = recipes.table1(detector="ground-truth", memory="no")
    assert {rows["fusion", "tiled"], rows["linear", "raw"]} <= {*table1}
    plain = recipes.table2(backbone="ir-csn-152", detector="ground-truth")["A+K first, new head"]
    assert rows["recall", "none"] == rows["own_second", False] == rows["views", 1] == plain


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ({"head": "tonly"}, "choose from linear, s-only, t-only, all"),
        ({"backbone": "slowfast-101"}, "choose from slowfast-152 K700"),
        ({"scale": "huge"}, "scale='huge'; choose from smoke, mini, paper"),
    ],
)
def test_unknown_words_are_answered_with_choices(words, answer):
    with pytest.raises(ConfigError, match=answer):
        recipes.table1(**words)


def test_paper_scale_is_the_papers_recipe_and_another_scale_keeps_every_word():
    for paper, mini in zip(recipes.table1(scale="paper"), recipes.table1(), strict=True):
        first = paper.stages[0]
        assert (first.iterations, first.batch, first.lr) == (30_000, 64, 1e-2)
        assert first.weight_decay == 1e-7 and paper.scales == (256, 288, 320) and paper.flip
        same = replace(mini, scale="paper", scales=paper.scales, stages=paper.stages)
        assert same == paper == recipes.at(mini, "paper")
        assert mini.stages[0].start == SCALES["mini"].start == "features"
        assert mini.stages[0].iterations == 3_000  # of a stage on features
        whole = recipes.started(mini, "pretrained")
        assert whole.stages[0].iterations == SCALES["mini"].iterations
        assert recipes.started(whole, "features") == mini


def test_table_four_is_one_trained_model_on_four_sets_of_boxes():
    rows = recipes.table4(seed=2)
    assert list(rows) == ["v1", "v2", "v3", "ground-truth"]
    assert rows["v3"] in recipes.table1(seed=2)
    assert len({row.stage_digest(1) for row in rows.values()}) == 1
    assert len({row.digest for row in rows.values()}) == 4


def test_other_uses_of_boxes_differ_in_nothing_else():
    row = recipes.table4()["v3"]
    uses = recipes.box_uses()
    assert {replace(use, detections=row.detections) for use in uses.values()} == {row}
    trained = [name for name, use in uses.items() if use.stage_digest(1) != row.stage_digest(1)]
    assert trained == ["trained on both"]


def test_an_ensemble_has_fifteen_different_members():
    members = recipes.ensemble1(seed=3)
    assert len({member.digest for member in members}) == 15
    assert [member.seed for member in members] == [3] * 14 + [4]

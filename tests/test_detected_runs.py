"""Whole runs on detected boxes at smoke scale, whose detector finds little but not nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stadlib import recipes, study
from stadlib.base import Progress
from stadlib.data.boxes import read_person_boxes
from stadlib.data.rows import COLUMNS, read_rows
from stadlib.recipes.experiment import Detections
from stadlib.training import stages
from stadlib.training.bank import FeatureBank

LOW = Detections(threshold=0.05)
ROW = replace(recipes.table4(scale="smoke")["v3"], detections=LOW)
BOX = ["video", "timestamp", "x1", "y1", "x2", "y2"]


def boxes_of(record, source: str = "ava") -> pd.DataFrame:
    """Those of a detection file, a row a person with the scores of all actions."""
    rows = read_rows(record.folder / f"detections_{source}.csv").astype({"video": str})
    assert list(rows.columns) == list(COLUMNS)
    return rows.pivot_table("score", BOX, "action_id", observed=True)


@pytest.fixture(scope="module")
def found():
    return study.run(ROW)


def test_every_box_of_an_annotated_moment_is_scored_and_no_other(found):
    run = stages.open_run(ROW, found.folder, Progress)
    wanted = sum(len(k.boxes) for k in stages.scored_keyframes(run) if k.source == "ava")
    path = run.layout.person_boxes(ROW.boxes_name, "ava", "val")
    everywhere = read_person_boxes(path)
    assert 0 < len(boxes_of(found)) == wanted < len(everywhere)


def test_a_higher_threshold_leaves_out_the_lower_boxes_and_keeps_the_others(found):
    scores = read_person_boxes(
        stages.open_run(ROW, found.folder, Progress).layout.person_boxes(
            ROW.boxes_name, "ava", "val"
        )
    )["score"]
    middle = float(scores.median())
    fewer = study.run(replace(ROW, detections=replace(LOW, threshold=middle)))
    less, more = boxes_of(fewer).index, boxes_of(found).index
    assert 0 < len(less) < len(more)
    assert set(less) < set(more)


def test_product_multiplies_the_score_of_the_box_into_those_of_its_actions(found):
    times = study.run(replace(ROW, detections=replace(LOW, product=True)))
    ratio = (boxes_of(times) / boxes_of(found)).to_numpy()
    assert np.allclose(ratio, ratio[:, :1], rtol=1e-3), "one factor a box"
    assert ratio.max() < 1 and ratio.min() >= 0.05 - 1e-3


def test_extended_boxes_are_seen_larger_and_written_as_they_were(found):
    larger = study.run(replace(ROW, detections=replace(LOW, extend=(0.3, 0.3))))
    mine, theirs = boxes_of(larger), boxes_of(found)
    assert mine.index.equals(theirs.index)
    assert not np.allclose(mine.to_numpy(), theirs.to_numpy())


def test_memory_of_a_detector_holds_nobody_whom_it_did_not_find():
    (row,) = recipes.table1(
        scale="smoke", head="t-only", backbone="ir-csn-152", pretrain="K700", frames="32x2",
        memory="yes",
    )  # fmt: skip
    row = replace(row, detections=LOW)
    record = study.run(row)
    run = stages.open_run(row, record.folder, Progress)
    banks = list((study.stage_folder(row, 1) / "banks").glob(f"ava_val_{row.boxes_name}*"))
    (bank,) = [FeatureBank(folder) for folder in banks if "-flipped" not in folder.name]
    boxes = read_person_boxes(run.layout.person_boxes(row.boxes_name, "ava", "val"))
    assert bank.num_written == (boxes["score"] >= LOW.threshold).sum() > 0

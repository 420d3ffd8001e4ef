"""Scores are means over views, files hold them, A+K is one joint evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from stadlib import recipes, study
from stadlib.base import Progress
from stadlib.data.boxes import read_person_boxes
from stadlib.data.clips import Batch
from stadlib.data.layout import LABEL_MAP_FILE, AvaLayout, LabelMap, write_label_map
from stadlib.data.rows import COLUMNS, read_rows
from stadlib.models.action_detector import ActionLoss
from stadlib.models.heads import no_memory
from stadlib.recipes.experiment import Detections
from stadlib.training import predictions, stages
from stadlib.training.bank import WRITTEN, FeatureBank

LABELS = LabelMap({4: "dance", 12: "stand"})


class Brightness(torch.nn.Module):
    """Stands for a detector: a person's logits are the clip's brightness, and its negative."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.01))

    def forward(self, clips, boxes, counts, sizes, boxes_norm, memory):
        bright = clips.float().mean(dim=(1, 2, 3, 4)).repeat_interleave(counts) * self.scale
        return torch.stack((bright, -bright), dim=1), bright


def view(*levels: int) -> Batch:
    clips = torch.stack([torch.full((3, 2, 8, 8), level, dtype=torch.uint8) for level in levels])
    return Batch(
        clips_BCTHW=clips,
        boxes_N4=torch.zeros(3, 4),
        counts_B=torch.tensor([2, 0, 1]),
        actions_NA=torch.zeros(3, 2),
        boxes_norm_N4=torch.tensor([[0.1, 0.2, 0.5, 0.9], [0.5, 0.2, 0.9, 0.9], [0, 0, 1, 1]]),
        sizes=[(8, 8)] * 3,
        keys=[("ava", "a", 902.0), ("ava", "b", 903.0), ("kinetics", "c", 5.016949)],
    )


def score(*views: Batch) -> pd.DataFrame:
    nothing = lambda keys: no_memory(len(keys), 1)  # noqa: E731
    return predictions.score_persons(Brightness(), [list(views)], ActionLoss(), nothing, LABELS)


def test_scores_are_the_mean_of_the_views():
    one, other = score(view(10, 20, 30)), score(view(200, 100, 60))
    both = score(view(10, 20, 30), view(200, 100, 60))
    assert both["score"].tolist() == pytest.approx(((one["score"] + other["score"]) / 2).tolist())
    assert not one["score"].equals(other["score"])


def test_a_row_is_a_box_and_an_action_and_a_file_gives_it_back(tmp_path):
    rows = score(view(10, 20, 30))
    assert rows["action_id"].tolist() == [4, 12] * 3
    assert rows["source"].tolist() == ["ava"] * 4 + ["kinetics"] * 2
    assert rows["video"].tolist() == ["a"] * 4 + ["c"] * 2
    first = torch.sigmoid(torch.tensor(0.1)).item()
    assert rows["score"][:2].tolist() == pytest.approx([first, 1 - first])
    predictions.write_detections(rows, tmp_path / "detections.csv")
    back = read_rows(tmp_path / "detections.csv")
    for column in ("x1", "y1", "x2", "y2", "timestamp", "score"):
        assert back[column].astype(float).tolist() == pytest.approx(rows[column].tolist(), abs=1e-6)
    assert back["action_id"].tolist() == rows["action_id"].tolist()


def test_joint_evaluation_is_not_the_mean_of_two(tmp_path):
    """One source scored high and wrong, the other low and right: jointly the wrong come first."""
    layout, box, far = AvaLayout(tmp_path), "0.1,0.1,0.4,0.4", "0.6,0.6,0.9,0.9"
    (tmp_path / "annotations").mkdir()
    write_label_map(tmp_path / "annotations" / LABEL_MAP_FILE, LABELS)
    predicted = {
        "ava": f"ava,1,{far},4,0.9\nava,1,{box},4,0.8\n",
        "kinetics": f"kinetics,1,{box},4,0.1\n",
    }
    files = {}
    for source, text in predicted.items():
        layout.annotations(source, "val").write_text(f"{source},1,{box},4\n")
        files[source] = tmp_path / f"{source}.csv"
        files[source].write_text(text)
    maps = predictions.measure(layout, files, "val")
    assert maps["ava"]["mAP"] == pytest.approx(1 / 2)
    assert maps["kinetics"]["mAP"] == 1
    assert maps["ava+kinetics"]["mAP"] == pytest.approx(2 / 3)
    assert maps["ava"]["AP"]["12"] is None
    assert predictions.measure(layout, files, "test") == {}  # nobody annotated it


# ----------------------- whole runs on found boxes at smoke scale, whose detector finds little

LOW = Detections(threshold=0.05)
ROW = replace(recipes.table4(scale="smoke")["v3"], detections=LOW)
PERSON = ["video", "timestamp", "x1", "y1", "x2", "y2"]


def boxes_of(record, source: str = "ava") -> pd.DataFrame:
    """Those of a predictions file, a row a person with the scores of all actions."""
    rows = read_rows(record.folder / f"detections_{source}.csv").astype({"video": str})
    assert list(rows.columns) == list(COLUMNS)
    return rows.pivot_table("score", PERSON, "action_id", observed=True)


def person_boxes(row, record) -> pd.DataFrame:
    layout = stages.open_run(row, record.folder, Progress).layout
    return read_person_boxes(layout.person_boxes(row.boxes_name, "ava", "val"))


@pytest.fixture(scope="module")
def low():
    return study.run(ROW)


def test_every_box_of_an_annotated_moment_is_scored_and_no_other(low):
    run = stages.open_run(ROW, low.folder, Progress)
    wanted = sum(len(k.boxes) for k in predictions.scored_keyframes(run) if k.source == "ava")
    assert 0 < len(boxes_of(low)) == wanted < len(person_boxes(ROW, low))


def test_a_higher_threshold_leaves_out_the_lower_boxes_and_keeps_the_others(low):
    middle = float(person_boxes(ROW, low)["score"].median())
    fewer = study.run(replace(ROW, detections=replace(LOW, threshold=middle)))
    less, more = boxes_of(fewer).index, boxes_of(low).index
    assert 0 < len(less) < len(more)
    assert set(less) < set(more)


def test_product_multiplies_the_score_of_the_box_into_those_of_its_actions(low):
    times = study.run(replace(ROW, detections=replace(LOW, product=True)))
    ratio = (boxes_of(times) / boxes_of(low)).to_numpy()
    assert np.allclose(ratio, ratio[:, :1], rtol=1e-3), "one factor a box"
    assert ratio.max() < 1 and ratio.min() >= 0.05 - 1e-3


def test_extended_boxes_are_seen_larger_and_written_as_they_were(low):
    larger = study.run(replace(ROW, detections=replace(LOW, extend=(0.3, 0.3))))
    mine, theirs = boxes_of(larger), boxes_of(low)
    assert mine.index.equals(theirs.index)
    assert not np.allclose(mine.to_numpy(), theirs.to_numpy())


def test_memory_of_a_detector_holds_nobody_whom_it_did_not_find():
    (row,) = recipes.table1(
        scale="smoke", head="t-only", backbone="ir-csn-152", pretrain="K700", frames="32x2",
        memory="yes",
    )  # fmt: skip
    row = replace(row, detections=LOW)
    record = study.run(row)
    folders = list((study.stage_folder(row, 1) / "banks").glob(f"ava_val_{row.boxes_name}*"))
    (bank,) = [FeatureBank(folder) for folder in folders if "-flipped" not in folder.name]
    sure = person_boxes(row, record)["score"] >= LOW.threshold
    assert (bank.states == WRITTEN).sum() == sure.sum() > 0

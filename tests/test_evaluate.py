"""Scores are means over views, files hold them, and A+K is one joint evaluation."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from stadlib.data.clips import Batch
from stadlib.data.labels import LabelMap
from stadlib.data.rows import read_rows
from stadlib.models.heads import no_memory
from stadlib.training import stages

LABELS = LabelMap({4: "dance", 12: "stand"})


class Brightness(torch.nn.Module):
    """Stands for a detector: a person's logits are the clip's brightness, and its negative."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.01))

    def forward(self, clips, boxes, counts, places, memory):
        bright = clips.float().mean(dim=(1, 2, 3, 4)).repeat_interleave(counts) * self.scale
        return torch.stack((bright, -bright), dim=1)


def view(*levels: int) -> Batch:
    clips = torch.stack([torch.full((3, 2, 8, 8), level, dtype=torch.uint8) for level in levels])
    return Batch(
        clips_BCTHW=clips,
        boxes_N4=torch.zeros(3, 4),
        counts_B=torch.tensor([2, 0, 1]),
        actions_NA=torch.zeros(3, 2),
        boxes_norm_N4=torch.tensor([[0.1, 0.2, 0.5, 0.9], [0.5, 0.2, 0.9, 0.9], [0, 0, 1, 1]]),
        keys=[("ava", "a", 902.0), ("ava", "b", 903.0), ("kinetics", "c", 5.016949)],
        person_ids_N=torch.zeros(3, dtype=torch.int64),
    )


def score(*views: Batch) -> pd.DataFrame:
    return stages.score_persons(
        Brightness(),
        [list(views)],
        lambda keys: no_memory(len(keys), 1),
        LABELS,
        total=3,
        progress=lambda *_: None,
    )


def test_scores_are_the_mean_of_the_views():
    one, other = score(view(10, 20, 30)), score(view(200, 100, 60))
    both = score(view(10, 20, 30), view(200, 100, 60))
    assert both["score"].tolist() == pytest.approx(((one["score"] + other["score"]) / 2).tolist())
    assert not one["score"].equals(other["score"])


def test_a_row_is_a_box_and_an_action():
    rows = score(view(10, 20, 30))
    assert rows["action_id"].tolist() == [4, 12] * 3
    assert rows["source"].tolist() == ["ava"] * 4 + ["kinetics"] * 2
    assert rows["video"].tolist() == ["a"] * 4 + ["c"] * 2
    first = torch.sigmoid(torch.tensor(0.1)).item()
    assert rows["score"][0] == pytest.approx(first)
    assert rows["score"][1] == pytest.approx(1 - first)


def test_a_detection_file_gives_back_what_was_scored(tmp_path):
    rows = score(view(10, 20, 30))
    stages.write_detections(rows, tmp_path / "detections.csv")
    back = read_rows(tmp_path / "detections.csv")
    for column in ("x1", "y1", "x2", "y2", "timestamp", "score"):
        assert back[column].astype(float).tolist() == pytest.approx(rows[column].tolist(), abs=1e-6)
    assert back["action_id"].tolist() == rows["action_id"].tolist()


def test_joint_evaluation_is_not_the_mean_of_two(tmp_path):
    """One source scored high and wrong, the other low and right: jointly the wrong come first."""
    names = ["video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score"]
    box, far = [0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9]
    truth = {s: pd.DataFrame([[s, 1.0, *box, 4, 1.0]], columns=names) for s in ("ava", "kinetics")}
    found = {
        "ava": [["ava", 1.0, *far, 4, 0.9], ["ava", 1.0, *box, 4, 0.8]],
        "kinetics": [["kinetics", 1.0, *box, 4, 0.1]],
    }
    files = {}
    for source, rows in found.items():
        files[source] = tmp_path / f"{source}.csv"
        pd.DataFrame(rows).to_csv(files[source], header=False, index=False)
    maps = stages.frame_maps(truth, files, LABELS)
    assert maps["ava"]["mAP"] == pytest.approx(1 / 2)
    assert maps["kinetics"]["mAP"] == 1
    assert maps["ava+kinetics"]["mAP"] == pytest.approx(2 / 3)
    assert maps["ava"]["AP"]["12"] is None

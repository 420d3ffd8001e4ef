"""A video watched by an untrained model: all files, the same ones after an interruption."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn

from stadlib import build, predict, recipes
from stadlib.__main__ import main
from stadlib.config import ConfigError, InputError
from stadlib.data.video import write_video
from stadlib.labels import AVA_ACTIONS, LabelMap
from stadlib.models.gfocal import PERSON

WORDS = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "head": "t-only"}


class Everywhere(nn.Module):
    """Finds the same two persons in every picture, or nobody."""

    def __init__(self, boxes: list[list[float]]) -> None:
        super().__init__()
        self.boxes = nn.Parameter(torch.tensor(boxes).reshape(-1, 4))

    def forward(self, images):
        count = len(self.boxes)
        labels = torch.full((count,), PERSON)
        return [
            {
                "boxes": self.boxes * torch.tensor([*image.shape[:0:-1]] * 2),
                "scores": torch.linspace(0.9, 0.8, count),
                "labels": labels,
            }
            for image in images
        ]


def networks(persons: bool = True, span: int = 2):
    """An untrained model of the smoke scale that remembers two seconds."""
    from stadlib.own_video.scorer import Networks

    (row,) = recipes.table1(scale="smoke", memory="no", **WORDS)
    torch.manual_seed(0)
    labels = LabelMap(AVA_ACTIONS)
    boxes = [[0.1, 0.2, 0.4, 0.9], [0.5, 0.2, 0.9, 0.9]] if persons else []
    return Networks(
        detector=Everywhere(boxes),
        threshold=0.5,
        model=build.action_detector(row, labels.num_actions),
        labels=labels,
        sampling=build.sampling(row),
        view=build.memory_view(row),
        multiple=build.numbers(row).pad_multiple,
        span=span,
        remembered=4,
        made_by={"model": "untrained"},
        warning="MINIATURE MODEL ON REAL VIDEO",
    )


def silent(title: str):
    return lambda *_: None


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "film.mp4"
    rng = np.random.default_rng(0)
    write_video(path, rng.integers(0, 255, (32, 48, 64, 3), np.uint8), fps=8)
    return path


@pytest.fixture(scope="module")
def found(video, tmp_path_factory):
    return predict.watch(video, networks(), out=tmp_path_factory.mktemp("whole"), progress=silent)


def test_every_file_is_there_and_the_video_has_all_frames(found):
    for name in ("contact_sheet.png", "time_line.png", "tracks.csv", "seconds.jsonl"):
        assert (found.folder / name).stat().st_size > 0
    with av.open(str(found.annotated)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in container.decode(video=0)) == 32
    rows = list(csv.reader(found.detections.read_text().splitlines()))
    assert len(rows) == 4 * 2 * len(AVA_ACTIONS)
    assert {len(row) for row in rows} == {8} and {row[0] for row in rows} == {"film"}
    assert list(found.persons().index) == [1, 2]


def test_resumed_equals_uninterrupted(video, found, tmp_path, monkeypatch):
    from stadlib.own_video.scorer import Scorer

    score = Scorer.__call__

    def killed(self, moment):
        if moment.time >= 2:
            raise KeyboardInterrupt
        return score(self, moment)

    monkeypatch.setattr(Scorer, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        predict.watch(video, networks(), out=tmp_path, progress=silent)
    assert len((tmp_path / "seconds.jsonl.partial").read_text().splitlines()) == 3
    monkeypatch.undo()
    again = predict.watch(video, networks(), out=tmp_path, progress=silent)
    for name in ("seconds.jsonl", "detections.csv", "tracks.csv"):
        assert (again.folder / name).read_bytes() == (found.folder / name).read_bytes()


def test_memory_of_what_came_before_changes_scores(video, found, tmp_path):
    without = predict.watch(video, networks(span=0), out=tmp_path, progress=silent)
    pairs = list(zip(found.sightings, without.sightings, strict=True))
    np.testing.assert_array_equal(pairs[0][0].actions, pairs[0][1].actions)
    assert not np.allclose(pairs[-1][0].actions, pairs[-1][1].actions, atol=1e-6)


def test_nobody_is_found_without_an_error(video, tmp_path, capsys):
    found = predict.watch(video, networks(persons=False), out=tmp_path, progress=silent)
    assert found.detections.read_text() == "" and not len(found.persons())
    assert "MINIATURE MODEL ON REAL VIDEO" in capsys.readouterr().out


def test_mistakes_end_with_one_line(video, tmp_path, capsys):
    with pytest.raises(ConfigError, match="every=0"):
        predict.check_parameters({"video": str(video), "every": 0})
    with pytest.raises(InputError, match=r"none\.mp4"):
        predict.check_parameters({"video": str(tmp_path / "none.mp4"), "every": 1})
    assert main(["predict", str(video), "--weights", "model.pth"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "a backbone alone" in error

"""A video watched by an untrained model: all files, the same ones after an interruption."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pytest
from untrained_networks import WORDS, networks, silent

from stadlib import recipes
from stadlib.base import ConfigError, InputError
from stadlib.cli import main
from stadlib.data.keyframes import Keyframe
from stadlib.data.layout import AVA_ACTIONS, AvaLayout
from stadlib.data.video import write_video
from stadlib.models.heads import no_memory
from stadlib.training import build, predictions
from stadlib.video import predict


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
    with av.open(str(found.folder / "annotated.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in container.decode(video=0)) == 32
    rows = list(csv.reader((found.folder / "detections.csv").read_text().splitlines()))
    assert len(rows) == 4 * 2 * len(AVA_ACTIONS)
    assert {len(row) for row in rows} == {8} and {row[0] for row in rows} == {"film"}
    assert list(found.persons().index) == [1, 2]


def test_resumed_equals_uninterrupted(video, found, tmp_path, monkeypatch):
    from stadlib.video.scorer import Scorer

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
    assert (found.folder / "detections.csv").read_text() == "" and not len(found.persons())
    assert "MINIATURE MODEL ON REAL VIDEO" in capsys.readouterr().out


def test_mistakes_end_with_one_line(video, tmp_path, capsys):
    with pytest.raises(ConfigError, match="every=0"):
        predict.predict(str(video), every=0)
    with pytest.raises(InputError, match=r"none\.mp4"):
        predict.predict(str(tmp_path / "none.mp4"))
    assert main(["predict", str(video), "--weights", "model.pth"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "a backbone alone" in error


def test_scores_are_those_of_the_study_s_evaluation(tiny_dataset, tmp_path):
    """The same persons as keyframes of a dataset: seconds, clips, boxes and scores agree."""
    layout, own = AvaLayout(tiny_dataset), networks(span=0)
    (row,) = recipes.table1(scale="smoke", memory="no", **WORDS)
    found = predict.watch(layout.video_file("ava", "a"), own, out=tmp_path, progress=silent)
    boxes = own.detector.boxes.detach().numpy()
    none = np.zeros((2, own.labels.num_actions), bool)
    keyframes = [
        Keyframe("ava", "a", 900.0 + second, boxes, none, np.array([-1, -1])) for second in range(5)
    ]
    rows = predictions.score_persons(
        own.model,
        build.test_batches(row, layout, keyframes, [own.view]),
        own.loss,
        lambda keys: no_memory(len(keys), own.model.fusion.width),
        own.labels,
        total=5,
        progress=lambda *_: None,
    )
    table = [line.split(",") for line in (found.folder / "detections.csv").read_text().splitlines()]
    table = np.array(table)[:, 1:].astype(float)
    assert (table[:, 0] + 900).tolist() == rows["timestamp"].tolist()
    assert table[:, 5].tolist() == rows["action_id"].tolist()
    np.testing.assert_allclose(table[:, 6], rows["score"], atol=2e-6)
    np.testing.assert_allclose(table[:, 1:5], rows[predictions.BOX], atol=1e-6)

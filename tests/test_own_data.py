"""Training on a dataset of one's own: numbers by its size, and what is said about them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stadlib import recipes, study
from stadlib.base import ConfigError, InputError
from stadlib.cli import main
from stadlib.recipes.scales import SCALES
from stadlib.recipes.tables import FEW, LEAST, PASSES, SMALL, Size, fitted, size_notes
from stadlib.report import beyond
from stadlib.training import pretraining

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "06_your_data.ipynb"


def size(keyframes: int, most: int = 3, **instances: int) -> Size:
    of_split = dict.fromkeys(("train", "val"), instances)
    return Size(dict.fromkeys(("train", "val"), keyframes), of_split, most)


@settings(deadline=None)
@given(keyframes=st.integers(1, 10**6), scale=st.sampled_from(["mini", "paper"]))
def test_a_dataset_is_passed_over_ten_times_within_what_the_scale_trains(keyframes, scale):
    for row in recipes.table1(scale=scale, head="t-only", pretrain="K700", detector="ground-truth"):
        first, *later = fitted(row, size(keyframes)).stages
        most = SCALES[scale].iterations
        assert LEAST <= first.iterations <= most
        if LEAST < first.iterations < most:
            assert abs(first.iterations * first.batch / keyframes - PASSES) <= first.batch
        for before, after in zip(row.stages[1:], later, strict=True):  # lengths keep their ratio
            ratio = first.iterations / most
            assert abs(after.iterations - ratio * before.iterations) <= 0.5
        assert first.start == ("frozen" if keyframes < SMALL else "pretrained")


def test_what_few_keyframes_cannot_show_is_said():
    (row,) = recipes.table1(scale="mini", head="linear", pretrain="K700", backbone="ir-csn-152")
    assert len(size_notes(row, size(5_000, walk=FEW, run=FEW))) == 1
    said = size_notes(row, size(50, most=40, walk=FEW, run=FEW - 1))[1:]
    assert len(said) == 3
    assert all("1 of 2 actions" in line and "run" in line for line in said[:2])
    assert "40 persons" in said[2]


def test_a_frozen_backbone_stays_and_all_else_is_trained(
    tiny_dataset, tmp_path, monkeypatch, capsys, smoke_record
):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    root = shutil.copytree(tiny_dataset, tmp_path / "own")
    (root / "annotations" / "ava_train_v2.2.csv").write_text(
        "a,0902,0.1,0.2,0.5,0.9,12,0\na,0902,0.4,0.1,0.9,0.8,2,1\n"
    )
    words = ["--scale", "smoke", "--data", str(root), "--iterations", "2", "--batch", "1"]
    backbones, heads = {}, {}
    for start in ("frozen", "pretrained"):
        assert main(["train", "--head", "t-only", "--start", start, *words]) == 0
        assert f"2 iterations of 1, lr 0.5, the backbone starts {start}" in capsys.readouterr().out
        (path,) = (
            path
            for path in tmp_path.glob("runs/*/experiment.json")
            if json.loads(path.read_text())["stages"][0]["start"] == start
        )
        row = study.from_dict(json.loads(path.read_text()))
        saved = torch.load(study.stage_folder(row, 1) / "checkpoint.pt", weights_only=True)["model"]
        backbones[start] = {k[9:]: v for k, v in saved.items() if k.startswith("backbone.")}
        heads[start] = {k: v for k, v in saved.items() if k.startswith(("head.", "fusion."))}
    weights, _ = pretraining.pretrained_backbone(row, None)
    weights = {name: w.to(backbones["frozen"][name].dtype) for name, w in weights.items()}
    torch.testing.assert_close(backbones["frozen"], weights, rtol=0, atol=0)
    moved = [not torch.equal(backbones["pretrained"][name], w) for name, w in weights.items()]
    assert any(moved)
    assert any(not torch.equal(heads["pretrained"][n], heads["frozen"][n]) for n in heads["frozen"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tool": "labelme"}, "tool='labelme'; choose from none, cvat, via, coco-video"),
        ({"head": "x-only"}, "head='x-only'"),
        ({"iterations": 3}, "unknown parameter 'iterations'"),
    ],
)
def test_a_wrong_parameter_of_the_notebook_is_refused(change, words):
    given = {"source": "miniature", "tool": "none", "head": "linear", "scale": "smoke"}
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    setup = [cell for cell in notebook.cells if cell.cell_type == "code"][1]
    with pytest.raises(ConfigError, match=re.escape(words)):
        exec(setup.source, given | change)
    with pytest.raises(InputError, match=r"nowhere\.xml: no such file or folder"):
        beyond.dataset("nowhere.xml", "cvat", "smoke")


def test_a_dataset_is_imported_once_and_again_when_its_file_changes(
    tmp_path, monkeypatch, smoke_record, capsys
):
    monkeypatch.setattr(beyond, "imported_dir", lambda: tmp_path / "imported")
    first = beyond.dataset("miniature", "none", "smoke")
    said = capsys.readouterr().out
    assert "12 of 12 videos, 2 of them for validation" in said and str(tmp_path) not in said
    assert beyond.dataset("miniature", "none", "smoke") == first
    assert "videos" not in capsys.readouterr().out
    assert beyond.problems(first) == ["no problem found"]
    changed = json.loads((tmp_path / "imported" / "smoke.json").read_text())
    changed["annotations"] = changed["annotations"][1:]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(changed))
    for video in (first / "videos" / "ava").iterdir():
        shutil.copyfile(video, tmp_path / video.name)
    assert beyond.dataset(str(file), "coco-video", "smoke") != first

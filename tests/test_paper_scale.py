"""The paper's recipe on the paper's networks, end to end, with a handful of iterations.

Minutes on a CPU: these run with ``pytest --very-slow``.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from standin import write_standin

from stadlib import recipes, study
from stadlib.cli import main
from stadlib.data.layout import AVA_ACTIONS, LABEL_MAP_FILE, LabelMap, write_label_map
from stadlib.models.weights import save_backbone
from stadlib.recipes.experiment import Experiment, Stage
from stadlib.training import build

pytestmark = [pytest.mark.slow, pytest.mark.very_slow]


@pytest.fixture
def paper_scale(tmp_path, monkeypatch) -> Path:
    """Folders of data and results of their own, and the one of the data."""
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("STADLIB_SCALE", raising=False)
    return tmp_path / "data"


def pretend_pretrained(experiment: Experiment, data: Path) -> None:
    """Backbone weights where paper scale looks for them; random, of the right network."""
    torch.manual_seed(0)
    name = f"{experiment.backbone}_{experiment.pretrain.lower()}.safetensors"
    save_backbone(build.backbone(experiment), data / "pretrained" / name, pretraining="nothing")


def short(experiment: Experiment) -> Experiment:
    """The experiment's stages with two iterations each, and a decoupled one behind them."""
    stages = [replace(stage, iterations=2, batch=2) for stage in experiment.stages]
    # Four of sixty actions occur here, and the class-balanced sampler refuses the others.
    last = replace(recipes.DECOUPLED, sampler="repeat-factor", memory=stages[-1].memory)
    last = replace(last, iterations=2, batch=2)
    return replace(experiment, stages=(*stages, last))


def run(*words: str) -> None:
    assert main(list(words)) == 0, words


def test_from_videos_to_a_submission(paper_scale, tmp_path, capfd):
    raw, data = write_standin(tmp_path / "raw"), paper_scale / "ava-kinetics"
    run("prepare", "ava-kinetics", "--root", str(raw), "--reencode", str(data))
    shutil.copytree(raw / "boxes", data / "boxes", dirs_exist_ok=True)
    run("check", str(data))
    words = {"detector": "v3", "span": 30, "remembered": 5, "stages": recipes.WITH_MEMORY}
    members = [
        Experiment(backbone="slowfast-101", frames="8x8+32x2", **words),
        Experiment(backbone="ir-csn-152", frames="32x2", **words),
    ]
    # A processor that cannot compute in bfloat16 takes ten times as long to pretend that it can.
    half = "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
    ways = (("--accumulate", "2"), ("--precision", half, "--recompute", "yes"))
    files: dict[str, list[str]] = {"ava": [], "kinetics": []}
    for member, way in zip(map(short, members), ways, strict=True):
        pretend_pretrained(member, paper_scale)
        run("train", "--experiment", json.dumps(member.to_dict()), *way)
        folder = study.run_folder(member)
        assert set(study.find(member).metrics) == {"ava", "kinetics", "ava+kinetics"}
        run("score", str(folder), "--split", "test")
        for source, found in files.items():
            found.append(str(folder / f"detections_{source}_test.csv"))
    for source, found in files.items():
        run("ensemble", *found, "--out", str(tmp_path / f"{source}.csv"))
    out, labels = tmp_path / "submission.csv", data / "annotations" / LABEL_MAP_FILE
    means = [str(tmp_path / f"{source}.csv") for source in files]
    run("submit", "--detections", *means, "--labels", str(labels), "--out", str(out))
    capfd.readouterr()
    run("submit", "--check", str(out), "--data", str(data), "--split", "test")
    assert "no problem found" in capfd.readouterr().out
    rows = pd.read_csv(out, header=None)
    assert set(rows[0]) == {"testmovie01", "testclip_1-"}
    assert rows[7].between(0, 1).all()


def test_real_footage(shared, paper_scale, tmp_path, capfd):
    """Three real clips as a dataset of one's own: one iteration, evaluation, submission."""
    data = tmp_path / "own"
    (data / "annotations").mkdir(parents=True)
    write_label_map(data / "annotations" / LABEL_MAP_FILE, LabelMap(AVA_ACTIONS))
    (data / "videos/ava").mkdir(parents=True)
    for name in ("arm_wrestling", "fencing", "salsa_spin"):
        shutil.copyfile(shared / "data/videos" / f"{name}.mp4", data / "videos/ava" / f"{name}.mp4")
    fencing, salsa = (
        pd.read_csv(shared / "data/videos" / f"{name}.boxes.csv")
        for name in ("fencing", "salsa_spin")
    )
    write_rows(data / "annotations/ava_train_v2.2.csv", fencing, seconds=(2, 3))
    write_rows(data / "annotations/ava_val_v2.2.csv", salsa, seconds=(2,))
    with open(data / "annotations/ava_train_v2.2.csv", "a") as file:
        file.write(
            "arm_wrestling,5,0.02,0.1,0.5,0.98,64,0\narm_wrestling,5,0.5,0.1,0.98,0.98,64,1\n"
        )
    run("check", str(data))
    experiment = Experiment(
        backbone="slowfast-101",
        frames="8x8+32x2",
        dataset=str(data),
        stages=(Stage(data=("ava",), iterations=1, batch=2),),
        scales=(256,),
    )
    pretend_pretrained(experiment, paper_scale)
    run("train", "--experiment", json.dumps(experiment.to_dict()))
    folder, labels = study.run_folder(experiment), data / "annotations" / LABEL_MAP_FILE
    assert study.find(experiment).metrics["ava"]["mAP"] is not None
    out, found = tmp_path / "submission.csv", folder / "detections_ava.csv"
    run("submit", "--detections", str(found), "--labels", str(labels), "--out", str(out))
    capfd.readouterr()
    run("submit", "--check", str(out), "--data", str(data), "--split", "val")
    assert "no problem found" in capfd.readouterr().out


def write_rows(path: Path, boxes: pd.DataFrame, seconds: tuple[int, ...]) -> None:
    """Annotation rows out of a box a frame, at 25 frames a second; one action of the 60 for all."""
    rows = boxes[boxes["frame"].isin([25 * second for second in seconds])]
    text = rows.assign(second=rows["frame"] // 25, action_id=11)
    columns = ["video", "second", "x1", "y1", "x2", "y2", "action_id", "person_id"]
    text[columns].to_csv(path, header=False, index=False)

"""The whole run at smoke scale: records that repeat bit for bit, also after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from itertools import takewhile

import pytest
from jupyter_client.manager import start_new_kernel

from stadlib import recipes, study
from stadlib.base import ConfigError, InputError
from stadlib.recipes.experiment import Experiment, from_dict
from stadlib.report import publish as published
from stadlib.report import runs, scores
from stadlib.report.publish import publish

ROW = recipes.at(Experiment(head="linear"), "smoke")


def test_record_is_the_contract_and_is_read_instead_of_a_second_run(smoke_record):
    assert set(smoke_record.metrics) == {"ava", "kinetics", "ava+kinetics"}
    for found in smoke_record.metrics.values():
        assert 0 <= found["mAP"] <= 1
        assert any(ap is not None for ap in found["AP"].values())
    names = {"version", "commit", "dirty", "torch", "device", "seconds", "peak_memory_mb"}
    assert names <= set(smoke_record.provenance)
    experiment = from_dict(smoke_record.experiment)
    assert experiment.digest == smoke_record.digest
    path = smoke_record.folder / "record.json"
    written = path.stat().st_mtime_ns
    assert study.run(experiment) == study.read_record(path) == smoke_record
    assert path.stat().st_mtime_ns == written
    assert str(smoke_record.folder) not in path.read_text()


def test_same_seed_same_record_bit_for_bit(smoke_record, tmp_path, monkeypatch):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    again = study.run(from_dict(smoke_record.experiment))
    assert again.folder != smoke_record.folder
    same = {"folder": again.folder, "provenance": again.provenance}
    assert again == replace(smoke_record, **same)
    for name in ("detections_ava.csv", "detections_kinetics.csv"):
        assert (again.folder / name).read_bytes() == (smoke_record.folder / name).read_bytes()


@pytest.mark.nightly
def test_an_interrupted_cell_goes_on_when_it_is_run_again(tmp_path, monkeypatch):
    """What the stop button of JupyterLab sends reaches the kernel as this interrupt does."""
    stage = replace(ROW.stages[0], iterations=40)  # seconds more than to the first checkpoint
    experiment = replace(ROW, stages=(stage,), flip=False)
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    folder = study.stage_folder(experiment, 1)
    cell = "from stadlib import study\nfrom stadlib.recipes.experiment import from_dict\n"
    cell += f"study.run(from_dict({experiment.to_dict()!r}))"
    manager, client = start_new_kernel(env=dict(os.environ), stdout=subprocess.DEVNULL)
    try:
        asked = client.execute(cell)
        deadline = time.monotonic() + 120
        while not (folder / "checkpoint.pt").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        manager.interrupt_kernel()
        # Replies to the questions of the kernel's start may still be in the queue.
        while (reply := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != asked:
            pass
        assert reply["content"].get("ename") == "KeyboardInterrupt", reply["content"]
        assert study.find(experiment) is None
        before = (folder / "log.jsonl").read_text().splitlines()
        reply = client.execute_interactive(cell, timeout=120, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert study.find(experiment)
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == list(range(40))
    pairs = zip(before, lines, strict=False)
    kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    assert kept % 4 == 0 and kept >= 4, "it went on from a checkpoint, not from the start"


def test_a_misspelt_parameter_is_refused_and_its_correction_runs_in_the_same_kernel():
    names, namespace = ("head", "seed"), {"head": "t-only", "seed": 1, "study": study, "_i1": "x"}
    study.check_parameters(dict(namespace), *names)
    namespace["haed"] = "linear"
    with pytest.raises(ConfigError, match=r"^unknown parameter 'haed'; choose from head, seed"):
        study.check_parameters(namespace, *names)
    study.check_parameters(namespace, *names)


def test_cells_run_again_in_one_kernel_after_a_parameter_changed():
    """The variables of the first time are no parameters; a misspelt one in the cell still is."""
    cells = ["", 'head = "t-only"\nscale = "smoke"', "study.check_parameters(...)"]
    namespace = {"head": "t-only", "scale": "smoke", "In": cells}
    study.check_parameters(namespace, "head", "scale")
    namespace |= {"rows": [1], "words": {}, "head": "linear"}
    cells += ["rows = [1]", 'head = "linear"\nscale = "smoke"', "study.check_parameters(...)"]
    study.check_parameters(namespace, "head", "scale")
    cells += ['haed = "linear"\nscale = "smoke"', "study.check_parameters(...)"]
    with pytest.raises(ConfigError, match="unknown parameter 'haed'; choose from head, scale"):
        study.check_parameters(namespace | {"haed": "linear"}, "head", "scale")
    with pytest.raises(ConfigError, match="head='tonly'"):
        study.check_parameters(namespace | {"head": "tonly", "In": cells[:3]}, "head", "scale")


def test_own_data_that_changed_is_another_experiment(tiny_dataset, tmp_path):
    root = shutil.copytree(tiny_dataset, tmp_path / "own")
    row = replace(ROW, dataset=str(root))
    names = [study.run_folder(row)]
    for file in ("annotations/ava_val_v2.2.csv", "videos/ava/a.mp4"):
        with open(root / file, "ab") as opened:
            opened.write(b"b,0902,0.1,0.1,0.2,0.2,14,0\n")
        names.append(study.run_folder(row))
    assert len(set(names)) == 3
    assert study.stage_folder(row, 1) != study.stage_folder(replace(ROW, dataset=""), 1)
    for note in ("annotations/.DS_Store", "videos/ava/.a.mp4.1234.tmp"):
        (root / note).write_text("")
    assert study.run_folder(row) == names[-1]
    shutil.rmtree(root)
    with pytest.raises(InputError, match="own: no such folder"):
        study.find(row)


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("head", "tonly", "choose from linear, s-only, t-only, all"),
        ("scale", "all", "choose from smoke, mini, paper"),
        ("seed", "one", "give a whole number"),
        ("seed", -1, "give a whole number"),
        ("seed", True, "give a whole number"),
    ],
)
def test_check_parameters_refuses_a_wrong_word(name, value, answer):
    with pytest.raises(ConfigError, match=answer) as caught:
        study.check_parameters({name: value}, name)
    assert caught.value._render_traceback_() == [f"ConfigError: {caught.value}"]


def test_the_other_backbone_and_input_run_too(tmp_path, monkeypatch):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    slowfast = Experiment(backbone="slowfast-152", frames="8x8+32x2", head="s-only", flip=False)
    row = recipes.at(slowfast, "smoke")
    row = replace(row, stages=(replace(row.stages[0], iterations=1),), scales=(64,))
    record = study.run(row)
    assert 0 <= record.metrics["ava+kinetics"]["mAP"] <= 1
    assert row.backbone in record.folder.name


def test_a_digest_is_published_once_and_later_runs_are_lines_of_machines(
    smoke_record, tmp_path, monkeypatch
):
    monkeypatch.setattr(study.base, "published_dir", lambda kind: tmp_path / kind)
    monkeypatch.setattr(study.base, "provenance", lambda *_: {"dirty": False})
    clean = {**smoke_record.provenance, "dirty": False}
    with monkeypatch.context() as patch:
        patch.setattr(study.base, "provenance", lambda *_: {"dirty": True})
        with pytest.raises(InputError, match="the code was edited since; commit or undo"):
            publish(replace(smoke_record, provenance=clean), "choices")
    with pytest.raises(InputError, match="uncommitted code; commit and run again"):
        publish(replace(smoke_record, provenance={**clean, "dirty": True}), "choices")
    first = replace(smoke_record, provenance=clean)
    publish(first, "choices")
    publish(first, "choices")  # itself again
    assert not (tmp_path / "machines.csv").exists()
    for minute in (1, 2, 2):  # the last one twice
        finished = f"2026-11-27T03:0{minute}:00+00:00"
        publish(replace(first, provenance={**clean, "finished": finished}), "choices")
    lines = (tmp_path / "machines.csv").read_text().splitlines()
    assert lines[0].startswith("finished,processor,threads,seconds,memory_mb,world,run,digest")
    assert [line.split(",")[0][14:16] for line in lines[1:]] == ["01", "02"]
    assert all(line.count(",") == lines[0].count(",") for line in lines)
    (path,) = (tmp_path / "reference" / "choices").iterdir()
    assert study.read_record(path) == replace(first, folder=path.parent)


def test_what_was_just_published_is_no_uncommitted_code(tmp_path, monkeypatch):
    code, published = tmp_path / "stadlib" / "base.py", tmp_path / "results" / "machines.csv"
    for path in (code, published):
        path.parent.mkdir()
        path.write_text("")
    author = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(study.base, "__file__", str(code))
    published.write_text("a line\n")
    assert study.base.provenance("cpu", 1.0)["dirty"] is False
    code.write_text("pass\n")
    assert study.base.provenance("cpu", 1.0)["dirty"] is True


def test_no_digest_has_two_records_in_the_reference():
    for folder in ("", "choices", "detectors", "ensembles", "test"):
        digests = [
            r.digest for r in study.read_records(study.base.published_dir("reference") / folder)
        ]
        assert len(digests) == len(set(digests)), folder


def test_what_a_published_row_started_from_becomes_part_of_the_study(
    smoke_record, tmp_path, monkeypatch
):
    monkeypatch.setattr(study.base, "published_dir", lambda kind: tmp_path / kind)
    monkeypatch.setattr(study.base, "provenance", lambda *_: {"dirty": False})
    folder = tmp_path / "reference"
    hashes = folder / "weights" / "worlds.json"
    hashes.parent.mkdir(parents=True)
    hashes.write_text('{"another/world": "0"}')
    first = replace(smoke_record, provenance={**smoke_record.provenance, "dirty": False})
    monkeypatch.setattr(published, "_first_row", lambda record: from_dict(record.experiment))
    for module in (runs, scores):
        monkeypatch.setattr(module, "published_dir", lambda kind: tmp_path / kind)
    publish(first, "beyond")
    (weights,) = (folder / "weights").glob("*.safetensors")
    weights.unlink()
    publish(first)
    (curve,) = runs.committed_logs(first)
    assert curve.equals(runs.training_log(first)[["iteration", "loss"]]) and len(curve)
    (weights,) = (folder / "weights").glob("*.safetensors")
    known = json.loads(weights.with_suffix(".accuracy.json").read_text())
    assert known["top1"] == first.provenance["top1"] and known["seed"] == 0
    worlds = json.loads(hashes.read_text())
    (own,) = (name for name in worlds if name != "another/world")
    assert worlds[own] == first.provenance["world"] and own.endswith("/world")
    hashes.write_text(json.dumps(worlds | {own: "of another machine"}))
    publish(first)
    assert json.loads(hashes.read_text())[own] == "of another machine"
    (record,) = study.read_records(folder)  # nothing else there looks like one
    assert record == replace(first, folder=folder)

"""The README's command at smoke scale, and what it answers to wrong words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from stadlib import recipes, study

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def papermill(
    output: Path, *words: str, name: str = "01_main_results"
) -> subprocess.CompletedProcess:
    """Run it as the README does, from the folder of the notebooks."""
    command = [sys.executable, "-m", "papermill", f"{name}.ipynb", str(output), *words]
    return subprocess.run(
        command, cwd=NOTEBOOKS, env=os.environ, capture_output=True, text=True, check=False
    )


def shown(path: Path) -> str:
    """All that a notebook shows; it must hold no error."""
    notebook = nbformat.read(path, as_version=4)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    return "".join(str(o.get("data", "")) for o in outputs)


def test_readme_command_fills_the_notebook(tmp_path):
    done = papermill(tmp_path / "out.ipynb", "-p", "head", "t-only")
    assert done.returncode == 0, done.stderr[-2000:]
    text = shown(tmp_path / "out.ipynb")
    assert "this run: smoke" in text
    assert "ir-csn-152" in text and "t-only" in text
    assert text.count("image/png") >= 2


def test_parameters_decide_what_is_run_and_shown_and_by_how_many_processes(tmp_path):
    """A row that no other test runs: its backbone and its boxes are there already."""
    done = papermill(tmp_path / "out.ipynb", "-p", "gpus", "2", "-p", "head", "s-only")
    assert done.returncode == 0, done.stderr[-2000:]
    words = {"backbone": "ir-csn-152", "pretrain": "K700", "memory": "no"}
    (row,) = recipes.table1(scale="smoke", head="s-only", **words)
    measured = 100 * study.find(row).metrics["ava"]["mAP"]
    assert measured > 0
    text = shown(tmp_path / "out.ipynb")
    assert f"{measured:.2f}" in text, "this run's mAP is not in the notebook"
    assert "processes" in text  # where the record came from
    assert "train s-only: 6/6" in (tmp_path / "out.ipynb").read_text()  # torchrun's lines


def test_a_video_of_one_s_own_is_watched(tmp_path, tiny_dataset):
    video = str(tiny_dataset / "videos" / "ava" / "a.mp4")
    done = papermill(tmp_path / "out.ipynb", "-p", "video", video, name="05_your_video")
    assert done.returncode == 0, done.stderr[-2000:]
    text = shown(tmp_path / "out.ipynb")
    assert "a.mp4" in text and "ava_val" not in text
    assert text.count("data:video/mp4") == 1 and text.count("image/png") == 2
    printed = (tmp_path / "out.ipynb").read_text()
    assert "MINIATURE MODEL ON REAL VIDEO" in printed


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("head", "tonly", "head='tonly'; choose from linear, s-only, t-only, all"),
        ("haed", "t-only", "unknown parameter 'haed'; choose from head, "),
    ],
)
def test_wrong_words_end_the_run_with_one_line(tmp_path, name, value, answer):
    done = papermill(tmp_path / "out.ipynb", "-p", name, value)
    assert done.returncode == 1
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    (error,) = (
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    )
    (line,) = error["traceback"]
    assert answer in line
    assert "ConfigError" in line

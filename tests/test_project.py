"""The project around the code: floors, one list of dependencies, what the README promises."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

from stadlib.recipes.scales import SCALES
from stadlib.world import MINI, SMOKE

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_imports_point_down_the_floors():
    code = "import sys; from importlinter.cli import lint_imports_command as run; sys.exit(run())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


def test_every_module_stands_on_a_floor():
    contract, _ = PROJECT["tool"]["importlinter"]["contracts"]
    named = set(re.findall(r"stadlib\.\w+", " ".join(contract["layers"])))
    found = {f"stadlib.{path.stem}" for path in (ROOT / "stadlib").iterdir()} - {"stadlib.__init__"}
    assert {name for name in found if "__pycache__" not in name} == named


def test_conda_takes_its_dependencies_from_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    names = [d if isinstance(d, str) else "+".join(d) for d in environment["dependencies"]]
    assert [re.split("[=<>]", name)[0] for name in names] == ["python", "pip", "pip"]
    assert environment["dependencies"][-1] == {"pip": ["-e .[test]"]}


def test_direct_dependencies_are_bounded():
    project = PROJECT["project"]
    for line in project["dependencies"] + project["optional-dependencies"]["test"]:
        assert "<" in line or "==" in line, line


def test_the_installed_set_is_pinned():
    pins = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in PROJECT["tool"]["uv"]["constraint-dependencies"]
    }
    direct = {
        re.sub(r"[-_.]+", "-", re.split(r"[<>=\[]", line)[0]).lower()
        for line in PROJECT["project"]["dependencies"]
    }
    assert direct <= pins
    installed = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower() for d in distributions()}
    assert len(pins & installed) > 100 or len(installed) < 100, "the pins are of another set"


def test_no_lock_file_is_tracked():
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("no git checkout")
    assert "pyproject.toml" in done.stdout.split()
    assert not [name for name in done.stdout.split() if name.endswith(".lock")]


def test_scales_name_the_world_they_are_of():
    for scale, spec in (("smoke", SMOKE), ("mini", MINI)):
        assert SCALES[scale].world_version == spec.version
        assert SCALES[scale].frame_rate == spec.frames_per_second
    assert asdict(SCALES["paper"])["world_version"] == 0


def test_readme_is_short_and_holds_the_commands():
    readme = (ROOT / "README.md").read_text()
    command = (
        "uv run --directory notebooks papermill 01_main_results.ipynb out.ipynb -p head t-only"
    )
    assert f"pip install uv && {command}" in readme
    assert "uv run pytest" in readme
    assert len(readme.split()) <= 1500
    for page in ("guide", "cost", "paper_scale", "table1", "claims"):
        assert f"results/{page}.md" in readme

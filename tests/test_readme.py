"""The README's commands: understood as they stand, and run where a laptop can run them.

Not run here are those that need AVA-Kinetics, Kinetics, GPUs or a download; the README says so.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from stadlib.cli import root
from stadlib.cli.root import main
from stadlib.report import claims, pipeline

README = Path(__file__).resolve().parents[1] / "README.md"


def commands() -> list[str]:
    """What follows ``stadlib`` in every line of the README's shell blocks, without remarks."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|-m )stadlib (.*)", line) for line in lines]
    return [" ".join(shlex.split(match[1].rstrip("'"), comments=True)) for match in found if match]


def on_a_laptop(command: str) -> bool:
    elsewhere = ("--data", "--scale", "--processes")  # of which other tests run small ones
    return command.startswith("train") and not any(word in command for word in elsewhere)


def test_there_are_commands():
    assert len(commands()) > 30
    assert sum(map(on_a_laptop, commands())) >= 6


@pytest.mark.parametrize("command", commands())
def test_a_command_is_understood(command):
    options = root._parser().parse_args(shlex.split(command))
    if command.startswith("train"):
        assert root._experiments(options)


def test_every_command_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    names = re.findall(r"^    (\w+) ", capsys.readouterr().out, flags=re.MULTILINE)
    assert len(names) > 12
    text = README.read_text()
    assert [name for name in names if f"stadlib {name}" not in text] == []


@pytest.mark.parametrize("command", [*filter(on_a_laptop, commands())])
def test_a_row_is_trained(command, capsys):
    """At smoke scale; Table 1's rows for two iterations, the others as notebooks run them."""
    words = [*shlex.split(command), "--scale", "smoke"]
    if "--table" not in words:
        words += ["--iterations", "2"]
    wanted = root._experiments(root._parser().parse_args(words))
    assert main(words) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "mAP@0.5, %: ava" in line]
    assert [line.split(":")[0] for line in lines] == [f"{row.name}-{row.digest}" for row in wanted]


def test_score_measures_another_split(smoke_record, capsys):
    assert main(["score", smoke_record.folder.name, "--split", "test"]) == 0
    assert "test: mAP@0.5, %: ava" in capsys.readouterr().out


def test_an_ensemble_needs_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    assert main(["ensemble", "--table1", "--seed", "0"]) == 1
    answered = capsys.readouterr()
    assert answered.out.count("not run, left out: ") == 15  # the paper's models
    assert "0 of Table 1's rows were run; train more" in answered.err


def test_readme_is_what_the_command_writes(tmp_path, monkeypatch):
    copy = tmp_path / "README.md"
    shutil.copy(README, copy)
    for module, name in ((claims, "CSV"), (pipeline, "SVG")):
        monkeypatch.setattr(module, name, tmp_path / getattr(module, name).name)
    assert main(["readme", "--path", str(copy)]) == 0
    assert copy.read_bytes() == README.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "claims.csv",
        "pipeline.svg",
    ]

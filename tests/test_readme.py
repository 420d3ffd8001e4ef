"""The README's commands: understood as they stand, and run where a laptop can run them.

Not run here are those that need AVA-Kinetics, Kinetics, GPUs or a download; the README says so.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from pkgutil import resolve_name

import pytest
from reading import make_record

from stadlib import cli, run_commands, study
from stadlib.base import runs_dir
from stadlib.cli import main
from stadlib.recipes import CHOICES, MEMORY_CHOICES, Size
from stadlib.recipes.experiment import Detections, Experiment, Stage
from stadlib.recipes.scales import Scale
from stadlib.report import beyond, publish

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = ("README.md", "results/table1.md", "results/claims.md", "results/claims.csv")
WRITTEN += ("results/paper/fidelity.md", "results/guide.md")
PAGES = [ROOT / "README.md", *sorted((ROOT / "results").glob("*.md"))]
TEXT = "\n".join(path.read_text() for path in PAGES)


def commands() -> list[str]:
    """What follows ``stadlib`` in every line of the README's shell blocks, without remarks."""
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
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
def test_a_command_is_understood(command, monkeypatch, tmp_path):
    call = cli.parse(cli.COMMANDS, shlex.split(command))
    if call.func is run_commands.train:  # its words select rows
        rows: list[Experiment] = []

        def run(row: Experiment, **options):
            rows.append(row)
            metrics = {key: {"mAP": 0.5} for key in ("ava", "kinetics", "ava+kinetics")}
            return make_record(row, metrics, {}, study.run_folder(row))

        monkeypatch.setattr(study, "run", run)
        monkeypatch.chdir(tmp_path)  # where a backbone of one's own lies
        Path("own.py").touch()
        monkeypatch.setattr(run_commands, "_measure_detectors", lambda *words: None)
        numbers = {"train": 5_000, "val": 500}
        size = Size(numbers, {split: {"walk": 90} for split in numbers}, 4)
        monkeypatch.setattr(beyond, "size", lambda row: size)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "DIR" / "dataset").mkdir(parents=True)
        call()
        assert rows


def test_every_command_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    names = re.findall(r"^    (\w+) ", capsys.readouterr().out, flags=re.MULTILINE)
    assert len(names) > 12
    text = TEXT
    assert [name for name in names if f"stadlib {name}" not in text] == []


def several_rows(command: str) -> list:
    """Marks of commands that train many rows; notebooks 01 to 04 and 07 train rows like them."""
    many = ("choices", "uses", "amounts", "--seed 0 1 2")
    return [pytest.mark.nightly] if any(word in command for word in many) else []


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=several_rows(command))
        for command in dict.fromkeys(filter(on_a_laptop, commands()))
    ],
)
def test_a_row_is_trained(command, capsys):
    """At smoke scale; Table 1's rows for two iterations, the others as notebooks run them.

    Of several seeds two, since each has a backbone and a detector of its own.
    """
    words = [*shlex.split(command.replace("--seed 0 1 2", "--seed 0 1")), "--scale", "smoke"]
    if "--table" not in words:
        words += ["--iterations", "2"]
    assert main(words) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "mAP@0.5, %: ava" in line]
    assert lines
    for line in lines:
        record = study.read_record(runs_dir() / line.split(":")[0] / "record.json")
        assert f"ava {100 * record.metrics['ava']['mAP']:.2f}" in line


def test_score_measures_another_split(smoke_record, capsys):
    assert main(["score", smoke_record.folder.name, "--split", "test"]) == 0
    assert "test: mAP@0.5, %: ava" in capsys.readouterr().out


def test_an_ensemble_needs_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    assert main(["ensemble", "--table1", "--seed", "0"]) == 1
    answered = capsys.readouterr()
    assert answered.out.count("not run, left out: ") == 15  # the paper's models
    assert "0 of Table 1's rows were run; train more" in answered.err


def test_the_pages_are_what_the_command_writes(tmp_path):
    for name in WRITTEN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert main(["readme", "--root", str(tmp_path)]) == 0
    for name in WRITTEN:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes(), "run: stadlib readme"
    assert (tmp_path / "results" / "pictures" / "gain.png").stat().st_size > 1_000


@pytest.mark.parametrize("row", publish.fidelity_rows(), ids=lambda row: row["says"][:40])
def test_a_statement_of_the_paper_names_code_and_fields_that_exist(row):
    for name in row["code"]:
        assert resolve_name(name) is not None
    fields = {"Experiment": Experiment, "Stage": Stage, "Detections": Detections, "Scale": Scale}
    for owner, field in re.findall(r"(\w+)\.(\w+)", row["change"]):
        if owner in fields:
            assert field in fields[owner].__dataclass_fields__
    assert row["status"] in ("as written", "our reading", "deviation")
    assert row.get("mini", "loss") in CHOICES | MEMORY_CHOICES


def test_every_field_has_a_row_in_the_page():
    """But those that name a machine's data, a run's size and its seed, of which the paper is."""
    text = " ".join(row["change"] for row in publish.fidelity_rows())
    named = {*re.findall(r"(\w+\.\w+)", text)}
    fields = {
        f"{kind.__name__}.{name}"
        for kind in (Experiment, Stage, Detections)
        for name in kind.__dataclass_fields__
    }
    assert fields - named == {"Experiment.seed", "Experiment.scale", "Experiment.dataset"}
    shown = {row["mini"] for row in publish.fidelity_rows() if "mini" in row}
    assert shown == {*CHOICES, *MEMORY_CHOICES}


def test_links_of_the_pages_lead_to_files():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", page.read_text()):
            target = link[0] or link[1]
            if not target.startswith("http"):
                assert (page.parent / target).exists(), (page.name, target)

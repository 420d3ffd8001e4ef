"""The notebooks keep to one skeleton, and are committed as they ran."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
PATHS = sorted(path for path in FOLDER.glob("*.ipynb") if not path.name.startswith("out"))
TABLES = [
    path for path in PATHS if path.name[:2] not in ("00", "05", "06", "07")
]  # others measure no table
HEADINGS = ["The question", "The experiments", "Results", "What we learned", "Provenance"]
every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
every_table = pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[NotebookNode]:
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def lines(cell: NotebookNode) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip()]


def tagged(path: Path, tag: str) -> list[NotebookNode]:
    return [cell for cell in cells(path, "code") if tag in cell.metadata.get("tags", [])]


@every_notebook
def test_begins_with_title_and_claim(path: Path) -> None:
    first = cells(path, "markdown")[0]
    title, claim = lines(first)[:2]
    assert title.startswith("# ") and claim.startswith("> ")
    quoted = " ".join(line[1:].strip() for line in lines(first) if line.startswith(">"))
    assert re.fullmatch(r"[^.!?]+([.](?=\d)[^.!?]*)*[.!?]", quoted), "one sentence"


@every_notebook
def test_parameters_are_typed_words(path: Path) -> None:
    (parameters,) = tagged(path, "parameters")
    assert parameters == cells(path, "code")[0]
    rows = lines(parameters)
    assert 1 <= len(rows) <= 8  # two more than a table's words
    assert len(ast.parse(parameters.source).body) == len(rows), "one a line"
    for row in rows:
        (node,) = ast.parse(row).body
        assert isinstance(node, ast.AnnAssign), row
        assert ast.unparse(node.annotation) in ("str", "int", "float"), row
        value = ast.literal_eval(node.value)  # nothing derived
        assert not isinstance(value, bool), row
        if isinstance(value, str):
            choices = row.partition("#")[2].split("|")
            assert value in [choice.strip() for choice in choices], f"{row}: name the words"


@every_notebook
def test_setup_is_short_and_checks_the_parameters(path: Path) -> None:
    setup = cells(path, "code")[1]
    assert len(lines(setup)) <= 6
    assert "check_parameters(globals()" in setup.source
    assert "import torch" not in setup.source


@every_notebook
def test_headings_come_in_order(path: Path) -> None:
    expected = list(HEADINGS) if path in TABLES else ["Provenance"]
    if path.name[:2] in ("01", "03"):
        expected.insert(3, "Per class")
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    headings = re.findall(r"^## (.+?)\s*$", text, flags=re.MULTILINE)
    assert [heading for heading in headings if heading in expected] == expected


@every_table
def test_paper_comes_before_ours(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    order = ("## The question", "report.paper(", "## The experiments", "report.beside_paper(")
    assert sorted(order, key=text.index) == list(order)


@every_notebook
def test_cells_are_few_and_short_and_introduced(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert len(notebook.cells) <= 25
    sizes = [len(lines(cell)) for cell in cells(path, "code")]
    assert min(sizes) >= 1 and max(sizes) <= 12 and median(sizes) <= 4
    assert max(len(line) for cell in cells(path, "code") for line in lines(cell)) <= 100
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        assert "markdown" in (before.cell_type, cell.cell_type), cell.source


@every_notebook
def test_code_defines_nothing_and_shows_one_value_a_cell(path: Path) -> None:
    banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for cell in cells(path, "code"):
        assert not re.search(r"^\s*[!%]", cell.source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, banned), cell.source
        shown = [o for o in cell.outputs if o.output_type in ("execute_result", "display_data")]
        assert len(shown) <= 1, cell.source


@every_notebook
def test_is_committed_as_it_ran(path: Path) -> None:
    assert path.stat().st_size <= 400_000
    assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"
    # Cells of runs may be empty while the reference is made.
    counts = [cell.execution_count for cell in cells(path, "code") if cell.execution_count]
    assert counts == sorted(counts), "run it from top to bottom"
    outputs = [output for cell in cells(path, "code") for output in cell.outputs]
    assert outputs
    for output in outputs:
        data = output.get("data", {}).items()
        parts = [str(value) for kind, value in data if not kind.startswith("image/")]
        text = str(output.get("text", "")) + " ".join(parts)
        assert output.output_type != "error" and output.get("name") != "stderr", text
        machine = r"(/home/|/Users/|/root/|/tmp/|/work/|[A-Z]:\\)\S*"
        assert "Traceback" not in text and not re.search(machine, text), text


@every_table
def test_published_numbers_are_compared(path: Path) -> None:
    """What nbval compares: cells of published and reference numbers, whose output is the same."""
    checked = [cell.source for cell in tagged(path, "nbval-check-output")]
    assert any("report.paper(" in source for source in checked)
    assert not any("study.run" in source or "beside_paper" in source for source in checked)


@every_notebook
def test_a_link_to_code_is_called_as_its_file(path: Path) -> None:
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    for name, target in re.findall(r"\[([\w/]+\.py)\]\(([^)]+)\)", text):
        assert target.endswith(f"/{name}") and (path.parent / target).is_file(), target


@every_notebook
def test_a_number_in_the_text_stands_in_an_output(path: Path) -> None:
    """Decimal numbers; those of a name (``v2.2``), a measure (AP@0.5, IoU 0.5) or code are none."""
    outputs = [output for cell in cells(path, "code") for output in cell.outputs]
    shown = " ".join(str(output.get("data", {}).get("text/plain", "")) for output in outputs)
    name = r"`[^`]*`|\[[^\]]*\]\([^)]*\)|\$[^$]*\$|AP@[\d.:]+|IoU [\d.]+"
    for cell in cells(path, "markdown"):
        numbers = re.findall(r"(?<![\w.])\d+\.\d+(?!\w)", re.sub(name, "", cell.source))
        assert [number for number in numbers if number not in shown] == []

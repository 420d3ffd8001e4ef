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
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb") if not path.name.startswith("out")) or [
    "none"
]
HEADINGS = ["The question", "The experiments", "Results", "What we learned", "Provenance"]
PER_CLASS = ("01", "03")
WORDS = ("str", "int", "float")


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest) -> Path:
    if request.param == "none":
        pytest.skip(f"no notebook in {FOLDER}")
    return FOLDER / request.param


@pytest.fixture
def notebook(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def lines(cell: NotebookNode) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip()]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in code(notebook) for output in cell.outputs]


def written(output: NotebookNode) -> str:
    """All text of an output, without pictures."""
    data = output.get("data", {})
    parts = [value for kind, value in data.items() if not kind.startswith("image/")]
    return str(output.get("text", "")) + " ".join(map(str, parts))


def headings(notebook: NotebookNode) -> list[str]:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.findall(r"^## (.+?)\s*$", text, flags=re.MULTILINE)


def test_begins_with_title_and_claim(notebook: NotebookNode) -> None:
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    title, claim = lines(first)[:2]
    assert title.startswith("# ")
    assert claim.startswith("> ")
    quoted = " ".join(line[1:].strip() for line in lines(first) if line.startswith(">"))
    assert re.fullmatch(r"[^.!?]+([.](?=\d)[^.!?]*)*[.!?]", quoted), "one sentence"


def test_parameters_are_typed_words(notebook: NotebookNode) -> None:
    tagged = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert tagged[0] is code(notebook)[0]
    rows = lines(tagged[0])
    assert 1 <= len(rows) <= 7  # one more than a table's words: gpus
    assert len(ast.parse(tagged[0].source).body) == len(rows), "one a line"
    for row in rows:
        (node,) = ast.parse(row).body
        assert isinstance(node, ast.AnnAssign), row
        assert ast.unparse(node.annotation) in WORDS, row
        value = ast.literal_eval(node.value)  # nothing derived
        assert not isinstance(value, bool), row
        if isinstance(value, str):
            choices = row.partition("#")[2].split("|")
            assert value in [choice.strip() for choice in choices], f"{row}: name the words"


def test_setup_is_short_and_checks_the_parameters(notebook: NotebookNode) -> None:
    setup = code(notebook)[1]
    assert len(lines(setup)) <= 6
    assert "check_parameters(globals()" in setup.source
    assert "import torch" not in setup.source


def test_headings_come_in_order(path: Path, notebook: NotebookNode) -> None:
    wanted = list(HEADINGS)
    if path.name[:2] in PER_CLASS:
        wanted.insert(3, "Per class")
    if path.name[:2] in ("00", "05"):
        wanted = ["Provenance"]
    found = [heading for heading in headings(notebook) if heading in wanted]
    assert found == wanted


def test_paper_comes_before_ours(path: Path, notebook: NotebookNode) -> None:
    if path.name[:2] in ("00", "05"):
        pytest.skip("no table of the paper")
    sources = [cell.source for cell in notebook.cells]
    calls = {
        call: next(index for index, source in enumerate(sources) if f"report.{call}(" in source)
        for call in ("paper", "beside_paper")
    }
    question, trials = (
        next(index for index, source in enumerate(sources) if f"## {heading}" in source)
        for heading in ("The question", "The experiments")
    )
    assert question < calls["paper"] < trials < calls["beside_paper"]


def test_cells_are_few_and_short(notebook: NotebookNode) -> None:
    assert len(notebook.cells) <= 30
    sizes = [len(lines(cell)) for cell in code(notebook)]
    assert min(sizes) >= 1
    assert max(sizes) <= 12
    assert median(sizes) <= 4
    longest = max(len(line) for cell in code(notebook) for line in lines(cell))
    assert longest <= 100


def test_every_code_cell_is_introduced(notebook: NotebookNode) -> None:
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", cell.source


def test_code_defines_nothing_and_uses_no_magic(notebook: NotebookNode) -> None:
    banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for cell in code(notebook):
        assert not re.search(r"^\s*[!%]", cell.source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, banned), cell.source


def test_one_value_a_cell(notebook: NotebookNode) -> None:
    for cell in code(notebook):
        shown = [o for o in cell.outputs if o.output_type in ("execute_result", "display_data")]
        assert len(shown) <= 1, cell.source


def test_is_committed_as_it_ran(path: Path, notebook: NotebookNode) -> None:
    assert path.stat().st_size <= 400_000
    assert notebook.metadata.kernelspec.name == "python3"
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "run it from top to bottom"
    assert outputs(notebook)


def test_outputs_hold_no_error_and_no_machine(notebook: NotebookNode) -> None:
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", written(output)
        assert "Traceback" not in written(output)
        found = re.search(r"(/home/|/Users/|/root/|/tmp/|/work/|[A-Z]:\\)\S*", written(output))
        assert not found, found


def test_published_numbers_are_compared(path: Path, notebook: NotebookNode) -> None:
    """What nbval compares: cells of published and reference numbers, whose output is the same."""
    if path.name[:2] in ("00", "05"):
        pytest.skip("no table of the paper")
    checked = [c for c in code(notebook) if "nbval-check-output" in c.metadata.get("tags", [])]
    assert any("report.paper(" in cell.source for cell in checked)
    for cell in checked:
        assert "study.run" not in cell.source
        assert "beside_paper" not in cell.source

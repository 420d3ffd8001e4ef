"""``stadlib report``: the committed notebooks and the ledger of claims as static pages.

nbconvert renders everything, the index too, with the template beside this module: code is behind a
click, and no page asks for anything from elsewhere. Nothing is run.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from stadlib.base import InputError, published_dir
from stadlib.report import claims, table1

NOTEBOOKS = published_dir("paper").parents[1] / "notebooks"
INDEX = "index.html"
_MARK = "stadlib report"  # the pages' generator, by which they are known again
_TEMPLATES = Path(__file__).parent


def build(out: Path, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Write the site into a new folder; an earlier site of this command there is replaced.

    Args:
        out: the folder.
        notebooks: where the notebooks lie; those that begin with two digits are taken.

    Returns:
        The pages.

    Raises:
        InputError: there are no notebooks, one cannot be read, or ``out`` holds other files.
    """
    _require_ours(out)
    found = {path: _read(path) for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise InputError(f"{notebooks}: no notebook; run this command from a checkout")
    index = _index({path.stem: notebook for path, notebook in found.items()})
    pages = {INDEX: index, **{f"{path.stem}.html": nb for path, nb in found.items()}}
    titles = {name: notebook.metadata.title for name, notebook in pages.items()}
    exporter = HTMLExporter(
        template_name="template",
        extra_template_basedirs=[str(_TEMPLATES)],
        exclude_anchor_links=True,
        exclude_output_prompt=True,
    )
    with _folder_whole(out) as folder:
        for name, notebook in pages.items():
            where = {"pages": titles, "generator": f"{_MARK} {version('stadlib')}"}
            html, _ = exporter.from_notebook_node(notebook, resources=where)
            (folder / name).write_text(html, encoding="utf-8")
    return [out / name for name in pages]


def _read(path: Path) -> NotebookNode:
    """A notebook with its title; its links to notebooks lead to pages, those to code nowhere."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError, AttributeError) as error:
        raise InputError(f"{path}: not a notebook ({error}); restore it") from error
    notebook.metadata.title = _title(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\(([\w./-]+)\.ipynb", r"](\1.html", cell.source)
            cell.source = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", cell.source)
    return notebook


def _title(notebook: NotebookNode) -> str:
    return notebook.cells[0].source.split("\n")[0].removeprefix("#").strip()


def _claim(notebook: NotebookNode) -> str:
    """The quoted sentence under a notebook's title."""
    lines = notebook.cells[0].source.split("\n")
    return " ".join(line[1:].strip() for line in lines if line.startswith(">"))


def _index(notebooks: dict[str, NotebookNode]) -> NotebookNode:
    """The first page as a notebook of Markdown cells."""
    rows = (
        f"- [{nb.metadata.title}]({name}.html)<br>{_claim(nb)}" for name, nb in notebooks.items()
    )
    opening = "\n".join([_OPENING, *rows])
    texts = (opening, _LEDGER, claims.markdown(), _RESULTS, table1.readme_table())
    cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    return nbformat.v4.new_notebook(cells=cells, metadata={"title": "stadlib"})


_OPENING = """\
# Relation Modeling in Spatio-Temporal Action Localization: a study that runs

The paper of Feng et al. (2021), winner of the AVA-Kinetics challenge at CVPR 2021, rebuilt as
notebooks. What stands here was run at the scale `mini`, on a *miniature world* that the study
renders itself: it shows what this implementation does, **not** that the paper's claims hold on real
video.

## The notebooks
"""
_RESULTS = """\
## Table 1: ours beside the paper's

mAP@0.5 in %; the paper's on AVA-Kinetics, ours on the miniature world (mean over seeds and the 95 %
interval of that mean). They compare in order, not in height."""
_LEDGER = """\
## The ledger of claims

Every claim of the paper: its difference in points, ours with the 95 % interval over seeds, paired
where all else is equal, and a verdict. **Shown**: the whole interval lies on the claim's side of
zero (for "level" within one point around it, for "hardly" and "little" above minus one point).
**Contradicted**: it lies on the other side. **Not shown**: neither. **Not measured**: fewer than
two seeds."""


def _require_ours(out: Path) -> None:
    """Refuse a folder that holds anything but pages of this command."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file; name a new folder")
    for path in out.iterdir() if out.is_dir() else ():
        head = path.read_bytes()[:2_000] if path.suffix == ".html" and path.is_file() else b""
        if f'content="{_MARK}'.encode() not in head:
            raise InputError(
                f"{out}: holds {path.name}, which is not of this command; name a new folder"
            )


@contextmanager
def _folder_whole(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out``, which takes its place only when all went well."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.tmp" for _ in range(2))
    temporary.mkdir()
    try:
        yield temporary
        if out.exists():
            out.rename(old)
        temporary.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)

"""``stadlib report``: the committed notebooks and the ledger of claims as web pages.

A page asks for nothing from elsewhere, so that it can be read offline.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from string import Template

import nbformat
from nbconvert import HTMLExporter

from stadlib.base import InputError, published_dir, whole_folder
from stadlib.report import claims, readme

NOTEBOOKS = published_dir("paper").parents[1] / "notebooks"


def write_pages(out: Path, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Render the committed notebooks (two digits and a name) into the new folder ``out``."""
    if out.exists():
        raise InputError(f"{out}: exists already; name a new folder")
    pages = {path.stem: _read(path) for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))}
    if not pages:
        raise InputError(f"{notebooks}: no notebook; run this command from a checkout")
    titles = {name: page.cells[0].source.split("\n")[0][2:] for name, page in pages.items()}
    links = "\n".join(f"- [{title}]({name}.html)" for name, title in titles.items())
    parts = {"links": links, "ledger": claims.markdown(), "table": readme.full_table()}
    cells = [nbformat.v4.new_markdown_cell(_filled("index.md", **parts))]
    pages = {"index": nbformat.v4.new_notebook(cells=cells), **pages}
    exporter = HTMLExporter(template_name="basic", embed_images=True)
    with whole_folder(out) as folder:
        for name, page in pages.items():
            body, _ = exporter.from_notebook_node(page)
            html = _filled("page.html", title=escape(titles.get(name, "stadlib")), body=body)
            (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return [out / f"{name}.html" for name in pages]


def _filled(name: str, **parts: str) -> str:
    """A text file beside this one with its ``$parts`` filled in."""
    return Template(Path(__file__).with_name(name).read_text(encoding="utf-8")).substitute(parts)


def _read(path: Path) -> nbformat.NotebookNode:
    """A notebook whose links to other notebooks lead to pages, and whose links to code are text."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError, AttributeError) as error:
        raise InputError(f"{path}: not a notebook ({error}); restore it") from error
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\(([\w./-]+)\.ipynb", r"](\1.html", cell.source)
            cell.source = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", cell.source)
    return notebook

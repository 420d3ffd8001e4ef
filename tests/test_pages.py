"""``stadlib report``: every notebook as a page, the claims on the first, all or nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from nbconvert import HTMLExporter
from nbformat import v4, write

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.report import claims, publish


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small notebooks; the ledger is not measured again."""
    monkeypatch.setattr(claims, "markdown", lambda: "| the | ledger |\n| --- | --- |\n| a | b |")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    text = "# First: a title\n\n> A claim.\n\nSee [second](01_second.ipynb), [code](../a.py)."
    cells = [v4.new_markdown_cell(text), v4.new_code_cell("answer = 42")]
    write(v4.new_notebook(cells=cells), folder / "00_first.ipynb")
    cells = [v4.new_markdown_cell("# Second")]
    write(v4.new_notebook(cells=cells), folder / "01_second.ipynb")
    (folder / "out.ipynb").write_text("of a reader")
    return folder


def test_every_notebook_has_a_page_and_links_lead_to_pages(notebooks, tmp_path):
    written = publish.write_pages(tmp_path / "deep" / "pages", notebooks)
    assert [path.name for path in written] == ["index.html", "00_first.html", "01_second.html"]
    index, first, _ = (path.read_text() for path in written)
    assert 'href="00_first.html"' in index and "<td>b</td>" in index
    assert 'href="01_second.html"' in first and "../a.py" not in first
    assert "42" in re.sub(r"<[^>]+>", "", first)


def test_the_committed_notebooks_become_pages(tmp_path, capsys):
    assert main(["report", "--out", str(tmp_path / "pages")]) == 0
    names = {path.stem for path in publish.NOTEBOOKS.glob("[0-9]*.ipynb")}
    assert {path.stem for path in (tmp_path / "pages").iterdir()} == names | {"index"}
    assert "index.html: open it in a browser" in capsys.readouterr().out
    for path in (tmp_path / "pages").iterdir():  # readable offline, also on a narrow screen
        html = path.read_text()
        assert "<script" not in html and "@import" not in html and "url(" not in html, path
        for link in re.findall(r'(?:src|href)="([^"]*)"', html):
            local = link.startswith(("data:", "#")) or (path.parent / link).is_file()
            assert local or f'<a href="{link}"' in html, f"{path}: {link}"
        assert "width=device-width" in html and "img, video { max-width: 100%" in html


def test_interrupted_leaves_nothing(notebooks, tmp_path, monkeypatch):
    render, calls = HTMLExporter.from_notebook_node, []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(self, *arguments, **options)

    monkeypatch.setattr(HTMLExporter, "from_notebook_node", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish.write_pages(tmp_path / "pages", notebooks)
    assert [path.name for path in tmp_path.iterdir()] == ["notebooks"]


def test_what_cannot_be_used_is_named(notebooks, tmp_path):
    with pytest.raises(InputError, match=r"notebooks: exists already; name a new folder"):
        publish.write_pages(notebooks, notebooks)
    with pytest.raises(InputError, match="nowhere: no notebook"):
        publish.write_pages(tmp_path / "pages", tmp_path / "nowhere")
    (notebooks / "02_bad.ipynb").write_text("{")
    with pytest.raises(InputError, match=r"02_bad.ipynb: not a notebook"):
        publish.write_pages(tmp_path / "pages", notebooks)

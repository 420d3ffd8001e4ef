"""The static site: readable offline, code behind a click, whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from stadlib.base import InputError
from stadlib.cli import site as cli_site
from stadlib.cli.root import main


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small notebooks, the first with a table and a link; the ledger is not measured again."""
    monkeypatch.setattr(cli_site.claims, "markdown", lambda: "ledger")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    output = v4.new_output(
        "execute_result", {"text/html": "<table><tr><td>41.5</td></tr></table>"}, execution_count=1
    )
    cells = [
        v4.new_markdown_cell(
            "# First: of two\n\n> A claim\n> in two lines.\n\nSee [it](01_b.ipynb)."
        ),
        v4.new_code_cell("shown = 41.5", outputs=[output], execution_count=1),
    ]
    nbformat.write(v4.new_notebook(cells=cells), folder / "00_a.ipynb")
    second = v4.new_notebook(cells=[v4.new_markdown_cell("# Second\n\n> Another.")])
    nbformat.write(second, folder / "01_b.ipynb")
    nbformat.write(second, folder / "out_of_papermill.ipynb")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The committed notebooks' site."""
    out = tmp_path_factory.mktemp("site") / "deep" / "site"
    assert main(["report", "--out", str(out)]) == 0
    return out


def test_every_committed_notebook_has_a_page(site):
    names = {path.stem for path in cli_site.NOTEBOOKS.glob("[0-9]*.ipynb")}
    assert names and {path.stem for path in site.iterdir()} == names | {"index"}


def test_pages_need_nothing_from_elsewhere(site):
    for path in site.iterdir():
        html = path.read_text()
        assert "<script" not in html and "@import" not in html and "url(" not in html, path
        for link in re.findall(r'(?:src|href)="([^"]*)"', html):
            local = link.startswith(("data:", "#")) or (site / link).is_file()
            cited = link.startswith("https://") and f'<a href="{link}"' in html
            assert local or cited, f"{path}: {link}"


def test_pages_fit_narrow_screens(site):
    for path in site.iterdir():
        html = path.read_text()
        assert '<meta content="width=device-width, initial-scale=1" name="viewport"' in html
        assert "img, video { max-width: 100%" in html and "overflow-x: auto" in html


def test_index_holds_the_claims_and_the_notebooks(site):
    html = (site / "index.html").read_text()
    assert "S-only is above the linear head" in html and "<strong>shown</strong>" in html
    for name in cli_site.NOTEBOOKS.glob("[0-9]*.ipynb"):
        assert f'href="{name.stem}.html"' in html


def test_code_is_behind_a_click(notebooks, tmp_path):
    written = cli_site.build(tmp_path / "site", notebooks)
    assert [path.name for path in written] == ["index.html", "00_a.html", "01_b.html"]
    html = written[1].read_text()
    assert re.search(r"<details><summary>code</summary>.*shown.*</details>", html, re.DOTALL)
    outside = re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)
    assert "41.5</td>" in outside and "shown" not in outside
    assert '<a href="01_b.html">it</a>' in html
    assert "A claim in two lines." in written[0].read_text()


def test_own_site_is_replaced_and_a_foreign_folder_is_not(notebooks, tmp_path, capsys):
    out = tmp_path / "site"
    out.mkdir()
    cli_site.build(out, notebooks)
    (notebooks / "01_b.ipynb").unlink()
    assert len(cli_site.build(out, notebooks)) == len(list(out.iterdir())) == 2
    (out / "letters.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["report", "--out", str(out)]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "holds letters.txt, which is not of this command; name a new folder" in line
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: a file; name a new folder"):
        cli_site.build(tmp_path / "file", notebooks)


@pytest.mark.parametrize("first", [True, False])
def test_interrupted_leaves_no_half_site(notebooks, tmp_path, monkeypatch, first):
    out = tmp_path / "site"
    if not first:
        cli_site.build(out, notebooks)
    before = {path.name: path.read_bytes() for path in out.glob("*")}
    render, calls = cli_site.HTMLExporter.from_notebook_node, []

    def interrupted(*arguments, **words):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(*arguments, **words)

    monkeypatch.setattr(cli_site.HTMLExporter, "from_notebook_node", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cli_site.build(out, notebooks)
    assert {path.name: path.read_bytes() for path in out.glob("*")} == before
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"notebooks"} if first else {"notebooks", "site"})


def test_bad_notebooks_are_named(notebooks, tmp_path):
    (notebooks / "02_c.ipynb").write_text("{")
    with pytest.raises(InputError, match=r"02_c\.ipynb: not a notebook"):
        cli_site.build(tmp_path / "site", notebooks)
    with pytest.raises(InputError, match="no notebook"):
        cli_site.build(tmp_path / "site", tmp_path)
    assert not (tmp_path / "site").exists()

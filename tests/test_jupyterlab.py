"""The tour in JupyterLab, as a reader runs it: opened in a browser, Run All, figures seen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import browser
import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "00_tour.ipynb"
TOKEN = "tour"
CELLS = "jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type == 'code')"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.skipif(not browser.chromium(), reason="no Chromium: install one to drive a page"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a copy of the notebook as nobody has run it yet."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    folder = tmp_path / "notebooks"
    folder.mkdir()
    nbformat.write(notebook, folder / NOTEBOOK.name)
    return folder


@pytest.fixture
def lab(folder: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab of its own settings, which shows that folder."""
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    # All cells in the page, not only those in view, so that every figure can be looked at.
    everything = json.dumps({"windowingMode": "none"})
    (settings / "tracker.jupyterlab-settings").write_text(everything)
    own = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
           "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}  # fmt: skip
    environment = os.environ | {name: str(tmp_path / place) for name, place in own.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}"]
    command += [f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True"]
    with open(tmp_path / "log", "wb") as log:
        how = {"env": environment, "stdout": log, "stderr": log}
        with subprocess.Popen(command, **how) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                browser.waited(lambda: _answers(f"{url}/api?token={TOKEN}"), 60, "JupyterLab")
                yield url
            finally:
                process.terminate()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except (URLError, ConnectionError):
        return False


def test_run_all_in_jupyterlab_shows_every_figure(lab, tmp_path, with_memory):
    address = f"{lab}/lab/tree/{NOTEBOOK.name}?token={TOKEN}"
    with browser.opened(address, tmp_path / "chromium") as page:
        ready = "globalThis.jupyterapp?.shell.currentWidget?.sessionContext?.isReady"
        browser.waited(lambda: page.run(ready), 90, "the notebook and its kernel")
        page.run("void jupyterapp.commands.execute('notebook:run-all-cells')")
        done = f"{CELLS}.every(c => c.model.executionCount && c.model.executionState == 'idle')"
        failed = f"{CELLS}.some(c => c.model.outputs.toJSON().some(o => o.output_type == 'error'))"
        browser.waited(lambda: page.run(f"{done} || {failed}"), 180, "all cells")
        outputs = page.run(f"{CELLS}.map(c => c.model.outputs.toJSON())")
        errors = [o for cell in outputs for o in cell if o["output_type"] == "error"]
        assert not errors, errors
        assert [len(cell) for cell in outputs[2:]] == [1] * len(outputs[2:])
        pictures = f"{CELLS}.flatMap(c => [...c.node.querySelectorAll('img')])"
        browser.waited(lambda: page.run(f"{pictures}.every(i => i.complete)"), 30, "pictures")
        widths = page.run(f"{pictures}.map(i => i.naturalWidth)")
        assert widths == [672] + [700] * 7  # the drawing of the system, then figures
        (rows,) = page.run(f"{CELLS}.slice(-2, -1).map(c => c.node.querySelectorAll('tr').length)")
        assert rows > 20, "the ledger of claims"

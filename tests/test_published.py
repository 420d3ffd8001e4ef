"""The table of public weights, its command, and downloads from a server on this machine."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.models import backbones, published
from stadlib.models.backbones import FULL_SIZE
from stadlib.models.networks import CSN
from stadlib.recipes.experiment import INPUTS, PretrainName


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for pretrained weights."""
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path))
    (tmp_path / "pretrained").mkdir()
    return tmp_path / "pretrained"


def test_the_table_is_sound():
    rows = published.PUBLISHED
    assert len({row.name for row in rows}) == len(rows) == len({row.path for row in rows})
    for row in rows:
        assert row.url.startswith("https://") and row.path.suffix in (
            ".pth",
            ".pyth",
            ".safetensors",
        )
        assert row.backbone in FULL_SIZE
        assert bool(row.frames) == bool(row.mAP) == (row.name in published.DETECTORS)
        assert not row.sha256 or row.path.name.endswith(f"-{row.sha256}.pth")
    words = {(b, p) for b in INPUTS for p in get_args(PretrainName)}
    assert {(row.backbone, row.pretraining) for row in rows} & words == {
        ("slowfast-101", "K400"),
        ("ir-csn-152", "K400"),
        ("ir-csn-152", "K400+IG65M"),
        ("swin3d-t", "K400"),
        ("videoprism-b", "other"),
        ("videoprism-l", "other"),
    }


def test_the_command_lists_the_table_and_what_is_there(folder, capsys):
    row, *others = published.PUBLISHED
    row.path.write_bytes(b"x")
    assert main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"  here: {row.path}" in lines and f"  {row.url}" in lines
    assert sum(line.startswith("  not here: ") for line in lines) == len(others)
    assert main(["weights", "csn"]) == 1
    assert "no such row; choose from slowfast-101-8x8" in capsys.readouterr().err


@pytest.fixture
def server(monkeypatch):
    """Serves ``content``, or only ``limit`` bytes of it and then, with ``hold``, waits."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = SimpleNamespace(content=b"", limit=None, hold=None, ranges=True, asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            start = int(wanted[6:-1]) if wanted and state.ranges else 0
            if wanted and state.ranges and start >= len(state.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.end_headers()
                return
            body = state.content[start:]
            self.send_response(206 if wanted and state.ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.limit])
            if state.hold:
                state.hold.wait(60)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/weights.pth"
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def quiet(*_):
    pass


def test_a_download_that_was_cut_resumes(server, tmp_path):
    server.content = os.urandom(300_000)
    sha = hashlib.sha256(server.content).hexdigest()[:8]
    path, seen = tmp_path / "pretrained" / "weights.pth", []
    server.limit = 100_000
    with pytest.raises(InputError, match="cut off after 100000 of 300000 bytes; run again"):
        published.download(server.url, path, sha, quiet)
    assert not path.exists() and path.with_name("weights.pth.part").stat().st_size == 100_000
    server.limit = None
    published.download(server.url, path, sha, lambda done, total, _: seen.append((done, total)))
    assert path.read_bytes() == server.content
    assert server.asked == [None, "bytes=100000-"] and seen[-1] == (300_000, 300_000)
    assert [file.name for file in path.parent.iterdir()] == ["weights.pth"]


def test_a_download_that_was_killed_resumes(server, tmp_path):
    server.content = os.urandom(3 << 20)
    server.limit, server.hold = 2 << 20, threading.Event()
    path = tmp_path / "weights.pth"
    part = tmp_path / "weights.pth.part"
    code = (
        "import sys; from pathlib import Path; from stadlib.models.published import download; "
        "download(sys.argv[1], Path(sys.argv[2]), '', lambda *_: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, server.url, str(path)])
    try:
        deadline = time.monotonic() + 120
        while not (part.exists() and part.stat().st_size >= 1 << 20):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        server.hold.set()
    size = part.stat().st_size
    server.limit = server.hold = None
    published.download(server.url, path, "", quiet)
    assert path.read_bytes() == server.content
    assert server.asked == [None, f"bytes={size}-"]


def test_a_wrong_hash_is_refused_and_dropped(server, tmp_path):
    server.content, path = b"other weights", tmp_path / "weights.pth"
    with pytest.raises(
        InputError, match=r"SHA-256 begins \w{8}, published is 0badc0de.*weights\.pth$"
    ):
        published.download(server.url, path, "0badc0de", quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("part", [b"0123456789", b"x" * 20, b"0123" + b"x" * 20])
def test_a_part_that_cannot_be_resumed_is_fetched_again(ranges, part, server, tmp_path):
    server.content, server.ranges = b"0123456789", ranges
    (tmp_path / "weights.pth.part").write_bytes(part)
    published.download(server.url, tmp_path / "weights.pth", "", quiet)
    assert (tmp_path / "weights.pth").read_bytes() == server.content
    assert server.asked == [f"bytes={len(part)}-", None][: 1 + ranges]
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pth"]


def test_without_network_one_line_names_the_file_and_its_place(tmp_path):
    url, path = "http://127.0.0.1:9/weights.pth", tmp_path / "weights.pth"
    with pytest.raises(
        InputError, match=r"^http://127\.0\.0\.1:9/weights\.pth: not fetched"
    ) as error:
        published.download(url, path, "", quiet)
    assert str(error.value).endswith(f"put it at {path}") and "\n" not in str(error.value)


def test_the_command_fetches_verifies_and_reports(server, folder, monkeypatch, capsys):
    small = CSN((1, 1), stem_width=4, inner_widths=(4, 4), out_widths=(8, 12))
    torch.save({"model": small.state_dict()}, folder / "made.pt")
    server.content = (folder / "made.pt").read_bytes()
    sha = hashlib.sha256(server.content).hexdigest()[:8]
    row = replace(published.find("ir-csn-152-ig65m"), url=server.url, sha256=sha)
    with pytest.raises(InputError, match=r"weights\.pth: no value for \d+: net\.blocks"):
        published.fetch(row, quiet)  # another network; the file stays
    monkeypatch.setattr(published, "PUBLISHED", (row,))
    monkeypatch.setattr(backbones, "build", lambda _: small)
    assert main(["weights", row.name]) == 0
    assert "values of the backbone in stadlib's names" in capsys.readouterr().out
    assert server.asked == [None]  # the second time it was there

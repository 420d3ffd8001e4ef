"""A headless Chromium that runs JavaScript in a page, over Chrome's DevTools protocol.

The protocol is JSON over a web socket; the client library comes with Jupyter's server.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")


def chromium() -> str | None:
    """The installed program, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def waited(condition: Callable[[], object], seconds: float, what: str) -> object:
    """What ``condition`` gives once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise TimeoutError(f"{what}: not within {seconds} s")


class Page:
    """One tab."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket, self._number = socket, 0

    def call(self, method: str, **params: object) -> dict:
        """Call a method of the protocol; events that arrive meanwhile are passed over."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while (answer := json.loads(self._socket.recv())).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def run(self, script: str) -> object:
        """The value of a JavaScript expression; a promise is awaited."""
        how = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **how)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Page]:
    """A page at an address; the browser keeps its files in ``folder`` and ends with the block."""
    command = [chromium(), *_FLAGS, "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "--window-size=1200,900", url], **quiet) as process:
        try:
            port = waited(lambda: _port(folder), 60, "Chromium's port")
            page = waited(lambda: _tab(port, url), 60, "Chromium's page")
            # Without an origin, which Chromium would have to be told to trust.
            socket = websocket.create_connection(page, suppress_origin=True, timeout=120)
            try:
                yield Page(socket)
            finally:
                socket.close()
        finally:
            process.terminate()


def _port(folder: Path) -> str | None:
    path = folder / "DevToolsActivePort"
    return path.read_text().split("\n")[0] if path.exists() else None


def _tab(port: str, url: str) -> str | None:
    """The web socket of the tab that shows an address."""
    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
        tabs = json.load(answer)
    start = url.split("?", maxsplit=1)[0]
    sockets = [tab["webSocketDebuggerUrl"] for tab in tabs if tab["url"].startswith(start)]
    return sockets[0] if sockets else None

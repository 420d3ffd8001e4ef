"""Progress that suits whoever watches: a live bar, or a line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

Report = Callable[[int, int, str], None]  # (done, total, a few words)
MakeProgress = Callable[[str], Report]  # of a named task

LINES = 10  # where nothing can be redrawn, a task writes about this many lines


class Progress:
    """Callable as ``progress(done, total, text)``; one object a task.

    In a terminal or JupyterLab it is a live bar. Elsewhere (papermill, CI, a log file) it prints
    some ten lines, because a stored notebook would keep every refresh.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.first: int | None = None  # what was done at the first call
        self.started = 0.0  # the clock starts there too: making workers is no work
        self.bar, self.shown = None, -1

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """Show that ``done`` of ``total`` are done, with a few words."""
        if self.first is None:
            self.first, self.started = done, time.monotonic()
        if _live():
            self._draw(done, total, text)
        elif (step := done * LINES // max(total, 1)) > self.shown:
            self.shown = step
            self._print(done, total, text)

    def _draw(self, done: int, total: int, text: str) -> None:
        if self.bar is None:
            # A notebook paints stderr red; in a terminal stdout is for what a command answers.
            file = sys.stdout if _in_kernel() else sys.stderr
            # Line 0, though the bar of an interrupted cell may still hold it: JupyterLab does
            # not move the cursor up, and a bar on line 1 would be a new line with every refresh.
            how = {"initial": self.first, "leave": False, "file": file, "position": 0}
            self.bar = tqdm(total=total, desc=self.title, **how)
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()

    def _print(self, done: int, total: int, text: str) -> None:
        line = f"{self.title}: {done}/{total} {text}".rstrip()
        if done > self.first:
            left = (time.monotonic() - self.started) * (total - done) / (done - self.first)
            line += f", {left:.0f} s left"
        print(line, flush=True)
        _tell_terminal(line)


def _live() -> bool:
    """A terminal redraws; so does JupyterLab, whose server names its kernels' sessions."""
    return "JPY_SESSION_NAME" in os.environ or (_in_kernel() is False and sys.stderr.isatty())


def _in_kernel() -> bool:
    return "ipykernel" in sys.modules


def _tell_terminal(line: str) -> None:
    """Under papermill a cell's output is stored, not shown: tell the terminal too, if any."""
    if not _in_kernel():
        return
    try:
        with open("/dev/tty", "w") as terminal:
            terminal.write(f"\r{line}\x1b[K\n")
    except OSError:
        pass  # no terminal: CI, a job queue

"""What every module may use: errors of one line, folders, files that appear whole, progress.

Three environment variables move things: ``STADLIB_RESULTS`` (records, checkpoints, logs),
``STADLIB_DATA`` (rendered worlds, caches, datasets) and ``STADLIB_SCALE`` (a notebook's scale).
Nothing depends on the current directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import platformdirs
from tqdm import tqdm

_HOST = platform.node().replace(".", "-")  # in the names of what is being written


class OneLineError(ValueError):
    """An error whose message says all: what is wrong, where, and the remedy."""

    def __init__(self, message: str) -> None:
        # A DataLoader worker's error comes back with its traceback; the last line is the message.
        super().__init__(message.rstrip().rsplit("\n", 1)[-1].split("Error: ", 1)[-1])

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: a notebook shows one line instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(OneLineError):
    """A word or number that the study does not know; the message names the choices."""


class InputError(OneLineError):
    """A file or row that cannot be used; the message names file, row, word and the remedy."""


def lazy_modules(package: str, functions_of: str = "") -> Callable[[str], object]:
    """A package's ``__getattr__``: ``package.module`` is imported at its first use.

    So words are checked before torch is there. What is no module is looked up in ``functions_of``.
    """

    def attribute(name: str) -> object:
        if not name.startswith("_"):
            if find_spec(f"{package}.{name}"):
                return import_module(f"{package}.{name}")
            if functions_of:
                return getattr(import_module(f"{package}.{functions_of}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute


def some(names: list[str]) -> str:
    """The first three names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def check_word(field: str, word: object, choices: tuple) -> None:
    """Refuse a word in one line: ``head='tonly'; choose from linear, s-only, t-only``."""
    if word not in choices:
        raise ConfigError(f"{field}={word!r}; choose from {', '.join(map(str, choices))}")


def digest(content: dict) -> str:
    """Twelve hex digits of the canonical JSON of ``content``."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def dataset_digest(folder: str, detector: str) -> str:
    """Twelve hex digits of a dataset: annotations and boxes by content, videos by name and size."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name a dataset in the official layout")
    content = {}
    for pattern in ("annotations/*", f"boxes/{detector}_*", "videos/*/*"):
        for path in root.glob(pattern):
            if not path.is_file() or path.name.startswith("."):
                continue  # a folder, a desktop's notes, a file that is being written
            state = path.stat().st_size
            if not pattern.startswith("videos"):
                with open(path, "rb") as file:
                    state = hashlib.file_digest(file, "sha256").hexdigest()
            content[str(path.relative_to(root))] = state
    return digest(content)


_CHECKOUT = Path(__file__).resolve().parents[1]


def results_dir() -> Path:
    """``results/`` of the checkout; installed without one, a folder of the user's data."""
    if named := os.environ.get("STADLIB_RESULTS"):
        return Path(named).expanduser().resolve()
    if (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / "results"
    return Path(platformdirs.user_data_dir("stadlib")) / "results"


def runs_dir() -> Path:
    """What this machine made; ignored by git."""
    return results_dir() / "runs"


def stage_dir(digest: str) -> Path:
    """Weights, log and banks of one trained stage, shared by the runs that begin with it."""
    return runs_dir() / "stages" / digest


def published_dir(kind: str) -> Path:
    """``paper`` or ``reference``: committed numbers and weights, which nothing moves."""
    if (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / "results" / kind
    return Path(__file__).resolve().parent / "results" / kind  # of the wheel


def data_dir() -> Path:
    """Rendered worlds, pretrained backbones and datasets; default: the user's cache folder."""
    if named := os.environ.get("STADLIB_DATA"):
        return Path(named).expanduser().resolve()
    return Path(platformdirs.user_cache_dir("stadlib"))


def pretrained_dir() -> Path:
    """Pretrained weights, of other makers and of our own."""
    return data_dir() / "pretrained"


def _temporary(path: Path, ending: str) -> Path:
    """A name beside ``path`` for what is not whole yet: its machine and its process stand in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{_HOST}.{os.getpid()}.{ending}")


@cache
def _sweep(folder: Path) -> None:
    """Remove, once a process, what killed processes of this machine left half-written."""
    for stale in [*folder.glob(f".*.{_HOST}.*.tmp"), *folder.glob(f".*.{_HOST}.*.part")]:
        try:
            os.kill(int(stale.name.split(".")[-2]), 0)
        except ProcessLookupError:
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
        except (PermissionError, ValueError):  # alive, of another user; not ours
            pass


@contextmanager
def written_whole(path: Path):
    """Yield a temporary path beside ``path``; it takes ``path``'s name only when all went well."""
    partial = _temporary(path, "tmp")
    try:
        yield partial
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` at once (see :func:`written_whole`)."""
    data = content.encode() if isinstance(content, str) else content
    with written_whole(path) as partial:
        partial.write_bytes(data)


def whole_lines(path: Path) -> Iterator[str]:
    """The lines of a file that grows, up to one that a kill cut short; none without the file."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from takewhile(lambda line: line.endswith("\n"), file)


@contextmanager
def whole_folder(path: Path):
    """Yield an empty folder that becomes ``path`` when all went well; the first of two wins."""
    folder = _temporary(path, "part")
    folder.mkdir()
    try:
        yield folder
        try:
            folder.rename(path)
        except OSError:
            if not path.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def provenance(device: str, seconds: float) -> dict:
    """Where a number comes from: code, libraries, device, cost."""

    def git(*arguments: str) -> str:  # empty without a checkout
        command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    # Records that were just published, and lines of machines.csv, are no code.
    status = ("status", "--porcelain", "--", ":/", ":(top,exclude)results")
    # Of this process and its largest child (a decoding worker), resident.
    usage = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    memory, unit = sum(u.ru_maxrss for u in usage), 1 if sys.platform == "darwin" else 1024
    return {
        "version": version("stadlib"),
        "commit": commit,
        "dirty": bool(git(*status)) if commit else None,
        "python": sys.version.split()[0],
        "torch": version("torch"),
        "device": device,
        "processor": _processor(),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(memory * unit / 1e6),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def tell_once(text: str) -> None:
    """Print a line, at its first call; of several processes the first one does."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def _processor() -> str:
    """The processor's name."""
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


Report = Callable[[int, int, str], None]  # (done, total, a few words)
MakeProgress = Callable[[str], Report]  # of a named task
LINES = 10  # where nothing can be redrawn, a task writes about this many lines


class Progress:
    """``progress(done, total, text)`` of a task: a live bar, or some ten lines in a log or file."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.first: int | None = None  # what was done at the first call, where the clock starts
        self.started = 0.0
        self.bar, self.shown = None, -1

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """Show how far the task is; of several processes the first one does."""
        if os.environ.get("RANK", "0") != "0":
            return
        if self.first is None:
            self.first, self.started = done, time.monotonic()
        # A terminal redraws; so does JupyterLab, whose server names its kernels' sessions.
        if "JPY_SESSION_NAME" in os.environ or (not _in_kernel() and sys.stderr.isatty()):
            self._draw(done, total, text)
        elif (step := done * LINES // max(total, 1)) > self.shown:
            self.shown = step
            self._print(done, total, text)

    def _draw(self, done: int, total: int, text: str) -> None:
        if self.bar is None:
            # A notebook paints stderr red; in a terminal stdout is for what a command answers.
            file = sys.stdout if _in_kernel() else sys.stderr
            # Always line 0: JupyterLab does not move the cursor up to line 1.
            options = {"initial": self.first, "leave": False, "file": file, "position": 0}
            self.bar = tqdm(total=total, desc=self.title, **options)
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
        if not _in_kernel():
            return
        # Under papermill a cell's output is stored, not shown: write to the terminal too, if any.
        with suppress(OSError), open("/dev/tty", "w") as terminal:
            terminal.write(f"\r{line}\x1b[K\n")


def _in_kernel() -> bool:
    return "ipykernel" in sys.modules

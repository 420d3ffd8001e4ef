"""Where things lie, and how a file comes to lie there whole.

Three environment variables move things: ``STADLIB_RESULTS`` (records, checkpoints, logs),
``STADLIB_DATA`` (rendered worlds, caches, datasets) and ``STADLIB_SCALE`` (a notebook's scale).
Nothing depends on the current directory.
"""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from pathlib import Path

import platformdirs

_CHECKOUT = Path(__file__).resolve().parents[1]


def results_dir() -> Path:
    """The folder of published, reference and own results: ``results/`` of the checkout.

    Installed without a checkout, a folder of the user's data takes its place.
    """
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
    """``paper`` or ``reference`` of the checkout: committed numbers, which nothing moves."""
    return _CHECKOUT / "results" / kind


def data_dir() -> Path:
    """Rendered worlds, pretrained backbones and datasets; default: the user's cache folder."""
    if named := os.environ.get("STADLIB_DATA"):
        return Path(named).expanduser().resolve()
    return Path(platformdirs.user_cache_dir("stadlib"))


@contextmanager
def written_whole(path: Path):
    """Yield a temporary path beside ``path``; it takes ``path``'s name only when all went well.

    A reader sees the old file or the new one, never half of one, and a kill leaves at most a
    stray temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` at once (see :func:`written_whole`)."""
    data = content.encode() if isinstance(content, str) else content
    with written_whole(path) as temporary:
        temporary.write_bytes(data)

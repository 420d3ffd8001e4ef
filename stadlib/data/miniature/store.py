"""A rendered folder appears whole or not at all, rendered by several processes at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import cv2

from stadlib.config import InputError
from stadlib.data.miniature.spec import WorldSpec

Progress = Callable[[int, int], None]
_MAX_WORKERS = 8


def _seal(part: str, spec: WorldSpec) -> dict:
    return json.loads(json.dumps({"part": part, "spec": asdict(spec)}))


def is_complete(root: Path, part: str, spec: WorldSpec) -> bool:
    """Whether ``root`` already holds this part of this world.

    Raises:
        InputError: ``root`` holds something else.
    """
    if not root.exists():
        return False
    try:
        seal = json.loads((root / "world.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        seal = {}
    if any(seal.get(key) != value for key, value in _seal(part, spec).items()):
        raise InputError(f"{root}: not the miniature {part} asked for; remove it or name another")
    return True


@contextmanager
def rendered_whole(root: Path, part: str, spec: WorldSpec) -> Iterator[Path]:
    """A folder to write into, which becomes ``root`` at the end.

    Two processes may render at once: each has its own folder and the first to finish wins. What a
    killed process left behind is swept away by the next one on the same machine.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    folder = root.with_name(f".{root.name}.{os.getpid()}.rendering")
    folder.mkdir()
    try:
        yield folder
        text = json.dumps(_seal(part, spec), indent=1)
        (folder / "world.json").write_text(text + "\n", encoding="utf-8")
        try:
            folder.rename(root)
        except OSError:  # another process was faster
            if not is_complete(root, part, spec):
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    for folder in root.parent.glob(f".{root.name}.*.rendering"):
        pid = int(folder.name.split(".")[-2])
        try:
            os.kill(pid, 0)
            alive = pid != os.getpid()
        except ProcessLookupError:
            alive = False
        except PermissionError:
            alive = True
        if not alive:
            shutil.rmtree(folder, ignore_errors=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: what this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_thread() -> None:
    cv2.setNumThreads(1)


def in_parallel(
    task: Callable, jobs: Sequence, workers: int | None, progress: Progress | None
) -> list:
    """``[task(job) for job in jobs]`` in ``workers`` processes, in order.

    ``task`` must be importable; it is sent to fresh (spawned) processes, which is safe from
    notebooks and after a GPU has been touched.
    """
    workers = workers or min(_MAX_WORKERS, _cores())
    results = []
    if workers == 1:
        before = cv2.getNumThreads()
        _one_thread()
        try:
            _collect(map(task, jobs), len(jobs), results, progress)
        finally:
            cv2.setNumThreads(before)
        return results
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        chunk = max(1, min(8, len(jobs) // (4 * workers)))
        _collect(pool.map(task, jobs, chunksize=chunk), len(jobs), results, progress)
    return results


def _collect(made: Iterator, total: int, results: list, progress: Progress | None) -> None:
    for result in made:
        results.append(result)
        if progress is not None:
            progress(len(results), total)

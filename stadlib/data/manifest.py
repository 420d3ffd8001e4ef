"""``manifest.json``: what lies in a dataset's folders, measured once and again where changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stadlib.config import InputError
from stadlib.data.frame_index import frame_index
from stadlib.data.inventory import found_videos
from stadlib.data.layout import SOURCES, AvaLayout
from stadlib.paths import write_whole

SAVE_EVERY = 200  # files; whoever is interrupted loses no more than these

Progress = Callable[[int, int, str], None]


def manifest_path(layout: AvaLayout) -> Path:
    """Where a dataset's manifest lies."""
    return layout.root / "manifest.json"


def update_manifest(layout: AvaLayout, progress: Progress, checksums: bool = False) -> list[str]:
    """Measure every annotation file and video that is new or changed; write the manifest whole.

    An entry, by path under the root: ``bytes``, ``modified`` (ns), of a readable video
    ``duration`` (s), ``frames``, ``width`` and ``height``, of an unreadable one ``problem``, and
    ``sha256`` where asked for. Interrupted, the next call goes on.

    Args:
        layout: the dataset.
        progress: called with (files done, all, "files").
        checksums: add SHA-256 to the entries that lack it; if none does, read every file again
            and compare.

    Returns:
        A line for every unreadable video and every file whose checksum is another than noted.

    Raises:
        InputError: the manifest that is there cannot be read.
    """
    path = manifest_path(layout)
    known, entries = _read(path), {}
    files = sorted(file for file in layout.annotation_folder.glob("*") if file.is_file())
    files += [file for source in SOURCES for file in found_videos(layout, source).values()]
    names = [file.relative_to(layout.root).as_posix() for file in files]
    compare = checksums and all("sha256" in known.get(name, {}) for name in names)
    problems = []

    def measured(name: str) -> dict:
        return _entry(layout.root / name, known.get(name, {}), checksums, compare)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, (name, entry) in enumerate(zip(names, pool.map(measured, names), strict=True), 1):
            changed = compare and entry["sha256"] != known[name]["sha256"]
            if changed:
                problems.append(f"{layout.root / name}: another content than noted; fetch it again")
            if "problem" in entry:
                problems.append(entry["problem"])
            entries[name] = known[name] if changed else entry
            if done % SAVE_EVERY == 0:
                _write(path, known | entries)
            progress(done, len(names), "files")
    _write(path, entries)
    return problems


def _entry(path: Path, known: dict, checksums: bool, compare: bool) -> dict:
    """What is to be said of a file; nothing is measured again that has not changed."""
    stat = path.stat()
    same = {"bytes": stat.st_size, "modified": stat.st_mtime_ns}
    if all(known.get(name) == value for name, value in same.items()):
        entry = dict(known)
    else:
        entry = same | (_measures(path) if path.parent.parent.name == "videos" else {})
    if checksums and (compare or "sha256" not in entry):
        with path.open("rb") as file:
            entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return entry


def _measures(path: Path) -> dict:
    try:
        info = frame_index(path).info
    except InputError as error:
        return {"problem": str(error)}
    size = {"width": info.width, "height": info.height}
    return {"duration": round(info.duration, 6), "frames": info.num_frames, **size}


def _read(path: Path) -> dict[str, dict]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text())["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a manifest ({error}); delete it") from error


def _write(path: Path, entries: dict[str, dict]) -> None:
    write_whole(path, json.dumps({"files": entries}, indent=1, sort_keys=True) + "\n")

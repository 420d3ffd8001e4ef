"""A file of the table, fetched when asked: resumable, verified, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

import torch

from stadlib.config import InputError
from stadlib.models import backbones
from stadlib.progress import Report as Progress
from stadlib.weights.loading import Report, read_backbone
from stadlib.weights.sources import Source

_CHUNK = 1 << 20  # bytes that are read at once
_PATIENCE = 60  # seconds without a byte


def fetch(row: Source, progress: Progress) -> Report:
    """Download a row's file unless it is there, and see that it fits its network.

    Args:
        row: of the table.
        progress: is told bytes done and in all.

    Raises:
        InputError: no connection, a wrong hash, or weights that don't fit (the file stays, its
            bytes are the published ones as far as one can tell).
    """
    if not row.path.is_file():
        download(row.url, row.path, row.sha256, progress)
    with torch.device("meta"):
        network = _network(row.backbone)
    return read_backbone(network, row.path)[1]


def _network(name: str) -> backbones.Backbone:
    family, depth = name.rsplit("-", 1)
    return {"slowfast": backbones.slowfast, "ir-csn": backbones.csn}[family](int(depth))


def download(url: str, path: Path, sha256: str, progress: Progress) -> None:
    """Fetch a file into ``path`` by way of ``path`` + ``.part``, going on where one was cut off.

    Args:
        url: of the file.
        path: gets its name only when its size and hash are right.
        sha256: the first digits of the file's hash, or nothing if unknown.
        progress: is told bytes done and in all.

    Raises:
        InputError: one line with the URL and the place for the file.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        total = _receive(url, part, progress)
    except (OSError, http.client.HTTPException) as error:  # urllib's errors are OSErrors
        raise InputError(
            f"{url}: not fetched ({error}); try again later (it goes on where it stopped), "
            f"or fetch it elsewhere and put it at {path}"
        ) from None
    size = part.stat().st_size
    if total is not None and size < total:
        raise InputError(f"{url}: cut off after {size} of {total} bytes; run again to go on")
    _verify(part, url, sha256)
    os.replace(part, path)


def _receive(url: str, part: Path, progress: Progress) -> int | None:
    """Append what is missing to ``part``; the whole file's size in bytes, if the server says it."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return _unless_too_long(part, start, error.headers.get("Content-Range", ""))
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0  # the server sends everything again
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress(file.tell(), total or file.tell(), "bytes")
    return total


def _unless_too_long(part: Path, size: int, content_range: str) -> int:
    """There is nothing behind what we have: the file is complete, or is another one by now."""
    total = content_range.rpartition("/")[2]
    if total.isdigit() and int(total) == size:
        return size
    part.unlink()
    raise OSError("the file has changed since the first part was fetched, which is dropped")


def _verify(part: Path, url: str, sha256: str) -> None:
    """Refuse, and drop, a file with another hash, with which every further try would begin."""
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(sha256):
        part.unlink()
        raise InputError(
            f"{url}: SHA-256 begins {found[: len(sha256)]}, published is {sha256}; the file was "
            f"dropped; run again, or put the right one at {part.with_suffix('')}"
        )

"""Public weights of backbones and of whole detectors: the table of files, and fetching one.

``published.csv`` was written down from the publishers' own lists: pytorchvideo's ``models/hub`` and
model zoo, mmaction2's ``configs/recognition/csn`` and ``configs/detection/slowonly``, VMZ's
``pt/vmz/models/utils.py`` (the digits behind ``f`` in its file names are no hash), torchvision's
``swin_transformer.py``, transformers' VideoPrism. Each file comes
under its publisher's licence. A download resumes and is verified as far as a hash is published.
"""

from __future__ import annotations

import csv
import hashlib
import os
import urllib.request
from dataclasses import dataclass
from http.client import PARTIAL_CONTENT, REQUESTED_RANGE_NOT_SATISFIABLE, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from stadlib.base import InputError, pretrained_dir
from stadlib.base import Report as Progress
from stadlib.recipes.experiment import Experiment

if TYPE_CHECKING:
    from stadlib.models.weights import Report


@dataclass(frozen=True)
class Published:
    """A public file of weights: a row of ``published.csv``."""

    name: str  # what ``stadlib weights NAME`` calls it
    backbone: str  # the network it fits, such as ``slowfast-101``
    pretraining: str  # what it learned on, in an experiment's words where they fit
    url: str
    sha256: str  # the first digits, as far as published; empty: not published
    inputs: str  # mean and standard deviation of bytes / 255 that it saw, a channel or for all
    publisher: str  # and licence
    frames: str  # of a whole detector of AVA's actions: its input, such as ``32x2``; else empty
    mAP: str  # of such a detector on AVA v2.2, in %, as published

    @property
    def path(self) -> Path:
        """Where the file lies once fetched, under its published name if that says what it is."""
        name = self.url.rsplit("/", 1)[-1]
        name = f"{self.name}.safetensors" if name == "model.safetensors" else name
        return pretrained_dir() / name

    @property
    def statistics(self) -> tuple[list[float], ...]:
        """Mean and standard deviation of ``inputs``."""
        return tuple([float(x) for x in numbers.split(",")] for numbers in self.inputs.split())


_TABLE = Path(__file__).with_suffix(".csv").read_text().splitlines()
PUBLISHED = tuple(Published(**row) for row in csv.DictReader(_TABLE))


DETECTORS = {row.name: row for row in PUBLISHED if row.frames}
"""The whole detectors of AVA's actions, by name."""


def find(name: str) -> Published:
    """The row of a name; an unknown one is an InputError that lists the names."""
    rows = {row.name: row for row in PUBLISHED}
    if name not in rows:
        raise InputError(f"weights {name!r}: no such row; choose from {', '.join(rows)}")
    return rows[name]


def table() -> list[str]:
    """The rows as text, three lines each."""
    lines = []
    for row in PUBLISHED:
        sha = f"sha256 {row.sha256}..." if row.sha256 else "sha256 not published"
        facts = f"{row.backbone}, {row.pretraining}; inputs {row.inputs}; {sha}; {row.publisher}"
        if row.frames:
            facts = f"detects AVA's actions from {row.frames}, {row.mAP} mAP on AVA v2.2; {facts}"
        here = "here" if row.path.is_file() else "not here"
        lines += [f"{row.name}: {facts}", f"  {row.url}", f"  {here}: {row.path}"]
    return lines


def find_pretrained(experiment: Experiment) -> tuple[Path, tuple[list[float], ...]]:
    """The first file that exists of ``NAME.safetensors``, ``NAME.pt`` and the table's files.

    With it the statistics of its inputs, where the table has them.
    """
    path = pretrained_dir() / f"{experiment.weights_name}.safetensors"
    words = experiment.backbone, experiment.pretrain
    rows = [row for row in PUBLISHED if (row.backbone, row.pretraining) == words]
    inputs = {path: (), path.with_suffix(".pt"): ()} | {row.path: row.statistics for row in rows}
    for candidate, statistics in inputs.items():
        if candidate.is_file():
            return candidate, statistics
    fetch_it = f", or run stadlib weights {rows[0].name}" if rows else ""
    raise InputError(
        f"{path}: no pretrained weights (nor {path.with_suffix('.pt').name}); "
        f"put the backbone's weights there{fetch_it}"
    )


def fetch(row: Published, progress: Progress) -> Report:
    """Download a row's file unless it is there, and check that it fits its network.

    A file that does not fit is an InputError, and stays.
    """
    import torch  # noqa: PLC0415  (the table is read without it)

    from stadlib.models import backbones, public_detectors, weights  # noqa: PLC0415

    if row.frames:
        return public_detectors.load(row, range(1, 81), progress)[1]
    if not row.path.is_file():
        download(row.url, row.path, row.sha256, progress)
    with torch.device("meta"):
        network = backbones.build(row.backbone)
    return weights.read_backbone(network, row.path, row.statistics)[1]


def download(url: str, path: Path, sha256: str, progress: Progress) -> None:
    """Fetch a file into ``path`` by way of ``path`` + ``.part``, resuming what was cut off.

    ``path`` appears only when size and the first digits of the hash (empty: unknown) are right.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        size, total = _receive(url, part, progress)
    except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
        raise InputError(
            f"{url}: not fetched ({error}); try again later (it resumes), "
            f"or fetch it elsewhere and put it at {path}"
        ) from None
    if size < total:
        raise InputError(f"{url}: cut off after {size} of {total} bytes; run again to resume")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(sha256):
        part.unlink()
        raise InputError(
            f"{url}: SHA-256 begins {found[: len(sha256)]}, published is {sha256}; the file was "
            f"dropped; run again, or put the right one at {path}"
        )
    os.replace(part, path)


def _receive(url: str, part: Path, progress: Progress) -> tuple[int, int]:
    """Append what is missing to ``part``; its size and the whole file's (0: unknown), in bytes."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # nothing lies behind it, so that it may be another file: begin again
        return _receive(url, part, progress)
    with response:
        if response.status != PARTIAL_CONTENT:
            start = 0  # the server sends everything again
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while chunk := response.read(1 << 20):
                file.write(chunk)
                progress(file.tell(), total or file.tell(), "bytes")
            return file.tell(), total

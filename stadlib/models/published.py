"""Where public backbone weights are published: the one table, and which network each fits.

Written down from the publishers' own lists: pytorchvideo's ``models/hub``, mmaction2's
``configs/recognition/csn`` (README.md and the configurations' ``pretrained``), VMZ's
``pt/vmz/models/utils.py``. No weights are part of this package.

A file of the table, fetched when asked: resumable, verified, whole or not at all.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch

from stadlib.base import InputError, data_dir
from stadlib.base import Report as Progress
from stadlib.models import networks
from stadlib.models.weights import Report, read_backbone

_PTV = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo"
_MM = "https://download.openmmlab.com/mmaction"
_VMZ = "https://github.com/bjuncek/VMZ/releases/download/test_models"


@dataclass(frozen=True)
class Source:
    """A file of weights that somebody else publishes.

    Attributes:
        name: what ``stadlib weights NAME`` calls it.
        backbone: the network it fits: ``slowfast-N`` or ``ir-csn-N``, N layers deep.
        pretraining: what it learned on, in order; an experiment's words where they fit.
        url: of the file.
        sha256: the first digits of the file's SHA-256 as far as the publisher gives them
            (mmaction2 puts eight into the file's name); empty: not published, and only names and
            shapes can be checked.
        inputs: what it saw, of bytes / 255: a mean and a standard deviation, a channel or for all.
        publisher: whose it is; the weights come under the licence of that repository.
    """

    name: str
    backbone: str
    pretraining: str
    url: str
    sha256: str
    inputs: str
    publisher: str

    @property
    def file(self) -> str:
        """The file's name as published."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def path(self) -> Path:
        """Where it lies once fetched."""
        return pretrained_dir() / self.file


_FACEBOOK = "facebookresearch/pytorchvideo, Apache-2.0"
_OPENMMLAB = "open-mmlab/mmaction2, Apache-2.0"
_KORBAR = "facebookresearch/VMZ, Apache-2.0"
_HALF = "0.45 0.225"  # as here
_KINETICS = "0.432,0.395,0.376 0.228,0.221,0.217"
_IMAGENET = "0.485,0.456,0.406 0.229,0.224,0.225"
SOURCES = (
    Source(
        "slowfast-101-8x8", "slowfast-101", "K400",
        f"{_PTV}/kinetics/SLOWFAST_8x8_R101.pyth", "", _HALF, _FACEBOOK,
    ),
    Source(
        "slowfast-101-16x8", "slowfast-101", "K400",
        f"{_PTV}/kinetics/SLOWFAST_16x8_R101_50_50.pyth", "", _HALF, _FACEBOOK,
    ),
    Source(
        "slowfast-50-ava", "slowfast-50", "K400, AVA",
        f"{_PTV}/ava/SLOWFAST_8x8_R50_DETECTION.pyth", "", _HALF, _FACEBOOK,
    ),
    Source(
        "ir-csn-101", "ir-csn-101", "K400",
        f"{_PTV}/kinetics/CSN_32x2_R101.pyth", "", _HALF, _FACEBOOK,
    ),
    Source(
        "ir-csn-152-ig65m-k400", "ir-csn-152", "K400+IG65M",
        f"{_MM}/v1.0/recognition/csn/ircsn_ig65m-pretrained-r152-bnfrozen_8xb12-32x2x1-58e_"
        "kinetics400-rgb/ircsn_ig65m-pretrained-r152-bnfrozen_8xb12-32x2x1-58e_"
        "kinetics400-rgb_20220811-7d1dacde.pth", "7d1dacde", _IMAGENET, _OPENMMLAB,
    ),
    Source(
        "ir-csn-152-ig65m-k400-vmz", "ir-csn-152", "K400+IG65M",
        f"{_VMZ}/irCSN_152_ft_kinetics_from_ig65m_f126851907.pth", "", _KINETICS, _KORBAR,
    ),
    Source(
        "ir-csn-152-ig65m", "ir-csn-152", "IG65M",
        f"{_MM}/recognition/csn/ircsn_from_scratch_r152_ig65m_20200807-771c4135.pth",
        "771c4135", _KINETICS, _OPENMMLAB,
    ),
    Source(
        "ir-csn-152-ig65m-vmz", "ir-csn-152", "IG65M",
        f"{_VMZ}/irCSN_152_ig65m_from_scratch_f125286141.pth", "", _KINETICS, _KORBAR,
    ),
    Source(
        "ir-csn-152-k400", "ir-csn-152", "K400",
        f"{_MM}/recognition/csn/vmz/"
        "vmz_ircsn_from_scratch_r152_32x2x1_180e_kinetics400_rgb_20210617-5c933ae1.pth",
        "5c933ae1", _KINETICS, _OPENMMLAB,
    ),
)  # fmt: skip
"""In VMZ's file names the digits behind ``f`` number a training run and are no hash."""


def source(name: str) -> Source:
    """The row of a name.

    Raises:
        InputError: no such row; the names are listed.
    """
    for row in SOURCES:
        if row.name == name:
            return row
    names = ", ".join(row.name for row in SOURCES)
    raise InputError(f"weights {name!r}: no such row; choose from {names}")


def pretrained_dir() -> Path:
    """Where pretrained weights lie, under the data folder."""
    return data_dir() / "pretrained"


def weights_stem(backbone: str, pretrain: str) -> str:
    """The name, before its ending, of a file of one's own with the weights of these words."""
    return f"{backbone}_{pretrain.lower()}"


def find_pretrained(backbone: str, pretrain: str) -> Path:
    """The file with the weights that an experiment's words name: the first that is there.

    ``<backbone>_<pretrain>.safetensors``, then ``.pt``, then the table's files of that network and
    pretraining under their published names, in the table's order.

    Raises:
        InputError: none is there; what to put there, or to fetch.
    """
    stem = weights_stem(backbone, pretrain)
    rows = [row for row in SOURCES if (row.backbone, row.pretraining) == (backbone, pretrain)]
    files = [f"{stem}.safetensors", f"{stem}.pt", *(row.file for row in rows)]
    for file in files:
        if (path := pretrained_dir() / file).is_file():
            return path
    fetch = f", or run stadlib weights {rows[0].name}" if rows else ""
    raise InputError(
        f"{pretrained_dir() / files[0]}: no pretrained weights (nor {files[1]}); "
        f"put the backbone's weights there{fetch}"
    )


def table() -> list[str]:
    """The rows as text: name, network, pretraining, inputs, hash, whether there, publisher, URL."""
    lines = []
    for row in SOURCES:
        sha = f"sha256 {row.sha256}..." if row.sha256 else "sha256 not published"
        where = f"here: {row.path}" if row.path.is_file() else f"not here: {row.path}"
        lines += [
            f"{row.name}: {row.backbone}, {row.pretraining}; inputs {row.inputs}; {sha}; "
            f"{row.publisher}",
            f"  {row.url}",
            f"  {where}",
        ]
    return lines


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


def _network(name: str) -> networks.Backbone:
    family, depth = name.rsplit("-", 1)
    return {"slowfast": networks.slowfast, "ir-csn": networks.csn}[family](int(depth))


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

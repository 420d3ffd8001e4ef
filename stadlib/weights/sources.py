"""Where public backbone weights are published: the one table, and which network each fits.

Written down from the publishers' own lists: pytorchvideo's ``models/hub``, mmaction2's
``configs/recognition/csn`` (README.md and the configurations' ``pretrained``), VMZ's
``pt/vmz/models/utils.py``. No weights are part of this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stadlib.config import InputError
from stadlib.paths import data_dir

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

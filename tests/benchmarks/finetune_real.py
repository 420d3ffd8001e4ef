"""Fine-tune the miniature's detector on two short real clips: does it learn real persons?

Trained on every second annotated frame of a clip, measured on the frames between. Neighbouring
frames are nearly alike, so this says that losses, sizes and decoding work on real pictures, and
nothing about persons in other videos. Expected: AP@0.5 of 90 % or more.

FOLDER holds NAME.mp4 and NAME.boxes.csv (``video,frame,x1,y1,x2,y2,action_id,person_id``; frames
counted from 0, corners as fractions of the frame). From the root of a checkout:

    uv run python tests/benchmarks/finetune_real.py FOLDER [--weights checkpoint.pt]

Measured (2026-11-25, two cores of an Intel Xeon, beside a training, the mini v3's weights, 600
iterations, 171 held-out frames): AP@0.5 100.0 % on fencing, 95.5 % on salsa_spin, 98.3 % on both.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from stadlib.base import Progress
from stadlib.data.batches import GlobalBatches
from stadlib.data.clips import Picture, PictureDataset, as_lists
from stadlib.data.rows import COLUMNS
from stadlib.data.video import probe
from stadlib.evaluation.average_precision import person_ap
from stadlib.models.person_detector import gfocal_mini
from stadlib.training.detector import detection_loss
from stadlib.training.loop import Schedule, fit

CLIPS = ("fencing", "salsa_spin")
SHORT_SIDES, LONG_SIDE = (144, 160, 176, 160), 280
BATCH = 8
_CORNERS = ["x1", "y1", "x2", "y2"]


def annotated(folder: Path, name: str) -> list[Picture]:
    """The annotated frames of a clip, in order."""
    path = folder / f"{name}.mp4"
    index = probe(path)
    seconds = index.seconds
    rows = pd.read_csv(folder / f"{name}.boxes.csv")
    return [
        Picture(path, float(seconds[frame]), own[_CORNERS].to_numpy(np.float32))
        for frame, own in rows.groupby("frame")
    ]


def train(model: nn.Module, pictures: list[Picture], iterations: int, lr: float) -> None:
    """Seeded SGD with the study's one loop; nothing is kept but the model."""

    def batches(start: int) -> Iterable:
        order = GlobalBatches(len(pictures), BATCH, seed=0, start=start, stop=iterations)
        return DataLoader(PictureDataset(pictures), batch_sampler=order, collate_fn=as_lists)

    schedule = Schedule(iterations=iterations, lr=lr, drop=0.3, weight_decay=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model.train(),
            detection_loss,
            batches,
            schedule,
            folder=Path(folder),
            digest="finetune-real",
            progress=Progress("fine-tune"),
        )


@torch.inference_mode()
def measure(model: nn.Module, pictures: list[Picture]) -> dict[str, float]:
    """AP of the detector's boxes."""
    model.eval()
    truth, boxes = [], []
    for picture in pictures:
        frame = picture.read()
        (found,) = model([frame.float() / 255])
        size = torch.tensor([*frame.shape[:0:-1]] * 2)  # width, height, width, height
        where = (picture.path.stem, picture.time)
        truth += [(*where, *box, 1, 1.0) for box in picture.boxes.tolist()]
        corners = (found["boxes"] / size).tolist()
        scores = found["scores"].tolist()
        boxes += [(*where, *b, 0, score) for b, score in zip(corners, scores, strict=True)]
    frames = [pd.DataFrame(rows, columns=list(COLUMNS)) for rows in (truth, boxes)]
    return person_ap(*frames)


def main() -> None:
    """Train and print AP, of each clip and of both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="of the clips and their boxes")
    parser.add_argument("--weights", type=Path, help="checkpoint of the mini detector to start on")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--lr", type=float, default=0.01)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = gfocal_mini(SHORT_SIDES, LONG_SIDE)
    if options.weights:
        content = torch.load(options.weights, map_location="cpu", weights_only=True)
        model.load_state_dict(content["model"])
    clips = {name: annotated(options.folder, name) for name in CLIPS}
    train(model, [p for some in clips.values() for p in some[::2]], options.iterations, options.lr)
    held_out = {name: some[1::2] for name, some in clips.items()}
    held_out["both"] = [picture for some in held_out.values() for picture in some]
    for name, pictures in held_out.items():
        found = measure(model, pictures)
        values = (f"{key} {100 * found[key]:.2f}" for key in ("AP@0.5", "AP@0.75", "AP@0.5:0.95"))
        print(f"{name}: {', '.join(values)} %, {len(pictures)} frames")


if __name__ == "__main__":
    main()

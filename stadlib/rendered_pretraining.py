"""Pretraining at the miniature scales, on the rendered set that stands for Kinetics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from stadlib import build, config, processes
from stadlib.config import Experiment
from stadlib.data.classification import ClassificationDataset, read_list
from stadlib.data.sampling import GlobalBatches
from stadlib.data.transforms import HSVJitter
from stadlib.paths import write_whole
from stadlib.pretraining import classification_loss
from stadlib.progress import MakeProgress
from stadlib.train import Schedule, fit
from stadlib.weights.sources import pretrained_dir


def pretrain_rendered(
    experiment: Experiment, rendered: Callable[[], Path], progress: MakeProgress
) -> None:
    """Train the backbone as a classifier, or finish doing so, and measure it.

    Several processes each take whole batches: the same steps as one alone, whose batch norms see
    all clips, so that rows don't depend on how many processes were the first to need the weights.

    Args:
        experiment: of a miniature scale.
        rendered: gives the set's folder; called only if something is left to do.
        progress: makes the progress of a named task.
    """
    folder = pretrained_folder(experiment)  # of checkpoint.pt, log.jsonl, accuracy.json
    if (folder / "accuracy.json").exists():
        return
    root = rendered()
    name = pretraining_set(experiment)
    rows = {split: read_list(root / f"{name}_{split}.csv") for split in ("train", "val")}
    num_classes = 1 + max(label for _, label in rows["train"])
    torch.manual_seed(0)
    model = build.classifier(experiment, num_classes).to(processes.device()).train()
    dataset = _dataset(experiment, root, rows["train"], train=True)
    numbers = build.numbers(experiment)
    schedule = Schedule(
        iterations=numbers.pretrain_iterations, lr=numbers.pretrain_lr, drop=0.3, weight_decay=1e-4
    )
    fit(
        model,
        classification_loss,
        lambda start: _batches(experiment, dataset, start, schedule.iterations),
        schedule,
        folder=folder,
        digest=pretraining_digest(experiment),
        progress=progress(f"pretrain {experiment.backbone} on {name}"),
    )
    accuracy = _accuracy(model, _dataset(experiment, root, rows["val"], train=False))
    if processes.rank() == 0:
        content = {"classes": num_classes, "top1": accuracy}
        write_whole(folder / "accuracy.json", json.dumps(content) + "\n")


def pretrained_folder(experiment: Experiment) -> Path:
    """Where these weights lie, those of no other training."""
    family = experiment.backbone.split("-")[0]
    name = f"{family}-{pretraining_set(experiment)}-{pretraining_digest(experiment)}"
    return pretrained_dir() / name


def pretraining_digest(experiment: Experiment) -> str:
    """Of everything that decides the pretrained weights: rows that share it share them."""
    scale = build.numbers(experiment)
    return config.digest(
        {
            "backbone": experiment.backbone.split("-")[0],
            "set": pretraining_set(experiment),
            "scale": [scale.world_version, scale.backbone, scale.pretrain_side],
            "numbers": [scale.pretrain_iterations, scale.pretrain_batch, scale.pretrain_lr],
        }
    )


def pretraining_set(experiment: Experiment) -> str:
    """The rendered set that stands for the paper's; nothing stands for IG65M."""
    return "k700" if experiment.pretrain == "K700" else "k400"


def _dataset(
    experiment: Experiment, folder: Path, rows: list, train: bool
) -> ClassificationDataset:
    """Square clips of the classification set, at the same frame interval as the detector's."""
    side = build.numbers(experiment).pretrain_side
    steps = [v2.Resize((side, side), antialias=True)]
    if train:  # little augmentation: the training is too short to overfit
        steps = [
            v2.Resize((side * 9 // 8, side * 9 // 8), antialias=True),
            v2.RandomCrop(side),
            v2.RandomHorizontalFlip(),
            HSVJitter(hue=20, saturation=0.1, value=0.1),
        ]
    clip = build.sampling(experiment)
    return ClassificationDataset(
        folder,
        rows,
        num_frames=clip.num_frames,
        interval=clip.interval,
        transform=v2.Compose(steps),
    )


def _batches(
    experiment: Experiment, dataset: ClassificationDataset, start: int, stop: int
) -> DataLoader:
    """Shuffled batches of the classification set; always seed 0, since all rows share it."""
    batch = build.numbers(experiment).pretrain_batch
    order = GlobalBatches(len(dataset), batch, seed=0, start=start, stop=stop)
    return build.loader(dataset, experiment, batch_sampler=order)


@torch.inference_mode()
def _accuracy(model: nn.Module, dataset: ClassificationDataset) -> float:
    """Share of validation clips whose class scores highest."""
    model.eval()
    where = next(model.parameters()).device
    right = 0
    for index in range(len(dataset)):
        clip, label = dataset[index, 0]
        right += int(model(clip[None].to(where)).argmax()) == label
    return round(right / len(dataset), 4)

"""What a run stands on: its dataset, rendered if need be, and its pretrained backbone."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from stadlib import build, processes
from stadlib.config import Experiment, InputError
from stadlib.data import miniature
from stadlib.data.classification import ClassificationDataset, read_list
from stadlib.data.layout import AvaLayout
from stadlib.paths import data_dir, write_whole
from stadlib.progress import MakeProgress
from stadlib.train import Schedule, fit, read_weights
from stadlib.weights.loading import read_backbone
from stadlib.weights.sources import find_pretrained, pretrained_dir


def prepare_data(experiment: Experiment, progress: MakeProgress) -> AvaLayout:
    """The experiment's dataset; a miniature world is rendered if it isn't there yet.

    Raises:
        InputError: real data that is not on disk.
    """
    if experiment.dataset:
        return AvaLayout(experiment.dataset)
    if experiment.scale == "paper":
        root = data_dir() / "ava-kinetics"
        if not root.is_dir():
            raise InputError(
                f"{root}: no such folder; put AVA-Kinetics there in the layout that the README "
                "describes, or set STADLIB_DATA to the folder above it"
            )
        return AvaLayout(root)
    return AvaLayout(render(experiment.scale, "world", progress))


def render(scale: str, part: str, progress: MakeProgress) -> Path:
    """The folder of a miniature's part, rendered at first use: world, pretraining or stills."""
    spec = {"smoke": miniature.SMOKE, "mini": miniature.MINI}[scale]
    root = data_dir() / f"miniature-{spec.digest}" / part
    if processes.rank() == 0:
        renderer = {
            "world": miniature.render_world,
            "pretraining": miniature.render_pretraining,
            "stills": miniature.render_stills,
        }
        renderer[part](root, spec, progress=progress(f"render {scale} {part}"))
        if part == "world":
            miniature.write_person_boxes(root, spec)
    processes.barrier()
    return root


def pretrained_backbone(experiment: Experiment, progress: MakeProgress) -> dict:
    """Weights of a backbone that learned to classify clips (paper section 3.1, "Backbone").

    At the miniature scales it learns so here, once for all rows that share it; at paper scale
    its weights are read from the data folder, under the names of any library that is known.

    Raises:
        InputError: no such weights at paper scale, or weights of another network.
    """
    if experiment.scale == "paper":
        with torch.device("meta"):  # its names and shapes; the values are the file's
            network = build.backbone(experiment)
        path = find_pretrained(experiment.backbone, experiment.pretrain)
        weights, report = read_backbone(network, path)
        if processes.rank() == 0:
            print("\n".join(report.lines()), flush=True)
        return weights
    digest = build.pretraining_digest(experiment)
    name = f"{experiment.backbone.split('-')[0]}-{build.pretraining_set(experiment)}-{digest}"
    folder = pretrained_dir() / name
    if processes.rank() == 0:
        _pretrain(experiment, folder, digest, progress)
    processes.barrier()
    weights = read_weights(folder / "checkpoint.pt", digest)["model"]
    prefix = "backbone."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _pretrain(experiment: Experiment, folder: Path, digest: str, progress: MakeProgress) -> None:
    """Train the backbone as a classifier, or finish doing so, and measure it."""
    if (folder / "accuracy.json").exists():
        return
    root = render(experiment.scale, "pretraining", progress)
    name = build.pretraining_set(experiment)
    rows = {split: read_list(root / f"{name}_{split}.csv") for split in ("train", "val")}
    num_classes = 1 + max(label for _, label in rows["train"])
    torch.manual_seed(0)
    model = build.classifier(experiment, num_classes).to(processes.device()).train()
    dataset = build.pretraining_dataset(experiment, root, rows["train"], train=True)
    numbers = build.numbers(experiment)
    schedule = Schedule(
        iterations=numbers.pretrain_iterations, lr=numbers.pretrain_lr, drop=0.3, weight_decay=1e-4
    )
    fit(
        model,
        classification_loss,
        lambda start: build.pretraining_batches(experiment, dataset, start, schedule.iterations),
        schedule,
        folder=folder,
        digest=digest,
        progress=progress(f"pretrain {experiment.backbone} on {name}"),
    )
    validation = build.pretraining_dataset(experiment, root, rows["val"], train=False)
    accuracy = {"classes": num_classes, "top1": _accuracy(model, validation)}
    write_whole(folder / "accuracy.json", json.dumps(accuracy) + "\n")


def classification_loss(model: nn.Module, batch: list) -> tuple[torch.Tensor, int]:
    """Cross-entropy summed over clips."""
    where = next(model.parameters()).device
    clips, labels = (part.to(where) for part in batch)
    return F.cross_entropy(model(clips), labels, reduction="sum"), len(labels)


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

"""From an experiment to metrics: data, pretraining, the stages one after the other, evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from stadlib import build, evaluate, metrics, processes
from stadlib.config import Experiment, InputError, Stage
from stadlib.data import miniature
from stadlib.data.annotations import Keyframe, read_keyframes, require_agreement
from stadlib.data.classification import ClassificationDataset, read_list
from stadlib.data.clips import Batch
from stadlib.data.layout import AvaLayout
from stadlib.labels import LabelMap
from stadlib.models.action_detector import ActionDetector
from stadlib.paths import data_dir, write_whole
from stadlib.train import Schedule, fit, read_weights

SOURCES = ("ava", "kinetics")
MakeProgress = Callable[[str], Callable[[int, int, str], None]]


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
    """The folder of a miniature's part ("world" or "pretraining"), rendered at the first use."""
    spec = {"smoke": miniature.SMOKE, "mini": miniature.MINI}[scale]
    root = data_dir() / f"miniature-{spec.digest}" / part
    if processes.rank() == 0:
        renderer = {"world": miniature.render_world, "pretraining": miniature.render_pretraining}
        renderer[part](root, spec, progress=progress(f"render {scale} {part}"))
    processes.barrier()
    return root


@dataclass(frozen=True)
class Run:
    """One experiment on its way: what is run, on which data, where its files go."""

    experiment: Experiment
    layout: AvaLayout
    folder: Path
    progress: MakeProgress


def run_stages(run: Run) -> dict:
    """Pretrain (or reuse), train every stage, evaluate; returns the metrics of a record."""
    experiment = run.experiment
    for source in SOURCES:
        require_agreement(run.layout, source)
    weights = pretrained_backbone(experiment, run.progress)
    torch.manual_seed(experiment.seed)  # after pretraining, whose length must not matter
    model = build.action_detector(experiment, run.layout.label_map().num_actions)
    model.backbone.load_state_dict(weights)
    model.to(processes.device())
    for number, stage in enumerate(experiment.stages, 1):
        _train_stage(run, stage, number, model)
    return _evaluate(run, model)


def _train_stage(run: Run, stage: Stage, number: int, model: ActionDetector) -> None:
    experiment = run.experiment
    keyframes = annotated(run.layout, stage.data, "train")
    dataset = build.train_dataset(experiment, run.layout, keyframes)
    model.train()
    fit(
        model,
        action_loss,
        lambda start: build.train_batches(experiment, stage, dataset, start),
        Schedule(
            iterations=stage.iterations,
            lr=stage.lr,
            drop=stage.drop,
            weight_decay=stage.weight_decay,
            seed=experiment.seed,
        ),
        folder=run.folder / f"stage{number}",
        digest=f"{experiment.digest}/stage{number}",
        progress=run.progress(f"train {experiment.head}"),
    )


def annotated(layout: AvaLayout, sources: Iterable[str], split: str) -> list[Keyframe]:
    """The keyframes with persons of the sources that the dataset has, one list after the other."""
    lists = [
        read_keyframes(layout, source, split)
        for source in sources
        if layout.annotations(source, split).exists()
    ]
    keyframes = [keyframe for part in lists for keyframe in part if len(keyframe.boxes)]
    if not keyframes:
        raise InputError(f"{layout.annotation_folder}: no annotated {split} keyframe; add some")
    return keyframes


def action_loss(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, int]:
    """Binary cross-entropy over all actions, summed over persons (SlowFast, AlphAction)."""
    where = next(model.parameters()).device
    batch = batch.to(where)
    logits_NA = model(batch.clips_BCTHW, batch.boxes_N4, batch.counts_B, *_remembered(model, batch))
    loss = F.binary_cross_entropy_with_logits(logits_NA, batch.actions_NA, reduction="none")
    return loss.mean(dim=1).sum(), len(logits_NA)


def _remembered(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Nobody yet: there is no memory bank. DDP keeps the model in ``module``."""
    return getattr(model, "module", model).empty_memory(batch.counts_B)


def pretrained_backbone(experiment: Experiment, progress: MakeProgress) -> dict:
    """Weights of a backbone that learned to classify clips (paper section 3.1, "Backbone").

    At the miniature scales it learns so here, once for all rows that share it; at paper scale
    its state dict is read from the data folder.

    Raises:
        InputError: no such weights at paper scale.
    """
    folder = data_dir() / "pretrained"
    if experiment.scale == "paper":
        path = folder / f"{experiment.backbone}_{experiment.pretrain.lower()}.pt"
        if not path.is_file():
            raise InputError(f"{path}: no pretrained weights; put the backbone's state dict there")
        return torch.load(path, map_location="cpu", weights_only=True)
    digest = build.pretraining_digest(experiment)
    folder /= f"{experiment.backbone.split('-')[0]}-{build.pretraining_set(experiment)}-{digest}"
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


def _evaluate(run: Run, model: ActionDetector) -> dict:
    """Score the validation boxes, write the detection files, measure them."""
    keyframes = annotated(run.layout, SOURCES, "val")
    labels = run.layout.label_map()
    rows = evaluate.score_persons(
        model,
        build.test_batches(run.experiment, run.layout, keyframes),
        labels,
        total=len(keyframes[processes.rank() :: processes.num_processes()]),
        progress=run.progress(f"evaluate {run.experiment.head}"),
    )
    return measure(rows, run.layout, labels, run.folder)


def measure(rows: pd.DataFrame, layout: AvaLayout, labels: LabelMap, folder: Path) -> dict:
    """Write one detection file a source and return frame mAPs by source and jointly."""
    sources = [name for name in SOURCES if (rows["source"] == name).any()]
    detections = {name: folder / f"detections_{name}.csv" for name in sources}
    if processes.rank() == 0:
        for name, path in detections.items():
            evaluate.write_detections(rows[rows["source"] == name], path)
    processes.barrier()
    truths = {name: _groundtruth(layout, name) for name in sources}
    return evaluate.frame_maps(truths, detections, labels)


def _groundtruth(layout: AvaLayout, source: str) -> pd.DataFrame:
    """The validation rows of a source without its excluded timestamps, which nobody scores."""
    rows = metrics.read_rows(layout.annotations(source, "val"))
    excluded = layout.excluded(source, "val")
    keys = zip(rows["video"], rows["timestamp"].astype(float).map("{:.6f}".format), strict=True)
    return rows[[key not in excluded for key in keys]]

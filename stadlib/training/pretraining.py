"""A pretraining on Kinetics' files before it begins: lists, videos, numbers, and where all lies.

A backbone learns to classify Kinetics' clips from real files (paper section 3.1, "Backbone").

The rendered set of the miniature scales is :mod:`.preparation`'s; both train through ``fit``. Here
the numbers are those of :mod:`.pretraining_recipes`, and what comes out is a file of weights where
runs at paper scale look for it.

Several processes share every global batch. **Batch norms train on each process's own clips** (with
``accumulate`` on those of one turn), as SlowFast's do: 8 clips on each of 8 GPUs, as published. So
the weights depend a little on how a batch is shared, and a record says by how many processes.

Pretraining at the miniature scales, on the rendered set that stands for Kinetics.

What a run stands on: its dataset, rendered if need be, and its pretrained backbone.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from stadlib import base
from stadlib.base import InputError, MakeProgress, Report, data_dir, digest, provenance, write_whole
from stadlib.data.batches import GlobalBatches
from stadlib.data.kinetics import (
    SPLITS,
    Annotations,
    ClassificationDataset,
    LabelledVideos,
    RandomClips,
    TestViews,
    Unreadable,
    listed_videos,
    missing_videos,
    read_annotations,
    read_list,
    some,
)
from stadlib.data.layout import AvaLayout
from stadlib.data.transforms import HSVJitter
from stadlib.models.heads import set_share
from stadlib.models.networks import Classifier
from stadlib.models.published import find_pretrained, pretrained_dir, weights_stem
from stadlib.models.weights import read_backbone, save_backbone
from stadlib.recipes.experiment import USUAL, Execution, Experiment
from stadlib.recipes.scales import RECIPES, PretrainingRecipe
from stadlib.training import build, processes
from stadlib.training.loop import Schedule, fit, read_weights
from stadlib.world import sets
from stadlib.world import spec as world_spec


@dataclass(frozen=True)
class Pretraining:
    """What a backbone learns from, how, and where the outcome lies.

    Attributes:
        experiment: its backbone, pretrain, frames, scale and seed count, nothing else.
        recipe: the numbers.
        annotations: of the folder of Kinetics.
        videos: by split, those that are there.
        iterations: of training.
        digest: of everything that decides the weights but how processes share a batch and which
            videos were there: these are listed once, in ``folder``.
    """

    experiment: Experiment
    recipe: PretrainingRecipe
    annotations: Annotations
    videos: dict[str, LabelledVideos]
    iterations: int
    digest: str

    @property
    def folder(self) -> Path:
        """Checkpoint, log and lists of videos."""
        return _folder(self.experiment, self.digest)

    @property
    def weights(self) -> Path:
        """The file that runs look for."""
        return pretrained_dir() / f"{_stem(self.experiment)}.safetensors"

    @property
    def record(self) -> Path:
        """Accuracy and provenance, beside the weights."""
        return pretrained_dir() / f"{_stem(self.experiment)}.accuracy.json"

    @property
    def unreadable(self) -> Path:
        """The list of files that could not be read."""
        return self.folder / "unreadable.txt"

    def missing(self, split: str) -> list[str]:
        """The videos of a split that its list has and that are not there."""
        return missing_videos(self.annotations, split, self.videos[split])

    def lines(self) -> list[str]:
        """What is there in words; files that cannot be read show only as they are read."""
        lines = []
        for split in SPLITS:
            names, of = self.missing(split), len(self.annotations.rows[split])
            lines.append(f"{self.annotations.root}: {of - len(names)} of {of} {split} videos")
            if names:
                lines[-1] += f"; missing and left out: {some(names)}"
        return lines

    def finished(self) -> dict | None:
        """The record, if the weights are those of this pretraining.

        Raises:
            InputError: there are other weights in their place.
        """
        if not self.weights.is_file():
            return None
        text = self.record.read_text() if self.record.is_file() else "{}"
        if f'"digest": "{self.digest}"' in text:
            return json.loads(text)
        raise InputError(
            f"{self.weights}: already there, and not of this training; move it away to train again"
        )


def _stem(experiment: Experiment) -> str:
    """Weights of a small network never bear the name of the paper's."""
    stem = weights_stem(experiment.backbone, experiment.pretrain)
    return stem if experiment.scale == "paper" else f"{stem}_{experiment.scale}"


def _folder(experiment: Experiment, made: str) -> Path:
    return pretrained_dir() / f"{_stem(experiment)}-{made}"


def open_pretraining(
    experiment: Experiment, root: Path, iterations: int | None = None
) -> Pretraining:
    """Read the lists and see which videos are there, once; no video is opened.

    Args:
        experiment: see :class:`Pretraining`.
        root: a folder in Kinetics' form, see :mod:`stadlib.data.kinetics`.
        iterations: instead of the recipe's epochs.

    Raises:
        InputError: a list that is missing or wrong, or no video at all.
    """
    annotations = read_annotations(root)
    recipe = RECIPES[experiment.scale]
    words = ("backbone", "pretrain", "frames", "scale", "seed")
    made = digest(
        {name: getattr(experiment, name) for name in words}
        | {"recipe": asdict(recipe), "iterations": iterations, "lists": annotations.digest}
    )
    if processes.rank() == 0:
        for split, there in _listed(annotations, _folder(experiment, made)).items():
            names = missing_videos(annotations, split, there)
            path = _folder(experiment, made) / f"{split}_missing.txt"
            write_whole(path, "".join(f"{name}\n" for name in names))
    processes.barrier()
    videos = _listed(annotations, _folder(experiment, made))
    usual = max(1, round(recipe.epochs * len(videos["train"]) / recipe.batch))
    return Pretraining(experiment, recipe, annotations, videos, iterations or usual, made)


def _listed(annotations: Annotations, folder: Path) -> dict[str, LabelledVideos]:
    return {
        split: listed_videos(annotations, split, folder / f"{split}_videos.csv") for split in SPLITS
    }


TOP = 5


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(Schedule):
    """A learning rate that rises in a line and falls by half a cosine to 0 (SlowFast).

    Attributes:
        warm_up: share of the iterations in which it rises, up to what the cosine has come to then.
        warm_up_lr: where it begins.
    """

    warm_up: float
    warm_up_lr: float

    def lr_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        share = iteration / self.iterations
        lr = self.lr * (1 + math.cos(math.pi * max(share, self.warm_up))) / 2
        if share >= self.warm_up:
            return lr
        return self.warm_up_lr + (lr - self.warm_up_lr) * share / self.warm_up


def pretrain(plan: Pretraining, progress: MakeProgress, execution: Execution = USUAL) -> dict:
    """Train the backbone, or finish doing so, measure it, and write its weights.

    Args:
        plan: see :func:`.pretraining_plan.open_pretraining`.
        progress: makes the progress of a named task.
        execution: how it is computed; ``recompute`` and ``compile`` have no say here.

    Returns:
        The record: ``top1`` and ``top5`` are shares of the validation videos that could be read.

    Raises:
        InputError: other weights are in the place of these, or nothing can be read.
    """
    if found := plan.finished():
        return found
    started, where = time.monotonic(), processes.device()
    if processes.rank() == 0:
        print("\n".join(plan.lines()), flush=True)
    torch.manual_seed(plan.experiment.seed)
    classes = len(plan.annotations.classes)
    model = build.classifier(plan.experiment, classes, plan.recipe.dropout).to(where).train()
    half = _half(plan.experiment, execution)
    _train(plan, model, half, execution, progress)
    _settle(plan, model, half, execution.accumulate)
    accuracy = _measure(plan, model, half, progress(f"classify {plan.annotations.root.name}"))
    record = _record(plan, accuracy, provenance(str(where), time.monotonic() - started))
    if processes.rank() == 0:
        write_whole(plan.record, json.dumps(record, indent=1) + "\n")
        save_backbone(model, plan.weights, pretraining=plan.experiment.pretrain)
    processes.barrier()
    return record


def _record(plan: Pretraining, accuracy: dict, origin: dict) -> dict:
    words = ("backbone", "pretrain", "frames", "scale", "seed")
    return {
        **{word: getattr(plan.experiment, word) for word in words},
        "digest": plan.digest,
        "iterations": plan.iterations,
        "classes": len(plan.annotations.classes),
        **accuracy,
        "training_videos": len(plan.videos["train"]),
        "missing": {split: len(plan.missing(split)) for split in SPLITS},
        "unreadable": len(Unreadable(plan.unreadable).names()),
        "provenance": {**origin, "processes": processes.num_processes()},
    }


def _half(experiment: Experiment, execution: Execution) -> bool:
    """Whether the network computes in bfloat16 where that is safe, as in :mod:`.workspace`."""
    large = experiment.scale == "paper" and processes.device().type == "cuda"
    return execution.precision == "bfloat16" or (execution.precision == "auto" and large)


def _order(plan: Pretraining, start: int, stop: int, accumulate: int) -> GlobalBatches:
    return GlobalBatches(
        len(plan.videos["train"]),
        plan.recipe.batch,
        seed=plan.experiment.seed,
        start=start,
        stop=stop,
        rank=processes.rank(),
        num_processes=processes.num_processes(),
        accumulate=accumulate,
    )


def _clips(plan: Pretraining, order: GlobalBatches) -> Iterable[list[torch.Tensor]]:
    """This process's shares of batches: random clips (B, 3, T, H, W) and class ids (B,)."""
    dataset = RandomClips(
        plan.videos["train"],
        build.sampling(plan.experiment),
        short_sides=plan.recipe.short_sides,
        crop=plan.recipe.crop,
        unreadable=Unreadable(plan.unreadable),
    )
    return build.loader(dataset, plan.experiment, batch_sampler=order)


def _train(
    plan: Pretraining, model: Classifier, half: bool, execution: Execution, progress: MakeProgress
) -> None:
    recipe = plan.recipe

    def batches(start: int) -> Iterable:
        order = _order(plan, start, plan.iterations, execution.accumulate)
        shares = order.shares([1] * len(plan.videos["train"]))
        return zip(_clips(plan, order), shares, strict=True)

    schedule = CosineSchedule(
        iterations=plan.iterations,
        lr=recipe.lr,
        warm_up=recipe.warm_up,
        warm_up_lr=recipe.warm_up_lr,
        weight_decay=recipe.weight_decay,
        seed=plan.experiment.seed,
    )
    fit(
        model,
        _share_loss,
        batches,
        schedule,
        folder=plan.folder,
        digest=plan.digest,
        progress=progress(f"pretrain {plan.experiment.backbone} on {plan.experiment.pretrain}"),
        accumulate=execution.accumulate,
        half=half,
        save_every=execution.save_every,
    )


def _share_loss(model: nn.Module, part: tuple) -> tuple[torch.Tensor, int]:
    """The loss of a share of a batch; its clips get their part of the batch's dropout."""
    batch, share = part
    set_share(model, share.rows, share.total)
    return classification_loss(model, batch)


def classification_loss(model: nn.Module, batch: list) -> tuple[torch.Tensor, int]:
    """Cross-entropy summed over clips."""
    where = next(model.parameters()).device
    clips, labels = (part.to(where, non_blocking=True) for part in batch)
    return F.cross_entropy(model(clips), labels, reduction="sum"), len(labels)


@torch.no_grad()
def _settle(plan: Pretraining, model: Classifier, half: bool, accumulate: int) -> None:
    """Take batch norms' statistics over the batches that would come next, weights at rest.

    SlowFast does so (``BN.USE_PRECISE_STATS``), since averages that ran along with training lag
    behind it and are of one process's clips; here they are the mean over processes. Detection
    freezes them as they are.
    """
    set_share(model, (), 0)
    order = _order(plan, plan.iterations, plan.iterations + plan.recipe.settling, accumulate)
    with processes.autocast(half):
        update_bn(_clips(plan, order), model, processes.device())
    if processes.num_processes() == 1:
        return
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm3d):
            for statistic in (norm.running_mean, norm.running_var):
                distributed.all_reduce(statistic)
                statistic.div_(processes.num_processes())


@torch.inference_mode()
def _measure(plan: Pretraining, model: Classifier, half: bool, progress: Report) -> dict:
    """How often the right class is among the first, by probabilities averaged over views."""
    recipe, videos, where = plan.recipe, plan.videos["val"], processes.device()
    views = TestViews(
        videos,
        build.sampling(plan.experiment),
        side=recipe.test_side,
        num_clips=recipe.test_clips,
        num_crops=recipe.test_crops,
        unreadable=Unreadable(plan.unreadable),
    )
    own = range(processes.rank(), len(videos), processes.num_processes())
    items = [i * recipe.test_clips + k for i in own for k in range(recipe.test_clips)]
    model.eval()
    counts, scores = Counter(), 0.0
    for done, (clips, label) in enumerate(
        build.loader(views, plan.experiment, batch_size=None, sampler=items), 1
    ):
        if len(clips):
            with processes.autocast(half):
                logits = model(clips.to(where))
            scores = scores + logits.float().softmax(dim=1).sum(dim=0)
        if done % recipe.test_clips == 0 and torch.is_tensor(scores):
            best = scores.topk(min(TOP, len(scores))).indices.tolist()
            counts += Counter(videos=1, top1=best[0] == label, top5=label in best)
            scores = 0.0
        progress(done, len(items), "")
    seen = processes.total(counts["videos"], where)
    if not seen:
        raise InputError(f"{plan.unreadable}: no validation video can be read; reasons there")
    shares = {name: processes.total(counts[name], where) / seen for name in ("top1", "top5")}
    return {
        **{name: round(share, 4) for name, share in shares.items()},
        "validation_videos": int(seen),
        "views": [recipe.test_clips, recipe.test_crops],
    }


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
    return base.digest(
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
            HSVJitter(),
        ]
    return ClassificationDataset(folder, rows, build.sampling(experiment), v2.Compose(steps))


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
    spec = {"smoke": world_spec.SMOKE, "mini": world_spec.MINI}[scale]
    root = data_dir() / f"miniature-{spec.digest}" / part
    if processes.rank() == 0:
        sets.render(root, part, spec, progress=progress(f"render {scale} {part}"))
        if part == "world":
            sets.write_person_boxes(root, spec)
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
    rendered = partial(render, experiment.scale, "pretraining", progress)
    pretrain_rendered(experiment, rendered, progress)
    path = pretrained_folder(experiment) / "checkpoint.pt"
    weights = read_weights(path, pretraining_digest(experiment))["model"]
    prefix = "backbone."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}

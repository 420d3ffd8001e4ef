"""A backbone learns to classify clips before it detects actions (paper section 3.1, "Backbone").

The data lie in Kinetics' layout: real files, or at the miniature scales the set that the world
renders. The numbers are the scale's :class:`~stadlib.recipes.scales.PretrainingRecipe`. What comes
out is a file of weights that runs start from.

Several processes share every global batch. **Batch norms train on each process's own clips** (with
``accumulate`` on those of one turn), as SlowFast's do: 8 clips on each of 8 GPUs, as published. So
the weights depend a little on how a batch is shared, and a record says by how many processes. With
``whole_batches``, at the miniature scales, every process computes all of a batch instead.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from stadlib.base import InputError, MakeProgress, Report, data_dir, digest, provenance, write_whole
from stadlib.data.batches import GlobalBatches
from stadlib.data.kinetics import (
    SPLITS,
    Annotations,
    LabelledVideos,
    RandomClips,
    TestViews,
    Unreadable,
    listed_videos,
    missing_videos,
    read_annotations,
    some,
)
from stadlib.data.layout import AvaLayout
from stadlib.models.heads import set_share
from stadlib.models.networks import Classifier
from stadlib.models.published import find_pretrained, pretrained_dir, weights_stem
from stadlib.models.weights import read_backbone, save_backbone
from stadlib.recipes.experiment import USUAL, Execution, Experiment
from stadlib.recipes.scales import RECIPES, PretrainingRecipe
from stadlib.training import build, processes
from stadlib.training.loop import Schedule, fit
from stadlib.world import MINI, SMOKE, sets

WORLDS = {"smoke": SMOKE, "mini": MINI}
WORDS = ("backbone", "pretrain", "frames", "scale", "seed")  # of an experiment that count here
TOP = 5


@dataclass(frozen=True)
class Pretraining:
    """What a backbone learns from, how, and where the outcome lies.

    Attributes:
        experiment: its backbone, pretrain, frames, scale and seed count, nothing else.
        root: a folder in Kinetics' layout, see :mod:`stadlib.data.kinetics`.
        rendered: whether it is the world's, which is rendered when something is left to do.
        asked: iterations instead of the recipe's number.
        digest: of everything that decides the weights but how processes share a batch and which
            videos were there: these are listed once, in ``folder``.
    """

    experiment: Experiment
    root: Path
    rendered: bool
    asked: int | None
    digest: str

    @property
    def recipe(self) -> PretrainingRecipe:
        """The numbers of the scale."""
        return RECIPES[self.experiment.scale]

    @property
    def folder(self) -> Path:
        """Checkpoint, log and lists of videos."""
        stem = weights_stem(self.experiment.backbone, self.experiment.pretrain)
        return pretrained_dir() / f"{stem}_{self.experiment.scale}-{self.digest}"

    @property
    def weights(self) -> Path:
        """At paper scale where runs look for them; those of small networks stay in ``folder``."""
        if self.experiment.scale != "paper":
            return self.folder / "backbone.safetensors"
        stem = weights_stem(self.experiment.backbone, self.experiment.pretrain)
        return pretrained_dir() / f"{stem}.safetensors"

    @property
    def record(self) -> Path:
        """Accuracy and provenance, beside the weights."""
        return self.weights.with_suffix(".accuracy.json")

    @property
    def unreadable(self) -> Path:
        """The list of files that could not be read."""
        return self.folder / "unreadable.txt"

    @cached_property
    def annotations(self) -> Annotations:
        """The lists of ``root``."""
        return read_annotations(self.root)

    @cached_property
    def videos(self) -> dict[str, LabelledVideos]:
        """By split, those that are there; the first process lists them, once."""
        if processes.rank() == 0:
            for split in SPLITS:
                listed = listed_videos(self.annotations, split, self.folder / f"{split}_videos.csv")
                names = missing_videos(self.annotations, split, listed)
                path = self.folder / f"{split}_missing.txt"
                write_whole(path, "".join(f"{name}\n" for name in names))
        processes.barrier()
        return {
            split: listed_videos(self.annotations, split, self.folder / f"{split}_videos.csv")
            for split in SPLITS
        }

    @property
    def iterations(self) -> int:
        """Of training."""
        recipe = self.recipe
        epochs = max(1, round(recipe.epochs * len(self.videos["train"]) / recipe.batch))
        return self.asked or recipe.iterations or epochs

    def missing(self, split: str) -> list[str]:
        """The videos of a split that its list has and that are not there."""
        return missing_videos(self.annotations, split, self.videos[split])

    def lines(self) -> list[str]:
        """What is there in words; files that cannot be read show only as they are read."""
        lines = []
        for split in SPLITS:
            names, of = self.missing(split), len(self.annotations.rows[split])
            lines.append(f"{self.root}: {of - len(names)} of {of} {split} videos")
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


def open_pretraining(
    experiment: Experiment, root: Path | None = None, iterations: int | None = None
) -> Pretraining:
    """A pretraining on a folder, or on the rendered set; no video is opened.

    The lists of a folder are read at once. The rendered set is known by its spec. Its weights are
    shared by all rows of a family and a set, so they are learned at one input and one seed.

    Args:
        experiment: see :class:`Pretraining`.
        root: a folder in Kinetics' layout; None: the rendered set of a miniature scale.
        iterations: instead of the recipe's.

    Raises:
        InputError: a list that is missing or wrong, or no video at all.
    """
    rendered = root is None
    if rendered:
        slowfast = experiment.backbone.startswith("slowfast")
        experiment = Experiment(
            backbone="slowfast-152" if slowfast else "ir-csn-152",
            pretrain="K700" if experiment.pretrain == "K700" else "K400",  # none is for IG65M
            frames="8x8+32x2" if slowfast else "32x2",
            scale=experiment.scale,
        )
        root = _part(experiment.scale, f"kinetics-{experiment.pretrain[1:]}")
    lists = f"{root.parent.name}/{root.name}" if rendered else read_annotations(root).digest
    content = {name: getattr(experiment, name) for name in WORDS}
    content |= {"recipe": asdict(RECIPES[experiment.scale]), "iterations": iterations}
    plan = Pretraining(experiment, root, rendered, iterations, digest(content | {"lists": lists}))
    if not rendered and not plan.videos:  # listed here, so that a mistake shows at once
        raise InputError(f"{root}: no videos")
    return plan


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
        plan: see :func:`open_pretraining`.
        progress: makes the progress of a named task.
        execution: how it is computed; ``recompute`` and ``compile`` have no say here.

    Returns:
        The record: ``top1`` and ``top5`` are shares of the validation videos that could be read.

    Raises:
        InputError: other weights are in the place of these, or nothing can be read.
    """
    if record := plan.finished():
        return record
    started, device = time.monotonic(), processes.device()
    if plan.rendered:
        render(plan.experiment.scale, plan.root.name, progress)
    elif processes.rank() == 0:
        print("\n".join(plan.lines()), flush=True)
    torch.manual_seed(plan.experiment.seed)
    classes = len(plan.annotations.classes)
    model = build.classifier(plan.experiment, classes, plan.recipe.dropout).to(device).train()
    half = _half(plan.experiment, execution)
    _train(plan, model, half, execution, progress)
    _settle(plan, model, half, execution.accumulate)
    accuracy = _measure(plan, model, half, progress(f"classify {plan.root.name}"))
    record = _record(plan, accuracy, provenance(str(device), time.monotonic() - started))
    if processes.rank() == 0:
        write_whole(plan.record, json.dumps(record, indent=1) + "\n")
        save_backbone(model, plan.weights, pretraining=plan.experiment.pretrain)
    processes.barrier()
    return record


def _record(plan: Pretraining, accuracy: dict, origin: dict) -> dict:
    return {
        **{word: getattr(plan.experiment, word) for word in WORDS},
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
    """Whether the network computes in bfloat16 where that is safe."""
    large = experiment.scale == "paper" and processes.device().type == "cuda"
    return execution.precision == "bfloat16" or (execution.precision == "auto" and large)


def _order(plan: Pretraining, start: int, stop: int, accumulate: int) -> GlobalBatches:
    alone = plan.recipe.whole_batches
    return GlobalBatches(
        len(plan.videos["train"]),
        plan.recipe.batch,
        seed=plan.experiment.seed,
        start=start,
        stop=stop,
        rank=0 if alone else processes.rank(),
        num_processes=1 if alone else processes.num_processes(),
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
        small=plan.recipe.small,
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
    device = next(model.parameters()).device
    clips, labels = (part.to(device, non_blocking=True) for part in batch)
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
    if processes.num_processes() == 1 or plan.recipe.whole_batches:
        return
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm3d):
            for statistic in (norm.running_mean, norm.running_var):
                distributed.all_reduce(statistic)
                statistic.div_(processes.num_processes())


@torch.inference_mode()
def _measure(plan: Pretraining, model: Classifier, half: bool, progress: Report) -> dict:
    """How often the right class is among the first, by probabilities averaged over views."""
    recipe, videos, device = plan.recipe, plan.videos["val"], processes.device()
    views = TestViews(
        videos,
        build.sampling(plan.experiment),
        side=recipe.test_side,
        num_clips=recipe.test_clips,
        num_crops=recipe.test_crops,
        unreadable=Unreadable(plan.unreadable),
        small=recipe.small,
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
                logits = model(clips.to(device))
            scores = scores + logits.float().softmax(dim=1).sum(dim=0)
        if done % recipe.test_clips == 0 and torch.is_tensor(scores):
            best = scores.topk(min(TOP, len(scores))).indices.tolist()
            counts += Counter(videos=1, top1=best[0] == label, top5=label in best)
            scores = 0.0
        progress(done, len(items), "")
    seen = processes.total(counts["videos"], device)
    if not seen:
        raise InputError(f"{plan.unreadable}: no validation video can be read; reasons there")
    shares = {name: processes.total(counts[name], device) / seen for name in ("top1", "top5")}
    return {
        **{name: round(share, 4) for name, share in shares.items()},
        "validation_videos": int(seen),
        "views": [recipe.test_clips, recipe.test_crops],
    }


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
    """The folder of a miniature's part (see :func:`.sets.render`), rendered at first use."""
    root, spec = _part(scale, part), WORLDS[scale]
    if processes.rank() == 0:
        sets.render(root, part, spec, progress=progress(f"render {scale} {part}"))
        if part == "world":
            sets.write_person_boxes(root, spec)
    processes.barrier()
    return root


def _part(scale: str, part: str) -> Path:
    return data_dir() / f"miniature-{WORLDS[scale].digest}" / part


def pretrained_backbone(experiment: Experiment, progress: MakeProgress) -> dict:
    """Weights of a backbone that learned to classify clips.

    At the miniature scales it learns so here, once for all rows that share it; at paper scale
    its weights are read from the data folder, under the names of any library that is known.

    Raises:
        InputError: no such weights at paper scale, or weights of another network.
    """
    paper = experiment.scale == "paper"
    if paper:
        path = find_pretrained(experiment.backbone, experiment.pretrain)
    else:
        plan = open_pretraining(experiment)
        pretrain(plan, progress)
        path = plan.weights
    with torch.device("meta"):  # its names and shapes; the values are the file's
        network = build.backbone(experiment)
    weights, report = read_backbone(network, path)
    if paper and processes.rank() == 0:
        print("\n".join(report.lines()), flush=True)
    return weights

"""A backbone learns to classify Kinetics' clips from real files (paper section 3.1, "Backbone").

The rendered set of the miniature scales is :mod:`.preparation`'s; both train through ``fit``. Here
the numbers are those of :mod:`.pretraining_recipes`, and what comes out is a file of weights where
runs at paper scale look for it.

Several processes share every global batch. **Batch norms train on each process's own clips** (with
``accumulate`` on those of one turn), as SlowFast's do: 8 clips on each of 8 GPUs, as published. So
the weights depend a little on how a batch is shared, and a record says by how many processes.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from stadlib import build, processes
from stadlib.config import Experiment, InputError
from stadlib.data.kinetics import SPLITS
from stadlib.data.kinetics_clips import RandomClips, TestViews, Unreadable
from stadlib.data.sampling import GlobalBatches
from stadlib.execution import USUAL, Execution
from stadlib.models.backbones import Classifier
from stadlib.models.dropout import set_share
from stadlib.paths import write_whole
from stadlib.pretraining_plan import Pretraining
from stadlib.progress import MakeProgress, Report
from stadlib.records import provenance
from stadlib.train import Schedule, fit
from stadlib.weights.files import save_backbone

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

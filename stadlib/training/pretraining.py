"""A backbone learns to classify clips before it detects actions (paper section 3.1, "Backbone").

The data lie in Kinetics' layout: real files, or the set that the world renders. Several processes
share every batch, and **batch norms train on each one's own clips**, as SlowFast's do (8 clips on
each of 8 GPUs). With ``whole_batches``, at the miniature scales, each computes all of a batch.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from stadlib import base
from stadlib.base import InputError, MakeProgress, Report, data_dir, digest, write_whole
from stadlib.data import kinetics
from stadlib.data.batches import GlobalBatches
from stadlib.data.kinetics import Annotations, LabelledVideos, Unreadable
from stadlib.data.layout import AvaLayout
from stadlib.models.heads import set_share
from stadlib.models.networks import Classifier
from stadlib.models.published import find_pretrained
from stadlib.models.weights import read_backbone, round_weights, save_backbone, state_digest
from stadlib.recipes.experiment import INPUTS, USUAL, Execution, Experiment, own_backbone
from stadlib.recipes.scales import RECIPES, SCALES
from stadlib.training import build, processes
from stadlib.training.loop import Schedule, fit
from stadlib.world import MINI, SMOKE, WorldSpec

WORLDS = {"smoke": SMOKE, "mini": MINI}
WORDS = ("backbone", "pretrain", "frames", "scale", "seed")  # of an experiment that count here
NETWORKS = 2  # version of what backbones compute: SlowFast's slow frames, ir-CSN's strides
TOP = 5


class Pretraining:
    """What a backbone learns from, how, and where the result lies; no video is opened.

    ``root`` is a folder in Kinetics' layout; None is the rendered set of a miniature scale, whose
    weights are shared by all rows of a family and a seed: one input. The ``digest`` is of all that
    decides the weights but the sharing of batches and the videos on disk. A list that is missing or
    wrong, or no video at all, is an InputError.
    """

    def __init__(
        self, experiment: Experiment, root: Path | None = None, iterations: int | None = None
    ) -> None:
        if own_backbone(experiment.backbone):
            raise InputError(
                f"{experiment.backbone}: its function returns its weights; train there"
            )
        self.rendered, self.asked = root is None, iterations
        if self.rendered:
            name = experiment.backbone
            name = "slowfast-152" if name.startswith("slowfast") else name
            frames = INPUTS[name][0]
            data = "K700" if experiment.pretrain == "K700" else "K400"  # none is for IG65M
            words = {"scale": experiment.scale, "seed": experiment.seed}
            experiment = Experiment(backbone=name, pretrain=data, frames=frames, **words)
            root = _part(experiment, f"kinetics-{experiment.pretrain[1:]}")
        self.experiment, self.root = experiment, root
        self.recipe = RECIPES[experiment.scale]
        content = {name: getattr(experiment, name) for name in WORDS}
        content |= {"recipe": asdict(self.recipe), "iterations": iterations, "networks": NETWORKS}
        rendered = f"{root.parent.name}/{root.name}"
        content["lists"] = rendered if self.rendered else self.annotations.digest
        self.digest = digest(content)
        name = experiment.weights_name
        self.name = f"{name}_{experiment.scale}_seed{experiment.seed}-{self.digest}"
        self.folder = base.pretrained_dir() / self.name
        self.weights = self.folder / "backbone.safetensors"
        if experiment.scale == "paper":  # where runs look for them
            self.weights = base.pretrained_dir() / f"{name}.safetensors"
        self.record = self.weights.with_suffix(".accuracy.json")
        # Those that are part of the study.
        self.published = base.published_dir("reference") / "weights" / f"{self.name}.safetensors"
        self.unreadable = self.folder / "unreadable.txt"  # the list of these files
        if not self.rendered and not self.videos:  # listed here, so that a mistake shows at once
            raise InputError(f"{root}: no videos")

    @cached_property
    def annotations(self) -> Annotations:
        """The lists of ``root``."""
        return kinetics.read_annotations(self.root)

    @cached_property
    def videos(self) -> dict[str, LabelledVideos]:
        """By split, those on disk; the first process lists them, once."""
        files = {split: self.folder / f"{split}_videos.csv" for split in kinetics.SPLITS}
        if processes.rank() == 0:
            for split, file in files.items():
                kinetics.listed_videos(self.annotations, split, file)
        processes.barrier()
        return {s: kinetics.listed_videos(self.annotations, s, file) for s, file in files.items()}

    @property
    def iterations(self) -> int:
        """Of training."""
        recipe = self.recipe
        epochs = max(1, round(recipe.epochs * len(self.videos["train"]) / recipe.batch))
        return self.asked or recipe.iterations or epochs

    def finished(self) -> dict | None:
        """The record, if the weights are those of this pretraining; others are an InputError."""
        if not self.weights.is_file():
            return None
        text = self.record.read_text() if self.record.is_file() else "{}"
        if f'"digest": "{self.digest}"' in text:
            return json.loads(text)
        raise InputError(
            f"{self.weights}: already there, and not of this training; move it away to train again"
        )


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(Schedule):
    """A learning rate that rises in a line and falls by half a cosine to 0 (SlowFast)."""

    warm_up: float  # share of the iterations in which it rises, up to the cosine's value there
    warm_up_lr: float  # from here

    def lr_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        share = iteration / self.iterations
        lr = self.lr * (1 + math.cos(math.pi * max(share, self.warm_up))) / 2
        if share >= self.warm_up:
            return lr
        return self.warm_up_lr + (lr - self.warm_up_lr) * share / self.warm_up


def pretrain(plan: Pretraining, progress: MakeProgress, execution: Execution = USUAL) -> dict:
    """Train the backbone, or finish doing so, measure it, and write its weights.

    Returns the record, whose ``top1`` and ``top5`` are shares of the readable validation videos.
    ``recompute`` and ``compile`` of the execution have no effect here.
    """
    if record := plan.finished():
        return record
    started, device, experiment = time.monotonic(), processes.device(), plan.experiment
    if plan.rendered:
        render(experiment, plan.root.name, progress)
    lists, videos = plan.annotations, plan.videos
    missing = {
        split: kinetics.missing_videos(lists, split, videos[split]) for split in kinetics.SPLITS
    }
    if processes.rank() == 0:
        for split, names in missing.items():
            write_whole(plan.folder / f"{split}_missing.txt", "".join(f"{n}\n" for n in names))
            of, left_out = len(lists.rows[split]), f"; missing and left out: {base.some(names)}"
            if not plan.rendered:
                line = f"{plan.root}: {of - len(names)} of {of} {split} videos"
                print(line + left_out * bool(names), flush=True)
    torch.manual_seed(experiment.seed)
    model = build.classifier(experiment, len(lists.classes), plan.recipe.dropout)
    model = model.to(device).train()
    large = experiment.scale == "paper" and device.type == "cuda"
    half = execution.precision == "bfloat16" or (execution.precision == "auto" and large)
    _train(plan, model, half, execution, progress)
    if plan.rendered:  # the study keeps its weights in half precision; their numbers are of these
        round_weights(model.backbone)
    _settle(plan, model, half, execution)
    accuracy = _measure(plan, model, half, execution, progress(f"classify {plan.root.name}"))
    origin = base.provenance(str(device), time.monotonic() - started)
    record = {
        **{word: getattr(experiment, word) for word in WORDS},
        "digest": plan.digest,
        "iterations": plan.iterations,
        "classes": len(lists.classes),
        **accuracy,
        "training_videos": len(videos["train"]),
        "missing": {split: len(names) for split, names in missing.items()},
        "unreadable": len(Unreadable(plan.unreadable).names()),
        "provenance": {**origin, "processes": processes.num_processes()},
    }
    if processes.rank() == 0:
        write_whole(plan.record, json.dumps(record, indent=1) + "\n")
        kept = {"pretraining": experiment.pretrain, "half": plan.rendered}
        save_backbone(model, plan.weights, **kept)
    processes.barrier()
    return record


def _clips(
    plan: Pretraining, start: int, stop: int, execution: Execution
) -> tuple[Iterable, Iterable]:
    """This process's random clips (B, 3, T, H, W) with class ids (B,), and its shares (dropout)."""
    recipe, videos = plan.recipe, plan.videos["train"]
    options = {"seed": plan.experiment.seed, "accumulate": execution.accumulate}
    if not recipe.whole_batches:
        options |= {"rank": processes.rank(), "num_processes": processes.num_processes()}
    order = GlobalBatches(len(videos), recipe.batch, start=start, stop=stop, **options)
    sampling, unreadable = build.sampling(plan.experiment), Unreadable(plan.unreadable)
    sizes = recipe.short_sides, recipe.crop
    dataset = kinetics.RandomClips(videos, sampling, *sizes, unreadable, recipe.small)
    loader = build.loader(dataset, plan.experiment, execution.workers, batch_sampler=order)
    return loader, order.shares([1] * len(videos))


def _train(
    plan: Pretraining, model: Classifier, half: bool, execution: Execution, progress: MakeProgress
) -> None:
    def batches(start: int) -> Iterable:
        return zip(*_clips(plan, start, plan.iterations, execution), strict=True)

    def share_loss(model: nn.Module, part: tuple) -> tuple[torch.Tensor, int]:
        batch, share = part
        set_share(model, share.rows, share.total)
        copies = processes.num_processes() if plan.recipe.whole_batches else 1
        return classification_loss(model, batch), copies * share.total

    names = ("lr", "warm_up", "warm_up_lr", "weight_decay", "clip")
    numbers = {name: getattr(plan.recipe, name) for name in names}
    schedule = CosineSchedule(iterations=plan.iterations, seed=plan.experiment.seed, **numbers)
    options = {"accumulate": execution.accumulate, "save_every": execution.save_every}
    title = f"pretrain {plan.experiment.backbone} on {plan.experiment.pretrain}"
    options |= {"half": half, "progress": progress(title)}
    fit(model, share_loss, batches, schedule, folder=plan.folder, digest=plan.digest, **options)


def classification_loss(model: nn.Module, batch: list) -> torch.Tensor:
    """Cross-entropy summed over clips."""
    device = next(model.parameters()).device
    clips, labels = (part.to(device, non_blocking=True) for part in batch)
    return F.cross_entropy(model(clips), labels, reduction="sum")


@torch.no_grad()
def _settle(plan: Pretraining, model: Classifier, half: bool, execution: Execution) -> None:
    """Take batch norms' statistics over the batches that would come next, weights at rest.

    SlowFast does so (``BN.USE_PRECISE_STATS``): running averages lag behind training and are of one
    process's clips. Here they are the mean over processes. Detection freezes them as they are.
    """
    set_share(model, (), 0)
    start, stop = plan.iterations, plan.iterations + plan.recipe.settling
    with processes.autocast(half):
        update_bn(_clips(plan, start, stop, execution)[0], model, processes.device())
    if processes.num_processes() == 1 or plan.recipe.whole_batches:
        return
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm3d):
            for statistic in (norm.running_mean, norm.running_var):
                distributed.all_reduce(statistic, group=processes.gradient_group())
                statistic.div_(processes.num_processes())


@torch.inference_mode()
def _measure(
    plan: Pretraining, model: Classifier, half: bool, execution: Execution, progress: Report
) -> dict:
    """How often the right class is among the first, by probabilities averaged over views."""
    recipe, videos, device = plan.recipe, plan.videos["val"], processes.device()
    sampling, unreadable = build.sampling(plan.experiment), Unreadable(plan.unreadable)
    sizes = recipe.test_side, recipe.test_clips, recipe.test_crops
    views = kinetics.TestViews(videos, sampling, *sizes, unreadable, recipe.small)
    share = range(processes.rank(), len(videos), processes.num_processes())
    items = [i * recipe.test_clips + k for i in share for k in range(recipe.test_clips)]
    options = {"batch_size": None, "sampler": items}
    loader = build.loader(views, plan.experiment, execution.workers, **options)
    model.eval()
    counts, scores = Counter(), 0.0
    for done, (clips, label) in enumerate(loader, 1):
        if len(clips):
            with processes.autocast(half):
                logits = model(clips.to(device))
            scores = scores + logits.float().softmax(dim=1).sum(dim=0)
        if done % recipe.test_clips == 0 and torch.is_tensor(scores):
            best = scores.topk(min(TOP, len(scores))).indices.tolist()
            counts += Counter(videos=1, top1=best[0] == label, top5=label in best)
            scores = 0.0
        progress(done, len(items), "")
    seen, *right = (processes.total(counts[n]) for n in ("videos", "top1", "top5"))
    if not seen:
        raise InputError(f"{plan.unreadable}: no validation video can be read; reasons there")
    top1, top5 = (round(count / seen, 4) for count in right)
    measured = {"top1": top1, "top5": top5, "validation_videos": int(seen)}
    return measured | {"views": [recipe.test_clips, recipe.test_crops]}


def prepare_data(experiment: Experiment, progress: MakeProgress, split: str = "val") -> AvaLayout:
    """The experiment's dataset; a miniature world is rendered at first use, and apart its test."""
    if experiment.dataset:
        return AvaLayout(experiment.dataset)
    if experiment.scale != "paper":
        return AvaLayout(render(experiment, "test" if split == "test" else "world", progress))
    if not (root := data_dir() / "ava-kinetics").is_dir():
        remedy = "put AVA-Kinetics there (see the README), or set STADLIB_DATA to the folder above"
        raise InputError(f"{root}: no such folder; {remedy}")
    return AvaLayout(root)


def render(experiment: Experiment, part: str, progress: MakeProgress) -> Path:
    """The folder of a part (see :func:`.sets.render`) of a seed's world, rendered at first use."""
    root, spec = _part(experiment, part), world(experiment)
    if processes.rank() == 0 and not (root / "world.json").exists():
        from stadlib.world import sets  # noqa: PLC0415  (what draws is not needed again)

        sets.render(root, part, spec, progress=progress(f"render {experiment.scale} {part}"))
        known = base.published_dir("reference") / "weights" / "worlds.json"
        expected = json.loads(known.read_text()) if known.is_file() else {}
        if expected.get(f"{root.parent.name}/{part}", made := world_hash(root)) != made:
            print(
                f"{root}: its pixels or labels are not those of the reference (another library or "
                "processor drew them); results differ a little",
                flush=True,
            )
    processes.barrier()
    return root


def world_hash(root: Path) -> str:
    """Of the pixels and labels of a rendered part."""
    return json.loads((root / "world.json").read_text())["sha256"][:12]


def world(experiment: Experiment) -> WorldSpec:
    """The miniature world of an experiment's seed."""
    number = experiment.seed % SCALES[experiment.scale].worlds
    return replace(WORLDS[experiment.scale], seed=number)


def _part(experiment: Experiment, part: str) -> Path:
    return data_dir() / f"miniature-{world(experiment).digest}" / part


def pretrained_backbone(experiment: Experiment, progress: MakeProgress) -> tuple[dict, dict]:
    """Weights of a backbone that learned to classify clips, and what is known of them.

    At the miniature scales they are part of the study, or learned here, once for all rows that
    share them. At paper scale they are read from the data folder, under the names of any known
    library; a backbone of one's own brings its weights. Known are the ``backbone``'s hash and,
    where it was measured, ``top1``.
    """
    paper, inputs = experiment.scale == "paper", ()
    if own_backbone(experiment.backbone):
        weights = build.backbone(experiment).state_dict()
        return weights, {"backbone": state_digest(weights)}
    if paper:
        path, inputs = find_pretrained(experiment)
    else:
        plan = Pretraining(experiment)
        if experiment.weights == "anew" or not (path := plan.published).is_file():
            pretrain(plan, progress)
            path = plan.weights
    with torch.device("meta"):  # its names and shapes; the values are the file's
        network = build.backbone(experiment)
    weights, report = read_backbone(network, path, inputs)
    if paper and processes.rank() == 0:
        print("\n".join(report.lines()), flush=True)
    known = {"backbone": state_digest(weights)}
    if not paper:
        known["top1"] = json.loads(path.with_suffix(".accuracy.json").read_text())["top1"]
    return weights, known

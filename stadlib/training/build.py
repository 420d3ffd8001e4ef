"""Experiment in, objects out: the only file that reads a config and makes models and loaders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from stadlib.base import InputError
from stadlib.data import clips
from stadlib.data.batches import GlobalBatches, batches_by_size, make_draw
from stadlib.data.keyframes import Keyframe
from stadlib.data.layout import AvaLayout, LabelMap
from stadlib.data.transforms import test_transform, train_transform
from stadlib.models import backbones, heads, networks
from stadlib.models.action_detector import ActionDetector, ActionLoss
from stadlib.models.roi_fusion import Fusion, RoIAlign3d, Unfused
from stadlib.recipes.experiment import Experiment, Stage
from stadlib.recipes.scales import SCALES, Scale
from stadlib.training import processes

TEST_BATCH = 8  # clips at a time in testing, each in several views; more do not fit a GPU
AVERAGED = {"s-only": ("T",), "t-only": ("H", "W")}  # paper section 2.2


def numbers(experiment: Experiment) -> Scale:
    """The scale's numbers of an experiment."""
    return SCALES[experiment.scale]


def sampling(experiment: Experiment) -> clips.Sampling:
    """Frames of a clip; of SlowFast's two inputs the fast one, which contains the slow one."""
    scale = numbers(experiment)
    num_frames, stride = map(int, experiment.frames.split("+")[-1].split("x"))
    return clips.Sampling(num_frames // scale.frame_divisor, stride / scale.frame_rate)


def backbone(experiment: Experiment, detection: bool = True) -> networks.Backbone:
    """The backbone at its scale's size; the paper's strides as Kinetics' without ``detection``."""
    mini = numbers(experiment).backbone == "mini"
    return backbones.build(experiment.backbone, mini=mini, detection=detection)


def classifier(experiment: Experiment, classes: int, dropout: float = 0.0) -> networks.Classifier:
    """The backbone under a classification head, for pretraining; its batch norms train."""
    return networks.Classifier(backbone(experiment, detection=False), classes, dropout)


def action_detector(
    experiment: Experiment, num_actions: int, remembers: bool = False
) -> ActionDetector:
    """The whole model with frozen batch norms (paper section 3.1), not yet pretrained."""
    scale, body = numbers(experiment), backbone(experiment)
    fusion = Fusion(body.out_channels, scale.width, experiment.fusion, scale.fusion_layers)
    if experiment.head == "linear":
        raw = experiment.linear == "raw"
        fusion = Unfused(body.out_channels) if raw else fusion
        head = heads.LinearHead(fusion.width, num_actions, "max" if raw else "mean")
    else:
        words, recall = (AVERAGED[experiment.head], experiment.aggregate), None
        if remembers and experiment.recall != "none":
            geometry = experiment.recall == "geometry"
            recall = heads.Recall(scale.width, experiment.span, geometry)
        head = heads.RelationHead(scale.width, num_actions, *words, recall=recall)
    roi = RoIAlign3d(scale.roi_size, 1 / body.spatial_stride)
    model = ActionDetector(body, roi, fusion, head)
    networks.freeze_batchnorm(model)
    return model


def action_loss(experiment: Experiment, label_map: LabelMap) -> ActionLoss:
    """The loss by its word; poses are AVA's."""
    if experiment.loss == "softmax":
        return ActionLoss(range(label_map.num_actions))
    poses = [action for action in label_map.ids if label_map.group(action) == "pose"]
    chosen = experiment.loss == "pose-softmax"
    if chosen and not poses:
        raise InputError("loss='pose-softmax' is for AVA's poses, which the map lacks; say bce")
    return ActionLoss([label_map.ids.index(action) for action in poses] if chosen else ())


def token_size(
    experiment: Experiment, model: ActionDetector, maps: bool = False
) -> tuple[int, int]:
    """L and C of a person's tokens, which a head reads, or of its backbone's ``maps``."""
    cells = numbers(experiment).roi_size ** 2
    times = -(-sampling(experiment).num_frames // model.backbone.temporal_stride)
    if maps:
        return times * cells, model.backbone.out_channels
    return {"linear": 1, "s-only": cells, "t-only": times}[experiment.head], model.fusion.width


def train_dataset(
    experiment: Experiment, layout: AvaLayout, keyframes: Sequence[Keyframe]
) -> clips.ClipDataset:
    """Augmented clips: colour jitter, box jitter, flip (paper section 3.1)."""
    scale = numbers(experiment)
    here = not torch.cuda.is_available()  # a GPU shifts colours itself: a third of a worker's time
    view = train_transform(scale.short_side, scale.long_side, colours=here)
    shown = sampling(experiment)
    return clips.ClipDataset(layout, keyframes, shown, view, max_persons=scale.max_persons)


def order(
    experiment: Experiment,
    stage: Stage,
    keyframes: Sequence[Keyframe],
    label_map: LabelMap,
    start: int,
    *,
    accumulate: int = 1,
) -> GlobalBatches:
    """Which keyframe comes when in a stage, from iteration ``start`` on, in how many turns."""
    several = (k for k in keyframes if (k.actions.sum(axis=1) > 1).any())
    if experiment.loss == "softmax" and (first := next(several, None)):
        problem = (
            f"{first.source}'s training annotations: {first.key}: a person has several actions"
        )
        raise InputError(f"{problem}, and loss='softmax' is for one; keep one, or say bce")
    contains_KA = np.array([keyframe.actions.any(axis=0) for keyframe in keyframes])
    names = list(label_map.names.values())
    return GlobalBatches(
        len(keyframes),
        stage.batch,
        seed=experiment.seed,
        start=start,
        stop=stage.iterations,
        rank=processes.rank(),
        num_processes=processes.num_processes(),
        accumulate=accumulate,
        draw=make_draw(stage.sampler, contains_KA, names, experiment.seed),
    )


def train_batches(
    experiment: Experiment, dataset: clips.ClipDataset, order: GlobalBatches, workers: int = 0
) -> DataLoader:
    """This process's shares of a stage's batches."""
    padded = partial(clips.collate, multiple=numbers(experiment).pad_multiple)
    return loader(dataset, experiment, workers, batch_sampler=order, collate_fn=padded)


def views(experiment: Experiment) -> dict[str, v2.Transform]:
    """The views of a test clip, scales x flip, by a name such as ``64`` or ``64-flipped``."""
    scale = numbers(experiment)
    longest, grown = scale.long_side / scale.short_side, _extension(experiment)
    return {
        f"{side}{'-flipped' * flip}": test_transform(side, round(side * longest), flip, grown)
        for side in experiment.scales
        for flip in ([False, True] if experiment.flip else [False])
    }


def plain_view(experiment: Experiment) -> v2.Transform:
    """A clip as training shows it, without augmentation: what a head is trained on."""
    scale = numbers(experiment)
    return test_transform(scale.short_side, scale.long_side)


def augmented_views(experiment: Experiment, count: int) -> dict[str, v2.Transform]:
    """As many views with training's augmentation, by a name such as ``view1``."""
    scale = numbers(experiment)
    view = train_transform(scale.short_side, scale.long_side)
    return {f"view{number}": view for number in range(1, count + 1)}


def memory_view(experiment: Experiment) -> v2.Transform:
    """The same with boxes as in testing: what a bank remembers."""
    scale = numbers(experiment)
    return test_transform(scale.short_side, scale.long_side, extend=_extension(experiment))


def _extension(experiment: Experiment) -> tuple[float, float]:
    """By how much boxes grow for RoIAlign; annotated ones don't."""
    return experiment.detections.extend if experiment.detections else (0.0, 0.0)


def test_batches(
    experiment: Experiment,
    layout: AvaLayout,
    keyframes: Sequence[Keyframe],
    transforms: Sequence[v2.Transform],
    items: Sequence[int] | None = None,  # noqa: PT028
    *,
    workers: int = 0,  # noqa: PT028
) -> DataLoader:
    """This process's share of the views of keyframes, batch by batch, a list of views each.

    ``items`` are the places of those that are wanted. What an augmented view draws depends on its
    keyframe's place alone.
    """
    scale = numbers(experiment)
    dataset = clips.ClipDataset(layout, keyframes, sampling(experiment), list(transforms))
    if processes.first_of_node():  # reads the videos' headers; the others read its list
        dataset.sizes()
    processes.barrier()
    items, sizes = range(len(keyframes)) if items is None else items, dataset.sizes()
    batches = batches_by_size([sizes[item] for item in items], min(scale.batch, TEST_BATCH))
    batches = [[(items[place], experiment.seed) for place in batch] for batch in batches]
    batches = batches[processes.rank() :: processes.num_processes()]
    padded = partial(clips.collate_views, multiple=scale.pad_multiple)
    options = {"batch_sampler": batches, "collate_fn": padded, "prefetch_factor": 1}
    return loader(dataset, experiment, workers, **options)


def loader(dataset, experiment: Experiment, workers: int = 0, **options) -> DataLoader:
    """A loader with so many workers (0: by scale and cores); ``options`` are DataLoader's."""
    # Those that this process may use, of a machine that others use too; macOS does not tell.
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    cores = len(affinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    options["num_workers"] = workers or min(numbers(experiment).num_workers, max(1, cores))
    if not options["num_workers"]:
        options.pop("prefetch_factor", None)
    else:
        # Spawned, since a process that has run threads (torch, a kernel) must not be forked. On few
        # cores a worker that takes one stalls all of the model's threads: workers yield to them.
        context = torch.multiprocessing.get_context("spawn")
        options |= {"multiprocessing_context": context, "worker_init_fn": _yield_to_training}
    return DataLoader(dataset, pin_memory=torch.cuda.is_available(), **options)


def _yield_to_training(worker: int) -> None:
    os.nice(10)
    cv2.setNumThreads(0)  # else each worker takes every core

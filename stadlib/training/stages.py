"""A run from its experiment to a trained model: pretrained weights, then the stages.

A stage that trains everything sees clips and, where it remembers, keeps an online memory. A stage
that trains the head alone trains on features of every second, which are extracted once. No strategy
of Table 2 has code of its own.

Legend: N persons of a batch, A actions, L sequences, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from stadlib.base import InputError, MakeProgress, dataset_digest, digest, stage_dir
from stadlib.data import keyframes as data_keyframes
from stadlib.data.batches import Share
from stadlib.data.clips import Batch
from stadlib.data.keyframes import Keyframe
from stadlib.data.layout import SOURCES, AvaLayout
from stadlib.models.action_detector import ActionDetector, ActionLoss, OnMaps
from stadlib.models.heads import MemoryTokens, no_memory, set_share
from stadlib.models.networks import recompute_activations
from stadlib.models.roi_fusion import Places
from stadlib.recipes.experiment import USUAL, Execution, Experiment, Stage
from stadlib.training import build, loop, memory, processes
from stadlib.training.bank import FeatureBank, windows
from stadlib.training.memory import ClipKey, FeatureBatch
from stadlib.training.pretraining import prepare_data, pretrained_backbone

# Bytes that the backward pass needs of a frame of 256x480 pixels, in bfloat16: counted on
# ir-CSN-152, of which SlowFast-152 needs six sevenths.
KEPT = 57e6
Remember = Callable[[Sequence[ClipKey]], MemoryTokens]  # the memory of the clips of a batch


@dataclass(frozen=True)
class Run:
    """An experiment on its dataset."""

    experiment: Experiment
    layout: AvaLayout
    folder: Path  # of the record and the predictions
    stage_folders: tuple[Path, ...]  # of weights and banks, shared by runs that begin alike
    progress: MakeProgress
    execution: Execution = USUAL
    inputs: dict = field(default_factory=dict)  # what it started from, as far as that is known

    @property
    def half(self) -> bool:
        """Whether networks compute in bfloat16 where that is safe (autocast)."""
        usual = self.experiment.scale == "paper" and processes.device().type == "cuda"
        return {"auto": usual, "bfloat16": True, "float32": False}[self.execution.precision]

    @property
    def recompute(self) -> bool:
        """Whether backward computes activations again; ``auto``: where a GPU lacks the room."""
        experiment, device = self.experiment, processes.device()
        usual = experiment.scale == "paper" and "64x1" in experiment.frames
        if experiment.scale == "paper" and device.type == "cuda":
            batch = max(stage.batch for stage in experiment.stages if stage.train == "all")
            clips = math.ceil(batch / processes.num_processes() / self.execution.accumulate)
            kept = clips * build.sampling(experiment).num_frames * KEPT * (2 - self.half)
            usual = kept > 0.8 * torch.cuda.get_device_properties(device).total_memory
        return {"auto": usual, "yes": True, "no": False}[self.execution.recompute]

    @cached_property
    def pretrained(self) -> tuple[dict[str, Tensor], dict]:
        """The weights of the pretrained backbone, and what is known of them."""
        return pretrained_backbone(self.experiment, self.progress)

    @cached_property
    def threshold(self) -> float:
        """The least score of a detected box that is used (``Detections.threshold``)."""
        given = self.experiment.detections
        if not given:
            return 0.0
        if given.threshold is not None:
            return given.threshold
        validation = replace(self, layout=prepare_data(self.experiment, self.progress))
        sources = validation.layout.sources("val")
        for source in sources:
            validation.require_boxes(source, "val")
        name = self.experiment.boxes_name
        return data_keyframes.meeting_threshold(validation.layout, sources, name)

    @cached_property
    def loss(self) -> ActionLoss:
        """What turns logits into a loss and into probabilities."""
        return build.action_loss(self.experiment, self.layout.label_map())

    def banks(self, number: int) -> memory.OfflineMemory:
        """Of the backbone as it is after a stage, counted from 1."""
        stages = self.experiment.stages[:number]
        last = max(i for i, s in enumerate(stages) if s.train == "all")
        # From features on fusion may have changed, not the backbone.
        source = self.maps() if stages[last].start == "features" else None
        return self._memory(self.stage_folders[last], source=source)

    def maps(self) -> memory.OfflineMemory:
        """Of the pretrained backbone: what a stage that starts from features trains on.

        The folder is of all heads and trainings that read the same clips with the same weights.
        """
        experiment, numbers = self.experiment, build.numbers(self.experiment)
        sizes = ("short_side", "long_side", "frame_rate", "frame_divisor", "roi_size")
        read = {name: getattr(numbers, name) for name in sizes} | {"frames": experiment.frames}
        read |= {"data": str(self.layout.root), "backbone": self.pretrained[1]["backbone"]}
        if experiment.dataset:
            read["data"] = dataset_digest(experiment.dataset, experiment.detector)
        return self._memory(stage_dir(f"maps-{digest(read)}"), maps=True)

    def _memory(self, folder: Path, **options) -> memory.OfflineMemory:
        options |= {"workers": self.execution.workers, "threshold": self.threshold}
        return memory.OfflineMemory(self.layout, self.experiment, folder, self.progress, **options)

    def memory(self, model: ActionDetector, number: int, split: str) -> dict[str, FeatureBank]:
        """The offline banks that a stage, counted from 1, remembers out of, by source."""
        banks = {}
        for source in self.experiment.stages[number - 1].memory:
            if source in self.layout.sources(split):
                self.require_boxes(source, split)
                banks[source] = self.banks(number).seconds(model, source, split)
        return banks

    def require_boxes(self, source: str, split: str) -> None:
        """See that the boxes of a split are there; a miniature's detector finds them if need be."""
        if self.layout.person_boxes(self.experiment.boxes_name, source, split).exists():
            return
        from stadlib.training.detector import make_boxes  # noqa: PLC0415  (not in every run)

        make_boxes(self.experiment, self.layout, source, split, self.progress)


def open_run(
    experiment: Experiment,
    folder: Path,
    progress: MakeProgress,
    execution: Execution = USUAL,
    split: str = "val",
) -> Run:
    """A run on its dataset, which is rendered if need be; ``test`` may be a part of its own."""
    layout = prepare_data(experiment, progress, split)
    numbers = range(1, len(experiment.stages) + 1)
    folders = tuple(stage_dir(experiment.stage_digest(number)) for number in numbers)
    return Run(experiment, layout, folder, folders, progress, execution)


def annotated(layout: AvaLayout, sources: Iterable[str], split: str) -> list[Keyframe]:
    """The keyframes with persons of the sources that the dataset has, one list after the other."""
    keyframes = []
    for source in sources:
        if layout.annotations(source, split).exists():
            keyframes += data_keyframes.read_keyframes(layout, source, split)
    if persons := [keyframe for keyframe in keyframes if len(keyframe.boxes)]:
        return persons
    raise InputError(f"{layout.annotation_folder}: no annotated {split} keyframe; add some")


def scored_keyframes(run: Run, split: str = "val") -> list[Keyframe]:
    """The moments of a split that count, with the persons that are scored there."""
    experiment, layout = run.experiment, run.layout
    if not experiment.detected:
        return annotated(layout, SOURCES, split)
    boxes, keyframes = experiment.boxes_name, []
    for source in layout.sources(split, listed=True):
        run.require_boxes(source, split)
        of = layout, source, split, boxes, run.threshold
        keyframes += data_keyframes.detected_keyframes(*of)
    return keyframes


def run_stages(run: Run) -> ActionDetector:
    """Pretrain (or reuse) the backbone and train every stage; returns the trained model."""
    stages = run.experiment.stages
    for source in SOURCES:
        data_keyframes.require_agreement(run.layout, source)
    _ = run.threshold  # a missing file of boxes shows now, not after hours of training
    model = pretrained_model(run)
    for number, stage in enumerate(stages, 1):
        if stage.start == "previous-backbone":  # and fusion, under a head that knows nothing yet
            old, model = model, _new_model(run, stage)
            model.backbone.load_state_dict(old.backbone.state_dict())
            model.fusion.load_state_dict(old.fusion.state_dict())
        if stage.start == "previous-but-classifier":
            classifier = _new_model(run, stage).head.classifier
            model.head.classifier.load_state_dict(classifier.state_dict())
        _train(run, number, model)
    return model


def pretrained_model(run: Run) -> ActionDetector:
    """The model that the first stage begins with: a pretrained backbone, the rest untrained."""
    weights, made = run.pretrained
    run.inputs.update(made)
    model = _new_model(run, run.experiment.stages[0])
    model.backbone.load_state_dict(weights)
    return model


def extract(run: Run) -> Path:
    """Have the backbone see every second once: what stages that start from features train on.

    Training's seconds are seen in one view, those of validation also as they are tested. Returns
    the folder.
    """
    model, maps = pretrained_model(run), run.maps()
    for split in ("train", "val"):
        for source in run.layout.sources(split):
            run.require_boxes(source, split)
            maps.seconds(model, source, split)
    keyframes = memory.one_a_second(annotated(run.layout, SOURCES, "train"))
    maps.trained_on(model, list(keyframes.values()), run.experiment.stages[0].views)
    maps.views(model, scored_keyframes(run), "val")
    return maps.folder


def trained_model(run: Run) -> ActionDetector:
    """The model of a run that is finished, with the weights of its last stage."""
    stages, model = run.experiment.stages, _new_model(run, run.experiment.stages[-1])
    if stages[0].start == "features":  # its checkpoint has no backbone
        model.backbone.load_state_dict(pretrained_model(run).backbone.state_dict())
    for number, stage in enumerate(stages, 1):
        path, last = run.stage_folders[number - 1] / "checkpoint.pt", number == len(stages)
        weights = loop.read_weights(path, run.experiment.stage_digest(number))["model"]
        if stage.train != "all":
            model.head.load_state_dict(weights)
        else:  # the heads of earlier stages may be other ones
            weights = {n: w for n, w in weights.items() if last or not n.startswith("head.")}
            model.load_state_dict(weights, strict=last and stage.start != "features")
    return model


def _new_model(run: Run, stage: Stage) -> ActionDetector:
    torch.manual_seed(run.experiment.seed)  # after pretraining, whose length must not matter
    num_actions = run.layout.label_map().num_actions
    model = build.action_detector(run.experiment, num_actions, bool(stage.memory))
    if run.recompute:
        recompute_activations(model.backbone)
    if run.execution.compile:
        model.compile()
    return model.to(processes.device())


def _training_keyframes(run: Run, stage: Stage) -> list[Keyframe]:
    """The annotated ones; with ``Detections.training`` also confident detections in them."""
    experiment, keyframes = run.experiment, annotated(run.layout, stage.data, "train")
    if not experiment.detected or experiment.detections.training == "ground-truth":
        return keyframes
    both, options = [], ("train", experiment.boxes_name, data_keyframes.CONFIDENT)
    for source, of_source in memory.by_source(keyframes).items():
        run.require_boxes(source, "train")
        boxes = data_keyframes.detections(run.layout, source, *options)
        both += data_keyframes.with_confident(of_source, boxes)
    return both


def _train(run: Run, number: int, model: ActionDetector) -> None:
    """Train a stage, counted from 1, or finish training it."""
    experiment, stage = run.experiment, run.experiment.stages[number - 1]
    folder, name = run.stage_folders[number - 1], experiment.stage_digest(number)
    turns = run.execution.accumulate
    online, see = None, lambda *_: None
    keyframes = _training_keyframes(run, stage)
    if stage.on_features:  # of a backbone that no longer changes
        keyframes = list(memory.one_a_second(keyframes).values())
        offline = run.maps() if stage.train == "all" else run.banks(number)
        features, most = offline.trained_on(model, keyframes, stage.views), None
    else:
        dataset = build.train_dataset(experiment, run.layout, keyframes)
        most = dataset.max_persons
    if stage.train == "all":  # the whole network, or fusion and head; memory fills on the way
        apart = memory.by_source(keyframes)
        shown = {source: apart.get(source, []) for source in stage.memory}
        size = build.token_size(experiment, model)
        online = memory.OnlineMemory(folder / "online", {"stage": name}, size, shown)
        model.backbone.requires_grad_(stage.start not in ("frozen", "features"))
        module = OnMaps(model) if stage.on_features else model
        banks, see = online.banks, online.update
    else:  # the head, or its classifier
        banks = run.memory(model, number, "train")
        model.head.requires_grad_(stage.train == "head")
        model.head.classifier.requires_grad_(True)
        module = model.head

    def batches(start: int) -> Iterator[tuple[Batch | FeatureBatch, Share]]:
        labels = run.layout.label_map()
        order = build.order(experiment, stage, keyframes, labels, start, accumulate=turns)
        if stage.on_features:
            loaded = memory.feature_batches(keyframes, order, features)
        else:
            loaded = build.train_batches(experiment, dataset, order, run.execution.workers)
        if online:
            online.restore(start)
        persons = order.shares([len(keyframe.boxes[:most]) for keyframe in keyframes])
        for turn, part in enumerate(zip(loaded, persons, strict=True)):
            if online and turn % turns == 0:  # what an iteration saw is remembered in the next one
                online.settle()
            yield part

    names = ("iterations", "lr", "backbone_lr", "drop", "weight_decay", "clip")
    schedule = loop.Schedule(**{name: getattr(stage, name) for name in names}, seed=experiment.seed)
    title = f"train {experiment.head}" + f", stage {number}" * (number > 1)
    remember = remember_from(run, banks, drawn=experiment.chosen == "random")
    loss = partial(share_loss, loss=run.loss, remember=remember, see=see)
    options = {"accumulate": turns, "half": run.half, "save_every": run.execution.save_every}
    if online:
        options["keep"] = online.keep
    options |= {"folder": folder, "digest": name, "progress": run.progress(title)}
    loop.fit(module.train(), loss, batches, schedule, **options)


def share_loss(
    module: nn.Module,
    part: tuple[Batch | FeatureBatch, Share],
    loss: ActionLoss,
    remember: Remember,
    see: Callable = lambda *_: None,
) -> tuple[Tensor, int]:
    """The loss of a share of a batch, summed over persons, who are also given to ``see``.

    Beside it the number of persons of all shares.
    """
    batch, share = part
    set_share(module, share.rows, share.total)
    device = next(module.parameters()).device
    remembered, moved = remember(batch.keys).to(device), batch.to(device)
    scored = module(*model_inputs(moved), remembered)
    logits_NA, tokens_NLC = scored if isinstance(scored, tuple) else (scored, moved.tokens_NLC)
    see(batch.keys, batch.counts_B, tokens_NLC, batch.boxes_norm_N4)
    return loss(logits_NA, moved.actions_NA).sum(), share.total


def model_inputs(batch: Batch | FeatureBatch) -> tuple[Tensor, ...]:
    """What the whole network takes of clips, or its head alone of known tokens."""
    if isinstance(batch, Batch):
        clips = batch.clips_BCTHW, batch.boxes_N4, batch.counts_B, batch.sizes
        return *clips, batch.boxes_norm_N4
    places = Places.of(batch.counts_B, batch.tokens_NLC.device)
    return batch.tokens_NLC, batch.boxes_norm_N4, places


def remember_from(run: Run, banks: Mapping[str, FeatureBank], *, drawn: bool = False) -> Remember:
    """What clips remember out of these banks; they may fill up while this is in use.

    Which persons are ``drawn`` depends on torch's seed, of which each iteration has its own.
    """
    experiment, width = run.experiment, build.numbers(run.experiment).width
    limits = {"span": experiment.span, "max_persons": experiment.remembered}
    limits |= {"own_second": experiment.own_second}

    def remember(keys: Sequence[ClipKey]) -> MemoryTokens:
        draw = torch.initial_seed() if drawn else None
        return windows(banks, keys, no_memory(len(keys), width), **limits, draw=draw)

    return remember

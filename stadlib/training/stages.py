"""A run from its experiment to its metrics: pretrained weights, the stages, predictions, mAP.

A stage that trains everything sees clips and, where it remembers, keeps an online memory. A stage
that trains the head alone cannot change what the backbone sees: every second of every video is
extracted once, and it trains on that in seconds. No strategy of Table 2 has code of its own.

Legend: N persons of a batch, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stadlib.base import InputError, MakeProgress, Report, stage_dir, written_whole
from stadlib.data import rows as data_rows
from stadlib.data.batches import Share
from stadlib.data.clips import Batch
from stadlib.data.keyframes import (
    CONFIDENT,
    Keyframe,
    detected_keyframes,
    detections,
    read_keyframes,
    require_agreement,
    with_confident,
)
from stadlib.data.labels import LabelMap
from stadlib.data.layout import SOURCES, AvaLayout
from stadlib.evaluation import average_precision
from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import MemoryTokens, no_memory, set_share
from stadlib.models.networks import recompute_activations
from stadlib.recipes.experiment import USUAL, Execution, Experiment, Stage
from stadlib.training import build, processes
from stadlib.training.bank import FeatureBank, windows
from stadlib.training.detector import require_boxes
from stadlib.training.loop import Schedule, fit, read_weights
from stadlib.training.memory import (
    ClipKey,
    FeatureBatch,
    OfflineMemory,
    OnlineMemory,
    clip_key,
    feature_batch,
    feature_batches,
    one_a_second,
    view_key,
)
from stadlib.training.pretraining import prepare_data, pretrained_backbone

BOX = ["x1", "y1", "x2", "y2"]
FEATURE_BATCH = 64  # keyframes that are scored at a time where their features are known
Remember = Callable[[Sequence[ClipKey]], MemoryTokens]  # the memory of the clips of a batch


# ------------------------------------------------------------------------------------------ a run


@dataclass(frozen=True)
class Run:
    """An experiment on its dataset."""

    experiment: Experiment
    layout: AvaLayout
    folder: Path  # of the record and the predictions
    stage_folders: tuple[Path, ...]  # of weights and banks, shared by runs that begin alike
    progress: MakeProgress
    execution: Execution = USUAL

    @property
    def half(self) -> bool:
        """Whether networks compute in bfloat16 where that is safe (autocast)."""
        usual = self._large and processes.device().type == "cuda"
        return {"auto": usual, "bfloat16": True, "float32": False}[self.execution.precision]

    @property
    def recompute(self) -> bool:
        """Whether a backbone's activations are computed again in the backward pass."""
        usual = self._large and "64x1" in self.experiment.frames
        return {"auto": usual, "yes": True, "no": False}[self.execution.recompute]

    @property
    def alike(self) -> bool:
        """Whether the shares of a batch are padded to one size."""
        return {"auto": not self._large, "batch": True, "share": False}[self.execution.pad]

    @property
    def _large(self) -> bool:
        return self.experiment.scale == "paper"

    def banks(self, number: int) -> OfflineMemory:
        """Of the backbone as it is after a stage, counted from 1."""
        stages = self.experiment.stages[:number]
        trained = max(i for i, stage in enumerate(stages) if stage.train == "all")
        return OfflineMemory(
            self.layout, self.experiment, self.stage_folders[trained], self.progress
        )

    def require_boxes(self, source: str, split: str) -> None:
        """See that the detector's boxes of a split are there."""
        require_boxes(self.experiment, self.layout, source, split, self.progress)

    def has(self, source: str, split: str) -> bool:
        """Whether the dataset has this source's split; one's own may lack Kinetics."""
        return self.layout.annotations(source, split).exists()

    def scored_sources(self, split: str) -> list[str]:
        """The sources with a split that is annotated or at least listed, as AVA's test movies."""
        listed = self.layout.video_list
        return [s for s in SOURCES if self.has(s, split) or listed(s, split).is_file()]


def open_run(
    experiment: Experiment, folder: Path, progress: MakeProgress, execution: Execution = USUAL
) -> Run:
    """A run on its dataset, which is rendered if need be."""
    layout = prepare_data(experiment, progress)
    numbers = range(1, len(experiment.stages) + 1)
    folders = tuple(stage_dir(experiment.stage_digest(number)) for number in numbers)
    return Run(experiment, layout, folder, folders, progress, execution)


def annotated(layout: AvaLayout, sources: Iterable[str], split: str) -> list[Keyframe]:
    """The keyframes with persons of the sources that the dataset has, one list after the other."""
    keyframes = [
        keyframe
        for source in sources
        if layout.annotations(source, split).exists()
        for keyframe in read_keyframes(layout, source, split)
        if len(keyframe.boxes)
    ]
    if not keyframes:
        raise InputError(f"{layout.annotation_folder}: no annotated {split} keyframe; add some")
    return keyframes


def scored_keyframes(run: Run, split: str = "val") -> list[Keyframe]:
    """The moments of a split that count, with the persons that are scored there."""
    experiment, layout = run.experiment, run.layout
    if not experiment.detected:
        return annotated(layout, SOURCES, split)
    boxes, threshold = experiment.boxes_name, experiment.detections.threshold
    keyframes = []
    for source in run.scored_sources(split):
        run.require_boxes(source, split)
        keyframes += detected_keyframes(layout, source, split, boxes, threshold)
    return keyframes


def training_keyframes(run: Run, stage: Stage) -> list[Keyframe]:
    """What a stage is trained on: annotated persons, perhaps with confident detections."""
    keyframes, experiment = annotated(run.layout, stage.data, "train"), run.experiment
    if not experiment.detected or experiment.detections.training == "ground-truth":
        return keyframes
    mixed = []
    for source in dict.fromkeys(keyframe.source for keyframe in keyframes):
        run.require_boxes(source, "train")
        boxes = detections(run.layout, source, "train", experiment.boxes_name, CONFIDENT)
        mixed += with_confident([k for k in keyframes if k.source == source], boxes)
    return mixed


# --------------------------------------------------------------------------------------- training


def run_stages(run: Run) -> dict:
    """Pretrain (or reuse), train every stage, evaluate; returns the metrics of a record."""
    experiment = run.experiment
    for source in SOURCES:
        require_agreement(run.layout, source)
    weights = pretrained_backbone(experiment, run.progress)
    model = _new_model(run, experiment.stages[0])
    model.backbone.load_state_dict(weights)
    for number, stage in enumerate(experiment.stages, 1):
        if stage.start == "previous-backbone":  # and fusion, under a head that knows nothing yet
            old, model = model, _new_model(run, stage)
            model.backbone.load_state_dict(old.backbone.state_dict())
            model.fusion.load_state_dict(old.fusion.state_dict())
        if stage.start == "previous-but-classifier":
            classifier = _new_model(run, stage).head.classifier
            model.head.classifier.load_state_dict(classifier.state_dict())
        _train(run, number, model)
    return predict(run, model)


def trained_model(run: Run) -> ActionDetector:
    """The model of a run that is finished, with the weights of its last stage."""
    experiment = run.experiment
    model = _new_model(run, experiment.stages[-1])
    for number, stage in enumerate(experiment.stages, 1):
        path = run.stage_folders[number - 1] / "checkpoint.pt"
        weights = read_weights(path, experiment.stage_digest(number))["model"]
        if stage.train == "all" and stage is not experiment.stages[-1]:
            body = {name: w for name, w in weights.items() if not name.startswith("head.")}
            model.load_state_dict(body, strict=False)
        else:
            (model if stage.train == "all" else model.head).load_state_dict(weights)
    return model


def _new_model(run: Run, stage: Stage) -> ActionDetector:
    torch.manual_seed(run.experiment.seed)  # after pretraining, whose length must not matter
    num_actions = run.layout.label_map().num_actions
    model = build.action_detector(run.experiment, num_actions, bool(stage.memory))
    if run.recompute:
        recompute_activations(model.backbone)
    if run.execution.compile:
        model.backbone.compile()
    return model.to(processes.device())


def _train(run: Run, number: int, model: ActionDetector) -> None:
    """Train a stage, counted from 1, or finish training it."""
    experiment, stage = run.experiment, run.experiment.stages[number - 1]
    folder, turns = run.stage_folders[number - 1], run.execution.accumulate
    keyframes, labels = training_keyframes(run, stage), run.layout.label_map()
    if stage.train == "all":  # the whole network, on clips; they fill the online memory on the way
        dataset = build.train_dataset(experiment, run.layout, keyframes)
        online = OnlineMemory(
            folder / "online",
            {"stage": experiment.stage_digest(number)},
            build.token_size(experiment, model),
            {source: [k for k in keyframes if k.source == source] for source in stage.memory},
        )
        module, memory = model.train(), online.banks
        see, keep = online.update, online.keep
    else:  # the head, or its classifier, on features of a backbone that no longer changes
        banks = run.banks(number)
        keyframes = one_a_second(keyframes)
        sources = dict.fromkeys(keyframe.source for keyframe in keyframes)
        features = {source: banks.trained_on(model, source, keyframes) for source in sources}
        memory = _memory_banks(run, banks, model, "train", stage)
        model.head.requires_grad_(stage.train == "head")
        model.head.classifier.requires_grad_(True)
        module = model.head.train()
        see, keep = lambda *_: None, lambda iteration: None

    def batches(start: int) -> Iterator[tuple[Batch | FeatureBatch, Share]]:
        order = build.order(experiment, stage, keyframes, labels, start, accumulate=turns)
        if stage.train != "all":
            yield from feature_batches(keyframes, order, features)
            return
        online.restore(start)
        parts = build.train_batches(experiment, dataset, order, alike=run.alike)
        for turn, part in enumerate(parts):
            if turn % turns == 0:
                online.settle()  # what the iteration before saw
            yield part

    numbers = ("iterations", "lr", "drop", "weight_decay", "clip")
    fit(
        module,
        partial(action_loss, remember=remember_from(run, memory), see=see),
        batches,
        Schedule(**{name: getattr(stage, name) for name in numbers}, seed=experiment.seed),
        folder=folder,
        digest=experiment.stage_digest(number),
        progress=run.progress(f"train {experiment.head}" + f", stage {number}" * (number > 1)),
        keep=keep,
        accumulate=turns,
        half=run.half,
        save_every=run.execution.save_every,
    )


def action_loss(
    module: nn.Module,
    part: tuple[Batch | FeatureBatch, Share],
    remember: Remember,
    see: Callable = lambda *_: None,
) -> tuple[Tensor, int]:
    """Binary cross-entropy over all actions, summed over persons (SlowFast, AlphAction).

    ``part`` is a share of a batch. ``remember`` gives the memory of its clips, and ``see`` takes
    their keys and counts, and the tokens and boxes of their persons.
    """
    batch, share = part
    set_share(module, share.rows, share.total)
    device = next(module.parameters()).device
    memory, moved = remember(batch.keys).to(device), batch.to(device)
    logits_NA, tokens_NLC = _forward(module, moved, memory)
    see(batch.keys, batch.counts_B, tokens_NLC, batch.boxes_norm_N4)
    loss_NA = F.binary_cross_entropy_with_logits(logits_NA, moved.actions_NA, reduction="none")
    return loss_NA.mean(dim=1).sum(), len(logits_NA)


def _forward(
    module: nn.Module, batch: Batch | FeatureBatch, memory: MemoryTokens
) -> tuple[Tensor, Tensor]:
    """Logits and tokens: of clips by the whole network, of known tokens by its head alone."""
    boxes_norm_N4, counts_B = batch.boxes_norm_N4, batch.counts_B
    if isinstance(batch, Batch):
        return module(batch.clips_BCTHW, batch.boxes_N4, counts_B, boxes_norm_N4, memory)
    return module(batch.tokens_NLC, boxes_norm_N4, counts_B, memory), batch.tokens_NLC


def remember_from(run: Run, banks: Mapping[str, FeatureBank]) -> Remember:
    """What clips remember out of these banks; they may fill up while this is in use."""
    experiment = run.experiment
    width = build.numbers(experiment).width

    def remember(keys: Sequence[ClipKey]) -> MemoryTokens:
        empty = no_memory(len(keys), width)
        return windows(banks, keys, experiment.span, experiment.remembered, empty)

    return remember


def _memory_banks(
    run: Run, banks: OfflineMemory, model: ActionDetector, split: str, stage: Stage
) -> dict[str, FeatureBank]:
    """The offline banks that a stage remembers out of, by source."""
    sources = [source for source in stage.memory if run.has(source, split)]
    for source in sources:
        run.require_boxes(source, split)
    return {source: banks.seconds(model, source, split) for source in sources}


# -------------------------------------------------------------------------------------- measuring


def predict(run: Run, model: ActionDetector, split: str = "val") -> dict:
    """Score a split's boxes with the model of a run and write a predictions file a source.

    Returns:
        Their frame mAPs as :func:`measure` gives them; the same on all processes.
    """
    experiment, last = run.experiment, run.experiment.stages[-1]
    keyframes, labels = scored_keyframes(run, split), run.layout.label_map()
    banks = run.banks(len(experiment.stages))
    with processes.autocast(run.half):
        remember = remember_from(run, _memory_banks(run, banks, model, split, last))
        if last.train == "all":
            views = build.views(experiment).values()
            batches = build.test_batches(experiment, run.layout, keyframes, views)
            progress = run.progress(f"evaluate {experiment.head}")
            total = sum(map(len, batches.batch_sampler))
            rows = score_persons(model, batches, remember, labels, total=total, progress=progress)
        else:
            share = keyframes[processes.rank() :: processes.num_processes()]
            batches = feature_views(share, banks.views(model, keyframes, split))
            rows = score_persons(model.head, batches, remember, labels)
    metrics = {}
    if processes.rank() == 0:
        rows = _in_order(rows, keyframes)
        if experiment.detections and experiment.detections.product:
            rows = _times_box_score(run, rows, split)
        files = {s: detection_file(run.folder, s, split) for s in run.scored_sources(split)}
        for source, path in files.items():
            write_detections(rows[rows["source"] == source], path)
        metrics = measure(run.layout, files, split)
    return processes.of_first(metrics)


def feature_views(
    keyframes: Sequence[Keyframe],
    views: Sequence[Mapping[str, FeatureBank]],
    key: Callable = view_key,
) -> Iterator[list[FeatureBatch]]:
    """Batches of keyframes whose features are known, as :func:`score_persons` takes them.

    ``views`` has a mapping of banks by source a view; ``key`` says where they keep a keyframe.
    """
    for start in range(0, len(keyframes), FEATURE_BATCH):
        some = keyframes[start : start + FEATURE_BATCH]
        yield [feature_batch(some, banks, key) for banks in views]


@torch.inference_mode()
def score_persons(
    module: nn.Module,
    batches: Iterable[Sequence[Batch | FeatureBatch]],
    remember: Remember,
    label_map: LabelMap,
    *,
    total: int = 0,
    progress: Report = lambda *_: None,
) -> pd.DataFrame:
    """Score every box of every clip, averaged over its views (scales x flip, paper section 3.1).

    Args:
        module: an action detector for clips, its head for features; set to evaluation mode here.
        batches: each a sequence of views of the same clips.
        remember: gives the memory of the clips of a batch.
        label_map: columns of the scores.
        total: number of clips of this process, for the progress.
        progress: called with (clips done, total, text).

    Returns:
        One row a (box, action): ``source`` and the columns of a predictions file, boxes as they
        came, not as a view saw them. The first process gets the rows of all processes.
    """
    module.eval()
    device = next(module.parameters()).device
    columns = ["source", "video", "timestamp", *BOX, "action_id", "score"]
    parts, done = [], 0
    for views in batches:
        first, memory = views[0], remember(views[0].keys).to(device)
        logits = [_forward(module, view.to(device), memory)[0] for view in views]
        scores_NA = torch.stack([x.float().sigmoid().cpu() for x in logits]).mean(dim=0)
        clips = zip(first.keys, first.counts_B.tolist(), strict=True)
        keys = [key for key, count in clips for _ in range(count)]
        persons = pd.DataFrame(keys, columns=columns[:3])
        persons[BOX] = first.boxes_norm_N4.numpy()
        rows = persons.loc[persons.index.repeat(label_map.num_actions)].reset_index(drop=True)
        rows["action_id"] = list(label_map.ids) * len(persons)
        rows["score"] = scores_NA.flatten().numpy()
        parts.append(rows)
        done += len(first.keys)
        progress(done, total, "clips")
    parts = processes.gather(parts, first_only=True)
    return pd.concat(parts or [pd.DataFrame(columns=columns)], ignore_index=True)


def _in_order(rows: pd.DataFrame, keyframes: Sequence[Keyframe]) -> pd.DataFrame:
    """The rows as one process and batches of one size would have written them."""
    if not keyframes:
        return rows
    clips = pd.MultiIndex.from_tuples([clip_key(keyframe) for keyframe in keyframes])
    number = pd.Series(range(len(clips)), index=clips)
    of_row = pd.MultiIndex.from_frame(rows[["source", "video", "timestamp"]])
    return rows.iloc[number.loc[of_row].to_numpy().argsort(kind="stable")].reset_index(drop=True)


def _times_box_score(run: Run, rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """Action scores multiplied by the scores of their boxes."""
    parts, keys = [], ["video", "timestamp", *BOX]
    for source, of_source in rows.groupby("source", sort=False):
        by_moment = detections(run.layout, source, split, run.experiment.boxes_name, 0.0)
        boxes = pd.concat(by_moment.values(), ignore_index=True)
        boxes = boxes.astype(dict.fromkeys(BOX, "float32")).rename(columns={"score": "box"})
        factor = of_source.merge(boxes, on=keys, how="left")["box"]
        parts.append(of_source.assign(score=of_source["score"].to_numpy() * factor.to_numpy()))
    return pd.concat(parts, ignore_index=True)


def detection_file(folder: Path, source: str, split: str) -> Path:
    """Where a run keeps its predictions of a split."""
    return folder / f"detections_{source}{'' if split == 'val' else '_' + split}.csv"


def write_detections(rows: pd.DataFrame, path: Path) -> None:
    """Write a predictions file in the official form, without the ``source`` column."""
    text = rows[["video", "timestamp", *BOX, "action_id", "score"]].copy()
    decimals = {"timestamp": 6, **dict.fromkeys(BOX, 6), "score": 8}
    for column, number in decimals.items():
        text[column] = text[column].map(f"{{:.{number}f}}".format)
    with written_whole(path) as temporary:
        text.to_csv(temporary, header=False, index=False)


def groundtruth(layout: AvaLayout, source: str, split: str = "val") -> pd.DataFrame:
    """The rows of a source's split without its excluded timestamps, which nobody scores."""
    rows = data_rows.read_rows(layout.annotations(source, split))
    excluded = layout.excluded(source, split)
    keys = zip(rows["video"], rows["timestamp"].astype(float).map("{:.6f}".format), strict=True)
    return rows[[key not in excluded for key in keys]]


def measure(layout: AvaLayout, files: Mapping[str, Path], split: str) -> dict:
    """Frame mAP@0.5 of predictions files by source, as far as the split names actions.

    A+K is one joint evaluation over the concatenated files, not a mean of two (field practice;
    in Table 1 the joint number can exceed both). A source in which nobody was found has an empty
    file and every AP 0.

    Returns:
        By source, and by ``ava+kinetics`` where there are two: ``{"mAP": ..., "AP": {...}}``.
    """
    truths = {}
    for source in files:
        if layout.annotations(source, split).is_file():
            truth = groundtruth(layout, source, split)
            if (truth["action_id"] != data_rows.NO_LABEL).any():  # a test split's may name none
                truths[source] = truth
    pairs = {source: (truth, files[source]) for source, truth in truths.items()}
    if len(truths) > 1:
        pairs["+".join(truths)] = list(truths.values()), [files[source] for source in truths]
    labels = layout.label_map()
    return {s: average_precision.frame_map(*pair, labels).to_json() for s, pair in pairs.items()}

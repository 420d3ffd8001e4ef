"""An experiment on its dataset: where its files go, which keyframes it trains and scores.

Whoever looks at a finished run opens it again here.

From a trained model to mAP: scales and flips, scores a box, detection files.

Legend: N persons of a batch, A actions.

A trained model's scores of a split: detection files, and their frame mAP where it is annotated.

Whatever a model remembers of the seconds around is prepared here, for training and for scoring.

From an experiment to metrics: the stages one after the other, then the evaluation.

A stage that trains everything sees clips and, where it remembers, keeps an online bank. A stage
that trains the head alone cannot change what the backbone sees: every second of every video is
extracted once, and it trains on that in seconds. No strategy of Table 2 has code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from stadlib.base import InputError, MakeProgress, stage_dir, written_whole
from stadlib.data import rows
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
from stadlib.models import heads
from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import Head, MemoryTokens, no_memory, set_share
from stadlib.models.networks import recompute_activations
from stadlib.recipes.experiment import USUAL, Execution, Experiment, Stage
from stadlib.training import bank, build, processes
from stadlib.training.bank import FeatureBank, Key
from stadlib.training.detector import require_boxes
from stadlib.training.loop import Schedule, fit, read_weights
from stadlib.training.memory import (
    Banks,
    FeatureBatch,
    OnlineBanks,
    Remember,
    feature_batch,
    feature_batches,
    one_a_second,
    view_key,
)
from stadlib.training.pretraining import prepare_data, pretrained_backbone


@dataclass(frozen=True)
class Run:
    """One experiment on its way: what is run, on which data, where its files go.

    Attributes:
        experiment: all its words and numbers.
        layout: the dataset.
        folder: of the record and the detections.
        stage_folders: of the stages' weights and banks, shared by runs that begin alike.
        progress: makes the progress of a named task.
        execution: how it is computed.
    """

    experiment: Experiment
    layout: AvaLayout
    folder: Path
    stage_folders: tuple[Path, ...]
    progress: MakeProgress
    execution: Execution = USUAL

    @property
    def half(self) -> bool:
        """Whether networks compute in bfloat16 where that is safe (autocast)."""
        words = self.execution.precision
        return words == "bfloat16" or (
            words == "auto" and self._large and processes.device().type == "cuda"
        )

    @property
    def recompute(self) -> bool:
        """Whether a backbone's activations are computed again in the backward pass."""
        words = self.execution.recompute
        long = "64x1" in self.experiment.frames
        return words == "yes" or (words == "auto" and self._large and long)

    @property
    def alike(self) -> bool:
        """Whether the shares of a batch are padded to one size."""
        words = self.execution.pad
        return words == "batch" or (words == "auto" and not self._large)

    @property
    def _large(self) -> bool:
        return self.experiment.scale == "paper"

    def banks(self, number: int) -> Banks:
        """Of the backbone as it is after a stage, counted from 1."""
        stages = self.experiment.stages[:number]
        trained = max(place for place, stage in enumerate(stages) if stage.train == "all")
        return Banks(self.layout, self.experiment, self.stage_folders[trained], self.progress)

    def require_boxes(self, source: str, split: str) -> None:
        """See that the detector's boxes of a split are there."""
        require_boxes(self.experiment, self.layout, source, split, self.progress)

    def has(self, source: str, split: str) -> bool:
        """Whether the dataset has this source's split; one's own may lack Kinetics."""
        return self.layout.annotations(source, split).exists()


def open_run(
    experiment: Experiment,
    folder: Path,
    progress: MakeProgress,
    execution: Execution = USUAL,
) -> Run:
    """A run on its dataset, which is rendered if need be."""
    layout = prepare_data(experiment, progress)
    numbers = range(1, len(experiment.stages) + 1)
    folders = tuple(stage_dir(experiment.stage_digest(number)) for number in numbers)
    return Run(experiment, layout, folder, folders, progress, execution)


def training_keyframes(run: Run, stage: Stage) -> list[Keyframe]:
    """What a stage is trained on: annotated persons, perhaps with confident detections."""
    keyframes = annotated(run.layout, stage.data, "train")
    experiment = run.experiment
    if not experiment.detected or experiment.detections.training == "ground-truth":
        return keyframes
    mixed = []
    for source in dict.fromkeys(keyframe.source for keyframe in keyframes):
        run.require_boxes(source, "train")
        found = detections(run.layout, source, "train", experiment.boxes_name, CONFIDENT)
        mixed += with_confident([k for k in keyframes if k.source == source], found)
    return mixed


def validation_keyframes(run: Run) -> list[Keyframe]:
    """The annotated validation moments with the persons that are scored there."""
    return scored_keyframes(run, "val")


def scored_keyframes(run: Run, split: str) -> list[Keyframe]:
    """The moments of a split that count, with the persons that are scored there.

    Where nobody annotated a split, as AVA's test movies, all its listed seconds count.
    """
    experiment = run.experiment
    if not experiment.detected:
        return annotated(run.layout, SOURCES, split)
    found = []
    for source in SOURCES:
        if run.has(source, split) or run.layout.video_list(source, split).is_file():
            run.require_boxes(source, split)
            where = (run.layout, source, split, experiment.boxes_name)
            found += detected_keyframes(*where, experiment.detections.threshold)
    return found


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


def groundtruth(layout: AvaLayout, source: str, split: str = "val") -> pd.DataFrame:
    """The rows of a source's split without its excluded timestamps, which nobody scores."""
    rows = data_rows.read_rows(layout.annotations(source, split))
    excluded = layout.excluded(source, split)
    keys = zip(rows["video"], rows["timestamp"].astype(float).map("{:.6f}".format), strict=True)
    return rows[[key not in excluded for key in keys]]


def has_actions(truth: pd.DataFrame) -> bool:
    """Whether ground truth names any action; a test split's may only name keyframes."""
    return bool((truth["action_id"] != rows.NO_LABEL).any())


BOX = ["x1", "y1", "x2", "y2"]
KEY = ["video", "timestamp", *BOX, "action_id"]


@torch.inference_mode()
def score_persons(
    model: ActionDetector,
    batches: Iterable[Sequence[Batch]],
    remember: Remember,
    label_map: LabelMap,
    *,
    total: int,
    progress: Callable[[int, int, str], None],
) -> pd.DataFrame:
    """Score every box of every clip, averaged over its views (scales x flip, paper section 3.1).

    Args:
        model: set to evaluation mode here.
        batches: each a sequence of views of the same clips.
        remember: what the clips of a batch remember, by their keys.
        label_map: columns of the scores.
        total: number of clips of this process, for the progress.
        progress: called with (clips done, total, text).

    Returns:
        One row a (box, action): ``source`` and the columns of a detection file. The first process
        gets those of all processes.
    """
    model.eval()
    where = next(model.parameters()).device
    parts, done = [], 0
    for views in batches:
        memory = remember(views[0].keys).to(where)
        views_NA = [_scores(model, view.to(where), memory) for view in views]
        scores_NA = torch.stack(views_NA).mean(dim=0)
        clips = zip(views[0].keys, views[0].counts_B.tolist(), strict=True)
        parts.append(_rows_evaluate(clips, views[0].boxes_norm_N4, scores_NA, label_map))
        done += len(views[0].keys)
        progress(done, total, "clips")
    return _joined(processes.gather_first(parts))


def _scores(model: ActionDetector, batch: Batch, memory: MemoryTokens) -> torch.Tensor:
    inputs = (batch.clips_BCTHW, batch.boxes_N4, batch.counts_B, batch.boxes_norm_N4)
    return model(*inputs, memory).float().sigmoid().cpu()


@torch.inference_mode()
def score_features(
    head: Head,
    keyframes: Sequence[Keyframe],
    views: Sequence[Mapping[str, FeatureBank]],
    remember: Remember,
    label_map: LabelMap,
    *,
    key: Callable[[Keyframe], Key] = view_key,
    batch: int = 64,
) -> pd.DataFrame:
    """The same from features that were extracted before: one head after the other takes seconds.

    Args:
        head: set to evaluation mode here.
        keyframes: this process's share.
        views: banks of test views by source, one mapping a view.
        remember: what the keyframes remember.
        label_map: columns of the scores.
        key: where the banks keep a keyframe.
        batch: keyframes at a time.
    """
    head.eval()
    where = next(head.parameters()).device
    parts = []
    for start in range(0, len(keyframes), batch):
        those = keyframes[start : start + batch]
        memory, scores = remember([(k.source, k.video, k.timestamp) for k in those]), []
        for banks in views:
            found = feature_batch(those, banks, memory, key).to(where)
            inputs = (found.tokens_NLC, found.boxes_N4, found.counts_B, found.memory)
            scores.append(head(*inputs).float().sigmoid().cpu())
        clips = [((k.source, k.video, k.timestamp), len(k.boxes)) for k in those]
        boxes_N4 = torch.from_numpy(np.concatenate([k.boxes for k in those]))
        parts.append(_rows_evaluate(clips, boxes_N4, torch.stack(scores).mean(dim=0), label_map))
    return _joined(processes.gather_first(parts))


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all parts; where nobody was found, there are none."""
    return pd.concat(parts or [pd.DataFrame(columns=["source", *KEY, "score"])], ignore_index=True)


def _rows_evaluate(
    clips: Iterable[tuple[tuple[str, str, float], int]],
    boxes_N4: torch.Tensor,
    scores_NA: torch.Tensor,
    label_map: LabelMap,
) -> pd.DataFrame:
    """The rows of one batch; boxes as they came, not as a view saw them."""
    keys = [key for key, count in clips for _ in range(count)]
    persons = pd.DataFrame(keys, columns=["source", "video", "timestamp"])
    persons[BOX] = boxes_N4.numpy()
    rows = persons.loc[persons.index.repeat(label_map.num_actions)].reset_index(drop=True)
    rows["action_id"] = list(label_map.ids) * len(persons)
    rows["score"] = scores_NA.flatten().numpy()
    return rows


def write_detections(rows: pd.DataFrame, path: Path) -> None:
    """Write a detection file in the official form, without the ``source`` column."""
    text = rows[[*KEY, "score"]].copy()
    text["timestamp"] = text["timestamp"].map("{:.6f}".format)
    text[BOX] = text[BOX].map("{:.6f}".format)
    text["score"] = text["score"].map("{:.8f}".format)
    with written_whole(path) as temporary:
        text.to_csv(temporary, header=False, index=False)


def frame_maps(
    groundtruth: dict[str, pd.DataFrame], detections: dict[str, Path], labels: LabelMap
) -> dict:
    """Frame mAP@0.5 of every source, and of all jointly as one data set.

    A+K is one joint evaluation over the concatenated files, not a mean of two (field practice;
    in Table 1 the joint number can exceed both).

    Args:
        groundtruth: annotation rows by source.
        detections: detection file by source.
        labels: the evaluated actions.

    Returns:
        By source, and by ``ava+kinetics`` where there are two: ``{"mAP": ..., "AP": {...}}``.
    """
    sources = list(groundtruth)
    found = {
        source: average_precision.frame_map(
            groundtruth[source], detections[source], labels
        ).to_json()
        for source in sources
    }
    if len(sources) > 1:
        files = [[paths[source] for source in sources] for paths in (groundtruth, detections)]
        found["+".join(sources)] = average_precision.frame_map(*files, labels).to_json()
    return found


def remember_out_of(run: Run, banks: Mapping[str, bank.FeatureBank]) -> Remember:
    """What clips remember out of these banks; they may fill up while this is in use."""
    experiment = run.experiment
    width = build.numbers(experiment).width

    def remember(keys: list[tuple[str, str, float]]) -> heads.MemoryTokens:
        empty = no_memory(len(keys), width)
        if not banks:
            return empty
        return bank.windows(banks, keys, experiment.span, experiment.remembered, empty)

    return remember


def memory_banks(
    run: Run, banks: Banks, model: ActionDetector, stage: Stage, split: str
) -> dict[str, bank.FeatureBank]:
    """The offline banks that a stage remembers out of, by source."""
    sources = [source for source in stage.memory if run.has(source, split)]
    for source in sources:
        run.require_boxes(source, split)
    return {source: banks.seconds(model, source, split) for source in sources}


def detection_file(folder: Path, source: str, split: str) -> Path:
    """Where a run keeps its scores of a split."""
    return folder / f"detections_{source}{'' if split == 'val' else '_' + split}.csv"


def score(run: Run, model: ActionDetector, split: str = "val") -> dict:
    """Score a split's boxes, write a detection file a source, measure what is annotated.

    Args:
        run: whose ``folder`` gets the files.
        model: with the weights of the last stage.
        split: ``val`` or ``test``.

    Returns:
        Frame mAPs by source and jointly, as a record has them; the same on all processes.
    """
    keyframes = scored_keyframes(run, split)
    with processes.autocast(run.half):
        rows = _rows_scoring(run, model, keyframes, split)
    found: list[dict] = [{}]
    if processes.rank() == 0:
        rows = _in_order(rows, keyframes)
        if run.experiment.detections and run.experiment.detections.product:
            rows = _times_box_score(run, rows, split)
        found = [measure(run, rows, split)]
    return processes.of_first(found)


def _rows_scoring(
    run: Run, model: ActionDetector, keyframes: Sequence[Keyframe], split: str
) -> pd.DataFrame:
    """Scores of all processes, on the first of them."""
    experiment, last = run.experiment, run.experiment.stages[-1]
    labels = run.layout.label_map()
    banks = run.banks(len(experiment.stages))
    past = remember_out_of(run, memory_banks(run, banks, model, last, split))
    if last.train == "all":
        views = build.views(experiment).values()
        batches = build.test_batches(experiment, run.layout, keyframes, views)
        return score_persons(
            model,
            batches,
            past,
            labels,
            total=sum(map(len, batches.batch_sampler)),
            progress=run.progress(f"evaluate {experiment.head}"),
        )
    own = keyframes[processes.rank() :: processes.num_processes()]
    views = banks.views(model, keyframes, split)
    return score_features(model.head, own, views, past, labels)


def _in_order(rows: pd.DataFrame, keyframes: Sequence[Keyframe]) -> pd.DataFrame:
    """The rows as one process and batches of one size would have written them."""
    moments = [(k.source, k.video, k.timestamp) for k in keyframes]
    if not moments:
        return rows
    place = pd.Series(range(len(moments)), index=pd.MultiIndex.from_tuples(moments))
    of_row = pd.MultiIndex.from_frame(rows[["source", "video", "timestamp"]])
    return rows.iloc[place.loc[of_row].to_numpy().argsort(kind="stable")].reset_index(drop=True)


def _times_box_score(run: Run, rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """Action scores multiplied by the scores of their boxes."""
    experiment, parts = run.experiment, []
    for source, own in rows.groupby("source", sort=False):
        by_moment = detections(run.layout, source, split, experiment.boxes_name, 0.0)
        boxes = pd.concat(by_moment.values(), ignore_index=True)
        boxes = boxes.astype(dict.fromkeys(BOX, "float32"))
        keys = ["video", "timestamp", *BOX]
        factor = own.merge(boxes.rename(columns={"score": "box"}), on=keys, how="left")["box"]
        parts.append(own.assign(score=own["score"].to_numpy() * factor.to_numpy()))
    return pd.concat(parts, ignore_index=True)


def measure(run: Run, rows: pd.DataFrame, split: str) -> dict:
    """Write one detection file a source and return frame mAPs by source and jointly.

    A source in which nobody was found has an empty file and every AP 0; one that nobody annotated
    has a file and no AP.
    """
    files = {}
    for source in SOURCES:
        if run.has(source, split) or run.layout.video_list(source, split).is_file():
            files[source] = detection_file(run.folder, source, split)
            write_detections(rows[rows["source"] == source], files[source])
    truths = {}
    for source in [name for name in files if run.has(name, split)]:
        truth = groundtruth(run.layout, source, split)
        if has_actions(truth):
            truths[source] = truth
    own = {source: files[source] for source in truths}
    return frame_maps(truths, own, run.layout.label_map()) if truths else {}


def run_stages(run: Run) -> dict:
    """Pretrain (or reuse), train every stage, evaluate; returns the metrics of a record."""
    experiment = run.experiment
    for source in SOURCES:
        require_agreement(run.layout, source)
    weights = pretrained_backbone(experiment, run.progress)
    model = _fresh(run, experiment.stages[0])
    model.backbone.load_state_dict(weights)
    for number, stage in enumerate(experiment.stages, 1):
        if stage.start == "previous-backbone":
            model = _with_new_head(run, stage, model)
        if stage.start == "previous-but-classifier":
            fresh = _fresh(run, stage).head.classifier
            model.head.classifier.load_state_dict(fresh.state_dict())
        train = _train_all if stage.train == "all" else _train_head
        train(run, stage, number, model)
    return score(run, model)


def trained_model(run: Run) -> ActionDetector:
    """The model of a run that is finished, with the weights of its last stage."""
    experiment = run.experiment
    model = _fresh(run, experiment.stages[-1])
    for number, stage in enumerate(experiment.stages, 1):
        path = run.stage_folders[number - 1] / "checkpoint.pt"
        weights = read_weights(path, experiment.stage_digest(number))["model"]
        if stage.train == "all" and stage is not experiment.stages[-1]:
            body = {name: w for name, w in weights.items() if not name.startswith("head.")}
            model.load_state_dict(body, strict=False)
        else:
            (model if stage.train == "all" else model.head).load_state_dict(weights)
    return model


def _fresh(run: Run, stage: Stage) -> ActionDetector:
    torch.manual_seed(run.experiment.seed)  # after pretraining, whose length must not matter
    num_actions = run.layout.label_map().num_actions
    model = build.action_detector(run.experiment, num_actions, bool(stage.memory))
    if run.recompute:
        recompute_activations(model.backbone)
    if run.execution.compile:
        model.backbone.compile()
    return model.to(processes.device())


def _with_new_head(run: Run, stage: Stage, old: ActionDetector) -> ActionDetector:
    """Backbone and fusion of the stage before under a head that knows nothing yet."""
    model = _fresh(run, stage)
    model.backbone.load_state_dict(old.backbone.state_dict())
    model.fusion.load_state_dict(old.fusion.state_dict())
    return model


def _train_all(run: Run, stage: Stage, number: int, model: ActionDetector) -> None:
    """Clips in, every weight trained; whoever is remembered is remembered as seen last."""
    experiment = run.experiment
    keyframes = training_keyframes(run, stage)
    dataset = build.train_dataset(experiment, run.layout, keyframes)
    online = OnlineBanks(
        run.stage_folders[number - 1] / "online",
        {"stage": experiment.stage_digest(number)},
        build.token_size(experiment, model),
        {source: [k for k in keyframes if k.source == source] for source in stage.memory},
    )

    def batches(start: int) -> Iterator[tuple[Batch, Share]]:
        online.restore(start)
        turns = run.execution.accumulate
        labels = run.layout.label_map()
        order = build.order(experiment, stage, keyframes, labels, start, accumulate=turns)
        parts = build.train_batches(experiment, dataset, order, alike=run.alike)
        for turn, part in enumerate(parts):
            if turn % turns == 0:
                online.settle()  # what the iteration before saw
            yield part

    remember = remember_out_of(run, online.banks)
    objective = partial(clip_loss, remember=remember, online=online)
    _fit(run, number, model.train(), objective, batches, keep=online.keep)


def _train_head(run: Run, stage: Stage, number: int, model: ActionDetector) -> None:
    """Features in, of a backbone that no longer changes; trains the head, or its classifier."""
    experiment = run.experiment
    banks = run.banks(number)
    keyframes = one_a_second(training_keyframes(run, stage))
    sources = dict.fromkeys(keyframe.source for keyframe in keyframes)
    known = {source: banks.trained_on(model, source, keyframes) for source in sources}
    remember = remember_out_of(run, memory_banks(run, banks, model, stage, "train"))

    def batches(start: int) -> Iterator[tuple[FeatureBatch, Share]]:
        turns = run.execution.accumulate
        labels = run.layout.label_map()
        order = build.order(experiment, stage, keyframes, labels, start, accumulate=turns)
        return feature_batches(keyframes, order, known, remember)

    model.head.requires_grad_(stage.train == "head")
    model.head.classifier.requires_grad_(True)
    _fit(run, number, model.head.train(), feature_loss, batches)


def _fit(
    run: Run,
    number: int,
    trained: nn.Module,
    objective: Callable,
    batches: Callable[[int], Iterable],
    *,
    keep: Callable[[int], None] = lambda iteration: None,
) -> None:
    experiment = run.experiment
    stage = experiment.stages[number - 1]
    words = f"train {experiment.head}" + (f", stage {number}" if number > 1 else "")
    fit(
        trained,
        objective,
        batches,
        Schedule(
            iterations=stage.iterations,
            lr=stage.lr,
            drop=stage.drop,
            weight_decay=stage.weight_decay,
            clip=stage.clip,
            seed=experiment.seed,
        ),
        folder=run.stage_folders[number - 1],
        digest=experiment.stage_digest(number),
        progress=run.progress(words),
        keep=keep,
        accumulate=run.execution.accumulate,
        half=run.half,
        save_every=run.execution.save_every,
    )


def clip_loss(
    model: nn.Module, part: tuple[Batch, Share], remember: Remember, online: OnlineBanks
) -> tuple[torch.Tensor, int]:
    """The loss of a share of a batch of clips, whose persons' tokens the online bank keeps."""
    batch, share = part
    set_share(model, share.rows, share.total)
    where = next(model.parameters()).device
    past = remember(batch.keys).to(where)
    moved = batch.to(where)
    seen: list[torch.Tensor] = []
    head = getattr(model, "module", model).head  # DDP keeps the model in ``module``
    with head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        inputs = (moved.clips_BCTHW, moved.boxes_N4, moved.counts_B, moved.boxes_norm_N4)
        logits_NA = model(*inputs, past)
    online.update(batch.keys, batch.counts_B, seen[0], batch.boxes_norm_N4)
    return _loss(logits_NA, moved.actions_NA)


def feature_loss(head: nn.Module, part: tuple[FeatureBatch, Share]) -> tuple[torch.Tensor, int]:
    """The loss of a share of a batch of persons whose tokens are known."""
    set_share(head, part[1].rows, part[1].total)
    batch = part[0].to(next(head.parameters()).device)
    logits_NA = head(batch.tokens_NLC, batch.boxes_N4, batch.counts_B, batch.memory)
    return _loss(logits_NA, batch.actions_NA)


def _loss(logits_NA: torch.Tensor, actions_NA: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Binary cross-entropy over all actions, summed over persons (SlowFast, AlphAction)."""
    loss = F.binary_cross_entropy_with_logits(logits_NA, actions_NA, reduction="none")
    return loss.mean(dim=1).sum(), len(logits_NA)

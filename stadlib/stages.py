"""From an experiment to metrics: the stages one after the other, then the evaluation.

A stage that trains everything sees clips and, where it remembers, keeps an online bank. A stage
that trains the head alone cannot change what the backbone sees: every second of every video is
extracted once, and it trains on that in seconds. No strategy of Table 2 has code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from stadlib import build, processes
from stadlib.config import Stage
from stadlib.data.annotations import require_agreement
from stadlib.data.clips import Batch
from stadlib.data.layout import SOURCES
from stadlib.data.sampling import Share
from stadlib.features import FeatureBatch, Remember, feature_batches, one_a_second
from stadlib.models.action_detector import ActionDetector
from stadlib.models.dropout import set_share
from stadlib.models.networks import recompute_activations
from stadlib.online import OnlineBanks
from stadlib.preparation import pretrained_backbone
from stadlib.scoring import memory_banks, remember_out_of, score
from stadlib.train import Schedule, fit, read_weights
from stadlib.workspace import Run, training_keyframes


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

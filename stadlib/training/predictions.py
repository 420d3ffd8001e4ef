"""From a trained model to its predictions files and their mAP.

Legend: N persons of a batch, A actions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from stadlib.base import Report, written_whole
from stadlib.data import rows as data_rows
from stadlib.data.boxes import read_person_boxes
from stadlib.data.clips import Batch
from stadlib.data.layout import AvaLayout, LabelMap
from stadlib.evaluation.average_precision import frame_map
from stadlib.models.action_detector import ActionDetector, ActionLoss, OnMaps
from stadlib.training import build, memory, processes
from stadlib.training.memory import FeatureBatch
from stadlib.training.stages import Remember, Run, model_inputs, remember_from, scored_keyframes

BOX = list(data_rows.BOX)


def predict(run: Run, model: ActionDetector, split: str = "val") -> dict:
    """Score a split's boxes, write a predictions file a source; returns what they measure."""
    experiment, number = run.experiment, len(run.experiment.stages)
    keyframes, labels = scored_keyframes(run, split), run.layout.label_map()
    with processes.autocast(run.half):
        remember = remember_from(run, run.memory(model, number, split))
        if not experiment.stages[-1].on_features:
            views = list(build.views(experiment).values())
            options = {"workers": run.execution.workers}
            batches = build.test_batches(experiment, run.layout, keyframes, views, **options)
            report = {"progress": run.progress(f"evaluate {experiment.head}")}
            report |= {"total": sum(map(len, batches.batch_sampler))}
            rows = score_persons(model, batches, run.loss, remember, labels, **report)
        else:
            share = keyframes[processes.rank() :: processes.num_processes()]
            banks, module = run.banks(number), model.head
            if experiment.stages[-1].train == "all":
                banks, module = run.maps(), OnMaps(model)
            batches = memory.feature_views(share, banks.views(model, keyframes, split))
            rows = score_persons(module, batches, run.loss, remember, labels)
    metrics = {}
    if processes.rank() == 0:
        # In the order of the keyframes, as one process and batches of one size would write them.
        places = {memory.clip_key(keyframe): place for place, keyframe in enumerate(keyframes)}
        keys = zip(rows["source"], rows["video"], rows["timestamp"], strict=True)
        rows = rows.iloc[np.argsort([places[key] for key in keys], kind="stable")]
        scored = run.layout.sources(split, listed=True)
        files = {source: detection_file(run.folder, source, split) for source in scored}
        for source, path in files.items():
            of_source = rows[rows["source"] == source]
            if len(of_source) and experiment.detections and experiment.detections.product:
                boxes = run.layout.person_boxes(experiment.boxes_name, source, split)
                boxes = read_person_boxes(boxes).astype(dict.fromkeys(BOX, "float32"))
                boxes = boxes.rename(columns={"score": "box"})
                factor = of_source.merge(boxes, on=["video", "timestamp", *BOX], how="left")["box"]
                of_source = of_source.assign(score=of_source["score"] * factor.to_numpy())
            write_detections(of_source, path)
        metrics = measure(run.layout, files, split)
    return processes.gather([metrics])[0]


@torch.inference_mode()
def score_persons(
    module: nn.Module,
    batches: Iterable[Sequence[Batch | FeatureBatch]],
    loss: ActionLoss,
    remember: Remember,
    label_map: LabelMap,
    *,
    total: int = 0,
    progress: Report = lambda *_: None,
) -> pd.DataFrame:
    """Score every box of every clip, averaged over its views (scales x flip, paper section 3.1).

    ``module`` is an action detector for clips, its head for features; a batch is a sequence of
    views of the same clips, of which this process has ``total``. Returns a row a (box, action):
    ``source`` and a predictions file's columns; the first process gets those of all processes.
    """
    module.eval()
    device = next(module.parameters()).device
    columns = ["source", *data_rows.COLUMNS]
    parts, done = [], 0
    for views in batches:
        first, remembered = views[0], remember(views[0].keys).to(device)
        scored = [module(*model_inputs(view.to(device)), remembered) for view in views]
        logits = [x[0] if isinstance(x, tuple) else x for x in scored]
        scores_NA = torch.stack([loss.probabilities(x.float()) for x in logits]).mean(dim=0).cpu()
        clips = zip(first.keys, first.counts_B.tolist(), strict=True)
        keys = [key for key, count in clips for _ in range(count)]
        persons = pd.DataFrame(keys, columns=columns[:3])
        persons[BOX] = first.boxes_norm_N4.numpy()
        rows = persons.merge(pd.DataFrame({"action_id": label_map.ids}), how="cross")
        parts.append(rows.assign(score=scores_NA.flatten().numpy()))
        done += len(first.keys)
        progress(done, total, "clips")
    parts = processes.gather(parts, first_only=True)
    return pd.concat(parts or [pd.DataFrame(columns=columns)], ignore_index=True)


def detection_file(folder: Path, source: str, split: str) -> Path:
    """Where a run keeps its predictions of a split."""
    return folder / f"detections_{source}{'' if split == 'val' else '_' + split}.csv"


def write_detections(rows: pd.DataFrame, path: Path) -> None:
    """Write a predictions file in the official form, without the ``source`` column."""
    text = rows[list(data_rows.COLUMNS)].copy()
    for column, decimals in {"timestamp": 6, **dict.fromkeys(BOX, 6), "score": 8}.items():
        text[column] = text[column].map(f"{{:.{decimals}f}}".format)
    with written_whole(path) as temporary:
        text.to_csv(temporary, header=False, index=False)


def groundtruth(layout: AvaLayout, source: str, split: str = "val") -> pd.DataFrame:
    """The rows of a source's split without its excluded timestamps, which are not scored."""
    rows = data_rows.read_rows(layout.annotations(source, split))
    excluded = {",".join(moment) for moment in layout.excluded(source, split)}
    return rows[[key not in excluded for key in data_rows.keyframe_keys(rows)]]


def measure(layout: AvaLayout, files: Mapping[str, Path], split: str) -> dict:
    """Frame mAP@0.5 of predictions files by source, as far as the split names actions.

    ``ava+kinetics`` is one joint evaluation over both files, not a mean of two (field practice; in
    Table 1 the joint number can exceed both). A source where nobody was found has every AP 0.
    """
    pairs, metrics = {}, {}
    for source, path in files.items():
        if layout.annotations(source, split).is_file():
            truth = groundtruth(layout, source, split)
            if (truth["action_id"] != data_rows.NO_LABEL).any():  # a test split's may name none
                pairs[source] = truth, data_rows.read_rows(path)
    if len(pairs) > 1:
        pairs["+".join(pairs)] = tuple(map(list, zip(*pairs.values(), strict=True)))
    for source, (truth, predictions) in pairs.items():
        metrics[source] = frame_map(truth, predictions, layout.label_map()).to_json()
    return metrics

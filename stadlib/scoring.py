"""A trained model's scores of a split: detection files, and their frame mAP where it is annotated.

Whatever a model remembers of the seconds around is prepared here, for training and for scoring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from stadlib import build, evaluate, memory, processes
from stadlib.banks import Banks
from stadlib.config import Stage
from stadlib.data.annotations import Keyframe
from stadlib.data.detected import detections
from stadlib.data.layout import SOURCES
from stadlib.features import Remember
from stadlib.models.action_detector import ActionDetector
from stadlib.remembered import nobody
from stadlib.workspace import Run, groundtruth, has_actions, scored_keyframes


def remember_out_of(run: Run, banks: Mapping[str, memory.FeatureBank]) -> Remember:
    """What clips remember out of these banks; they may fill up while this is in use."""
    experiment = run.experiment
    width = build.numbers(experiment).width

    def remember(keys: list[tuple[str, str, float]]) -> memory.Memory:
        empty = nobody(len(keys), width)
        if not banks:
            return empty
        return memory.windows(banks, keys, experiment.span, experiment.remembered, empty)

    return remember


def memory_banks(
    run: Run, banks: Banks, model: ActionDetector, stage: Stage, split: str
) -> dict[str, memory.FeatureBank]:
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
        rows = _rows(run, model, keyframes, split)
    found: list[dict] = [{}]
    if processes.rank() == 0:
        rows = _in_order(rows, keyframes)
        if run.experiment.detections and run.experiment.detections.product:
            rows = _times_box_score(run, rows, split)
        found = [measure(run, rows, split)]
    return processes.of_first(found)


def _rows(
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
        return evaluate.score_persons(
            model,
            batches,
            past,
            labels,
            total=sum(map(len, batches.batch_sampler)),
            progress=run.progress(f"evaluate {experiment.head}"),
        )
    own = keyframes[processes.rank() :: processes.num_processes()]
    views = banks.views(model, keyframes, split)
    return evaluate.score_features(model.head, own, views, past, labels)


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
        boxes = boxes.astype(dict.fromkeys(evaluate.BOX, "float32"))
        keys = ["video", "timestamp", *evaluate.BOX]
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
            evaluate.write_detections(rows[rows["source"] == source], files[source])
    truths = {}
    for source in [name for name in files if run.has(name, split)]:
        truth = groundtruth(run.layout, source, split)
        if has_actions(truth):
            truths[source] = truth
    own = {source: files[source] for source in truths}
    return evaluate.frame_maps(truths, own, run.layout.label_map()) if truths else {}

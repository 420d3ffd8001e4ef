"""From a trained model to mAP: scales and flips, scores a box, detection files.

Legend: N persons of a batch, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch

from stadlib import metrics, processes
from stadlib.data.clips import Batch
from stadlib.labels import LabelMap
from stadlib.models.action_detector import ActionDetector
from stadlib.paths import written_whole

BOX = ["x1", "y1", "x2", "y2"]
KEY = ["video", "timestamp", *BOX, "action_id"]


@torch.inference_mode()
def score_persons(
    model: ActionDetector,
    batches: Iterable[Sequence[Batch]],
    label_map: LabelMap,
    *,
    total: int,
    progress: Callable[[int, int, str], None],
) -> pd.DataFrame:
    """Score every box of every clip, averaged over its views (scales x flip, paper section 3.1).

    Args:
        model: set to evaluation mode here.
        batches: each a sequence of views of the same clips.
        label_map: columns of the scores.
        total: number of clips of this process, for the progress.
        progress: called with (clips done, total, text).

    Returns:
        One row a (box, action) of all processes: ``source`` and the columns of a detection file.
    """
    model.eval()
    where = next(model.parameters()).device
    parts, done = [], 0
    for views in batches:
        views_NA = [_scores(model, view.to(where)).cpu() for view in views]
        scores_NA = torch.stack(views_NA).mean(dim=0)
        parts.append(_rows(views[0], scores_NA, label_map))
        done += len(views[0].keys)
        progress(done, total, "clips")
    return pd.concat(processes.gather(parts), ignore_index=True)


def _scores(model: ActionDetector, batch: Batch) -> torch.Tensor:
    memory = model.empty_memory(batch.counts_B)
    return model(batch.clips_BCTHW, batch.boxes_N4, batch.counts_B, *memory).sigmoid()


def _rows(batch: Batch, scores_NA: torch.Tensor, label_map: LabelMap) -> pd.DataFrame:
    """The rows of one batch; boxes as they came, not as a view saw them."""
    counts = batch.counts_B.tolist()
    keys = [key for key, count in zip(batch.keys, counts, strict=True) for _ in range(count)]
    persons = pd.DataFrame(keys, columns=["source", "video", "timestamp"])
    persons[BOX] = batch.boxes_norm_N4.numpy()
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
        source: metrics.frame_map(groundtruth[source], detections[source], labels).to_json()
        for source in sources
    }
    if len(sources) > 1:
        files = [[paths[source] for source in sources] for paths in (groundtruth, detections)]
        found["+".join(sources)] = metrics.frame_map(*files, labels).to_json()
    return found

"""From a trained model to mAP: scales and flips, scores a box, detection files.

Legend: N persons of a batch, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stadlib import metrics, processes
from stadlib.data.annotations import Keyframe
from stadlib.data.clips import Batch
from stadlib.features import Remember, feature_batch, view_key
from stadlib.labels import LabelMap
from stadlib.memory import FeatureBank, Key
from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import Head
from stadlib.paths import written_whole
from stadlib.remembered import Memory

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
        parts.append(_rows(clips, views[0].boxes_norm_N4, scores_NA, label_map))
        done += len(views[0].keys)
        progress(done, total, "clips")
    return _joined(processes.gather_first(parts))


def _scores(model: ActionDetector, batch: Batch, memory: Memory) -> torch.Tensor:
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
        parts.append(_rows(clips, boxes_N4, torch.stack(scores).mean(dim=0), label_map))
    return _joined(processes.gather_first(parts))


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all parts; where nobody was found, there are none."""
    return pd.concat(parts or [pd.DataFrame(columns=["source", *KEY, "score"])], ignore_index=True)


def _rows(
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
        source: metrics.frame_map(groundtruth[source], detections[source], labels).to_json()
        for source in sources
    }
    if len(sources) > 1:
        files = [[paths[source] for source in sources] for paths in (groundtruth, detections)]
        found["+".join(sources)] = metrics.frame_map(*files, labels).to_json()
    return found

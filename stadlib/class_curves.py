"""What runs on this machine say about single classes: differences, curves, training against test.

torch is imported only when a head is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from stadlib import metrics
from stadlib.config import InputError, from_dict
from stadlib.progress import Progress
from stadlib.records import Record


def class_differences(
    after: Record, before: Record, source: str = "ava", num_resamples: int = 1_000
) -> pd.DataFrame:
    """Return what each class gains from one run to another, with its interval over videos.

    Returns:
        By action id: ``gain``, ``low``, ``high`` in points of AP, from the paired bootstrap.

    Raises:
        InputError: a run is not on this machine.
    """
    ours, theirs = (_matches(record, source) for record in (after, before))
    found = metrics.bootstrap_classes(ours, theirs, num_resamples=num_resamples)
    table = pd.DataFrame.from_dict(found, orient="index", columns=["gain", "low", "high"])
    return 100 * table.rename_axis("action_id")


def precision_recall(
    record: Record, actions: Iterable[int], source: str = "ava"
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return recall and precision (not its envelope) after each detection, by action id."""
    matches = _matches(record, source)
    curves = {}
    for action in actions:
        column = matches.ids.index(action)
        hits = matches.hits[matches.starts[column] : matches.starts[column + 1]]
        right = np.cumsum(hits)
        total = int((matches.truth_class == column).sum())
        curves[action] = (right / total, right / np.arange(1, len(hits) + 1))
    return curves


def training_ap(record: Record, source: str = "ava") -> pd.Series:
    """Return the AP of every class on the data that the run was trained on, in %.

    Ground-truth boxes, one plain view, from the features that the last stages trained on. Against
    the AP on validation it tells what was learned by heart.
    """
    from stadlib import evaluate, stages, workspace  # noqa: PLC0415  (torch)
    from stadlib.features import one_a_second, second_key  # noqa: PLC0415
    from stadlib.remembered import nobody  # noqa: PLC0415

    run = _run(record)
    model = stages.trained_model(run)
    keyframes = one_a_second(workspace.annotated(run.layout, [source], "train"))
    bank = run.banks(len(run.experiment.stages)).trained_on(model, source, keyframes)
    labels = run.layout.label_map()
    rows = evaluate.score_features(
        model.head,
        keyframes,
        [{source: bank}],
        lambda keys: nobody(len(keys), bank.width),
        labels,
        key=second_key,
    )
    found = metrics.frame_map(workspace.groundtruth(run.layout, source, "train"), rows, labels)
    return 100 * pd.Series(found.AP, dtype=float).rename_axis("action_id")


def _matches(record: Record, source: str) -> metrics.Matches:
    from stadlib import workspace  # noqa: PLC0415  (torch)

    run = _run(record)
    truth = workspace.groundtruth(run.layout, source)
    path = record.folder / f"detections_{source}.csv"
    return metrics.match(truth, path, run.layout.label_map())


def _run(record: Record):
    from stadlib import workspace  # noqa: PLC0415  (torch)

    if record.folder is None or not (record.folder / "record.json").is_file():
        raise InputError(f"record {record.digest}: its run is not on this machine; run it first")
    return workspace.open_run(from_dict(record.experiment), record.folder, Progress)

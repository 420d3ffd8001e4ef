"""What a run left behind, as the figures want it: its log, its scores on keyframes, its data.

torch is imported only when frames are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from stadlib.config import InputError, from_dict
from stadlib.contact_sheet import Example
from stadlib.metrics import keyframe_keys, read_rows
from stadlib.metrics.matching import overlaps
from stadlib.progress import Progress
from stadlib.records import Record

_CORNERS = ["x1", "y1", "x2", "y2"]


def training_log(record: Record) -> pd.DataFrame:
    """Return the log of a run's last stage: ``iteration``, ``loss``, ``lr``, ``seconds``.

    Raises:
        InputError: the record came without its run, as a committed reference does.
    """
    experiment = from_dict(record.experiment)
    digest = experiment.stage_digest(len(experiment.stages))
    path = _folder(record).parent / "stages" / digest / "log.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no such log; delete the record beside it and run again")
    return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])


def class_counts(record: Record) -> pd.DataFrame:
    """Return the training instances of every action in the data of a run.

    Returns:
        By ``action_id``: ``name``, and the instances in ``ava`` and ``kinetics``.
    """
    workspace, run = _open(record)
    layout = run.layout
    labels = layout.label_map()
    counts = pd.DataFrame(index=pd.Index(labels.ids, name="action_id"))
    counts["name"] = [labels.name(action) for action in labels.ids]
    for source in workspace.SOURCES:
        persons = [k.actions for k in workspace.annotated(layout, [source], "train")]
        counts[source] = np.concatenate(persons).sum(axis=0)
    return counts


def examples(record: Record, count: int = 6) -> list[Example]:
    """Return validation keyframes of two persons or more, evenly spread over both sources.

    Which ones does not depend on the scores: neither good nor bad cases are picked. A detected
    person's true actions are those of the annotated one that it overlaps by half. Where nobody was
    detected, there is no example.
    """
    from stadlib.data.video import read_frames  # noqa: PLC0415  (torch)

    workspace, run = _open(record)
    layout, keyframes = run.layout, workspace.validation_keyframes(run)
    annotated = {k.key: k for k in workspace.annotated(layout, workspace.SOURCES, "val")}
    several = [keyframe for keyframe in keyframes if len(keyframe.boxes) > 1] or keyframes
    places = np.linspace(0, len(several) - 1, count).astype(int) if several else []
    chosen = [several[place] for place in places]
    scores = {name: _scores(record, name) for name in {keyframe.source for keyframe in chosen}}
    found = []
    for keyframe in chosen:
        path = layout.video_file(keyframe.source, keyframe.video)
        time = keyframe.timestamp - layout.video_start(keyframe.source, keyframe.video)
        ids = np.array(layout.label_map().ids)
        actions = _true_actions(keyframe, annotated.get(keyframe.key))
        found.append(
            Example(
                title=f"{keyframe.source}: {keyframe.video}, {keyframe.timestamp:g} s",
                frame=read_frames(path, [time])[0].permute(1, 2, 0).numpy(),
                boxes=keyframe.boxes,
                truths=[ids[own].tolist() for own in actions],
                scores=[scores[keyframe.source](keyframe.key, box) for box in keyframe.boxes],
            )
        )
    return found


def _true_actions(keyframe, annotated) -> np.ndarray:
    """(N, actions) of the annotated persons under the boxes of a keyframe; none elsewhere."""
    if annotated is None:
        return np.zeros_like(keyframe.actions)
    mine, theirs = keyframe.boxes, annotated.boxes
    pairs = np.repeat(mine, len(theirs), axis=0), np.tile(theirs, (len(mine), 1))
    iou = overlaps(*pairs).reshape(len(mine), len(theirs))
    return annotated.actions[iou.argmax(axis=1)] & (iou.max(axis=1) >= 0.5)[:, None]


def _open(record: Record) -> tuple:
    """The module that opens runs, and the record's."""
    from stadlib import workspace  # noqa: PLC0415  (torch)

    return workspace, workspace.open_run(from_dict(record.experiment), record.folder, Progress)


def _scores(record: Record, source: str) -> Callable[[str, np.ndarray], dict[int, float]]:
    """A function that finds a person's scores in the run's detection file."""
    rows = read_rows(_folder(record) / f"detections_{source}.csv")
    keys = pd.Series(keyframe_keys(rows), index=rows.index)
    by_key = dict(list(rows.groupby(keys)))

    def of_person(key: str, box: np.ndarray) -> dict[int, float]:
        mine = by_key.get(key, rows[:0])
        same = (mine[_CORNERS] - box).abs().max(axis=1) < 1e-5  # the file has six decimals
        return dict(zip(mine["action_id"][same], mine["score"][same], strict=True))

    return of_person


def _folder(record: Record) -> Path:
    if record.folder is None or not (record.folder / "record.json").is_file():
        raise InputError(f"record {record.digest}: its run is not on this machine; run it first")
    return record.folder

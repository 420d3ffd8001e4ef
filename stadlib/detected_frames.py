"""What a run with detected boxes left behind: frames with those boxes, and where its AP is lost.

torch is imported only when files of the run are read.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from stadlib import metrics
from stadlib.config import InputError, from_dict
from stadlib.detected_sheet import DetectedFrame
from stadlib.metrics.matching import overlaps
from stadlib.progress import Progress
from stadlib.records import Record
from stadlib.scores import SOURCES

LEAST = 0.5  # IoU of a hit
LOSSES = {  # what AP is lost to, of the kinds that ``metrics.diagnose`` tells apart
    "missed persons": ("missed",),
    "imprecise boxes": ("box",),
    "false boxes": ("background", "duplicate"),
    "wrong labels": ("label",),
}
_CORNERS = ["x1", "y1", "x2", "y2"]


def examples(record: Record, count: int = 6) -> list[DetectedFrame]:
    """Return annotated validation frames with the boxes that a run used there.

    Half of them of each source, at even distances in the annotation file: which ones does not
    depend on what was found.

    Raises:
        InputError: the run is not on this machine.
    """
    from stadlib import workspace  # noqa: PLC0415  (torch)

    run = _run(record)
    sources = _sources(run)
    frames = []
    for number, source in enumerate(sources):
        keyframes = workspace.annotated(run.layout, [source], "val")
        share = count * (number + 1) // len(sources) - count * number // len(sources)
        share = min(share, len(keyframes))
        places = ((np.arange(share) + 0.5) * len(keyframes) / max(1, share)).astype(int)
        boxes_of = _boxes(run, source)
        frames += [_frame(run, keyframes[place], boxes_of) for place in places]
    return frames


def lost(record: Record) -> pd.DataFrame:
    """Return where a run loses AP (:func:`stadlib.metrics.diagnose`): the mean over classes.

    Returns:
        By source, a column each of :data:`LOSSES`, in points of mAP: what mending this kind of
        error alone would bring. Errors hide each other, so the columns are not parts of a whole.

    Raises:
        InputError: the run is not on this machine.
    """
    from stadlib import workspace  # noqa: PLC0415  (torch)

    run = _run(record)
    rows = {}
    for source in _sources(run):
        truth = workspace.groundtruth(run.layout, source)
        detections = run.folder / f"detections_{source}.csv"
        table = metrics.diagnose(truth, detections, run.layout.label_map())
        # Where all persons of a class are missed, whatever AP it lacks is lost to that.
        gains = table.assign(missed=table["missed"].fillna(1 - table["AP"]))
        rows[SOURCES[source]] = {
            name: 100 * gains[list(kinds)].sum(axis=1).mean() for name, kinds in LOSSES.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")


def match_persons(boxes: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes find a person, and which persons are found, by the evaluator's rule.

    A box, from the highest score down, looks at the person whom it overlaps most; it is a hit if
    it overlaps that one by half and no box before it did.

    Args:
        boxes: (N, 4), the highest score first.
        truth: (G, 4).
    """
    hits, found = np.zeros(len(boxes), bool), np.zeros(len(truth), bool)
    if not len(truth):
        return hits, found
    for number, box in enumerate(boxes):
        iou = overlaps(np.tile(box, (len(truth), 1)), truth)
        best = int(iou.argmax())
        hits[number] = iou[best] >= LEAST and not found[best]
        found[best] |= hits[number]
    return hits, found


def _frame(run, keyframe, boxes_of) -> DetectedFrame:
    from stadlib.data.video import read_frames  # noqa: PLC0415  (torch)

    path = run.layout.video_file(keyframe.source, keyframe.video)
    time = keyframe.timestamp - run.layout.video_start(keyframe.source, keyframe.video)
    truth = keyframe.boxes.astype(float)
    boxes, scores = boxes_of(keyframe)
    hits, found = match_persons(boxes, truth)
    return DetectedFrame(
        title=f"{SOURCES[keyframe.source]}: {keyframe.video}, {keyframe.timestamp:g} s",
        frame=read_frames(path, [time])[0].permute(1, 2, 0).numpy(),
        truth=truth,
        found=found,
        boxes=boxes,
        scores=scores,
        hits=hits,
    )


def _boxes(run, source: str):
    """A function that gives a keyframe's boxes and scores, as the run's experiment used them."""
    from stadlib.data.detected import detections  # noqa: PLC0415  (torch)

    experiment = run.experiment
    if not experiment.detected:
        return lambda keyframe: (keyframe.boxes.astype(float), np.ones(len(keyframe.boxes)))
    run.require_boxes(source, "val")
    threshold = experiment.detections.threshold
    found = detections(run.layout, source, "val", experiment.boxes_name, threshold)

    def of_keyframe(keyframe) -> tuple[np.ndarray, np.ndarray]:
        rows = found.get((keyframe.video, f"{keyframe.timestamp:.6f}"))
        if rows is None:
            return np.empty((0, 4)), np.empty(0)
        return rows[_CORNERS].to_numpy(), rows["score"].to_numpy()

    return of_keyframe


def _sources(run) -> list[str]:
    """Those whose validation split the dataset has."""
    from stadlib import workspace  # noqa: PLC0415  (torch)

    return [source for source in workspace.SOURCES if run.has(source, "val")]


def _run(record: Record):
    from stadlib import workspace  # noqa: PLC0415  (torch)

    if record.folder is None or not (record.folder / "record.json").is_file():
        raise InputError(f"record {record.digest}: its run is not on this machine; run it first")
    return workspace.open_run(from_dict(record.experiment), record.folder, Progress)

"""How good a detector's boxes are, whatever the persons do: AP, and recall by threshold.

torch is imported only when a detector must look first.
"""

from __future__ import annotations

import json
import time

import pandas as pd

from stadlib import metrics
from stadlib.config import Experiment, check_word, digest
from stadlib.detector_recipes import DETECTORS, made_of
from stadlib.labels import LabelMap
from stadlib.paths import published_dir, runs_dir
from stadlib.progress import Progress
from stadlib.records import Record, provenance, read_record, read_records, write_record

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
PERSON = LabelMap({1: "person"})
_CORNERS = ["x1", "y1", "x2", "y2"]


def detector_record(version: str, scale: str) -> Record:
    """Measure a version on the validation keyframes, or read the record of having done so.

    Returns:
        A record whose metrics are, by source: what :func:`stadlib.metrics.person_ap` gives, and
        ``thresholds``: by least score, ``recall`` and ``precision`` at IoU 0.5.
    """
    check_word("detector", version, tuple(DETECTORS))
    made = digest(made_of(version, scale))
    path = runs_dir() / "detectors" / f"{version}_{scale}-{made}.json"
    if path.exists():
        return read_record(path)
    from stadlib import detectors, processes, workspace  # noqa: PLC0415  (torch)
    from stadlib.data.person_boxes import read_person_boxes  # noqa: PLC0415

    started = time.monotonic()
    experiment = Experiment(scale=scale, detector=version)
    layout = workspace.prepare_data(experiment, Progress)
    found = {}
    for source in workspace.SOURCES:
        detectors.require_boxes(experiment, layout, source, "val", Progress)
        truth = workspace.groundtruth(layout, source)
        boxes = layout.person_boxes(experiment.boxes_name, source, "val")
        found[source] = quality(truth, read_person_boxes(boxes))
    where = provenance(str(processes.device()), time.monotonic() - started)
    words = {"detector": version, "stages": made_of(version, scale)["detector"]}
    words, found = json.loads(json.dumps([words, found]))  # as the record will be read again
    record = Record(words, made, scale, found, where, path.parent)
    if processes.rank() == 0:
        write_record(record, path)
    return record


def quality(groundtruth: pd.DataFrame, boxes: pd.DataFrame) -> dict:
    """AP of person boxes, and recall and precision by the least score.

    Args:
        groundtruth: rows of a source.
        boxes: of a detector, with scores.
    """
    found = metrics.person_ap(groundtruth, boxes)
    same = ["video", "timestamp", *_CORNERS]
    persons = groundtruth[groundtruth["action_id"] != metrics.NO_LABEL].drop_duplicates(same)
    silent = groundtruth[groundtruth["action_id"] == metrics.NO_LABEL]
    truth = pd.concat([persons.assign(action_id=PERSON.ids[0]), silent])
    matches = metrics.match(truth, boxes.assign(action_id=PERSON.ids[0]), PERSON)
    curve = {}
    for least in THRESHOLDS:
        taken = matches.hits[matches.scores >= least]
        curve[str(least)] = {
            "recall": float(taken.sum()) / max(1, len(persons)),
            "precision": float(taken.mean()) if len(taken) else None,
        }
    return {**found, "thresholds": curve}


def reference_detectors() -> dict[str, Record]:
    """The committed detector records by version."""
    records = read_records(published_dir("reference") / "detectors")
    return {record.experiment["detector"]: record for record in records}

"""How good person boxes are, whatever the persons do: COCO's average precision.

The evaluator is pycocotools, COCO's own: boxes are matched from the highest score down, each to
the free box of highest IoU, precision is read at 101 points of recall. A keyframe counts if ground
truth names it, as in the official action evaluator; boxes elsewhere are ignored.

How good a detector's boxes are, whatever the persons do: AP, and recall by threshold.

torch is imported only when a detector must look first.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stadlib.data import rows
from stadlib.data.labels import LabelMap
from stadlib.data.rows import BOX, NO_LABEL, Rows, keyframe_keys, table
from stadlib.evaluation import matching


def person_ap(groundtruth: Rows, boxes: Rows, max_boxes: int = 100) -> dict[str, float]:
    """AP of person boxes.

    Args:
        groundtruth: in AVA's layout; rows of one keyframe and box are one person, whatever the
            action. Person ids may stand in the last column.
        boxes: with ``action_id`` or without; rows of one keyframe and box are one box with the
            highest of their scores.
        max_boxes: of a keyframe, the highest scores.

    Returns:
        ``AP@0.5``, ``AP@0.75``, ``AP@0.5:0.95`` and ``recall@0.5`` (of all ``max_boxes``) as
        fractions, NaN without persons; ``persons`` and ``boxes``, how many there are.

    Raises:
        InputError: a file cannot be read; names file, row and column.
    """
    if isinstance(boxes, pd.DataFrame):
        boxes = boxes.assign(action_id=0)
    truth, found = table(groundtruth), table(boxes)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keyframe_keys(truth)), 1)}
    persons = _persons(truth[truth["action_id"] != NO_LABEL], numbers)
    guesses = _persons(found, numbers)
    counts = {"persons": len(persons), "boxes": len(guesses)}
    if persons.empty or guesses.empty:
        nothing = np.nan if persons.empty else 0.0
        return dict.fromkeys(("AP@0.5", "AP@0.75", "AP@0.5:0.95", "recall@0.5"), nothing) | counts
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks about its progress
        evaluation = _evaluation(persons, guesses, numbers, max_boxes)
    precision = evaluation.eval["precision"][:, :, 0, 0, 0]  # IoU, recall
    return {
        "AP@0.5": float(precision[0].mean()),
        "AP@0.75": float(precision[5].mean()),
        "AP@0.5:0.95": float(precision.mean()),
        "recall@0.5": float(evaluation.eval["recall"][0, 0, 0, 0]),
    } | counts


def _persons(rows: pd.DataFrame, numbers: dict[str, int]) -> pd.DataFrame:
    """One row a box in keyframes that count: number of the keyframe, corners, highest score."""
    rows = rows.assign(keyframe=[numbers.get(key, 0) for key in keyframe_keys(rows)])
    rows = rows.loc[rows["keyframe"] > 0, ["keyframe", *BOX, "score"]].astype(float)
    return rows.groupby(["keyframe", *BOX], sort=False, as_index=False)["score"].max()


def _evaluation(
    persons: pd.DataFrame, guesses: pd.DataFrame, numbers: dict[str, int], max_boxes: int
) -> COCOeval:
    truth = COCO()
    images = [{"id": number} for number in numbers.values()]
    truth.dataset = {"images": images, "categories": [{"id": 1}], "annotations": _coco(persons)}
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(_coco(guesses)), "bbox")
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [max_boxes]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _coco(boxes: pd.DataFrame) -> list[dict]:
    """COCO's annotations; IoU does not mind that corners are fractions of width and height."""
    width, height = boxes["x2"] - boxes["x1"], boxes["y2"] - boxes["y1"]
    columns = (boxes["keyframe"], boxes["x1"], boxes["y1"], width, height, boxes["score"])
    return [
        {
            "id": number,
            "image_id": int(keyframe),
            "category_id": 1,
            "bbox": [x, y, w, h],
            "area": w * h,
            "iscrowd": 0,
            "score": score,
        }
        for number, (keyframe, x, y, w, h, score) in enumerate(zip(*columns, strict=True), 1)
    ]


THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
PERSON = LabelMap({1: "person"})
_CORNERS = ["x1", "y1", "x2", "y2"]


def quality(groundtruth: pd.DataFrame, boxes: pd.DataFrame) -> dict:
    """AP of person boxes, and recall and precision by the least score.

    Args:
        groundtruth: rows of a source.
        boxes: of a detector, with scores.
    """
    found = person_ap(groundtruth, boxes)
    same = ["video", "timestamp", *_CORNERS]
    persons = groundtruth[groundtruth["action_id"] != rows.NO_LABEL].drop_duplicates(same)
    silent = groundtruth[groundtruth["action_id"] == rows.NO_LABEL]
    truth = pd.concat([persons.assign(action_id=PERSON.ids[0]), silent])
    matches = matching.match(truth, boxes.assign(action_id=PERSON.ids[0]), PERSON)
    curve = {}
    for least in THRESHOLDS:
        taken = matches.hits[matches.scores >= least]
        curve[str(least)] = {
            "recall": float(taken.sum()) / max(1, len(persons)),
            "precision": float(taken.mean()) if len(taken) else None,
        }
    return {**found, "thresholds": curve}

"""How good person boxes are, whatever the people do: AP, and recall and precision by threshold.

The evaluator of AP is pycocotools, COCO's own: boxes are matched from the highest score down, each
to the free box of highest IoU, precision is read at 101 points of recall. A keyframe counts if
ground truth names it, as in the official action evaluator; boxes elsewhere are ignored.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stadlib.data.layout import LabelMap
from stadlib.data.rows import BOX, NO_LABEL, Rows, keyframe_keys, table
from stadlib.evaluation.matching import match

MAX_BOXES = 100  # of a keyframe, the highest scores
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
PERSON = LabelMap({1: "person"})


def person_ap(groundtruth: Rows, boxes: pd.DataFrame) -> dict[str, float]:
    """AP of person boxes: ``AP@0.5``, ``AP@0.75``, ``AP@0.5:0.95``, ``recall@0.5``; two counts.

    Both tables are in AVA's layout. Rows of one keyframe and box are one person, whatever the
    action, with the highest of their scores. Without persons the fractions are NaN.
    """
    truth, found = table(groundtruth), table(boxes.assign(action_id=0))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keyframe_keys(truth)), 1)}
    persons = _distinct(truth[truth["action_id"] != NO_LABEL], numbers)
    guesses = _distinct(found, numbers)
    counts = {"persons": len(persons), "boxes": len(guesses)}
    if persons.empty or guesses.empty:
        nothing = np.nan if persons.empty else 0.0
        return dict.fromkeys(("AP@0.5", "AP@0.75", "AP@0.5:0.95", "recall@0.5"), nothing) | counts
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        images = [{"id": number} for number in numbers.values()]
        coco.dataset = {"images": images, "categories": [{"id": 1}], "annotations": _coco(persons)}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(_coco(guesses)), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MAX_BOXES]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 0]  # IoU, recall
    return {
        "AP@0.5": float(precision[0].mean()),
        "AP@0.75": float(precision[5].mean()),
        "AP@0.5:0.95": float(precision.mean()),
        "recall@0.5": float(evaluation.eval["recall"][0, 0, 0, 0]),
    } | counts


def _distinct(rows: pd.DataFrame, numbers: dict[str, int]) -> pd.DataFrame:
    """One row a box in keyframes that count: number of the keyframe, corners, highest score."""
    rows = rows.assign(keyframe=[numbers.get(key, 0) for key in keyframe_keys(rows)])
    rows = rows.loc[rows["keyframe"] > 0, ["keyframe", *BOX, "score"]].astype(float)
    return rows.groupby(["keyframe", *BOX], sort=False, as_index=False)["score"].max()


def _coco(boxes: pd.DataFrame) -> list[dict]:
    """COCO's annotations; IoU does not change with corners in fractions of width and height."""
    annotations = []
    for number, box in enumerate(boxes.itertuples(index=False), 1):
        width, height = box.x2 - box.x1, box.y2 - box.y1
        entry = {"id": number, "image_id": int(box.keyframe), "category_id": 1, "iscrowd": 0}
        entry |= {"bbox": [box.x1, box.y1, width, height], "area": width * height}
        annotations.append(entry | {"score": box.score})
    return annotations


def quality(groundtruth: pd.DataFrame, boxes: pd.DataFrame) -> dict:
    """:func:`person_ap`, and ``thresholds``: recall and precision by the least score."""
    report = person_ap(groundtruth, boxes)
    labelled = groundtruth["action_id"] != NO_LABEL
    persons = groundtruth[labelled].drop_duplicates(["video", "timestamp", *BOX])
    truth = pd.concat([persons.assign(action_id=PERSON.ids[0]), groundtruth[~labelled]])
    matches = match(truth, boxes.assign(action_id=PERSON.ids[0]), PERSON)
    curve = {}
    for least in THRESHOLDS:
        hits = matches.hits[matches.scores >= least]
        curve[str(least)] = {
            "recall": float(hits.sum()) / max(1, len(persons)),
            "precision": float(hits.mean()) if len(hits) else None,
        }
    return report | {"thresholds": curve}

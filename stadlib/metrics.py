"""Frame mAP@0.5 as the official AVA-Kinetics evaluator computes it.

The rules are those of ActivityNet's ``get_ava_performance.py``:

1. A keyframe is ``video,%.6f`` of its timestamp: 0902, 902 and 902.0 are one.
2. A keyframe counts if any ground-truth row names it, rows of two columns (no label) and rows of
   classes outside the label map included. Detections elsewhere are ignored.
3. Of a keyframe at most 50 detection rows of the label map's classes are kept. They pass through
   a heap ordered by (score, class, y1, x1, y2, x2), which a newcomer enters only if its score is
   strictly greater than the smallest. Boxes with x1 >= x2 or y1 >= y2 are dropped afterwards.
4. A detection looks at the ground-truth box of its class with the highest IoU (float64). It is
   right if that IoU is at least 0.5 and no detection before it took the same box.
5. Ground truth passes through the same heap, without a cap, its eighth column as the score; this
   decides only which of several equal IoUs is taken.
6. AP is the area under the envelope of precision, over all points. Classes without ground truth
   are left out of the mean; a class with ground truth and no detection has AP 0.

**Tie rule.** The official evaluator sorts scores with an unstable sort, so its number for tied
scores depends on the processor. Here equal scores keep the order of their keyframes' first
evaluated rows and, inside a keyframe, the heap's order: one file, one number.
"""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd

from stadlib.config import InputError
from stadlib.labels import LabelMap

MAX_ROWS_A_KEYFRAME = 50
NO_LABEL = -1  # action_id of a two-column row; the files' own ids start at 1
COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")

Rows = pd.DataFrame | str | Path | Sequence[pd.DataFrame | str | Path]


@dataclass(frozen=True)
class Result:
    """Frame mAP and the AP of every class, as fractions.

    Attributes:
        mAP: mean over the classes with ground truth; NaN if there is none.
        AP: by action id, in the label map's order; None for a class without ground truth.
    """

    mAP: float
    AP: dict[int, float | None]

    def to_json(self) -> dict:
        """Return ``{"mAP": 0.41, "AP": {"12": 0.87}}``, the form a record holds."""
        mean = None if isnan(self.mAP) else self.mAP
        return {"mAP": mean, "AP": {str(action): ap for action, ap in self.AP.items()}}


def frame_map(groundtruth: Rows, detections: Rows, label_map: LabelMap, iou: float = 0.5) -> Result:
    """Evaluate detections against ground truth; the module's docstring states the rules.

    Args:
        groundtruth: a CSV file in AVA's layout, a frame with :data:`COLUMNS`, or a sequence of
            either for one joint evaluation (AVA+Kinetics is both files at once, not the mean of
            two results). A frame marks a keyframe without label by ``action_id`` -1.
        detections: the same, with a score in the last column.
        label_map: the classes that are evaluated.
        iou: the least IoU of a match.

    Raises:
        InputError: names file, row and column of what cannot be read.
    """
    truth, found = _table(groundtruth), _table(detections)
    truth_keys, found_keys = _keys(truth), _keys(found)
    known = set(truth_keys)
    truth = _heap_order(truth, truth_keys, label_map.ids, cap=None)
    found = _heap_order(found, found_keys, label_map.ids, cap=MAX_ROWS_A_KEYFRAME)
    found = found[found["key"].isin(known) & (found["x1"] < found["x2"])]
    found = found[found["y1"] < found["y2"]].reset_index(drop=True)
    hits = _hits(truth, found, iou)
    num_truths = truth["action_id"].value_counts()
    scores, actions = found["score"].to_numpy(), found["action_id"].to_numpy()
    ap: dict[int, float | None] = {}
    for action in label_map.ids:
        mine = actions == action
        count = int(num_truths.get(action, 0))
        ap[action] = _average_precision(scores[mine], hits[mine], count) if count else None
    measured = [value for value in ap.values() if value is not None]
    return Result(mAP=float(np.mean(measured)) if measured else nan, AP=ap)


def read_rows(path: str | Path) -> pd.DataFrame:
    """Read a ground-truth or detection file into :data:`COLUMNS`.

    Rows have 2 columns (a keyframe without label: ``action_id`` -1, NaN box), 7 or 8. Column 8 is
    a detection's score or a person's id and defaults to 1.

    Raises:
        InputError: the file is missing, or a row cannot be read; names file, row and column.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected rows {','.join(COLUMNS)}")
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.reader(stream)
        rows = [_parse(row, f"{path}, row {reader.line_num}") for row in reader]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _parse(row: list[str], where: str) -> tuple:
    if len(row) not in (2, 7, 8):
        raise InputError(f"{where}: {len(row)} columns; a row has 2, 7 or 8: {','.join(COLUMNS)}")
    timestamp = _number(row, 1, where)
    if len(row) == 2:
        return row[0], timestamp, nan, nan, nan, nan, NO_LABEL, 1.0
    box = [_number(row, column, where) for column in range(2, 6)]
    try:
        action = int(row[6])
    except ValueError:
        raise InputError(f"{where}, action_id: {row[6]!r} is not a whole number") from None
    return row[0], timestamp, *box, action, _number(row, 7, where) if len(row) == 8 else 1.0


def _number(row: list[str], column: int, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = nan
    if not isfinite(value):
        hint = "; the file has no header row" if row[column].strip() == COLUMNS[column] else ""
        raise InputError(f"{where}, {COLUMNS[column]}: {row[column]!r} is not a number{hint}")
    return value


def _table(rows: Rows) -> pd.DataFrame:
    """Bring files, frames and sequences of them into one frame."""
    if isinstance(rows, pd.DataFrame):
        missing = [name for name in COLUMNS[:7] if name not in rows]
        if missing:
            raise InputError(f"column {missing[0]!r} is missing; needed are {', '.join(COLUMNS)}")
        return rows if "score" in rows else rows.assign(score=1.0)
    if isinstance(rows, str | Path):
        return read_rows(rows)
    tables = [_table(part)[list(COLUMNS)] for part in rows]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _keys(table: pd.DataFrame) -> list[str]:
    # Few different timestamps recur in many rows, so each is written out once.
    written = {value: f"{float(value):.6f}" for value in table["timestamp"].unique()}
    return [
        f"{video},{written[timestamp]}"
        for video, timestamp in zip(table["video"], table["timestamp"], strict=True)
    ]


def _heap_order(
    table: pd.DataFrame, keys: Sequence[str], actions: Iterable[int], cap: int | None
) -> pd.DataFrame:
    """Pass the evaluated rows through the official heap and list them by keyframe and score."""
    actions = set(actions)
    columns = (table[name].tolist() for name in ("score", "action_id", "y1", "x1", "y2", "x2"))
    heaps: dict[str, list[tuple]] = {}
    for key, *entry in zip(keys, *columns, strict=True):
        if entry[1] not in actions:
            continue
        heap = heaps.setdefault(key, [])
        if cap is None or len(heap) < cap:
            heapq.heappush(heap, tuple(entry))
        elif entry[0] > heap[0][0]:
            heapq.heapreplace(heap, tuple(entry))
    rows = [
        (key, *entry)
        for key, heap in heaps.items()
        for entry in sorted(heap, key=lambda entry: -entry[0])
    ]
    ordered = pd.DataFrame(rows, columns=["key", "score", "action_id", "y1", "x1", "y2", "x2"])
    return ordered.astype(dict.fromkeys(("score", "y1", "x1", "y2", "x2"), float))


def _hits(truth: pd.DataFrame, found: pd.DataFrame, iou: float) -> np.ndarray:
    """Return which detections are right, (num_detections,) bool."""
    on = ["key", "action_id"]
    pairs = found.rename_axis("detection").reset_index()[["detection", *on, "x1", "y1", "x2", "y2"]]
    boxes = truth.rename_axis("truth").reset_index()[["truth", *on, "x1", "y1", "x2", "y2"]]
    pairs = pairs.merge(boxes, on=on, suffixes=("", "_truth"))
    pairs = pairs.assign(iou=_iou(pairs)).sort_values(["detection", "truth"])
    best = pairs.loc[pairs.groupby("detection")["iou"].idxmax()]  # the first of the highest
    right = best[best["iou"] >= iou].drop_duplicates("truth")
    hits = np.zeros(len(found), dtype=bool)
    hits[right["detection"].to_numpy(dtype=np.int64)] = True
    return hits


def _iou(pairs: pd.DataFrame) -> np.ndarray:
    x1, y1, x2, y2 = pairs[["x1", "y1", "x2", "y2"]].to_numpy(np.float64).T
    u1, v1, u2, v2 = pairs[[f"{name}_truth" for name in ("x1", "y1", "x2", "y2")]].to_numpy().T
    width = np.maximum(0.0, np.minimum(x2, u2) - np.maximum(x1, u1))
    height = np.maximum(0.0, np.minimum(y2, v2) - np.maximum(y1, v1))
    inter = width * height
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(inter / union, nan=0.0)  # 0 / 0: ground truth of negative area


def _average_precision(scores: np.ndarray, hits: np.ndarray, num_truths: int) -> float:
    hits = hits[np.argsort(-scores, kind="stable")]
    true_positives = np.cumsum(hits)
    precision = true_positives / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / num_truths)

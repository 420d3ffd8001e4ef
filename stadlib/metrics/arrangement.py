"""In which order the official evaluator lists detections before it sorts them by an unstable sort.

Only that order, down to the layout of its heaps, makes the same sort give the same number where
scores are tied. Keyframes stand in the order of their first evaluated row; a keyframe's detections
of a class from the highest score down, equal ones as its heap lists them.
"""

from __future__ import annotations

import heapq

import numpy as np

from stadlib.metrics.evaluated import Boxes


def official_arrangement(boxes: Boxes, cap: int | None) -> np.ndarray:
    """The positions of the detections in the official order, (D,)."""
    _, first, key = np.unique(boxes.key, return_index=True, return_inverse=True)
    first_row = np.minimum.reduceat(boxes.row, first) if len(first) else first
    place = _heap_places(boxes, cap)
    return np.lexsort((place, -boxes.score, boxes.column, first_row[key]))


def _heap_places(boxes: Boxes, cap: int | None) -> np.ndarray:
    """(D,) where a detection stands in its keyframe's heap; 0 where no tie makes that matter."""
    place = np.zeros(len(boxes.key), np.int64)
    order = np.lexsort((boxes.score, boxes.column, boxes.key))
    same = np.ones(max(0, len(order) - 1), bool)
    for values in (boxes.key, boxes.column, boxes.score):
        same &= values[order][1:] == values[order][:-1]
    x1, y1, x2, y2 = boxes.corners.T
    for key in np.unique(boxes.key[order[1:][same]]):
        rows = np.flatnonzero(boxes.key == key)
        rows = rows[np.argsort(boxes.row[rows])]
        heap: list[tuple] = []
        for row in rows.tolist():
            entry = (boxes.score[row], boxes.action[row], y1[row], x1[row], y2[row], x2[row], row)
            if cap is None or len(heap) < cap:
                heapq.heappush(heap, entry)
            elif entry[0] > heap[0][0]:
                heapq.heapreplace(heap, entry)
        place[[entry[-1] for entry in heap]] = np.arange(len(heap))
    return place

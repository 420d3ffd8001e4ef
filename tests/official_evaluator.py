"""The official rules in obvious Python, one keyframe and one detection at a time: the oracle.

Ties are broken as the package says: by keyframe in the order of ground truth, then by row.
"""

from __future__ import annotations

import heapq

import numpy as np

from stadlib.data.rows import NO_LABEL


def brute_force(truth_rows: list[tuple], found_rows: list[tuple], ids: tuple[int, ...], cap=50):
    """AP by action id; rows are (video, timestamp, x1, y1, x2, y2, action_id, score)."""
    order: dict[tuple, int] = {}
    for row in truth_rows:
        order.setdefault((row[0], f"{float(row[1]):.6f}"), len(order))
    boxes: dict[tuple, list] = {}
    for number, row in enumerate(truth_rows):
        if row[6] != NO_LABEL and row[6] in ids:
            heapq.heappush(boxes.setdefault(key(row), []), entry(row, number))
    listed = {k: sorted(heap, key=lambda e: -e[0]) for k, heap in boxes.items()}
    heaps: dict[tuple, list] = {}
    for number, row in enumerate(found_rows):
        if row[6] not in ids or key(row) not in order:
            continue
        heap = heaps.setdefault(key(row), [])
        if len(heap) < cap:
            heapq.heappush(heap, entry(row, number))
        elif row[7] > heap[0][0]:
            heapq.heapreplace(heap, entry(row, number))
    found = [(e, k) for k, heap in heaps.items() for e in heap if e[3] < e[5] and e[2] < e[4]]
    found.sort(key=lambda pair: (-pair[0][0], order[pair[1]], pair[0][6]))
    aps: dict[int, float | None] = {}
    for action in ids:
        total = sum(e[1] == action for entries in listed.values() for e in entries)
        taken, hits = set(), []
        for e, k in found:
            if e[1] == action:
                best, where = 0.0, None
                for t in listed.get(k, []):
                    if t[1] == action and overlap(e, t) > best:
                        best, where = overlap(e, t), t[6]
                hits.append(best >= 0.5 and where not in taken)
                taken |= {where} if hits[-1] else set()
        aps[action] = average_precision(hits, total) if total else None
    return aps


def key(row: tuple) -> tuple[str, str]:
    return row[0], f"{float(row[1]):.6f}"


def entry(row: tuple, number: int) -> tuple:
    """(score, class, y1, x1, y2, x2) as the official heap orders it, and the row's number."""
    return row[7], row[6], row[3], row[2], row[5], row[4], number


def overlap(a: tuple, b: tuple) -> float:
    height = max(0.0, min(a[4], b[4]) - max(a[2], b[2]))
    width = max(0.0, min(a[5], b[5]) - max(a[3], b[3]))
    areas = (a[5] - a[3]) * (a[4] - a[2]) + (b[5] - b[3]) * (b[4] - b[2])
    union = areas - width * height
    return width * height / union if union else 0.0


def average_precision(hits: list[bool], total: int) -> float:
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return sum(precision[i:].max() for i, hit in enumerate(hits) if hit) / total

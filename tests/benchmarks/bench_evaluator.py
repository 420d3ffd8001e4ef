"""The evaluator at the size of AVA's validation: seconds from CSV, from arrays, and resampled.

64 videos x 897 keyframes x 2.1 boxes x 60 classes, 7.2 million detection rows, written
synthetically; ``python tests/benchmarks/bench_evaluator.py [SHARE ...]`` for a quarter or four
times of it. Prints the peak memory of the process after each step.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from stadlib.data import rows as data_rows
from stadlib.data.layout import AVA_ACTIONS, LabelMap
from stadlib.evaluation import average_precision, matching

VIDEOS, KEYFRAMES, PERSONS = 64, 897, 2.1
LABELS = LabelMap(dict(AVA_ACTIONS))


def synthetic(videos: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ground truth (1.7 labels a person) and detections (slightly moved boxes, all classes)."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(PERSONS - 1, size=videos * KEYFRAMES) + 1
    keyframe = np.repeat(np.arange(videos * KEYFRAMES), counts)
    num = len(keyframe)
    corner = rng.random((num, 2)) * 0.6
    boxes = np.hstack([corner, corner + 0.15 + 0.25 * rng.random((num, 2))]).round(3)
    names = pd.Index([f"video{number:07d}" for number in range(videos)], dtype=object)

    def rows(person: np.ndarray, action: np.ndarray, score: np.ndarray, moved: float):
        where = (boxes[person] + moved * rng.normal(size=(len(person), 4))).round(3)
        frame = pd.DataFrame(where, columns=list(data_rows.COLUMNS[2:6]))
        video = pd.Categorical.from_codes(keyframe[person] // KEYFRAMES, categories=names)
        frame.insert(0, "timestamp", (902 + keyframe[person] % KEYFRAMES).astype(float))
        frame.insert(0, "video", video)
        return frame.assign(action_id=action.astype(np.int32), score=score)

    ids = np.array(LABELS.ids)
    share = 1 / np.arange(1, len(ids) + 1)
    labelled = np.repeat(np.arange(num), rng.integers(1, 4, size=num))
    action = rng.choice(len(ids), size=len(labelled), p=share / share.sum())
    truth = rows(labelled, ids[action], np.ones(len(labelled)), 0.0)
    person = np.repeat(np.arange(num), len(ids))
    score = rng.random((num, len(ids)))
    score[labelled, action] += 0.5
    found = rows(person, np.tile(ids, num), (score / 1.5).ravel().round(4), 0.02)
    return truth, found


def timed(name: str, run: Callable[[], object]) -> object:
    """Run, and print how long it took and the peak memory so far."""
    start = time.perf_counter()
    outcome = run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {name:34} {seconds:7.2f} s, peak {peak:6.0f} MB", flush=True)
    return outcome


def main(share: float) -> None:
    """One size: write the files in a child's memory, then read and evaluate them here."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("gt.csv", "det.csv")]
        if (child := os.fork()) == 0:
            for rows, path in zip(synthetic(round(VIDEOS * share)), paths, strict=True):
                rows.to_csv(path, header=False, index=False)
            os._exit(0)
        os.waitpid(child, 0)
        print(f"{share:g} x AVA's validation, {paths[1].stat().st_size / 1e6:.0f} MB of detections")
        whole = timed("from CSV", lambda: average_precision.frame_map(*paths, LABELS))
        truth, found = (data_rows.read_rows(path) for path in paths)
        print(f"  {len(truth)} boxes, {len(found)} rows, mAP {whole.mAP:.6f}")
        matches = timed("match, from arrays", lambda: matching.match(truth, found, LABELS))
        timed("average precision", lambda: average_precision.result(matches))
        timed("bootstrap, 1,000 resamples", lambda: average_precision.bootstrap(matches))


if __name__ == "__main__":
    for word in sys.argv[1:] or ["1"]:
        main(float(word))

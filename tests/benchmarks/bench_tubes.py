"""Video mAP at the size of UCF101-24: seconds and peak memory for the tubes of 3,200 videos.

3,200 videos of 50 to 290 frames, all keyframes. One or two persons are annotated on most of them.
They and a false box are predicted in every frame, each with scores of 3 of the 24 classes. That
makes 0.6 million annotated rows and 4.1 million predicted ones, in CSV files of 58 and 458 MB.

Seen on two cores that other work shared (load 9): read, linked and measured at 11 IoUs by both
conventions in 12 and 18 s of processor time (47 and 76 s on the clock, both of one process), peak
1,474 MB. Not yet timed on cores that do nothing else.

    python tests/benchmarks/bench_tubes.py [CLASSES A BOX]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.data import rows as data_rows
from stadlib.data.layout import LabelMap
from stadlib.evaluation import tubes

VIDEOS, CLASSES, RATE = 3_200, 24, 25
LABELS = LabelMap({number: f"class {number}" for number in range(1, CLASSES + 1)})


def walk(rng: np.random.Generator, frames: int) -> np.ndarray:
    """The box of a person who wanders about, (frames, 4)."""
    corner = rng.random(2) * 0.5 + np.cumsum(rng.normal(0, 0.004, (frames, 2)), axis=0)
    corner = corner.clip(0, 0.6)
    return np.hstack([corner, corner + 0.2 + 0.15 * rng.random(2)])


def synthetic(per_person: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ground truth with tubes' numbers, and predictions of ``per_person`` classes a box."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for video in range(VIDEOS):
        frames, action = int(rng.integers(50, 291)), int(rng.integers(CLASSES)) + 1
        name, seconds = f"v_{video:05d}", np.arange(frames) / RATE
        for person in range(int(rng.integers(1, 3)) + 1):
            boxes = walk(rng, frames)
            if person:  # the first box of all is nobody's
                part = slice(int(rng.integers(frames // 4 + 1)), frames - frames // 8)
                moments = (name, seconds[part], *boxes[part].T, action, person)
                truth.append(pd.DataFrame(dict(zip(data_rows.COLUMNS, moments, strict=True))))
            seen = boxes + rng.normal(0, 0.01, boxes.shape)
            others = rng.choice(np.delete(np.arange(1, CLASSES + 1), action - 1), per_person - 1)
            for place, one in enumerate([action, *dict.fromkeys(others.tolist())]):
                score = rng.beta(2, 2 if person and not place else 8, frames)
                moments = (name, seconds, *seen.T, one, score)
                found.append(pd.DataFrame(dict(zip(data_rows.COLUMNS, moments, strict=True))))
    return pd.concat(truth, ignore_index=True), pd.concat(found, ignore_index=True)


def main(per_person: int) -> None:
    """Write the files, and measure them in a process of its own, for its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        for name, frame in zip(("truth", "found"), synthetic(per_person), strict=True):
            path = Path(folder) / f"{name}.csv"
            columns = {column: frame[column].to_numpy() for column in frame}
            data_rows.write_rows(path, [pl.DataFrame(columns)])
            print(f"{path.name}: {len(frame)} rows, {path.stat().st_size / 1e6:.0f} MB", flush=True)
        subprocess.run([sys.executable, __file__, "measure", folder], check=True)


def measure(folder: Path) -> None:
    """Read and measure."""
    start = time.perf_counter()
    truth, found = (data_rows.read_rows(folder / f"{name}.csv") for name in ("truth", "found"))
    print(f"read in {time.perf_counter() - start:.1f} s")
    report = tubes.video_map(truth, found, LABELS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    seconds = f"{time.perf_counter() - start:.1f} s ({time.process_time():.1f} s of processors)"
    print(f"{report}\nmeasured after {seconds}, peak {peak:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)

"""What gathering a batch's memory costs, and whether it grows with the bank.

Sixty-four clips ask for 30 seconds to each side, five persons of a second, of tokens of 512 numbers
averaged over time, from banks of 0.1 and of 2.4 million persons. The banks are written sparsely:
rows, states and scores are there, tokens are holes of the file. From the root of a checkout:

    OMP_NUM_THREADS=2 uv run python tests/benchmarks/bench_window.py

Measured (2026-11-25, two cores of an Intel Xeon, quiet): 12.4 ms a warm batch from 2.4 million
persons, 13.1 from 0.1 million; 828 MB resident, of which Python and torch take 625.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stadlib.training.bank import WRITTEN, FeatureBank

CLIPS, SPAN, PERSONS, WIDTH = 64, 30, 5, 512
SECONDS, BATCHES, ROUNDS = 300, 6, 6
SIZES = (100_000, 2_400_000)


def make(folder: Path, persons: int) -> None:
    """A bank in which every second of every video has five persons."""
    videos = range(persons // (SECONDS * PERSONS))
    rows = ((f"v{video}", second, PERSONS) for video in videos for second in range(SECONDS))
    bank = FeatureBank.create(folder, {"made": "synthetic"}, rows, length=1, width=WIDTH)
    bank.states[:] = WRITTEN
    bank.flush()


def measure(folder: Path, persons: int) -> None:
    """Print the median and the worst time of a warm batch, and what it adds to resident memory."""
    before, rng, times = resident_mb(), np.random.default_rng(0), []
    bank, videos = FeatureBank(folder), persons // (SECONDS * PERSONS)
    batches = [
        [
            (f"v{rng.integers(videos)}", int(rng.integers(SPAN, SECONDS - SPAN)))
            for _ in range(CLIPS)
        ]
        for _ in range(BATCHES)
    ]
    for _ in range(ROUNDS):
        for keys in batches:
            started = time.perf_counter()
            bank.window(keys, SPAN, PERSONS)
            times.append(1000 * (time.perf_counter() - started))
    warm = times[BATCHES:]
    print(
        f"{persons:>9,} persons: {np.median(warm):5.1f} ms a batch (worst {max(warm):.1f}), "
        f"resident {resident_mb():.0f} MB, {before:.0f} of them before the bank was opened"
    )


def resident_mb() -> float:
    """Resident memory of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    """A line a bank, each measured in a fresh process."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]), int(sys.argv[2]))
        return
    for persons in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder) / "bank", persons)
            subprocess.run([sys.executable, __file__, f"{folder}/bank", str(persons)], check=True)


if __name__ == "__main__":
    main()

"""How fast and in how much memory ``stadlib predict`` watches a long video.

Run by hand: ``uv run python tests/benchmarks/bench_predict.py [MINUTES ...]`` (default: 1 and 10).
The video is made of movies of the miniature world, enlarged to 340x256 at 25 frames a second, so
that there are persons to find and score. Needs the miniature model; it is trained if need be.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np

from stadlib.base import Progress
from stadlib.data.stream import Stream
from stadlib.data.video import write_video
from stadlib.recipes.experiment import Experiment
from stadlib.training.pretraining import prepare_data

SIZE, RATE = (256, 340), 25  # (height, width), frames a second


def pictures() -> Iterator[np.ndarray]:
    """Frames of validation movies, without end; each shown as long as it is in its movie."""
    layout = prepare_data(Experiment(scale="mini"), Progress)
    for video in cycle(layout.videos("ava", "val")):
        stream = Stream(layout.video_file("ava", video))
        shown = 0
        for number, frame in enumerate(stream.frames(), 1):
            picture = cv2.resize(frame.picture(), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
            until = round(number * RATE / stream.rate)
            yield from [picture] * (until - shown)
            shown = until


def watched(video: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak resident memory (MB) of the command in a process of its own."""
    started = time.monotonic()
    words = ["-m", "stadlib", "predict", str(video), "--out", str(out)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("predict failed")
    return time.monotonic() - started, usage.ru_maxrss / 1000


def main() -> None:
    """Print a line for each length."""
    with tempfile.TemporaryDirectory() as folder:
        for minutes in [float(word) for word in sys.argv[1:]] or [1.0, 10.0]:
            video = Path(folder) / f"{minutes:g}min.mp4"
            count = round(60 * minutes * RATE)
            write_video(video, islice(pictures(), count), RATE, gop=250)
            seconds, memory = watched(video, Path(folder) / f"out{minutes:g}")
            factor = 60 * minutes / seconds
            print(f"{minutes:g} min: {seconds:.1f} s, {factor:.2f} x real time, {memory:.0f} MB")


if __name__ == "__main__":
    main()

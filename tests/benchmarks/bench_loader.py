"""Clips a second of the loader beside bare PyAV: does anything but decoding cost time?

Three rendered movies of three minutes, 256 pixels high, 30 frames/s, written with the options of
``stadlib prepare --reencode`` (H.264, crf 20, a keyframe every 30 frames). A clip is 32 frames,
every second one, or 64 in a row, around a random moment. The first lines are of one thread:

- bare PyAV: open the file, seek, decode up to the clip's last frame, turn the 32 wanted frames to
  rgb24 arrays. Once as one writes it, ``frame.to_ndarray(format="rgb24")``, and once with one
  ``VideoReformatter`` of one thread kept for the file, which is the faster way.
- read_frames: our function for the same frames, which are compared bit by bit. It opens, finds
  positions in the file's index, seeks and decodes. The index is made once a file and process,
  before the clock starts.
- dataset: an item of ``ClipDataset``, frames and boxes, with the transform of testing (which has
  nothing to do at this size), with that of training (colour, boxes, flip), and with that of
  training on a GPU, which shifts the colours itself.

The others are of ``build.loader`` at paper scale with one and two workers: batches of 8, padded to
divisible sides, as they arrive in the training process; workers start before the clock. What two
workers can bring on this machine is what two processes of bare PyAV bring, which share nothing but
its processor and memory: they are measured, too. The ways take turns, and the best of the rounds
counts. From the root of a checkout, on a quiet machine:

    uv run python tests/benchmarks/bench_loader.py [--rounds N] [--width W] [--frames 64x1]

Where torchcodec is installed, ``read_frames`` with it is measured, too. The clips a second of a
core and the size of the movies go to ``results/gpu/loader.json``, from which ``bench_cost.py``
counts how many cores and how fast a disk an H100 needs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from stadlib import recipes
from stadlib.base import write_whole
from stadlib.data.clips import ClipDataset, collate
from stadlib.data.keyframes import Keyframe
from stadlib.data.layout import AVA_ACTIONS, AvaLayout
from stadlib.data.video import probe, read_frames, write_video
from stadlib.recipes.experiment import Experiment
from stadlib.recipes.scales import SCALES
from stadlib.training import build

MOVIES, SECONDS, RATE = 3, 180, 30
HEIGHT = 256
KEPT = Path(__file__).resolve().parents[2] / "results" / "gpu" / "loader.json"
BATCH, WARM_BATCHES, BATCHES = 8, 4, 16
ALONE = 32  # clips of a round in one process


def movie(seed: int, width: int = 340) -> Iterator[np.ndarray]:
    """A camera over a textured plane, textured patches that move on their own, some grain."""
    rng = np.random.default_rng(seed)
    plane = np.zeros((1024, 2048, 3), np.float32)
    for octave in range(2, 9):
        coarse = rng.normal(size=(2**octave, 2 ** (octave + 1), 3)).astype(np.float32)
        finer = cv2.resize(coarse, (2048, 1024), interpolation=cv2.INTER_CUBIC)
        plane += finer * 2 ** (-octave / 2)
    plane = np.clip(127 + 60 * plane, 0, 255).astype(np.uint8)
    noise = rng.integers(0, 256, (4, 90, 50, 3), np.uint8)
    patches = [cv2.GaussianBlur(square, (5, 5), 0) for square in noise]
    grains = rng.normal(0, 1.5, (16, HEIGHT, width, 1)).round().astype(np.int16).repeat(3, -1)
    for i in range(SECONDS * RATE):
        top, left = swing(370, i / 170 + seed), swing(min(820, (2048 - width) // 2), i / 230)
        frame = plane[top : top + HEIGHT, left : left + width].astype(np.int16)
        for k, square in enumerate(patches):
            y, x = swing(80, i / (20 + 7 * k) + k), swing(140, i / (31 + 5 * k))
            frame[y : y + 90, x : x + 50] = square
        yield np.clip(frame + grains[rng.integers(16)], 0, 255).astype(np.uint8)


def swing(reach: int, phase: float) -> int:
    """To and fro between 0 and twice the reach."""
    return int(reach * (1 + np.sin(phase)))


def make_movies(root: Path, width: int = 340) -> None:
    """Write the movies; ``SECONDS`` long each."""
    for i in range(MOVIES):
        write_video(root / "videos" / "ava" / f"m{i}.mp4", movie(i, width), RATE, crf=20, gop=RATE)


def kilobytes_a_second(root: Path) -> float:
    """What a second of the movies takes on disk."""
    sizes = [path.stat().st_size for path in (root / "videos" / "ava").iterdir()]
    return round(sum(sizes) / len(sizes) / SECONDS / 1e3, 1)


def moments(count: int) -> list[Keyframe]:
    """Moments of all movies, each with one person; nowhere near a movie's ends."""
    rng = np.random.default_rng(0)
    box = np.array([[0.2, 0.1, 0.6, 0.9]], np.float32)
    actions = np.zeros((1, len(AVA_ACTIONS)), bool)
    return [
        Keyframe("ava", f"m{rng.integers(MOVIES)}", second, box, actions, np.zeros(1, np.int64))
        for second in rng.uniform(3, SECONDS - 3, count).round(3).tolist()
    ]


def bare(path: Path, times: list[float], keep: bool) -> list[np.ndarray]:
    """The same frames with PyAV alone, of a file that begins at 0 and never changes its rate."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        ticks = round(1 / (RATE * stream.time_base))
        wanted = [int(time * RATE + 1e-4) * ticks for time in times]
        first, last, left = wanted[0], wanted[-1], set(wanted)
        reformatter = VideoReformatter()
        container.seek(first, backward=True, stream=stream)
        for frame in container.decode(stream):
            if frame.pts in left:
                if keep:
                    sides = frame.width, frame.height
                    frame_rgb = reformatter.reformat(frame, *sides, format="rgb24", threads=1)
                    frames.append(frame_rgb.to_ndarray())
                else:
                    frames.append(frame.to_ndarray(format="rgb24"))
            if frame.pts >= last:
                return frames
    raise SystemExit(f"{path}: ends before {times[-1]} s")


def by_torchcodec(clips: list[tuple[Path, list[float]]]) -> None:
    with patch.dict(os.environ, STADLIB_DECODER="torchcodec"):
        for clip in clips:
            read_frames(*clip)


def clips_a_second(work: Callable[[], object], clips: int) -> float:
    start = time.perf_counter()
    work()
    return clips / (time.perf_counter() - start)


def decode(clips: list[tuple[Path, list[float]]]) -> None:
    for clip in clips:
        bare(*clip, keep=True)


def in_processes(clips: list[tuple[Path, list[float]]], count: int) -> float:
    """Clips a second of so many processes of bare PyAV, which start before the clock does."""
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        pool.map(decode, [clips[:2]] * count, chunksize=1)
        return clips_a_second(
            lambda: pool.map(decode, [clips] * count, chunksize=1), count * len(clips)
        )


def loaded(dataset: ClipDataset, experiment: Experiment, workers: int) -> float:
    """Clips a second that arrive from so many workers; their start does not count."""
    SCALES["paper"] = replace(SCALES["paper"], num_workers=workers)
    total = WARM_BATCHES + BATCHES
    order = [list(range(BATCH * i, BATCH * (i + 1))) for i in range(total)]
    padded = partial(collate, multiple=SCALES["paper"].pad_multiple)
    batches = iter(build.loader(dataset, experiment, batch_sampler=order, collate_fn=padded))
    for _ in range(WARM_BATCHES):
        next(batches)
    return clips_a_second(lambda: list(batches), BATCHES * BATCH)


def require_same_frames(clips: list[tuple[Path, list[float]]]) -> float:
    """Ours are PyAV's, bit by bit; returns the seconds that a file's index takes, made here."""
    start = time.perf_counter()
    for path in {path for path, _ in clips}:
        probe(path)
    taken = (time.perf_counter() - start) / len({path for path, _ in clips})
    for path, times in clips:
        ours, theirs = read_frames(path, times), np.stack(bare(path, times, keep=False))
        assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), theirs), f"{path}: other frames"
    return taken


def measure(root: Path, frames: str, rounds: int, alone_only: bool) -> dict[str, float]:
    """The best clips a second of every way."""
    words = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": frames, "head": "t-only"}
    row = recipes.table1(scale="paper", **words)[0]
    layout, keyframes = AvaLayout(root), moments((WARM_BATCHES + BATCHES) * BATCH)
    shown = build.sampling(row)
    plain = ClipDataset(layout, keyframes, shown, build.plain_view(row))
    augmented = build.train_dataset(row, layout, keyframes)
    with patch.object(torch.cuda, "is_available", lambda: True):
        for_gpu = build.train_dataset(row, layout, keyframes)
    clips = [
        (layout.video_file("ava", k.video), shown.times(k.timestamp)) for k in keyframes[:ALONE]
    ]
    print(f"index of a movie of {SECONDS} s: {1000 * require_same_frames(clips):.0f} ms, once")
    alone = {
        "bare PyAV, to_ndarray": lambda: [bare(*clip, keep=False) for clip in clips],
        "bare PyAV, one reformatter": lambda: [bare(*clip, keep=True) for clip in clips],
        "read_frames": lambda: [read_frames(*clip) for clip in clips],
        "dataset, test transform": lambda: [plain[i] for i in range(ALONE)],
        "dataset, training transform": lambda: [augmented[i] for i in range(ALONE)],
        "dataset, training on a GPU": lambda: [for_gpu[i] for i in range(ALONE)],
    }
    if find_spec("torchcodec"):
        alone["read_frames, torchcodec"] = lambda: by_torchcodec(clips)
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, work in alone.items():
            best[name] = max(best.get(name, 0), clips_a_second(work, ALONE))
        if alone_only:
            continue
        for count in (1, 2):
            words = f"bare PyAV, {count} process{'es' * (count > 1)}"
            best[words] = max(best.get(words, 0), in_processes(clips, count))
        loaders = {"test transform": plain, "training transform": augmented}
        for name, dataset in (loaders | {"training on a GPU": for_gpu}).items():
            for workers in (1, 2):
                words = f"loader, {name}, {workers} worker{'s' * (workers > 1)}"
                best[words] = max(best.get(words, 0), loaded(dataset, row, workers))
    return best


def header() -> str:
    """Processor, threads, versions and date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = f"PyAV {av.__version__}, torch {torch.__version__}, {datetime.date.today()}"
    return f"{len(names)} x {(names or [platform.processor()])[0]}, {versions}"


def main() -> None:
    """Print a line a way: clips a second, and that beside both ways of bare PyAV."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=340)
    parser.add_argument("--alone", action="store_true", help="one process, no loaders")
    parser.add_argument("--frames", choices=("32x2", "64x1"), default="32x2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(header(), "one thread a process", sep=", ")
    with tempfile.TemporaryDirectory() as folder:
        make_movies(Path(folder), options.width)
        size = kilobytes_a_second(Path(folder))
        best = measure(Path(folder), options.frames, options.rounds, options.alone)
    usual, fastest = best["bare PyAV, to_ndarray"], best["bare PyAV, one reformatter"]
    print(f"{'':38} clips/s   of to_ndarray   of one reformatter")
    for name, speed in best.items():
        print(f"{name:38} {speed:7.1f} {speed / usual:15.2f} {speed / fastest:20.2f}")
    if not options.alone:
        print_scaling(best)
    known = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    alone = {name: round(speed, 1) for name, speed in best.items() if not name.startswith("loader")}
    alone["kB a second of video"] = size
    known[f"{options.width}x{HEIGHT}, {options.frames}"] = alone
    write_whole(KEPT, json.dumps(known, indent=1) + "\n")


def print_scaling(best: dict[str, float]) -> None:
    """What a second process or worker brings."""
    ceiling = best["bare PyAV, 2 processes"] / best["bare PyAV, 1 process"]
    print(f"two processes of bare PyAV beside one: {ceiling:.2f}x")
    for name in ("test transform", "training transform", "training on a GPU"):
        one, two = (best[f"loader, {name}, {n}"] for n in ("1 worker", "2 workers"))
        print(f"two workers beside one, {name}: {two / one:.2f}x")


if __name__ == "__main__":
    main()

"""Clips a second of the loader beside bare PyAV: does anything but decoding cost time?

Three rendered movies of a minute, 340x256 pixels, 30 frames/s, written with the options of
``stadlib prepare --reencode`` (H.264, crf 20, a keyframe every 30 frames). A clip is 32 frames,
every second one, around a random moment. All but the loader's lines are of one process with one
thread:

- bare PyAV: open the file, seek, decode up to the clip's last frame, turn the 32 wanted frames to
  rgb24 arrays. Once as one writes it, ``frame.to_ndarray(format="rgb24")``, and once with one
  ``VideoReformatter`` kept for the file, which is the faster way.
- read_frames: our function for the same frames, which are compared. It opens, finds positions in
  the file's index, seeks, decodes, and lays the frames out as one (32, 3, 256, 340) tensor. The
  index is made once a file and process, before the clock starts.
- dataset: an item of ``ClipDataset``: frames, boxes and labels, with and without augmentation.
- loader: batches of 8 padded to 256x352 as they arrive from one or two spawned workers of one
  thread each; workers start before the clock does.

The ways take turns, and the best of the rounds counts. From the root of a checkout:

    uv run python tests/benchmarks/bench_loader.py [--rounds N]
"""

from __future__ import annotations

import argparse
import datetime
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch.utils.data import DataLoader

from stadlib.data.annotations import Keyframe
from stadlib.data.clips import ClipDataset, Sampling, collate
from stadlib.data.layout import AvaLayout
from stadlib.data.transforms import train_transform
from stadlib.data.video import read_frames, write_video
from stadlib.labels import AVA_ACTIONS
from stadlib.scales import SCALES

MOVIES, SECONDS, RATE = 3, 60, 30
HEIGHT, WIDTH = 256, 340
BATCH, WARM_BATCHES, BATCHES = 8, 4, 8
ALONE = 32  # clips of a round in one process


def movie(seed: int) -> Iterator[np.ndarray]:
    """A camera over a textured plane, textured patches that move on their own, some grain."""
    rng = np.random.default_rng(seed)
    plane = np.zeros((1024, 2048, 3), np.float32)
    for octave in range(2, 9):
        coarse = rng.normal(size=(2**octave, 2 ** (octave + 1), 3)).astype(np.float32)
        plane += cv2.resize(coarse, (2048, 1024), interpolation=cv2.INTER_CUBIC) * 2 ** (
            -octave / 2
        )
    plane = np.clip(127 + 60 * plane, 0, 255).astype(np.uint8)
    patches = [cv2.GaussianBlur(rng.integers(0, 256, (90, 50, 3), np.uint8), (5, 5), 0)] * 4
    grains = rng.normal(0, 1.5, (16, HEIGHT, WIDTH, 1))
    for i in range(SECONDS * RATE):
        top, left = int(380 + 370 * np.sin(i / 170 + seed)), int(850 + 820 * np.sin(i / 230))
        frame = plane[top : top + HEIGHT, left : left + WIDTH].astype(np.float32)
        for k, patch in enumerate(patches):
            y, x = (
                int(83 + 80 * np.sin(i / (20 + 7 * k) + k)),
                int(140 + 130 * np.sin(i / (31 + 5 * k))),
            )
            frame[y : y + 90, x : x + 50] = patch
        yield np.clip(frame + grains[rng.integers(16)], 0, 255).astype(np.uint8)


def make_movies(root: Path) -> None:
    for i in range(MOVIES):
        write_video(root / "videos" / "ava" / f"m{i}.mp4", movie(i), RATE, crf=20, gop=RATE)


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
        reformatter = VideoReformatter()
        container.seek(wanted[0], backward=True, stream=stream)
        for frame in container.decode(stream):
            if frame.pts in wanted and keep:
                rgb = reformatter.reformat(frame, WIDTH, HEIGHT, format="rgb24")
                frames.append(rgb.to_ndarray())
            elif frame.pts in wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if frame.pts >= wanted[-1]:
                return frames
    raise SystemExit(f"{path}: ends before {times[-1]} s")


def clips_a_second(work: Callable[[], object], clips: int) -> float:
    start = time.perf_counter()
    work()
    return clips / (time.perf_counter() - start)


def loaded(dataset: ClipDataset, workers: int) -> float:
    """Clips a second that arrive from so many workers; their start does not count."""
    order = [list(range(i, i + BATCH)) for i in range(0, (WARM_BATCHES + BATCHES) * BATCH, BATCH)]
    loader = DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=partial(collate, multiple=32),
        num_workers=workers,
        multiprocessing_context="spawn",
        worker_init_fn=one_thread,
    )
    batches = iter(loader)
    for _ in range(WARM_BATCHES):
        next(batches)
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return BATCHES * BATCH / (time.perf_counter() - start)


def as_it_is(video, boxes):
    return video, boxes


def one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    one_thread(0)
    cpu = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "")
    words = (cpu.partition(":")[2].strip() or platform.processor(), f"PyAV {av.__version__}")
    print(*words, f"torch {torch.__version__}", datetime.date.today(), sep=", ")
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.rounds)


def measure(root: Path, rounds: int) -> None:
    make_movies(root)
    layout, shown = AvaLayout(root), Sampling(32, 2 / RATE)
    keyframes = moments((WARM_BATCHES + BATCHES) * BATCH)
    scale = SCALES["paper"]
    plain = ClipDataset(layout, keyframes, shown, as_it_is)
    augmented = ClipDataset(
        layout, keyframes, shown, train_transform(scale.short_side, scale.long_side)
    )
    clips = [(layout.video_file("ava", k.video), shown.times(k.timestamp)) for k in keyframes]
    for path, times in clips[:ALONE]:  # the index is made once a file; the frames are the same
        ours, theirs = read_frames(path, times), np.stack(bare(path, times, keep=True))
        assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), theirs), f"{path}: other frames"
    ways = {
        "bare PyAV, to_ndarray": lambda: [bare(*clip, keep=False) for clip in clips[:ALONE]],
        "bare PyAV, one reformatter": lambda: [bare(*clip, keep=True) for clip in clips[:ALONE]],
        "read_frames": lambda: [read_frames(*clip) for clip in clips[:ALONE]],
        "dataset, without augmentation": lambda: [plain[i] for i in range(ALONE)],
        "dataset, with augmentation": lambda: [augmented[i] for i in range(ALONE)],
    }
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, work in ways.items():
            best[name] = max(best[name], clips_a_second(work, ALONE))
    for name, dataset in (("without", plain), ("with", augmented)):
        for workers in (1, 2):
            words = f"loader, {name} augmentation, {workers} worker" + "s" * (workers > 1)
            best[words] = max(loaded(dataset, workers) for _ in range(rounds))
    fastest = max(best["bare PyAV, to_ndarray"], best["bare PyAV, one reformatter"])
    for name, speed in best.items():
        print(f"{name:45} {speed:6.1f} clips/s  {speed / fastest:.2f} of bare PyAV")


if __name__ == "__main__":
    main()

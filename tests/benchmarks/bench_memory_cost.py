"""What memory costs: bytes of a bank, and milliseconds of a training iteration, t-only and s-only.

Random tokens of mini's and of the paper's sizes, 2.1 persons a second, a span of 30 s, five persons
of a second: gathering the windows of a batch, and the head's forward and backward pass with and
without them. Sizes on disk for AVA's 299 movies of 897 s and Kinetics' 238,000 clips of 10 s, 1.5
persons a second there. ``python tests/benchmarks/bench_memory_cost.py``
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch

from stadlib.models.heads import Recall, RelationHead, no_memory
from stadlib.models.roi_fusion import Places
from stadlib.training.bank import FeatureBank, windows

AVERAGED = {"t-only": ("H", "W"), "s-only": ("T",)}
# head, scale: L, C, clips of a batch
SIZES = {
    ("t-only", "mini"): (4, 64, 8),
    ("s-only", "mini"): (16, 64, 8),
    ("t-only", "paper"): (8, 512, 8),
    ("s-only", "paper"): (49, 512, 8),
}
SPAN, PERSONS, SECONDS, VIDEOS = 30, 5, 90, 8


def milliseconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Of the fastest run."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return 1e3 * min(found)


def main(head_name: str, scale: str) -> None:
    """Measure one head at one scale's sizes."""
    length, width, batch = SIZES[head_name, scale]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            (str(v), s, 1 + int(rng.poisson(1.1))) for v in range(VIDEOS) for s in range(SECONDS)
        ]
        bank = FeatureBank.create(folder, {}, rows, length=length, width=width)
        for video, second, count in rows:
            tokens, boxes = torch.randn(count, length, width), torch.rand(count, 4)
            bank.write([(video, second)], torch.tensor([count]), tokens, boxes)
        keys = [("ava", str(clip % VIDEOS), 45.0) for clip in range(batch)]
        empty = no_memory(batch, width)

        def gather():
            return windows({"ava": bank}, keys, empty, span=SPAN, max_persons=PERSONS)

        past = gather()
        gathering = milliseconds(gather)
    head = RelationHead(width, 60, AVERAGED[head_name], recall=Recall(width, SPAN))
    counts = torch.full((batch,), 2)
    tokens, boxes = torch.randn(2 * batch, length, width), torch.rand(2 * batch, 4)
    steps = [
        milliseconds(
            lambda memory=memory: head(tokens, boxes, Places.of(counts), memory).sum().backward()
        )
        for memory in (empty, past)
    ]
    person = length * width * 2
    sizes = (299 * 897 * 2.1 * person / 1e9, 238_000 * 10 * 1.5 * person / 1e9)
    print(
        f"{head_name} {scale:5}: {person:6} bytes a person, {past.mask_BM.shape[1]} remembered; "
        f"windows of {batch} clips {gathering:5.1f} ms, head {steps[0]:6.1f} ms without and "
        f"{steps[1]:6.1f} ms with memory; bank of AVA {sizes[0]:.1f} GB, "
        f"of Kinetics {sizes[1]:.1f} GB"
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    for names in SIZES:
        main(*names)

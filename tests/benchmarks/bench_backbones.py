"""Clips a second of the mini backbones: batch 8, 64x96 pixels, 2 threads; best of several runs.

Pretraining trains batch norms, detection freezes (and thereby folds) them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from stadlib.models.networks import Backbone, csn_mini, freeze_batchnorm, slowfast_mini

BATCH = 8


def clips_a_second(run: Callable[[], object], repeats: int = 6) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return BATCH / min(seconds)


def speeds(backbone: Backbone, frames: int) -> tuple[float, float]:
    """Forward and backward, and forward alone."""
    clips = torch.randn(BATCH, 3, frames, 64, 96).to(memory_format=torch.channels_last_3d)

    def infer() -> None:
        with torch.inference_mode():
            backbone(clips)

    train = clips_a_second(lambda: backbone(clips).square().mean().backward())
    return train, clips_a_second(infer)


if __name__ == "__main__":
    torch.set_num_threads(2)
    print("backbone        frames  norms    forward + backward  forward   (clips a second)")
    for make in (csn_mini, slowfast_mini):
        for frames in (8, 16):
            for norms in ("training", "frozen"):
                backbone = make().train()
                if norms == "frozen":
                    freeze_batchnorm(backbone)
                train, infer = speeds(backbone, frames)
                print(
                    f"{make.__name__:15} {frames:6}  {norms:8} {train:18.0f} {infer:8.0f}",
                    flush=True,
                )

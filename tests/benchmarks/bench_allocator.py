"""One training step of the miniature CSN before and after ``keep_freed_memory``; prints both.

Batch 8 of 8 frames of 64x96, frozen batch norms, forward and backward, 2 threads.
"""

from __future__ import annotations

import time

import torch

from stadlib.allocator import keep_freed_memory
from stadlib.models.backbones import Normalize, csn_mini, freeze_batchnorm


def seconds_a_step(repeats: int = 20) -> float:
    """Mean over ``repeats`` steps after three that do not count."""
    torch.manual_seed(0)
    network, normalize = csn_mini(), Normalize()
    freeze_batchnorm(network)
    clips = torch.randint(0, 255, (8, 3, 8, 64, 96), dtype=torch.uint8)
    for step in range(3 + repeats):
        if step == 3:
            start = time.perf_counter()
        network(normalize(clips)).square().mean().backward()
    return (time.perf_counter() - start) / repeats


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(f"as it comes        {1e3 * seconds_a_step():6.1f} ms")
    print(f"took effect: {keep_freed_memory()}")
    print(f"keep_freed_memory  {1e3 * seconds_a_step():6.1f} ms")

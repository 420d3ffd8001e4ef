"""GFocalV2 with a ResNet-50 beside torchvision's RetinaNet with the same trunk, in inference.

Batches of four pictures of 340x256 pixels, one class, untrained weights (so that hardly a box
reaches non-maximum suppression), one thread by default; the two take turns, and the best of the
runs counts. From the root of a checkout:

    OMP_NUM_THREADS=1 uv run python tests/benchmarks/bench_detector.py [--threads N] [--runs N]

Measured (2026-11-25, two cores of an Intel Xeon, --threads 2 --runs 4, torch 2.15): GFocalV2 6.85
images/s, RetinaNet 6.49, ratio 1.06; without ``channels_last`` 6.21 and 6.19, ratio 1.00.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn
from torchvision.models.detection import retinanet_resnet50_fpn

from stadlib.models.person_detector import gfocal_resnet

BATCH, HEIGHT, WIDTH = 4, 256, 340


def make_detectors() -> dict[str, nn.Module]:
    """Both at a short side of 256 pixels: nothing is enlarged or made smaller."""
    torch.manual_seed(0)
    retinanet = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=HEIGHT, max_size=WIDTH
    )
    detectors = {"gfocal_resnet(50)": gfocal_resnet(50, (HEIGHT,), WIDTH), "retinanet": retinanet}
    return {name: model.eval() for name, model in detectors.items()}


@torch.inference_mode()
def seconds(model: nn.Module, pictures: list[torch.Tensor]) -> float:
    """Of one batch."""
    start = time.perf_counter()
    model(pictures)
    return time.perf_counter() - start


def main() -> None:
    """Print pictures a second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=8, help="of each detector")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    detectors = make_detectors()
    pictures = list(torch.rand(BATCH, 3, HEIGHT, WIDTH))
    taken: dict[str, list[float]] = {name: [] for name in detectors}
    for run in range(options.runs + 1):  # the first one warms up
        for name, model in detectors.items():
            found = seconds(model, pictures)
            taken[name] += [found] * (run > 0)
    speeds = {name: BATCH / min(times) for name, times in taken.items()}
    for name, model in detectors.items():
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        middle = BATCH / sorted(taken[name])[len(taken[name]) // 2]
        print(
            f"{name:18} {millions:5.1f} M parameters  {speeds[name]:6.2f} images/s "
            f"(median run {middle:.2f})"
        )
    ours, theirs = speeds.values()
    print(f"ratio {ours / theirs:.2f}, {options.threads} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()

"""Our trunks at the paper's size beside plain pytorchvideo's: the same function, which is faster?

SlowFast-101 and ir-CSN-152 on one clip of 32 frames of 256x352 pixels (a 4:3 video as a batch pads
it), float32. Ours are what the study trains and tests: batch norms frozen, and thereby folded
into the convolutions, channels last. Theirs is what a user would pick: pytorchvideo's
``create_slowfast_with_roi_head`` and ``create_csn`` without their heads, batch norms in evaluation
mode with fixed affine, torch's default layout. Depth, widths, strides, dilation and eps are equal,
and so are weights; that outputs and gradients agree is checked before anything is timed. The two
take turns, and the best of the runs counts. From the root of a checkout, on a quiet machine:

    uv run python tests/benchmarks/bench_trunks.py [--threads N] [--runs N]
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stadlib.models.networks import Backbone, backbone, freeze_batchnorm

with warnings.catch_warnings():  # pytorchvideo 0.1.5 is older than what torch deprecates
    warnings.simplefilter("ignore")
    from pytorchvideo.models.csn import create_csn
    from pytorchvideo.models.slowfast import create_slowfast_with_roi_head

FRAMES, HEIGHT, WIDTH = 32, 256, 352


class PlainSlowFast(nn.Module):
    """pytorchvideo's two paths; what is behind them is as in ours.

    Their last block averages all of time away, for a head that classifies the mean.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        model = create_slowfast_with_roi_head(model_depth=depth).model
        self.blocks = nn.Sequential(*model.blocks[:-1])

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        slow, fast = self.blocks([clips_BCTHW[:, :, ::4], clips_BCTHW])
        return torch.cat((slow, F.avg_pool3d(fast, (4, 1, 1))), dim=1)


def plain_csn(depth: int) -> nn.Module:
    """pytorchvideo's network in the form for detection: stem pooled, last stage not strided.

    Its builders ask for norms of eps 1e-5; the released weights have, as ours, 1e-3.
    """
    model = create_csn(
        model_depth=depth,
        stem_pool=nn.MaxPool3d,
        stage_spatial_stride=(1, 2, 2, 1),
        norm=lambda num_features, eps, momentum: nn.BatchNorm3d(num_features, 1e-3, momentum),
    )
    return nn.Sequential(*model.blocks[:-1])


TRUNKS = {
    "SlowFast-101": (lambda: backbone("slowfast-101"), lambda: PlainSlowFast(101)),
    "ir-CSN-152": (lambda: backbone("ir-csn-152"), lambda: plain_csn(152)),
}


def shake(trunk: nn.Module) -> None:
    """Norms as if trained, of which every residual branch starts at zero."""
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def make_pair(ours: Backbone, theirs: nn.Module) -> dict[str, nn.Module]:
    """Both with the same weights, norms frozen."""
    shake(theirs)
    state = zip(ours.net.state_dict(), theirs.state_dict().values(), strict=True)
    ours.net.load_state_dict(dict(state))
    freeze_batchnorm(ours)
    ours.train()
    theirs.eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.requires_grad_(False)
    ours.forward = ours.features  # both take normalised frames
    return {"ours": ours, "pytorchvideo": theirs}


def require_same(pair: dict[str, nn.Module], clips: Tensor) -> str:
    """Refuse a pair that does not compute the same; says how far outputs and a gradient differ."""
    found = {}
    for name, trunk in pair.items():
        features = trunk(clips)
        features.square().mean().backward()
        stem = next(p for p in trunk.parameters() if p.ndim == 5)
        found[name] = features.detach(), stem.grad.clone()
        trunk.zero_grad(set_to_none=True)
    errors = []
    for ours, theirs in zip(found["ours"], found["pytorchvideo"], strict=True):
        assert ours.shape == theirs.shape, f"{ours.shape} and {theirs.shape}"
        errors.append(((ours - theirs).abs().max() / theirs.abs().max()).item())
    assert max(errors) < 1e-4, f"not the same function: {errors}"
    shape = "x".join(map(str, found["ours"][0].shape))
    return f"features {shape}, outputs differ by {errors[0]:.0e}, gradients by {errors[1]:.0e}"


def forward(trunk: nn.Module, clips: Tensor) -> None:
    with torch.inference_mode():
        trunk(clips)


def forward_and_backward(trunk: nn.Module, clips: Tensor) -> None:
    trunk(clips).square().mean().backward()
    trunk.zero_grad(set_to_none=True)


def seconds(pair: dict[str, nn.Module], work: Callable, inputs: dict, runs: int) -> dict:
    """All times of each, taken in turns after one run that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in pair}
    for run in range(runs + 1):
        for name, trunk in pair.items():
            start = time.perf_counter()
            work(trunk, inputs[name])
            taken[name] += [time.perf_counter() - start] * (run > 0)
    return taken


def header(threads: int) -> str:
    """Processor, threads, version and date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    words = f"{threads} threads, torch {torch.__version__}, {datetime.date.today()}"
    return f"{len(names)} x {(names or [platform.processor()])[0]}, {words}"


def main() -> None:
    """Print a line a trunk and kind of work."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=4, help="of each trunk")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(header(options.threads))
    print(
        f"1 clip, {FRAMES} frames, {HEIGHT}x{WIDTH}, float32; best run (median) of {options.runs}"
    )
    torch.manual_seed(0)
    clips = torch.randn(1, 3, FRAMES, HEIGHT, WIDTH)
    # Normalize lays a clip out channels last in front of ours; a user hands it over as it is
    inputs = {"ours": clips.to(memory_format=torch.channels_last_3d), "pytorchvideo": clips}
    for trunk, (make_ours, make_theirs) in TRUNKS.items():
        pair = make_pair(make_ours(), make_theirs())
        print(f"{trunk}: {require_same(pair, clips[..., :64, :96])}")
        for work in (forward, forward_and_backward):
            taken = seconds(pair, work, inputs, options.runs)
            best = {name: min(times) for name, times in taken.items()}
            middle = {name: statistics.median(times) for name, times in taken.items()}
            speeds = "  ".join(
                f"{name} {1 / best[name]:.3f} ({1 / middle[name]:.3f}) clips/s" for name in pair
            )
            ratios = [t["pytorchvideo"] / t["ours"] for t in (best, middle)]
            print(
                f"  {work.__name__:21} {speeds}  ratio {ratios[0]:.2f} ({ratios[1]:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()

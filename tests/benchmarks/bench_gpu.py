"""Training speed, memory and share of peak of each row of Table 1 on this machine's GPU.

What is timed is the study's own loop (``loop.fit`` with ``stages.action_loss``): clips
of 256x464 pixels, rendered by the miniature world and brought to that size by the transforms of
training, lie ready in memory, so that no loader is in the way (``bench_loader.py`` times that).
bfloat16 as on every GPU, activations recomputed where the study does so, each row without and with
``torch.compile``, in batches of 8 and in the largest that fits (doubled until memory runs out).
Rows that differ in memory alone train the same network; what a remembered person costs is in
``bench_memory_cost.py``.

FLOPs are those of the eager model's forward and backward pass, recomputation not included; the
share of peak needs the GPU's own number (``--peak``, in 1e12 a second, dense bfloat16). GPU-hours
are of the paper's recipe: 30,000 iterations of 64 clips, training alone. From
the root of a checkout:

    uv run python tests/benchmarks/bench_gpu.py [--peak TFLOPS]
    uv run python tests/benchmarks/bench_gpu.py --device cpu --tiny --eager   # does it run at all?
"""

from __future__ import annotations

import argparse
import datetime
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stadlib import recipes
from stadlib.base import InputError, Progress
from stadlib.data.batches import Share
from stadlib.data.clips import Batch, collate
from stadlib.data.layout import AvaLayout
from stadlib.models.action_detector import ActionDetector, ActionLoss
from stadlib.models.heads import no_memory
from stadlib.models.networks import recompute_activations
from stadlib.recipes.experiment import Execution, Experiment
from stadlib.recipes.scales import SCALES
from stadlib.training import build
from stadlib.training.loop import Schedule, fit
from stadlib.training.pretraining import prepare_data
from stadlib.training.stages import Run, annotated, share_loss

WARM, TIMED = 3, 10  # iterations
LARGEST = 512  # clips; nobody needs more of a GPU
RECIPE_CLIPS = SCALES["paper"].iterations * SCALES["paper"].batch


@dataclass(frozen=True)
class Speed:
    """Clips a second, peak memory in bytes, FLOPs of a clip."""

    clips: float
    memory: int
    flops: float


def rows() -> list[Experiment]:
    """Table 1's rows that train different networks."""
    table = recipes.table1(scale="paper", detector="ground-truth")
    different = {(row.backbone, row.frames, row.head): row for row in reversed(table)}
    return list(reversed(different.values()))


def rendered_batch(row: Experiment, layout: AvaLayout, clips: int) -> Batch:
    """Clips of drawn persons at the size of training, the same few again in a large batch."""
    keyframes = annotated(layout, ("ava",), "train")
    dataset = build.train_dataset(row, layout, keyframes)
    few = [dataset[i % len(dataset)] for i in range(min(clips, 8))]
    scale = SCALES[row.scale]
    batch = collate([few[i % len(few)] for i in range(clips)], multiple=scale.pad_multiple)
    wide = -(-scale.long_side // scale.pad_multiple) * scale.pad_multiple
    more = (0, wide - batch.clips_BCTHW.shape[4], 0, scale.short_side - batch.clips_BCTHW.shape[3])
    sizes = [(scale.short_side, wide)] * clips
    return replace(batch, clips_BCTHW=F.pad(batch.clips_BCTHW, more), sizes=sizes)


def backward_flops(out: Sequence[int], _: object, weight: Sequence[int], *rest, **__) -> int:
    """Of the gradients of a convolution's input and weight; torch's own takes groups for one."""
    return 2 * math.prod(out) * math.prod(weight[1:]) * sum(rest[-1][:2])


EXACT = {torch.ops.aten.convolution_backward: backward_flops}


def count_flops(model: ActionDetector, batch: Batch) -> float:
    """FLOPs of a clip, forward and backward, in its eager form."""
    alone = batch.counts_B[:1]
    persons = int(alone.sum())
    boxes, truth = batch.boxes_norm_N4[:persons], batch.actions_NA[:persons]
    with FlopCounterMode(display=False, custom_mapping=EXACT) as counter:
        past = no_memory(1, model.fusion.width, alone.device)
        clip = batch.clips_BCTHW[:1]
        logits, _ = model(clip, batch.boxes_N4[:persons], alone, batch.sizes[:1], boxes, past)
        F.binary_cross_entropy_with_logits(logits, truth).backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def measure(
    row: Experiment, batch: Batch, compiled: bool, device: torch.device, recompute: str = "auto"
) -> Speed:
    """Train some iterations on one batch.

    Raises:
        InputError: the batch does not fit.
    """
    model = build.action_detector(row, batch.actions_NA.shape[1]).to(device).train()
    flops = count_flops(model, batch.to(device))
    stages = tuple(replace(stage, batch=len(batch.counts_B)) for stage in row.stages)
    row = replace(row, stages=stages)  # what is recomputed depends on it
    execution = Execution(precision="bfloat16", recompute=recompute)
    run = Run(row, AvaLayout(Path()), Path(), (), Progress, execution)
    if run.recompute:
        recompute_activations(model.backbone)
    if compiled:
        model.compile()
    persons = len(batch.boxes_N4)
    share = Share(tuple(range(persons)), persons)
    width, moments = SCALES[row.scale].width, []

    def batches(start: int) -> Iterator[tuple[Batch, Share]]:
        while True:
            if device.type == "cuda":
                torch.cuda.synchronize()
            moments.append(time.perf_counter())
            yield batch, share

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    iterations = WARM + TIMED + 1  # the last one's batch is asked for when the timed ones are done
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            partial(
                share_loss, loss=ActionLoss(), remember=lambda keys: no_memory(len(keys), width)
            ),
            batches,
            Schedule(iterations=iterations, lr=1e-4),
            folder=Path(folder),
            digest="bench",
            progress=lambda done, total, line: None,
            half=run.half,
            save_every=iterations,
        )
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    clips = len(batch.counts_B) * TIMED / (moments[WARM + TIMED] - moments[WARM])
    return Speed(clips, peak, flops)


def line(row: Experiment, clips: int, compiled: bool, speed: Speed, peak: float | None) -> str:
    """A line of the table."""
    name = f"{row.backbone} {row.frames} {row.head}"
    share = f"{100 * speed.clips * speed.flops / 1e12 / peak:5.1f} %" if peak else "      -"
    recipe = RECIPE_CLIPS / speed.clips / 3600
    return (
        f"{name:34} {clips:5} {'compiled' if compiled else 'eager':8} {speed.clips:8.2f} "
        f"{speed.memory / 2**30:7.1f} {speed.flops / 1e9:10.1f} {share} {recipe:9.1f}"
    )


def header(device: torch.device) -> str:
    """The device, versions and date."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return f"{name}, torch {torch.__version__}, bfloat16, {datetime.date.today()}"


def tiny(row: Experiment) -> Experiment:
    """The same words at smoke scale: whether the benchmark runs, not how fast anything is."""
    return recipes.at(row, "smoke")


def main() -> None:
    """Print a line a row, batch size and kind; a batch that does not fit ends its row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--device", default="cuda", help="cuda, cpu")
    parser.add_argument("--peak", type=float, help="dense bfloat16, 1e12 FLOPs a second")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    parser.add_argument("--tiny", action="store_true", help="smoke scale: does it run at all?")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here; --device cpu --tiny shows that the benchmark runs")
    layout = prepare_data(Experiment(scale="smoke"), Progress)
    print(header(device))
    print(f"{'row':34} batch          clips/s  memory/GiB GFLOPs/clip share  GPU-hours")
    for row in [tiny(row) for row in rows()] if options.tiny else rows():
        for compiled in (False, *[True] * (not options.eager)):
            clips = 2 if options.tiny else 8
            while clips <= (2 if options.tiny else LARGEST):
                try:
                    speed = measure(row, rendered_batch(row, layout, clips), compiled, device)
                except (torch.OutOfMemoryError, InputError):
                    break
                print(line(row, clips, compiled, speed, options.peak), flush=True)
                clips *= 2


if __name__ == "__main__":
    main()

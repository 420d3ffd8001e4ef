"""What each row of Table 1 costs at paper scale, counted without a GPU and without data.

    uv run python tests/benchmarks/bench_cost.py  # writes results/gpu/cost.json and results/cost.md

The networks lie on torch's meta device, which has shapes and no numbers. Counted are the FLOPs of a
clip of 256x464 pixels with three persons: forward and backward in training, forward in extraction
(the same size) and in the six test views. Kept are the bytes that the backward pass of a batch of
eight needs, in bfloat16 (half of what float32 keeps), without and with recomputation.

GPU-hours are at a share of an H100's 989e12 FLOPs a second (dense bfloat16, NVIDIA's data sheet):
30,000 iterations of 64 clips in training; 2.0 million seconds with detected persons of AVA and of
AVA-Kinetics' clips in extraction; 90,000 keyframes in testing (both about, counted once on the
lists). Loading, optimizer, launches and bandwidth come on top: a share of 40 % is more than eager
channel-separated networks reach. Cores are those that decode for training at 40 %, by
``bench_loader.py``'s clips a second of a core (464x256 pixels, colours left to the GPU). What they
read are its movies (textured; real ones are smaller), from half a second before a clip to its end.
A bank keeps float16 tokens of every person and second.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from bench_gpu import EXACT, rows
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stadlib.base import write_whole
from stadlib.models.heads import no_memory
from stadlib.models.networks import recompute_activations
from stadlib.recipes.experiment import Experiment
from stadlib.report.publish import rewrite
from stadlib.training import build

PEAK = 989e12  # FLOPs a second
SHARES = (0.3, 0.4, 0.5)
PERSONS, BATCH, ACTIONS = 3, 8, 60
READ = 64 / 30 + 0.5  # seconds of a file
TRAINED, EXTRACTED, TESTED = 30_000 * 64, 2_000_000, 90_000  # clips
RESULTS = Path(__file__).resolve().parents[2] / "results"


def forward(model, side: int, long_side: int, frames: int, batch: int):
    """Logits of a batch of empty clips."""
    multiple = 32
    height, width = (-(-x // multiple) * multiple for x in (side, long_side))
    with torch.device("meta"):
        clips = torch.empty((batch, 3, frames, height, width), dtype=torch.uint8)
        boxes = torch.empty((batch * PERSONS, 4))
    counts, past = torch.full((batch,), PERSONS), no_memory(batch, model.fusion.width, "meta")
    return model(clips, boxes, counts, [(height, width)] * batch, boxes, past)[0]


def flops(model, sizes, frames: int, *, train: bool) -> int:
    """FLOPs of one clip in each of these sizes."""
    with FlopCounterMode(display=False, custom_mapping=EXACT) as counter:
        for side, long_side in sizes:
            with torch.set_grad_enabled(train):
                logits = forward(model, side, long_side, frames, 1)
            if train:
                F.binary_cross_entropy_with_logits(logits, torch.empty_like(logits)).backward()
    return counter.get_total_flops()


def kept(model, side: int, long_side: int, frames: int) -> float:
    """Bytes that the backward pass of a batch needs in bfloat16, weights left out."""
    weights = {tensor.untyped_storage()._cdata for tensor in model.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = (storage, storage.nbytes())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = forward(model, side, long_side, frames, BATCH)
    del logits
    return sum(size for _, size in storages.values()) / 2


def cost(row: Experiment) -> dict:
    """The numbers of a row."""
    scale, frames = build.numbers(row), build.sampling(row).num_frames
    with torch.device("meta"):
        model = build.action_detector(row, ACTIONS).train()
    size = scale.short_side, scale.long_side
    longest = scale.long_side / scale.short_side
    views = [(side, round(side * longest)) for side in row.scales] * 2
    numbers = {
        "train": flops(model, [size], frames, train=True),
        "extract": flops(model, [size], frames, train=False),
        "test": flops(model, views, frames, train=False),
        "kept": kept(model, *size, frames),
        "token_bytes": 2 * math.prod(build.token_size(row, model)),
    }
    recompute_activations(model.backbone)
    return numbers | {"kept_recomputing": kept(model, *size, frames)}


def main() -> None:
    """Count every row; write the numbers and their table."""
    found = {}
    shares = "".join(f" train at {share:.0%} |" for share in SHARES)
    more = " clips/s, cores, MB/s | bank, GB a million persons |"
    head = f"| input, head | TFLOP a clip | GiB of 8 (recomputing) |{shares} extract | test |{more}"
    lines = [head, "|---" * (7 + len(SHARES)) + "|"]
    decoded = json.loads((RESULTS / "gpu" / "loader.json").read_text())
    for row in rows():
        name = f"{row.backbone} {row.frames}, {row.head}"
        found[name] = numbers = cost(row)
        hours = {key: numbers[key] / PEAK / 3600 for key in ("train", "extract", "test")}
        training = "".join(f" {TRAINED * hours['train'] / share:.1f} h |" for share in SHARES)
        speed = 0.4 * PEAK / numbers["train"]
        measured = decoded[f"464x256, {row.frames.split('+')[-1]}"]
        of_core = measured["dataset, training on a GPU"]
        megabytes = speed * READ * measured["kB a second of video"] / 1e3
        gib = [numbers[key] / 2**30 for key in ("kept", "kept_recomputing")]
        lines.append(
            f"| {name} | {numbers['train'] / 1e12:.2f} | {gib[0]:.1f} ({gib[1]:.1f}) |{training} "
            f"{EXTRACTED * hours['extract'] / 0.4:.1f} h | {TESTED * hours['test'] / 0.4:.1f} h |"
            f" {speed:.0f}, {speed / of_core:.0f}, {megabytes:.0f} |"
            f" {numbers['token_bytes'] / 1e3:.0f} |"
        )
        print(lines[-1], flush=True)
    write_whole(RESULTS / "gpu" / "cost.json", json.dumps(found, indent=1) + "\n")
    rewrite(RESULTS / "cost.md", "counted", "\n".join(lines))


if __name__ == "__main__":
    main()

"""The phases of ``gpu_checks.sh``: what a GPU has to answer, each phase's answers in one JSON file.

    uv run python tests/benchmarks/gpu_checks.py PHASE... --out DIR [--tiny] [--seconds N]

losses     smoke rows on this device beside the CPU, in float32 and bfloat16
eager      Table 1's rows: clips/s, memory, share of peak at 8 clips and up to the most that fit
compiled   the same with torch.compile
layouts    depthwise convolutions in both layouts, without and with cudnn.benchmark
extraction features of one view, and scores in six, of clips that lie ready
detector   ours trained and run in bfloat16 and float32; torchvision's run; weights are random
loader     clips/s by number of workers, and whether that is enough for ``eager``
ranks      two processes on one GPU: NCCL refuses that, so the study exchanges through gloo
predict    a rendered movie watched and drawn by the command

Nothing is fetched. A file says which card it is of, and what did not fit into the time is listed
under ``left``. With ``--tiny`` networks and inputs are small: does each phase run at all?
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import bench_gpu
import bench_loader
import torch
from torch.nn import functional as F
from torchvision.models import detection

from stadlib import recipes
from stadlib.base import InputError, Progress, write_whole
from stadlib.data.layout import AvaLayout
from stadlib.models.heads import no_memory
from stadlib.recipes.experiment import Execution, Experiment
from stadlib.training import build, processes, stages
from stadlib.training import detector as detectors
from stadlib.training.pretraining import prepare_data

PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # TFLOP/s, dense bfloat16, by part of a name
# How far a loss may be from the CPU's, relative: the first one, before weights differ; the mean.
TOLERANCE = {"float32": (2e-3, 0.05), "bfloat16": (2e-2, 0.1)}
PUBLIC = ("fasterrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2")
WORDS = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "memory": "no"}
NEEDS = {"eager": 30, "compiled": 150, "extraction": 30}  # seconds that a measurement may take


@dataclass
class Answers:
    """The file of a phase, written again with every line."""

    path: Path
    seconds: float  # that the phase may take
    tiny: bool
    device: torch.device
    lines: list[dict] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def resume(self) -> None:
        """Keep what an earlier call measured on the same card."""
        if self.path.is_file():
            earlier = json.loads(self.path.read_text())
            if (earlier["card"], earlier["tiny"]) == (self.card, self.tiny):
                self.lines = earlier["lines"]

    @property
    def card(self) -> str:
        return torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"

    def add(self, **line: object) -> None:
        self.lines.append(line)
        print(json.dumps(line), flush=True)
        self.write()

    def write(self) -> None:
        made = {"card": self.card, "torch": torch.__version__}
        made |= {"cudnn": torch.backends.cudnn.version(), "cores": os.cpu_count()}
        made |= {"date": str(datetime.date.today()), "tiny": self.tiny}
        made |= {"seconds": round(time.monotonic() - self.started, 1)}
        content = made | {"left": self.left, "lines": self.lines}
        write_whole(self.path, json.dumps(content, indent=1) + "\n")

    def has_time(self, what: str) -> bool:
        """Whether another measurement fits; else it is listed."""
        needed = 0 if self.tiny else NEEDS[self.path.stem]
        if time.monotonic() - self.started + needed < self.seconds:
            return True
        self.left.append(what)
        self.write()
        return False


def row_of(head: str, scale: str, **words: str) -> Experiment:
    """A row of Table 1 on annotated boxes."""
    (row,) = recipes.table1(scale=scale, detector="ground-truth", head=head, **WORDS | words)
    return row


def rate(work: Callable[[], object], units: int, answers: Answers) -> dict:
    """Units a second and peak memory of the second run on."""
    gpu, runs = answers.device.type == "cuda", 1 if answers.tiny else 5
    work()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(runs):
        work()
    if gpu:
        torch.cuda.synchronize()
    speed = units * runs / (time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
    return {"a_second": round(speed, 2), "peak_gib": round(peak, 2)}


def logged_losses(row: Experiment, device: torch.device, precision: str) -> list[float]:
    """The losses of a row's training on a device."""
    words = {"STADLIB_RESULTS": tempfile.mkdtemp(dir=os.environ["STADLIB_DATA"])}
    with patch.dict(os.environ, words), patch.object(processes, "device", lambda: device):
        folder = Path(words["STADLIB_RESULTS"]) / "run"
        run = stages.open_run(row, folder, Progress, Execution(precision=precision))
        stages.run_stages(run)
        log = (run.stage_folders[-1] / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in log]


def losses(answers: Answers) -> None:
    for head in ("t-only",) if answers.tiny else ("linear", "s-only", "t-only"):
        row = row_of(head, "smoke")
        if answers.tiny:
            row = replace(row, stages=(replace(row.stages[0], iterations=3, batch=2),))
        expected = logged_losses(row, torch.device("cpu"), "float32")
        for precision, (first, mean) in TOLERANCE.items():
            found = logged_losses(row, answers.device, precision)
            apart = abs(found[0] / expected[0] - 1), abs(sum(found) / sum(expected) - 1)
            good = apart[0] <= first and apart[1] <= mean
            line = {"head": head, "precision": precision, "losses": found, "cpu": expected}
            line |= {"apart": [round(x, 6) for x in apart], "allowed": [first, mean]}
            answers.add(**line, good=good)


def table1(answers: Answers, compiled: bool) -> None:
    """Rows at 8 clips, without and with recomputation, then at ever more until they fit no more."""
    answers.resume()
    layout = prepare_data(Experiment(scale="smoke"), Progress)
    peak = next((peak for name, peak in PEAKS.items() if name in answers.card), None)
    rows, first = bench_gpu.rows(), 2 if answers.tiny else 8
    if answers.tiny:
        bench_gpu.WARM = bench_gpu.TIMED = 1  # bfloat16 is slow on a CPU
        rows = [bench_gpu.tiny(row) for row in rows[:: 1 - len(rows)][: 1 if compiled else 2]]
    ways = ["auto"] if compiled else ["no", "yes"]
    plan = [(row, first, way) for row in rows for way in ways]
    if not (answers.tiny or compiled):
        plan += [(row, first * 2**i, "no") for row in rows for i in range(1, 7)]
    names = ("row", "clips", "recompute")
    known = {tuple(line[name] for name in names): "full" in line for line in answers.lines}
    full = {row for (row, _, way), is_full in known.items() if is_full and way == "no"}
    for row, clips, way in plan:
        name = f"{row.backbone} {row.frames} {row.head}"
        line = dict(zip(names, (name, clips, way), strict=True)) | {"compiled": compiled}
        if (name, clips, way) in known or (name in full and way == "no"):
            continue
        if not answers.has_time(f"{name}, {clips} clips, recompute {way}"):
            continue
        batch = bench_gpu.rendered_batch(row, layout, clips)
        try:
            speed = bench_gpu.measure(row, batch, compiled, answers.device, way)
        except (torch.OutOfMemoryError, InputError) as error:
            full |= {name} if way == "no" else set()
            answers.add(**line, full=str(error).split("\n")[0])
            continue
        share = round(speed.clips * speed.flops / 1e12 / peak, 3) if peak else None
        line |= {"a_second": round(speed.clips, 2), "peak_gib": round(speed.memory / 2**30, 2)}
        line |= {"gflops": round(speed.flops / 1e9, 1), "share_of_peak": share}
        answers.add(**line, hours=round(bench_gpu.RECIPE_CLIPS / speed.clips / 3600, 1))


def layouts(answers: Answers) -> None:
    """ir-CSN-152's depthwise convolutions at 256x480 pixels, 32 frames, forward and backward."""
    shapes, clips = [(64, 32, 64, 120), (128, 16, 32, 60), (256, 8, 16, 30), (512, 4, 16, 30)], 8
    shapes, clips = ([(8, 4, 8, 8)], 1) if answers.tiny else (shapes, clips)
    places = product(shapes, (torch.contiguous_format, torch.channels_last_3d), (False, True))
    for (channels, *size), layout, search in places:
        words = {"device": answers.device, "dtype": torch.bfloat16}
        x = torch.randn(clips, channels, *size, **words).to(memory_format=layout)
        weight = torch.randn(channels, 1, 3, 3, 3, **words).to(memory_format=layout)
        x, weight = x.requires_grad_(), weight.requires_grad_()

        def step(x=x, weight=weight) -> None:
            F.conv3d(x, weight, padding=1, groups=len(weight)).sum().backward()

        with torch.backends.cudnn.flags(benchmark=search):
            found = rate(step, clips, answers)
        line = {"channels": channels, "size": size, "layout": str(layout).removeprefix("torch.")}
        answers.add(**line, cudnn_benchmark=search, **found)


def extraction(answers: Answers) -> None:
    """A batch of testing, of rendered videos, in bfloat16."""
    layout = prepare_data(Experiment(scale="smoke"), Progress)
    keyframes, scale = stages.annotated(layout, ("ava",), "val"), "paper"
    inputs = [("ir-csn-152", "32x2"), ("ir-csn-152", "64x1"), ("slowfast-152", "8x8+32x2")]
    inputs, scale = (inputs[:1], "smoke") if answers.tiny else (inputs, scale)
    for backbone, frames in inputs:
        row = row_of("t-only", scale, backbone=backbone, frames=frames)
        model = build.action_detector(row, 60).to(answers.device).eval()
        for views in ([build.memory_view(row)], list(build.views(row).values())):
            name = f"{backbone} {frames}, {len(views)} views"
            if not answers.has_time(name):
                continue
            batches = build.test_batches(row, layout, keyframes[: build.TEST_BATCH], views)
            batch = [view.to(answers.device) for view in next(iter(batches))]
            past = no_memory(len(batch[0].keys), model.fusion.width, answers.device)

            @torch.inference_mode()
            def look(batch=batch, past=past, model=model) -> None:
                with torch.autocast(answers.device.type, torch.bfloat16):
                    for view in batch:
                        model(*stages.model_inputs(view), past)

            answers.add(row=name, **rate(look, len(batch[0].keys), answers))


def detector(answers: Answers) -> None:
    """Pictures a second, each with two persons."""
    scale, count, sides = ("smoke", 2, (72, 128)) if answers.tiny else ("paper", 16, (720, 1280))
    pictures = torch.randint(256, (count, 3, *sides), dtype=torch.uint8)
    high, wide = sides
    boxes = torch.tensor([[0.1, 0.2, 0.4, 0.9], [0.5, 0.2, 0.9, 0.9]])
    batch = list(pictures), [boxes * torch.tensor([wide, high, wide, high])] * count
    model = detectors.build_detector(scale).to(answers.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def train() -> None:
        optimizer.zero_grad()
        detectors.detection_loss(model.train(), batch)[0].backward()
        optimizer.step()

    public = () if answers.tiny else PUBLIC
    networks = {"ours": model}
    for name in public:
        network = getattr(detection, name)(weights=None, weights_backbone=None)
        networks[name] = network.to(answers.device)
    for precision in ("float32", "bfloat16"):
        with torch.autocast(answers.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            line = {"precision": precision, "network": "ours"}
            answers.add(**line, what="train", **rate(train, count, answers))
    for name, network in networks.items():  # as the command does it
        look = partial(detectors.look, network.eval(), pictures)
        answers.add(network=name, what="detect", **rate(look, count, answers))


def loader(answers: Answers) -> None:
    """Training's clips of ir-CSN 32x2 of 340x256 pixels; what ``eager`` trains needs as many."""
    cores = len(os.sched_getaffinity(0))
    if answers.tiny:
        bench_loader.MOVIES, bench_loader.SECONDS = 1, 12
        bench_loader.BATCHES, bench_loader.WARM_BATCHES = 2, 1
    root = Path(os.environ["STADLIB_DATA"]) / "movies"
    bench_loader.make_movies(root)
    row = row_of("linear", "paper")
    batches = bench_loader.WARM_BATCHES + bench_loader.BATCHES
    keyframes = bench_loader.moments(batches * bench_loader.BATCH)
    dataset, best = build.train_dataset(row, AvaLayout(root), keyframes), 0.0
    for workers in sorted({1, cores} if answers.tiny else {1, 2, 4, cores // 2, cores}):
        best = max(best, found := bench_loader.loaded(dataset, row, workers))
        answers.add(workers=workers, a_second=round(found, 2), cores=cores)
    eager = answers.path.with_name("eager.json")
    for line in json.loads(eager.read_text())["lines"] if eager.is_file() else ():
        if "a_second" in line:
            row, needed = f"{line['row']}, {line['clips']} clips", line["a_second"]
            answers.add(row=row, needed=needed, loader_bound=best < needed)


def command(answers: Answers, results: str, *words: str) -> tuple[int, list[str]]:
    """Run a command of the study; its exit status and its lines."""
    folder = Path(os.environ["STADLIB_DATA"]) / results
    environment = os.environ | {"STADLIB_RESULTS": str(folder)}
    line, options = [sys.executable, "-m", "stadlib", *words], {"env": environment}
    done = subprocess.run(line, capture_output=True, text=True, check=False, **options)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def trained(answers: Answers, count: int) -> tuple[str, list[float]]:
    """Train a smoke row in so many processes; what was said, and its losses."""
    words = ["train", "--scale", "smoke", "--head", "linear", "--detector", "ground-truth"]
    words += ["--iterations", "3", "--batch", "2"] if answers.tiny else []
    words += ["--processes", str(count)] if count > 1 else []
    status, said = command(answers, f"ranks-{count}", *words)
    logs = (Path(os.environ["STADLIB_DATA"]) / f"ranks-{count}").glob("runs/stages/*/log.jsonl")
    found = [json.loads(line)["loss"] for log in logs for line in log.read_text().splitlines()]
    told = next((line for line in said if "share a GPU" in line), said[-1])
    return told if status == 0 else f"failed: {said[-1]}", found


def ranks(answers: Answers) -> None:
    """The same losses in one process and in two; those of one GPU say that they share it."""
    for count in (1, 2):
        start = time.monotonic()
        told, found = trained(answers, count)
        seconds = round(time.monotonic() - start, 1)
        answers.add(processes=count, losses=found, told=told, seconds=seconds)
    one, two = (line["losses"] for line in answers.lines)
    apart = max((abs(a - b) for a, b in zip(one, two, strict=True)), default=math.nan)
    answers.add(apart=apart, good=apart < TOLERANCE["float32"][1])


def predict(answers: Answers) -> None:
    """A movie of the miniature world, with a row of ``ranks`` and the first detector."""
    told, _ = trained(answers, 1)
    out = Path(os.environ["STADLIB_DATA"]) / "predicted"
    words = ("--weights", "linear", "--detector", "v1", "--scale", "smoke", "--out", str(out))
    start = time.monotonic()
    status, said = command(answers, "ranks-1", "predict", *words)
    files = {path.name: path.stat().st_size for path in sorted(out.glob("*"))}
    line = {"row": told, "status": status, "files": files, "told": said[-1:]}
    answers.add(**line, seconds=round(time.monotonic() - start, 1), good=status == 0)


PHASES: dict[str, Callable[[Answers], None]] = {
    "losses": losses,
    "eager": partial(table1, compiled=False),
    "compiled": partial(table1, compiled=True),
    "layouts": layouts,
    "extraction": extraction,
    "detector": detector,
    "loader": loader,
    "ranks": ranks,
    "predict": predict,
}


def main() -> None:
    """Run phases, each of at most so many seconds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("phases", nargs="+", choices=tuple(PHASES), metavar="PHASE")
    parser.add_argument("--tiny", action="store_true", help="does it run at all?")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=570)
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    if not (gpu or options.tiny):
        raise SystemExit("no GPU here; --tiny shows that every phase runs")
    device, failed = torch.device("cuda" if gpu else "cpu"), []
    for phase in options.phases:
        path = options.out / f"{phase}.json"
        answers = Answers(path, options.seconds, options.tiny, device)
        PHASES[phase](answers)
        answers.write()
        print(f"{path}: {time.monotonic() - answers.started:.0f} s", flush=True)
        failed += [phase] * (not all(line.get("good", True) for line in answers.lines))
    if failed:
        raise SystemExit(f"not as expected: {', '.join(failed)}")


if __name__ == "__main__":
    main()

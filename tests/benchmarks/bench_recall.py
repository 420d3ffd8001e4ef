"""What of ``Recall`` brings what: one backbone's features, heads with parts of it, mAP at mini.

Takes the backbone of Table 2's second strategy (seed 0), which is trained first if it is not there
(minutes), and trains new heads on its features: without memory, with memory but nothing that tells
when and where it is from, with the relative-second embedding, with the bias that falls with time,
and with relative geometry; two seeds each.
``python tests/benchmarks/bench_recall.py [ITERATIONS ...]``
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from stadlib import recipes, study
from stadlib.base import Progress
from stadlib.data import layout as data_layout
from stadlib.models.heads import Recall
from stadlib.training import build, pretraining, stages
from stadlib.training.loop import Schedule, fit, read_weights
from stadlib.training.memory import feature_batches

SEEDS = (0, 1)
ROW = recipes.memory_ablation(scale="mini")[30, 5]


def _no_fall(recall: Recall) -> None:
    for parameter in (recall.slope, recall.level):
        parameter.requires_grad_(False).zero_()


def _no_geometry(recall: Recall) -> None:
    recall.geometry.requires_grad_(False)  # its last layer starts at zero


def _no_embedding(recall: Recall) -> None:
    recall.time.requires_grad_(False)  # starts at zero


VARIANTS: dict[str, tuple[Callable[[Recall], None], ...] | None] = {
    "nothing remembered": None,
    "memory alone": (_no_embedding, _no_fall, _no_geometry),
    "+ embedding of the second": (_no_fall, _no_geometry),
    "+ bias that falls with time": (_no_geometry,),
    "+ relative geometry (Recall)": (),
}


def main(iterations: int) -> None:
    """Train and measure every variant; prints a row each."""
    study.run(ROW)
    layout = pretraining.prepare_data(ROW, Progress)
    shared = tuple(study.stage_folder(ROW, number) for number in (1, 2))
    run = stages.Run(ROW, layout, study.run_folder(ROW), shared, Progress)
    labels = layout.label_map()
    model = build.action_detector(ROW, labels.num_actions)
    path = study.stage_folder(ROW, 1) / "checkpoint.pt"
    model.load_state_dict(read_weights(path, ROW.stage_digest(1))["model"])
    banks = {split: {s: run.banks(1).seconds(model, s, split) for s in data_layout.SOURCES}
             for split in ("train", "val")}  # fmt: skip
    keyframes = {split: stages.annotated(layout, data_layout.SOURCES, split) for split in banks}
    views = run.banks(1).views(model, keyframes["val"], "val")
    for name, without in VARIANTS.items():
        found, start = [], time.monotonic()
        for seed in SEEDS:
            row = replace(ROW, seed=seed)
            known = banks if without is not None else {split: {} for split in banks}
            remember = {split: stages.remember_from(run, known[split]) for split in banks}
            torch.manual_seed(seed)
            head = build.action_detector(row, labels.num_actions, without is not None).head
            for switch_off in without or ():
                switch_off(head.recall)
            stage = replace(row.stages[1], iterations=iterations)
            numbers = Schedule(iterations=iterations, lr=stage.lr, drop=stage.drop, seed=seed)
            with tempfile.TemporaryDirectory() as folder:

                def batches(start: int, row=row, stage=stage):
                    order = build.order(row, stage, keyframes["train"], labels, start)
                    return feature_batches(keyframes["train"], order, banks["train"])

                loss = partial(stages.action_loss, remember=remember["train"])
                fit(
                    head.train(), loss, batches, numbers,
                    folder=Path(folder), digest="bench", progress=lambda *_: None,
                )  # fmt: skip
                shown = stages.feature_views(keyframes["val"], views)
                rows = stages.score_persons(head, shown, remember["val"], labels)
                files = {}
                for source, of_source in rows.groupby("source", sort=False):
                    files[source] = Path(folder) / f"{source}.csv"
                    stages.write_detections(of_source, files[source])
                found.append(stages.measure(layout, files, "val"))
        means = (f"{s} {sum(100 * f[s]['mAP'] for f in found) / len(found):.2f}" for s in found[0])
        seconds = (time.monotonic() - start) / len(SEEDS)
        print(f"{iterations} iterations, {name:30} {', '.join(means)}  ({seconds:.0f} s a head)")


if __name__ == "__main__":
    torch.set_num_threads(2)
    for word in sys.argv[1:] or ["1000", "3000"]:
        main(int(word))

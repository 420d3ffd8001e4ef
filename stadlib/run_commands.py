"""The commands that train, watch and score runs; torchrun starts them too."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, get_args

from stadlib import base, evaluation, recipes, report, study, training
from stadlib.base import InputError, Progress
from stadlib.recipes.experiment import (
    INPUTS,
    USUAL,
    BackboneName,
    Execution,
    Experiment,
    ScaleName,
    from_dict,
)
from stadlib.recipes.scales import DETECTORS

KINETICS = {"K400": ("kinetics-400", 400), "K700": ("kinetics-700", 700)}  # folder, classes
LOOK = 5  # seconds from one look at a run to the next
Split = Literal["val", "test"]
BackboneOption = Annotated[
    str | None, "slowfast-101, slowfast-152, ir-csn-152, all; beyond the paper: swin3d-t, ..."
]
DetectorOption = Annotated[str | None, "ground-truth (default with --data), v1, v2, v3"]
AnyDetectorOption = Annotated[str, "v1, v2, v3; torchvision:NAME; FILE.pt; BOXES.csv, .json, .pkl"]
DataOption = Annotated[str, "a folder with a dataset of your own"]
ExperimentOption = Annotated[str | None, "an experiment as JSON (what torchrun is given)"]
TableName = Literal["1", "2", "3", "4", "amounts", "uses", "choices", "beyond"]
PublishOption = Annotated[bool, "copy to results/reference"]
ProcessesOption = Annotated[int, "started with torchrun, each on its own GPU if any"]
WeightsOption = Annotated[Literal["reference", "anew"], "that a miniature run starts from"]


def train(
    *,
    table: Annotated[TableName, "of the paper; or what it leaves open"] = "1",
    backbone: BackboneOption = None,
    pretrain: Annotated[str | None, "K400, K400+IG65M, K700, all"] = None,
    frames: Annotated[str | None, "8x8+32x2, 16x4+64x1, 32x2, 64x1, all"] = None,
    head: Annotated[str | None, "linear, s-only, t-only, all"] = None,
    memory: Annotated[str | None, "rows of Table 1: no (default), yes, all"] = None,
    detector: DetectorOption = None,
    recall: Annotated[str | None, "rows of Table 2: none (default), embedding, geometry"] = None,
    loss: Annotated[str | None, "bce (the tables'), pose-softmax, softmax: one action each"] = None,
    scale: ScaleName = "mini",
    seed: Annotated[Sequence[int], "one run for each"] = (0,),
    weights: WeightsOption = "reference",
    data: DataOption = "",
    iterations: Annotated[int | None, "of each stage; default: by scale and size"] = None,
    lr: Annotated[float | None, "of each stage, instead of the scale's"] = None,
    batch: Annotated[int | None, "keyframes at a time, instead of the scale's"] = None,
    start: Annotated[str | None, "pretrained, frozen, features; by size of --data"] = None,
    processes: ProcessesOption = 0,
    execution: Execution = USUAL,
    publish: PublishOption = False,
    experiment: ExperimentOption = None,
) -> None:
    """Train and evaluate rows of a table."""
    if experiment:
        rows = [from_dict(json.loads(experiment))]
    else:
        detector = detector or ("ground-truth" if data and table not in ("4", "uses") else None)
        words = _given(backbone=backbone, pretrain=pretrain, frames=frames, head=head)
        words |= _given(memory=memory, detector=detector, recall=recall)
        table = table if backbone in (None, "all", *get_args(BackboneName)) else "beyond"
        rows = [row for one in seed for row in _rows(table, words, scale, one, start)]
    changes = _given(loss=loss) | ({"weights": weights} if weights == "anew" else {})
    changes |= {"dataset": str(Path(data).resolve())} if data else {}
    numbers = _given(iterations=iterations, lr=lr, batch=batch)
    rows = [_with_numbers(replace(row, **changes), numbers, start) for row in rows]
    if data and not experiment:  # numbers by the size of the data, unless others are given
        size = report.beyond.size(rows[0])
        rows = [_with_numbers(recipes.fitted(row, size), numbers, start) for row in rows]
        print(*recipes.size_notes(rows[0], size), sep="\n", flush=True)
    with training.processes.group():
        for row in rows:
            record = study.run(row, num_processes=processes, execution=execution)
            if training.processes.rank() == 0:
                print(f"{record.folder.name}: mAP@0.5, %: {_values(record)}", flush=True)
                if scale == "mini" and not data:
                    print(report.scores.against_reference(record), flush=True)
                if publish:
                    report.publish.publish(record, table if table in ("choices", "beyond") else "")
        for one in seed if table == "4" else ():
            _measure_detectors(scale, one, publish)


def _given(**words: object) -> dict[str, object]:
    """The options that were given."""
    return {name: word for name, word in words.items() if word is not None}


def _with_numbers(row: Experiment, numbers: dict, start: str | None) -> Experiment:
    """A row with other numbers in each stage, and another start of the first."""
    for name, number in numbers.items():
        if number <= 0:
            raise InputError(f"--{name} {number}: give more than 0")
    row = recipes.started(row, start) if start else row
    return replace(row, stages=tuple(replace(stage, **numbers) for stage in row.stages))


def _rows(
    table: str, words: dict, scale: str, seed: int, start: str | None = None
) -> list[Experiment]:
    """The rows of a table that match the words; a word that it does not have is refused."""
    if table == "1":
        usual = {"backbone": "ir-csn-152", "pretrain": "K700", "head": "t-only", "memory": "no"}
        words = usual | words
        frames = "32x2" if words["backbone"] == "ir-csn-152" else "all"
        return list(recipes.table1(scale=scale, seed=seed, **{"frames": frames} | words))
    if table == "beyond" and (start or "backbone" in words):
        words = words | {"start": start or "pretrained"}
    rows = {"2": recipes.table2, "3": recipes.table3, "4": recipes.table4}
    rows |= {"amounts": recipes.memory_ablation, "uses": recipes.box_uses}
    rows = (rows | {"choices": recipes.choices_compared, "beyond": recipes.beyond})[table]
    return list(dict.fromkeys(rows(scale=scale, seed=seed, **words).values()))


def _values(record: study.Record, measure: str = "mAP") -> str:
    """A measure of every source that has it, in %."""
    values = {name: of[measure] for name, of in record.metrics.items() if of[measure] is not None}
    return ", ".join(f"{name} {100 * value:.2f}" for name, value in values.items())


def extract(
    *,
    backbone: BackboneOption = None,
    pretrain: Annotated[str, "what it learned on; default: what is public"] = "",
    detector: DetectorOption = None,
    scale: ScaleName = "mini",
    seed: Annotated[int, "of a miniature world and backbone"] = 0,
    data: DataOption = "",
    processes: ProcessesOption = 0,
    execution: Execution = USUAL,
    experiment: ExperimentOption = None,
) -> None:
    """Have a backbone see every second of a dataset once, for train --start features."""
    words = {"backbone": backbone or "ir-csn-152", "pretrain": pretrain, "head": "linear"}
    words |= {"detector": detector or ("ground-truth" if data else "v3")}
    (row,) = recipes.beyond(scale=scale, seed=seed, start="features", **words).values()
    row = from_dict(json.loads(experiment)) if experiment else row
    if data:
        row = replace(row, dataset=str(Path(data).resolve()))
    with training.processes.group():
        made = study.extract(row, num_processes=processes, execution=execution)
        if training.processes.rank() == 0:
            print(made, flush=True)


def detect(
    *videos: Annotated[Path, "video files; or give --data"],
    data: Annotated[Path | None, "a dataset: all its seconds"] = None,
    source: Annotated[Sequence[str], "of the dataset: ava, kinetics"] = ("ava", "kinetics"),
    split: Annotated[Sequence[str], "of the dataset: train, val, test"] = ("val",),
    detector: AnyDetectorOption = "v3",
    scale: Annotated[ScaleName, "of v1, v2, v3"] = "mini",
    as_: Annotated[str | None, "the dataset's box files get this name"] = None,
    every: Annotated[float, "seconds between frames of a video"] = 1.0,
    out: Annotated[Path | None, "of videos: write the boxes into this CSV"] = None,
    processes: ProcessesOption = 0,
) -> None:
    """Find the people in videos or in a dataset."""
    if bool(videos) == bool(data):
        raise InputError("detect: give either video files or --data DIR")
    if videos and not out:
        raise InputError("--out is missing: name the CSV file for the boxes of these videos")
    if out and out.suffix.lower() != ".csv":
        raise InputError(f"--out {out}: person boxes are written as .csv; rename it")
    if not 0 < every < math.inf:
        raise InputError(f"--every {every:g}: give seconds, more than 0")
    if processes:
        lists = {"source": source, "split": split} if data else {}
        words = {"data": data, "detector": detector, "scale": scale, "as": as_}
        words |= {"every": every, "out": out}
        command = [f"--{name}={word}" for name, word in words.items() if word is not None]
        command += [word for name, of in lists.items() for word in (f"--{name}", *of)]
        study.torchrun(["detect", *map(str, videos), *command], processes, "detect")
        return
    if videos:
        files = [(out, training.detector.frames_of_videos(videos, every))]
    else:
        files = training.detector.box_files(data, source, split, as_ or detector)
    with training.processes.group():
        model, name = training.detector.open_detector(detector, scale, Progress)
        for path, frames in files:
            report = Progress(f"detect {path.stem}")
            training.detector.detect_persons(model, frames, path, name, progress=report)
            if training.processes.rank() == 0:
                print(f"{path}: {len(frames)} frames")


def _measure_detectors(scale: str, seed: int, publish: bool) -> None:
    """Print how good the boxes of Table 4 are, without regard to actions."""
    for version in DETECTORS:
        record = study.detector_record(version, scale, seed)
        print(f"{version}: AP@0.5 of people, %: {_values(record, 'AP@0.5')}", flush=True)
        if publish:
            name = f"{version}_{record.scale}_seed{seed}-{record.digest}"
            report.publish.publish(record, "detectors", name)


def pretrain_command(
    *,
    backbone: Annotated[str, "slowfast-152, slowfast-101, ir-csn-152, ..."] = "ir-csn-152",
    pretrain: Literal["K400", "K700"] = "K700",
    frames: Annotated[str | None, "default: a backbone's first, such as 32x2"] = None,
    data: Annotated[Path | None, "Kinetics; default: where the data folder has it"] = None,
    scale: ScaleName = "paper",
    iterations: Annotated[int | None, "instead of the recipe's epochs"] = None,
    seed: Annotated[int, "of weights and order"] = 0,
    processes: ProcessesOption = 0,
    execution: Execution = Execution(save_every=1000),  # noqa: B008
) -> None:
    """Train a backbone to classify Kinetics' clips."""
    least_of = {"iterations": 1, "seed": 0, "processes": 0}
    for name, number in _given(iterations=iterations, seed=seed, processes=processes).items():
        if number < (least := least_of[name]):
            raise InputError(f"--{name} {number}: give {least} or more")
    frames = frames or INPUTS.get(backbone, ("32x2",))[0]
    words = {"backbone": backbone, "pretrain": pretrain, "frames": frames}
    words |= {"scale": scale, "seed": seed}
    experiment = Experiment(**words)
    rendered = data is None and scale != "paper"
    if rendered and iterations:
        raise InputError(
            "--iterations is for real files; name them with --data, or --scale paper "
            f"(weights of scale {scale} are shared by all rows that need them)"
        )
    root = None if rendered else data or base.data_dir() / KINETICS[pretrain][0]
    plan = training.pretraining.Pretraining(experiment, root, iterations)  # mistakes show at once
    if processes:
        plan.finished()
        words |= _given(data=data, iterations=iterations)
        options = [f"--{name}={word}" for name, word in words.items()]
        command = ["pretrain", *options, *execution.words()]
        study.torchrun(command, processes, f"pretrain {backbone}")
        return
    with training.processes.group():
        record = training.pretraining.pretrain(plan, Progress, execution)
        if training.processes.rank() != 0:
            return
        top1, top5 = (f"top-{k} {100 * record[f'top{k}']:.2f} %" for k in (1, 5))
        views = " x ".join(map(str, record["views"]))
        print(
            f"{plan.weights}: {top1}, {top5}, {record['validation_videos']} videos, {views} views"
        )
        if record["unreadable"]:
            print(f"{plan.unreadable}: {record['unreadable']} videos could not be read")
        if scale == "paper" and record["classes"] != KINETICS[pretrain][1]:
            note = f"{record['classes']} classes instead of {KINETICS[pretrain][1]}"
            print(f"note: {note}; what is trained on these weights should say so")


def watch(
    run: Annotated[str, "a folder, or part of a run's name; default: the newest"] = "",
    *,
    follow: Annotated[bool, f"look every {LOOK} seconds until its end"] = False,
) -> None:
    """Show what a run is doing: stage, loss, speed, time left."""
    folder = study.find_run(run)
    try:
        while True:
            if follow and sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")
            print("\n".join(status(folder)), flush=True)
            if not follow or (folder / "record.json").is_file():
                return
            time.sleep(LOOK)
    except KeyboardInterrupt:  # the run itself is not touched
        print()


def status(folder: Path, now: float | None = None) -> list[str]:
    """What a run is doing, a few lines; ``now``: seconds since the epoch. Nothing is written."""
    now, record = time.time() if now is None else now, folder / "record.json"
    if not (path := folder / "experiment.json").is_file():
        raise InputError(f"{folder}: no experiment.json; name the folder of a run")
    experiment = from_dict(json.loads(path.read_text()))
    lines = [folder.name]
    for number in range(1, len(experiment.stages) + 1):
        first, *others = _stage_lines(study.stage_folder(experiment, number), now)
        lines += [f"stage {number} of {len(experiment.stages)}: {first}", *others]
    if record.is_file():
        lines.append(f"finished; mAP@0.5, %: {_values(study.read_record(record))}")
    return lines


def _stage_lines(folder: Path, now: float) -> list[str]:
    """One stage: how far, how well, how fast."""
    path = folder / "log.jsonl"
    log = list(map(json.loads, base.whole_lines(path)))
    if not log:
        return ["begun, nothing logged yet" if path.is_file() else "not begun"]
    last, loss = log[-1], log[0]["loss"]
    done, total = last["iteration"] + 1, last["iterations"]
    for line in log[1:]:
        loss += 0.2 * (line["loss"] - loss)  # smoothed over about ten lines
    words = f"iteration {done} of {total} ({done / total:.0%}), loss {loss:.4f} (smoothed)"
    words += f", lr {last['lr']:.3g}"
    recent = [last]
    for line in reversed(log[-20:-1]):  # one process's: its clock starts at 0 after a restart
        if line["seconds"] > recent[-1]["seconds"]:
            break
        recent.append(line)
    seconds = last["seconds"] - recent[-1]["seconds"]
    details = [f"last line {_span(now - path.stat().st_mtime)} ago"]
    if seconds > 0 and done < total:
        speed = (last["iteration"] - recent[-1]["iteration"]) / seconds
        words += f", {speed:.3g} iterations/s, {_span((total - done) / speed)} left"
        if "data_seconds" in last:
            waited = sum(line["data_seconds"] for line in recent[:-1])
            details.append(f"waiting for data {waited / seconds:.0%}")
    if last.get("peak_gpu_mb"):
        details.append(f"GPU {last['peak_gpu_mb'] / 1000:.1f} GB at most")
    return [words, "  " + ", ".join(details)]


def _span(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))


def ensemble(
    *members: Annotated[Path, "prediction files"],
    out: Annotated[Path | None, "the mean, a CSV"] = None,
    table1: Annotated[bool, "instead: the members of Table 1's ensemble that were run"] = False,
    seed: Annotated[int, "of Table 1's runs"] = 0,
    scale: ScaleName = "mini",
    split: Split = "val",
    publish: PublishOption = False,
) -> None:
    """Average prediction files of the same boxes."""
    if not table1:
        if not members or out is None:
            raise InputError("ensemble: give prediction files and --out, or --table1")
        boxes, rows = evaluation.files.average(members, out)
        print(f"{out}: {len(members)} members, {boxes} boxes, {rows} rows")
        return
    wanted = recipes.ensemble1(scale=scale, seed=seed)
    runs = [row for row in wanted if study.find(row)]
    for absent in (row for row in wanted if row not in runs):
        print(f"not run, left out: {absent.name}")
    if len(runs) < 2:
        raise InputError(f"{base.runs_dir()}: {len(runs)} of Table 1's rows were run; train more")
    _tell(study.ensemble(runs, split), "ensembles", split, publish)
    if publish and split == "val":
        for row in runs:
            report.publish.publish(study.find(row), "ensembles/members")


def score(
    run: Annotated[str, "a folder, or part of a run's name"],
    *,
    split: Split = "test",
    publish: PublishOption = False,
) -> None:
    """Score another split with a finished run's model."""
    finished = study.find_record(run)
    with training.processes.group():
        record = study.score_split(finished, split)
        if training.processes.rank() == 0:
            _tell(record, "", split, publish)


def _tell(record: study.Record | None, kind: str, split: str, publish: bool) -> None:
    """Print what was measured on a split, and publish it if wished."""
    if record is None:
        print(f"the {split} split has no annotations: its prediction files are written")
        return
    print(f"{record.folder.name}, {split}: mAP@0.5, %: {_values(record)}")
    if publish:
        report.publish.publish(record, "test" if split == "test" else kind)


COMMANDS = (train, extract, pretrain_command, ensemble, score, watch, detect)

"""``python -m stadlib`` (or ``stadlib``): every command of the study, and what torchrun starts.

A command is a function: its signature is its options, positional before ``*``, and its annotations
and its docstring are its help. Words are checked before slow libraries are imported. A user's
mistake ends with one line on standard error and exit status 1.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin

from stadlib import base, recipes, study
from stadlib.base import InputError, Progress
from stadlib.publish import publish as publish_record
from stadlib.recipes import own_data
from stadlib.recipes.experiment import USUAL, Execution, Experiment, ScaleName, from_dict
from stadlib.recipes.scales import DETECTORS

KINETICS = {"K400": ("kinetics-400", 400), "K700": ("kinetics-700", 700)}  # folder, classes
# Words and options of several commands.
# The evaluators are those of evaluation.matching.
Protocol = Literal["official", "acar", "slowfast", "mmaction2", "multisports"]
Split = Literal["val", "test"]
TableName = Literal["1", "2", "3", "4", "amounts", "uses", "choices"]
PublishOption = Annotated[bool, "copy to results/reference"]
DetectorOption = Annotated[str, "v1, v2, v3; torchvision:NAME; FILE.pt; BOXES.csv, .json, .pkl"]
LabelsOption = Annotated[Path | None, "label map (.pbtxt) of the evaluated actions"]
ProcessesOption = Annotated[int, "started with torchrun, each on its own GPU if any"]
WeightsOption = Annotated[Literal["reference", "anew"], "that a miniature run starts from"]
Table1Option = Annotated[str, "of Table 1's runs"]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the command, return the exit status."""
    try:
        parse(arguments)()
        return 0
    except BrokenPipeError:  # the reader of a pipe has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except base.OneLineError as error:
        line = str(error)
    except OSError as error:  # a full disk, a folder without permission
        path = f"{error.filename}: " if error.filename else ""
        line = f"{path}{error.strerror or error}; free space or set STADLIB_RESULTS"
    except KeyboardInterrupt:
        line = "interrupted; the same command resumes from the last checkpoint"
    print(f"stadlib: {line}", file=sys.stderr)
    return 1


class _Parser(argparse.ArgumentParser):
    """One line instead of a usage text."""

    def error(self, message: str) -> None:
        raise base.ConfigError(f"{message}; see {self.prog} --help")


def parse(arguments: list[str] | None = None) -> partial:
    """The command that a command line names, with its options; call it to run it."""
    parser = _Parser(prog="stadlib", description="Every command of the study.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        name, text = command.__name__.removesuffix("_command"), command.__doc__
        subparser = subparsers.add_parser(name, help=text, description=text)
        options = inspect.signature(command, eval_str=True).parameters.values()
        subparser.set_defaults(command=command, options=options)
        for option in options:
            _add_option(subparser, option)
    values = vars(parser.parse_args(arguments))
    command, options, positional = values.pop("command"), values.pop("options"), []
    for option in options:
        kind = option.annotation
        if option.kind is option.VAR_POSITIONAL:
            positional = values.pop(option.name)
        elif is_dataclass(kind):
            values[option.name] = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        elif choices := _choices(kind):
            base.check_word(option.name, values[option.name], choices)
    return partial(command, *positional, **values)


def _choices(kind: object) -> tuple:
    """The words of ``Literal[...]`` or ``Annotated[Literal[...], text]``; else nothing."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_args(kind) if get_origin(kind) is Literal else ()


def _add_option(parser: argparse.ArgumentParser, option: inspect.Parameter) -> None:
    """Give a parser the option that a command's parameter stands for.

    ``Annotated[T, text]`` holds its help, and perhaps the value of an option that stands alone.
    ``T | None`` and sequences of T are read as T. A dataclass is an option for each field.
    """
    kind = option.annotation
    if is_dataclass(kind):
        for name, value in vars(option.default).items():
            field = Annotated[type(value), kind.HELP[name]]
            _add_option(parser, option.replace(name=name, default=value, annotation=field))
        return
    choices, name, settings = _choices(kind), option.name.rstrip("_"), {}
    kind, *texts = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    if texts[1:]:
        settings = {"nargs": "?", "const": texts.pop()}
    if NoneType in get_args(kind):
        kind = get_args(kind)[0]
    if get_origin(kind) in (list, Sequence):
        kind = get_args(kind)[0]
        settings["nargs"] = "+"
    if choices:
        kind = type(choices[0])
        texts.append(", ".join(map(str, choices)))
    settings["help"] = ": ".join(texts).replace("%", "%%")
    if kind is bool:
        settings["action"] = "store_true"
    else:
        settings |= {"type": kind, "metavar": "PATH" if kind is Path else name.upper()}
    needed = option.default is option.empty
    if not needed:
        settings["default"] = option.default
    if option.kind is option.KEYWORD_ONLY:
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, dest=option.name, required=needed, **settings)
        return
    if option.kind is option.VAR_POSITIONAL:
        settings["nargs"] = "*"
    elif not needed:
        settings["nargs"] = "?"
    parser.add_argument(option.name, **settings)


def train(
    *,
    table: Annotated[TableName, "of the paper; or what it leaves open"] = "1",
    backbone: Annotated[str | None, "slowfast-101, slowfast-152, ir-csn-152, all"] = None,
    pretrain: Annotated[str | None, "K400, K400+IG65M, K700, all"] = None,
    frames: Annotated[str | None, "8x8+32x2, 16x4+64x1, 32x2, 64x1, all"] = None,
    head: Annotated[str | None, "linear, s-only, t-only, all"] = None,
    memory: Annotated[str | None, "rows of Table 1: no (default), yes, all"] = None,
    detector: Annotated[str | None, "ground-truth (default with --data), v1, v2, v3"] = None,
    recall: Annotated[str | None, "rows of Table 2: none (default), embedding, geometry"] = None,
    loss: Annotated[str | None, "bce (the tables'), pose-softmax, softmax: one action each"] = None,
    scale: ScaleName = "mini",
    seed: Annotated[Sequence[int], "one run for each"] = (0,),
    weights: WeightsOption = "reference",
    data: Annotated[str, "a folder with a dataset of your own"] = "",
    iterations: Annotated[int | None, "of each stage; default: by scale and size"] = None,
    lr: Annotated[float | None, "of each stage, instead of the scale's"] = None,
    batch: Annotated[int | None, "keyframes at a time, instead of the scale's"] = None,
    start: Annotated[str | None, "the backbone's: pretrained, frozen; by size of --data"] = None,
    processes: ProcessesOption = 0,
    execution: Execution = USUAL,
    publish: PublishOption = False,
    experiment: Annotated[str | None, "an experiment as JSON (what torchrun is given)"] = None,
) -> None:
    """Train and evaluate rows of a table."""
    if experiment:
        rows = [from_dict(json.loads(experiment))]
    else:
        detector = detector or ("ground-truth" if data and table not in ("4", "uses") else None)
        words = {"backbone": backbone, "pretrain": pretrain, "frames": frames, "head": head}
        words |= {"memory": memory, "detector": detector, "recall": recall}
        words = {name: word for name, word in words.items() if word is not None}
        rows = [row for one in seed for row in _rows(table, words, scale, one)]
    rows = [replace(row, loss=loss) for row in rows] if loss else rows
    if weights == "anew":
        rows = [replace(row, weights=weights) for row in rows]
    if data:
        rows = [replace(row, dataset=str(Path(data).resolve())) for row in rows]
    numbers = {"iterations": iterations, "lr": lr, "batch": batch}
    numbers = {name: number for name, number in numbers.items() if number is not None}
    if wrong := [name for name, number in numbers.items() if number <= 0]:
        raise InputError(f"--{wrong[0]} {numbers[wrong[0]]}: give more than 0")
    rows = [_with_numbers(row, numbers, start) for row in rows]
    if data and not experiment:
        rows = _by_size(rows, numbers, start)
    from stadlib.training.processes import group, rank  # noqa: PLC0415

    with group():
        for row in rows:
            record = study.run(row, num_processes=processes, execution=execution)
            if rank() == 0:
                print(f"{record.folder.name}: {_means(record)}", flush=True)
                if scale == "mini" and not data:
                    from stadlib.report import scores  # noqa: PLC0415  (pandas)

                    print(scores.against_reference(record), flush=True)
                if publish:
                    publish_record(record, "choices" if table == "choices" else "")
        for one in seed if table == "4" else ():
            _measure_detectors(scale, one, publish)


def _by_size(rows: list[Experiment], numbers: dict, start: str | None) -> list[Experiment]:
    """Rows on own data with numbers by its size, which are printed, unless others are given."""
    from stadlib.report.own_data import size  # noqa: PLC0415  (torch, pandas)

    found = size(rows[0])
    rows = [_with_numbers(own_data.fitted(row, found), numbers, start) for row in rows]
    print(*own_data.lines(rows[0], found), sep="\n", flush=True)
    return rows


def _with_numbers(row: Experiment, numbers: dict, start: str | None) -> Experiment:
    """A row with other numbers in each stage, and another start of the first."""
    first, *later = (replace(stage, **numbers) for stage in row.stages)
    first = replace(first, start=start or first.start)
    return replace(row, stages=(first, *later))


def _rows(table: str, words: dict, scale: str, seed: int) -> list[Experiment]:
    """The rows of a table that match the words; a word that it does not have is refused."""
    if table == "1":
        usual = {"backbone": "ir-csn-152", "pretrain": "K700", "head": "t-only", "memory": "no"}
        words = usual | words
        frames = "32x2" if words["backbone"] == "ir-csn-152" else "all"
        return list(recipes.table1(scale=scale, seed=seed, **{"frames": frames} | words))
    rows = {"2": recipes.table2, "3": recipes.table3, "4": recipes.table4}
    rows |= {"amounts": recipes.memory_ablation, "uses": recipes.box_uses}
    rows = (rows | {"choices": recipes.choices_compared})[table]
    return list(dict.fromkeys(rows(scale=scale, seed=seed, **words).values()))


def _means(record: study.Record) -> str:
    values = (f"{name} {100 * found['mAP']:.2f}" for name, found in record.metrics.items())
    return "mAP@0.5, %: " + ", ".join(values)


def _measure_detectors(scale: str, seed: int, publish: bool) -> None:
    """Print how good the boxes of Table 4 are, without regard to actions."""
    for version in DETECTORS:
        record = study.detector_record(version, scale, seed)
        values = (f"{name} {100 * found['AP@0.5']:.2f}" for name, found in record.metrics.items())
        print(f"{version}: AP@0.5 of people, %: " + ", ".join(values), flush=True)
        if publish:
            name = f"{version}_{record.scale}_seed{seed}-{record.digest}"
            publish_record(record, "detectors", name)


def pretrain_command(
    *,
    backbone: Annotated[str, "slowfast-152, slowfast-101, ir-csn-152"] = "ir-csn-152",
    pretrain: Literal["K400", "K700"] = "K700",
    frames: Annotated[str | None, "default: 8x8+32x2 of SlowFast, 32x2 of ir-CSN"] = None,
    data: Annotated[Path | None, "Kinetics; default: where the data folder has it"] = None,
    scale: ScaleName = "paper",
    iterations: Annotated[int | None, "instead of the recipe's epochs"] = None,
    seed: Annotated[int, "of weights and order"] = 0,
    processes: ProcessesOption = 0,
    execution: Execution = Execution(save_every=1000),  # noqa: B008
) -> None:
    """Train a backbone to classify Kinetics' clips."""
    numbers = {"iterations": (iterations, 1), "seed": (seed, 0), "processes": (processes, 0)}
    for name, (number, least) in numbers.items():
        if number is not None and number < least:
            raise InputError(f"--{name} {number}: give {least} or more")
    frames = frames or ("8x8+32x2" if backbone.startswith("slowfast") else "32x2")
    words = {"backbone": backbone, "pretrain": pretrain, "frames": frames}
    words |= {"scale": scale, "seed": seed}
    experiment = Experiment(**words)
    rendered = data is None and scale != "paper"
    if rendered and iterations:
        raise InputError(
            "--iterations is for real files; name them with --data, or --scale paper "
            f"(weights of scale {scale} are shared by all rows that need them)"
        )
    from stadlib.training import pretraining  # noqa: PLC0415
    from stadlib.training.processes import group, rank  # noqa: PLC0415

    root = None if rendered else data or base.data_dir() / KINETICS[pretrain][0]
    plan = pretraining.Pretraining(experiment, root, iterations)  # mistakes show at once
    if processes:
        plan.finished()
        words |= {"data": data, "iterations": iterations}
        options = [f"--{name}={word}" for name, word in words.items() if word is not None]
        command = ["pretrain", *options, *execution.words()]
        study.torchrun(command, processes, f"pretrain {backbone}")
        return
    with group():
        record = pretraining.pretrain(plan, Progress, execution)
        if rank() == 0:
            real = scale == "paper"
            print("\n".join(_pretrained(record, plan, KINETICS[pretrain][1] if real else None)))


def _pretrained(record: dict, plan, classes: int | None) -> list[str]:
    """What a pretraining reached; a note if its classes are not as many as they should be."""
    top1, top5 = (f"top-{k} {100 * record[f'top{k}']:.2f} %" for k in (1, 5))
    clips, crops = record["views"]
    videos = f"{record['validation_videos']} videos, {clips} x {crops} views"
    lines = [f"{plan.weights}: {top1}, {top5}, {videos}"]
    if record["unreadable"]:
        lines.append(f"{plan.unreadable}: {record['unreadable']} videos could not be read")
    if classes not in (None, record["classes"]):
        note = f"note: {record['classes']} classes instead of {classes}; "
        lines.append(note + "what is trained on these weights should say so")
    return lines


def watch(
    run: Annotated[str, "a folder, or part of a run's name; default: the newest"] = "",
    *,
    follow: Annotated[float | None, "look every N seconds until its end; alone: 5", 5.0] = None,
) -> None:
    """Show what a run is doing: stage, loss, speed, time left."""
    if follow is not None and not follow > 0:
        raise InputError(f"--follow {follow:g}: give seconds, more than 0")
    from stadlib.report.watch import status  # noqa: PLC0415

    folder = study.find_run(run)
    try:
        while True:
            if follow and sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")
            print("\n".join(status(folder)), flush=True)
            if follow is None or (folder / "record.json").is_file():
                return
            time.sleep(follow)
    except KeyboardInterrupt:  # the run itself is not touched
        print()


def detect(
    *videos: Annotated[Path, "video files; or give --data"],
    data: Annotated[Path | None, "a dataset: all its seconds"] = None,
    source: Annotated[Sequence[str], "of the dataset: ava, kinetics"] = ("ava", "kinetics"),
    split: Annotated[Sequence[str], "of the dataset: train, val, test"] = ("val",),
    detector: DetectorOption = "v3",
    scale: Annotated[ScaleName, "of v1, v2, v3"] = "mini",
    as_: Annotated[str | None, "the dataset's box files get this name"] = None,
    every: Annotated[float, "seconds between frames of a video"] = 1.0,
    out: Annotated[Path | None, "of videos: write the boxes into this CSV"] = None,
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
    from stadlib.training import detector as training  # noqa: PLC0415  (torch)

    if videos:
        files = [(out, training.frames_of_videos(videos, every))]
    else:
        files = training.box_files(data, source, split, as_ or detector)
    model, name = training.open_detector(detector, scale, Progress)
    for path, frames in files:
        training.detect_persons(model, frames, path, name, progress=Progress(f"detect {path.stem}"))
        print(f"{path}: {len(frames)} frames")


def evaluate(
    *,
    groundtruth: Annotated[list[Path], "CSV files in AVA's layout, evaluated jointly"],
    detections: Annotated[list[Path], "CSV files, a score in column 8"],
    labels: LabelsOption = None,
    persons: Annotated[bool, "AP of the boxes, without regard to actions; no --labels"] = False,
    exclude: Annotated[Sequence[Path], "CSV files of video,timestamp"] = (),
    protocol: Protocol = "official",
    iou: Annotated[float, "the least IoU of a match"] = 0.5,
    ties: Annotated[Literal["file", "official"], "order of equal scores"] = "file",
    bootstrap: Annotated[int, "resamples of the videos, for an interval"] = 0,
    compare: Annotated[list[Path] | None, "other detections: a paired difference"] = None,
    diagnose: Annotated[bool, "where AP is lost, by class"] = False,
    tubes: Annotated[int, "video mAP, too; a number leaves out shorter tubes (ACT: 15)", 1] = 0,
    json_: Annotated[Path | None, "write the numbers into this file"] = None,
) -> None:
    """Measure frame mAP and video mAP of prediction files, of any system."""
    if labels is None and not persons:
        raise InputError("--labels is missing: name the label map, or ask for --persons")
    from stadlib.evaluation import files  # noqa: PLC0415  (pandas)

    if persons:
        report = files.measure_persons(groundtruth, detections)
        lines = files.person_lines(report)
    else:
        options = {"exclude": exclude, "compare": compare, "diagnose": diagnose, "ties": ties}
        options |= {"protocol": protocol, "iou": iou, "num_resamples": bootstrap}
        options |= {"shortest_tube": tubes}
        report = files.measure(groundtruth, detections, labels, **options, progress=Progress)
        lines = files.lines(report)
    print("\n".join(lines))
    if json_:
        base.write_whole(json_, json.dumps(report, indent=1) + "\n")


def _list(problems: list[str], name: Path, otherwise: str = "no problem found") -> None:
    """Print problems; end with an error if there are any."""
    if problems:
        print(*problems, sep="\n")
        raise InputError(f"{name}: {len(problems)} problems, listed above")
    print(f"{name}: {otherwise}")


def check(
    folder: Annotated[Path, "of the dataset"],
    *,
    strict: Annotated[bool, "what reading mends (boxes clipped) is a problem, too"] = False,
    out: Annotated[Path | None, "write every problem into this file"] = None,
) -> None:
    """Read a dataset in the official layout and list its problems, the first of each kind."""
    from stadlib.data.check import check_dataset  # noqa: PLC0415  (torch)

    notes: list[str] = []
    problems = check_dataset(folder, Progress("check"), math.inf if out else 3, notes)
    if strict:
        problems += notes
    else:
        print(*notes, sep="\n", end="\n" * bool(notes))
    if out and problems:
        base.write_whole(out, "".join(f"{line}\n" for line in problems))
        raise InputError(f"{folder}: {len(problems)} problems, listed in {out}")
    _list(problems, folder)


def classes(
    file: Annotated[Path, "annotations in AVA's layout"],
    *,
    labels: Annotated[Path | None, "label map (.pbtxt); default: AVA's 60"] = None,
    out: Annotated[Path | None, "draw it into this PNG"] = None,
) -> None:
    """Count how often an annotation file has which action."""
    from stadlib.report import figures, runs  # noqa: PLC0415  (matplotlib)

    table = runs.class_statistics(file, labels)
    print(table.round(4).to_string())
    if out:
        base.write_whole(out, figures.class_frequencies(table).png())
        print(f"{out}: written")


def import_command(
    tool: Literal["cvat", "via", "coco-video"],
    source: Annotated[Path, "its file, or a folder of files"],
    *,
    out: Annotated[Path, "a new folder"],
    videos: Annotated[Path | None, "their folder; default: that of each file"] = None,
    val: Annotated[Sequence[str], "videos for validation; default: every fifth"] = (),
    actions: Annotated[Sequence[str], "attributes that hold actions; label: the label does"] = (),
    copy: Annotated[bool, "the videos, instead of linking them"] = False,
) -> None:
    """Turn the files of an annotation tool into a dataset."""
    from stadlib.data import annotation_tools  # noqa: PLC0415  (pandas)

    options = {"videos": videos, "val": val, "actions": actions, "copy": copy}
    print(*annotation_tools.import_annotations(tool, source, out, **options), sep="\n")


def export(
    predictions: Annotated[Path, "a folder of stadlib predict"],
    video: Annotated[Path, "that they are of"],
    *,
    out: Annotated[Path, "an .xml file; the task's labels are written beside it"],
) -> None:
    """Write predictions as a file for CVAT, to correct them by hand."""
    from stadlib.video.sightings import write_cvat  # noqa: PLC0415  (pandas)

    print(f"{out}: {write_cvat(predictions, video, out)} people; for tasks: {out.stem}.labels.json")


def weights(
    name: Annotated[str | None, "of the list; it is downloaded unless it is there"] = None,
) -> None:
    """List public weights of backbones and of whole detectors, or get one."""
    from stadlib.models import published  # noqa: PLC0415

    if name is None:
        print("\n".join(published.table()))
        return
    row = published.find(name)
    print("\n".join(published.fetch(row, Progress(f"download {row.name}")).lines()))


def prepare(
    dataset: Literal["ava-kinetics", "ucf101-24", "jhmdb-21", "multisports"],
    *,
    root: Annotated[Path | None, "of what was fetched; default: below the data folder"] = None,
    out: Annotated[Path | None, "new folder, not of ava-kinetics; default: ROOT/dataset"] = None,
    every: Annotated[int, "frames from a keyframe to the next, not of ava-kinetics"] = 1,
    fold: Annotated[int, "which of the published splits, not of ava-kinetics"] = 1,
    checksums: Annotated[bool, "SHA-256 into the manifest; once all are there: compare"] = False,
    reencode: Annotated[Path | None, "write small videos, AVA's cut, into this folder"] = None,
    workers: Annotated[int, "processes; default: one a core"] = 0,
) -> None:
    """Say what of a published dataset is missing; write those of tubes in the official layout."""
    root = root or base.data_dir() / dataset
    if dataset != "ava-kinetics":
        if checksums or reencode:
            raise InputError(f"--checksums and --reencode are of ava-kinetics, not of {dataset}")
        _prepare_tubes(dataset, root, out or root / "dataset", every, fold)
        return
    if workers < 0:
        raise InputError(f"--workers {workers}: give 0 or more")
    from stadlib.data import prepare as steps  # noqa: PLC0415
    from stadlib.data.layout import AvaLayout  # noqa: PLC0415

    layout = AvaLayout(root)
    problems = [*steps.missing_files(layout), *steps.missing_videos(layout)]
    if problems:
        print("\n".join(["published at:", *steps.what_to_fetch(layout)]))
    if not layout.root.is_dir():
        raise InputError(f"{layout.root}: no such folder; create it and fetch the above into it")
    problems += steps.update_manifest(layout, Progress("manifest"), checksums)
    if reencode:
        problems += steps.reencode(layout, reencode, Progress("re-encode"), workers=workers)
    else:
        problems += steps.unusable_names(layout)
    problems = list(dict.fromkeys(problems))  # an unreadable video is found twice
    _list(problems, layout.root, f"complete; now stadlib check {reencode or layout.root}")


def _prepare_tubes(dataset: str, root: Path, out: Path, every: int, fold: int) -> None:
    if every < 1:
        raise InputError(f"--every {every}: give 1 or more")
    from stadlib.data import tubes  # noqa: PLC0415  (pandas)

    options = {"every": every, "fold": fold, "progress": Progress("prepare")}
    try:
        lines = tubes.prepare(dataset, root, out, **options)
    except InputError:
        print("published at:", tubes.DATASETS[dataset].fetch, sep="\n")
        raise
    print(*lines, f"now stadlib check {out}", sep="\n")


def ensemble(
    *members: Annotated[Path, "prediction files"],
    out: Annotated[Path | None, "the mean, a CSV"] = None,
    table1: Annotated[bool, "instead: the members of Table 1's ensemble that were run"] = False,
    backbone: Table1Option = "all",
    pretrain: Table1Option = "all",
    frames: Table1Option = "all",
    head: Table1Option = "all",
    memory: Table1Option = "all",
    seed: Annotated[int, "of Table 1's runs"] = 0,
    scale: ScaleName = "mini",
    split: Split = "val",
    publish: PublishOption = False,
) -> None:
    """Average prediction files of the same boxes."""
    if not table1:
        if not members or out is None:
            raise InputError("ensemble: give prediction files and --out, or --table1")
        from stadlib.evaluation import ensembles  # noqa: PLC0415  (polars)

        boxes, rows = ensembles.average(members, out)
        print(f"{out}: {len(members)} members, {boxes} boxes, {rows} rows")
        return
    words = {"backbone": backbone, "pretrain": pretrain, "frames": frames, "head": head}
    wanted = recipes.ensemble1(scale=scale, seed=seed, memory=memory, **words)
    runs = [row for row in wanted if study.find(row)]
    for absent in (row for row in wanted if row not in runs):
        print(f"not run, left out: {absent.name}")
    if len(runs) < 2:
        raise InputError(f"{base.runs_dir()}: {len(runs)} of Table 1's rows were run; train more")
    _tell(study.ensemble(runs, split), "ensembles", split, publish)
    if publish and split == "val":
        for row in runs:
            publish_record(study.find(row), "ensembles/members")


def score(
    run: Annotated[str, "a folder, or part of a run's name"],
    *,
    split: Split = "test",
    publish: PublishOption = False,
) -> None:
    """Score another split with a finished run's model."""
    from stadlib.training.processes import group, rank  # noqa: PLC0415

    folder = study.find_run(run)
    if not (folder / "record.json").is_file():
        raise InputError(f"{folder}: not finished; run its stadlib train again")
    with group():
        record = study.score_split(study.read_record(folder / "record.json"), split)
        if rank() == 0:
            _tell(record, "", split, publish)


def _tell(record: study.Record | None, kind: str, split: str, publish: bool) -> None:
    """Print what was measured on a split, and publish it if wished."""
    if record is None:
        print(f"the {split} split has no annotations: its prediction files are written")
        return
    print(f"{record.folder.name}, {split}: {_means(record)}")
    if publish:
        publish_record(record, "test" if split == "test" else kind)


def submit(
    *,
    detections: Annotated[list[Path] | None, "AVA's and Kinetics' prediction files"] = None,
    labels: LabelsOption = None,
    out: Annotated[Path | None, "the submission file, a CSV"] = None,
    check: Annotated[Path | None, "list every problem of this file"] = None,
    data: Annotated[Path | None, "to check: the dataset"] = None,
    split: Annotated[Literal["train", "val", "test"], "to check"] = "test",
) -> None:
    """Write or check the challenge's submission file."""
    if bool(detections) == bool(check):
        raise InputError("submit: give --detections to write a file, or --check to check one")
    from stadlib.evaluation import submission  # noqa: PLC0415  (pandas)

    if detections:
        if labels is None or out is None:
            raise InputError("--labels is missing, or --out: --detections needs both")
        written = submission.write_submission(detections, labels, out)
        print(
            f"{out}: {written.rows} rows of {written.images} images, {written.size / 1e6:.1f} MB; "
            f"{written.beyond} rows do not count, {written.parted} equal scores moved apart"
        )
        return
    if data is None:
        raise InputError("--data is missing: name the dataset whose keyframes the file is of")
    from stadlib.data.layout import AvaLayout  # noqa: PLC0415

    layout = AvaLayout(data)
    keyframes = submission.split_keyframes(layout, split)
    problems, notes = submission.validate_submission(check, keyframes, layout.label_map())
    print(*notes, sep="\n")
    _list(problems, check)


def predict_command(
    video: Annotated[str, "a file; default: a drawn movie"] = "miniature",
    *,
    out: Annotated[Path | None, "of the results; default: results/predictions/..."] = None,
    weights: Annotated[str, "a run, its folder or part of its name; or of the list"] = "default",
    detector: DetectorOption = "default",
    every: Annotated[float, "seconds between two scored moments"] = 1.0,
    scale: Annotated[str, "of the miniature model: smoke, mini"] = "mini",
) -> None:
    """Show who does what in a video."""
    from stadlib.video import predict  # noqa: PLC0415  (torch, matplotlib, IPython)

    options = {"out": out, "weights": weights, "detector": detector, "every": every}
    prediction = predict.predict(video, **options, scale=scale)
    table = prediction.persons()
    print(table.head(20).to_string() if len(table) else "no person found")
    for path in sorted(prediction.folder.iterdir()):
        print(path)
    if prediction.warning:
        print(f"*** {prediction.warning} ***")


def readme(*, root: Annotated[Path | None, "a checkout; default: this one"] = None) -> None:
    """Write results/ into the tables of the README and of the pages beside it."""
    from stadlib.report.readme import update  # noqa: PLC0415  (pandas)

    for path in update(root or base.published_dir("paper").parents[1]):
        print(path)


def report(*, out: Annotated[Path, "a new folder"]) -> None:
    """Write the committed notebooks and the ledger of claims as web pages."""
    from stadlib.report.pages import write_pages  # noqa: PLC0415  (nbconvert)

    pages = write_pages(out)
    print(f"{pages[0]}: open it in a browser; {len(pages)} pages")


COMMANDS: tuple[Callable[..., None], ...] = (
    *(train, detect, evaluate, check, classes, weights, prepare, ensemble, score, submit, watch),
    *(predict_command, pretrain_command, import_command, export, readme, report),
)

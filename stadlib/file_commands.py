"""The commands that work on files, whoever made them: detect, evaluate, check, classes, weights."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from stadlib import class_statistics, detection_files
from stadlib.config import InputError, check_word
from stadlib.paths import write_whole
from stadlib.progress import Progress
from stadlib.scales import SCALES
from stadlib.weights import sources


def add(commands: argparse._SubParsersAction) -> None:
    """Add them to the command line."""
    _add_detect(commands)
    _add_evaluate(commands)

    check = commands.add_parser("check", help="read a dataset and list every problem")
    check.add_argument("folder", type=Path, help="a dataset in the official layout")
    check.set_defaults(command=_check)

    classes = commands.add_parser("classes", help="how often an annotation file has which action")
    classes.add_argument("file", type=Path, help="annotations in AVA's layout")
    classes.add_argument("--labels", type=Path, help="label map (.pbtxt); default: AVA's 60")
    classes.add_argument("--out", type=Path, metavar="PNG", help="draw it into this file")
    classes.set_defaults(command=_classes)

    weights = commands.add_parser("weights", help="public backbone weights: list them, or get one")
    weights.add_argument("name", nargs="?", help="of the list; downloaded unless it is there")
    weights.set_defaults(command=_weights)


def _add_detect(commands: argparse._SubParsersAction) -> None:
    detect = commands.add_parser("detect", help="find the persons in videos or in a dataset")
    detect.add_argument("videos", type=Path, nargs="*", help="video files; or give --data")
    detect.add_argument("--data", type=Path, metavar="DIR", help="a dataset: all its seconds")
    detect.add_argument("--source", nargs="+", default=["ava", "kinetics"], help="of the dataset")
    detect.add_argument("--split", nargs="+", default=["val"], help="train, val, test")
    detect.add_argument(
        "--detector", default="v3", help="v1, v2, v3; torchvision:NAME; or a FILE.pt of weights"
    )
    detect.add_argument("--scale", default="mini", help="of v1, v2, v3: " + ", ".join(SCALES))
    detect.add_argument("--as", dest="called", help="the dataset's box files get this name")
    detect.add_argument(
        "--every", type=float, default=1.0, help="seconds between frames of a video"
    )
    detect.add_argument("--out", type=Path, metavar="CSV", help="of videos: write the boxes there")
    detect.set_defaults(command=_detect)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser("evaluate", help="frame mAP of detection files")
    for name, text in (
        ("groundtruth", "CSV files in AVA's layout, evaluated jointly"),
        ("detections", "CSV files, a score in column 8"),
    ):
        evaluate.add_argument(f"--{name}", type=Path, nargs="+", required=True, help=text)
    evaluate.add_argument("--labels", type=Path, help="label map (.pbtxt) of the actions")
    evaluate.add_argument(
        "--persons", action="store_true", help="AP of the boxes, whatever the actions; no --labels"
    )
    evaluate.add_argument("--exclude", type=Path, nargs="+", default=[], help="video,timestamp")
    evaluate.add_argument(
        "--protocol", default="official", help="official, acar, slowfast, mmaction2"
    )
    evaluate.add_argument("--iou", type=float, default=0.5, help="the least IoU of a match")
    evaluate.add_argument(
        "--ties", default="file", help="order of equal scores: file, or official (by its sort)"
    )
    evaluate.add_argument("--bootstrap", type=int, default=0, metavar="N", help="resamples")
    evaluate.add_argument("--compare", type=Path, nargs="+", help="other detections: a difference")
    evaluate.add_argument("--diagnose", action="store_true", help="where AP is lost, by class")
    evaluate.add_argument("--json", type=Path, metavar="OUT.json", help="write the numbers there")
    evaluate.set_defaults(command=_evaluate)


def _detect(options: argparse.Namespace) -> None:
    if bool(options.videos) == bool(options.data):
        raise InputError("detect: give either video files or --data DIR")
    if options.videos and not options.out:
        raise InputError("--out is missing: name the CSV file for the boxes of these videos")
    if options.out and options.out.suffix.lower() != ".csv":
        raise InputError(f"--out {options.out}: person boxes are written as .csv; rename it")
    check_word("scale", options.scale, tuple(SCALES))
    if not 0 < options.every < math.inf:
        raise InputError(f"--every {options.every:g}: give seconds, more than 0")
    from stadlib import detectors  # noqa: PLC0415  (torch)

    if options.videos:
        files = detectors.of_videos(options.videos, options.every, options.out)
    else:
        files = detectors.of_dataset(
            options.data, options.source, options.split, options.called or options.detector
        )
    model, name = detectors.open_detector(options.detector, options.scale, Progress)
    for path, frames in files:
        detectors.detect(model, frames, path, name, progress=Progress(f"detect {path.stem}"))
        print(f"{path}: {len(frames)} frames")


def _evaluate(options: argparse.Namespace) -> None:
    report, lines = _measured(options)
    for line in lines:
        print(line)
    if options.json:
        write_whole(options.json, json.dumps(report, indent=1) + "\n")


def _measured(options: argparse.Namespace) -> tuple[dict, list[str]]:
    if options.persons:
        report = detection_files.measure_persons(options.groundtruth, options.detections)
        return report, detection_files.person_lines(report)
    if options.labels is None:
        raise InputError("--labels is missing: name the label map, or ask for --persons")
    report = detection_files.measure(
        options.groundtruth,
        options.detections,
        options.labels,
        exclude=options.exclude,
        compare=options.compare,
        protocol=options.protocol,
        iou=options.iou,
        ties=options.ties,
        num_resamples=options.bootstrap,
        diagnose=options.diagnose,
        progress=Progress,
    )
    return report, detection_files.lines(report)


def _check(options: argparse.Namespace) -> None:
    from stadlib.data.check import check_dataset  # noqa: PLC0415  (torch)

    problems = check_dataset(options.folder, Progress("check"))
    for problem in problems:
        print(problem)
    if problems:
        raise InputError(f"{options.folder}: {len(problems)} problems, listed above")
    print(f"{options.folder}: no problem found")


def _classes(options: argparse.Namespace) -> None:
    from stadlib import plots  # noqa: PLC0415  (matplotlib)

    table = class_statistics.class_statistics(options.file, options.labels)
    print(table.round(4).to_string())
    if options.out:
        write_whole(options.out, plots.class_frequencies(table).png())
        print(f"{options.out}: written")


def _weights(options: argparse.Namespace) -> None:
    if options.name is None:
        print("\n".join(sources.table()))
        return
    row = sources.source(options.name)  # before torch is imported: the word may be wrong
    from stadlib.weights.download import fetch  # noqa: PLC0415  (torch)

    report = fetch(row, Progress(f"download {row.name}"))
    print("\n".join(report.lines()))

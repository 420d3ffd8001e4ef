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
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from stadlib import base, evaluation, report, run_commands
from stadlib import data as datasets
from stadlib import video as own_video
from stadlib.base import ConfigError, InputError, Progress, check_word

# Words and options of several commands.
# As in evaluation.matching.
Protocol = Literal["official", "acar", "slowfast", "mmaction2", "multisports"]
LabelsOption = Annotated[Path | None, "label map (.pbtxt) of the evaluated actions"]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the command, return the exit status."""
    try:
        parse(COMMANDS, arguments)()
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
        raise ConfigError(f"{message}; see {self.prog} --help")


def parse(commands: Sequence[Callable[..., None]], arguments: list[str] | None = None) -> partial:
    """The command that a command line names, with its options; call it to run it."""
    parser = _Parser(prog="stadlib", description="Every command of the study.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in commands:
        name, text = command.__name__.removesuffix("_command"), command.__doc__
        subparser = subparsers.add_parser(name, help=text, description=text)
        options = inspect.signature(command, eval_str=True).parameters.values()
        subparser.set_defaults(command=command, options=options)
        for option in options:
            _add(subparser, option)
    values = vars(parser.parse_args(arguments))
    command, options, positional = values.pop("command"), values.pop("options"), []
    for option in options:
        kind, _ = _read(option.annotation)
        if option.kind is option.VAR_POSITIONAL:
            positional = values.pop(option.name)
        elif is_dataclass(kind):
            values[option.name] = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        elif get_origin(kind) is Literal:
            check_word(option.name, values[option.name], get_args(kind))
    return partial(command, *positional, **values)


def _read(annotation: object) -> tuple[object, list[str]]:
    """The type of an annotation and its help, if it has one."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    kind, *texts = get_args(annotation)
    return kind, texts


def _add(parser: argparse.ArgumentParser, option: inspect.Parameter) -> None:
    """Give a parser the option that a command's parameter stands for."""
    kind, texts = _read(option.annotation)
    if is_dataclass(kind):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            default = getattr(option.default, name)
            _add(parser, option.replace(name=name, default=default, annotation=hint))
        return
    name, needed, settings = option.name.rstrip("_"), option.default is option.empty, {}
    if get_origin(kind) is Literal:
        texts.append(", ".join(map(str, get_args(kind))))
        kind = str
    if NoneType in get_args(kind):
        kind = get_args(kind)[0]
    if get_origin(kind) in (list, Sequence):
        kind = get_args(kind)[0]
        settings["nargs"] = "+"
    if texts and not isinstance(texts[-1], str):  # what an option means that stands alone
        settings |= {"nargs": "?", "const": texts.pop()}
    settings["help"] = ": ".join(texts).replace("%", "%%")
    if kind is bool:
        settings["action"] = "store_true"
    else:
        settings |= {"type": kind, "metavar": "PATH" if kind is Path else name.upper()}
    if not needed:
        settings["default"] = option.default
    if option.kind is option.KEYWORD_ONLY:
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, dest=option.name, required=needed, **settings)
    elif option.kind is option.VAR_POSITIONAL:
        parser.add_argument(option.name, nargs="*", **settings)
    else:
        parser.add_argument(option.name, **settings if needed else settings | {"nargs": "?"})


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
    if persons:
        report = evaluation.files.measure_persons(groundtruth, detections)
        lines = evaluation.files.person_lines(report)
    else:
        options = {"exclude": exclude, "compare": compare, "diagnose": diagnose, "ties": ties}
        options |= {"protocol": protocol, "iou": iou, "num_resamples": bootstrap}
        options |= {"shortest_tube": tubes, "progress": Progress}
        report = evaluation.files.measure(groundtruth, detections, labels, **options)
        lines = evaluation.files.lines(report)
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
    notes, most = [], math.inf if out else 3
    problems = datasets.check.check_dataset(folder, Progress("check"), most, notes)
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
    table = report.runs.class_statistics(file, labels)
    print(table.round(4).to_string())
    if out:
        base.write_whole(out, report.figures.class_frequencies(table).png())
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
    options = {"videos": videos, "val": val, "actions": actions, "copy": copy}
    print(*datasets.annotation_tools.import_annotations(tool, source, out, **options), sep="\n")


def export(
    predictions: Annotated[Path, "a folder of stadlib predict"],
    video: Annotated[Path, "that they are of"],
    *,
    out: Annotated[Path, "an .xml file; the task's labels are written beside it"],
) -> None:
    """Write predictions as a file for CVAT, to correct them by hand."""
    people = own_video.sightings.write_cvat(predictions, video, out)
    print(f"{out}: {people} people; for tasks: {out.stem}.labels.json")


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
        if every < 1:
            raise InputError(f"--every {every}: give 1 or more")
        out, steps = out or root / "dataset", datasets.prepare
        options = {"every": every, "fold": fold, "progress": Progress("prepare")}
        try:
            lines = steps.prepare_tubes(dataset, root, out, **options)
        except InputError:
            print("published at:", steps.what_to_fetch(dataset, root), sep="\n")
            raise
        print(*lines, f"now stadlib check {out}", sep="\n")
        return
    if workers < 0:
        raise InputError(f"--workers {workers}: give 0 or more")
    layout, steps = datasets.layout.AvaLayout(root), datasets.prepare
    problems = [*steps.missing_files(layout), *steps.missing_videos(layout)]
    if problems:
        print("published at:", steps.what_to_fetch(dataset, root), sep="\n")
    if not layout.root.is_dir():
        raise InputError(f"{layout.root}: no such folder; create it and fetch the above into it")
    problems += steps.update_manifest(layout, Progress("manifest"), checksums)
    if reencode:
        problems += steps.reencode(layout, reencode, Progress("re-encode"), workers=workers)
    else:
        problems += steps.unusable_names(layout)
    problems = list(dict.fromkeys(problems))  # an unreadable video is found twice
    _list(problems, layout.root, f"complete; now stadlib check {reencode or layout.root}")


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
    if detections:
        if labels is None or out is None:
            raise InputError("--labels is missing, or --out: --detections needs both")
        written = evaluation.submission.write_submission(detections, labels, out)
        print(
            f"{out}: {written.rows} rows of {written.images} images, {written.size / 1e6:.1f} MB; "
            f"{written.beyond} rows do not count, {written.parted} equal scores moved apart"
        )
        return
    if data is None:
        raise InputError("--data is missing: name the dataset whose keyframes the file is of")
    layout, rules = datasets.layout.AvaLayout(data), evaluation.submission
    keyframes = rules.split_keyframes(layout, split)
    problems, notes = rules.validate_submission(check, keyframes, layout.label_map())
    print(*notes, sep="\n")
    _list(problems, check)


def predict_command(
    video: Annotated[str, "a file; default: a drawn movie"] = "miniature",
    *,
    out: Annotated[Path | None, "of the results; default: results/predictions/..."] = None,
    weights: Annotated[str, "a run, its folder or part of its name; or of the list"] = "default",
    detector: run_commands.AnyDetectorOption = "default",
    every: Annotated[float, "seconds between two scored moments"] = 1.0,
    scale: Annotated[str, "of the miniature model: smoke, mini"] = "mini",
) -> None:
    """Show who does what in a video."""
    options = {"out": out, "weights": weights, "detector": detector, "every": every}
    prediction = own_video.predict.predict(video, **options, scale=scale)
    table = prediction.persons()
    print(table.head(20).to_string() if len(table) else "no person found")
    for path in sorted(prediction.folder.iterdir()):
        print(path)
    if prediction.warning:
        print(f"*** {prediction.warning} ***")


def readme(*, root: Annotated[Path | None, "a checkout; default: this one"] = None) -> None:
    """Write results/ into the tables of the README and of the pages beside it."""
    for path in report.publish.update(root or base.published_dir("paper").parents[1]):
        print(path)


def report_command(*, out: Annotated[Path, "a new folder"]) -> None:
    """Write the committed notebooks and the ledger of claims as web pages."""
    pages = report.publish.write_pages(out)
    print(f"{pages[0]}: open it in a browser; {len(pages)} pages")


COMMANDS: tuple[Callable[..., None], ...] = (
    *run_commands.COMMANDS, evaluate, check, classes, weights, prepare, submit,
    predict_command, import_command, export, readme, report_command,
)  # fmt: skip

"""The commands that work on files, whoever made them: detect, evaluate, check, classes, weights.

The command for somebody's own video: predict.

The commands that show what results/ holds: readme, report.

The command that trains a backbone to classify Kinetics: ``stadlib pretrain``.

The commands around the challenge and its long runs: prepare, ensemble, submit, watch.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stadlib import recipes, study
from stadlib.base import (
    InputError,
    Progress,
    check_word,
    data_dir,
    published_dir,
    runs_dir,
    write_whole,
)
from stadlib.cli import watch
from stadlib.data import prepare
from stadlib.data.layout import SPLITS, AvaLayout
from stadlib.evaluation import ensembles, files, submission
from stadlib.models import published
from stadlib.recipes.experiment import Execution, Experiment
from stadlib.recipes.scales import SCALES
from stadlib.report import runs
from stadlib.study import Record, publish, read_record

if TYPE_CHECKING:
    from stadlib.training.pretraining import Pretraining


def add_file_commands(commands: argparse._SubParsersAction) -> None:
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
    from stadlib.training import detector  # noqa: PLC0415  (torch)

    if options.videos:
        files = detector.of_videos(options.videos, options.every, options.out)
    else:
        files = detector.of_dataset(
            options.data, options.source, options.split, options.called or options.detector
        )
    model, name = detector.open_detector(options.detector, options.scale, Progress)
    for path, frames in files:
        detector.detect(model, frames, path, name, progress=Progress(f"detect {path.stem}"))
        print(f"{path}: {len(frames)} frames")


def _evaluate(options: argparse.Namespace) -> None:
    report, lines = _measured(options)
    for line in lines:
        print(line)
    if options.json:
        write_whole(options.json, json.dumps(report, indent=1) + "\n")


def _measured(options: argparse.Namespace) -> tuple[dict, list[str]]:
    if options.persons:
        report = files.measure_persons(options.groundtruth, options.detections)
        return report, files.person_lines(report)
    if options.labels is None:
        raise InputError("--labels is missing: name the label map, or ask for --persons")
    report = files.measure(
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
    return report, files.lines(report)


def _check(options: argparse.Namespace) -> None:
    from stadlib.data.check import check_dataset  # noqa: PLC0415  (torch)

    problems = check_dataset(options.folder, Progress("check"))
    for problem in problems:
        print(problem)
    if problems:
        raise InputError(f"{options.folder}: {len(problems)} problems, listed above")
    print(f"{options.folder}: no problem found")


def _classes(options: argparse.Namespace) -> None:
    from stadlib.report import figures  # noqa: PLC0415  (matplotlib)

    table = runs.class_statistics(options.file, options.labels)
    print(table.round(4).to_string())
    if options.out:
        write_whole(options.out, figures.class_frequencies(table).png())
        print(f"{options.out}: written")


def _weights(options: argparse.Namespace) -> None:
    if options.name is None:
        print("\n".join(published.table()))
        return
    row = published.source(options.name)  # before torch is imported: the word may be wrong
    from stadlib.models.published import fetch  # noqa: PLC0415  (torch)

    report = fetch(row, Progress(f"download {row.name}"))
    print("\n".join(report.lines()))


def add_video_commands(commands: argparse._SubParsersAction) -> None:
    """Add it to the command line."""
    parser = commands.add_parser("predict", help="who does what in a video: watch and draw it")
    parser.add_argument(
        "video", nargs="?", default="miniature", help="a file; default: a drawn movie"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for the results; default: results/predictions/..."
    )
    parser.add_argument(
        "--weights",
        default="miniature",
        metavar="RUN",
        help="a run's folder, its name or part of it; default: the miniature t-only row",
    )
    parser.add_argument(
        "--detector", default="v3", help="v1, v2, v3 of the run's scale; torchvision:NAME; FILE.pt"
    )
    parser.add_argument("--every", type=float, default=1.0, help="seconds between scored ones")
    parser.add_argument("--scale", default="mini", help="of the miniature model: smoke, mini")
    parser.set_defaults(command=_predict)


def _predict(options: argparse.Namespace) -> None:
    from stadlib.video import predict  # noqa: PLC0415  (matplotlib, IPython)

    found = predict.predict(
        options.video,
        out=options.out,
        weights=options.weights,
        detector=options.detector,
        every=options.every,
        scale=options.scale,
    )
    table = found.persons()
    print(table.head(20).to_string() if len(table) else "nobody found")
    for path in sorted(found.folder.iterdir()):
        print(path)
    if found.warning:
        print(f"*** {found.warning} ***")


def add_report_commands(commands: argparse._SubParsersAction) -> None:
    """Add them to the command line."""
    readme = commands.add_parser(
        "readme", help="write results/ into the README's tables, claims.csv and pipeline.svg"
    )
    readme.add_argument(
        "--path", type=Path, default=published_dir("paper").parents[1] / "README.md"
    )
    readme.set_defaults(command=_readme)

    report = commands.add_parser("report", help="the committed notebooks and claims as web pages")
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    report.set_defaults(command=_report)


def _readme(options: argparse.Namespace) -> None:
    from stadlib.report import claims, pipeline, table1  # noqa: PLC0415  (pandas)

    table1.update_readme(options.path)
    claims.update(options.path)
    pipeline.update()


def _report(options: argparse.Namespace) -> None:
    from stadlib.cli import site  # noqa: PLC0415  (nbconvert)

    written = site.build(options.out)
    print(f"{written[0]}: open it in a browser; {len(written)} pages")


FOLDERS = {"K400": "kinetics-400", "K700": "kinetics-700"}
CLASSES = {"K400": 400, "K700": 700}
FRAMES = {"slowfast": "8x8+32x2", "ir": "32x2"}  # by a backbone's family


def add_pretrain_command(commands: argparse._SubParsersAction) -> None:
    """Add it to the command line."""
    pretrain = commands.add_parser("pretrain", help="train a backbone to classify Kinetics' clips")
    pretrain.add_argument(
        "--backbone", default="ir-csn-152", help="slowfast-152, slowfast-101, ir-csn-152"
    )
    pretrain.add_argument("--pretrain", default="K700", help="K400, K700")
    pretrain.add_argument("--frames", help="default: 8x8+32x2 of SlowFast, 32x2 of ir-CSN")
    pretrain.add_argument(
        "--data", type=Path, metavar="DIR", help="Kinetics; default: where the data folder has it"
    )
    pretrain.add_argument("--scale", default="paper", help=", ".join(SCALES))
    pretrain.add_argument("--iterations", type=int, help="instead of the recipe's epochs")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--processes", type=int, default=0, help="started with torchrun")
    pretrain.add_argument(
        "--accumulate", type=int, default=1, help="take a process's part of a batch in N turns"
    )
    pretrain.add_argument("--precision", default="auto", help="auto, float32, bfloat16")
    pretrain.add_argument(
        "--save-every", type=int, default=1_000, help="iterations between checkpoints"
    )
    pretrain.set_defaults(command=_pretrain)


def _pretrain(options: argparse.Namespace) -> None:
    experiment, execution = _experiment(options), _execution(options)
    from stadlib.training import processes  # noqa: PLC0415  (torch, only after the words were checked)

    rendered = options.data is None and options.scale != "paper"
    if rendered and (options.iterations or options.seed):
        raise InputError(
            f"--iterations and --seed are for real files; name them with --data, or --scale paper "
            f"(weights of scale {options.scale} are shared by all rows that need them)"
        )
    if options.processes:
        if not rendered:  # a mistake shows at once, in one line
            _plan(experiment, options).finished()
        _torchrun(options)
        return
    with processes.group():
        lines = _rendered(experiment) if rendered else _real(experiment, options, execution)
        if processes.rank() == 0:
            print("\n".join(lines), flush=True)


def _experiment(options: argparse.Namespace) -> Experiment:
    """The words as an experiment, which checks them; its head and stages mean nothing here."""
    check_word("pretrain", options.pretrain, tuple(FOLDERS))
    check_word("scale", options.scale, tuple(SCALES))
    frames = options.frames or FRAMES.get(options.backbone.split("-")[0], "32x2")
    for name, least in (("iterations", 1), ("seed", 0), ("processes", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: give {least} or more")
    return Experiment(
        backbone=options.backbone,
        pretrain=options.pretrain,
        frames=frames,
        scale=options.scale,
        seed=options.seed,
    )


def _execution(options: argparse.Namespace) -> Execution:
    names = ("accumulate", "precision", "save_every")
    return Execution(**{name: getattr(options, name) for name in names})


def _plan(experiment: Experiment, options: argparse.Namespace) -> Pretraining:
    from stadlib.training.pretraining import open_pretraining  # noqa: PLC0415  (torch)

    root = options.data or data_dir() / FOLDERS[options.pretrain]
    return open_pretraining(experiment, root, options.iterations)


def _real(experiment: Experiment, options: argparse.Namespace, execution: Execution) -> list[str]:
    from stadlib.training.pretraining import pretrain  # noqa: PLC0415  (torch)

    plan = _plan(experiment, options)
    record = pretrain(plan, Progress, execution)
    lines = [
        f"{plan.weights}: top-1 {100 * record['top1']:.2f} %, top-5 {100 * record['top5']:.2f} %, "
        f"{record['validation_videos']} videos, {record['views'][0]} x {record['views'][1]} views"
    ]
    if record["unreadable"]:
        lines.append(f"{plan.unreadable}: {record['unreadable']} videos could not be read")
    if options.scale == "paper" and record["classes"] != CLASSES[options.pretrain]:
        lines.append(
            f"note: {record['classes']} classes, but {options.pretrain} has "
            f"{CLASSES[options.pretrain]}; what is trained on these weights should say so"
        )
    return lines


def _rendered(experiment: Experiment) -> list[str]:
    """What rows of a miniature scale do by themselves."""
    from stadlib.training import pretraining  # noqa: PLC0415  (torch)

    pretraining.pretrained_backbone(experiment, Progress)
    folder = pretraining.pretrained_folder(experiment)
    accuracy = json.loads((folder / "accuracy.json").read_text())
    return [
        f"{folder}: top-1 {100 * accuracy['top1']:.2f} % of {accuracy['classes']} classes "
        "of the rendered set"
    ]


def _torchrun(options: argparse.Namespace) -> None:
    """The same command on several processes of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={options.processes}", "-m", "stadlib", "pretrain"]
    names = ("backbone", "pretrain", "frames", "data", "scale", "iterations", "seed")
    names += ("accumulate", "precision", "save_every")
    for name in names:
        if (value := getattr(options, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"pretrain {options.backbone}: torchrun failed; its messages stand above")


def add_challenge_commands(commands: argparse._SubParsersAction) -> None:
    """Add them to the command line."""
    _add_prepare(commands)

    ensemble = commands.add_parser("ensemble", help="average detection files of the same boxes")
    ensemble.add_argument("members", type=Path, nargs="*", help="detection files")
    ensemble.add_argument("--out", type=Path, metavar="CSV", help="the mean")
    ensemble.add_argument(
        "--table1",
        action="store_true",
        help="instead: those of Table 1's runs that were run",
    )
    for word in (*recipes.WORDS, "memory"):
        ensemble.add_argument(f"--{word}", default="all", help="of Table 1's runs; default: all")
    ensemble.add_argument("--seed", type=int, default=0, help="of Table 1's runs")
    ensemble.add_argument("--scale", default="mini", help="of Table 1's runs")
    ensemble.add_argument("--split", default="val", help="of Table 1's runs: val, test")
    ensemble.add_argument("--publish", action="store_true", help="copy to results/reference")
    ensemble.set_defaults(command=_ensemble)

    score = commands.add_parser("score", help="another split with a finished run's model")
    score.add_argument("run", help="a folder, or part of a run's name")
    score.add_argument("--split", default="test", help="val, test")
    score.add_argument("--publish", action="store_true", help="copy to results/reference")
    score.set_defaults(command=_score)

    submit = commands.add_parser("submit", help="write or check the challenge's submission file")
    submit.add_argument("--detections", type=Path, nargs="+", help="AVA's and Kinetics' files")
    submit.add_argument("--labels", type=Path, help="label map (.pbtxt) of the evaluated actions")
    submit.add_argument("--out", type=Path, metavar="CSV", help="the submission file")
    submit.add_argument("--check", type=Path, metavar="CSV", help="list every problem of this one")
    submit.add_argument("--data", type=Path, metavar="DIR", help="to check: the dataset")
    submit.add_argument("--split", default="test", help="to check: val, test")
    submit.set_defaults(command=_submit)

    follow = commands.add_parser("watch", help="what a run is doing")
    follow.add_argument("run", nargs="?", default="", help="a folder, or part of a run's name")
    follow.add_argument(
        "--follow", type=float, nargs="?", const=5.0, metavar="SECONDS", help="again and again"
    )
    follow.set_defaults(command=_watch)


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    prepare = commands.add_parser("prepare", help="what of a dataset is there, and what is missing")
    prepare.add_argument("dataset", help="ava-kinetics")
    prepare.add_argument(
        "--root", type=Path, metavar="DIR", help="default: where paper scale looks"
    )
    prepare.add_argument(
        "--checksums", action="store_true", help="SHA-256 into the manifest; once all are: compare"
    )
    prepare.add_argument(
        "--reencode", type=Path, metavar="OUT", help="write small videos, AVA's cut, into OUT"
    )
    prepare.add_argument("--workers", type=int, default=0, help="processes; default: one a core")
    prepare.set_defaults(command=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    check_word("dataset", options.dataset, ("ava-kinetics",))
    if options.workers < 0:
        raise InputError(f"--workers {options.workers}: give 0 or more processes")
    layout = AvaLayout(options.root or data_dir() / "ava-kinetics")
    problems = [*prepare.missing_files(layout), *prepare.missing_videos(layout)]
    if problems:
        print("\n".join(["published at:", *prepare.what_to_fetch(layout)]))
    if not layout.root.is_dir():
        raise InputError(f"{layout.root}: no such folder; create it and fetch the above into it")
    problems += prepare.update_manifest(layout, Progress("manifest"), options.checksums)
    if options.reencode:
        out, workers = options.reencode, options.workers
        problems += prepare.reencode(layout, out, Progress("re-encode"), workers=workers)
    else:
        problems += prepare.unusable_names(layout)
    problems = list(dict.fromkeys(problems))  # an unreadable video is found twice
    for problem in problems:
        print(problem)
    if problems:
        raise InputError(f"{layout.root}: {len(problems)} problems, listed above")
    print(f"{layout.root}: complete; now stadlib check {options.reencode or layout.root}")


def _ensemble(options: argparse.Namespace) -> None:
    if options.table1:
        _table1_ensemble(options)
        return
    if not options.members or options.out is None:
        raise InputError("ensemble: give detection files and --out, or --table1")
    boxes, rows = ensembles.average(options.members, options.out)
    print(f"{options.out}: {len(options.members)} members, {boxes} boxes, {rows} rows")


def _table1_ensemble(options: argparse.Namespace) -> None:
    from stadlib import study  # noqa: PLC0415  (torch)

    check_word("split", options.split, SPLITS[1:])
    words = {word: getattr(options, word) for word in (*recipes.WORDS, "memory")}
    wanted = recipes.ensemble1(scale=options.scale, seed=options.seed, **words)
    members = [member for member in wanted if study.find(member)]
    for absent in (member for member in wanted if member not in members):
        print(f"not run, left out: {absent.name}")
    if len(members) < 2:
        raise InputError(f"{runs_dir()}: {len(members)} of Table 1's rows were run; train more")
    _tell(study.ensemble(members, options.split), "ensembles", options)
    if options.publish and options.split == "val":
        for member in members:
            publish(study.find(member), "ensembles/members")


def _score(options: argparse.Namespace) -> None:
    from stadlib import study  # noqa: PLC0415  (torch)
    from stadlib.training import processes  # noqa: PLC0415  (torch)

    check_word("split", options.split, SPLITS[1:])
    folder = study.find_run(options.run)
    if not (folder / "record.json").is_file():
        raise InputError(f"{folder}: not finished; run its stadlib train again")
    with processes.group():
        found = study.score_split(read_record(folder / "record.json"), options.split)
        if processes.rank() == 0:
            _tell(found, "", options)


def _tell(record: Record | None, kind: str, options: argparse.Namespace) -> None:
    """Print what was measured on a split, and publish it if wished."""
    if record is None:
        print(f"the {options.split} split has no annotations: its detection files are written")
        return
    means = (f"{name} {100 * of['mAP']:.2f}" for name, of in record.metrics.items())
    print(f"{record.folder.name}, {options.split}: mAP@0.5, %: " + ", ".join(means))
    if options.publish:
        publish(record, "test" if options.split == "test" else kind)


def _submit(options: argparse.Namespace) -> None:
    if bool(options.detections) == bool(options.check):
        raise InputError("submit: give --detections to write a file, or --check to check one")
    if options.check:
        _check_submission(options)
        return
    for name in ("labels", "out"):
        if getattr(options, name) is None:
            raise InputError(f"--{name} is missing: --detections needs --labels and --out")
    found = submission.write_submission(options.detections, options.labels, options.out)
    print(
        f"{options.out}: {found.rows} rows of {found.images} images, {found.size / 1e6:.1f} MB; "
        f"{found.beyond} rows do not count, {found.parted} equal scores moved apart"
    )


def _check_submission(options: argparse.Namespace) -> None:
    if options.data is None:
        raise InputError("--data is missing: name the dataset whose keyframes the file is of")
    check_word("split", options.split, SPLITS)
    layout = AvaLayout(options.data)
    keyframes = submission.split_keyframes(layout, options.split)
    check = submission.validate_submission(options.check, keyframes, layout.label_map())
    for line in check.notes + check.problems:
        print(line)
    if check.problems:
        raise InputError(f"{options.check}: {len(check.problems)} problems, listed above")
    print(f"{options.check}: no problem found")


def _watch(options: argparse.Namespace) -> None:
    if options.follow is not None and not options.follow > 0:
        raise InputError(f"--follow {options.follow:g}: give seconds, more than 0")
    folder = study.find_run(options.run)
    height = 0
    try:
        while True:
            lines = watch.status(folder)
            if sys.stdout.isatty() and height:
                print(f"\x1b[{height}A\x1b[J", end="")  # over what stands there
            print("\n".join(lines), flush=True)
            width = shutil.get_terminal_size().columns
            height = sum(1 + (len(line) - 1) // width for line in lines)
            if options.follow is None or watch.finished(folder):
                return
            time.sleep(options.follow)
    except KeyboardInterrupt:  # whoever watched has seen enough; the run goes on
        print()

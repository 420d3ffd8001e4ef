"""The commands around the challenge and its long runs: prepare, ensemble, submit, watch."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from stadlib import ensembles, recipes, study, submission, submission_check, watch
from stadlib.config import InputError, check_word
from stadlib.data import inventory, manifest, reencode
from stadlib.data.layout import SPLITS, AvaLayout
from stadlib.paths import data_dir, runs_dir
from stadlib.progress import Progress
from stadlib.publishing import publish
from stadlib.records import Record, read_record


def add(commands: argparse._SubParsersAction) -> None:
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
    problems = [*inventory.missing_files(layout), *inventory.missing_videos(layout)]
    if problems:
        print("\n".join(["published at:", *inventory.what_to_fetch(layout)]))
    if not layout.root.is_dir():
        raise InputError(f"{layout.root}: no such folder; create it and fetch the above into it")
    problems += manifest.update_manifest(layout, Progress("manifest"), options.checksums)
    if options.reencode:
        out, workers = options.reencode, options.workers
        problems += reencode.reencode(layout, out, Progress("re-encode"), workers=workers)
    else:
        problems += inventory.unusable_names(layout)
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
    from stadlib import rescoring  # noqa: PLC0415  (torch)

    check_word("split", options.split, SPLITS[1:])
    words = {word: getattr(options, word) for word in (*recipes.WORDS, "memory")}
    wanted = recipes.ensemble1(scale=options.scale, seed=options.seed, **words)
    members = [member for member in wanted if study.find(member)]
    for absent in (member for member in wanted if member not in members):
        print(f"not run, left out: {absent.name}")
    if len(members) < 2:
        raise InputError(f"{runs_dir()}: {len(members)} of Table 1's rows were run; train more")
    _tell(rescoring.ensemble(members, options.split), "ensembles", options)
    if options.publish and options.split == "val":
        for member in members:
            publish(study.find(member), "ensembles/members")


def _score(options: argparse.Namespace) -> None:
    from stadlib import processes, rescoring  # noqa: PLC0415  (torch)

    check_word("split", options.split, SPLITS[1:])
    folder = watch.find_run(options.run)
    if not (folder / "record.json").is_file():
        raise InputError(f"{folder}: not finished; run its stadlib train again")
    with processes.group():
        found = rescoring.score_split(read_record(folder / "record.json"), options.split)
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
    keyframes = submission_check.split_keyframes(layout, options.split)
    check = submission_check.validate_submission(options.check, keyframes, layout.label_map())
    for line in check.notes + check.problems:
        print(line)
    if check.problems:
        raise InputError(f"{options.check}: {len(check.problems)} problems, listed above")
    print(f"{options.check}: no problem found")


def _watch(options: argparse.Namespace) -> None:
    if options.follow is not None and not options.follow > 0:
        raise InputError(f"--follow {options.follow:g}: give seconds, more than 0")
    folder = watch.find_run(options.run)
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

"""``python -m stadlib`` (or ``stadlib``): every command of the study; what torchrun starts, too.

``train`` is here, the others in ``*_commands`` and ``pretrain_command``. A user's
mistake ends with one line on standard error and exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from stadlib import recipes, study
from stadlib.base import OneLineError
from stadlib.cli import commands
from stadlib.recipes.experiment import Execution, Experiment, choices, from_dict
from stadlib.recipes.scales import DETECTORS, SCALES
from stadlib.study import Record, publish


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the command, return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except OneLineError as error:
        return _fail(str(error))
    except BrokenPipeError:  # whoever read along has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder without permission
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}; free space or set STADLIB_RESULTS")
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from the last checkpoint")
    return 0


def _fail(line: str) -> int:
    print(f"stadlib: {line}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stadlib", description=__doc__.split("\n")[0])
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    train = subparsers.add_parser("train", help="train and evaluate rows of a table")
    train.add_argument("--table", type=int, choices=(1, 2, 3, 4), default=1, help="default: 1")
    for word in recipes.WORDS:
        train.add_argument(f"--{word}", default=None, help=f"{', '.join(choices(word))}, all")
    train.add_argument(
        "--amounts", action="store_true", help="instead of Table 2: how much memory helps how much"
    )
    train.add_argument(
        "--uses", action="store_true", help="instead of Table 4: what one may do with v3's boxes"
    )
    train.add_argument(
        "--detector",
        help=f"{', '.join(choices('detector'))}; default of Table 1: v3, with --data ground-truth",
    )
    train.add_argument("--memory", default="no", help="rows of Table 1: no, yes, all")
    train.add_argument("--scale", default="mini", help=", ".join(SCALES))
    train.add_argument("--seed", type=int, nargs="+", default=[0], help="one run for each")
    train.add_argument("--data", default="", metavar="DIR", help="a dataset of your own")
    train.add_argument("--iterations", type=int, help="of each stage, instead of the scale's")
    train.add_argument(
        "--processes", type=int, default=0, help="started with torchrun, each on its own GPU if any"
    )
    _add_execution(train)
    train.add_argument("--publish", action="store_true", help="copy records to results/reference")
    train.add_argument("--experiment", help="an experiment as JSON (what torchrun is given)")
    train.set_defaults(command=_train)

    commands.add_file_commands(subparsers)
    commands.add_challenge_commands(subparsers)
    commands.add_video_commands(subparsers)
    commands.add_pretrain_command(subparsers)
    commands.add_report_commands(subparsers)
    return parser


def _add_execution(train: argparse.ArgumentParser) -> None:
    """What a machine decides about a run."""
    train.add_argument(
        "--accumulate", type=int, default=1, help="take a process's part of a batch in N turns"
    )
    train.add_argument("--precision", default="auto", help="auto, float32, bfloat16")
    train.add_argument("--recompute", default="auto", help="activations again: auto, yes, no")
    train.add_argument("--pad", default="auto", help="clips to one size: auto, batch, share")
    train.add_argument("--compile", action="store_true", help="torch.compile the backbone")
    train.add_argument(
        "--save-every", type=int, default=0, help="iterations between checkpoints; 0: a tenth"
    )


def _train(options: argparse.Namespace) -> None:
    from stadlib.training import processes  # noqa: PLC0415  (torch, only after the words were checked)

    experiments = _experiments(options)
    names = ("accumulate", "precision", "recompute", "pad", "compile", "save_every")
    execution = Execution(**{name: getattr(options, name) for name in names})
    with processes.group():
        for experiment in experiments:
            how = {"num_processes": options.processes, "execution": execution}
            record = study.run(experiment, **how)
            if processes.rank() == 0:
                print(_summary(record), flush=True)
                if options.publish:
                    publish(record)
        if options.table == 4:
            _measure_detectors(options)


def _experiments(options: argparse.Namespace) -> list[Experiment]:
    if options.experiment:
        return [from_dict(json.loads(options.experiment))]
    default = Experiment()
    words = {word: getattr(options, word) or getattr(default, word) for word in recipes.WORDS}
    if not options.frames and words["backbone"] != default.backbone:
        words["frames"] = "all"  # the default's are those of its backbone
    rows: list[Experiment] = []
    for seed in options.seed:
        where = {"scale": options.scale, "seed": seed}
        if options.table == 1:
            detector = options.detector or ("ground-truth" if options.data else "v3")
            table1 = {**where, **words, "memory": options.memory, "detector": detector}
            rows += recipes.table1(**table1)
        else:
            tables = {2: recipes.table2, 3: recipes.table3, 4: recipes.table4}
            table = recipes.memory_ablation if options.amounts else tables[options.table]
            table = recipes.box_uses if options.uses else table
            rows += table(**where, backbone=words["backbone"], head=words["head"]).values()
    return [_adapted(row, options) for row in rows]


def _adapted(row: Experiment, options: argparse.Namespace) -> Experiment:
    """The row on the user's own data, or with another number of iterations."""
    stages = row.stages
    if options.iterations:
        stages = tuple(replace(stage, iterations=options.iterations) for stage in stages)
    dataset = str(Path(options.data).resolve()) if options.data else ""
    return replace(row, stages=stages, dataset=dataset)


def _summary(record: Record) -> str:
    values = (f"{name} {100 * found['mAP']:.2f}" for name, found in record.metrics.items())
    return f"{record.folder.name}: mAP@0.5, %: " + ", ".join(values)


def _measure_detectors(options: argparse.Namespace) -> None:
    """How good the boxes of Table 4 are, whatever the persons do."""
    for version in DETECTORS:
        record = study.detector_record(version, options.scale)
        values = (
            f"{source} {100 * found['AP@0.5']:.2f}" for source, found in record.metrics.items()
        )
        print(f"{version}: AP@0.5 of persons, %: " + ", ".join(values), flush=True)
        if options.publish:
            publish(record, "detectors", f"{version}_{record.scale}-{record.digest}")


if __name__ == "__main__":
    sys.exit(main())

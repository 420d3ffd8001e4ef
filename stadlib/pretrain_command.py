"""The command that trains a backbone to classify Kinetics: ``stadlib pretrain``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stadlib.config import Experiment, InputError, check_word
from stadlib.execution import Execution
from stadlib.paths import data_dir
from stadlib.progress import Progress
from stadlib.scales import SCALES

if TYPE_CHECKING:
    from stadlib.pretraining_plan import Pretraining

FOLDERS = {"K400": "kinetics-400", "K700": "kinetics-700"}
CLASSES = {"K400": 400, "K700": 700}
FRAMES = {"slowfast": "8x8+32x2", "ir": "32x2"}  # by a backbone's family


def add(commands: argparse._SubParsersAction) -> None:
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
    from stadlib import processes  # noqa: PLC0415  (torch, only after the words were checked)

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
    from stadlib.pretraining_plan import open_pretraining  # noqa: PLC0415  (torch)

    root = options.data or data_dir() / FOLDERS[options.pretrain]
    return open_pretraining(experiment, root, options.iterations)


def _real(experiment: Experiment, options: argparse.Namespace, execution: Execution) -> list[str]:
    from stadlib.pretraining import pretrain  # noqa: PLC0415  (torch)

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
    from stadlib.preparation import pretrained_backbone  # noqa: PLC0415  (torch)
    from stadlib.rendered_pretraining import pretrained_folder  # noqa: PLC0415

    pretrained_backbone(experiment, Progress)
    folder = pretrained_folder(experiment)
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

"""Run an experiment, or read its record: the one entrance for notebooks and the command line.

torch is imported by what computes, so that a wrong word is refused at once.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from stadlib import base, data, evaluation, training
from stadlib.base import ConfigError, InputError, Progress, check_word, runs_dir, write_whole
from stadlib.recipes.experiment import USUAL, Execution, Experiment, choices, from_dict
from stadlib.recipes.scales import DETECTORS, SCALES, detector_digest, made_of
from stadlib.recipes.tables import MEMORY_WORDS

if TYPE_CHECKING:
    from stadlib.training.stages import Run


@dataclass(frozen=True)
class Record:
    """One experiment, its metrics and where they come from, as JSON on disk."""

    experiment: dict  # the fields of an Experiment as JSON has them
    digest: str  # of the experiment and its scale
    scale: str  # numbers of different scales are never mixed
    metrics: dict  # by source: mAP and, by action id, AP (null without ground truth), as fractions
    provenance: dict  # as base.provenance gives it
    folder: Path | None = None  # of the run's predictions; not part of the JSON

    def to_json(self) -> str:
        """The record as indented JSON, without the machine's folder."""
        content = {name: value for name, value in vars(self).items() if name != "folder"}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def write_record(record: Record, path: Path) -> None:
    """Write a record whole."""
    write_whole(path, record.to_json())


def read_record(path: Path) -> Record:
    """Read a record; a file that is none raises an InputError."""
    try:
        return Record(**json.loads(path.read_text()), folder=path.parent)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a record ({error}); delete it and run again") from error


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, in the order of their names."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def check_parameters(namespace: dict[str, object], *names: str, **words: tuple[str, ...]) -> None:
    """Refuse a notebook parameter that does not exist, and a word that is not a choice.

    papermill alone would run the defaults and exit 0. ``namespace`` is ``globals()``; ``names`` are
    ``seed``, ``gpus``, ``scale``, ``memory`` or an experiment's fields, which may be ``all`` too.
    ``words`` are the choices of other parameters; an empty tuple takes any word.
    """
    refuse_unknown(namespace, (*names, *words))
    for name, known in words.items():
        check_word(name, namespace[name], known or (namespace[name],))
    for name in names:
        value = namespace[name]
        if name in ("seed", "gpus"):
            if type(value) is not int or value < 0:
                raise ConfigError(f"{name}={value!r}; give a whole number, 0 or more")
        elif name == "scale":
            check_word(name, value, tuple(SCALES))
        else:
            known = MEMORY_WORDS if name == "memory" else choices(name)
            check_word(name, value, (*known, "all"))


def refuse_unknown(namespace: dict[str, object], names: Sequence[str]) -> None:
    """Refuse a notebook's variable that is none of its parameters.

    When cells run again in one kernel, only what the last cell of parameters assigns is checked.
    """
    own = {n: v for n, v in namespace.items() if not n.startswith("_") and n not in ("In", "Out")}
    given = [n for n, v in own.items() if not (callable(v) or isinstance(v, ModuleType))]
    if "_parameters_checked" in namespace and "In" in namespace:
        given = []
        for source in list(namespace["In"])[:-1]:
            with suppress(SyntaxError):  # of a cell with magic
                nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
                assigned = [node.id for node in nodes if isinstance(node.ctx, ast.Store)]
                given = assigned if set(assigned) & set(names) else given
    if unknown := [name for name in given if name not in names]:
        namespace.pop(unknown[0], None)  # the corrected cell runs in the same kernel
        raise ConfigError(f"unknown parameter {unknown[0]!r}; choose from {', '.join(names)}")
    namespace["_parameters_checked"] = True


def scale_of(word: str) -> str:
    """A notebook's scale, unless ``STADLIB_SCALE`` overrides it (nbval cannot inject one)."""
    return os.environ.get("STADLIB_SCALE", word)


def run_folder(experiment: Experiment) -> Path:
    """Where the run's record and predictions lie."""
    return runs_dir() / f"{experiment.name}-{experiment.digest}"


def stage_folder(experiment: Experiment, number: int) -> Path:
    """Where the checkpoint, the log and the banks of a stage lie, counted from 1."""
    return base.stage_dir(experiment.stage_digest(number))


def find(experiment: Experiment) -> Record | None:
    """This machine's record of an experiment, if it was run."""
    path = run_folder(experiment) / "record.json"
    return read_record(path) if path.exists() else None


def find_run(name: str = "") -> Path:
    """The folder of a run: a path, or the newest whose name contains ``name``."""
    if name and Path(name).is_dir():
        return Path(name)
    folders = [path for path in runs_dir().glob("*") if path.is_dir() and path.name != "stages"]
    folders.sort(key=lambda folder: (folder.stat().st_mtime, folder.name))
    if named := [folder for folder in folders if name in folder.name]:
        return named[-1]
    last = ", ".join(folder.name for folder in folders[-3:]) or "none yet"
    which = f" whose name contains {name!r}" if name else ""
    raise InputError(f"{runs_dir()}: no run{which}; there are: {last}")


def find_record(name: str) -> Record:
    """The record of a finished run (see :func:`find_run`)."""
    folder = find_run(name)
    if not (folder / "record.json").is_file():
        remedy = "let it finish first: run its stadlib train again"
        raise InputError(f"{folder}: no finished run (no record.json); {remedy}")
    return read_record(folder / "record.json")


def open_run(record: Record, split: str = "val") -> Run:
    """Open the run of a record, with its dataset and its files."""
    experiment = from_dict(record.experiment)
    return training.stages.open_run(experiment, record.folder, Progress, split=split)


def run(experiment: Experiment, *, num_processes: int = 0, execution: Execution = USUAL) -> Record:
    """Train and evaluate an experiment, or read the record of having done so.

    An interrupted run resumes from its checkpoint. From ``num_processes`` = 1 on, torchrun starts
    as many, each on its own GPU if any. In a script, call it under ``if __name__ == "__main__":``,
    because the processes that render and decode import it.
    """
    if record := find(experiment):
        return record
    folder = run_folder(experiment)
    try:  # fail before hours of training, not after
        content = json.dumps(experiment.to_dict(), indent=1) + "\n"
        write_whole(folder / "experiment.json", content)
    except OSError as error:
        remedy = "free it, or set STADLIB_RESULTS"
        raise InputError(f"{folder}: cannot be written ({error.strerror}); {remedy}") from error
    if num_processes:
        words = ["train", "--experiment", json.dumps(experiment.to_dict()), *execution.words()]
        torchrun(words, num_processes, experiment.name)
        return read_record(folder / "record.json")
    started, together = time.monotonic(), training.processes.num_processes()
    opened = training.stages.open_run(experiment, folder, Progress, execution)
    metrics = training.predictions.predict(opened, training.stages.run_stages(opened))
    origin = {"processes": together} if together > 1 else {}
    origin |= {"precision": "bfloat16" if opened.half else "float32"} | opened.inputs
    origin |= {"threshold": opened.threshold} if experiment.detected else {}
    origin |= _hashes(opened, "val")
    content = experiment.to_dict()
    bare = Record(content, experiment.digest, experiment.scale, {}, origin, folder)
    record = _measured(bare, metrics, started, folder / "record.json")
    training.processes.barrier()
    return record


def extract(experiment: Experiment, *, num_processes: int = 0, execution: Execution = USUAL) -> str:
    """Extract, or go on to extract, what stages on features train on; returns where, how large."""
    if num_processes:
        words = ["extract", "--experiment", json.dumps(experiment.to_dict()), *execution.words()]
        torchrun(words, num_processes, experiment.name)
    opened = training.stages.open_run(experiment, run_folder(experiment), Progress, execution)
    folder = training.stages.extract(opened)
    megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return f"{folder}: {megabytes:.0f} MB"


def _hashes(opened: Run, split: str) -> dict:
    """Of the rendered world and of the detected boxes that a split was scored on."""
    experiment, root = opened.experiment, opened.layout.root
    rendered = not experiment.dataset and experiment.scale != "paper"
    hashes = {"world": training.pretraining.world_hash(root)} if rendered else {}
    if experiment.detected:
        total = hashlib.sha256()
        for source in data.layout.SOURCES:
            file = opened.layout.person_boxes(experiment.boxes_name, source, split)
            total.update(file.read_bytes() if file.is_file() else b"")
        hashes["boxes"] = total.hexdigest()[:12]
    return hashes


def _measured(record: Record, metrics: dict, started: float, path: Path) -> Record:
    """The record with these metrics, written by the first process; it equals what is read again."""
    origin = base.provenance(str(training.processes.device()), time.monotonic() - started)
    origin["threads"] = training.processes.threads()
    content, metrics = json.loads(json.dumps([record.experiment, metrics]))
    origin |= record.provenance
    record = replace(record, experiment=content, metrics=metrics, provenance=origin)
    if training.processes.rank() == 0:
        write_record(record, path)
    return record


# torchrun without its traceback: the processes say in a line what is wrong.
_AGENT = """
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main
try:
    main()
except ChildFailedError:
    raise SystemExit(1)
"""


def torchrun(words: Sequence[str], num_processes: int, name: str) -> None:
    """Start a command with torchrun, as a subprocess: CUDA forbids to fork a notebook's kernel."""
    command = [sys.executable, "-c", _AGENT, "--standalone"]
    command += [f"--nproc_per_node={num_processes}", "-m", "stadlib", *words]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "bufsize": 1}
    options["env"] = os.environ | {"LOGLEVEL": "CRITICAL"}  # of torchrun
    with subprocess.Popen(command, **options) as process:
        try:
            for line in process.stdout:  # into a notebook's cell, too
                print(line, end="", flush=True)
        except BaseException:  # an interrupted cell leaves no processes behind
            process.terminate()
            raise
    if process.returncode:
        said = "a process failed or was killed; what it said stands above"
        raise InputError(f"{name}: {said}; the same command resumes")


def _record_file(folder: Path, split: str) -> Path:
    """Where a run or an ensemble keeps what was measured on a split."""
    return folder / ("record.json" if split == "val" else f"record_{split}.json")


def score_split(record: Record, split: str) -> Record | None:
    """Score a split with a finished run's model, or read the record of having done so.

    Returns None where the split has no annotations: its prediction files are for a submission.
    """
    path = _record_file(record.folder, split)
    if path.is_file():
        return read_record(path)
    started = time.monotonic()
    opened = open_run(record, split)
    metrics = training.predictions.predict(opened, training.stages.trained_model(opened), split)
    if not metrics:
        return None
    record = replace(record, provenance=_hashes(opened, split))
    record = _measured(record, metrics, started, path)
    training.processes.barrier()
    return record


def ensemble(members: Sequence[Experiment], split: str = "val") -> Record | None:
    """Average voting of this machine's runs (paper section 3.1), which all scored the same boxes.

    Another split than ``val`` needs :func:`score_split` of every member first; None as there.
    """
    started, (scale, seed) = time.monotonic(), (members[0].scale, members[0].seed)
    named = {member.name: member.digest for member in members}
    content = {"members": named, "scale": scale, "seed": seed}
    made = base.digest(content)
    folder = runs_dir() / f"ensemble_{len(members)}_{scale}_seed{seed}-{made}"
    path = _record_file(folder, split)
    if path.is_file():
        return read_record(path)
    layout, averages = training.pretraining.prepare_data(members[0], Progress, split), {}
    for source in layout.sources(split, listed=True):
        folders = map(run_folder, members)
        files = [training.predictions.detection_file(of, source, split) for of in folders]
        if absent := [file for file in files if not file.is_file()]:
            raise InputError(f"{absent[0]}: no such file; train that member or score the split")
        averages[source] = training.predictions.detection_file(folder, source, split)
        folder.mkdir(parents=True, exist_ok=True)
        evaluation.files.average(files, averages[source])
    bare = Record(content, made, scale, {}, {}, folder)
    metrics = training.predictions.measure(layout, averages, split)
    return _measured(bare, metrics, started, path) if metrics else None


def detector_record(version: str, scale: str, seed: int = 0) -> Record:
    """Measure a detector's boxes on validation (:func:`.quality`), or read the record of it."""
    check_word("detector", version, tuple(DETECTORS))
    made = detector_digest(version, scale, seed=seed)
    path = runs_dir() / "detectors" / f"{version}_{scale}_seed{seed}-{made}.json"
    if path.exists():
        return read_record(path)
    started, metrics = time.monotonic(), {}
    words = {"scale": scale, "detector": version, "seed": seed}
    opened = training.stages.open_run(Experiment(**words), path.parent, Progress)
    for source in data.layout.SOURCES:
        opened.require_boxes(source, "val")
        boxes = opened.layout.person_boxes(opened.experiment.boxes_name, source, "val")
        truth = training.predictions.groundtruth(opened.layout, source)
        found = data.boxes.read_person_boxes(boxes)
        metrics[source] = evaluation.average_precision.quality(truth, found)
    made_by = made_of(version, scale)["detector"]
    content = {"detector": version, "stages": made_by, "seed": seed}
    return _measured(Record(content, made, scale, {}, {}, path.parent), metrics, started, path)

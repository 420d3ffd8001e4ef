"""Run an experiment, or read its record: the one entrance for notebooks and the command line.

torch is imported only inside the functions that compute, so that a wrong word is refused at once.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from stadlib.base import (
    ConfigError,
    InputError,
    Progress,
    check_word,
    digest,
    provenance,
    published_dir,
    runs_dir,
    stage_dir,
    write_whole,
)
from stadlib.recipes.experiment import USUAL, Execution, Experiment, choices, from_dict
from stadlib.recipes.scales import DETECTORS, SCALES, detector_digest, made_of
from stadlib.recipes.tables import MEMORY_WORDS

if TYPE_CHECKING:
    import pandas as pd

    from stadlib.training.stages import Run


@dataclass(frozen=True)
class Record:
    """One experiment, its metrics and where they come from, as JSON on disk.

    Attributes:
        experiment: the fields of :class:`stadlib.recipes.experiment.Experiment` as JSON has them.
        digest: of the experiment and its scale.
        scale: ``smoke``, ``mini`` or ``paper``; numbers of different scales are never mixed.
        metrics: by source (``ava``, ``kinetics``, ``ava+kinetics``): ``mAP`` and ``AP``, fractions;
            APs are keyed by action id, null where a class has no ground truth.
        provenance: as :func:`stadlib.base.provenance` gives it.
        folder: where the run's log, weights and predictions lie; None for a bare record.
    """

    experiment: dict
    digest: str
    scale: str
    metrics: dict
    provenance: dict
    folder: Path | None = None

    def to_json(self) -> str:
        """The record as indented JSON, without the machine's folder."""
        content = {name: word for name, word in vars(self).items() if name != "folder"}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def make_record(experiment: Experiment, metrics: dict, provenance: dict, folder: Path) -> Record:
    """A record of what was just measured; it equals what will be read from its JSON."""
    content, metrics = json.loads(json.dumps([experiment.to_dict(), metrics]))
    return Record(content, experiment.digest, experiment.scale, metrics, provenance, folder)


def write_record(record: Record, path: Path) -> None:
    """Write a record whole."""
    write_whole(path, record.to_json())


def read_record(path: Path) -> Record:
    """Read a record; a file that is none raises an InputError."""
    try:
        content = json.loads(path.read_text())
        names = (field.name for field in fields(Record) if field.name != "folder")
        return Record(**{name: content[name] for name in names}, folder=path.parent)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a record ({error}); delete it and run again") from error


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, in the order of their names."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def publish(record: Record, kind: str = "", name: str = "") -> None:
    """Copy a record to ``results/reference``; one of uncommitted code is refused.

    Args:
        record: of a run, an ensemble or a detector on this machine.
        kind: a folder in it: ``test``, ``ensembles``, ``ensembles/members``, ``detectors``. Empty:
            a row of a table; the class counts of its training data are written too.
        name: of the file; empty: that of the run's folder.
    """
    name = name or record.folder.name
    if record.provenance["dirty"] is not False:
        raise InputError(f"{name}: made with uncommitted code; commit and run again")
    folder = published_dir("reference") / kind
    write_whole(folder / f"{name}.json", record.to_json())
    if not kind:
        write_whole(folder / "class_counts.csv", class_counts(record).to_csv())


# ------------------------------------------------------------------------- notebook parameters

_IPYTHON = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def check_parameters(namespace: dict[str, object], *names: str) -> None:
    """Refuse a notebook parameter that does not exist, and a word that is not a choice.

    papermill alone would run the defaults and exit 0.

    Args:
        namespace: the notebook's ``globals()``.
        names: its parameters. ``seed`` and ``gpus`` are whole numbers; ``scale`` one word; the
            others are fields of an experiment or ``memory``, where ``all`` is allowed too.

    Raises:
        ConfigError: one line that names the choices.
    """
    refuse_unknown(namespace, names)
    for name in names:
        value = namespace[name]
        if name in ("seed", "gpus"):
            if type(value) is not int or value < 0:
                raise ConfigError(f"{name}={value!r}; give a whole number, 0 or more")
        elif name == "scale":
            check_word(name, value, tuple(SCALES))
        else:
            words = MEMORY_WORDS if name == "memory" else choices(name)
            check_word(name, value, (*words, "all"))


def refuse_unknown(namespace: dict[str, object], names: Sequence[str]) -> None:
    """Refuse a notebook's variable that is none of its parameters.

    When the cells run again in one kernel, the variables of the first time are still there. Then
    only the names count that the last cell of parameters assigns.
    """
    if "_parameters_checked" in namespace and "In" in namespace:
        given = _assigned(list(namespace["In"]), names)
    else:
        given = [
            name
            for name, value in namespace.items()
            if not (name.startswith("_") or name in _IPYTHON)
            and not (callable(value) or isinstance(value, ModuleType))
        ]
    for name in given:
        if name not in names:
            namespace.pop(name, None)  # the corrected cell runs in the same kernel
            raise ConfigError(f"unknown parameter {name!r}; choose from {', '.join(names)}")
    namespace["_parameters_checked"] = True


def _assigned(cells: list[str], names: Sequence[str]) -> list[str]:
    """The names that the last cell of parameters assigns."""
    for source in reversed(cells[:-1]):
        try:
            nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
        except SyntaxError:
            continue
        assigned = [node.id for node in nodes if isinstance(node.ctx, ast.Store)]
        if set(assigned) & set(names):
            return assigned
    return []


def scale_of(word: str) -> str:
    """A notebook's scale, unless ``STADLIB_SCALE`` overrides it (nbval cannot inject one)."""
    return os.environ.get("STADLIB_SCALE", word)


# ------------------------------------------------------------------------------------- running


def run_folder(experiment: Experiment) -> Path:
    """Where the run's record and predictions lie."""
    return runs_dir() / f"{experiment.name}-{experiment.digest}"


def stage_folder(experiment: Experiment, number: int) -> Path:
    """Where the checkpoint, the log and the banks of a stage lie, counted from 1."""
    return stage_dir(experiment.stage_digest(number))


def find(experiment: Experiment) -> Record | None:
    """This machine's record of an experiment, if it was run."""
    path = run_folder(experiment) / "record.json"
    return read_record(path) if path.exists() else None


def find_run(name: str = "") -> Path:
    """The folder of a run: a path, or the newest whose name contains ``name``.

    Raises:
        InputError: no such run; the line names the runs there are.
    """
    if name and Path(name).is_dir():
        return Path(name)
    folders = [path for path in runs_dir().glob("*") if path.is_dir() and path.name != "stages"]
    folders.sort(key=lambda folder: (folder.stat().st_mtime, folder.name))
    named = [folder for folder in folders if name in folder.name]
    if not named:
        last = ", ".join(folder.name for folder in folders[-3:]) or "none yet"
        what = f"no run whose name contains {name!r}" if name else "no run"
        raise InputError(f"{runs_dir()}: {what}; there are: {last}")
    return named[-1]


def open_run(record: Record) -> Run:
    """Open the run of a record, with its dataset and its files."""
    from stadlib.training import stages  # noqa: PLC0415  (torch)

    return stages.open_run(from_dict(record.experiment), record.folder, Progress)


def run(experiment: Experiment, *, num_processes: int = 0, execution: Execution = USUAL) -> Record:
    """Train and evaluate an experiment, or read the record of having done so.

    An interrupted run resumes from its checkpoint and gives the same record. In a script, call it
    under ``if __name__ == "__main__":``, because the processes that render and decode import it.

    Args:
        experiment: a row of :mod:`stadlib.recipes`, or your own.
        num_processes: from 1 on, torchrun starts as many, each on its own GPU if any.
        execution: what this machine decides; an existing record is read without regard to it.

    Raises:
        InputError: the data, the checkpoint or the results folder cannot be used.
    """
    if record := find(experiment):
        return record
    folder = run_folder(experiment)
    try:  # fail before hours of training, not after
        content = json.dumps(experiment.to_dict(), indent=1) + "\n"
        write_whole(folder / "experiment.json", content)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); free it, or set STADLIB_RESULTS"
        ) from error
    if num_processes:
        words = ["train", "--experiment", json.dumps(experiment.to_dict()), *execution.words()]
        torchrun(words, num_processes, experiment.name)
        return read_record(folder / "record.json")
    from stadlib.training import processes, stages  # noqa: PLC0415  (torch)

    started = time.monotonic()
    opened = stages.open_run(experiment, folder, Progress, execution)
    metrics = stages.run_stages(opened)
    origin = provenance(str(processes.device()), time.monotonic() - started)
    if processes.num_processes() > 1:
        origin["processes"] = processes.num_processes()
    if opened.half:
        origin["precision"] = "bfloat16"
    record = make_record(experiment, metrics, origin, folder)
    if processes.rank() == 0:
        write_record(record, folder / "record.json")
    processes.barrier()
    return record


def torchrun(words: Sequence[str], num_processes: int, name: str) -> None:
    """Start a ``stadlib`` command with torchrun, as a subprocess: CUDA forbids to fork a kernel.

    What the processes print is passed on line by line, into a notebook's cell too.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={num_processes}", "-m", "stadlib", *words]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "bufsize": 1}
    with subprocess.Popen(command, **options) as process:
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        except BaseException:  # an interrupted cell leaves no processes behind
            process.terminate()
            raise
    if process.returncode:
        raise InputError(f"{name}: torchrun failed; its messages stand above")


def _record_file(folder: Path, split: str) -> Path:
    """Where a run or an ensemble keeps what was measured on a split."""
    return folder / ("record.json" if split == "val" else f"record_{split}.json")


def score_split(record: Record, split: str, execution: Execution = USUAL) -> Record | None:
    """Score a split with a finished run's model, or read the record of having done so.

    Returns:
        The record of the split; None where it has no annotations: then only its prediction files
        are written, for a submission.
    """
    path = _record_file(record.folder, split)
    if path.is_file():
        return read_record(path)
    from stadlib.training import processes, stages  # noqa: PLC0415  (torch)

    run = stages.open_run(from_dict(record.experiment), record.folder, Progress, execution)
    started = time.monotonic()
    metrics = stages.predict(run, stages.trained_model(run), split)
    if not metrics:
        return None
    if processes.rank() == 0:
        write_record(_measured(record, metrics, started), path)
    processes.barrier()
    return read_record(path)


def ensemble(members: Sequence[Experiment], split: str = "val") -> Record | None:
    """Average voting of runs (paper section 3.1), all of which scored the same boxes.

    Args:
        members: experiments whose runs are on this machine.
        split: ``val``, or ``test`` once :func:`score_split` scored it with every member.

    Returns:
        The ensemble's record, whose experiment names its members; None as :func:`score_split`.

    Raises:
        InputError: a member was not run or has not scored the split, or boxes differ.
    """
    from stadlib.data.layout import SOURCES  # noqa: PLC0415
    from stadlib.evaluation import ensembles  # noqa: PLC0415  (polars)
    from stadlib.training import stages  # noqa: PLC0415  (torch)
    from stadlib.training.pretraining import prepare_data  # noqa: PLC0415

    started = time.monotonic()
    scale, seed = members[0].scale, members[0].seed
    named = {member.name: member.digest for member in members}
    content = {"members": named, "scale": scale, "seed": seed}
    folder = runs_dir() / f"ensemble_{len(members)}_{scale}_seed{seed}-{digest(content)}"
    path = _record_file(folder, split)
    if path.is_file():
        return read_record(path)
    layout = prepare_data(members[0], Progress)
    averages = {}
    for source in SOURCES:
        if not any(f(source, split).is_file() for f in (layout.annotations, layout.video_list)):
            continue
        files = [stages.detection_file(run_folder(member), source, split) for member in members]
        for file in files:
            if not file.is_file():
                raise InputError(f"{file}: no such file; train that member or score the split")
        averages[source] = stages.detection_file(folder, source, split)
        folder.mkdir(parents=True, exist_ok=True)
        ensembles.average(files, averages[source])
    metrics = stages.measure(layout, averages, split)
    if not metrics:
        return None
    bare = Record(content, digest(content), scale, {}, {}, folder)
    write_record(_measured(bare, metrics, started), path)
    return read_record(path)


def _measured(record: Record, metrics: dict, started: float) -> Record:
    """The record with other metrics, measured here and now."""
    from stadlib.training import processes  # noqa: PLC0415  (torch)

    origin = provenance(str(processes.device()), time.monotonic() - started)
    return replace(record, metrics=metrics, provenance=origin)


def detector_record(version: str, scale: str) -> Record:
    """Measure a version's boxes on the validation keyframes, or read the record of it.

    The metrics of a source are those of :func:`stadlib.evaluation.persons.quality`.
    """
    check_word("detector", version, tuple(DETECTORS))
    made = detector_digest(version, scale)
    path = runs_dir() / "detectors" / f"{version}_{scale}-{made}.json"
    if path.exists():
        return read_record(path)
    from stadlib.data.boxes import read_person_boxes  # noqa: PLC0415
    from stadlib.data.layout import SOURCES  # noqa: PLC0415
    from stadlib.evaluation.persons import quality  # noqa: PLC0415
    from stadlib.training import detector, pretraining, processes, stages  # noqa: PLC0415  (torch)

    started = time.monotonic()
    experiment = Experiment(scale=scale, detector=version)
    layout = pretraining.prepare_data(experiment, Progress)
    metrics = {}
    for source in SOURCES:
        detector.require_boxes(experiment, layout, source, "val", Progress)
        boxes = layout.person_boxes(experiment.boxes_name, source, "val")
        metrics[source] = quality(stages.groundtruth(layout, source), read_person_boxes(boxes))
    content = {"detector": version, "stages": made_of(version, scale)["detector"]}
    content, metrics = json.loads(json.dumps([content, metrics]))  # as they will be read again
    record = _measured(Record(content, made, scale, {}, {}, path.parent), metrics, started)
    if processes.rank() == 0:
        write_record(record, path)
    return record


def reference_detectors() -> dict[str, Record]:
    """The committed detector records by version."""
    records = read_records(published_dir("reference") / "detectors")
    return {record.experiment["detector"]: record for record in records}


def class_counts(record: Record) -> pd.DataFrame:
    """Training instances of every action in the data of a run: ``name``, ``ava``, ``kinetics``."""
    import pandas as pd  # noqa: PLC0415

    from stadlib.data.layout import SOURCES  # noqa: PLC0415
    from stadlib.training.stages import annotated  # noqa: PLC0415  (torch)

    layout = open_run(record).layout
    labels = layout.label_map()
    counts = pd.DataFrame(index=pd.Index(labels.ids, name="action_id"))
    counts["name"] = [labels.name(action) for action in labels.ids]
    for source in SOURCES:
        counts[source] = sum(k.actions.sum(axis=0) for k in annotated(layout, [source], "train"))
    return counts

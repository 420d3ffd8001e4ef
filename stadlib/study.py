"""A record: one experiment, its metrics and where they come from, as JSON on disk.

The contract between training, notebooks and whoever reads the numbers. APs are fractions keyed by
action id, null where a class has no ground truth.

Records of runs into ``results/reference``, where reports look for them and git keeps them.

Run an experiment, or read its record: the one entrance for notebooks and the command line.

torch is imported only once something is trained, so that a wrong word is refused at once.

Finished runs scored further: on another split, and several together (Table 1's last row).

Both give records of their own: what was trained is known by its digest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

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
from stadlib.data.layout import SOURCES, AvaLayout
from stadlib.evaluation import ensembles
from stadlib.evaluation.persons import quality
from stadlib.recipes.experiment import USUAL, Execution, Experiment, choices, from_dict
from stadlib.recipes.scales import DETECTORS, SCALES, made_of
from stadlib.recipes.tables import MEMORY_WORDS
from stadlib.training import processes, stages
from stadlib.training.pretraining import prepare_data


def detector_record(version: str, scale: str) -> Record:
    """Measure a version on the validation keyframes, or read the record of having done so.

    Returns:
        A record whose metrics are, by source: what :func:`stadlib.metrics.person_ap` gives, and
        ``thresholds``: by least score, ``recall`` and ``precision`` at IoU 0.5.
    """
    check_word("detector", version, tuple(DETECTORS))
    made = digest(made_of(version, scale))
    path = runs_dir() / "detectors" / f"{version}_{scale}-{made}.json"
    if path.exists():
        return read_record(path)
    from stadlib.data import layout as data_layout  # noqa: PLC0415  (torch)
    from stadlib.data.boxes import read_person_boxes  # noqa: PLC0415
    from stadlib.training import detector, pretraining, processes, stages  # noqa: PLC0415  (torch)

    started = time.monotonic()
    experiment = Experiment(scale=scale, detector=version)
    layout = pretraining.prepare_data(experiment, Progress)
    found = {}
    for source in data_layout.SOURCES:
        detector.require_boxes(experiment, layout, source, "val", Progress)
        truth = stages.groundtruth(layout, source)
        boxes = layout.person_boxes(experiment.boxes_name, source, "val")
        found[source] = quality(truth, read_person_boxes(boxes))
    where = provenance(str(processes.device()), time.monotonic() - started)
    words = {"detector": version, "stages": made_of(version, scale)["detector"]}
    words, found = json.loads(json.dumps([words, found]))  # as the record will be read again
    record = Record(words, made, scale, found, where, path.parent)
    if processes.rank() == 0:
        write_record(record, path)
    return record


def reference_detectors() -> dict[str, Record]:
    """The committed detector records by version."""
    records = read_records(published_dir("reference") / "detectors")
    return {record.experiment["detector"]: record for record in records}


@dataclass(frozen=True)
class Record:
    """What a run found.

    Attributes:
        experiment: the fields of :class:`stadlib.config.Experiment` as JSON has them.
        digest: of the experiment and its scale.
        scale: ``smoke``, ``mini`` or ``paper``; numbers of different scales are never mixed.
        metrics: by source (``ava``, ``kinetics``, ``ava+kinetics``): ``mAP`` and ``AP``.
        provenance: version, commit, dirty, torch, device, seconds, peak memory, time.
        folder: where the run's log, weights and detections lie; None for a bare record.
    """

    experiment: dict
    digest: str
    scale: str
    metrics: dict
    provenance: dict
    folder: Path | None = None

    def to_json(self) -> str:
        """The record as indented JSON, without the machine's folder."""
        content = {name: getattr(self, name) for name in _FIELDS}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


_FIELDS = ("experiment", "digest", "scale", "metrics", "provenance")


def make_record(experiment: Experiment, metrics: dict, provenance: dict, folder: Path) -> Record:
    """A record of what was just measured; JSON's view of it, so that it equals its re-read self."""
    content = json.loads(json.dumps({"experiment": experiment.to_dict(), "metrics": metrics}))
    return Record(
        experiment=content["experiment"],
        digest=experiment.digest,
        scale=experiment.scale,
        metrics=content["metrics"],
        provenance=provenance,
        folder=folder,
    )


def write_record(record: Record, path: Path) -> None:
    """Write a record whole."""
    write_whole(path, record.to_json())


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        InputError: the file is not a record.
    """
    try:
        content = json.loads(path.read_text())
        return Record(**{name: content[name] for name in _FIELDS}, folder=path.parent)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a record ({error}); delete it and run again") from error


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, in the order of their names."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def publish(record: Record, kind: str = "", name: str = "") -> None:
    """Copy a run's record to ``results/reference`` or a folder in it.

    The class counts of a run's training data go beside it, for the figures against frequency.

    Args:
        record: of a run, an ensemble or a detector on this machine.
        kind: ``test``, ``ensembles``, ``ensembles/members``, ``detectors``; empty: a row of a
            table.
        name: of the file; empty: that of the run's folder.

    Raises:
        InputError: it was made with uncommitted code, so nobody could make it again.
    """
    name = name or record.folder.name
    if record.provenance["dirty"] is not False:
        raise InputError(f"{name}: made with uncommitted code; commit and run again")
    folder = published_dir("reference") / kind
    write_whole(folder / f"{name}.json", record.to_json())
    if not kind:
        write_whole(folder / "class_counts.csv", class_counts(record).to_csv())


_IPYTHON = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def check_parameters(namespace: Mapping[str, object], *names: str) -> None:
    """Refuse a notebook parameter that does not exist, and a word that is not a choice.

    Call it first with ``globals()``: papermill alone would run the defaults and exit 0.

    Args:
        namespace: the notebook's variables.
        names: its parameters. ``seed`` and ``gpus`` are whole numbers; ``scale`` one word; the
            others are fields of an experiment, or ``memory`` (no, yes), where ``all`` is allowed
            too.

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
        elif name == "memory":
            check_word(name, value, (*MEMORY_WORDS, "all"))
        else:
            check_word(name, value, (*choices(name), "all"))


def refuse_unknown(namespace: Mapping[str, object], names: Sequence[str]) -> None:
    """Refuse a notebook's variable that is none of its parameters.

    Raises:
        ConfigError: one line that names the parameters.
    """
    for name, value in namespace.items():
        plain = not (name.startswith("_") or name in _IPYTHON or callable(value))
        if plain and not isinstance(value, ModuleType) and name not in names:
            raise ConfigError(f"unknown parameter {name!r}; choose from {', '.join(names)}")


def scale_of(word: str) -> str:
    """A notebook's scale, unless ``STADLIB_SCALE`` overrides it (nbval cannot inject one)."""
    return os.environ.get("STADLIB_SCALE", word)


def run_folder(experiment: Experiment) -> Path:
    """Where the run's record and detections lie."""
    return runs_dir() / f"{experiment.name}-{experiment.digest}"


def stage_folder(experiment: Experiment, number: int) -> Path:
    """Where the checkpoint, the log and the banks of a stage lie, counted from 1."""
    return stage_dir(experiment.stage_digest(number))


def find(experiment: Experiment) -> Record | None:
    """This machine's record of an experiment, if it was run."""
    path = run_folder(experiment) / "record.json"
    return read_record(path) if path.exists() else None


def run(
    experiment: Experiment,
    *,
    num_processes: int = 0,
    execution: Execution = USUAL,
) -> Record:
    """Train and evaluate an experiment, or read the record of having done so.

    A run that was interrupted goes on from its checkpoint and gives the same record.

    Args:
        experiment: a row of :mod:`stadlib.recipes`, or one's own.
        num_processes: from 1 on, ``torchrun`` is started on this node as a subprocess, which runs
            as many, each on a GPU of its own where there are any; 0: the run happens here.
        execution: what this machine decides; a record that is there is read whatever it says.

    Raises:
        InputError: the data, the checkpoint or the results folder cannot be used.
    """
    if record := find(experiment):
        return record
    folder = run_folder(experiment)
    _require_writable(folder)
    if num_processes:
        _torchrun(experiment, num_processes, execution)
        return read_record(folder / "record.json")
    return _run_here(experiment, folder, execution)


def _run_here(experiment: Experiment, folder: Path, execution: Execution) -> Record:
    """The whole run in this process (or this one of torchrun's)."""
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


def _require_writable(folder: Path) -> None:
    """Fail before hours of training, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"  # torchrun's processes probe side by side
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); free it, or set STADLIB_RESULTS"
        ) from error


def _torchrun(experiment: Experiment, num_processes: int, execution: Execution) -> None:
    """Start torchrun as a subprocess: a kernel that has touched CUDA cannot fork.

    What it says is passed on line by line, into a notebook's cell too.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={num_processes}", "-m", "stadlib", "train"]
    command += ["--experiment", json.dumps(experiment.to_dict()), *execution.words()]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "bufsize": 1}
    with subprocess.Popen(command, **how) as process:
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        except BaseException:  # an interrupted cell leaves no processes behind
            process.terminate()
            raise
    if process.returncode:
        raise InputError(f"{experiment.name}: torchrun failed; its messages stand above")


def record_file(folder: Path, split: str) -> Path:
    """Where a run or an ensemble keeps what was measured on a split."""
    return folder / ("record.json" if split == "val" else f"record_{split}.json")


def score_split(record: Record, split: str, execution: Execution = USUAL) -> Record | None:
    """Score another split with a finished run's model, or read the record of having done so.

    Args:
        record: of the run, on this machine.
        split: ``test``, or ``val`` again.
        execution: what this machine decides.

    Returns:
        The record of the split; None where nobody annotated it: then there are its detection files,
        which :mod:`stadlib.submission` takes.

    Raises:
        InputError: the run's weights are not here, or the split is not.
    """
    path = record_file(record.folder, split)
    if path.is_file():
        return read_record(path)
    experiment = from_dict(record.experiment)
    run = stages.open_run(experiment, record.folder, Progress, execution)
    started = time.monotonic()
    model = stages.trained_model(run)
    found = _record(record, stages.score(run, model, split), started)
    if not found.metrics:
        return None
    if processes.rank() == 0:
        write_record(found, path)
    processes.barrier()
    return read_record(path)


def ensemble(members: Sequence[Experiment], split: str = "val") -> Record | None:
    """Average voting of runs (paper section 3.1), all of which scored the same boxes.

    Args:
        members: experiments whose runs are on this machine.
        split: ``val``, or ``test`` once :func:`score_split` scored it with every member.

    Returns:
        The ensemble's record, whose experiment names its members; None where nobody annotated the
        split.

    Raises:
        InputError: a member was not run or has not scored the split, or boxes differ.
    """
    started = time.monotonic()
    folders = [run_folder(member) for member in members]
    scale, seed = members[0].scale, members[0].seed
    named = {member.name: member.digest for member in members}
    content = {"members": named, "scale": scale, "seed": seed}
    folder = runs_dir() / f"ensemble_{len(members)}_{scale}_seed{seed}-{digest(content)}"
    path = record_file(folder, split)
    if path.is_file():
        return read_record(path)
    layout = prepare_data(members[0], Progress)
    files = {}
    for source in _sources(layout, split):
        own = [stages.detection_file(one, source, split) for one in folders]
        for file in own:
            if not file.is_file():
                raise InputError(f"{file}: no such file; train that member or score the split")
        files[source] = stages.detection_file(folder, source, split)
        folder.mkdir(parents=True, exist_ok=True)
        ensembles.average(own, files[source])
    truths = {s: stages.groundtruth(layout, s, split) for s in files if _known(layout, s, split)}
    if not truths:
        return None
    own = {source: files[source] for source in truths}
    metrics = stages.frame_maps(truths, own, layout.label_map())
    bare = Record(content, digest(content), scale, {}, {}, folder)
    write_record(_record(bare, metrics, started), path)
    return read_record(path)


def _record(of: Record, metrics: dict, started: float) -> Record:
    origin = provenance(str(processes.device()), time.monotonic() - started)
    return Record(of.experiment, of.digest, of.scale, metrics, origin, of.folder)


def _sources(layout: AvaLayout, split: str) -> list[str]:
    there = (layout.annotations, layout.video_list)
    return [s for s in SOURCES if any(file(s, split).is_file() for file in there)]


def _known(layout: AvaLayout, source: str, split: str) -> bool:
    """Whether a source's split has annotated persons."""
    return layout.annotations(source, split).is_file() and stages.has_actions(
        stages.groundtruth(layout, source, split)
    )


def class_counts(record: Record) -> pd.DataFrame:
    """Return the training instances of every action in the data of a run.

    Returns:
        By ``action_id``: ``name``, and the instances in ``ava`` and ``kinetics``.
    """
    workspace, run = open_run(record)
    layout = run.layout
    labels = layout.label_map()
    counts = pd.DataFrame(index=pd.Index(labels.ids, name="action_id"))
    counts["name"] = [labels.name(action) for action in labels.ids]
    for source in workspace.SOURCES:
        persons = [k.actions for k in workspace.annotated(layout, [source], "train")]
        counts[source] = np.concatenate(persons).sum(axis=0)
    return counts


def open_run(record: Record) -> tuple:
    """The module that opens runs, and the record's."""
    from stadlib.training import stages  # noqa: PLC0415  (torch)

    return stages, stages.open_run(from_dict(record.experiment), record.folder, Progress)


def find_run(name: str = "") -> Path:
    """The folder of a run: a path, a name under ``results/runs`` or a part of one.

    Args:
        name: where several runs' names contain it, the newest is meant; empty: the newest of all.

    Raises:
        InputError: no such run; the line names the runs there are.
    """
    if name and Path(name).is_dir():
        return Path(name)
    folders = [folder for folder in _run_folders() if name in folder.name]
    if not folders:
        there = ", ".join(folder.name for folder in _run_folders()[-3:]) or "none yet"
        what = f"no run whose name contains {name!r}" if name else "no run"
        raise InputError(f"{runs_dir()}: {what}; there are: {there}")
    return folders[-1]


def _run_folders() -> list[Path]:
    """All runs, the one that was worked on last at the end."""
    folders = [path for path in runs_dir().glob("*") if path.is_dir() and path.name != "stages"]
    return sorted(folders, key=lambda folder: (folder.stat().st_mtime, folder.name))

"""Run an experiment, or read its record: the one entrance for notebooks and the command line.

torch is imported only once something is trained, so that a wrong word is refused at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from stadlib.config import (
    ConfigError,
    Experiment,
    InputError,
    check_word,
    choices,
)
from stadlib.execution import USUAL, Execution
from stadlib.paths import runs_dir, stage_dir
from stadlib.progress import Progress
from stadlib.recipes import MEMORY_WORDS
from stadlib.records import Record, make_record, provenance, read_record, write_record
from stadlib.scales import SCALES

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
    from stadlib import processes, stages, workspace  # noqa: PLC0415  (torch)

    started = time.monotonic()
    opened = workspace.open_run(experiment, folder, Progress, execution)
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

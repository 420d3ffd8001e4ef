"""A record: one experiment, its metrics and where they come from, as JSON on disk.

The contract between training, notebooks and whoever reads the numbers. APs are fractions keyed by
action id, null where a class has no ground truth.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from stadlib.config import Experiment, InputError
from stadlib.paths import write_whole


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


_PUBLISHED = (":(top,exclude)results/reference",)  # records that were just published are no code


def provenance(device: str, seconds: float) -> dict:
    """Where a number comes from: code, libraries, device, cost."""
    commit = _git("rev-parse", "HEAD")
    return {
        "version": version("stadlib"),
        "commit": commit,
        "dirty": bool(_git("status", "--porcelain", "--", ":/", *_PUBLISHED)) if commit else None,
        "python": sys.version.split()[0],
        "torch": version("torch"),
        "device": device,
        "seconds": round(seconds, 1),
        "peak_memory_mb": _peak_memory_mb(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _peak_memory_mb() -> int:
    """Of this process and its largest child (a decoding worker), resident, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    usage = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return round(sum(usage) * unit / 1e6)


def _git(*words: str) -> str:
    """What git says of the checkout; empty where there is none."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

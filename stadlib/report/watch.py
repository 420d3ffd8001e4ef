"""What a run is doing, read from its log lines and record.

Nothing is opened for writing and no torch is loaded, so that watching never disturbs a run.
"""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

from stadlib.base import InputError
from stadlib.recipes.experiment import from_dict
from stadlib.study import read_record, stage_folder


def status(folder: Path, now: float | None = None) -> list[str]:
    """What a run is doing, a few lines of text; ``now`` is in seconds since the epoch."""
    now, record = time.time() if now is None else now, folder / "record.json"
    if not (path := folder / "experiment.json").is_file():
        raise InputError(f"{folder}: no experiment.json; name the folder of a run")
    experiment = from_dict(json.loads(path.read_text()))
    lines = [folder.name]
    for number in range(1, len(experiment.stages) + 1):
        first, *others = _stage_lines(stage_folder(experiment, number), now)
        lines += [f"stage {number} of {len(experiment.stages)}: {first}", *others]
    if record.is_file():
        means = {name: found["mAP"] for name, found in read_record(record).metrics.items()}
        values = [f"{name} {100 * mean:.2f}" for name, mean in means.items() if mean is not None]
        lines.append("finished; mAP@0.5, %: " + ", ".join(values))
    return lines


def _stage_lines(folder: Path, now: float) -> list[str]:
    """One stage: how far, how well, how fast."""
    path = folder / "log.jsonl"
    log = read_log(path) if path.is_file() else []
    if not log:
        return ["begun, nothing logged yet" if path.is_file() else "not begun"]
    last, loss = log[-1], log[0]["loss"]
    done, total = last["iteration"] + 1, last["iterations"]
    for line in log[1:]:
        loss += 0.2 * (line["loss"] - loss)  # smoothed over about ten lines
    words = f"iteration {done} of {total} ({done / total:.0%}), loss {loss:.4f} (smoothed)"
    words += f", lr {last['lr']:.3g}"
    recent = [last]
    for line in reversed(log[-20:-1]):  # one process's: its clock starts at 0 after a restart
        if line["seconds"] > recent[-1]["seconds"]:
            break
        recent.append(line)
    seconds = last["seconds"] - recent[-1]["seconds"]
    details = [f"last line {_span(now - path.stat().st_mtime)} ago"]
    if seconds > 0 and done < total:
        speed = (last["iteration"] - recent[-1]["iteration"]) / seconds
        words += f", {speed:.3g} iterations/s, {_span((total - done) / speed)} left"
        if "data_seconds" in last:
            waited = sum(line["data_seconds"] for line in recent[:-1])
            details.append(f"waiting for data {waited / seconds:.0%}")
    if last.get("peak_gpu_mb"):
        details.append(f"GPU {last['peak_gpu_mb'] / 1000:.1f} GB at most")
    return [words, "  " + ", ".join(details)]


def read_log(path: Path) -> list[dict]:
    """The lines of a ``log.jsonl``; a line that was cut by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def _span(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))

"""What a run is doing, read from what it writes: log lines, checkpoints' times, the record.

Nothing is opened for writing and no torch is loaded, so that watching never disturbs a run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from stadlib import recipes
from stadlib.base import runs_dir, stage_dir
from stadlib.recipes.experiment import Experiment, choices, from_dict
from stadlib.recipes.scales import SCALES
from stadlib.study import read_record

RECENT = 20  # log lines over which speed and waiting are taken
SMOOTH = 10  # span, in log lines, of the smoothed loss


def status(folder: Path, now: float | None = None) -> list[str]:
    """What a run is doing, a few lines of text.

    Args:
        folder: of a run, or of a stage (one that holds ``log.jsonl``).
        now: seconds since the epoch, for the ages of files; default: the clock.
    """
    now = time.time() if now is None else now
    lines = [folder.name]
    if (folder / "log.jsonl").is_file():
        return [*lines, *_stage_lines(folder, "training", None, now)]
    record = folder / "record.json"
    experiment = _experiment(folder)
    if experiment is None:
        lines += _unknown_stages(folder, now)
    else:
        lines += _known_stages(experiment, now)
    if record.is_file():
        found = read_record(record).metrics
        means = {source: of["mAP"] for source, of in found.items() if of["mAP"] is not None}
        values = (f"{source} {100 * mean:.2f}" for source, mean in means.items())
        lines.append("finished; mAP@0.5, %: " + ", ".join(values))
    return lines


def finished(folder: Path) -> bool:
    """Whether nothing more will come of a run."""
    return (folder / "record.json").is_file()


def _experiment(folder: Path) -> Experiment | None:
    """What a folder is the run of: its record says it, or else a recipe of the same digest.

    None for an unfinished run that no recipe gives, on data of one's own for instance.
    """
    if (folder / "record.json").is_file():
        return from_dict(read_record(folder / "record.json").experiment)
    words, _, digest = folder.name.rpartition("-")
    rows = (row for row in _recipes(words.split("_")) if row.digest == digest)
    return next(rows, None)


def _recipes(words: list[str]) -> Iterator[Experiment]:
    """Every experiment of the recipes whose folder's name could have these words."""
    if len(words) < 6:
        return
    backbone, _, _, head, *_, scale, seed = words
    known = backbone in choices("backbone") and head in choices("head") and scale in SCALES
    if not known or not seed.removeprefix("seed").isdecimal():
        return
    where = {"scale": scale, "seed": int(seed.removeprefix("seed"))}
    for detector in recipes.DETECTORS:
        yield from recipes.table1(**where, detector=detector)
    how = where | {"backbone": backbone, "head": head}
    tables = (recipes.table2, recipes.table3, recipes.table4, recipes.box_uses)
    for table in (*tables, recipes.memory_ablation):
        yield from table(**how).values()


def _known_stages(experiment: Experiment, now: float) -> Iterator[str]:
    """A few lines for each stage of an experiment."""
    number_of = len(experiment.stages)
    for number, stage in enumerate(experiment.stages, 1):
        folder = stage_dir(experiment.stage_digest(number))
        title = f"stage {number} of {number_of}"
        if (folder / "log.jsonl").is_file():
            clips = stage.batch if stage.train == "all" else None
            yield from _stage_lines(folder, title, clips, now)
        else:
            yield f"{title}: not begun"


def _unknown_stages(folder: Path, now: float) -> Iterator[str]:
    """Of a run that no recipe gives: the stage that was written to last since it was started."""
    logs = [path for path in (runs_dir() / "stages").glob("*/log.jsonl") if path.stat().st_size]
    since = [path for path in logs if path.stat().st_mtime >= folder.stat().st_mtime]
    if not since:
        yield "no stage has begun: it prepares data, or pretrains the backbone"
        return
    log = max(since, key=lambda path: path.stat().st_mtime)
    yield "of no recipe; the stage written to last since this run was started:"
    yield from _stage_lines(log.parent, f"stage {log.parent.name}", None, now)


def _stage_lines(folder: Path, title: str, clips: int | None, now: float) -> Iterator[str]:
    """One stage: how far, how well, how fast; ``clips`` is the size of a batch of clips."""
    log = read_log(folder / "log.jsonl")
    if log.empty:
        yield f"{title}: begun, nothing logged yet"
        return
    last = log.iloc[-1]
    done, total = int(last["iteration"]) + 1, last.get("iterations")
    known = bool(pd.notna(total))  # lines of earlier versions do not tell it
    far = f"{done} of {int(total)} ({done / total:.0%})" if known else str(done)
    loss = log["loss"].ewm(span=SMOOTH).mean().iloc[-1]
    words = f"{title}: iteration {far}, loss {loss:.4f} (smoothed), lr {last['lr']:.3g}"
    age = partial(_age, now=now)
    if known and done + max(1, total // 200) > total and _newer(folder):
        yield words
        yield f"  trained {age(folder / 'checkpoint.pt')} ago"
        return
    speed = _speed(log)
    if speed:
        words += f", {speed:.3g} iterations/s"
        words += f" = {speed * clips:.3g} clips/s" if clips else ""
        words += f", {_time((total - done) / speed)} left" if known else ""
    yield words
    details = [f"last line {age(folder / 'log.jsonl')} ago", *_costs(log)]
    if (folder / "checkpoint.pt").is_file():
        details.insert(1, f"checkpoint {age(folder / 'checkpoint.pt')} ago")
    yield "  " + ", ".join(details)


def read_log(path: Path) -> pd.DataFrame:
    """Read the lines of a ``log.jsonl``; one that is being written, or was cut by a kill, is left.

    Returns:
        ``iteration``, ``loss``, ``lr``, ``seconds`` since the process began, and, where the log
        has them, ``iterations`` in all, ``data_seconds`` waited for data since the line before,
        ``peak_gpu_mb``.
    """
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return pd.DataFrame(lines)


def _recent(log: pd.DataFrame) -> pd.DataFrame:
    """The last lines that one process wrote: its clock starts at 0 after a restart."""
    back = (log["seconds"].diff() < 0).cumsum()
    return log[back == back.iloc[-1]].tail(RECENT)


def _speed(log: pd.DataFrame) -> float:
    """Iterations a second; 0 where too few lines tell."""
    first, last = _recent(log).iloc[0], log.iloc[-1]
    seconds = last["seconds"] - first["seconds"]
    return float((last["iteration"] - first["iteration"]) / seconds) if seconds > 0 else 0.0


def _costs(log: pd.DataFrame) -> Iterator[str]:
    """The share of time spent waiting for data, and the memory of the GPU."""
    lines = _recent(log)
    seconds = lines["seconds"].iloc[-1] - lines["seconds"].iloc[0]
    if "data_seconds" in log and seconds > 0:
        yield f"waiting for data {lines['data_seconds'].iloc[1:].sum() / seconds:.0%}"
    if "peak_gpu_mb" in log and log["peak_gpu_mb"].iloc[-1] > 0:
        yield f"GPU {log['peak_gpu_mb'].iloc[-1] / 1000:.1f} GB at most"


def _newer(folder: Path) -> bool:
    """Whether a stage's checkpoint was written after the last line of its log."""
    log, checkpoint = folder / "log.jsonl", folder / "checkpoint.pt"
    return checkpoint.is_file() and checkpoint.stat().st_mtime >= log.stat().st_mtime


def _age(path: Path, now: float) -> str:
    return _time(max(0.0, now - path.stat().st_mtime))


def _time(seconds: float) -> str:
    """A span of time in its two largest units."""
    whole = round(seconds)
    for size, unit, smaller, name in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {name}"
    return f"{whole} s"

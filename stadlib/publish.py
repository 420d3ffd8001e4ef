"""What of this machine's runs becomes part of the study: ``results/reference``, to be committed."""

from __future__ import annotations

import gzip
import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from stadlib import base, recipes, study
from stadlib.base import InputError, write_whole
from stadlib.recipes.experiment import Experiment
from stadlib.study import Record, read_record, write_record

if TYPE_CHECKING:
    from stadlib.training.stages import Run


def publish(record: Record, kind: str = "", name: str = "") -> None:
    """Copy a record to ``results/reference/KIND``; one of uncommitted code is refused.

    Without a kind it is a row of a table. If it is not of somebody's own data, the class counts of
    its training data are written too, and its backbone, its boxes and the hash of its world become
    part of the study, as those of a row beyond the paper do. The row of README's first command
    leaves its losses in ``curves``. A digest names one outcome: when it is published already, this
    run becomes a line of ``results/machines.csv``, which says what the same experiment gave where.
    """
    name = name or record.folder.name
    if record.provenance["dirty"] is not False:
        raise InputError(f"{name}: made with uncommitted code; commit and run again")
    if base.provenance("", 0)["dirty"]:  # what is counted below would be of other code
        raise InputError(f"{name}: the code was edited since; commit or undo that")
    folder = base.published_dir("reference") / kind
    path = folder / f"{name}.json"
    if path.is_file() and read_record(path).to_json() != record.to_json():
        _note_machine(record, folder.parents[bool(kind)] / "machines.csv")
        return
    write_record(record, path)
    if kind in ("", "beyond") and not record.experiment["dataset"]:
        _publish_inputs(study.open_run(record))
    if not kind and not record.experiment["dataset"]:
        write_whole(folder / "class_counts.csv", study.class_counts(record).to_csv())
    if record.digest == _first_row(record).digest:
        from stadlib.report import runs  # noqa: PLC0415  (torch)

        curve = runs.training_log(record)[["iteration", "loss"]]
        write_whole(folder / "curves" / f"{record.digest}.csv", curve.to_csv(index=False))


def _first_row(record: Record) -> Experiment:
    """What README's first command runs, at the scale of a record and with its seed."""
    words = {"head": "t-only", "backbone": "ir-csn-152", "pretrain": "K700", "memory": "no"}
    (row,) = recipes.table1(scale=record.scale, seed=record.experiment["seed"], **words)
    return row


def _publish_inputs(opened: Run) -> None:
    """Make the backbone that a run started from, and its detector's boxes, the study's own."""
    from stadlib.data.layout import SOURCES, SPLITS  # noqa: PLC0415
    from stadlib.training.pretraining import Pretraining, world_hash  # noqa: PLC0415  (torch)

    experiment, folder = opened.experiment, base.published_dir("reference")
    if experiment.scale == "paper" or experiment.weights == "anew":
        return
    plan, root = Pretraining(experiment), opened.layout.root
    worlds = folder / "weights" / "worlds.json"
    copies = [(plan.weights, plan.published)]
    copies += [(plan.record, plan.published.with_suffix(".accuracy.json"))]
    for old, new in copies:
        if old.is_file() and not new.is_file():
            write_whole(new, old.read_bytes())
    # Not those of training, ten times as large, which memory alone needs.
    scored = [split for split in SPLITS if split != "train"]
    for split in product(SOURCES, scored) if experiment.detected else ():
        boxes = opened.layout.person_boxes(experiment.boxes_name, *split)
        new = folder / "boxes" / f"{boxes.name}.gz"
        if boxes.is_file() and not new.is_file():
            write_whole(new, gzip.compress(boxes.read_bytes(), mtime=0))
    known = json.loads(worlds.read_text()) if worlds.is_file() else {}
    known.setdefault(f"{root.parent.name}/{root.name}", world_hash(root))
    write_whole(worlds, json.dumps(known, indent=1, sort_keys=True) + "\n")


def _note_machine(record: Record, path: Path) -> None:
    """Append what a published experiment gave in a later run to the table of machines."""
    origin = record.provenance
    values = {"finished": origin["finished"], "processor": origin["processor"]}
    values |= {"threads": origin["threads"], "seconds": origin["seconds"]}
    values |= {"memory_mb": origin["peak_memory_mb"], "world": origin.get("world", "")}
    values |= {"run": f"{record.experiment['head']} seed {record.experiment['seed']}"}
    values |= {"digest": record.digest}
    values |= {name: round(100 * found["mAP"], 2) for name, found in record.metrics.items()}
    lines = path.read_text().splitlines() if path.is_file() else [",".join(values)]
    line = ",".join(str(value).replace(",", " ") for value in values.values())
    write_whole(path, "\n".join([*lines, *[line] * (line not in lines)]) + "\n")

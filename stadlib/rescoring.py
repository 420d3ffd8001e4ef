"""Finished runs scored further: on another split, and several together (Table 1's last row).

Both give records of their own: what was trained is known by its digest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from stadlib import ensembles, evaluate, processes, scoring, stages, study, workspace
from stadlib.config import Experiment, InputError, digest, from_dict
from stadlib.data.layout import SOURCES, AvaLayout
from stadlib.execution import USUAL, Execution
from stadlib.paths import runs_dir
from stadlib.preparation import prepare_data
from stadlib.progress import Progress
from stadlib.records import Record, provenance, read_record, write_record


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
    run = workspace.open_run(experiment, record.folder, Progress, execution)
    started = time.monotonic()
    model = stages.trained_model(run)
    found = _record(record, scoring.score(run, model, split), started)
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
    folders = [study.run_folder(member) for member in members]
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
        own = [scoring.detection_file(one, source, split) for one in folders]
        for file in own:
            if not file.is_file():
                raise InputError(f"{file}: no such file; train that member or score the split")
        files[source] = scoring.detection_file(folder, source, split)
        folder.mkdir(parents=True, exist_ok=True)
        ensembles.average(own, files[source])
    truths = {s: workspace.groundtruth(layout, s, split) for s in files if _known(layout, s, split)}
    if not truths:
        return None
    own = {source: files[source] for source in truths}
    metrics = evaluate.frame_maps(truths, own, layout.label_map())
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
    return layout.annotations(source, split).is_file() and workspace.has_actions(
        workspace.groundtruth(layout, source, split)
    )

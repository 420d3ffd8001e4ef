"""Writes a miniature world to disk in the official AVA-Kinetics layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stadlib.data.layout import LABEL_MAP_FILE, AvaLayout
from stadlib.data.miniature import classes
from stadlib.data.miniature.annotate import Instance, annotate, visible
from stadlib.data.miniature.encode import encode
from stadlib.data.miniature.render import Stage
from stadlib.data.miniature.script import (
    SIZE,
    SOURCES,
    SPLITS,
    Plan,
    Script,
    plan_split,
    write_script,
)
from stadlib.data.miniature.spec import WorldSpec
from stadlib.data.miniature.store import Progress, in_parallel, is_complete, rendered_whole
from stadlib.labels import LabelMap, write_label_map
from stadlib.paths import write_whole


@dataclass(frozen=True)
class _Job:
    spec: WorldSpec
    plan: Plan
    folder: Path


@dataclass(frozen=True)
class _Done:
    source: str
    split: str
    video: str
    start: float
    rows: list[str]
    excluded: list[str]


def render_world(
    root: Path, spec: WorldSpec, workers: int | None = None, progress: Progress | None = None
) -> Path:
    """Render ``spec`` into ``root`` unless it is there; the same bytes for any number of workers.

    Args:
        root: folder of the dataset; it appears when everything is written.
        spec: what to render.
        workers: processes; default: the cores this process may use, at most 8.
        progress: called with (videos done, videos in all).

    Returns:
        ``root``.

    Raises:
        InputError: ``root`` exists and holds something else.
    """
    root = Path(root)
    if is_complete(root, "world", spec):
        return root
    with rendered_whole(root, "world", spec) as folder:
        for source in SOURCES:
            (folder / "videos" / source).mkdir(parents=True)
        jobs = [
            _Job(spec, plan, folder)
            for source in SOURCES
            for split in SPLITS
            for plan in plan_split(spec, source, split)
        ]
        done = in_parallel(_render, jobs, workers, progress)
        _write_annotations(AvaLayout(folder), done)
    return root


def _render(job: _Job) -> _Done:
    script = write_script(job.spec, job.plan)
    rate = job.spec.frames_per_second
    path = job.folder / "videos" / script.source / f"{script.video}.mp4"
    encode(path, Stage(script).frames(script.seconds, rate), SIZE[script.source], rate)
    excluded = [f"{script.video},{clock(script, t)}" for t in script.excluded]
    plan = job.plan
    return _Done(plan.source, plan.split, script.video, script.start, rows(script), excluded)


def clock(script: Script, t: float) -> str:
    """The keyframe's time on the annotation clock, as the official files write it."""
    moment = script.start + t
    return f"{moment:04.0f}" if script.source == "ava" else f"{moment:.6f}"


def rows(script: Script) -> list[str]:
    """Annotation lines of one video; two columns where a keyframe has no label."""
    by_time: dict[float, list[Instance]] = {t: [] for t in script.keyframes}
    for instance in annotate(script):
        by_time[instance.t].append(instance)
    lines = []
    for t, instances in by_time.items():
        head = f"{script.video},{clock(script, t)}"
        if not instances or t in script.silent:
            lines.append(head)
            continue
        for one in instances:
            box = ",".join(f"{v:.4f}" for v in one.box)
            lines += [f"{head},{box},{label},{one.person}" for label in one.labels]
    return lines


def write_person_boxes(root: Path, spec: WorldSpec) -> None:
    """Write who can be seen in every second of every video, annotated or not, unless it is there.

    What the best of detectors would find. Memory needs it: a Kinetics clip has one annotated
    second, but persons in all ten. Seconds are counted from the annotated ones.
    """
    layout = AvaLayout(root)
    for source in SOURCES:
        for split in SPLITS:
            path = layout.person_boxes("ground-truth", source, split)
            if not path.exists():
                scripts = (write_script(spec, plan) for plan in plan_split(spec, source, split))
                lines = [line for script in scripts for line in _box_rows(script)]
                write_whole(path, "".join(f"{line}\n" for line in lines))


def _box_rows(script: Script) -> list[str]:
    """Rows ``video,timestamp,x1,y1,x2,y2,,score`` of one video; corners as in the annotations."""
    width, height = SIZE[script.source]
    first = script.keyframes[0] % 1
    lines = []
    for t in (first + second for second in range(script.seconds)):
        for x1, y1, x2, y2 in visible(script, t).values():
            box = (x1 / width, y1 / height, x2 / width, y2 / height)
            corners = ",".join(f"{v:.4f}" for v in box)
            lines.append(f"{script.video},{clock(script, t)},{corners},,1.0")
    return lines


def _write_annotations(layout: AvaLayout, done: list[_Done]) -> None:
    layout.annotation_folder.mkdir()
    for source in SOURCES:
        for split in SPLITS:
            part = [d for d in done if (d.source, d.split) == (source, split)]
            _write(layout.annotations(source, split), [row for d in part for row in d.rows])
            _write(layout.video_list(source, split), [d.video for d in part])
            if source == "ava":
                excluded = [row for d in part for row in d.excluded]
                _write(layout.excluded_file(source, split), excluded)
    starts = ["source,video,seconds", *(f"{d.source},{d.video},{d.start:g}" for d in done)]
    _write(layout.annotation_folder / "video_starts.csv", starts)
    write_label_map(layout.annotation_folder / LABEL_MAP_FILE, LabelMap(classes.NAMES))


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

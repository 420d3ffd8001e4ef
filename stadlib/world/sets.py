"""A rendered folder appears whole or not at all, rendered by several processes at once.

Writes a miniature world to disk in the official AVA-Kinetics layout.

The classification set a backbone learns first on: close-ups of one activity each.

Forty classes cross activities with postures, objects and who faces whom. The first twenty are the
smaller set (standing for K400), all of them the larger (standing for K700).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from stadlib.base import InputError, write_whole
from stadlib.data.labels import LabelMap, write_label_map
from stadlib.data.layout import LABEL_MAP_FILE, AvaLayout
from stadlib.data.video import encode
from stadlib.world import actions, objects, story
from stadlib.world.actions import FRONT, LEFT, RIGHT
from stadlib.world.annotate import Instance, annotate, visible
from stadlib.world.figures import random_looks
from stadlib.world.render import Stage
from stadlib.world.scenery import random_camera
from stadlib.world.script import (
    SIZE,
    SOURCES,
    SPLITS,
    Plan,
    Script,
    finish_person,
    generator,
    plan_split,
    write_script,
)
from stadlib.world.spec import WorldSpec

Progress = Callable[[int, int], None]
_MAX_WORKERS = 8


def _seal(part: str, spec: WorldSpec) -> dict:
    return json.loads(json.dumps({"part": part, "spec": asdict(spec)}))


def is_complete(root: Path, part: str, spec: WorldSpec) -> bool:
    """Whether ``root`` already holds this part of this world.

    Raises:
        InputError: ``root`` holds something else.
    """
    if not root.exists():
        return False
    try:
        seal = json.loads((root / "world.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        seal = {}
    if any(seal.get(key) != value for key, value in _seal(part, spec).items()):
        raise InputError(f"{root}: not the miniature {part} asked for; remove it or name another")
    return True


@contextmanager
def rendered_whole(root: Path, part: str, spec: WorldSpec) -> Iterator[Path]:
    """A folder to write into, which becomes ``root`` at the end.

    Two processes may render at once: each has its own folder and the first to finish wins. What a
    killed process left behind is swept away by the next one on the same machine.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    folder = root.with_name(f".{root.name}.{os.getpid()}.rendering")
    folder.mkdir()
    try:
        yield folder
        text = json.dumps(_seal(part, spec), indent=1)
        (folder / "world.json").write_text(text + "\n", encoding="utf-8")
        try:
            folder.rename(root)
        except OSError:  # another process was faster
            if not is_complete(root, part, spec):
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    for folder in root.parent.glob(f".{root.name}.*.rendering"):
        pid = int(folder.name.split(".")[-2])
        try:
            os.kill(pid, 0)
            alive = pid != os.getpid()
        except ProcessLookupError:
            alive = False
        except PermissionError:
            alive = True
        if not alive:
            shutil.rmtree(folder, ignore_errors=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: what this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_thread() -> None:
    cv2.setNumThreads(1)


def in_parallel(
    task: Callable, jobs: Sequence, workers: int | None, progress: Progress | None
) -> list:
    """``[task(job) for job in jobs]`` in ``workers`` processes, in order.

    ``task`` must be importable; it is sent to fresh (spawned) processes, which is safe from
    notebooks and after a GPU has been touched.
    """
    workers = workers or min(_MAX_WORKERS, _cores())
    results = []
    if workers == 1:
        before = cv2.getNumThreads()
        _one_thread()
        try:
            _collect(map(task, jobs), len(jobs), results, progress)
        finally:
            cv2.setNumThreads(before)
        return results
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        chunk = max(1, min(8, len(jobs) // (4 * workers)))
        _collect(pool.map(task, jobs, chunksize=chunk), len(jobs), results, progress)
    return results


def _collect(made: Iterator, total: int, results: list, progress: Progress | None) -> None:
    for result in made:
        results.append(result)
        if progress is not None:
            progress(len(results), total)


@dataclass(frozen=True)
class _MovieJob:
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
            _MovieJob(spec, plan, folder)
            for source in SOURCES
            for split in SPLITS
            for plan in plan_split(spec, source, split)
        ]
        done = in_parallel(_render_movie, jobs, workers, progress)
        _write_annotations(AvaLayout(folder), done)
    return root


def _render_movie(job: _MovieJob) -> _Done:
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
    write_label_map(layout.annotation_folder / LABEL_MAP_FILE, LabelMap(actions.NAMES))


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


#: (activity, posture); "+" marks two persons
CLASSES: tuple[tuple[str, str], ...] = (
    ("dance", "stand"), ("martial", "stand"), ("read", "stand"), ("phone", "sit"),
    ("instrument", "stand"), ("computer", "sit"), ("hold", "stand"), ("quiet", "walk"),
    ("talk", "stand"), ("fight+", "stand"), ("hug+", "stand"), ("give+", "stand"),
    ("drink", "stand"), ("text", "sit"), ("bend", "stand"), ("quiet", "crouch"),
    ("fall", "stand"), ("facing+", "stand"), ("eat", "sit"), ("quiet", "sit"),
    ("quiet", "stand"), ("quiet", "run"), ("read", "sit"), ("phone", "stand"),
    ("instrument", "sit"), ("cut", "stand"), ("hold", "walk"), ("getup", "stand"),
    ("quiet", "lie"), ("touch", "stand"), ("wave", "stand"), ("shake+", "stand"),
    ("talk", "sit"), ("following+", "stand"), ("parting+", "stand"), ("drink", "sit"),
    ("eat", "stand"), ("text", "stand"), ("touch", "crouch"), ("talk+", "stand"),
)  # fmt: skip
NUM_SMALL = 20
_STREAM = 11  # random streams of the world begin with other words
Span = tuple[float, float]
_EVENTS = ("hug", "give", "shake")


@dataclass(frozen=True)
class _ClipJob:
    spec: WorldSpec
    folder: Path
    split: str
    index: int
    label: int

    @property
    def video(self) -> str:
        return f"{self.split}_{self.index:05d}"


def render_pretraining(
    root: Path, spec: WorldSpec, workers: int | None = None, progress: Progress | None = None
) -> Path:
    """Render the classification set into ``root`` unless it is there.

    Writes ``videos/<id>.mp4``, ``k400_{train,val}.csv`` and ``k700_{train,val}.csv`` with columns
    ``video,label``, and the class names in ``k700_classes.txt``. Arguments, result and errors as
    in :func:`stadlib.data.miniature.render_world`.
    """
    root = Path(root)
    if is_complete(root, "pretraining", spec):
        return root
    with rendered_whole(root, "pretraining", spec) as folder:
        (folder / "videos").mkdir()
        jobs = []
        for number, split in enumerate(("train", "val")):
            rng = generator(spec.seed, _STREAM, number)
            equal = {str(label): 1.0 for label in range(len(CLASSES))}
            labels = actions.deck(equal, spec.pretraining_clips[number], rng)
            jobs += [_ClipJob(spec, folder, split, i, int(label)) for i, label in enumerate(labels)]
        in_parallel(_render_clip, jobs, workers, progress)
        _write_lists(folder, jobs)
    return root


def _write_lists(folder: Path, jobs: list[_ClipJob]) -> None:
    for name, limit in (("k400", NUM_SMALL), ("k700", len(CLASSES))):
        for split in ("train", "val"):
            part = [job for job in jobs if job.split == split and job.label < limit]
            lines = ["video,label", *(f"{job.video},{job.label}" for job in part)]
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{name}_{split}.csv").write_text(text, encoding="utf-8")
    names = "".join(f"{what} {posture}\n" for what, posture in CLASSES)
    (folder / "k700_classes.txt").write_text(names, encoding="utf-8")


def _render_clip(job: _ClipJob) -> None:
    script = close_up(job.spec, job.split, job.index, job.label)
    rate = job.spec.frames_per_second
    path = job.folder / "videos" / f"{job.video}.mp4"
    encode(path, Stage(script).frames(script.seconds, rate), SIZE["pretraining"], rate)


def close_up(spec: WorldSpec, split: str, index: int, label: int) -> Script:
    """The script of one clip of class ``label``."""
    words = (spec.seed, _STREAM, ("train", "val").index(split), index + 1)
    rng = generator(*words)
    width, frame_height = SIZE["pretraining"]
    activity, posture = CLASSES[label]
    height = float(rng.uniform(46, 68))
    ground = min(frame_height + 4.0, height + float(rng.uniform(8, 20)))
    distance = height * float(rng.uniform(0.62, 0.9))
    middle = width / 2 + float(rng.uniform(-10, 10))
    places = [middle - distance / 2, middle + distance / 2] if activity.endswith("+") else [middle]
    actors = [
        story.Actor(k, x, height * float(rng.uniform(0.96, 1.04)), ground, posture)
        for k, x in enumerate(places)
    ]
    span = (-2.0, float(spec.pretraining_seconds))
    if len(actors) == 2:
        _pair(activity[:-1], actors, span, rng)
    else:
        _one(activity, actors[0], span, width, rng)
        if rng.random() < 0.25:
            actors.append(_bystander(width, height, ground, span, rng))
    looks = random_looks(len(actors), rng)
    persons = tuple(finish_person(a, look) for a, look in zip(actors, looks, strict=True))
    camera = random_camera(
        "kinetics" if rng.random() < 0.5 else "ava", spec.pretraining_seconds, rng
    )
    return Script("pretraining", f"{split}_{index:05d}", spec.pretraining_seconds, 0.0, (), (), (),
                  persons, camera, words)  # fmt: skip


def _pair(what: str, pair: list[story.Actor], span: Span, rng: np.random.Generator) -> None:
    first = int(rng.integers(2))
    sides = [RIGHT, LEFT]
    if what == "parting":
        sides = [LEFT, RIGHT]
    elif what == "following":
        sides = [[LEFT, LEFT], [RIGHT, RIGHT]][first]
    for actor, side in zip(pair, sides, strict=True):
        if what == "fight" or (what == "talk" and actor is pair[first]):
            actor.do(*span, what, facing=side, phase=float(rng.uniform(0, 6)))
        else:
            story.quiet(actor, span, side)
    if what in _EVENTS:
        story.play(what, pair, float(rng.uniform(-0.2, 0.5)), 1e9, rng)


def _one(what: str, actor: story.Actor, span: Span, width: int, rng: np.random.Generator) -> None:
    side = int(rng.choice([LEFT, RIGHT, FRONT], p=[0.4, 0.4, 0.2]))
    posture = actor.posture
    if posture in ("walk", "run"):
        speed = 12.0 if posture == "walk" else 26.0
        side = int(rng.choice([LEFT, RIGHT]))
        item = str(rng.choice(objects.ITEMS)) if what == "hold" else ""
        x0, x1 = actor.x - side * speed, actor.x + side * speed
        phase = float(rng.uniform(0, 6))
        actor.do(0.0, span[1], what, facing=side, x0=x0, x1=x1, item=item, phase=phase)
    elif what in ("bend", "fall", "getup", "wave"):
        side = int(rng.choice([LEFT, RIGHT]))
        start = float(rng.uniform(-0.3, 0.4))
        story.quiet(actor, span, side)
        item = str(rng.choice(["lie", "crouch", "sit"])) if what == "getup" else ""
        if item:
            actor.insert(actions.Segment(span[0], start, "quiet", item, side, actor.x, actor.x))
        actor.insert(
            actions.Segment(start, span[1], what, "stand", side, actor.x, actor.x, item=item)
        )
    elif what == "quiet":
        story.quiet(actor, span, side if posture != "lie" else int(rng.choice([LEFT, RIGHT])))
        if posture == "lie":
            actor.props.add("mat")
    else:
        story.perform(actor, span, what, side, rng, steady=True)


def _bystander(width: int, height: float, ground: float, span: Span, rng) -> story.Actor:
    x = float(rng.choice([rng.uniform(0, 14), rng.uniform(width - 14, width)]))
    actor = story.Actor(1, x, height * 0.85, ground - 6, "stand")
    story.quiet(actor, span, int(rng.choice([LEFT, RIGHT, FRONT])))
    return actor

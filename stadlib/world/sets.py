"""Writes the parts of a miniature world: the world itself, a classification set and stills.

A backbone learns first on the classification set: close-ups of one activity each. Forty classes
cross activities with postures, objects and who faces whom. The first twenty are the smaller set
(standing for K400), all of them the larger (standing for K700).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from itertools import chain
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2
import numpy as np

from stadlib.base import InputError, whole_folder, write_whole
from stadlib.data.labels import LabelMap, write_label_map
from stadlib.data.layout import LABEL_MAP_FILE, AvaLayout
from stadlib.data.video import write_video
from stadlib.world import stills, story
from stadlib.world.actions import FRONT, LEFT, NAMES, RIGHT, Segment, deck
from stadlib.world.annotate import box_rows, clock, rows
from stadlib.world.objects import ITEMS
from stadlib.world.render import Stage
from stadlib.world.scenery import random_camera
from stadlib.world.script import (
    SIZE,
    SOURCES,
    SPLITS,
    Plan,
    Script,
    dressed,
    generator,
    plan_split,
    write_script,
)
from stadlib.world.spec import WORLD, WorldSpec
from stadlib.world.story import Actor, Span

Progress = Callable[[int, int], None]
_MAX_WORKERS = 8


def render(root: Path, part: str, spec: WorldSpec, *, workers: int | None = None,
           progress: Progress | None = None) -> Path:  # fmt: skip
    """Render a part of ``spec`` into ``root`` unless it is there; equal bytes for any ``workers``.

    ``world`` is AVA-Kinetics in the official layout. ``pretraining`` is ``videos/<id>.mp4``, lists
    ``k400_{train,val}.csv`` and ``k700_{train,val}.csv`` with columns ``video,label``, and
    ``k700_classes.txt``. ``stills`` are as many JPEG files as pretraining clips, with COCO's JSON.

    Args:
        root: a folder; it appears when everything is written.
        part: ``world``, ``pretraining`` or ``stills``.
        spec: what to render.
        workers: processes; default: the cores this process may use, at most 8.
        progress: called with (videos or pictures done, in all).

    Raises:
        InputError: ``root`` holds something else, or a process was killed, or the call stands in
            a script without ``if __name__ == "__main__":``.
    """
    root = Path(root)
    if _is_complete(root, part, spec):
        return root
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker that is still starting runs a script without a guard and may not start others.
        # It ends without a traceback; in_parallel tells the script's own process why.
        sys.exit(1)
    deal, draw, write_lists = _PARTS[part]
    with whole_folder(root) as folder:
        jobs = deal(spec)
        drawn = in_parallel(partial(draw, spec, folder), jobs, workers, progress)
        write_lists(folder, jobs, drawn)
        (folder / "world.json").write_text(json.dumps(_seal(part, spec), indent=1) + "\n")
    _is_complete(root, part, spec)  # another process may have been faster
    return root


def _seal(part: str, spec: WorldSpec) -> dict:
    return json.loads(json.dumps({"part": part, "spec": asdict(spec)}))


def _is_complete(root: Path, part: str, spec: WorldSpec) -> bool:
    if not root.exists():
        return False
    try:
        seal = json.loads((root / "world.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        seal = {}
    if any(seal.get(key) != value for key, value in _seal(part, spec).items()):
        raise InputError(f"{root}: not the miniature {part} asked for; remove it or name another")
    return True


def in_parallel(
    task: Callable, jobs: Sequence, workers: int | None, progress: Progress | None
) -> list:
    """``[task(job) for job in jobs]`` in ``workers`` processes, in order.

    ``task`` must be importable: it is sent to fresh (spawned) processes, which is safe in
    notebooks and after a GPU was used.

    Raises:
        InputError: a process was killed, or runs a script that has no guard.
    """
    linux = hasattr(os, "sched_getaffinity")  # there a process may be bound to a few cores
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    workers = workers or min(_MAX_WORKERS, cores)
    if workers == 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return _collect(map(task, jobs), len(jobs), progress)
        finally:
            cv2.setNumThreads(threads)
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    try:
        with ProcessPoolExecutor(workers, context, _start_worker, (started,)) as pool:
            chunk = max(1, min(8, len(jobs) // (4 * workers)))
            return _collect(pool.map(task, jobs, chunksize=chunk), len(jobs), progress)
    except BrokenProcessPool:
        if started.is_set():
            raise InputError(
                "a rendering process was killed; free some memory and run again"
            ) from None
        raise InputError(
            "the rendering processes could not start, because each runs the script anew; save the "
            'script as a file with its calls below `if __name__ == "__main__":`'
        ) from None


def _start_worker(started: Event) -> None:
    cv2.setNumThreads(1)
    started.set()


def _collect(results: Iterable, total: int, progress: Progress | None) -> list:
    collected = []
    for result in results:
        collected.append(result)
        if progress is not None:
            progress(len(collected), total)
    return collected


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_whole(path, "".join(f"{line}\n" for line in lines))


def _draw_video(spec: WorldSpec, path: Path, script: Script) -> None:
    rate = spec.frames_per_second
    write_video(path, Stage(script).frames(script.seconds, rate), rate, crf=20, gop=rate)


# The world: videos and annotations of both sources


Movie = tuple[str, float, list[str], list[str]]  # name, start, annotation rows, excluded rows


def _deal_world(spec: WorldSpec) -> list[Plan]:
    splits = [(source, split) for source in SOURCES for split in SPLITS]
    return [plan for source, split in splits for plan in plan_split(spec, source, split)]


def _draw_movie(spec: WorldSpec, folder: Path, plan: Plan) -> Movie:
    script = write_script(spec, plan)
    _draw_video(spec, folder / "videos" / script.source / f"{script.video}.mp4", script)
    excluded = [f"{script.video},{clock(script, t)}" for t in script.excluded]
    return script.video, script.start, rows(script), excluded


def _write_annotations(folder: Path, plans: list[Plan], movies: list[Movie]) -> None:
    layout = AvaLayout(folder)
    starts = ["source,video,seconds"]
    for source in SOURCES:
        for split in SPLITS:
            part = [
                movie
                for plan, movie in zip(plans, movies, strict=True)
                if (plan.source, plan.split) == (source, split)
            ]
            videos, times, annotations, excluded = zip(*part, strict=True)
            starts += [f"{source},{v},{t:g}" for v, t in zip(videos, times, strict=True)]
            _write_lines(layout.video_list(source, split), videos)
            _write_lines(layout.annotations(source, split), chain(*annotations))
            if source == "ava":
                _write_lines(layout.excluded_file(source, split), chain(*excluded))
    _write_lines(layout.annotation_folder / "video_starts.csv", starts)
    write_label_map(layout.annotation_folder / LABEL_MAP_FILE, LabelMap(NAMES))


def write_person_boxes(root: Path, spec: WorldSpec) -> None:
    """Write who can be seen in every second of every video, annotated or not, unless it is there.

    The best of detectors would find these boxes. Memory needs them: a Kinetics clip has one
    annotated second, but people in all ten.
    """
    for source in SOURCES:
        for split in SPLITS:
            path = AvaLayout(root).person_boxes("ground-truth", source, split)
            if not path.exists():
                scripts = (write_script(spec, plan) for plan in plan_split(spec, source, split))
                _write_lines(path, (row for script in scripts for row in box_rows(script)))


# The classification set


CLASSES = WORLD["pretraining"]["classes"]  # (activity, posture); "+" marks two persons
NUM_SMALL = 20
_STREAM = 11  # random streams of the world and of stills begin with other numbers


def _deal(spec: WorldSpec, stream: int, shares: dict[str, float]) -> list[stills.Job]:
    jobs: list[stills.Job] = []
    for place, split in enumerate(("train", "val")):
        rng = generator(spec.seed, stream, place)
        cards = deck(shares, spec.pretraining_clips[place], rng)
        jobs += [(split, index, int(card)) for index, card in enumerate(cards)]
    return jobs


def _draw_clip(spec: WorldSpec, folder: Path, job: stills.Job) -> str:
    script = close_up(spec, *job)
    _draw_video(spec, folder / "videos" / f"{script.video}.mp4", script)
    return script.video


def _write_lists(folder: Path, jobs: list[stills.Job], videos: list[str]) -> None:
    for name, limit in (("k400", NUM_SMALL), ("k700", len(CLASSES))):
        for part in ("train", "val"):
            rows = (
                f"{video},{label}"
                for (split, _, label), video in zip(jobs, videos, strict=True)
                if split == part and label < limit
            )
            _write_lines(folder / f"{name}_{part}.csv", ["video,label", *rows])
    _write_lines(folder / "k700_classes.txt", (f"{what} {posture}" for what, posture in CLASSES))


def close_up(spec: WorldSpec, split: str, index: int, label: int) -> Script:
    """The script of one clip of class ``label``."""
    seed = (spec.seed, _STREAM, ("train", "val").index(split), index + 1)
    rng = generator(*seed)
    u = rng.uniform
    width, frame_height = SIZE["pretraining"]
    activity, posture = CLASSES[label]
    height = u(46, 68)
    ground = min(frame_height + 4.0, height + u(8, 20))
    distance = height * u(0.62, 0.9)
    middle = width / 2 + u(-10, 10)
    places = [middle - distance / 2, middle + distance / 2] if activity.endswith("+") else [middle]
    actors = [Actor(k, x, height * u(0.96, 1.04), ground, posture) for k, x in enumerate(places)]
    span = (-2.0, float(spec.pretraining_seconds))
    if len(actors) == 2:
        _act_pair(activity[:-1], actors, span, rng)
    else:
        _act_alone(activity, actors[0], span, rng)
        if rng.random() < 0.25:  # somebody at the edge
            x = float(rng.choice([u(0, 14), u(width - 14, width)]))
            actors.append(Actor(1, x, height * 0.85, ground - 6, "stand"))
            story.quiet(actors[1], span, int(rng.choice([LEFT, RIGHT, FRONT])))
    persons = dressed(actors, len(actors), rng)
    source = "kinetics" if rng.random() < 0.5 else "ava"
    camera = random_camera(source, spec.pretraining_seconds, rng)
    video = f"{split}_{index:05d}"
    return Script(
        "pretraining", video, spec.pretraining_seconds, 0.0, (), (), (), persons, camera, seed
    )


def _act_pair(what: str, pair: list[Actor], span: Span, rng: np.random.Generator) -> None:
    first = int(rng.integers(2))
    sides = {"parting": (LEFT, RIGHT), "following": ((LEFT, RIGHT)[first],) * 2}
    for actor, side in zip(pair, sides.get(what, (RIGHT, LEFT)), strict=True):
        if what == "fight" or (what == "talk" and actor is pair[first]):
            actor.do(*span, what, facing=side, phase=rng.uniform(0, 6))
        else:
            story.quiet(actor, span, side)
    if what in ("hug", "give", "shake"):
        story.play(what, pair, rng.uniform(-0.2, 0.5), 1e9, rng)


def _act_alone(what: str, actor: Actor, span: Span, rng: np.random.Generator) -> None:
    side = int(rng.choice([LEFT, RIGHT, FRONT], p=[0.4, 0.4, 0.2]))
    x, posture = actor.x, actor.posture
    if posture in ("walk", "run"):
        side = int(rng.choice([LEFT, RIGHT]))
        item = str(rng.choice(ITEMS)) if what == "hold" else ""
        way = side * (12.0 if posture == "walk" else 26.0)
        phase = rng.uniform(0, 6)
        actor.do(0.0, span[1], what, facing=side, x0=x - way, x1=x + way, item=item, phase=phase)
    elif what in ("bend", "fall", "getup", "wave"):
        side, start = int(rng.choice([LEFT, RIGHT])), rng.uniform(-0.3, 0.4)
        story.quiet(actor, span, side)
        item = str(rng.choice(["lie", "crouch", "sit"])) if what == "getup" else ""
        if item:
            actor.insert(Segment(span[0], start, "quiet", item, side, x, x))
        actor.insert(Segment(start, span[1], what, "stand", side, x, x, item=item))
    elif posture == "lie":
        story.quiet(actor, span, int(rng.choice([LEFT, RIGHT])))
        actor.props.add("mat")
    elif what == "quiet":
        story.quiet(actor, span, side)
    else:
        story.perform(actor, span, what, side, rng, steady=True)


_PARTS: dict[str, tuple[Callable, Callable, Callable]] = {  # deal jobs, draw one, write the lists
    "world": (_deal_world, _draw_movie, _write_annotations),
    "pretraining": (
        partial(_deal, stream=_STREAM, shares={str(label): 1.0 for label in range(len(CLASSES))}),
        _draw_clip,
        _write_lists,
    ),
    "stills": (
        partial(_deal, stream=stills.STREAM, shares=WORLD["stills"]["numbers"]),
        stills.draw,
        stills.write_instances,
    ),
}

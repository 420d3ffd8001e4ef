"""Writes the parts of a miniature world, each in the layout of the real data it stands for."""

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
from itertools import chain, product
from pathlib import Path

import cv2

from stadlib.base import InputError, whole_folder, write_whole
from stadlib.data.labels import LabelMap, write_label_map
from stadlib.data.layout import LABEL_MAP_FILE, AvaLayout
from stadlib.data.video import write_video
from stadlib.world import WorldSpec, annotate, stills
from stadlib.world.actions import NAMES, deck
from stadlib.world.close_ups import CLASSES, NUM_SMALL, STREAM, close_up
from stadlib.world.render import Stage
from stadlib.world.script import SOURCES, SPLITS, Plan, Script, generator, plan_split, write_script

Progress = Callable[[int, int], None]
Movie = tuple[str, float, list[str], list[str]]  # name, start, annotation rows, excluded rows
Clip = tuple[str, int, int]  # split, number in it, class
_MAX_WORKERS = 8


def render(root: Path, part: str, spec: WorldSpec, *, workers: int | None = None,
           progress: Progress | None = None) -> Path:  # fmt: skip
    """Render a part of ``spec`` into ``root`` unless it is there; equal bytes for any ``workers``.

    ``world`` is AVA-Kinetics in the official layout. ``kinetics-400`` and ``kinetics-700`` are
    classification sets in Kinetics' (see :mod:`stadlib.data.kinetics`). ``coco`` holds as many
    pictures as the larger of them has clips, with the boxes of people in COCO's JSON.
    ``progress`` is called with (videos or pictures done, in all).
    """
    root = Path(root)
    seal = json.loads(json.dumps({"part": part, "spec": asdict(spec)}))
    if _is_complete(root, seal):
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
        (folder / "world.json").write_text(json.dumps(seal, indent=1) + "\n")
    _is_complete(root, seal)  # another process may have been faster
    return root


def _is_complete(root: Path, seal: dict) -> bool:
    if not root.exists():
        return False
    try:
        present = json.loads((root / "world.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        present = {}
    if present | seal != present:
        raise InputError(
            f"{root}: not the miniature {seal['part']} asked for; remove it or name another"
        )
    return True


def in_parallel(task: Callable, jobs: Sequence, workers: int | None,
                progress: Progress | None) -> list:  # fmt: skip
    """``[task(job) for job in jobs]`` in ``workers`` processes, in order; default: all cores, <= 8.

    Processes are spawned, which is safe in notebooks and after a GPU was used.
    """
    linux = hasattr(os, "sched_getaffinity")  # there a process may be bound to a few cores
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    workers = workers or min(_MAX_WORKERS, cores)

    def collect(results: Iterable) -> list:
        collected = []
        for result in results:
            collected.append(result)
            if progress is not None:
                progress(len(collected), len(jobs))
        return collected

    if workers == 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return collect(map(task, jobs))
        finally:
            cv2.setNumThreads(threads)
    context, chunk = (
        multiprocessing.get_context("spawn"),
        max(1, min(8, len(jobs) // (4 * workers))),
    )
    try:
        with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
            return collect(pool.map(task, jobs, chunksize=chunk))
    except BrokenProcessPool:
        raise InputError(
            "a rendering process ended early; free some memory and run again, and put a script's "
            'calls below `if __name__ == "__main__":`, because each process runs the script anew'
        ) from None


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_whole(path, "".join(f"{line}\n" for line in lines))


def _draw_video(spec: WorldSpec, path: Path, script: Script) -> None:
    rate = spec.frames_per_second
    write_video(path, Stage(script).frames(script.seconds, rate), rate, crf=20, gop=rate)


# The world: videos and annotations of both sources


def _deal_world(spec: WorldSpec) -> list[Plan]:
    return [plan for group in product(SOURCES, SPLITS) for plan in plan_split(spec, *group)]


def _draw_movie(spec: WorldSpec, folder: Path, plan: Plan) -> Movie:
    script = write_script(spec, plan)
    _draw_video(spec, folder / "videos" / script.source / f"{script.video}.mp4", script)
    excluded = [annotate.clock(script, t) for t in script.excluded]
    return script.video, script.start, annotate.rows(script), excluded


def _write_annotations(folder: Path, plans: list[Plan], movies: list[Movie]) -> None:
    layout = AvaLayout(folder)
    pairs = list(zip(plans, movies, strict=True))
    starts = ["source,video,seconds"]
    for source, split in product(SOURCES, SPLITS):
        group = [movie for plan, movie in pairs if (plan.source, plan.split) == (source, split)]
        videos, times, rows, excluded = zip(*group, strict=True)
        starts += [f"{source},{v},{t:g}" for v, t in zip(videos, times, strict=True)]
        _write_lines(layout.video_list(source, split), videos)
        _write_lines(layout.annotations(source, split), chain(*rows))
        if source == "ava":
            _write_lines(layout.excluded_file(source, split), chain(*excluded))
    _write_lines(layout.annotation_folder / "video_starts.csv", starts)
    write_label_map(layout.annotation_folder / LABEL_MAP_FILE, LabelMap(NAMES))


def write_person_boxes(root: Path, spec: WorldSpec) -> None:
    """Write who can be seen in every second of every video, annotated or not, unless it is there.

    Memory needs them: a Kinetics clip has one annotated second, but people in all ten.
    """
    for source, split in product(SOURCES, SPLITS):
        path = AvaLayout(root).person_boxes("ground-truth", source, split)
        if not path.exists():
            scripts = (write_script(spec, plan) for plan in plan_split(spec, source, split))
            _write_lines(path, chain.from_iterable(map(annotate.box_rows, scripts)))


# The classification sets: close-ups in Kinetics' layout


def _deal_clips(spec: WorldSpec, num_classes: int) -> list[Clip]:
    """The clips of the first classes; all classes come equally often."""
    clips = []
    for place, split in enumerate(("train", "val")):
        shares = {str(label): 1.0 for label in range(len(CLASSES))}
        rng = generator(spec.seed, STREAM, place)
        labels = map(int, deck(shares, spec.pretraining_clips[place], rng))
        clips += [(split, k, label) for k, label in enumerate(labels) if label < num_classes]
    return clips


def _draw_clip(spec: WorldSpec, folder: Path, clip: Clip) -> str:
    """Write a clip's video; returns its row of the list."""
    split, _, label = clip
    script, name = close_up(spec, *clip), " ".join(CLASSES[label])
    path = folder / split / name / f"{script.video}_{0:06d}_{script.seconds:06d}.mp4"
    _draw_video(spec, path, script)
    return f"{name},{script.video},0,{script.seconds},{split}"


def _write_lists(folder: Path, clips: list[Clip], rows: list[str]) -> None:
    for split in ("train", "val"):
        part = [row for clip, row in zip(clips, rows, strict=True) if clip[0] == split]
        header = "label,youtube_id,time_start,time_end,split"
        _write_lines(folder / f"{split}.csv", [header, *part])


_PARTS: dict[str, tuple[Callable, Callable, Callable]] = {  # deal jobs, draw one, write the lists
    "world": (_deal_world, _draw_movie, _write_annotations),
    "kinetics-400": (partial(_deal_clips, num_classes=NUM_SMALL), _draw_clip, _write_lists),
    "kinetics-700": (partial(_deal_clips, num_classes=len(CLASSES)), _draw_clip, _write_lists),
    "coco": (stills.deal, stills.draw, stills.write_instances),
}

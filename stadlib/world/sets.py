"""Writes the parts of a miniature world, each in the layout of the real data it stands for."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from stadlib.base import InputError, whole_folder, write_whole
from stadlib.data.layout import LABEL_MAP_FILE, AvaLayout, LabelMap, write_label_map
from stadlib.data.video import write_video
from stadlib.world import PART_SPLITS, WorldSpec, close_ups
from stadlib.world.actions import NAMES
from stadlib.world.render import Stage, box_rows, clock, rows
from stadlib.world.script import SOURCES, Plan, Script, plan_split, write_script

Progress = Callable[[int, int], None]
_CLIPS = "label,youtube_id,time_start,time_end,split"
_HEADERS = {"video_starts.csv": "source,video,seconds", "train.csv": _CLIPS, "val.csv": _CLIPS}
PIXELS = "pixels.csv"  # a hash of every video's frames, in which worlds can be compared
_HEADERS |= {PIXELS: "video,sha256"}


def render(root: Path, part: str, spec: WorldSpec, *, workers: int | None = None,
           progress: Progress | None = None) -> Path:  # fmt: skip
    """Render a part of ``spec`` into ``root`` unless it is there; equal bytes for any ``workers``.

    ``world`` is AVA-Kinetics in the official layout, training and validation; ``test`` is its
    third split. ``kinetics-400`` and ``kinetics-700`` are classification sets in Kinetics' (see
    :mod:`stadlib.data.kinetics`). ``coco`` holds as many pictures as the larger of them has clips,
    with the boxes of people in COCO's JSON. ``progress`` is called with (videos or pictures done,
    in all).
    """
    root = Path(root)
    seal = json.loads(json.dumps({"part": part, "spec": asdict(spec)}))
    if _is_complete(root, seal):
        return root
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker that is still starting runs a script without a guard and may not start others.
        # It ends without a traceback; in_parallel tells the script's own process why.
        sys.exit(1)
    deal, draw, write = _PARTS[part]
    with whole_folder(root) as folder:
        files: dict[Path, list] = defaultdict(list)
        for lists in in_parallel(partial(draw, spec, folder), deal(spec), workers, progress):
            for path, lines in lists.items():
                files[path] += lines
        write(folder, files)
        if part in PART_SPLITS:
            write_label_map(AvaLayout(folder).annotation_folder / LABEL_MAP_FILE, LabelMap(NAMES))
        content = {str(path.relative_to(folder)): lines for path, lines in sorted(files.items())}
        made = hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
        text = json.dumps(seal | {"sha256": made}, indent=1)
        (folder / "world.json").write_text(text + "\n")
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
        asked = f"the miniature {seal['part']} asked for"
        raise InputError(f"{root}: not {asked}; remove it or name another")
    return True


def in_parallel(task: Callable, jobs: Sequence, workers: int | None,
                progress: Progress | None) -> list:  # fmt: skip
    """``[task(job) for job in jobs]`` in ``workers`` processes, in order; default: all cores, <= 8.

    Processes are spawned, which is safe in notebooks and after a GPU was used.
    """
    linux = hasattr(os, "sched_getaffinity")  # there a process may be bound to a few cores
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    workers = workers or min(8, cores)

    results = []
    with ExitStack() as stack:
        run = map
        if workers > 1:
            spawn = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(workers, spawn, _follow_parent)
            chunk = max(1, min(8, len(jobs) // (4 * workers)))
            run = partial(stack.enter_context(pool).map, chunksize=chunk)
        try:
            for result in run(task, jobs):
                results.append(result)
                if progress is not None:
                    progress(len(results), len(jobs))
        except BrokenProcessPool:
            raise InputError(
                "a rendering process ended early; free some memory and run again, and put a "
                'script\'s calls below `if __name__ == "__main__":`, because each process runs the '
                "script anew"
            ) from None
    return results


def _follow_parent() -> None:
    """Begin a worker: it has one thread, and ends when what started it was killed."""
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _write_lists(_: Path, files: dict[Path, list]) -> None:
    for path, lines in files.items():
        header = [_HEADERS[path.name]] if path.name in _HEADERS else []
        write_whole(path, "".join(f"{line}\n" for line in header + lines))


def _draw_video(spec: WorldSpec, path: Path, script: Script) -> str:
    """Write a video; returns a hash of its pixels before they were encoded."""
    rate, seen = spec.frames_per_second, hashlib.sha256()

    def hashed() -> Iterator[np.ndarray]:
        for picture in Stage(script).frames(script.seconds, rate):
            seen.update(np.ascontiguousarray(picture))
            yield picture

    write_video(path, hashed(), rate, qp=20, gop=rate)
    return seen.hexdigest()


def _deal_world(part: str, spec: WorldSpec) -> list[Plan]:
    groups = product(SOURCES, PART_SPLITS[part])
    return [plan for group in groups for plan in plan_split(spec, *group)]


def _draw_movie(spec: WorldSpec, folder: Path, plan: Plan) -> dict[Path, list]:
    script, layout, group = write_script(spec, plan), AvaLayout(folder), (plan.source, plan.split)
    path = folder / "videos" / script.source / f"{script.video}.mp4"
    pixels = _draw_video(spec, path, script)
    starts = layout.annotation_folder / "video_starts.csv"
    lists = {
        starts: [f"{script.source},{script.video},{script.start:g}"],
        layout.video_list(*group): [script.video],
        layout.annotations(*group): rows(script),
        folder / PIXELS: [f"{path.relative_to(folder)},{pixels}"],
    }
    if script.source == "ava":
        lists[layout.excluded_file(*group)] = [clock(script, t) for t in script.excluded]
    return lists


def write_person_boxes(root: Path, part: str, spec: WorldSpec) -> None:
    """Write who can be seen in every second of every video, annotated or not, unless it is there.

    Memory needs them: a Kinetics clip has one annotated second, but people in all ten.
    """
    for source, split in product(SOURCES, PART_SPLITS.get(part, ())):
        path = AvaLayout(root).person_boxes("ground-truth", source, split)
        if not path.exists():
            scripts = (write_script(spec, plan) for plan in plan_split(spec, source, split))
            _write_lists(root, {path: [row for script in scripts for row in box_rows(script)]})


def _draw_clip(spec: WorldSpec, folder: Path, clip: close_ups.Clip) -> dict[Path, list]:
    split, _, label = clip
    script, name = close_ups.close_up(spec, *clip), " ".join(close_ups.CLASSES[label])
    path = folder / split / name / f"{script.video}_{0:06d}_{script.seconds:06d}.mp4"
    pixels = _draw_video(spec, path, script)
    row = f"{name},{script.video},0,{script.seconds},{split}"
    listed = {folder / PIXELS: [f"{path.relative_to(folder)},{pixels}"]}
    return listed | {folder / f"{split}.csv": [row]}


# how a part's jobs are dealt (clips of so many classes), one is drawn, all rows are written
_PARTS: dict[str, tuple[Callable, Callable, Callable]] = {
    "world": (partial(_deal_world, "world"), _draw_movie, _write_lists),
    "test": (partial(_deal_world, "test"), _draw_movie, _write_lists),
    "kinetics-400": (partial(close_ups.deal_clips, 20), _draw_clip, _write_lists),
    "kinetics-700": (partial(close_ups.deal_clips, 40), _draw_clip, _write_lists),
    "coco": (close_ups.deal_stills, close_ups.draw_still, close_ups.write_instances),
}

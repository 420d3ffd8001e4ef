"""Writes the parts of a miniature world, each in the layout of the real data it stands for.

Stills train the person detector (paper section 3.1). They are frames of close-ups, movies and clips
that belong to no split of the world, seen from nearer or farther, so that people are of many sizes
and cut off by the picture's edge.
"""

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
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from math import exp, log, pi
from pathlib import Path

import cv2
import numpy as np

from stadlib.base import InputError, whole_folder, write_whole
from stadlib.data.layout import LABEL_MAP_FILE, SOURCES, AvaLayout, LabelMap, write_label_map
from stadlib.data.video import write_video
from stadlib.world import PART_SPLITS, WorldSpec
from stadlib.world import script as scripts
from stadlib.world.actions import NAMES
from stadlib.world.figures import Box
from stadlib.world.render import Stage, box_rows, clock, rows, visible
from stadlib.world.script import Plan, Script

Progress = Callable[[int, int], None]
Still = tuple[str, int, Plan | int]  # split, number in it, a video's plan or a close-up's class
_CLIPS = "label,youtube_id,time_start,time_end,split"
PIXELS = "pixels.csv"  # a hash of every video's frames, in which worlds can be compared
_HEADERS = {"video_starts.csv": "source,video,seconds", PIXELS: "video,sha256"}
_HEADERS |= {"train.csv": _CLIPS, "val.csv": _CLIPS}
_STILLS = 13  # a still's random stream, behind its script's seed
_ZOOM = (0.8, 1.8)
_DESERTED = 0.05  # share of pictures that show furniture alone


def render(root: Path, part: str, spec: WorldSpec, *, workers: int | None = None,
           progress: Progress | None = None) -> Path:  # fmt: skip
    """Render a part of ``spec`` into ``root`` unless it is there; equal bytes for any ``workers``.

    ``world`` is AVA-Kinetics in the official layout, training and validation; ``test`` is its
    third split; both have the boxes of all people in every second, annotated or not. Memory needs
    them: a Kinetics clip has one annotated second, but people in all ten. ``kinetics-400`` and
    ``kinetics-700`` are classification sets in Kinetics' layout (see :mod:`stadlib.data.kinetics`).
    ``coco`` holds as many pictures as the larger of them has clips, with the boxes of people in
    COCO's JSON. ``progress`` is called with (videos or pictures done, in all).
    """
    root = Path(root)
    seal = json.loads(json.dumps({"part": part, "spec": asdict(spec)}))
    if _is_complete(root, seal):
        return root
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker that is still starting runs a script without a guard and may not start others.
        # It ends without a traceback; in_parallel tells the script's own process why.
        sys.exit(1)
    deal, draw = _PARTS[part]
    with whole_folder(root) as folder:
        files: dict[Path, list] = defaultdict(list)
        for lists in in_parallel(partial(draw, spec, folder), deal(spec), workers, progress):
            for path, lines in lists.items():
                files[path] += lines
        for path, lines in files.items():
            _write(path, lines)
        if part in PART_SPLITS:
            write_label_map(AvaLayout(folder).annotation_folder / LABEL_MAP_FILE, LabelMap(NAMES))
        content = {str(path.relative_to(folder)): lines for path, lines in sorted(files.items())}
        # the boxes of all seconds follow from the rest
        content = {name: lines for name, lines in content.items() if not name.startswith("boxes/")}
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
    pool, run, results = nullcontext(), map, []
    if workers > 1:
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, spawn, _follow_parent)
        run = partial(pool.map, chunksize=max(1, min(8, len(jobs) // (4 * workers))))
    with pool:
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


def _write(path: Path, lines: list) -> None:
    """Write a list below its header, if it has one; the rows of stills as COCO's JSON."""
    if path.suffix != ".json":
        header = [_HEADERS[path.name]] if path.name in _HEADERS else []
        return write_whole(path, "".join(f"{line}\n" for line in header + lines))
    annotations = [annotation for _, of_picture in lines for annotation in of_picture]
    instances = {
        "info": {"description": "the miniature's stills"},
        "images": [image for image, _ in lines],
        "annotations": [{"id": k, **one} for k, one in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "person"}],
    }
    return write_whole(path, json.dumps(instances))


def _draw_video(spec: WorldSpec, folder: Path, path: Path, script: Script) -> dict[Path, list]:
    """Write a video; returns the row of its pixels' hash, before they were encoded."""
    rate, stage, seen = spec.frames_per_second, Stage(script), hashlib.sha256()

    def hashed() -> Iterator[np.ndarray]:
        for number in range(script.seconds * rate):
            picture = stage.frame(number / rate)
            seen.update(np.ascontiguousarray(picture))
            yield picture

    write_video(path, hashed(), rate, qp=20, gop=rate)
    return {folder / PIXELS: [f"{path.relative_to(folder)},{seen.hexdigest()}"]}


def _plans(splits: tuple[str, ...], spec: WorldSpec) -> list[Plan]:
    groups = product(SOURCES, splits)
    return [plan for group in groups for plan in scripts.plan_split(spec, *group)]


def _draw_movie(spec: WorldSpec, folder: Path, plan: Plan) -> dict[Path, list]:
    script = scripts.write_script(spec, plan)
    layout, group = AvaLayout(folder), (plan.source, plan.split)
    path = folder / "videos" / script.source / f"{script.video}.mp4"
    starts = layout.annotation_folder / "video_starts.csv"
    lists = _draw_video(spec, folder, path, script) | {
        starts: [f"{script.source},{script.video},{script.start:g}"],
        layout.video_list(*group): [script.video],
        layout.annotations(*group): rows(script),
        layout.person_boxes("ground-truth", *group): box_rows(script),
    }
    if script.source == "ava":
        lists[layout.excluded_file(*group)] = [clock(script, t) for t in script.excluded]
    return lists


def _draw_clip(spec: WorldSpec, folder: Path, clip: tuple[str, int, int]) -> dict[Path, list]:
    split, _, label = clip
    script, name = scripts.close_up(spec, *clip), " ".join(scripts.CLASSES[label])
    path = folder / split / name / f"{script.video}_{0:06d}_{script.seconds:06d}.mp4"
    row = f"{name},{script.video},0,{script.seconds},{split}"
    return _draw_video(spec, folder, path, script) | {folder / f"{split}.csv": [row]}


def _other_world(spec: WorldSpec) -> WorldSpec:
    """Where the pictures are taken: a quarter of them in movies, a quarter in clips."""
    quarters = [-(-number // 4) for number in spec.pretraining_clips]
    return replace(spec, seed=spec.seed + 1_000, movies=(*quarters, 0), clips=(*quarters, 0))


def deal_stills(spec: WorldSpec) -> list[Still]:
    """What every picture shows: movies, clips, and close-ups of all classes in turns."""
    jobs: list[Still] = []
    for number, split in zip(spec.pretraining_clips, ("train", "val"), strict=True):
        plans = _plans((split,), _other_world(spec))
        labels = [k % len(scripts.CLASSES) for k in range(number - len(plans))]
        jobs += [(split, index, scene) for index, scene in enumerate([*plans, *labels])]
    return jobs


def compose(spec: WorldSpec, job: Still) -> tuple[Script, float, dict[int, Box]]:
    """The script of a picture, its second, and the boxes in pixels of the persons in it."""
    split, index, scene = job
    spec = _other_world(spec)
    if isinstance(scene, Plan):
        script = scripts.write_script(spec, scene)
    else:
        script = scripts.close_up(spec, split, index, scene)
    rng = scripts.generator(*script.seed, _STILLS)
    t, zoom = rng.uniform(0, script.seconds), exp(rng.uniform(*map(log, _ZOOM)))
    # the wave of the camera's zoom has its crest at t
    phase = pi / 4 - pi * t / (script.camera.period * 1.37)
    script = replace(script, camera=replace(script.camera, zoom=zoom - 1, phase=phase))
    return script, t, {} if rng.random() < _DESERTED else visible(script, t)


def draw_still(spec: WorldSpec, folder: Path, job: Still) -> dict[Path, list]:
    """Write one picture; returns its rows (image, annotations) of the split's JSON file.

    A person without a box is not drawn, so that every person in a picture is annotated.
    """
    split, index, _ = job
    script, t, boxes = compose(spec, job)
    picture = Stage(script).frame(t, [p.number for p in script.persons if p.number not in boxes])
    # an id names one picture of both splits
    image_id = index + 1 + (spec.pretraining_clips[0] if split == "val" else 0)
    path = folder / split / f"{image_id:012d}.jpg"
    path.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise OSError(f"{path}: could not be written")
    height, width = picture.shape[:2]
    image = {"id": image_id, "file_name": path.name, "width": width, "height": height}
    annotations = []
    for x1, y1, x2, y2 in boxes.values():
        x, y, w, h = (round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1))
        row = {"image_id": image_id, "category_id": 1, "bbox": [x, y, w, h]}
        annotations.append(row | {"area": round(w * h, 2), "iscrowd": 0})
    return {folder / "annotations" / f"instances_{split}.json": [(image, annotations)]}


# how a part's jobs are dealt (clips of so many classes), and how one is drawn
_PARTS: dict[str, tuple[Callable, Callable]] = {
    **{part: (partial(_plans, splits), _draw_movie) for part, splits in PART_SPLITS.items()},
    "kinetics-400": (partial(scripts.deal_clips, 20), _draw_clip),
    "kinetics-700": (partial(scripts.deal_clips, 40), _draw_clip),
    "coco": (deal_stills, draw_still),
}

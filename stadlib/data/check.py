"""What is wrong with a dataset: every problem of its annotations and videos, a line each."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from stadlib.base import InputError
from stadlib.data.boxes import read_person_boxes
from stadlib.data.keyframes import contradictions, read_annotations
from stadlib.data.labels import AVA_ACTIONS, LabelMap
from stadlib.data.layout import BOX_SUFFIXES, SOURCES, SPLITS, AvaLayout
from stadlib.data.video import probe, read_frames

_SLACK = 1e-3  # seconds that a timestamp may lie outside its video, for containers' rounding
Tables = dict[tuple[str, str], pd.DataFrame]  # the right rows of each annotation file
Progress = Callable[[int, int, str], None]


def check_dataset(root: Path | str, progress: Progress | None = None) -> list[str]:
    """Read everything of a dataset in the layout of ``data.layout`` and list what is wrong.

    Annotations: columns, numbers, boxes, classes, contradictions, videos of two splits, timestamps
    outside the video. Videos: missing, empty, cut short, undecodable. Optional files may be
    missing. A line a problem, ``file:row: what; remedy``, with paths relative to ``root``.
    """
    layout = AvaLayout(root)
    if not layout.annotation_folder.is_dir():
        return [f"{layout.annotation_folder}: no such folder; give a dataset's root"]
    tables, lines = _read_tables(layout)
    lines += _small_files(layout)
    for source in SOURCES:
        paths = {layout.annotations(*key): rows for key, rows in tables.items() if key[0] == source}
        lines += contradictions(paths)
    videos, repeated = _named_videos(layout, tables)
    durations, broken = _check_videos(layout, videos, progress)
    lines += [*repeated, *_outside(layout, tables, durations), *broken]
    prefix = f"{layout.root}{os.sep}"
    return [line.removeprefix(prefix) for line in lines]


def _read_tables(layout: AvaLayout) -> tuple[Tables, list[str]]:
    """The right rows of every annotation file, and the problems of the others."""
    tables: Tables = {}
    lines: list[str] = []
    label_map = LabelMap(AVA_ACTIONS)
    try:
        label_map = layout.label_map()
    except InputError as error:
        lines.append(str(error))
    for key in [(source, split) for source in SOURCES for split in SPLITS]:
        path = layout.annotations(*key)
        if not path.exists():
            continue
        try:
            tables[key], problems = read_annotations(path, label_map, most=math.inf)
            lines += problems.lines()
        except InputError as error:
            lines.append(str(error))
    if not tables and not lines:
        example = layout.annotations("ava", "train")
        lines.append(f"{example}: no annotation file of any source and split; add one")
    return tables, lines


def _small_files(layout: AvaLayout) -> Iterator[str]:
    """Problems of the excluded timestamps, the person boxes and the video starts."""
    reads: list[Callable[[], object]] = [lambda: layout.video_start("ava", "")]
    for source in SOURCES:
        reads += [lambda s=source, split=split: layout.excluded(s, split) for split in SPLITS]
        files = sorted((layout.root / "boxes").glob(f"*_{source}_*"))
        reads += [lambda f=f: read_person_boxes(f) for f in files if f.suffix in BOX_SUFFIXES]
    for read in reads:
        try:
            read()
        except InputError as error:
            yield str(error)


def _named_videos(
    layout: AvaLayout, tables: Tables
) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Each (source, video) with the "file:row" that names it first, and videos of two splits."""
    videos: dict[tuple[str, str], str] = {}
    lines: list[str] = []
    for source in SOURCES:
        split_of: dict[str, str] = {}
        for split in SPLITS:
            named: dict[str, str] = {}
            path = layout.video_list(source, split)
            if path.is_file():
                for row, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
                    if line.strip():
                        named.setdefault(line.strip(), f"{path.name}:{row}")
            if (source, split) in tables:
                name = layout.annotations(source, split).name
                first = tables[source, split].drop_duplicates("video")
                for video, row in zip(first["video"], first["row"], strict=True):
                    named.setdefault(video, f"{name}:{row}")
            for video, place in named.items():
                first_place = videos.setdefault((source, video), place)
                if split_of.setdefault(video, split) != split:
                    where = f"{layout.annotation_folder / place}"
                    lines.append(f"{where}: video {video} is also in {first_place}; keep one")
    return videos, lines


def _check_videos(
    layout: AvaLayout, videos: dict[tuple[str, str], str], progress: Progress | None
) -> tuple[dict[tuple[str, str], float], list[str]]:
    """Durations of the sound videos, and what is wrong with the others."""

    def duration(video: tuple[str, str]) -> float | str:
        try:
            path = layout.video_file(*video)
            seconds = probe(path).duration
            read_frames(path, [seconds])  # decodes the last group of pictures
        except InputError as error:
            return f"{error} (named in {videos[video]})"
        return seconds

    durations: dict[tuple[str, str], float] = {}
    lines: list[str] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        answers = pool.map(duration, videos)
        for done, (video, answer) in enumerate(zip(videos, answers, strict=True), 1):
            if isinstance(answer, str):
                lines.append(answer)
            else:
                durations[video] = answer
            if progress:
                progress(done, len(videos), "videos")
    return durations, lines


def _outside(
    layout: AvaLayout, tables: Tables, durations: dict[tuple[str, str], float]
) -> Iterator[str]:
    """Keyframes before the first or after the last frame of their video."""
    for (source, split), rows in tables.items():
        keyframes = rows.drop_duplicates(["video", "micros"])
        columns = (keyframes[name] for name in ("video", "row", "timestamp"))
        for video, row, timestamp in zip(*columns, strict=True):
            if (source, video) not in durations:
                continue
            try:
                start = layout.video_start(source, video)
            except InputError:
                return  # told among the small files
            end = start + durations[source, video]
            if not start - _SLACK <= timestamp <= end + _SLACK:
                yield (
                    f"{layout.annotations(source, split)}:{row}: timestamp {timestamp:.6f} is "
                    f"outside the video, which lasts from {start:g} to {end:g} s; mend it or add "
                    "the start to video_starts.csv"
                )

"""What is wrong with a dataset: every problem of its annotations and videos, a line each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from stadlib.base import InputError
from stadlib.data.boxes import read_person_boxes
from stadlib.data.keyframes import known_actions
from stadlib.data.labels import AVA_ACTIONS, LabelMap
from stadlib.data.layout import BOX_SUFFIXES, SOURCES, SPLITS, AvaLayout
from stadlib.data.rows import Problem, contradicting_files, read_annotation_rows
from stadlib.data.video import probe, read_frames

_SLACK = 1e-3  # seconds that a timestamp may lie outside its video, for containers' rounding
Tables = dict[tuple[str, str], pd.DataFrame]  # the good rows of an annotation file, with their row
Videos = dict[tuple[str, str], str]  # (source, video) -> where it is first named, "file:row"


def check_dataset(
    root: Path | str, progress: Callable[[int, int, str], None] | None = None
) -> list[str]:
    """Read everything of a dataset in the layout of ``data.layout`` and list what is wrong.

    Annotation files: columns, numbers, boxes, classes, contradicting rows and files, videos of
    two splits, timestamps outside the video. Videos: missing, empty, cut short, undecodable.
    Files that may be left out (a split, lists, excluded timestamps, starts, person boxes) are not
    missed.

    Args:
        root: the dataset's folder.
        progress: called with (videos done, all, "videos").

    Returns:
        One line a problem, ``file:row: what; remedy``, with paths relative to ``root``; none for
        a sound dataset.
    """
    layout = AvaLayout(root)
    if not layout.annotation_folder.is_dir():
        return [f"{layout.annotation_folder}: no such folder; give a dataset's root"]
    tables, lines = _read_tables(layout)
    lines += [line for source in SOURCES for line in _small_files(layout, source)]
    lines += [line for source in SOURCES for line in _disagreements(layout, source, tables)]
    videos: Videos = {}
    for source in SOURCES:
        lines += _several_splits(layout, source, tables, videos)
    durations, video_lines = _check_videos(layout, videos, progress)
    for (source, split), table in tables.items():
        path = layout.annotations(source, split)
        lines += map(str, _outside(layout, source, path, table, durations))
    prefix = f"{layout.root}{os.sep}"
    return [line.removeprefix(prefix) for line in lines + video_lines]


def _read_tables(layout: AvaLayout) -> tuple[Tables, list[str]]:
    """The good rows of every annotation file there is, and the problems of the others."""
    tables: Tables = {}
    lines: list[str] = []
    label_map = LabelMap(AVA_ACTIONS)
    try:
        label_map = layout.label_map()
    except InputError as error:
        lines.append(str(error))
    for source, split in ((source, split) for source in SOURCES for split in SPLITS):
        path = layout.annotations(source, split)
        if not path.exists():
            continue
        try:
            tables[source, split], problems = read_annotation_rows(path, known_actions(label_map))
            lines += map(str, problems)
        except InputError as error:
            lines.append(str(error))
    if not tables and not lines:
        example = layout.annotations("ava", "train")
        lines.append(f"{example}: no annotation file of any source and split; add one")
    return tables, lines


def _small_files(layout: AvaLayout, source: str) -> Iterator[str]:
    """Problems of the excluded timestamps, the person boxes and, once, of the video starts."""
    for split in SPLITS:
        try:
            layout.excluded(source, split)
        except InputError as error:
            yield str(error)
    files = sorted((layout.root / "boxes").glob(f"*_{source}_*"))
    for path in [file for file in files if file.suffix in BOX_SUFFIXES]:
        try:
            read_person_boxes(path)
        except InputError as error:
            yield str(error)
    if source == SOURCES[0]:
        try:
            layout.video_start(source, "")
        except InputError as error:
            yield str(error)


def _disagreements(layout: AvaLayout, source: str, tables: Tables) -> list[str]:
    own = {layout.annotations(s, split): table for (s, split), table in tables.items()}
    own = {path: table for path, table in own.items() if path.name.startswith(source)}
    return list(map(str, contradicting_files(own)))


def _several_splits(layout: AvaLayout, source: str, tables: Tables, videos: Videos) -> list[str]:
    """Videos that a second split names too; fills ``videos``."""
    lines, split_of = [], {}
    for split in SPLITS:
        for video, place in _named_videos(layout, source, split, tables).items():
            first = videos.setdefault((source, video), place)
            if split_of.setdefault(video, split) != split:
                folder = layout.annotation_folder
                lines.append(f"{folder / place}: video {video} is also in {first}; keep one")
    return lines


def _named_videos(layout: AvaLayout, source: str, split: str, tables: Tables) -> dict[str, str]:
    """Every video of a split's list and annotations, and where it is named first."""
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
    return named


def _check_videos(
    layout: AvaLayout, videos: Videos, progress: Callable[[int, int, str], None] | None
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
        for done, (video, found) in enumerate(
            zip(videos, pool.map(duration, videos), strict=True), 1
        ):
            if isinstance(found, str):
                lines.append(found)
            else:
                durations[video] = found
            if progress:
                progress(done, len(videos), "videos")
    return durations, lines


def _outside(
    layout: AvaLayout,
    source: str,
    path: Path,
    table: pd.DataFrame,
    durations: dict[tuple[str, str], float],
) -> Iterator[Problem]:
    """Keyframes before the first or after the last frame of their video."""
    keyframes = table.drop_duplicates(["video", "micros"])
    for video, row, timestamp in zip(
        keyframes["video"], keyframes["row"], keyframes["timestamp"], strict=True
    ):
        try:
            start = layout.video_start(source, video)
        except InputError:
            return  # reported with its own row
        if (source, video) not in durations:
            continue
        end = start + durations[source, video]
        if not start - _SLACK <= timestamp <= end + _SLACK:
            text = (
                f"timestamp {timestamp:.6f} is outside the video, which lasts from {start:g} to "
                f"{end:g} s; mend it or add the start to video_starts.csv"
            )
            yield Problem(path, int(row), text)

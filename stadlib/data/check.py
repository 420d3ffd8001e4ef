"""What is wrong with a dataset: every problem of its annotations and videos, a line each."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pandas as pd

from stadlib.base import InputError, Report
from stadlib.data.boxes import read_person_boxes
from stadlib.data.keyframes import contradictions, read_annotations
from stadlib.data.layout import AVA_ACTIONS, BOX_SUFFIXES, SOURCES, SPLITS, AvaLayout, LabelMap
from stadlib.data.video import probe, read_frames

_SLACK = 1e-3  # seconds that a timestamp may lie outside its video, for containers' rounding
_Tables = dict[tuple[str, str], pd.DataFrame]  # the right rows of each source and split


def check_dataset(
    root: Path | str,
    progress: Report = lambda *_: None,
    most: float = math.inf,
    notes: list[str] | None = None,
) -> list[str]:
    """Read everything of a dataset in the layout of ``data.layout`` and list what is wrong.

    Annotations: columns, numbers, boxes, classes, contradictions, videos of two splits, timestamps
    outside the video. Videos: missing, empty, cut short, undecodable. Optional files may be
    missing. A line a problem, ``file:row: what; remedy``, with paths relative to ``root``; of each
    kind at most ``most``, and how many more there are. What reading mends is added to ``notes``.
    """
    mended = [] if notes is None else notes
    layout = AvaLayout(root)
    if not layout.annotation_folder.is_dir():
        return [f"{layout.annotation_folder}: no such folder; give a dataset's root"]
    lines: list[str] = []

    def attempt(read: Callable, *arguments: object) -> object:
        try:
            return read(*arguments)
        except (InputError, OSError) as error:
            lines.append(_line(error))
            return None

    label_map = attempt(layout.label_map) or LabelMap(AVA_ACTIONS)
    tables: _Tables = {}
    for key in product(SOURCES, SPLITS):
        path = layout.annotations(*key)
        if path.exists() and (answer := attempt(read_annotations, path, label_map, most)):
            tables[key], problems = answer
            lines += problems.lines()
            mended += problems.notes
    if not tables and not lines:
        example = layout.annotations("ava", "train")
        lines.append(f"{example}: no annotation file of any source and split; add one")
    starts_readable = attempt(layout.video_start, "ava", "") is not None
    for source, split in product(SOURCES, SPLITS):
        attempt(layout.excluded, source, split)
    for path in sorted((layout.root / "boxes").glob("*_*_*")):
        if path.suffix in BOX_SUFFIXES:
            attempt(read_person_boxes, path)
    for source in SOURCES:
        paths = {layout.annotations(*key): rows for key, rows in tables.items() if key[0] == source}
        lines += _first(contradictions(paths), most)

    named = _named_videos(layout, tables)
    first = named.drop_duplicates(["source", "video"])
    durations, broken = _durations(layout, first, progress)
    lines += _first(_of_two_splits(layout, named.merge(first, on=["source", "video"])), most)
    lines += _first(_outside(layout, tables, durations), most) if starts_readable else ()
    lines += _first(broken, most)
    return [line.removeprefix(f"{layout.root}{os.sep}") for line in lines]


def _line(error: InputError | OSError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}; make it readable"
    return str(error)


def _first(lines: Iterable[str], most: float) -> list[str]:
    """The first lines, and how many more of their kind there are."""
    lines = list(lines)
    kept = int(min(most, len(lines)))
    return lines[:kept] + [f"{len(lines) - kept} more like the line above"] * (kept < len(lines))


def _named_videos(layout: AvaLayout, tables: _Tables) -> pd.DataFrame:
    """Source, split, video, and the "file:row" that names it first there."""
    named = []
    for source, split in product(SOURCES, SPLITS):
        path = layout.video_list(source, split)
        listed = path.read_text(encoding="utf-8-sig").split("\n") if path.is_file() else []
        rows = [(line.strip(), f"{path.name}:{row}") for row, line in enumerate(listed, 1)]
        if (source, split) in tables:
            table = tables[source, split].drop_duplicates("video")
            place = f"{layout.annotations(source, split).name}:"
            rows += zip(table["video"], place + table["row"].astype(str), strict=True)
        named += [(source, split, video, place) for video, place in rows if video]
    frame = pd.DataFrame(named, columns=["source", "split", "video", "place"])
    return frame.drop_duplicates(["source", "split", "video"])


def _of_two_splits(layout: AvaLayout, named: pd.DataFrame) -> Iterator[str]:
    """Videos that another split names first (``split_y``, ``place_y``)."""
    for row in named[named["split_x"] != named["split_y"]].itertuples():
        problem = f"video {row.video} is also in {row.place_y}; keep one"
        yield f"{layout.annotation_folder / row.place_x}: {problem}"


def _durations(
    layout: AvaLayout, videos: pd.DataFrame, progress: Report
) -> tuple[dict[tuple[str, str], float], list[str]]:
    """Seconds of the sound videos, and a line for each of the others."""
    durations, broken = {}, []

    def duration(source: str, video: str) -> float | str:
        try:
            path = layout.video_file(source, video)
            seconds = probe(path).duration
            read_frames(path, [seconds])  # decodes the last group of pictures
        except (InputError, OSError) as error:
            return _line(error)
        return seconds

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        answers = pool.map(duration, videos["source"], videos["video"])
        for done, (row, answer) in enumerate(zip(videos.itertuples(), answers, strict=True), 1):
            if isinstance(answer, str):
                broken.append(f"{answer} (named in {row.place})")
            else:
                durations[row.source, row.video] = answer
            progress(done, len(videos), "videos")
    return durations, broken


def _outside(
    layout: AvaLayout, tables: _Tables, durations: dict[tuple[str, str], float]
) -> Iterator[str]:
    """Keyframes before the first or after the last frame of their video."""
    for (source, split), rows in tables.items():
        for row in rows.drop_duplicates(["video", "micros"]).itertuples():
            start = layout.video_start(source, row.video)
            end = start + durations.get((source, row.video), math.inf)
            known = (source, row.video) in durations
            if known and not start - _SLACK <= row.timestamp <= end + _SLACK:
                problem = f"timestamp {row.timestamp:.6f} is outside the video, which lasts from "
                problem += f"{start:g} to {end:g} s; mend it or add the start to video_starts.csv"
                yield f"{layout.annotations(source, split)}:{row.row}: {problem}"

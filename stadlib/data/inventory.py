"""AVA-Kinetics as its makers publish it: what to fetch, what of it lies on disk, what is missing.

Nothing is fetched. AVA's videos are whole movies; Kinetics' are clips of ten seconds, which its
mirror names ``<id>_<first second>_<last second>.mp4``, while annotations count from the beginning
of the original video (their seconds go far beyond ten).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from stadlib.config import InputError
from stadlib.data.layout import LABEL_MAP_FILE, SOURCES, SPLITS, VIDEO_SUFFIXES, AvaLayout

_AVA = "https://s3.amazonaws.com/ava-dataset"
FETCH = (
    ("AVA v2.2 annotations (research.google.com/ava)", f"{_AVA}/annotations/ava_v2.2.zip"),
    ("AVA movies' names", f"{_AVA}/annotations/ava_file_names_trainval_v2.1.txt (.._test_..)"),
    ("AVA movies, one by one (CVDF)", f"{_AVA}/trainval/<name>, {_AVA}/test/<name>"),
    (
        "AVA-Kinetics v1.0 annotations (DeepMind)",
        "https://storage.googleapis.com/deepmind-media/Datasets/ava_kinetics_v1_0.tar.gz",
    ),
    ("Kinetics-700 clips (CVDF)", "https://github.com/cvdfoundation/kinetics-dataset"),
)
_PLACES = (
    "annotations/",
    "(tells which movies)",
    "videos/ava/",
    "annotations/",
    "videos/kinetics/",
)
_CLIP = re.compile(r"(?P<video>.+)_(?P<first>\d{6})_\d{6}")  # CVDF's name of a Kinetics clip
_NAMED = 5  # missing videos that a line names


def what_to_fetch(layout: AvaLayout) -> list[str]:
    """Where everything is published and where it belongs, a line each."""
    return [
        f"{what}: {where} -> {layout.root / place if place[0] != '(' else place}"
        for (what, where), place in zip(FETCH, _PLACES, strict=True)
    ]


def found_videos(layout: AvaLayout, source: str) -> dict[str, Path]:
    """Every video file of a source by its id; a file under the layout's own name comes first."""
    folder = layout.root / "videos" / source
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found: dict[str, Path] = {}
    for path in files:
        if path.suffix in VIDEO_SUFFIXES and not path.name.startswith("."):
            named = _CLIP.fullmatch(path.stem) if source == "kinetics" else None
            if named:
                found.setdefault(named["video"], path)
            else:
                found[path.stem] = path
    return found


def first_second(layout: AvaLayout, source: str, video: str, path: Path) -> float:
    """The annotation clock at a file's first frame, of ``video_starts.csv`` or a clip's name."""
    named = _CLIP.fullmatch(path.stem) if source == "kinetics" and path.stem != video else None
    return float(named["first"]) if named else layout.video_start(source, video)


def missing_files(layout: AvaLayout) -> Iterator[str]:
    """Annotation files that training and validation need and that are not there, a line each."""
    names = [layout.annotation_folder / LABEL_MAP_FILE]
    for split in ("train", "val"):
        names += [layout.annotations(source, split) for source in SOURCES]
        names.append(layout.excluded_file("ava", split))
    for path in names:
        if not path.is_file():
            place = 3 if path.name.startswith("kinetics") else 0
            yield f"{path}: missing; take it out of {FETCH[place][1]}"


def wanted_videos(layout: AvaLayout) -> dict[tuple[str, str], list[str]]:
    """The ids of the videos of every source and split that a list or annotations name."""
    wanted = {}
    for source, split in ((source, split) for source in SOURCES for split in SPLITS):
        try:
            wanted[source, split] = layout.videos(source, split)
        except InputError:
            continue  # its file is among the missing ones
    return wanted


def missing_videos(layout: AvaLayout) -> Iterator[str]:
    """How many videos of each split there are and are not, with the first missing names."""
    found = {source: found_videos(layout, source) for source in SOURCES}
    for (source, split), videos in wanted_videos(layout).items():
        missing = [video for video in videos if video not in found[source]]
        if missing:
            names = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            where = layout.root / "videos" / source
            yield f"{where}: {len(missing)} of {len(videos)} {split} videos are missing: {names}"


def unusable_names(layout: AvaLayout) -> list[str]:
    """One line if clips are named as the mirror names them, which the layout does not know."""
    clips = [p for video, p in found_videos(layout, "kinetics").items() if p.stem != video]
    if not clips:
        return []
    words = "carry their seconds in their names; --reencode OUT writes <id>.mp4 and their starts"
    return [f"{clips[0].parent}: {len(clips)} clips {words}"]

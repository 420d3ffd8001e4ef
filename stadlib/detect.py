"""Person boxes of many frames into one file; interrupted, it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from stadlib.config import InputError
from stadlib.data.layout import AvaLayout
from stadlib.data.person_boxes import write_person_boxes
from stadlib.data.video import probe, read_frames
from stadlib.models.gfocal import PERSON
from stadlib.paths import write_whole
from stadlib.progress import Report

BATCH = 16  # frames at a time
_COLUMNS = ["video", "timestamp", "x1", "y1", "x2", "y2", "score"]


@dataclass(frozen=True)
class Frame:
    """A frame to look at: its name in the box file, and where it is.

    ``timestamp`` counts on the annotation clock, ``time`` from the file's first frame; seconds.
    """

    video: str
    timestamp: float
    path: Path
    time: float


def frames_of_dataset(
    layout: AvaLayout, source: str, moments: Sequence[tuple[str, float]]
) -> list[Frame]:
    """The frames of (video, second) pairs.

    Raises:
        InputError: a video is missing.
    """
    files = {
        video: layout.video_file(source, video) for video in dict.fromkeys(v for v, _ in moments)
    }
    starts = {video: layout.video_start(source, video) for video in files}
    return [Frame(video, t, files[video], t - starts[video]) for video, t in moments]


def frames_of_videos(paths: Sequence[Path], every: float) -> list[Frame]:
    """A frame every so many seconds of each file; a video is called as its file is.

    Raises:
        InputError: a file is no readable video, or two have one name.
    """
    names = [path.stem for path in paths]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{twice[0]}: two videos of that name; rename one")
    frames = []
    for path in paths:
        count = int((probe(path).duration - 1e-6) / every) + 1
        frames += [Frame(path.stem, round(i * every, 6), path, i * every) for i in range(count)]
    return frames


def detect(
    model: nn.Module, frames: Sequence[Frame], path: Path, made_by: str, *, progress: Report
) -> None:
    """Write the persons on all frames to ``path``: ``video,timestamp,x1,y1,x2,y2,,score``.

    While at it, ``path.partial`` holds a line a frame; the next call goes on from there.

    Args:
        model: a detector; set to evaluation mode here.
        frames: those of a video one after the other.
        path: of the box file, which appears when all is done.
        made_by: names the detector, so that two do not write into one file.
        progress: called with (frames done, frames, text).

    Raises:
        InputError: ``path`` is no ``.csv``, the partial file is another detector's, or a video
            cannot be read.
    """
    if path.suffix.lower() != ".csv":  # to be known before looking, not after
        raise InputError(f"{path}: person boxes are written as .csv; rename it")
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    done = _resume(partial, made_by)
    left = [frame for frame in frames if (frame.video, frame.timestamp) not in done]
    found = len(frames) - len(left)
    model.eval()
    with open(partial, "a") as file:
        for batch in _batches(left):
            for frame, boxes in zip(batch, _look(model, batch), strict=True):
                line = {"video": frame.video, "timestamp": frame.timestamp, "boxes": boxes}
                file.write(json.dumps(line) + "\n")
            file.flush()
            found += len(batch)
            progress(found, len(frames), "frames")
    done = _resume(partial, made_by)
    rows = [
        (frame.video, frame.timestamp, *box)
        for frame in frames
        for box in done[frame.video, frame.timestamp]
    ]
    write_person_boxes(pd.DataFrame(rows, columns=_COLUMNS), path)
    partial.unlink()


def _batches(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Frames of one video, so that it is opened once a batch and all have one size."""
    for _, own in groupby(frames, key=lambda frame: frame.path):
        those = list(own)
        for start in range(0, len(those), BATCH):
            yield those[start : start + BATCH]


@torch.inference_mode()
def _look(model: nn.Module, batch: Sequence[Frame]) -> list[list[list[float]]]:
    """Persons of each frame: corners in [0, 1] and score, the highest first."""
    where = next(model.parameters()).device
    pictures = read_frames(batch[0].path, [frame.time for frame in batch]).to(where)
    height, width = pictures.shape[2:]
    size = pictures.new_tensor([width, height, width, height], dtype=torch.float32)
    found = model(list(pictures.float() / 255))
    return [_persons(one, size) for one in found]


def _persons(found: dict[str, Tensor], size_4: Tensor) -> list[list[float]]:
    boxes_N4 = (found["boxes"] / size_4).clamp(0, 1)
    real_N = (boxes_N4[:, 2:] > boxes_N4[:, :2] + 1e-5).all(dim=1)  # six decimals are written
    keep_N = real_N & (found["labels"] == PERSON)
    rows = torch.cat([boxes_N4, found["scores"][:, None]], dim=1)[keep_N]
    return [[round(value, 6) for value in row] for row in rows.tolist()]


def _resume(partial: Path, made_by: str) -> dict[tuple[str, float], list]:
    """The frames that are done, and the file cut back to them."""
    lines = partial.read_text().splitlines() if partial.exists() else []
    whole = [line for line in map(_parsed, lines) if line is not None]
    if not whole:
        write_whole(partial, json.dumps({"made_by": made_by}) + "\n")
        return {}
    if whole[0].get("made_by") != made_by:
        raise InputError(f"{partial}: begun with {whole[0].get('made_by')}; delete it")
    write_whole(partial, "".join(json.dumps(line) + "\n" for line in whole))
    return {(line["video"], line["timestamp"]): line["boxes"] for line in whole[1:]}


def _parsed(line: str) -> dict | None:
    """A line that a kill cut short is none."""
    try:
        return json.loads(line)
    except ValueError:
        return None

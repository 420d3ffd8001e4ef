"""Person boxes of many frames into one file; interrupted, it goes on where it was.

The trained person detectors: v1, v2, v3 of a scale, a file of weights, or torchvision's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from stadlib.base import InputError, MakeProgress, Report, check_word, data_dir, digest, write_whole
from stadlib.data.batches import GlobalBatches, InTurns
from stadlib.data.boxes import write_person_boxes
from stadlib.data.clips import Picture, PictureDataset, as_lists, of_keyframes, of_stills
from stadlib.data.coco import Still, read_coco
from stadlib.data.keyframes import moments, read_keyframes
from stadlib.data.layout import AvaLayout
from stadlib.data.video import probe, read_frames
from stadlib.models.person_detector import (
    PERSON,
    GFocalV2,
    LossSums,
    gfocal_mini,
    gfocal_resnet,
    torchvision_detector,
)
from stadlib.recipes.experiment import Experiment
from stadlib.recipes.scales import DETECTOR_SCALES, DETECTORS, made_of
from stadlib.training import processes
from stadlib.training.loop import Schedule, fit, read_weights
from stadlib.training.pretraining import prepare_data, render

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


SEED = 0  # one detector of each version, as in the paper: rows that use it share it


def build_detector(scale: str) -> GFocalV2:
    """GFocalV2 at a scale's size, untrained."""
    check_word("scale", scale, tuple(DETECTOR_SCALES))
    numbers = DETECTOR_SCALES[scale]
    if numbers.body == "mini":
        return gfocal_mini(numbers.short_sides, numbers.long_side)
    return gfocal_resnet(int(numbers.body), numbers.short_sides, numbers.long_side)


def open_detector(word: str, scale: str, progress: MakeProgress) -> tuple[nn.Module, str]:
    """A detector ready for use, and what names it in files.

    Args:
        word: ``v1``, ``v2``, ``v3``, which are trained if need be; ``torchvision:NAME``; or the
            path of a checkpoint that this package wrote.
        scale: of a version.
        progress: makes the progress of a named task.

    Raises:
        ConfigError, InputError: no such word, scale, file or weights.
    """
    where = processes.device()
    if word.startswith("torchvision:"):
        return torchvision_detector(word.removeprefix("torchvision:")).to(where), word
    if word.endswith(".pt"):
        path, model = Path(word), build_detector(scale)
        _load_weights(model, path, scale)
        made = hashlib.sha256(path.read_bytes()).hexdigest()[:12]  # many are named checkpoint.pt
        return model.to(where), f"{path.name} {made} of {scale} size"
    check_word("detector", word, (*DETECTORS, "torchvision:NAME", "FILE.pt"))
    return trained_detector(word, scale, progress), f"{word}-{digest(made_of(word, scale))}"


def trained_detector(version: str, scale: str, progress: MakeProgress) -> nn.Module:
    """Train a version stage by stage, or finish doing so, or read its weights."""
    torch.manual_seed(SEED)
    model = build_detector(scale).to(processes.device())
    if DETECTOR_SCALES[scale].body != "mini":
        _start_from_imagenet(model, DETECTOR_SCALES[scale].body)
    for number in range(1, len(DETECTORS[version]) + 1):
        _train(model, version, scale, number, progress)
    return model


def _train(model: nn.Module, version: str, scale: str, number: int, progress: MakeProgress) -> None:
    """One stage, whose digest names its folder; several processes share its batches."""
    stage, numbers = DETECTORS[version][number - 1], DETECTOR_SCALES[scale]
    made = digest(made_of(version, scale, number))
    folder = data_dir() / "detectors" / made
    schedule = Schedule(
        iterations=max(1, round(numbers.iterations * stage.share)),
        lr=numbers.lr,
        drop=numbers.drop,
        weight_decay=numbers.weight_decay,
        seed=SEED,
    )
    path = folder / "checkpoint.pt"
    if path.exists():
        content = read_weights(path, made)
        if content["iteration"] >= schedule.iterations:
            model.load_state_dict(content["model"])
            return
    lists = [_pictures(name, scale, progress) for name in stage.data]
    pictures = [picture for some in lists for picture in some]
    draw = InTurns([len(some) for some in lists], SEED)

    def batches(start: int) -> Iterable:
        order = GlobalBatches(
            len(pictures), numbers.batch, seed=SEED, start=start, stop=schedule.iterations,
            rank=processes.rank(), num_processes=processes.num_processes(), draw=draw,
        )  # fmt: skip
        return DataLoader(PictureDataset(pictures), batch_sampler=order, collate_fn=as_lists)

    report = progress(f"train detector {version}, stage {number}")
    fit(
        model.train(),
        detection_loss,
        batches,
        schedule,
        folder=folder,
        digest=made,
        progress=report,
    )


def detection_loss(model: nn.Module, batch: tuple[list, list]) -> tuple[torch.Tensor, int]:
    """The loss of a batch, divided by the persons and weights of all processes."""
    where = next(model.parameters()).device
    images = [picture.to(where).float() / 255 for picture in batch[0]]
    sums: LossSums = model(images, [{"boxes": boxes.to(where)} for boxes in batch[1]])
    positives, weights = (processes.total(v, where) for v in (sums.positives, sums.weights))
    # ``fit`` averages over processes; the divisors are of all of them, so each one's share counts.
    return sums.total(positives, weights) * processes.num_processes(), 1


def _pictures(name: str, scale: str, progress: MakeProgress) -> list[Picture]:
    """A list of a stage."""
    if name == "stills":
        return of_stills(_stills(scale, progress))
    layout = prepare_data(Experiment(scale=scale), progress)
    return of_keyframes(layout, read_keyframes(layout, name, "train"))


def _stills(scale: str, progress: MakeProgress) -> list[Still]:
    """COCO's training pictures with persons, or the rendered set that stands for them."""
    if scale == "paper":
        root = data_dir() / "coco"
        stills = read_coco(root / "annotations" / "instances_train2017.json", root / "train2017")
        return [still for still in stills if len(still.boxes)]  # the person subset (section 3.1)
    root = render(scale, "stills", progress)
    return read_coco(root / "annotations" / "instances_train.json", root / "train")


def _start_from_imagenet(model: GFocalV2, depth: str) -> None:
    path = data_dir() / "pretrained" / f"resnet{depth}.pth"
    if not path.is_file():
        raise InputError(f"{path}: no such file; put torchvision's ImageNet weights there")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    body = {name: w for name, w in weights.items() if not name.startswith("fc.")}
    model.body.body.load_state_dict(body)


def _load_weights(model: nn.Module, path: Path, scale: str) -> None:
    """Take the model of a checkpoint file, whatever it was trained on."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a checkpoint.pt of a detector")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)["model"]
    except Exception as error:  # torch raises many types for a damaged file
        reason = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{path}: not a detector's checkpoint ({reason})") from error
    try:
        model.load_state_dict(weights)
    except Exception as error:
        raise InputError(
            f"{path}: weights of another network than the detector at scale {scale}; "
            "name its scale or another file"
        ) from error


def require_boxes(
    experiment: Experiment, layout: AvaLayout, source: str, split: str, progress: MakeProgress
) -> None:
    """See that an experiment's detector has looked at every second of a split.

    In a rendered world it is trained and looks if need be. On real data the box file must be there.

    Raises:
        InputError: it is not.
    """
    name = experiment.boxes_name
    path = layout.person_boxes(name, source, split)
    if path.exists():
        return
    if name == experiment.detector:
        raise InputError(
            f"{path}: no boxes of {name}; put them there, or make them: stadlib detect "
            f"--data {layout.root} --detector torchvision:fasterrcnn_resnet50_fpn_v2 --as {name}"
        )
    model = trained_detector(experiment.detector, experiment.scale, progress)
    if processes.rank() == 0:
        frames = frames_of_dataset(layout, source, moments(layout, source, split))
        detect(model, frames, path, name, progress=progress(f"detect {source}_{split}"))
    processes.barrier()


Files = list[tuple[Path, list[Frame]]]  # box files to be written, and the frames they tell of


def of_videos(paths: Sequence[Path], every: float, out: Path) -> Files:
    """One box file for some videos, a frame every so many seconds."""
    return [(out, frames_of_videos(paths, every))]


def of_dataset(root: Path, sources: Sequence[str], splits: Sequence[str], name: str) -> Files:
    """A box file a source and split of a dataset, for all its seconds.

    Raises:
        InputError: an unknown source or split, a missing file, or no such source at all.
    """
    layout = AvaLayout(root)
    there = [
        (source, split)
        for source in sources
        for split in splits
        if layout.annotations(source, split).is_file() or layout.video_list(source, split).is_file()
    ]
    if not there:
        raise InputError(f"{root}: no {' or '.join(sources)} {' or '.join(splits)}; see the README")
    return [
        (
            layout.person_boxes(name, source, split),
            frames_of_dataset(layout, source, moments(layout, source, split)),
        )
        for source, split in there
    ]

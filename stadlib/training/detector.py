"""The person detectors: v1, v2, v3 of a scale trained, loaded, and their boxes of many frames."""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, groupby, product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import nn

from stadlib import base
from stadlib.base import InputError, MakeProgress, Report, check_word, data_dir, write_whole
from stadlib.data import clips
from stadlib.data.batches import GlobalBatches, InTurns
from stadlib.data.boxes import BOX_COLUMNS, PersonBoxes, write_person_boxes
from stadlib.data.keyframes import moments, read_keyframes
from stadlib.data.layout import BOX_SUFFIXES, AvaLayout
from stadlib.data.video import probe, read_frames
from stadlib.models import person_detector
from stadlib.models.person_detector import PERSON, GFocalV2
from stadlib.recipes.experiment import Experiment
from stadlib.recipes.scales import DETECTOR_SCALES, DETECTORS, OTHER_DETECTORS, detector_digest
from stadlib.training import build, processes
from stadlib.training.loop import Schedule, fit
from stadlib.training.pretraining import prepare_data, render

BATCH, AHEAD = 16, 4  # frames at a time, batches that are read ahead
Detector = nn.Module | PersonBoxes  # pictures to boxes, scores and labels; or boxes of a file


def build_detector(scale: str) -> GFocalV2:
    """GFocalV2 at a scale's size, untrained."""
    check_word("scale", scale, tuple(DETECTOR_SCALES))
    numbers = DETECTOR_SCALES[scale]
    sides = numbers.short_sides, numbers.long_side
    if numbers.body == "mini":
        return person_detector.gfocal_mini(*sides)
    return person_detector.gfocal_resnet(int(numbers.body), *sides)


def trained_detector(version: str, scale: str, progress: MakeProgress, seed: int = 0) -> nn.Module:
    """Train a version stage by stage, or finish doing so, or read its weights.

    A stage that several versions begin with is trained once. All rows of a seed share a detector.
    """
    torch.manual_seed(seed)
    model, numbers = build_detector(scale).to(processes.device()), DETECTOR_SCALES[scale]
    if numbers.body != "mini":
        path = data_dir() / "pretrained" / f"resnet{numbers.body}.pth"
        if not path.is_file():
            raise InputError(f"{path}: no such file; put torchvision's ImageNet weights there")
        weights = torch.load(path, map_location="cpu", weights_only=True)
        body = {name: w for name, w in weights.items() if not name.startswith("fc.")}
        model.body.body.load_state_dict(body)
    world = Experiment(scale=scale, seed=seed)
    rates = {name: getattr(numbers, name) for name in ("lr", "drop", "weight_decay")}
    for number, stage in enumerate(DETECTORS[version], 1):
        iterations = max(1, round(numbers.iterations * stage.share))
        schedule = Schedule(iterations=iterations, seed=seed, **rates)
        batches = partial(_batches, stage.data, world, iterations, progress)
        options = {"digest": detector_digest(version, scale, number, seed=seed)}
        options |= {"progress": progress(f"train detector {version}, stage {number}")}
        folder = data_dir() / "detectors" / options["digest"]
        with _alone(folder.with_suffix(".lock")):
            options |= {"half": _half(model), "folder": folder}
            fit(model.train(), detection_loss, batches, schedule, **options)
    return model


def _half(model: nn.Module) -> bool:
    """Whether a detector computes in bfloat16 where that is safe: ours of paper size on a GPU."""
    # torchvision's decode boxes in the type of their networks, too coarse for pixels.
    large = isinstance(model, GFocalV2) and len(model.strides) == 5
    return large and next(model.parameters()).device.type == "cuda"


def _batches(
    lists: Sequence[str], world: Experiment, stop: int, progress: MakeProgress, start: int
) -> Iterator:
    """Pictures of the lists in turns from an iteration on; processes share a batch."""
    pictures = [_pictures(name, world, progress) for name in lists]  # rendered at the first batch
    dataset = clips.PictureDataset(list(chain(*pictures)))
    options = {"draw": InTurns(list(map(len, pictures)), world.seed), "seed": world.seed}
    options |= {"rank": processes.rank(), "num_processes": processes.num_processes()}
    batch = DETECTOR_SCALES[world.scale].batch
    order = GlobalBatches(len(dataset), batch, start=start, stop=stop, **options)
    yield from build.loader(dataset, world, batch_sampler=order, collate_fn=clips.as_lists)


def detection_loss(model: nn.Module, batch: tuple[list, list]) -> tuple[torch.Tensor, int]:
    """The loss of a batch, divided by the persons and weights of all processes; a unit each."""
    device = next(model.parameters()).device
    images = [picture.to(device).float() / 255 for picture in batch[0]]
    sums = model(images, [{"boxes": boxes.to(device)} for boxes in batch[1]])
    positives, weights = (processes.total(v) for v in (sums.positives, sums.weights))
    # ``fit`` averages over processes; the divisors are of all of them, so each one's share counts.
    copies = processes.num_processes()
    return sums.total(positives, weights) * copies, copies


def _pictures(name: str, world: Experiment, progress: MakeProgress) -> list[clips.Picture]:
    """A list of a stage: keyframes, or the persons of COCO (section 3.1) or of the rendered set."""
    if name != "stills":
        layout = prepare_data(world, progress)
        return clips.of_keyframes(layout, read_keyframes(layout, name, "train"))
    paper = world.scale == "paper"
    root = data_dir() / "coco" if paper else render(world, "coco", progress)
    folder = "train2017" if paper else "train"
    pictures = clips.read_coco(root / "annotations" / f"instances_{folder}.json", root / folder)
    return [picture for picture in pictures if len(picture.boxes) or not paper]


def open_detector(word: str, scale: str, progress: MakeProgress) -> tuple[Detector, str]:
    """A detector ready for use, and its name in files.

    ``word`` is ``v1``, ``v2`` or ``v3``, which are trained if need be; ``torchvision:NAME``; the
    path of a checkpoint that this package wrote; or that of a file of boxes.
    """
    if (path := Path(word)).suffix.lower() in BOX_SUFFIXES:
        boxes = PersonBoxes(path)
        return boxes, f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    if word.startswith("torchvision:"):
        model = person_detector.torchvision_detector(word.removeprefix("torchvision:"))
        return model.to(processes.device()), word
    if not word.endswith(".pt"):
        check_word("detector", word, (*DETECTORS, *OTHER_DETECTORS))
        return trained_detector(word, scale, progress), f"{word}-{detector_digest(word, scale)}"
    model = build_detector(scale)
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a checkpoint.pt of a detector")
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
    except Exception as error:  # torch raises many types
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(":")
        raise InputError(f"{path}: no detector of scale {scale} ({reason})") from error
    made = hashlib.sha256(path.read_bytes()).hexdigest()[:12]  # many are named checkpoint.pt
    return model.to(processes.device()), f"{path.name} {made} of {scale} size"


class Frame(NamedTuple):
    """A frame of a video, by its name in the box file."""

    video: str
    timestamp: float  # seconds on the annotation clock
    path: Path
    time: float  # seconds from the file's first frame


def frames_of_dataset(layout: AvaLayout, source: str, split: str) -> list[Frame]:
    """The frames of every second of a dataset's split."""
    seconds = moments(layout, source, split)
    videos = dict.fromkeys(video for video, _ in seconds)
    files = {video: layout.video_file(source, video) for video in videos}
    return [Frame(v, t, files[v], t - layout.video_start(source, v)) for v, t in seconds]


def frames_of_videos(paths: Sequence[Path], every: float) -> list[Frame]:
    """A frame ``every`` so many seconds of each file; a video has the name of its file."""
    names = [path.stem for path in paths]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{twice[0]}: two videos of that name; rename one")
    frames = []
    for path in paths:
        count = int((probe(path).duration - 1e-6) / every) + 1
        frames += [Frame(path.stem, round(i * every, 6), path, i * every) for i in range(count)]
    return frames


def detect_persons(
    model: Detector, frames: Sequence[Frame], path: Path, made_by: str, *, progress: Report
) -> None:
    """Write the persons on all frames to ``path``: ``video,timestamp,x1,y1,x2,y2,,score``.

    The file appears when all is done. Until then ``path.partial`` holds a line a frame, and the
    next call of the same detector (``made_by``) resumes from it. Frames are sorted by video.
    Processes take videos in turns; those after the first add their number to ``path.partial``.
    """
    own = path.with_name(f"{path.name}.partial{processes.rank() or ''}")
    boxes = _begun(path, made_by)
    left = [frame for frame in frames if frame[:2] not in boxes]
    videos = dict.fromkeys(frame.path for frame in left)
    mine = {*list(videos)[processes.rank() :: processes.num_processes()]}
    left = [frame for frame in left if frame.path in mine]
    done = len(frames) - len(left)
    processes.barrier()  # all have read what was begun
    lines = [*base.whole_lines(own)] or [json.dumps({"made_by": made_by}) + "\n"]
    write_whole(own, "".join(lines))
    if isinstance(model, PersonBoxes):
        model.require({frame.video for frame in frames})
    else:
        model.eval()
    with open(own, "a") as file:
        for batch, found in _found(model, left):
            for frame, persons in zip(batch, found, strict=True):
                line = {"video": frame.video, "timestamp": frame.timestamp, "boxes": persons}
                file.write(json.dumps(line) + "\n")
            file.flush()
            done += len(batch)
            progress(done, len(frames), "frames")
    processes.barrier()
    if processes.rank() == 0:
        boxes = _begun(path, made_by)
        rows = [(*frame[:2], *box) for frame in frames for box in boxes[frame[:2]]]
        write_person_boxes(pd.DataFrame(rows, columns=BOX_COLUMNS), path)
        for part in _partial(path):
            part.unlink()
    processes.barrier()


def _partial(path: Path) -> list[Path]:
    """Of all processes of this call and of earlier ones."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.partial*"))


def _begun(path: Path, made_by: str) -> dict[tuple[str, float], list]:
    """The boxes that are known already, by video and timestamp."""
    boxes = {}
    for part in _partial(path):
        for line in map(json.loads, base.whole_lines(part)):
            if "video" in line:
                boxes[line["video"], line["timestamp"]] = line["boxes"]
            elif line.get("made_by") != made_by:
                raise InputError(f"{part}: begun with {line.get('made_by')}; delete it")
    return boxes


def _found(model: Detector, frames: Sequence[Frame]) -> Iterator[tuple[list[Frame], list]]:
    """Batches of frames of one video with their persons; threads read the next ones meanwhile."""
    groups = (list(group) for _, group in groupby(frames, key=lambda frame: frame.path))
    batches = [of[i : i + BATCH] for of in groups for i in range(0, len(of), BATCH)]
    if isinstance(model, PersonBoxes):
        for batch in batches:
            yield batch, [model.at(frame.video, frame.timestamp).tolist() for frame in batch]
        return
    waiting: deque = deque()
    with ThreadPoolExecutor(AHEAD) as threads:
        for number, batch in enumerate(batches):
            for later in batches[number + len(waiting) : number + AHEAD + 1]:
                times = [frame.time for frame in later]
                waiting.append(threads.submit(read_frames, later[0].path, times))
            yield batch, look(model, waiting.popleft().result())


@torch.inference_mode()
def look(model: nn.Module, pictures: torch.Tensor) -> list[list[list[float]]]:
    """Persons of each picture (T, 3, H, W): corners in [0, 1] and score, the highest first."""
    pictures = pictures.to(next(model.parameters()).device)
    height, width = pictures.shape[2:]
    size_4 = pictures.new_tensor([width, height, width, height], dtype=torch.float32)
    persons = []
    with processes.autocast(_half(model)):
        results = model(list(pictures.float() / 255))
    for result in results:
        boxes_N4 = (result["boxes"] / size_4).clamp(0, 1)
        real_N = (boxes_N4[:, 2:] > boxes_N4[:, :2] + 1e-5).all(dim=1)  # six decimals are written
        keep_N = real_N & (result["labels"] == PERSON)
        rows = torch.cat([boxes_N4, result["scores"][:, None]], dim=1)[keep_N]
        persons.append([[round(value, 6) for value in row] for row in rows.tolist()])
    return persons


def make_boxes(
    experiment: Experiment, layout: AvaLayout, source: str, split: str, progress: MakeProgress
) -> None:
    """Write the boxes of an experiment's detector for every second of a split.

    In a rendered world they are part of the study, or the detector is trained at first use; on real
    data a missing file is an InputError. Of two runs at once the second waits for the first.
    """
    name = experiment.boxes_name
    path = layout.person_boxes(name, source, split)
    if name == experiment.detector:
        raise InputError(
            f"{path}: no boxes of {name}; put them there, or make them: stadlib detect "
            f"--data {layout.root} --detector torchvision:fasterrcnn_resnet50_fpn_v2 --as {name}"
        )
    study = base.published_dir("reference") / "boxes" / f"{path.name}.gz"
    if experiment.weights == "reference" and study.is_file():
        if processes.rank() == 0:
            write_whole(path, gzip.decompress(study.read_bytes()))
        processes.barrier()
        return
    with _alone(data_dir() / "detectors" / f"{name}.lock"):
        if processes.gather([path.exists()])[0]:  # the first process's answer, in all of them
            return
        words = experiment.detector, experiment.scale
        model = trained_detector(*words, progress, experiment.seed)
        frames = frames_of_dataset(layout, source, split)
        detect_persons(model, frames, path, name, progress=progress(f"detect {source}_{split}"))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock among runs; of a run's processes the first one does, and the others follow it."""
    if processes.rank():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path.stem}: another run makes it; waiting", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def box_files(
    root: Path, sources: Sequence[str], splits: Sequence[str], name: str
) -> list[tuple[Path, list[Frame]]]:
    """The box files of a dataset, one a source and split, and the frames that they are of."""
    layout = AvaLayout(root)
    files = []
    for of in product(sources, splits):
        if layout.annotations(*of).is_file() or layout.video_list(*of).is_file():
            files.append((layout.person_boxes(name, *of), frames_of_dataset(layout, *of)))
    if not files:
        raise InputError(f"{root}: no {' or '.join(sources)} {' or '.join(splits)}; see the README")
    return files

"""The trained person detectors: v1, v2, v3 of a scale, a file of weights, or torchvision's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from stadlib import processes
from stadlib.config import Experiment, InputError, check_word, digest
from stadlib.data.annotations import read_keyframes
from stadlib.data.coco import Still, read_coco
from stadlib.data.layout import AvaLayout
from stadlib.data.pictures import Picture, PictureDataset, as_lists, of_keyframes, of_stills
from stadlib.data.sampling import GlobalBatches, InTurns
from stadlib.data.seconds import moments
from stadlib.detect import Frame, detect, frames_of_dataset, frames_of_videos
from stadlib.detector_recipes import DETECTOR_SCALES, DETECTORS, made_of
from stadlib.models.gfocal import GFocalV2, LossSums
from stadlib.models.person_detectors import gfocal_mini, gfocal_resnet, torchvision_detector
from stadlib.paths import data_dir
from stadlib.preparation import prepare_data, render
from stadlib.progress import MakeProgress
from stadlib.train import Schedule, fit, read_weights

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

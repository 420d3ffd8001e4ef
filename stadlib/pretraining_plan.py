"""A pretraining on Kinetics' files before it begins: lists, videos, numbers, and where all lies."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from stadlib import processes
from stadlib.config import Experiment, InputError, digest
from stadlib.data.kinetics import (
    SPLITS,
    Annotations,
    LabelledVideos,
    listed_videos,
    missing_videos,
    read_annotations,
    some,
)
from stadlib.paths import write_whole
from stadlib.pretraining_recipes import RECIPES, PretrainingRecipe
from stadlib.weights.sources import pretrained_dir, weights_stem


@dataclass(frozen=True)
class Pretraining:
    """What a backbone learns from, how, and where the outcome lies.

    Attributes:
        experiment: its backbone, pretrain, frames, scale and seed count, nothing else.
        recipe: the numbers.
        annotations: of the folder of Kinetics.
        videos: by split, those that are there.
        iterations: of training.
        digest: of everything that decides the weights but how processes share a batch and which
            videos were there: these are listed once, in ``folder``.
    """

    experiment: Experiment
    recipe: PretrainingRecipe
    annotations: Annotations
    videos: dict[str, LabelledVideos]
    iterations: int
    digest: str

    @property
    def folder(self) -> Path:
        """Checkpoint, log and lists of videos."""
        return _folder(self.experiment, self.digest)

    @property
    def weights(self) -> Path:
        """The file that runs look for."""
        return pretrained_dir() / f"{_stem(self.experiment)}.safetensors"

    @property
    def record(self) -> Path:
        """Accuracy and provenance, beside the weights."""
        return pretrained_dir() / f"{_stem(self.experiment)}.accuracy.json"

    @property
    def unreadable(self) -> Path:
        """The list of files that could not be read."""
        return self.folder / "unreadable.txt"

    def missing(self, split: str) -> list[str]:
        """The videos of a split that its list has and that are not there."""
        return missing_videos(self.annotations, split, self.videos[split])

    def lines(self) -> list[str]:
        """What is there in words; files that cannot be read show only as they are read."""
        lines = []
        for split in SPLITS:
            names, of = self.missing(split), len(self.annotations.rows[split])
            lines.append(f"{self.annotations.root}: {of - len(names)} of {of} {split} videos")
            if names:
                lines[-1] += f"; missing and left out: {some(names)}"
        return lines

    def finished(self) -> dict | None:
        """The record, if the weights are those of this pretraining.

        Raises:
            InputError: there are other weights in their place.
        """
        if not self.weights.is_file():
            return None
        text = self.record.read_text() if self.record.is_file() else "{}"
        if f'"digest": "{self.digest}"' in text:
            return json.loads(text)
        raise InputError(
            f"{self.weights}: already there, and not of this training; move it away to train again"
        )


def _stem(experiment: Experiment) -> str:
    """Weights of a small network never bear the name of the paper's."""
    stem = weights_stem(experiment.backbone, experiment.pretrain)
    return stem if experiment.scale == "paper" else f"{stem}_{experiment.scale}"


def _folder(experiment: Experiment, made: str) -> Path:
    return pretrained_dir() / f"{_stem(experiment)}-{made}"


def open_pretraining(
    experiment: Experiment, root: Path, iterations: int | None = None
) -> Pretraining:
    """Read the lists and see which videos are there, once; no video is opened.

    Args:
        experiment: see :class:`Pretraining`.
        root: a folder in Kinetics' form, see :mod:`stadlib.data.kinetics`.
        iterations: instead of the recipe's epochs.

    Raises:
        InputError: a list that is missing or wrong, or no video at all.
    """
    annotations = read_annotations(root)
    recipe = RECIPES[experiment.scale]
    words = ("backbone", "pretrain", "frames", "scale", "seed")
    made = digest(
        {name: getattr(experiment, name) for name in words}
        | {"recipe": asdict(recipe), "iterations": iterations, "lists": annotations.digest}
    )
    if processes.rank() == 0:
        for split, there in _listed(annotations, _folder(experiment, made)).items():
            names = missing_videos(annotations, split, there)
            path = _folder(experiment, made) / f"{split}_missing.txt"
            write_whole(path, "".join(f"{name}\n" for name in names))
    processes.barrier()
    videos = _listed(annotations, _folder(experiment, made))
    usual = max(1, round(recipe.epochs * len(videos["train"]) / recipe.batch))
    return Pretraining(experiment, recipe, annotations, videos, iterations or usual, made)


def _listed(annotations: Annotations, folder: Path) -> dict[str, LabelledVideos]:
    return {
        split: listed_videos(annotations, split, folder / f"{split}_videos.csv") for split in SPLITS
    }

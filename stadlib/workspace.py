"""An experiment on its dataset: where its files go, which keyframes it trains and scores.

Whoever looks at a finished run opens it again here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stadlib import metrics, processes
from stadlib.banks import Banks
from stadlib.config import Experiment, InputError, Stage
from stadlib.data.annotations import Keyframe, read_keyframes
from stadlib.data.detected import CONFIDENT, detected_keyframes, detections, with_confident
from stadlib.data.layout import SOURCES, AvaLayout
from stadlib.detectors import require_boxes
from stadlib.execution import USUAL, Execution
from stadlib.paths import stage_dir
from stadlib.preparation import prepare_data
from stadlib.progress import MakeProgress


@dataclass(frozen=True)
class Run:
    """One experiment on its way: what is run, on which data, where its files go.

    Attributes:
        experiment: all its words and numbers.
        layout: the dataset.
        folder: of the record and the detections.
        stage_folders: of the stages' weights and banks, shared by runs that begin alike.
        progress: makes the progress of a named task.
        execution: how it is computed.
    """

    experiment: Experiment
    layout: AvaLayout
    folder: Path
    stage_folders: tuple[Path, ...]
    progress: MakeProgress
    execution: Execution = USUAL

    @property
    def half(self) -> bool:
        """Whether networks compute in bfloat16 where that is safe (autocast)."""
        words = self.execution.precision
        return words == "bfloat16" or (
            words == "auto" and self._large and processes.device().type == "cuda"
        )

    @property
    def recompute(self) -> bool:
        """Whether a backbone's activations are computed again in the backward pass."""
        words = self.execution.recompute
        long = "64x1" in self.experiment.frames
        return words == "yes" or (words == "auto" and self._large and long)

    @property
    def alike(self) -> bool:
        """Whether the shares of a batch are padded to one size."""
        words = self.execution.pad
        return words == "batch" or (words == "auto" and not self._large)

    @property
    def _large(self) -> bool:
        return self.experiment.scale == "paper"

    def banks(self, number: int) -> Banks:
        """Of the backbone as it is after a stage, counted from 1."""
        stages = self.experiment.stages[:number]
        trained = max(place for place, stage in enumerate(stages) if stage.train == "all")
        return Banks(self.layout, self.experiment, self.stage_folders[trained], self.progress)

    def require_boxes(self, source: str, split: str) -> None:
        """See that the detector's boxes of a split are there."""
        require_boxes(self.experiment, self.layout, source, split, self.progress)

    def has(self, source: str, split: str) -> bool:
        """Whether the dataset has this source's split; one's own may lack Kinetics."""
        return self.layout.annotations(source, split).exists()


def open_run(
    experiment: Experiment,
    folder: Path,
    progress: MakeProgress,
    execution: Execution = USUAL,
) -> Run:
    """A run on its dataset, which is rendered if need be."""
    layout = prepare_data(experiment, progress)
    numbers = range(1, len(experiment.stages) + 1)
    folders = tuple(stage_dir(experiment.stage_digest(number)) for number in numbers)
    return Run(experiment, layout, folder, folders, progress, execution)


def training_keyframes(run: Run, stage: Stage) -> list[Keyframe]:
    """What a stage is trained on: annotated persons, perhaps with confident detections."""
    keyframes = annotated(run.layout, stage.data, "train")
    experiment = run.experiment
    if not experiment.detected or experiment.detections.training == "ground-truth":
        return keyframes
    mixed = []
    for source in dict.fromkeys(keyframe.source for keyframe in keyframes):
        run.require_boxes(source, "train")
        found = detections(run.layout, source, "train", experiment.boxes_name, CONFIDENT)
        mixed += with_confident([k for k in keyframes if k.source == source], found)
    return mixed


def validation_keyframes(run: Run) -> list[Keyframe]:
    """The annotated validation moments with the persons that are scored there."""
    return scored_keyframes(run, "val")


def scored_keyframes(run: Run, split: str) -> list[Keyframe]:
    """The moments of a split that count, with the persons that are scored there.

    Where nobody annotated a split, as AVA's test movies, all its listed seconds count.
    """
    experiment = run.experiment
    if not experiment.detected:
        return annotated(run.layout, SOURCES, split)
    found = []
    for source in SOURCES:
        if run.has(source, split) or run.layout.video_list(source, split).is_file():
            run.require_boxes(source, split)
            where = (run.layout, source, split, experiment.boxes_name)
            found += detected_keyframes(*where, experiment.detections.threshold)
    return found


def annotated(layout: AvaLayout, sources: Iterable[str], split: str) -> list[Keyframe]:
    """The keyframes with persons of the sources that the dataset has, one list after the other."""
    lists = [
        read_keyframes(layout, source, split)
        for source in sources
        if layout.annotations(source, split).exists()
    ]
    keyframes = [keyframe for part in lists for keyframe in part if len(keyframe.boxes)]
    if not keyframes:
        raise InputError(f"{layout.annotation_folder}: no annotated {split} keyframe; add some")
    return keyframes


def groundtruth(layout: AvaLayout, source: str, split: str = "val") -> pd.DataFrame:
    """The rows of a source's split without its excluded timestamps, which nobody scores."""
    rows = metrics.read_rows(layout.annotations(source, split))
    excluded = layout.excluded(source, split)
    keys = zip(rows["video"], rows["timestamp"].astype(float).map("{:.6f}".format), strict=True)
    return rows[[key not in excluded for key in keys]]


def has_actions(truth: pd.DataFrame) -> bool:
    """Whether ground truth names any action; a test split's may only name keyframes."""
    return bool((truth["action_id"] != metrics.NO_LABEL).any())

"""The detector and the model that look at somebody's own video, and what to think of them there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stadlib import build, recipes, stages, study, watch
from stadlib.banks import weights_digest
from stadlib.config import Detections, Experiment, InputError, from_dict
from stadlib.detector_recipes import DETECTORS
from stadlib.detectors import open_detector
from stadlib.own_video.scorer import Networks
from stadlib.paths import data_dir
from stadlib.preparation import prepare_data
from stadlib.progress import MakeProgress
from stadlib.records import read_record
from stadlib.weights.sources import SOURCES
from stadlib.workspace import open_run

MINIATURE = "miniature"  # instead of a run's name
SURE = 0.8  # least score of a person for torchvision's detectors (AlphAction's; ours score lower)

_WORDS = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "head": "t-only"}
_FILES = (".pt", ".pth", ".pyth", ".pkl", ".safetensors")


def open_networks(
    weights: str, detector: str, scale: str, video: Path, progress: MakeProgress
) -> Networks:
    """The networks of a run, ready to look at a video.

    Args:
        weights: a run's folder, its name or part of it; ``miniature`` for the study's t-only row,
            which is trained if need be.
        detector: ``v1``, ``v2``, ``v3`` of the run's scale, ``torchvision:NAME``, or a ``FILE.pt``.
        scale: of the miniature model: ``smoke`` or ``mini``.
        video: what they shall look at; it decides on warnings alone.
        progress: makes the progress of a named task.

    Raises:
        ConfigError, InputError: no such run, detector or weights; one line that says what to do.
    """
    experiment, folder = _run(weights, scale)
    run = open_run(experiment, folder, progress)
    beside = [folder.parent / "stages" / stage.name for stage in run.stage_folders]
    model = stages.trained_model(replace(run, stage_folders=tuple(beside)))
    finder, name = open_detector(detector, experiment.scale, progress)
    memory = bool(experiment.stages[-1].memory)
    ours = not detector.startswith("torchvision:")
    threshold = (experiment.detections or Detections()).threshold if ours else SURE
    return Networks(
        detector=finder,
        threshold=threshold,
        model=model,
        labels=run.layout.label_map(),
        sampling=build.sampling(experiment),
        view=build.memory_view(experiment),
        multiple=build.numbers(experiment).pad_multiple,
        span=experiment.span if memory else 0,
        remembered=experiment.remembered if memory else 0,
        made_by={
            "model": folder.name,
            "weights": weights_digest(model),
            "detector": name,
            "threshold": threshold,
        },
        warning=warning(experiment, detector, in_miniature(video)),
    )


def _run(weights: str, scale: str) -> tuple[Experiment, Path]:
    """A finished run and its folder."""
    if weights == MINIATURE:
        (row,) = recipes.table1(scale=scale, memory="no", **_WORDS)
        return row, study.run(row).folder
    public = [source.name for source in SOURCES]
    if weights in public or Path(weights).suffix in _FILES or Path(weights).is_file():
        raise InputError(
            f"{weights}: a file of weights is read as a backbone alone, which scores no actions; "
            "give a run that was trained here: its folder or part of its name"
        )
    folder = watch.find_run(weights)
    if not (folder / "record.json").is_file():
        raise InputError(f"{folder}: no finished run (no record.json); let it finish first")
    return from_dict(read_record(folder / "record.json").experiment), folder


def a_movie(scale: str, progress: MakeProgress) -> Path:
    """The first validation movie of a miniature world, which is rendered if need be."""
    layout = prepare_data(Experiment(scale=scale), progress)
    return layout.video_file("ava", layout.videos("ava", "val")[0])


def in_miniature(video: Path) -> bool:
    """Whether a video is one that the package rendered."""
    home = data_dir().resolve()
    return any(part.name.startswith("miniature-") and part.parent == home
               for part in video.resolve().parents)  # fmt: skip


def warning(experiment: Experiment, detector: str, miniature: bool) -> str:
    """What must be said wherever the results are shown; empty if there is nothing.

    Args:
        experiment: what the model was trained in.
        detector: the word for it.
        miniature: whether the video is of the miniature world.
    """
    drawn = experiment.scale != "paper" and not experiment.dataset
    finds_drawn = detector in DETECTORS and experiment.scale != "paper"
    what = {
        (True, True): ("MODEL", "Boxes and actions mean"),
        (True, False): ("MODEL", "Its actions mean"),
        (False, True): ("DETECTOR", "Its boxes mean"),
    }
    if not miniature and (drawn or finds_drawn):
        name, results = what[drawn, finds_drawn]
        return (
            f"MINIATURE {name} ON REAL VIDEO: it knows only drawn figures. {results} nothing here."
        )
    if experiment.scale == "smoke":
        return (
            "SMOKE SCALE: trained for seconds, to try things out. Boxes and actions mean nothing."
        )
    return ""

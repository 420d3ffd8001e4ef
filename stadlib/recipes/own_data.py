"""Numbers of a training on a dataset of one's own, by its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stadlib.recipes.experiment import ALWAYS_FROZEN, Experiment
from stadlib.recipes.scales import SCALES
from stadlib.recipes.tables import started

PASSES = 10  # over the training keyframes; the paper's 30,000 iterations are 5.5 of AVA-Kinetics
LEAST = 100  # iterations, so that warm-up and drops are more than a few steps each
FEW = 10  # instances of a class, below which little is learned or measured of it
SMALL = 1_000  # training keyframes, below which the backbone stays as it was pretrained


@dataclass(frozen=True)
class Size:
    """What a dataset has, by split: ``train`` and ``val``."""

    keyframes: Mapping[str, int]  # with persons
    instances: Mapping[str, Mapping[str, int]]  # of each action, by its name
    most: int  # persons of the fullest training keyframe


def fitted(experiment: Experiment, size: Size) -> Experiment:
    """The experiment with as many iterations as the dataset needs, at most its scale's.

    Stages keep their lengths to each other. On a small dataset the backbone is frozen.
    """
    keyframes, first = size.keyframes["train"], experiment.stages[0]
    wanted = max(LEAST, round(PASSES * keyframes / first.batch))
    share = min(1.0, wanted / SCALES[experiment.scale].iterations)
    still = keyframes < SMALL or experiment.backbone in ALWAYS_FROZEN
    experiment = started(experiment, "frozen" if still else "pretrained")
    stages = (replace(s, iterations=round(share * s.iterations)) for s in experiment.stages)
    return replace(experiment, stages=tuple(stages))


def lines(experiment: Experiment, size: Size) -> list[str]:
    """What is trained on how much, and what so few keyframes cannot show."""
    first, limit = experiment.stages[0], SCALES[experiment.scale].max_persons
    lengths = " + ".join(str(stage.iterations) for stage in experiment.stages)
    found = [
        f"{size.keyframes['train']} training keyframes, {size.keyframes['val']} of validation: "
        f"{lengths} iterations of {first.batch}, lr {first.lr:g}, "
        f"the backbone starts {first.start}"
    ]
    for split, verb in (("train", "learned"), ("val", "measured")):
        of_split = size.instances[split]
        if few := [name for name, count in of_split.items() if count < FEW]:
            names = ", ".join(few[:5]) + ", ..." * (len(few) > 5)
            found.append(
                f"note: {len(few)} of {len(of_split)} actions have fewer than {FEW} instances in "
                f"{split}; little can be {verb} of {names}"
            )
    if size.most > limit:
        found.append(
            f"note: a training keyframe has {size.most} persons; {limit} are drawn at a time"
        )
    return found

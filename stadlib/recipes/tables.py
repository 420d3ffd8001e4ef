"""The paper's tables as literal values; a recipe is data, no code of its own runs for a row."""

from __future__ import annotations

from dataclasses import replace

from stadlib.base import check_word
from stadlib.recipes.experiment import Experiment, Stage, choices
from stadlib.recipes.scales import SCALES

BOTH = ("ava", "kinetics")
EXTENSION = (0.1, 0.05)  # of a detected box's width and height (AlphAction)
SPAN, REMEMBERED = 30, 5  # seconds to each side, persons of a second (AlphAction, LFB)
# Table 2: what is remembered while everything is trained (online), then the head alone (offline,
# every second of both datasets), going on with the first stage's head or with a new one.
TABLE2 = {
    "A first": (
        Stage(data=("ava",), memory=("ava",)),
        Stage(memory=BOTH, start="previous", train="head"),
    ),
    "A+K first, new head": (
        Stage(),
        Stage(memory=BOTH, start="previous-backbone", train="head"),
    ),
    "A+K first, empty Kinetics bank": (
        Stage(memory=("ava",)),
        Stage(memory=BOTH, start="previous", train="head"),
    ),
}
WITH_MEMORY = TABLE2["A+K first, empty Kinetics bank"]  # "used in our final version" (section 3.3)
# Iterations of a full stage that trains on extracted features. The paper does not say how long
# its second stage was; at the miniature scales an iteration takes milliseconds, and a new head
# needs this many (tests/benchmarks/bench_recall.py).
HEAD_ITERATIONS = {"smoke": 24, "mini": 3_000, "paper": 30_000}
MEMORY_WORDS = ("no", "yes")
WORDS = ("backbone", "pretrain", "frames", "head")  # of a row of Table 1, beside its memory
# Table 1: backbone, pretraining, input, head, +M. Every row is tested with 3 scales and flips.
TABLE1 = (
    ("slowfast-152", "K700", "8x8+32x2", "linear", False),
    ("slowfast-152", "K700", "8x8+32x2", "s-only", False),
    ("slowfast-152", "K700", "8x8+32x2", "t-only", False),
    ("slowfast-152", "K700", "8x8+32x2", "t-only", True),
    ("slowfast-152", "K700", "16x4+64x1", "t-only", True),
    ("ir-csn-152", "K400+IG65M", "32x2", "linear", False),
    ("ir-csn-152", "K400+IG65M", "32x2", "s-only", False),
    ("ir-csn-152", "K400+IG65M", "32x2", "t-only", False),
    ("ir-csn-152", "K400+IG65M", "32x2", "t-only", True),
    ("ir-csn-152", "K700", "32x2", "linear", False),
    ("ir-csn-152", "K700", "32x2", "s-only", False),
    ("ir-csn-152", "K700", "32x2", "t-only", False),
    ("ir-csn-152", "K700", "32x2", "t-only", True),
    ("ir-csn-152", "K700", "64x1", "t-only", True),
)


def table1(
    *, scale: str = "mini", seed: int = 0, detector: str = "v3", **words: str
) -> tuple[Experiment, ...]:
    """The rows of Table 1 that match ``words``, at a scale; the ensemble is :func:`ensemble1`.

    Args:
        scale: ``smoke``, ``mini`` or ``paper``.
        seed: of every row.
        detector: whose boxes are scored; the paper's are v3's.
        words: any of ``backbone``, ``pretrain``, ``frames``, ``head``; a word of the paper or
            ``all``, which is also what is meant where a field is not named. ``memory`` is ``yes``,
            ``no`` or ``all``.

    Raises:
        ConfigError: an unknown word, or words that match no row of the table.
    """
    fields = (*WORDS, "memory")
    for name, word in words.items():
        check_word("field of table 1", name, fields)
        check_word(name, word, (*(MEMORY_WORDS if name == "memory" else choices(name)), "all"))
    written = [(*row[:4], MEMORY_WORDS[row[4]]) for row in TABLE1]
    rows = [
        row
        for row, texts in zip(TABLE1, written, strict=True)
        if all(words.get(name, "all") in ("all", texts[i]) for i, name in enumerate(fields))
    ]
    if not rows:
        wanted = ", ".join(f"{name}={word}" for name, word in words.items() if word != "all")
        check_word("row of table 1", wanted, tuple(dict.fromkeys(" ".join(r[:4]) for r in TABLE1)))
    return tuple(_experiment(row, scale, seed, detector=detector) for row in rows)


def table2(
    *, scale: str = "mini", seed: int = 0, backbone: str = "slowfast-152", head: str = "t-only"
) -> dict[str, Experiment]:
    """The rows of Table 2 by the name of their strategy; the paper's are of SlowFast-152, t-only.

    Boxes are the ground truth's, so that strategies differ in nothing but what is remembered.

    Args:
        scale: ``smoke``, ``mini`` or ``paper``.
        seed: of every row.
        backbone: another backbone, with its usual input.
        head: ``t-only``, or ``s-only``, which the paper calls too costly.

    Raises:
        ConfigError: an unknown word.
    """
    check_word("backbone", backbone, choices("backbone"))
    frames = "8x8+32x2" if backbone.startswith("slowfast") else "32x2"
    row = (backbone, "K700", frames, head, True)
    return {name: _experiment(row, scale, seed, stages) for name, stages in TABLE2.items()}


# Section 2.4: after normal training, the classifier alone, on class-balanced data.
DECOUPLED = Stage(start="previous", train="classifier", sampler="class-balanced")


def table3(
    *, scale: str = "mini", seed: int = 0, backbone: str = "ir-csn-152", head: str = "t-only"
) -> dict[str, Experiment]:
    """Before and after decoupled training (Table 3), and what it is compared with, by name.

    The paper's are ir-CSN-152 with the T-only head, "before" being its row of Table 1; here boxes
    are the ground truth's, so that an action's AP is the classifier's alone. The paper does not
    say whether the classifier begins anew, as in its reference [11]; both are here, as are two
    other samplers and, as the control, as much further training on data as it comes.

    Raises:
        ConfigError: an unknown word.
    """
    check_word("backbone", backbone, choices("backbone"))
    frames = "8x8+32x2" if backbone.startswith("slowfast") else "32x2"
    row = (backbone, "K700", frames, head, False)
    variants = {
        "after": DECOUPLED,
        "after, new classifier": replace(DECOUPLED, start="previous-but-classifier"),
        "square-root": replace(DECOUPLED, sampler="square-root"),
        "repeat-factor": replace(DECOUPLED, sampler="repeat-factor"),
        "instance": replace(DECOUPLED, sampler="instance"),
    }
    rows = {"before": _experiment(row, scale, seed)}
    for name, stage in variants.items():
        rows[name] = _experiment(row, scale, seed, (Stage(), stage))
    return rows


DETECTORS = ("v1", "v2", "v3", "ground-truth")
THRESHOLDS = (0.05, 0.2, 0.35, 0.5)  # of a box's score, for the sweep


def table4(
    *, scale: str = "mini", seed: int = 0, backbone: str = "ir-csn-152", head: str = "t-only"
) -> dict[str, Experiment]:
    """The rows of Table 4 by detector: one trained model, scored on four sets of boxes.

    Raises:
        ConfigError: an unknown word.
    """
    check_word("backbone", backbone, choices("backbone"))
    frames = "8x8+32x2" if backbone.startswith("slowfast") else "32x2"
    row = (backbone, "K700", frames, head, False)
    return {name: _experiment(row, scale, seed, detector=name) for name in DETECTORS}


def box_uses(
    *, scale: str = "mini", seed: int = 0, backbone: str = "ir-csn-152", head: str = "t-only"
) -> dict[str, Experiment]:
    """What else one may do with v3's boxes: other thresholds, larger boxes, a product of scores."""
    row = table4(scale=scale, seed=seed, backbone=backbone, head=head)["v3"]
    uses = {f"threshold {least}": replace(row.detections, threshold=least) for least in THRESHOLDS}
    uses["extended"] = replace(row.detections, extend=EXTENSION)
    uses["product of scores"] = replace(row.detections, product=True)
    uses["trained on both"] = replace(row.detections, training="ground-truth+detected")
    return {name: replace(row, detections=use) for name, use in uses.items()}


def strategy(experiment: Experiment) -> str | None:
    """The name in Table 2 of how an experiment keeps its memory; None if it is none of them."""
    words = [_words(stage) for stage in experiment.stages]
    for name, stages in TABLE2.items():
        if words == [_words(stage) for stage in stages]:
            return name
    return None


def _words(stage: Stage) -> tuple:
    """What of a stage is not a number."""
    return stage.data, stage.memory, stage.start, stage.train, stage.sampler


SPANS, PERSONS = (2, 5, 10, 30), (1, 2, 3, 5)  # of the ablation; 30 and 5 are the tables'


def memory_ablation(
    *, scale: str = "mini", seed: int = 0, backbone: str = "ir-csn-152", head: str = "t-only"
) -> dict[tuple[int, int], Experiment]:
    """How much is remembered, by (span in seconds, persons of a second); (0, 0) is nothing.

    All are Table 2's second strategy, whose first stage knows nothing of memory: they share it, and
    differ in what one and the same backbone's new head may look at.
    """
    whole = table2(scale=scale, seed=seed, backbone=backbone, head=head)["A+K first, new head"]
    without = tuple(replace(stage, memory=()) for stage in whole.stages)
    rows = {(0, 0): replace(whole, stages=without, span=None, remembered=None)}
    rows |= {(span, REMEMBERED): replace(whole, span=span) for span in SPANS}
    rows |= {(SPAN, persons): replace(whole, remembered=persons) for persons in PERSONS}
    return rows


def ensemble1(*, scale: str = "mini", seed: int = 0, **words: str) -> tuple[Experiment, ...]:
    """Members for the last row of Table 1.

    The paper "selects 15 models" without naming them; these are its 14 rows and another seed of
    its best single model.

    Args:
        scale: ``smoke``, ``mini`` or ``paper``.
        seed: of every row; the other is the next one.
        words: as in :func:`table1`, for a smaller ensemble: the rows that match, nothing else.

    Raises:
        ConfigError: as :func:`table1`.
    """
    rows = table1(scale=scale, seed=seed, **words)
    if any(word != "all" for word in words.values()):
        return rows
    return (*rows, _experiment(TABLE1[-1], scale, seed=seed + 1, detector="v3"))


def at(experiment: Experiment, scale: str) -> Experiment:
    """The same experiment at another scale: its numbers are replaced, its words stay.

    A stage keeps its share of a full stage's iterations (30k in the paper) and its ratio to the
    paper's learning rate.
    """
    check_word("scale", scale, tuple(SCALES))
    here, there = SCALES[experiment.scale], SCALES[scale]
    stages = tuple(
        replace(
            stage,
            iterations=max(1, round(stage.iterations * _share(stage, experiment.scale, scale))),
            batch=there.batch,
            lr=stage.lr * there.lr / here.lr,
            drop=there.drop,
        )
        for stage in experiment.stages
    )
    return replace(experiment, scale=scale, stages=stages, scales=there.test_sides)


def _share(stage: Stage, here: str, there: str) -> float:
    """How many iterations there stand for one here."""
    if stage.train == "all":
        return SCALES[there].iterations / SCALES[here].iterations
    return HEAD_ITERATIONS[there] / HEAD_ITERATIONS[here]


def _experiment(
    row: tuple,
    scale: str,
    seed: int,
    stages: tuple[Stage, ...] | None = None,
    detector: str = "ground-truth",
) -> Experiment:
    """A row of Table 1, or its words with other stages than the table's."""
    backbone, pretrain, frames, head, memory = row
    stages = stages or (WITH_MEMORY if memory else (Stage(),))
    remembers = any(stage.memory for stage in stages)
    paper = Experiment(
        backbone=backbone,
        pretrain=pretrain,
        frames=frames,
        head=head,
        stages=stages,
        span=SPAN if remembers else None,
        remembered=REMEMBERED if remembers else None,
        detector=detector,
        seed=seed,
        scale="paper",
    )
    return at(paper, scale)

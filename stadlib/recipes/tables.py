"""The paper's tables as literal values; a recipe is data, no code of its own runs for a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from stadlib.base import check_word
from stadlib.recipes.experiment import ALWAYS_FROZEN, INPUTS, Experiment, Stage, choices
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
# needs this many.
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
# Table 3. Section 2.4: after normal training, the classifier alone, on class-balanced data.
DECOUPLED = Stage(start="previous", train="classifier", sampler="class-balanced")
TABLE3 = {  # what differs from it
    "after": {},
    "after, new classifier": {"start": "previous-but-classifier"},
    "square-root": {"sampler": "square-root"},
    "repeat-factor": {"sampler": "repeat-factor"},
    "instance": {"sampler": "instance"},
}
DETECTORS = ("v1", "v2", "v3", "ground-truth")  # of Table 4
THRESHOLDS = (0.05, 0.2, 0.35, 0.5)  # of a box's score, for the sweep
SPANS, PERSONS = (2, 5, 10, 30), (1, 2, 3, 5)  # of the memory ablation; 30 and 5 are the tables'
PASSES = 10  # over one's own keyframes; the paper's 30,000 iterations are 5.5 of AVA-Kinetics
LEAST = 100  # iterations, so that warm-up and drops are more than a few steps each
FEW = 10  # instances of a class, below which little is learned or measured of it
SMALL = 1_000  # training keyframes, below which the backbone stays as it was pretrained
# What the paper leaves open, by field: the words that are compared, the tables' own first. Those
# of MEMORY_CHOICES are compared on a new head of Table 2, where nothing else differs.
CHOICES = {
    "fusion": ("tiled", "mean", "grid"),
    "linear": ("raw", "fused"),
    "loss": ("bce", "pose-softmax"),
}
MEMORY_CHOICES = {
    "memory": ("yes", "no"),
    "recall": ("none", "embedding", "geometry"),
    "own_second": (False, True),
    "chosen": ("surest", "random"),
    "views": (1, 4),
}


def table1(
    *,
    scale: str = "mini",
    seed: int = 0,
    detector: str = "v3",
    weights: str = "reference",
    **words: str,
) -> tuple[Experiment, ...]:
    """The rows of Table 1 that match ``words``, at a scale; the ensemble is :func:`ensemble1`.

    ``detector`` says whose boxes are scored, ``weights`` what a miniature run starts from.
    ``words`` are any of ``backbone``, ``pretrain``, ``frames``, ``head`` and ``memory`` (yes, no),
    each ``all`` by default. Unknown words and words that match no row raise a ConfigError.
    """
    for name, word in words.items():
        check_word("field of table 1", name, (*WORDS, "memory"))
        check_word(name, word, (*(MEMORY_WORDS if name == "memory" else choices(name)), "all"))
    words = {name: word for name, word in words.items() if word != "all"}
    rows = []
    for *four, memory in TABLE1:
        values = dict(zip(WORDS, four, strict=True)) | {"memory": MEMORY_WORDS[memory]}
        if words.items() <= values.items():
            stages = WITH_MEMORY if memory else (Stage(),)
            row = _experiment(four, scale, seed, stages, detector)
            rows.append(replace(row, weights=weights))
    if not rows:
        named = ", ".join(f"{name}={word}" for name, word in words.items())
        check_word("row of table 1", named, tuple(dict.fromkeys(" ".join(r[:4]) for r in TABLE1)))
    return tuple(rows)


def table2(
    *, scale: str = "mini", seed: int = 0, detector: str = "v3", recall: str = "none", **words: str
) -> dict[str, Experiment]:
    """The rows of Table 2 by strategy; the paper's are of SlowFast-152, t-only.

    ``words`` are any of ``backbone``, ``pretrain``, ``frames`` and ``head``. The input that is
    usual for a backbone is the default; the paper calls s-only too costly. It has no ``recall``.
    """
    row = _usual("slowfast-152", **words)
    rows = {n: _experiment(row, scale, seed, stages, detector) for n, stages in TABLE2.items()}
    return {name: replace(row, recall=recall) for name, row in rows.items()}


def table3(
    *, scale: str = "mini", seed: int = 0, detector: str = "v3", **words: str
) -> dict[str, Experiment]:
    """Before and after decoupled training (Table 3), and what it is compared with, by name.

    "Before" is the paper's row of Table 1. The paper does not say whether the classifier starts
    anew, as in its reference [11]: both are here. The control is as much training on plain data.
    """
    row = _usual("ir-csn-152", **words)
    stages = {"before": (Stage(),)}
    stages |= {name: (Stage(), replace(DECOUPLED, **change)) for name, change in TABLE3.items()}
    return {name: _experiment(row, scale, seed, of, detector) for name, of in stages.items()}


def table4(*, scale: str = "mini", seed: int = 0, **words: str) -> dict[str, Experiment]:
    """The rows of Table 4 by detector: one trained model, scored on four sets of boxes."""
    row = _usual("ir-csn-152", **words)
    return {name: _experiment(row, scale, seed, detector=name) for name in DETECTORS}


def box_uses(*, scale: str = "mini", seed: int = 0, **words: str) -> dict[str, Experiment]:
    """What else can be done with v3's boxes: thresholds, larger boxes, a product of scores."""
    row = table4(scale=scale, seed=seed, **words)["v3"]
    changes = {f"threshold {least}": {"threshold": least} for least in THRESHOLDS} | {
        "extended": {"extend": EXTENSION},
        "product of scores": {"product": True},
        "trained on both": {"training": "ground-truth+detected"},
    }
    uses = {name: replace(row.detections, **change) for name, change in changes.items()}
    return {name: replace(row, detections=use) for name, use in uses.items()}


def memory_ablation(
    *, scale: str = "mini", seed: int = 0, detector: str = "v3", **words: str
) -> dict[tuple[int, int], Experiment]:
    """How much is remembered, by (span in seconds, persons of a second); (0, 0) is nothing.

    All are Table 2's second strategy and share its first stage.
    """
    whole = _new_head(scale, seed, detector, words)
    rows = {(0, 0): _without_memory(whole)}
    rows |= {(span, REMEMBERED): replace(whole, span=span) for span in SPANS}
    rows |= {(SPAN, persons): replace(whole, remembered=persons) for persons in PERSONS}
    return rows


def choices_compared(
    *, scale: str = "mini", seed: int = 0, detector: str = "ground-truth", **words: str
) -> dict[tuple[str, object], Experiment]:
    """What the paper leaves open, by (field, word): rows that differ in one field (``CHOICES``)."""
    row, rows = _usual("ir-csn-152", **words), {}
    for field, compared in CHOICES.items():
        of = (*row[:3], "linear") if field == "linear" else row
        plain = _experiment(of, scale, seed, detector=detector)
        rows |= {(field, word): replace(plain, **{field: word}) for word in compared}
    whole = _new_head(scale, seed, detector, words)
    first, second = whole.stages
    for field, compared in MEMORY_CHOICES.items():
        for word in compared:
            if field == "memory":
                rows[field, word] = whole if word == "yes" else _without_memory(whole)
            elif field == "views":
                rows[field, word] = replace(whole, stages=(first, replace(second, views=word)))
            else:
                rows[field, word] = replace(whole, **{field: word})
    return rows


def _new_head(scale: str, seed: int, detector: str, words: dict) -> Experiment:
    words = {"backbone": "ir-csn-152"} | words
    return table2(scale=scale, seed=seed, detector=detector, **words)["A+K first, new head"]


def _without_memory(experiment: Experiment) -> Experiment:
    stages = tuple(replace(stage, memory=()) for stage in experiment.stages)
    return replace(experiment, stages=stages, span=None, remembered=None)


def strategy(experiment: Experiment) -> str | None:
    """The strategy of Table 2 that an experiment follows; None if it follows none of them."""

    def words(stages: tuple[Stage, ...]) -> list[tuple]:
        # The scale says how a first stage starts.
        starts = ["", *(stage.start for stage in stages[1:])]
        return [
            (s.data, s.memory, s.train, s.sampler, b) for s, b in zip(stages, starts, strict=True)
        ]

    same = (n for n, stages in TABLE2.items() if words(stages) == words(experiment.stages))
    return next(same, None)


def ensemble1(*, scale: str = "mini", seed: int = 0) -> tuple[Experiment, ...]:
    """The members of Table 1's last row: all others, and the best single one with the next seed.

    The paper "selects 15 models" without naming them.
    """
    best = table1(scale=scale, seed=seed + 1)[-1]
    return (*table1(scale=scale, seed=seed), best)


def beyond(
    *, scale: str = "mini", seed: int = 0, detector: str = "v3", **words: str
) -> dict[str, Experiment]:
    """Rows that the paper does not have, by name: other backbones, and features seen once.

    ``words`` are any of ``backbone`` (of ``INPUTS``, or ``FILE.py:FUNCTION``), ``head``, ``start``
    (``pretrained``, ``frozen``, ``features``), ``pretrain``, ``frames`` and ``memory``. Without
    them the rows are the paper's ir-CSN beside Swin3D, trained whole and on features.
    """
    for name in words:
        check_word("field of this table", name, (*WORDS, "start", "memory"))
    words = {name: word for name, word in words.items() if word != "all"}
    kept = BOTH if words.get("memory") == "yes" else ()
    backbones = (words["backbone"],) if "backbone" in words else ("ir-csn-152", "swin3d-t")
    heads = (words["head"],) if "head" in words else choices("head")
    starts = (words["start"],) if "start" in words else ("pretrained", "features")
    rows = {}
    for backbone, start, head in product(backbones, starts, heads):
        public = {"ir-csn-152": "K700", "swin3d-t": "K400"}.get(backbone, "other")
        pretrain = words.get("pretrain") or (public if scale == "paper" else "K700")
        frames = words.get("frames") or INPUTS.get(backbone, ("32x2",))[0]
        stage = Stage(start="features" if start == "features" else "frozen", memory=kept)
        row = _experiment((backbone, pretrain, frames, head), scale, seed, (stage,), detector)
        rows[f"{backbone}, {head}, {start}"] = started(row, start)
    return rows


def at(experiment: Experiment, scale: str) -> Experiment:
    """The same experiment at another scale, which says whether backbones are trained with the rest.

    A stage keeps its share of a full stage's iterations and its ratio to the learning rate.
    """
    check_word("scale", scale, tuple(SCALES))
    here, there = SCALES[experiment.scale], SCALES[scale]
    stages = []
    for stage in experiment.stages:
        start = there.start if stage.start == here.start else stage.start
        before = _full_length(stage, experiment.scale)
        share = _full_length(replace(stage, start=start), scale) / before
        iterations = max(1, round(stage.iterations * share))
        numbers = {"batch": there.batch, "lr": stage.lr * there.lr / here.lr, "drop": there.drop}
        numbers |= {"clip": there.clip, "backbone_lr": there.backbone_lr, "start": start}
        stages.append(replace(stage, iterations=iterations, **numbers))
    return replace(experiment, scale=scale, stages=tuple(stages), scales=there.test_sides)


def started(experiment: Experiment, start: str) -> Experiment:
    """The same experiment with another start of its first stage.

    The stage keeps its share of a full one's length, which is another on features.
    """
    first, *later = experiment.stages
    after = replace(first, start=start)
    before, full = (_full_length(stage, experiment.scale) for stage in (first, after))
    after = replace(after, iterations=max(1, round(first.iterations * full / before)))
    return replace(experiment, stages=(after, *later))


@dataclass(frozen=True)
class Size:
    """What a dataset of one's own has, by split: ``train`` and ``val``."""

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


def size_notes(experiment: Experiment, size: Size) -> list[str]:
    """What is trained on how much, and what so few keyframes cannot show."""
    first, limit = experiment.stages[0], SCALES[experiment.scale].max_persons
    lengths = " + ".join(str(stage.iterations) for stage in experiment.stages)
    notes = [
        f"{size.keyframes['train']} training keyframes, {size.keyframes['val']} of validation: "
        f"{lengths} iterations of {first.batch}, lr {first.lr:g}, "
        f"the backbone starts {first.start}"
    ]
    for split, verb in (("train", "learned"), ("val", "measured")):
        of_split = size.instances[split]
        if few := [name for name, count in of_split.items() if count < FEW]:
            names = ", ".join(few[:5]) + ", ..." * (len(few) > 5)
            notes.append(
                f"note: {len(few)} of {len(of_split)} actions have fewer than {FEW} instances in "
                f"{split}; little can be {verb} of {names}"
            )
    if size.most > limit:
        most = f"note: a training keyframe has {size.most} persons"
        notes.append(f"{most}; {limit} are drawn at a time")
    return notes


def _full_length(stage: Stage, scale: str) -> int:
    return HEAD_ITERATIONS[scale] if stage.on_features else SCALES[scale].iterations


def _usual(backbone: str, /, **words: str) -> tuple[str, ...]:
    """The words of a row of Tables 2 to 4: K700, t-only and a backbone's usual input."""
    for name, word in words.items():
        check_word("field of this table", name, WORDS)
        check_word(name, word, choices(name))
    words = {"backbone": backbone, "pretrain": "K700", "head": "t-only"} | words
    words = {"frames": INPUTS[words["backbone"]][0]} | words
    return tuple(words[name] for name in WORDS)


def _experiment(
    words: Sequence[str],
    scale: str,
    seed: int,
    stages: tuple[Stage, ...] = (Stage(),),
    detector: str = "ground-truth",
) -> Experiment:
    """An experiment at a scale by its four words and its stages."""
    memory = any(stage.memory for stage in stages)
    paper = Experiment(
        **dict(zip(WORDS, words, strict=True)),
        stages=stages,
        span=SPAN if memory else None,
        remembered=REMEMBERED if memory else None,
        detector=detector,
        seed=seed,
    )
    return at(paper, scale)

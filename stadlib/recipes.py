"""The paper's tables as literal values; a recipe is data, no code of its own runs for a row."""

from __future__ import annotations

from dataclasses import replace

from stadlib.config import SCALES, Experiment, Stage, check_word, choices

# Table 2's third strategy, "used in our final version" (paper section 3.3): an empty bank for
# Kinetics at first, then a frozen backbone and a bank for both.
WITH_MEMORY = (
    Stage(memory=("ava",)),
    Stage(memory=("ava", "kinetics"), start="previous", train="head"),
)

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


def table1(*, scale: str = "mini", seed: int = 0, **words: str) -> tuple[Experiment, ...]:
    """The rows of Table 1 that match ``words``, at a scale; the ensemble is :func:`ensemble1`.

    Args:
        scale: ``smoke``, ``mini`` or ``paper``.
        seed: of every row.
        words: any of ``backbone``, ``pretrain``, ``frames``, ``head``; a word of the paper or
            ``all``, which is also what is meant where a field is not named.

    Raises:
        ConfigError: an unknown word, or words that match no row of the table.
    """
    fields = ("backbone", "pretrain", "frames", "head")
    for name, word in words.items():
        check_word("field of table 1", name, fields)
        check_word(name, word, (*choices(name), "all"))
    rows = [
        row
        for row in TABLE1
        if all(words.get(name, "all") in ("all", row[i]) for i, name in enumerate(fields))
    ]
    if not rows:
        wanted = ", ".join(f"{name}={word}" for name, word in words.items() if word != "all")
        check_word("row of table 1", wanted, tuple(dict.fromkeys(" ".join(r[:4]) for r in TABLE1)))
    return tuple(_experiment(row, scale, seed) for row in rows)


def ensemble1(*, scale: str = "mini") -> tuple[Experiment, ...]:
    """Fifteen members for the last row of Table 1.

    The paper "selects 15 models" without naming them; these are its 14 rows and a second seed of
    its best single model.
    """
    best = _experiment(TABLE1[-1], scale, seed=1)
    return (*table1(scale=scale), best)


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
            iterations=max(1, round(stage.iterations * there.iterations / here.iterations)),
            batch=there.batch,
            lr=stage.lr * there.lr / here.lr,
            drop=there.drop,
        )
        for stage in experiment.stages
    )
    return replace(experiment, scale=scale, stages=stages, scales=there.test_sides)


def _experiment(row: tuple, scale: str, seed: int) -> Experiment:
    backbone, pretrain, frames, head, memory = row
    paper = Experiment(
        backbone=backbone,
        pretrain=pretrain,
        frames=frames,
        head=head,
        stages=WITH_MEMORY if memory else (Stage(),),
        seed=seed,
        scale="paper",
    )
    return at(paper, scale)

"""What an experiment is, as frozen dataclasses that check their words; no torch is imported.

An :class:`Experiment` says what is computed and names its record. An :class:`Execution` says how it
is computed on this machine and is part of no digest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from stadlib.base import ConfigError, check_word, dataset_digest, digest
from stadlib.recipes.scales import RECIPES, SCALES, detector_digest, made_of

BackboneName = Literal["slowfast-101", "slowfast-152", "ir-csn-152"]  # the paper's
PretrainName = Literal["K400", "K400+IG65M", "K700", "other"]  # other: what the publisher says
InputName = Literal["8x8+32x2", "16x4+64x1", "32x2", "64x1", "16x4", "8x8"]
SourceName = Literal["ava", "kinetics"]
SamplerName = Literal["instance", "class-balanced", "square-root", "repeat-factor"]
StartName = Literal[
    "pretrained", "frozen", "features", "previous", "previous-backbone", "previous-but-classifier"
]
ScaleName = Literal["smoke", "mini", "paper"]
_SLOWFAST: tuple[InputName, ...] = ("8x8+32x2", "16x4+64x1")
INPUTS: dict[str, tuple[InputName, ...]] = {  # that a backbone takes
    "slowfast-101": _SLOWFAST,
    "slowfast-152": _SLOWFAST,
    "ir-csn-152": ("32x2", "64x1"),
    "swin3d-t": ("32x2",),
    "videoprism-b": ("16x4",),
    "videoprism-l": ("8x8",),
}
ALWAYS_FROZEN = ("videoprism-b", "videoprism-l")  # published so; they have no miniature member
MEMORY_FIELDS = ("span", "remembered", "recall", "own_second", "chosen")  # of an experiment


class _Checked:
    """Checks on creation the words of every field that is annotated with a Literal."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            several = get_origin(hint) is tuple
            kind = get_args(hint)[0] if several else hint
            if get_origin(kind) is Literal:
                for word in getattr(self, name) if several else (getattr(self, name),):
                    check_word(name, word, get_args(kind))


@dataclass(frozen=True, kw_only=True)
class Stage(_Checked):
    """One stretch of training. Tables 2 and 3 are sequences of these (paper sections 2.3, 2.4).

    The defaults are the paper's (section 3.1): SGD with momentum 0.9, a linear warm-up over the
    first 1/20 of the iterations, and drops by 0.66 at 9/20, 12/20, 15/20 and 18/20 of them. The
    paper clips no gradients; the miniature scales do, since their rate is high.

    ``start``: ``frozen`` is a pretrained backbone that this stage does not train; with ``features``
    it sees every clip once, and fusion and head train on its maps of the persons.

    ``views``: a stage that trains on features has them of so many views of a keyframe: the plain
    one, and others with training's augmentation.
    """

    data: tuple[SourceName, ...] = ("ava", "kinetics")
    memory: tuple[SourceName, ...] = ()  # datasets whose bank is kept in this stage
    start: StartName = "pretrained"
    train: Literal["all", "head", "classifier"] = "all"
    sampler: SamplerName = "instance"
    iterations: int = 30_000
    batch: int = 64
    lr: float = 1e-2
    backbone_lr: float = 1.0  # times lr
    drop: float = 0.66
    weight_decay: float = 1e-7
    clip: float | None = None  # norm that gradients are cut down to; None: they are not
    views: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.views) is not int or self.views < 1:
            raise ConfigError(f"views={self.views!r}; give a whole number, 1 or more")
        if self.views > 1 and not self.on_features:
            raise ConfigError("views are of a stage on features; give train='head' or 'classifier'")

    @property
    def on_features(self) -> bool:
        """Whether it trains on what was extracted once, and sees no clips."""
        return self.train != "all" or self.start == "features"


@dataclass(frozen=True, kw_only=True)
class Detections(_Checked):
    """How detected boxes are used; ground-truth boxes are taken as they are."""

    # Least score of a used box; None: where precision and recall meet on validation, so that as
    # many boxes are used there as persons are annotated.
    threshold: float | None = None
    # Parts of width and height that RoIAlign sees more (AlphAction: 0.1, 0.05); evaluated as found.
    extend: tuple[float, float] = (0.0, 0.0)
    product: bool = False  # of the box's score and its action scores
    # Annotated boxes, jittered; or also confident detections (SlowFast, AlphAction).
    training: Literal["ground-truth", "ground-truth+detected"] = "ground-truth"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold={self.threshold!r}; give a score from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Experiment(_Checked):
    """A row of a table: everything that decides its numbers.

    ``scale`` says on which data and at which size the words are meant: ``ir-csn-152`` at ``mini``
    is the miniature member of the same family (see :class:`stadlib.recipes.scales.Scale`).
    """

    backbone: str = "ir-csn-152"  # a name of INPUTS, or FILE.py:FUNCTION (models.backbones)
    pretrain: PretrainName = "K700"
    frames: InputName = "32x2"
    head: Literal["linear", "s-only", "t-only"] = "t-only"
    aggregate: Literal["mean", "max"] = "mean"  # agg(.) of paper section 2.2
    fusion: Literal["tiled", "mean", "grid"] = "tiled"  # see models.roi_fusion.Fusion
    linear: Literal["raw", "fused"] = "raw"  # features of the linear head (models.heads.LinearHead)
    loss: Literal["bce", "pose-softmax", "softmax"] = "bce"  # see models.action_detector.ActionLoss
    stages: tuple[Stage, ...] = (Stage(),)
    span: int | None = None  # seconds to each side that memory reaches
    remembered: int | None = None  # persons a second that memory keeps
    # What is told of when and where they were (models.heads.Recall).
    recall: Literal["none", "embedding", "geometry"] = "none"
    own_second: bool = False  # whether memory has the clip's own second, too
    chosen: Literal["surest", "random"] = "surest"  # which persons of a second, in training
    detector: Literal["ground-truth", "v1", "v2", "v3"] = "ground-truth"
    detections: Detections | None = None  # None with ground-truth boxes
    scales: tuple[int, ...] = (256, 288, 320)  # short sides in testing, pixels
    flip: bool = True  # in testing, every scale mirrored too
    seed: int = 0
    scale: ScaleName = "paper"
    dataset: str = ""  # a folder in the official layout; empty: the scale's own data
    # Whether a miniature run starts from the study's committed backbone and detector of its seed,
    # or trains them on this machine.
    weights: Literal["reference", "anew"] = "reference"

    def __post_init__(self) -> None:
        super().__post_init__()
        own = own_backbone(self.backbone)
        if not own:
            check_word("backbone", self.backbone, tuple(INPUTS))
        single = tuple(word for word in get_args(InputName) if "+" not in word)
        inputs = single if own else INPUTS[self.backbone]
        if self.frames not in inputs:
            fitting = f"does not fit {self.backbone}; choose from {', '.join(inputs)}"
            raise ConfigError(f"frames={self.frames!r} {fitting}")
        if not self.stages or not self.scales:
            raise ConfigError("an experiment needs at least one stage and one test scale")
        self._check_stages()
        if self.backbone in ALWAYS_FROZEN:
            if self.scale != "paper":
                raise ConfigError(f"{self.backbone} has no miniature member; give scale='paper'")
            if self.stages[0].start not in ("frozen", "features"):
                raise ConfigError(f"{self.backbone} is not trained; start='frozen' or 'features'")
        if self.detected and self.detections is None:
            object.__setattr__(self, "detections", Detections())
        if self.detections and not self.detected:
            raise ConfigError("detections need a detector; choose from v1, v2, v3")

    def _check_stages(self) -> None:
        begin = ("pretrained", "frozen", "features")
        for name, words in (("start", begin), ("train", ("all",))):
            if (value := getattr(self.stages[0], name)) not in words:
                raise ConfigError(
                    f"the first stage has {name}={value!r}; say {' or '.join(map(repr, words))}"
                )
        if later := [s.start for s in self.stages[1:] if s.start in begin]:
            raise ConfigError(f"a later stage has start={later[0]!r}; say a word with 'previous'")
        for before, stage in pairwise(self.stages):
            keeps_head = stage.start in ("previous", "previous-but-classifier")
            if keeps_head and bool(stage.memory) != bool(before.memory):
                raise ConfigError(
                    f"a stage that starts {stage.start!r} keeps the head, which has a memory or "
                    "none; give both stages memory, or start 'previous-backbone'"
                )
        given = {"span": self.span, "remembered": self.remembered}
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name}={value!r}; give a whole number, 1 or more")
        if self.memory and len(given) < 2:
            raise ConfigError("a stage with memory needs span and remembered; 30 and 5 are usual")
        defaults = {field.name: field.default for field in fields(self)}
        given = [name for name in MEMORY_FIELDS if getattr(self, name) != defaults[name]]
        if given and not self.memory:
            raise ConfigError(f"{given[0]} is for memory; name datasets in a stage's memory")
        if self.linear != "raw" and self.head != "linear":
            raise ConfigError(f"linear={self.linear!r} is for head='linear'")
        if self.memory and self.head == "linear":
            raise ConfigError("head='linear' has no memory; choose from s-only, t-only")

    @property
    def memory(self) -> bool:
        """Whether any stage keeps a memory bank (the "+M" column of Table 1)."""
        return any(stage.memory for stage in self.stages)

    @property
    def detected(self) -> bool:
        """Whether the boxes are from a detector."""
        return self.detector != "ground-truth"

    @property
    def boxes_name(self) -> str:
        """What box files are called; a detector of a rendered world is known by how it was made."""
        if not self.detected or self.dataset or self.scale == "paper":
            return self.detector
        made = detector_digest(self.detector, self.scale, seed=self.seed)
        return f"{self.detector}-{made}" + "-anew" * (self.weights == "anew")

    @property
    def name(self) -> str:
        """Readable and unique enough for a folder: ``ir-csn-152_k700_32x2_t-only_mini_seed0``."""
        words = [self.weights_name, self.frames, self.head]
        words += ["memory"] * self.memory + [self.detector] * self.detected
        words += [self.scale, f"seed{self.seed}"]
        return "_".join(words)

    @property
    def weights_name(self) -> str:
        """The name, before its ending, of a file of one's own with the pretrained weights."""
        own = own_backbone(self.backbone)
        backbone = f"{Path(own[0]).stem}.{own[1]}" if own else self.backbone
        return f"{backbone}_{self.pretrain.lower()}"

    @property
    def digest(self) -> str:
        """Twelve hex digits over every word and number that decides the outcome."""
        made = {"detector": made_of(self.detector, self.scale)} if self.detected else {}
        return self._digest(self.to_dict(), made)

    def _digest(self, words: dict, made: dict) -> str:
        scale = {k: v for k, v in asdict(SCALES[self.scale]).items() if k != "start"}  # in stages
        numbers = {"scale": scale, "pretraining": asdict(RECIPES[self.scale])}
        # Other files in the user's own folder make another experiment, and so does its backbone.
        data = {"data": dataset_digest(self.dataset, self.detector)} if self.dataset else {}
        if own := own_backbone(self.backbone):
            data["backbone"] = Path(own[0]).read_text()
        return digest({"experiment": words} | numbers | made | data)

    def stage_digest(self, number: int) -> str:
        """Twelve hex digits of what decides the weights after a stage, counted from 1.

        Experiments that begin alike share the trained stage. Detected boxes matter to training only
        where it is on them, or where an offline bank holds them in seconds without annotation.
        """
        stages = self.stages[:number]
        remembers = any(stage.memory for stage in stages)
        offline = any(stage.memory and stage.train != "all" for stage in stages)
        left_out = {"scales", "flip"} | (set() if remembers else {*MEMORY_FIELDS})
        words = {name: word for name, word in self.to_dict().items() if name not in left_out}
        words["stages"] = words["stages"][:number]
        trained = self.detected and self.detections.training != "ground-truth"
        if trained or (self.detected and offline):
            return self._digest(words, {"detector": made_of(self.detector, self.scale)})
        words.pop("detections", None)
        return self._digest(words | {"detector": "ground-truth"}, {})

    def to_dict(self) -> dict:
        """Return a JSON-ready dict without ``None`` fields."""
        content = asdict(self)

        def without_none(values: dict) -> dict:
            return {name: value for name, value in values.items() if value is not None}

        stages = tuple(without_none(stage) for stage in content["stages"])
        return without_none(content) | {"stages": stages}


def choices(name: str) -> tuple[str, ...]:
    """The words that a field of :class:`Experiment` takes, in the paper's order."""
    return get_args(BackboneName if name == "backbone" else get_type_hints(Experiment)[name])


def own_backbone(name: str) -> tuple[str, str] | None:
    """File and function of a backbone of one's own, ``FILE.py:FUNCTION``; None of another name.

    A file that is missing is a ConfigError.
    """
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        return None
    if not Path(path).is_file():
        raise ConfigError(f"backbone={name!r}: {path}: no such file")
    return path, function


def from_dict(content: dict) -> Experiment:
    """The inverse of :meth:`Experiment.to_dict`, also after JSON; refuses unknown fields."""
    known = [field.name for field in fields(Experiment)]
    if unknown := sorted(set(content) - set(known)):
        raise ConfigError(f"unknown field {unknown[0]!r}; an experiment has {', '.join(known)}")

    def with_tuples(values: dict) -> dict:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

    values = with_tuples(content)
    if "stages" in values:
        values["stages"] = tuple(Stage(**with_tuples(stage)) for stage in values["stages"])
    if values.get("detections"):
        values["detections"] = Detections(**with_tuples(values["detections"]))
    return Experiment(**values)


@dataclass(frozen=True, kw_only=True)
class Execution(_Checked):
    """What a machine decides about a run; its numbers stay the same up to rounding.

    ``auto``: bfloat16 (autocast) on a GPU, and recompute where its memory is too small.
    """

    accumulate: Annotated[
        int, "take a process's part of a batch in N turns: the same batch, less memory"
    ] = 1
    precision: Annotated[Literal["auto", "float32", "bfloat16"], "of the forward pass"] = "auto"
    recompute: Annotated[
        Literal["auto", "yes", "no"], "compute activations again instead of keeping them"
    ] = "auto"
    compile: Annotated[bool, "torch.compile backbone, fusion and head"] = False
    save_every: Annotated[int, "iterations between checkpoints; 0: a tenth of the stage"] = 0
    workers: Annotated[int, "that decode for a process; 0: by scale and cores"] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("accumulate", 1), ("save_every", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}; give {least} or more")

    def words(self) -> list[str]:
        """The same as options of ``stadlib train``."""
        values = asdict(self)
        compiled = ["--compile"] * values.pop("compile")
        return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()] + compiled


USUAL = Execution()

"""How a run is computed, as opposed to what is: no digest knows of it.

Floor 1; imports no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from stadlib.config import ConfigError, check_word

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What a machine decides about a run; its numbers stay the same up to rounding.

    Attributes:
        accumulate: shares that a process takes of its part of a batch, one after the other,
            before it updates the weights: the same global batch in less memory.
        precision: of the forward pass; ``auto`` is bfloat16 (autocast) for the paper's networks on
            a GPU, float32 elsewhere.
        recompute: compute activations again in the backward pass instead of keeping them; ``auto``
            does so for the paper's networks with 64 frames.
        pad: clips of different sizes to the largest of the whole ``batch``, which makes losses the
            same for any number of processes, or of one's ``share``, which is less to compute;
            ``auto`` is ``share`` at paper scale alone.
        compile: let ``torch.compile`` build the backbone.
        save_every: iterations between checkpoints; 0 is a tenth of the stage.

    Raises:
        ConfigError: an unknown word or a number below its least.
    """

    accumulate: int = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    recompute: Literal["auto", "yes", "no"] = "auto"
    pad: Literal["auto", "batch", "share"] = "auto"
    compile: bool = False
    save_every: int = 0

    def __post_init__(self) -> None:
        check_word("precision", self.precision, PRECISIONS)
        check_word("recompute", self.recompute, ("auto", "yes", "no"))
        check_word("pad", self.pad, ("auto", "batch", "share"))
        for name, least in (("accumulate", 1), ("save_every", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}; give {least} or more")

    def words(self) -> list[str]:
        """The same as options of ``stadlib train``."""
        values = asdict(self)
        compiled = ["--compile"] * values.pop("compile")
        pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in values.items())
        return [word for pair in pairs for word in pair] + compiled


USUAL = Execution()

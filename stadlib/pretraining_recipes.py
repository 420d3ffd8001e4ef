"""How a backbone learns to classify Kinetics' clips: numbers of a published recipe. Floor 0.

The AVA paper names what its backbones were pretrained on (section 3.1 and Table 1: K400, K700) and
gives **no number** of how: none of those at ``paper`` is the AVA paper's. They are SlowFast's, of
the two configurations in its repository that train a SlowFast and a CSN of 101 layers from scratch
and agree in all of them: ``configs/Kinetics/pytorchvideo/SLOWFAST_8x8_R101.yaml`` and
``CSN_32x2_R101.yaml`` (facebookresearch/SlowFast). VMZ, where ir-CSN comes from, trains otherwise
(defaults of its ``pt/vmz/func/opts.py``: 45 epochs, 10 of them warm-up, lr 0.01).

What differs here from those files: the backbones are 152 layers deep, the set may be K700, and the
linear layer's bias is not decayed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe:
    """Numbers of one pretraining on real files; what an epoch is, the videos on disk decide."""

    epochs: float = 196  # passes over the training videos, one random clip of each
    warm_up: float = 34 / 196  # share of them in which the learning rate rises ...
    warm_up_lr: float = 0.01  # ... from here
    lr: float = 0.1  # of a global batch; published with 8 clips on each of 8 GPUs
    batch: int = 64  # clips of all processes together
    weight_decay: float = 1e-4
    dropout: float = 0.5  # before the classifier
    short_sides: tuple[int, int] = (256, 320)  # pixels, between which a training clip's is drawn
    crop: int = 224  # pixels, a square at a random place
    test_side: int = 256  # pixels, short side and squares in testing
    test_clips: int = 10  # evenly over a video's time ...
    test_crops: int = 3  # ... and squares along the long side: the field's "30 views"
    settling: int = 200  # batches over which batch norms' statistics are taken after training


_MINI = PretrainingRecipe(
    epochs=12,
    warm_up=0.05,
    warm_up_lr=0.025,
    batch=16,
    dropout=0.0,
    short_sides=(54, 64),
    crop=48,
    test_side=54,
    test_clips=1,
    test_crops=1,
    settling=20,
)

RECIPES: dict[str, PretrainingRecipe] = {
    # The mini networks on real files: to try files and command out, for no table.
    "smoke": replace(_MINI, epochs=1, batch=8, settling=1),
    "mini": _MINI,
    "paper": PretrainingRecipe(),
}

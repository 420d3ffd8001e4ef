"""What a tiny change before pretraining does to the backbone and to what the heads gain.

The weights that pretraining starts from are changed by a millionth of themselves (standard
deviation), some ten times what rounding to float32 changes. Then Table 1's rows without memory of
ir-CSN-152, K700, seed 0, are trained on the backbone that comes of it, and scored on v3's boxes.
The unchanged rows are those of ``stadlib train``. Half an hour on two cores; interrupted, the same
call goes on.

    uv run python tests/benchmarks/bench_rounding.py --folder DIR [--scale smoke]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from stadlib import recipes, study
from stadlib.training import build

CHANGE = 1e-6  # of a weight, standard deviation
HEADS = ("linear", "t-only", "s-only")


def change(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter times 1 + noise, in place."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + CHANGE * torch.randn(parameter.shape, generator=generator))
    return model


def main() -> None:
    """Print a line a head: mAP in percent."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="data and results of its own")
    parser.add_argument("--scale", default="mini")
    options = parser.parse_args()
    # Not among the user's: its weights have the name of unchanged ones.
    os.environ["STADLIB_DATA"] = str(options.folder / "data")
    os.environ["STADLIB_RESULTS"] = str(options.folder / "results")
    plain = build.classifier
    build.classifier = lambda *words, **more: change(plain(*words, **more))
    words = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "memory": "no"}
    for head in HEADS:
        (row,) = recipes.table1(scale=options.scale, head=head, **words)
        metrics = study.run(row).metrics
        print(head, {name: round(100 * found["mAP"], 2) for name, found in metrics.items()})


if __name__ == "__main__":
    main()

"""Tables of notebook 07: what a backbone says of itself, and rows that the paper does not have."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from stadlib.base import InputError, check_word, published_dir
from stadlib.recipes import beyond
from stadlib.recipes.experiment import ALWAYS_FROZEN, INPUTS, choices
from stadlib.report import scores
from stadlib.study import Record, read_records, refuse_unknown

JOINT = "ava+kinetics"


def backbones() -> pd.DataFrame:
    """What every backbone says of itself, at full size, and the names of its public weights."""
    import torch  # noqa: PLC0415

    from stadlib.models.backbones import build  # noqa: PLC0415
    from stadlib.models.published import PUBLISHED  # noqa: PLC0415

    rows = {}
    for name, frames in INPUTS.items():
        row = {"frames": ", ".join(frames), "trained": "never" if name in ALWAYS_FROZEN else "yes"}
        try:
            with torch.device("meta"):
                network = build(name)
            row |= {"channels": network.out_channels, "pixels a cell": network.spatial_stride}
            row |= {"frames a step": network.temporal_stride, "sides": f"x {network.multiple}"}
            row["million weights"] = round(sum(w.numel() for w in network.parameters()) / 1e6, 1)
        except InputError:  # the optional extra is not installed
            row["million weights"] = "needs stadlib[transformers]"
        public = [weights.name for weights in PUBLISHED if weights.backbone == name]
        rows[name] = row | {"public weights": ", ".join(public) or "none"}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("backbone").fillna("")


def committed() -> list[Record]:
    """The committed records of the rows beyond the paper, and of those that Table 1 shares."""
    folder = published_dir("reference")
    return read_records(folder / "beyond") + read_records(folder)


def check_parameters(namespace: dict[str, object]) -> None:
    """Refuse a parameter of notebook 07 that does not exist, and a word that is not a choice."""
    refuse_unknown(namespace, ("backbone", "head", "start", "scale", "seed"))
    words = {"backbone": ("ir-csn-152", "swin3d-t"), "start": ("pretrained", "frozen", "features")}
    for name in ("backbone", "head", "start", "scale"):
        check_word(name, namespace[name], words.get(name) or choices(name))


def rows(runs: Iterable[Record] = ()) -> pd.DataFrame:
    """mAP on A+K in %, miniature world, v3's boxes: the reference, and ``runs`` of this machine.

    The interval is over seeds.
    """
    known, own, table = committed(), {run.digest: run for run in runs}, {}
    for name, row in beyond().items():
        backbone, head, start = name.split(", ")
        records = scores.of_experiment(row, known)
        line = {"reference": scores.mean_text(records, JOINT), "seeds": len(records)}
        run = own.get(row.digest)
        line["this run"] = scores.mean_text([run], JOINT) if run else ""
        table[backbone, start, head] = line
    return pd.DataFrame(table).T.rename_axis(["backbone", "start", "head"])


def gains() -> pd.DataFrame:
    """What the relation heads gain over the linear one on A+K, points, paired by seed."""
    known, rows, table = committed(), beyond(), {}
    for name, row in rows.items():
        backbone, head, start = name.split(", ")
        if head != "linear":
            pair = (row, rows[f"{backbone}, linear, {start}"])
            pairs = scores.paired_by_seed(*(scores.of_experiment(one, known) for one in pair))
            *gain, seeds = scores.gain_of_pairs(pairs).loc["A+K"]
            text = scores.difference_text(*gain)
            table[backbone, start, head] = {"gain": text, "seeds": int(seeds)}
    return pd.DataFrame(table).T.rename_axis(["backbone", "start", "head"])


def published() -> pd.DataFrame:
    """Published frame mAP of other systems on real data, in %; none of it was run here."""
    table = pd.read_csv(published_dir("paper") / "beyond.csv", dtype=str).fillna("")
    return table.assign(ours="not run").set_index("system")

"""Tables of notebook 07: what a backbone says of itself, and rows that the paper does not have."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from stadlib.base import InputError, check_word, published_dir
from stadlib.recipes import beyond
from stadlib.recipes.experiment import ALWAYS_FROZEN, INPUTS, choices
from stadlib.report.scores import (
    NOT_RUN,
    difference_text,
    gain_of_pairs,
    interval,
    of_experiment,
    paired_by_seed,
    percent,
)
from stadlib.study import Record, read_records, refuse_unknown


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
        records = of_experiment(row, known)
        scores = [percent(record.metrics["ava+kinetics"]["mAP"]) for record in records]
        mean, half = interval(scores)
        text = f"{mean:.2f}" + f" ± {half:.2f}" * (len(scores) > 1) if scores else NOT_RUN
        line = {"reference": text, "seeds": len(scores)}
        run = own.get(row.digest)
        line["this run"] = f"{percent(run.metrics['ava+kinetics']['mAP']):.2f}" if run else ""
        table[backbone, start, head] = line
    return pd.DataFrame(table).T.rename_axis(["backbone", "start", "head"])


def gains() -> pd.DataFrame:
    """What the relation heads gain over the linear one on A+K, points, paired by seed."""
    known, rows, table = committed(), beyond(), {}
    for name, row in rows.items():
        backbone, head, start = name.split(", ")
        if head != "linear":
            plain = of_experiment(rows[f"{backbone}, linear, {start}"], known)
            gain = gain_of_pairs(paired_by_seed(of_experiment(row, known), plain)).loc["A+K"]
            text = difference_text(*gain[["gain", "low", "high"]]) if gain["seeds"] else NOT_RUN
            table[backbone, start, head] = {"gain": text, "seeds": int(gain["seeds"])}
    return pd.DataFrame(table).T.rename_axis(["backbone", "start", "head"])


def published() -> pd.DataFrame:
    """Published frame mAP of other systems on real data, in %; none of it was run here."""
    table = pd.read_csv(published_dir("paper") / "beyond.csv", dtype=str).fillna("")
    return table.assign(ours="not run").set_index("system")

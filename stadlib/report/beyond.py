"""What the paper does not have: data of one's own (notebook 06), other backbones (notebook 07)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pandas as pd
import torch

from stadlib import base, recipes, study
from stadlib.base import InputError, Progress, published_dir
from stadlib.data import annotation_tools, check, rows, video
from stadlib.data.layout import AvaLayout
from stadlib.evaluation import files
from stadlib.models.backbones import build
from stadlib.models.published import PUBLISHED
from stadlib.recipes import Size
from stadlib.recipes.experiment import ALWAYS_FROZEN, INPUTS, Experiment
from stadlib.report import scores
from stadlib.study import Record
from stadlib.training import predictions, stages
from stadlib.training.pretraining import prepare_data

MINIATURE = "miniature"  # instead of a path: some rendered movies
MOVIES = 12  # of them
RESAMPLES = 1_000  # of the videos, for an interval
JOINT = "ava+kinetics"


def imported_dir() -> Path:
    """Where datasets of annotation tools lie."""
    return base.data_dir() / "imported"


def dataset(source: str, tool: str, scale: str) -> Path:
    """The folder of a dataset in the official layout, imported if an annotation tool wrote it.

    What was imported before is found again by the content of the annotation files.
    """
    path, videos, folder = Path(source), None, imported_dir()
    if source == MINIATURE:
        layout = prepare_data(Experiment(scale=scale), Progress)
        path, tool, videos = folder / f"{scale}.json", "coco-video", layout.root / "videos" / "ava"
        base.write_whole(path, json.dumps(_as_coco(layout)))
    if not path.exists():
        raise InputError(f"{source}: no such file or folder; give annotations, or {MINIATURE}")
    if tool == "none":
        return path
    annotations = [path] if path.is_file() else sorted(path.rglob("*.[xj]*"))  # .xml, .json
    content = b"".join(file.read_bytes() for file in annotations)
    out = folder / f"{path.stem}-{hashlib.sha256(content).hexdigest()[:12]}"
    if not out.is_dir():
        lines = annotation_tools.import_annotations(tool, path, out, videos=videos)
        print("\n".join(lines).removeprefix(f"{out}: "))
    return out


def _as_coco(layout: AvaLayout) -> dict:
    """The first training movies of a miniature world, as a tool that writes COCO has them."""
    table = rows.read_rows(layout.annotations("ava", "train"), rows.Form(last="person"))
    labels, videos, images, boxes = layout.label_map(), [], [], []
    movies = table.groupby("video", sort=True, observed=True)
    for number, (name, of_video) in enumerate(islice(movies, MOVIES)):
        file = layout.video_file("ava", name)
        facts, start = video.probe(file), layout.video_start("ava", name)
        size = {"width": facts.width, "height": facts.height}
        videos.append({"id": number, "name": file.name, "fps": 1})  # a frame is a second
        for second, of_second in of_video.groupby("timestamp"):
            image = {"id": len(images), "video_id": number, "frame_id": int(second - start)}
            images.append(image | size)
            for row in of_second.dropna(subset="x1").itertuples():
                corner = [row.x1 * facts.width, row.y1 * facts.height]
                sides = [(row.x2 - row.x1) * facts.width, (row.y2 - row.y1) * facts.height]
                ids = {"category_id": int(row.action_id), "track_id": int(row.person)}
                boxes.append({"image_id": image["id"], "bbox": corner + sides} | ids)
    categories = [{"id": i, "name": name} for i, name in labels.names.items()]
    return {"videos": videos, "images": images, "annotations": boxes, "categories": categories}


def problems(root: Path) -> list[str]:
    """What ``stadlib check`` says of a dataset, the first three of each kind."""
    notes: list[str] = []
    found = check.check_dataset(root, lambda *_: None, 3, notes)
    return [*notes, *(found or ["no problem found"])]


def size(experiment: Experiment) -> Size:
    """What the dataset of an experiment has."""
    if not Path(experiment.dataset).is_dir():
        raise InputError(f"{experiment.dataset}: no such folder; name a dataset")
    layout = prepare_data(experiment, Progress)
    labels, keyframes, instances = layout.label_map(), {}, {}
    for split in ("train", "val"):
        annotated = stages.annotated(layout, stages.SOURCES, split)
        totals = sum(keyframe.actions.sum(axis=0) for keyframe in annotated)
        instances[split] = dict(zip(labels.names.values(), totals.tolist(), strict=True))
        keyframes[split] = len(annotated)
        if split == "train":
            most = max(len(keyframe.boxes) for keyframe in annotated)
    return Size(keyframes, instances, most)


def row(root: Path, head: str, scale: str) -> Experiment:
    """The usual row of Table 1 on a dataset's annotated boxes, by its size, which is printed."""
    words = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "memory": "no"}
    (usual,) = recipes.table1(scale=scale, head=head, detector="ground-truth", **words)
    of_data = replace(usual, dataset=str(root.resolve()))
    found = size(of_data)
    fitted = recipes.fitted(of_data, found)
    print(*recipes.size_notes(fitted, found), sep="\n")
    return fitted


def evaluation(record: Record) -> pd.DataFrame:
    """AP@0.5 in per cent of each action that was annotated, and their mean.

    ``low`` and ``high`` are its 95 % interval over videos; a single one gives none.
    """
    run = study.open_run(record)
    labels, sources = run.layout.label_map(), run.layout.sources("val")
    truth = [run.layout.annotations(source, "val") for source in sources]
    found = [predictions.detection_file(record.folder, source, "val") for source in sources]
    options = {"num_resamples": RESAMPLES, "progress": Progress}
    report = files.measure(truth, found, Path(labels.path), **options)
    counts = size(run.experiment).instances["val"]
    aps = [scores.percent(report["AP"][str(action)]) for action in labels.ids]
    instances = [counts[name] for name in labels.names.values()]
    table = pd.DataFrame({"AP": aps, "instances": instances}, list(labels.names.values()))
    table = table.dropna().sort_values("instances", ascending=False)
    means = {"AP": report["mAP"]} | report.get("interval", dict.fromkeys(("low", "high")))
    means = {name: scores.percent(means[name]) for name in ("AP", "low", "high")}
    total = pd.DataFrame(means | {"instances": table["instances"].sum()}, ["mean"])
    columns = ["AP", "instances", "low", "high"]
    return pd.concat([total[columns], table]).round(2).fillna("").rename_axis("action")


def first_video(root: Path) -> str:
    """The path of the first validation video."""
    layout = AvaLayout(root)
    for source in layout.sources("val"):
        return str(layout.video_file(source, layout.videos(source, "val")[0]))
    raise InputError(f"{root}: no validation annotations; add some")


def backbones() -> pd.DataFrame:
    """What every backbone says of itself, at full size, and the names of its public weights."""
    table = {}
    for name, frames in INPUTS.items():
        line = {"frames": ", ".join(frames), "trained": "never" if name in ALWAYS_FROZEN else "yes"}
        try:
            with torch.device("meta"):
                network = build(name)
            line |= {"channels": network.out_channels, "pixels a cell": network.spatial_stride}
            line |= {"frames a step": network.temporal_stride, "sides": f"x {network.multiple}"}
            line["million weights"] = round(sum(w.numel() for w in network.parameters()) / 1e6, 1)
        except InputError:  # the optional extra is not installed
            line["million weights"] = "needs stadlib[transformers]"
        public = [weights.name for weights in PUBLISHED if weights.backbone == name]
        table[name] = line | {"public weights": ", ".join(public) or "none"}
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("backbone").fillna("")


def reference(runs: Iterable[Record] = ()) -> pd.DataFrame:
    """mAP on A+K in %, at mini on v3's boxes: the reference over seeds, and this machine's runs."""
    own, table = {run.digest: run for run in runs}, {}
    experiments = recipes.beyond()
    for name, records in scores.replicates(experiments).items():
        backbone, head, start = name.split(", ")
        run = own.get(experiments[name].digest)
        table[backbone, start, head] = {
            "reference": scores.mean_text(records, JOINT),
            "seeds": len(records),
            "this run": scores.mean_text([run], JOINT) if run else "",
        }
    return pd.DataFrame(table).T.rename_axis(["backbone", "start", "head"])


def gains() -> pd.DataFrame:
    """What the relation heads gain over the linear one on A+K, points, paired by seed."""
    table, known = {}, scores.replicates(recipes.beyond())
    for name, records in known.items():
        backbone, head, start = name.split(", ")
        if head != "linear":
            pairs = scores.paired_by_seed(records, known[f"{backbone}, linear, {start}"])
            *gain, seeds = scores.gain_of_pairs(pairs).loc["A+K"]
            text = scores.difference_text(*gain)
            table[backbone, start, head] = {"gain": text, "seeds": int(seeds)}
    return pd.DataFrame(table).T.rename_axis(["backbone", "start", "head"])


def published() -> pd.DataFrame:
    """Published frame mAP of other systems on real data, in %; none of it was run here."""
    table = pd.read_csv(published_dir("paper") / "beyond.csv", dtype=str).fillna("")
    return table.assign(ours="not run").set_index("system")

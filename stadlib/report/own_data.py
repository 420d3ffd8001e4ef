"""Data of one's own, step by step: from an annotation tool's file to a model that is looked at."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from stadlib import base, recipes, study
from stadlib.base import InputError, Progress, check_word
from stadlib.data import annotation_tools, check, rows, video
from stadlib.data.layout import AvaLayout
from stadlib.evaluation import files
from stadlib.recipes import own_data
from stadlib.recipes.experiment import Experiment, choices
from stadlib.recipes.own_data import Size
from stadlib.report import scores
from stadlib.study import Record
from stadlib.training import predictions, stages
from stadlib.training.pretraining import prepare_data

MINIATURE = "miniature"  # instead of a path: some rendered movies
MOVIES = 12  # of them
PARAMETERS = ("source", "tool", "head", "scale")
TOOLS = ("none", "cvat", "via", "coco-video")
RESAMPLES = 1_000  # of the videos, for an interval


def check_parameters(namespace: dict[str, object]) -> None:
    """Refuse a notebook's unknown parameter, a wrong word and a source that is not there."""
    study.refuse_unknown(namespace, PARAMETERS)
    check_word("tool", namespace["tool"], TOOLS)
    check_word("head", namespace["head"], choices("head"))
    check_word("scale", namespace["scale"], choices("scale"))
    source = namespace["source"]
    if source != MINIATURE and not Path(source).exists():
        raise InputError(f"{source}: no such file or folder; give annotations, or {MINIATURE}")


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
    if tool == "none":
        return path
    files = [path] if path.is_file() else sorted(path.rglob("*.[xj]*"))  # .xml, .json
    content = b"".join(file.read_bytes() for file in files)
    out = folder / f"{path.stem}-{hashlib.sha256(content).hexdigest()[:12]}"
    if not out.is_dir():
        lines = annotation_tools.import_annotations(tool, path, out, videos=videos)
        print("\n".join(lines).removeprefix(f"{out}: "))
    return out


def _as_coco(layout: AvaLayout) -> dict:
    """The first training movies of a miniature world, as a tool that writes COCO has them."""
    table = rows.read_rows(layout.annotations("ava", "train"), rows.Form(last="person"))
    labels, videos, images, boxes = layout.label_map(), [], [], []
    for number, (name, of_video) in enumerate(table.groupby("video", sort=True, observed=True)):
        if number == MOVIES:
            break
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
                names = {"category_id": int(row.action_id), "track_id": int(row.person)}
                boxes.append({"image_id": image["id"], "bbox": corner + sides} | names)
    categories = [{"id": i, "name": name} for i, name in labels.names.items()]
    return {"videos": videos, "images": images, "annotations": boxes, "categories": categories}


def problems(root: Path) -> list[str]:
    """What ``stadlib check`` says of a dataset, the first three of each kind."""
    notes: list[str] = []
    found = check.check_dataset(root, most=3, notes=notes)
    return [*notes, *(found or ["no problem found"])]


def size(experiment: Experiment) -> Size:
    """What the dataset of an experiment has."""
    if not Path(experiment.dataset).is_dir():
        raise InputError(f"{experiment.dataset}: no such folder; name a dataset")
    layout = prepare_data(experiment, Progress)
    labels, keyframes, instances = layout.label_map(), {}, {}
    for split in ("train", "val"):
        keyframes[split] = stages.annotated(layout, stages.SOURCES, split)
        totals = sum(keyframe.actions.sum(axis=0) for keyframe in keyframes[split])
        instances[split] = dict(zip(labels.names.values(), totals.tolist(), strict=True))
    most = max(len(keyframe.boxes) for keyframe in keyframes["train"])
    return Size({split: len(found) for split, found in keyframes.items()}, instances, most)


def row(root: Path, head: str, scale: str) -> Experiment:
    """The usual row of Table 1 on a dataset's annotated boxes, with numbers by its size.

    Prints these numbers, and what so few keyframes cannot show.
    """
    words = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "memory": "no"}
    (usual,) = recipes.table1(scale=scale, head=head, detector="ground-truth", **words)
    of_data = replace(usual, dataset=str(root.resolve()))
    found = size(of_data)
    fitted = own_data.fitted(of_data, found)
    print(*own_data.lines(fitted, found), sep="\n")
    return fitted


def evaluation(record: Record) -> pd.DataFrame:
    """AP@0.5 in per cent of each action that was annotated, and their mean.

    ``low`` and ``high`` are its 95 % interval over videos; a single one gives none.
    """
    run = study.open_run(record)
    sources = run.layout.sources("val")
    truth = [run.layout.annotations(source, "val") for source in sources]
    found = [predictions.detection_file(record.folder, source, "val") for source in sources]
    labels = run.layout.label_map()
    report = files.measure(
        truth, found, Path(labels.path), num_resamples=RESAMPLES, progress=Progress
    )
    counts = size(run.experiment).instances["val"]
    aps = [scores.percent(report["AP"][str(action)]) for action in labels.ids]
    instances = [counts[name] for name in labels.names.values()]
    table = pd.DataFrame({"AP": aps, "instances": instances}, list(labels.names.values()))
    table = table.dropna().sort_values("instances", ascending=False)
    interval = report.get("interval", {})
    ends = {name: scores.percent(interval.get(name)) for name in ("low", "high")}
    means = {"AP": scores.percent(report["mAP"]), "instances": table["instances"].sum()}
    total = pd.DataFrame(means | ends, ["mean"])
    return pd.concat([total, table]).round(2).fillna("").rename_axis("action")


def first_video(root: Path) -> str:
    """The path of the first validation video."""
    layout = AvaLayout(root)
    for source in layout.sources("val"):
        return str(layout.video_file(source, layout.videos(source, "val")[0]))
    raise InputError(f"{root}: no validation annotations; add some")

"""What figures read from finished runs: logs, frames, single classes, lost AP.

A record whose run is not on this machine, as a committed reference, is an :class:`InputError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from stadlib import study
from stadlib.base import InputError, published_dir
from stadlib.data import batches, clips, keyframes
from stadlib.data.layout import AVA_ACTIONS, LabelMap, read_label_map
from stadlib.data.rows import BOX, keyframe_keys, read_rows
from stadlib.evaluation import average_precision, matching
from stadlib.recipes.experiment import from_dict
from stadlib.report import scores
from stadlib.report.frames import Frame, Line, Mark, person_mark
from stadlib.report.scores import SOURCES
from stadlib.report.style import GREY, shortened
from stadlib.study import Record
from stadlib.training import memory, predictions, stages

IOU = 0.5  # of a hit
SHOWN = 4  # highest scores of a person in an example
DRAWS, BATCH = 30_000, 64  # of every sampler, in class_statistics
LOSSES = {  # what AP is lost to, of the kinds that ``diagnose`` tells apart
    "missed persons": ["missed"],
    "imprecise boxes": ["box"],
    "false boxes": ["background", "duplicate"],
    "wrong labels": ["label"],
}
FOUND, FALSE, MISSED = "#56B4E9", "#FFB000", "#FF3B30"
BOX_LEGEND = (  # of box_examples
    ("─ annotated (white)", GREY),
    ("━ detected, finds a person", FOUND),
    ("━ ━ detected, finds nobody", FALSE),
    ("▪▪▪ annotated, missed", MISSED),
)


def _folder(record: Record) -> Path:
    if record.folder is None or not (record.folder / "record.json").is_file():
        raise InputError(f"record {record.digest}: its run is not on this machine; run it first")
    return record.folder


def _opened(record: Record) -> stages.Run:
    _folder(record)
    return study.open_run(record)


def training_log(record: Record) -> pd.DataFrame:
    """The log of a run's last stage: ``iteration``, ``loss``, ``lr``, ``seconds``."""
    experiment = from_dict(record.experiment)
    digest = experiment.stage_digest(len(experiment.stages))
    path = _folder(record).parent / "stages" / digest / "log.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no such log; delete the record beside it and run again")
    return pd.read_json(path, lines=True, precise_float=True)


def committed_logs(record: Record) -> list[pd.DataFrame]:
    """``iteration`` and ``loss`` of the committed runs of an experiment, whatever their seeds."""
    (known,) = scores.replicates({"": from_dict(record.experiment)}).values()
    folder = published_dir("reference") / "curves"
    paths = (folder / f"{committed.digest}.csv" for committed in known)
    return [pd.read_csv(path) for path in paths if path.is_file()]


def examples(record: Record, count: int = 6) -> list[Frame]:
    """Validation keyframes of two persons or more, evenly spread over both sources, not by score.

    Below each stand a person's annotated actions and highest scores, the right ones strong. A
    detected person has the actions of the annotated one that it overlaps by half.
    """
    run = _opened(record)
    scored, labels = predictions.scored_keyframes(run), run.layout.label_map()
    ids, names = np.array(labels.ids), {i: shortened(name) for i, name in labels.names.items()}
    annotated = {k.key: k for k in stages.annotated(run.layout, stages.SOURCES, "val")}
    several = [keyframe for keyframe in scored if len(keyframe.boxes) > 1] or scored
    places = np.linspace(0, len(several) - 1, count if several else 0).astype(int)
    files, frames = {}, []
    for keyframe in (several[place] for place in places):
        if keyframe.source not in files:
            rows = read_rows(predictions.detection_file(record.folder, keyframe.source, "val"))
            files[keyframe.source] = rows.set_index(pd.Index(keyframe_keys(rows)))
        rows = files[keyframe.source]
        rows = rows[rows.index == keyframe.key]
        actions = np.zeros_like(keyframe.actions)
        if known := annotated.get(keyframe.key):
            iou = matching.overlaps(keyframe.boxes[:, None], known.boxes)
            actions = known.actions[iou.argmax(axis=1)] & (iou.max(axis=1) >= IOU)[:, None]
        lines = []
        for person, box in enumerate(keyframe.boxes):
            truth = ids[actions[person]].tolist()
            does = ", ".join(names[action] for action in truth) or "no label"
            best = rows[(rows[list(BOX)] - box).abs().max(axis=1) < 1e-5]  # files: six decimals
            best = best.sort_values("score", ascending=False, kind="stable").head(SHOWN)
            scores = []
            for action, score in zip(best["action_id"], best["score"], strict=True):
                text = f"{names[action]} {score:.2f}".replace("0.", ".", 1)
                scores.append((text, "strong" if action in truth else "faint"))
            lines += [Line([(f"is: {does}", "plain")], person), Line(scores, indent=True)]
        marks = [person_mark(person, box) for person, box in enumerate(keyframe.boxes)]
        frames.append(_frame(run.layout, keyframe, keyframe.source, marks, lines))
    return frames


def _frame(layout, keyframe, source: str, marks: list[Mark], lines=()) -> Frame:
    (picture,) = clips.of_keyframes(layout, [keyframe])
    title = f"{source}: {keyframe.video}, {keyframe.timestamp:g} s"
    return Frame(title, picture.read().permute(1, 2, 0).numpy(), marks, lines)


def box_examples(record: Record, count: int = 6) -> list[Frame]:
    """Annotated validation frames, evenly spread, with the boxes that a run used (BOX_LEGEND)."""
    run = _opened(record)
    experiment = run.experiment
    sources = run.layout.sources("val")
    frames = []
    for source in sources:
        annotated = stages.annotated(run.layout, [source], "val")
        share = min(count // len(sources), len(annotated))
        places = ((np.arange(share) + 0.5) * len(annotated) / share).astype(int)
        if experiment.detected:
            run.require_boxes(source, "val")
            used = (experiment.boxes_name, run.threshold)
            by_moment = keyframes.detections(run.layout, source, "val", *used)
        for keyframe in (annotated[place] for place in places):
            truth = boxes = keyframe.boxes.astype(float)
            scores = np.ones(len(truth))
            if experiment.detected:
                rows = by_moment.get((keyframe.video, f"{keyframe.timestamp:.6f}"))
                boxes = np.empty((0, 4)) if rows is None else rows[list(BOX)].to_numpy()
                scores = [] if rows is None else rows["score"]
            hits, found = match_persons(boxes, truth)
            texts = [f"{score:.2f}".lstrip("0") for score in scores]
            marks = [Mark(box, "white", width=0.8) for box in truth[found]]
            marks += [Mark(box, MISSED, "", 1.8, (0, (1.5, 1))) for box in truth[~found]]
            false = (1.5, (0, (4, 1.5)), True)
            marks += [Mark(boxes[n], FALSE, texts[n], *false) for n in np.flatnonzero(~hits)]
            marks += [Mark(boxes[n], FOUND, texts[n], 1.5) for n in np.flatnonzero(hits)]
            frames.append(_frame(run.layout, keyframe, SOURCES[source], marks))
    return frames


def match_persons(boxes: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes (N, 4) are hits, and which persons (G, 4) are found, by the evaluator's rule.

    A box, from the highest score down, looks at the person that it overlaps most. It is a hit if
    it overlaps that one by half and no box before it did.
    """
    hits, found = np.zeros(len(boxes), bool), np.zeros(len(truth), bool)
    for number, iou in enumerate(matching.overlaps(boxes[:, None], truth) if len(truth) else []):
        best = int(iou.argmax())
        hits[number] = iou[best] >= IOU and not found[best]
        found[best] |= hits[number]
    return hits, found


def lost(record: Record) -> pd.DataFrame:
    """Where a run loses AP: by source a column each of :data:`LOSSES`, in points of mAP.

    Each says what mending this kind of error alone would bring (``diagnose``). Errors hide each
    other; the columns do not add up.
    """
    run = _opened(record)
    rows = {}
    for source in run.layout.sources("val"):
        truth = predictions.groundtruth(run.layout, source)
        path = predictions.detection_file(record.folder, source, "val")
        gains = average_precision.diagnose(truth, path, run.layout.label_map())
        # Where all persons of a class are missed, whatever AP it lacks is lost to that.
        gains = gains.assign(missed=gains["missed"].fillna(1 - gains["AP"]))
        points = [100 * gains[kinds].sum(axis=1).mean() for kinds in LOSSES.values()]
        rows[SOURCES[source]] = points
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*LOSSES])
    return table.rename_axis("source")


def _matches(record: Record) -> matching.Matches:
    run = _opened(record)
    truth = predictions.groundtruth(run.layout, "ava")
    return matching.match(truth, record.folder / "detections_ava.csv", run.layout.label_map())


def class_differences(after: Record, before: Record, num_resamples: int = 1_000) -> pd.DataFrame:
    """What each class gains on AVA from run to run: ``gain``, ``low``, ``high`` in points of AP.

    By action id; the interval is a paired bootstrap's over videos.
    """
    pair = _matches(after), _matches(before)
    gains = average_precision.bootstrap_classes(*pair, num_resamples=num_resamples)
    table = pd.DataFrame.from_dict(gains, orient="index", columns=["gain", "low", "high"])
    return 100 * table.rename_axis("action_id")


def precision_recall(record: Record, actions: Iterable[int]) -> dict:
    """Recall and precision (not its envelope) on AVA after each detection, by action id."""
    matches = _matches(record)
    curves = {}
    for action in actions:
        column = matches.ids.index(action)
        right = np.cumsum(matches.hits[matches.starts[column] : matches.starts[column + 1]])
        total = int((matches.truth_class == column).sum())
        curves[action] = (right / total, right / np.arange(1, len(right) + 1))
    return curves


def training_ap(record: Record) -> pd.Series:
    """AP of every class on AVA's training data, in %, from one plain view of annotated boxes."""
    run = _opened(record)
    model, labels = stages.trained_model(run), run.layout.label_map()
    annotated = memory.one_a_second(stages.annotated(run.layout, ["ava"], "train"))
    annotated = list(annotated.values())
    banks = run.banks(len(run.experiment.stages)).trained_on(model, annotated, 1)
    views = memory.feature_views(annotated, banks, memory.second_key)
    nothing = stages.remember_from(run, {})
    rows = predictions.score_persons(model.head, views, run.loss, nothing, labels)
    truth = predictions.groundtruth(run.layout, "ava", "train")
    aps = average_precision.frame_map(truth, rows, labels).AP
    return 100 * pd.Series(aps, dtype=float).rename_axis("action_id")


def class_statistics(path: Path, labels: Path | None = None) -> pd.DataFrame:
    """Count the classes of one file in AVA's layout, and how often samplers would show them.

    The label map names the evaluated classes (default: AVA's 60). By ``action_id``, the most
    frequent first, stand ``name``, ``persons`` and ``keyframes`` with the class, and for every
    sampler the share of its draws that contain the class; one without a person is never drawn.
    """
    label_map = LabelMap(dict(AVA_ACTIONS)) if labels is None else read_label_map(labels)
    annotated = keyframes.read_annotation_file(path, label_map, "any")
    persons = np.array([k.actions.sum(axis=0) for k in annotated if k.actions.any()])
    if not len(persons):
        raise InputError(f"{path}: no person of an evaluated class; give annotations with labels")
    contains = persons > 0
    names = list(label_map.names.values())
    columns = {"name": names, "persons": persons.sum(axis=0), "keyframes": contains.sum(axis=0)}
    table = pd.DataFrame(columns, index=pd.Index(label_map.ids, name="action_id"))
    present = contains.any(axis=0)
    known = table["name"][present].tolist()
    for sampler in batches.SAMPLERS:
        draw = batches.make_draw(sampler, contains[:, present], known, seed=0)
        starts = range(0, DRAWS, BATCH)
        items = np.concatenate([draw(np.arange(start, start + BATCH)) for start in starts])
        table[sampler] = contains[items].mean(axis=0)
    return table.sort_values("persons", ascending=False, kind="stable")

"""What finished runs left behind, as figures show it: logs, frames, single classes, lost AP.

torch is imported only once files of a run are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from stadlib import study
from stadlib.base import InputError
from stadlib.data.labels import AVA_ACTIONS, LabelMap, read_label_map
from stadlib.data.rows import BOX, keyframe_keys, read_rows
from stadlib.evaluation import average_precision, diagnosis, matching
from stadlib.recipes.experiment import from_dict
from stadlib.report.frames import Frame, Line, Mark, person_mark
from stadlib.report.scores import SOURCES
from stadlib.report.style import GREY, short_name
from stadlib.study import Record

IOU = 0.5  # of a hit
SHOWN = 4  # highest scores of a person in an example
DRAWS, BATCH = 30_000, 64  # of every sampler, in class_statistics
LOSSES = {  # what AP is lost to, of the kinds that ``diagnosis.diagnose`` tells apart
    "missed persons": ("missed",),
    "imprecise boxes": ("box",),
    "false boxes": ("background", "duplicate"),
    "wrong labels": ("label",),
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


def _opened(record: Record) -> tuple:
    """The module that opens runs, and the record's run."""
    from stadlib.training import stages  # noqa: PLC0415  (torch)

    _folder(record)
    return stages, study.open_run(record)


def training_log(record: Record) -> pd.DataFrame:
    """Return the log of a run's last stage: ``iteration``, ``loss``, ``lr``, ``seconds``.

    Raises:
        InputError: the record came without its run, as a committed reference does.
    """
    experiment = from_dict(record.experiment)
    digest = experiment.stage_digest(len(experiment.stages))
    path = _folder(record).parent / "stages" / digest / "log.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no such log; delete the record beside it and run again")
    return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])


def examples(record: Record, count: int = 6) -> list[Frame]:
    """Return validation keyframes of two persons or more, evenly spread over both sources.

    Which ones does not depend on the scores. Below each stand a person's annotated actions and
    highest scores, the right ones strong. A detected person's true actions are those of the
    annotated one that it overlaps by half. Where nobody was detected, there is no example.
    """
    stages, run = _opened(record)
    layout, keyframes = run.layout, stages.scored_keyframes(run)
    annotated = {k.key: k for k in stages.annotated(layout, stages.SOURCES, "val")}
    several = [keyframe for keyframe in keyframes if len(keyframe.boxes) > 1] or keyframes
    places = np.linspace(0, len(several) - 1, count).astype(int) if several else []
    chosen = [several[place] for place in places]
    tables = {}
    for source in {keyframe.source for keyframe in chosen}:
        rows = read_rows(record.folder / f"detections_{source}.csv")
        tables[source] = dict(list(rows.groupby(np.asarray(keyframe_keys(rows)))))
    frames = []
    for keyframe in chosen:
        title = f"{keyframe.source}: {keyframe.video}, {keyframe.timestamp:g} s"
        marks = [person_mark(person, box) for person, box in enumerate(keyframe.boxes)]
        actions = _true_actions(keyframe, annotated.get(keyframe.key))
        rows, lines = tables[keyframe.source].get(keyframe.key), []
        for person, box in enumerate(keyframe.boxes):
            truth = np.array(layout.label_map().ids)[actions[person]].tolist()
            names = ", ".join(map(short_name, truth)) or "no label"
            lines.append(Line([(f"is: {names}", "plain")], person))
            lines.append(Line(_highest(rows, box, truth), indent=True))
        frames.append(Frame(title, _picture(layout, keyframe), marks, lines))
    return frames


def _true_actions(keyframe, annotated) -> np.ndarray:
    """(N, actions) of the annotated persons under the boxes of a keyframe; none elsewhere."""
    if annotated is None:
        return np.zeros_like(keyframe.actions)
    iou = _overlaps(keyframe.boxes, annotated.boxes)
    return annotated.actions[iou.argmax(axis=1)] & (iou.max(axis=1) >= IOU)[:, None]


def _highest(rows: pd.DataFrame | None, box: np.ndarray, truth: list[int]) -> list:
    """A box's highest scores as a caption's words; files have six decimals of a box."""
    if rows is None:
        return []
    own = rows[(rows[list(BOX)] - box).abs().max(axis=1) < 1e-5]
    best = own.sort_values("score", ascending=False, kind="stable").head(SHOWN)
    return [
        (
            f"{short_name(action)} {score:.2f}".replace("0.", ".", 1),
            "strong" if action in truth else "faint",
        )
        for action, score in zip(best["action_id"], best["score"], strict=True)
    ]


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of every box with every other, (N, G)."""
    pairs = np.repeat(boxes, len(others), axis=0), np.tile(others, (len(boxes), 1))
    return matching.overlaps(*pairs).reshape(len(boxes), len(others))


def _picture(layout, keyframe) -> np.ndarray:
    from stadlib.data.video import read_frames  # noqa: PLC0415  (torch)

    path = layout.video_file(keyframe.source, keyframe.video)
    time = keyframe.timestamp - layout.video_start(keyframe.source, keyframe.video)
    return read_frames(path, [time])[0].permute(1, 2, 0).numpy()


def box_examples(record: Record, count: int = 6) -> list[Frame]:
    """Return annotated validation frames with the boxes that a run used there (BOX_LEGEND).

    Half of them of each source, at even distances in the annotation file: which ones does not
    depend on what was found.

    Raises:
        InputError: the run is not on this machine.
    """
    from stadlib.data.keyframes import detections  # noqa: PLC0415  (torch)

    stages, run = _opened(record)
    experiment = run.experiment
    sources = [source for source in stages.SOURCES if run.has(source, "val")]
    frames = []
    for number, source in enumerate(sources):
        keyframes = stages.annotated(run.layout, [source], "val")
        share = count * (number + 1) // len(sources) - count * number // len(sources)
        share = min(share, len(keyframes))
        places = ((np.arange(share) + 0.5) * len(keyframes) / max(1, share)).astype(int)
        if experiment.detected:
            run.require_boxes(source, "val")
            used = (experiment.boxes_name, experiment.detections.threshold)
            by_moment = detections(run.layout, source, "val", *used)
        for keyframe in [keyframes[place] for place in places]:
            truth = keyframe.boxes.astype(float)
            boxes, scores = truth, np.ones(len(truth))
            if experiment.detected:
                rows = by_moment.get((keyframe.video, f"{keyframe.timestamp:.6f}"))
                boxes = np.empty((0, 4)) if rows is None else rows[list(BOX)].to_numpy()
                scores = np.empty(0) if rows is None else rows["score"].to_numpy()
            title = f"{SOURCES[source]}: {keyframe.video}, {keyframe.timestamp:g} s"
            marks = _box_marks(truth, boxes, scores)
            frames.append(Frame(title, _picture(run.layout, keyframe), marks))
    return frames


def _box_marks(truth: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> list[Mark]:
    """Annotated persons, missed ones in red, then wrong boxes and on them right ones."""
    hits, found = match_persons(boxes, truth)
    marks = [
        Mark(box, "white", width=0.8) if known else Mark(box, MISSED, "", 1.8, (0, (1.5, 1)))
        for box, known in zip(truth, found, strict=True)
    ]
    texts = [f"{score:.2f}".lstrip("0") for score in scores]
    dashes = (0, (4, 1.5))
    marks += [Mark(boxes[n], FALSE, texts[n], 1.5, dashes, True) for n in np.flatnonzero(~hits)]
    return marks + [Mark(boxes[n], FOUND, texts[n], 1.5) for n in np.flatnonzero(hits)]


def match_persons(boxes: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which boxes find a person, and which persons are found, by the evaluator's rule.

    A box, from the highest score down, looks at the person that it overlaps most. It is a hit if
    it overlaps that one by half and no box before it did.

    Args:
        boxes: (N, 4), the highest score first.
        truth: (G, 4).
    """
    hits, found = np.zeros(len(boxes), bool), np.zeros(len(truth), bool)
    for number, iou in enumerate(_overlaps(boxes, truth) if len(truth) else []):
        best = int(iou.argmax())
        hits[number] = iou[best] >= IOU and not found[best]
        found[best] |= hits[number]
    return hits, found


def lost(record: Record) -> pd.DataFrame:
    """Return where a run loses AP (:func:`stadlib.evaluation.diagnosis.diagnose`), by source.

    Returns:
        A column each of :data:`LOSSES`, in points of mAP (the mean over classes): what mending
        this kind of error alone would bring. Errors hide each other; the columns do not add up.

    Raises:
        InputError: the run is not on this machine.
    """
    stages, run = _opened(record)
    rows = {}
    for source in [name for name in stages.SOURCES if run.has(name, "val")]:
        truth = stages.groundtruth(run.layout, source)
        path = record.folder / f"detections_{source}.csv"
        table = diagnosis.diagnose(truth, path, run.layout.label_map())
        # Where all persons of a class are missed, whatever AP it lacks is lost to that.
        gains = table.assign(missed=table["missed"].fillna(1 - table["AP"]))
        rows[SOURCES[source]] = {
            name: 100 * gains[list(kinds)].sum(axis=1).mean() for name, kinds in LOSSES.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")


def class_differences(
    after: Record, before: Record, source: str = "ava", num_resamples: int = 1_000
) -> pd.DataFrame:
    """Return what each class gains from one run to another, with its interval over videos.

    Returns:
        By action id: ``gain``, ``low``, ``high`` in points of AP, from the paired bootstrap.

    Raises:
        InputError: a run is not on this machine.
    """
    ours, theirs = (_matches(record, source) for record in (after, before))
    gains = average_precision.bootstrap_classes(ours, theirs, num_resamples=num_resamples)
    table = pd.DataFrame.from_dict(gains, orient="index", columns=["gain", "low", "high"])
    return 100 * table.rename_axis("action_id")


def precision_recall(
    record: Record, actions: Iterable[int], source: str = "ava"
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return recall and precision (not its envelope) after each detection, by action id."""
    matches = _matches(record, source)
    curves = {}
    for action in actions:
        column = matches.ids.index(action)
        right = np.cumsum(matches.hits[matches.starts[column] : matches.starts[column + 1]])
        total = int((matches.truth_class == column).sum())
        curves[action] = (right / total, right / np.arange(1, len(right) + 1))
    return curves


def _matches(record: Record, source: str) -> matching.Matches:
    stages, run = _opened(record)
    path = record.folder / f"detections_{source}.csv"
    return matching.match(stages.groundtruth(run.layout, source), path, run.layout.label_map())


def training_ap(record: Record, source: str = "ava") -> pd.Series:
    """Return the AP of every class on the data that the run was trained on, in %.

    Ground-truth boxes, one plain view, from the features that the last stages trained on. Against
    the AP on validation it tells what was learned by heart.
    """
    from stadlib.training.memory import one_a_second, second_key  # noqa: PLC0415  (torch)

    stages, run = _opened(record)
    model, labels = stages.trained_model(run), run.layout.label_map()
    keyframes = one_a_second(stages.annotated(run.layout, [source], "train"))
    bank = run.banks(len(run.experiment.stages)).trained_on(model, source, keyframes)
    no_memory = stages.remember_from(run, {})
    known = stages.feature_views(keyframes, [{source: bank}], second_key)
    rows = stages.score_persons(model.head, known, no_memory, labels)
    truth = stages.groundtruth(run.layout, source, "train")
    aps = average_precision.frame_map(truth, rows, labels).AP
    return 100 * pd.Series(aps, dtype=float).rename_axis("action_id")


def class_statistics(path: Path, labels: Path | None = None, seed: int = 0) -> pd.DataFrame:
    """Count the classes of one file in AVA's layout, and how often samplers would show them.

    Args:
        path: annotations; AVA's, Kinetics' or one's own.
        labels: label map of the evaluated classes; without it, AVA's 60.
        seed: of the samplers' draws.

    Returns:
        By ``action_id``, the most frequent first: ``name``, ``persons`` and ``keyframes`` with the
        class, and for every sampler the share of its draws that contain the class. Classes without
        a person are drawn by none.

    Raises:
        InputError: a file cannot be read, or no keyframe has a person of an evaluated class.
    """
    from stadlib.data.batches import SAMPLERS, make_draw  # noqa: PLC0415
    from stadlib.data.keyframes import read_annotation_file  # noqa: PLC0415  (torch)

    label_map = LabelMap(dict(AVA_ACTIONS)) if labels is None else read_label_map(labels)
    keyframes = [k for k in read_annotation_file(path, label_map, "any") if k.actions.any()]
    if not keyframes:
        raise InputError(f"{path}: no person of an evaluated class; give annotations with labels")
    contains = np.array([keyframe.actions.any(axis=0) for keyframe in keyframes])
    table = pd.DataFrame(
        {
            "name": [label_map.name(action) for action in label_map.ids],
            "persons": np.sum([keyframe.actions.sum(axis=0) for keyframe in keyframes], axis=0),
            "keyframes": contains.sum(axis=0),
        },
        index=pd.Index(label_map.ids, name="action_id"),
    )
    there = contains.any(axis=0)
    for sampler in SAMPLERS:
        draw = make_draw(sampler, contains[:, there], table["name"][there].tolist(), seed)
        starts = range(0, DRAWS, BATCH)
        items = np.concatenate([draw(np.arange(start, start + BATCH)) for start in starts])
        table[sampler] = contains[items].mean(axis=0)
    return table.sort_values("persons", ascending=False, kind="stable")

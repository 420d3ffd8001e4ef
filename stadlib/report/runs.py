"""What a run left behind, as the figures want it: its log, its scores on keyframes, its data.

torch is imported only when frames are read.

How often the classes of an annotation file occur, and how often samplers would show them.

What runs on this machine say about single classes: differences, curves, training against test.

torch is imported only when a head is loaded.

What a run with detected boxes left behind: frames with those boxes, and where its AP is lost.

torch is imported only when files of the run are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from stadlib.base import InputError, Progress
from stadlib.data.labels import AVA_ACTIONS, LabelMap, read_label_map
from stadlib.data.rows import keyframe_keys, read_rows
from stadlib.evaluation import average_precision, diagnosis, matching
from stadlib.evaluation.matching import overlaps
from stadlib.recipes.experiment import from_dict
from stadlib.report.frames import DetectedFrame, Example
from stadlib.report.scores import SOURCES
from stadlib.study import Record, open_run

_CORNERS_run_files = ["x1", "y1", "x2", "y2"]


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


def examples(record: Record, count: int = 6) -> list[Example]:
    """Return validation keyframes of two persons or more, evenly spread over both sources.

    Which ones does not depend on the scores: neither good nor bad cases are picked. A detected
    person's true actions are those of the annotated one that it overlaps by half. Where nobody was
    detected, there is no example.
    """
    from stadlib.data.video import read_frames  # noqa: PLC0415  (torch)

    workspace, run = open_run(record)
    layout, keyframes = run.layout, workspace.validation_keyframes(run)
    annotated = {k.key: k for k in workspace.annotated(layout, workspace.SOURCES, "val")}
    several = [keyframe for keyframe in keyframes if len(keyframe.boxes) > 1] or keyframes
    places = np.linspace(0, len(several) - 1, count).astype(int) if several else []
    chosen = [several[place] for place in places]
    scores = {name: _scores(record, name) for name in {keyframe.source for keyframe in chosen}}
    found = []
    for keyframe in chosen:
        path = layout.video_file(keyframe.source, keyframe.video)
        time = keyframe.timestamp - layout.video_start(keyframe.source, keyframe.video)
        ids = np.array(layout.label_map().ids)
        actions = _true_actions(keyframe, annotated.get(keyframe.key))
        found.append(
            Example(
                title=f"{keyframe.source}: {keyframe.video}, {keyframe.timestamp:g} s",
                frame=read_frames(path, [time])[0].permute(1, 2, 0).numpy(),
                boxes=keyframe.boxes,
                truths=[ids[own].tolist() for own in actions],
                scores=[scores[keyframe.source](keyframe.key, box) for box in keyframe.boxes],
            )
        )
    return found


def _true_actions(keyframe, annotated) -> np.ndarray:
    """(N, actions) of the annotated persons under the boxes of a keyframe; none elsewhere."""
    if annotated is None:
        return np.zeros_like(keyframe.actions)
    mine, theirs = keyframe.boxes, annotated.boxes
    pairs = np.repeat(mine, len(theirs), axis=0), np.tile(theirs, (len(mine), 1))
    iou = overlaps(*pairs).reshape(len(mine), len(theirs))
    return annotated.actions[iou.argmax(axis=1)] & (iou.max(axis=1) >= 0.5)[:, None]


def _scores(record: Record, source: str) -> Callable[[str, np.ndarray], dict[int, float]]:
    """A function that finds a person's scores in the run's detection file."""
    rows = read_rows(_folder(record) / f"detections_{source}.csv")
    keys = pd.Series(keyframe_keys(rows), index=rows.index)
    by_key = dict(list(rows.groupby(keys)))

    def of_person(key: str, box: np.ndarray) -> dict[int, float]:
        mine = by_key.get(key, rows[:0])
        same = (mine[_CORNERS_run_files] - box).abs().max(
            axis=1
        ) < 1e-5  # the file has six decimals
        return dict(zip(mine["action_id"][same], mine["score"][same], strict=True))

    return of_person


def _folder(record: Record) -> Path:
    if record.folder is None or not (record.folder / "record.json").is_file():
        raise InputError(f"record {record.digest}: its run is not on this machine; run it first")
    return record.folder


DRAWS, BATCH = 30_000, 64


def class_statistics(path: Path, labels: Path | None = None, seed: int = 0) -> pd.DataFrame:
    """Count the classes of one file in AVA's layout.

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
    names = table["name"][there].tolist()
    for word in SAMPLERS:
        draw = make_draw(word, contains[:, there], names, seed)
        starts = range(0, DRAWS, BATCH)
        items = np.concatenate([draw(np.arange(start, start + BATCH)) for start in starts])
        table[word] = contains[items].mean(axis=0)
    return table.sort_values("persons", ascending=False, kind="stable")


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
    found = average_precision.bootstrap_classes(ours, theirs, num_resamples=num_resamples)
    table = pd.DataFrame.from_dict(found, orient="index", columns=["gain", "low", "high"])
    return 100 * table.rename_axis("action_id")


def precision_recall(
    record: Record, actions: Iterable[int], source: str = "ava"
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return recall and precision (not its envelope) after each detection, by action id."""
    matches = _matches(record, source)
    curves = {}
    for action in actions:
        column = matches.ids.index(action)
        hits = matches.hits[matches.starts[column] : matches.starts[column + 1]]
        right = np.cumsum(hits)
        total = int((matches.truth_class == column).sum())
        curves[action] = (right / total, right / np.arange(1, len(hits) + 1))
    return curves


def training_ap(record: Record, source: str = "ava") -> pd.Series:
    """Return the AP of every class on the data that the run was trained on, in %.

    Ground-truth boxes, one plain view, from the features that the last stages trained on. Against
    the AP on validation it tells what was learned by heart.
    """
    from stadlib.models.heads import no_memory  # noqa: PLC0415
    from stadlib.training import stages  # noqa: PLC0415  (torch)
    from stadlib.training.memory import one_a_second, second_key  # noqa: PLC0415

    run = _run_class_curves(record)
    model = stages.trained_model(run)
    keyframes = one_a_second(stages.annotated(run.layout, [source], "train"))
    bank = run.banks(len(run.experiment.stages)).trained_on(model, source, keyframes)
    labels = run.layout.label_map()
    rows = stages.score_features(
        model.head,
        keyframes,
        [{source: bank}],
        lambda keys: no_memory(len(keys), bank.width),
        labels,
        key=second_key,
    )
    found = average_precision.frame_map(
        stages.groundtruth(run.layout, source, "train"), rows, labels
    )
    return 100 * pd.Series(found.AP, dtype=float).rename_axis("action_id")


def _matches(record: Record, source: str) -> matching.Matches:
    from stadlib.training import stages  # noqa: PLC0415  (torch)

    run = _run_class_curves(record)
    truth = stages.groundtruth(run.layout, source)
    path = record.folder / f"detections_{source}.csv"
    return matching.match(truth, path, run.layout.label_map())


def _run_class_curves(record: Record):
    from stadlib.training import stages  # noqa: PLC0415  (torch)

    if record.folder is None or not (record.folder / "record.json").is_file():
        raise InputError(f"record {record.digest}: its run is not on this machine; run it first")
    return stages.open_run(from_dict(record.experiment), record.folder, Progress)


LEAST = 0.5  # IoU of a hit
LOSSES = {  # what AP is lost to, of the kinds that ``metrics.diagnose`` tells apart
    "missed persons": ("missed",),
    "imprecise boxes": ("box",),
    "false boxes": ("background", "duplicate"),
    "wrong labels": ("label",),
}
_CORNERS_detected_frames = ["x1", "y1", "x2", "y2"]


def detected_examples(record: Record, count: int = 6) -> list[DetectedFrame]:
    """Return annotated validation frames with the boxes that a run used there.

    Half of them of each source, at even distances in the annotation file: which ones does not
    depend on what was found.

    Raises:
        InputError: the run is not on this machine.
    """
    from stadlib.training import stages  # noqa: PLC0415  (torch)

    run = _run_detected_frames(record)
    sources = _sources(run)
    frames = []
    for number, source in enumerate(sources):
        keyframes = stages.annotated(run.layout, [source], "val")
        share = count * (number + 1) // len(sources) - count * number // len(sources)
        share = min(share, len(keyframes))
        places = ((np.arange(share) + 0.5) * len(keyframes) / max(1, share)).astype(int)
        boxes_of = _boxes(run, source)
        frames += [_frame(run, keyframes[place], boxes_of) for place in places]
    return frames


def lost(record: Record) -> pd.DataFrame:
    """Return where a run loses AP (:func:`stadlib.metrics.diagnose`): the mean over classes.

    Returns:
        By source, a column each of :data:`LOSSES`, in points of mAP: what mending this kind of
        error alone would bring. Errors hide each other, so the columns are not parts of a whole.

    Raises:
        InputError: the run is not on this machine.
    """
    from stadlib.training import stages  # noqa: PLC0415  (torch)

    run = _run_detected_frames(record)
    rows = {}
    for source in _sources(run):
        truth = stages.groundtruth(run.layout, source)
        detections = run.folder / f"detections_{source}.csv"
        table = diagnosis.diagnose(truth, detections, run.layout.label_map())
        # Where all persons of a class are missed, whatever AP it lacks is lost to that.
        gains = table.assign(missed=table["missed"].fillna(1 - table["AP"]))
        rows[SOURCES[source]] = {
            name: 100 * gains[list(kinds)].sum(axis=1).mean() for name, kinds in LOSSES.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")


def match_persons(boxes: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes find a person, and which persons are found, by the evaluator's rule.

    A box, from the highest score down, looks at the person whom it overlaps most; it is a hit if
    it overlaps that one by half and no box before it did.

    Args:
        boxes: (N, 4), the highest score first.
        truth: (G, 4).
    """
    hits, found = np.zeros(len(boxes), bool), np.zeros(len(truth), bool)
    if not len(truth):
        return hits, found
    for number, box in enumerate(boxes):
        iou = overlaps(np.tile(box, (len(truth), 1)), truth)
        best = int(iou.argmax())
        hits[number] = iou[best] >= LEAST and not found[best]
        found[best] |= hits[number]
    return hits, found


def _frame(run, keyframe, boxes_of) -> DetectedFrame:
    from stadlib.data.video import read_frames  # noqa: PLC0415  (torch)

    path = run.layout.video_file(keyframe.source, keyframe.video)
    time = keyframe.timestamp - run.layout.video_start(keyframe.source, keyframe.video)
    truth = keyframe.boxes.astype(float)
    boxes, scores = boxes_of(keyframe)
    hits, found = match_persons(boxes, truth)
    return DetectedFrame(
        title=f"{SOURCES[keyframe.source]}: {keyframe.video}, {keyframe.timestamp:g} s",
        frame=read_frames(path, [time])[0].permute(1, 2, 0).numpy(),
        truth=truth,
        found=found,
        boxes=boxes,
        scores=scores,
        hits=hits,
    )


def _boxes(run, source: str):
    """A function that gives a keyframe's boxes and scores, as the run's experiment used them."""
    from stadlib.data.keyframes import detections  # noqa: PLC0415  (torch)

    experiment = run.experiment
    if not experiment.detected:
        return lambda keyframe: (keyframe.boxes.astype(float), np.ones(len(keyframe.boxes)))
    run.require_boxes(source, "val")
    threshold = experiment.detections.threshold
    found = detections(run.layout, source, "val", experiment.boxes_name, threshold)

    def of_keyframe(keyframe) -> tuple[np.ndarray, np.ndarray]:
        rows = found.get((keyframe.video, f"{keyframe.timestamp:.6f}"))
        if rows is None:
            return np.empty((0, 4)), np.empty(0)
        return rows[_CORNERS_detected_frames].to_numpy(), rows["score"].to_numpy()

    return of_keyframe


def _sources(run) -> list[str]:
    """Those whose validation split the dataset has."""
    from stadlib.data import layout  # noqa: PLC0415  (torch)

    return [source for source in layout.SOURCES if run.has(source, "val")]


def _run_detected_frames(record: Record):
    from stadlib.training import stages  # noqa: PLC0415  (torch)

    if record.folder is None or not (record.folder / "record.json").is_file():
        raise InputError(f"record {record.digest}: its run is not on this machine; run it first")
    return stages.open_run(from_dict(record.experiment), record.folder, Progress)

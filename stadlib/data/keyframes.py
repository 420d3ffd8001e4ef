"""Keyframes: moments of AVA and AVA-Kinetics with the persons in them.

A keyframe gathers the annotation rows of one (video, timestamp), a person the rows of one box.
Other keyframes hold detected persons, or all seconds of a video.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.ops import box_iou

from stadlib.base import InputError, tell_once
from stadlib.data.boxes import read_person_boxes
from stadlib.data.layout import AVA_IDS, AVA_SECONDS, SPLITS, AvaLayout, LabelMap
from stadlib.data.rows import BOX, Form, Problems, read, to_pandas
from stadlib.data.video import probe

# A box to train on scores this much (98 of 100 such boxes of v3 were persons in mini's first
# edition; AlphAction's 0.9 is of a detector that scores higher), and overlaps a person by SAME
# (SlowFast's files) or all persons by less than OTHER.
CONFIDENT, SAME, OTHER = 0.5, 0.75, 0.5
MARGIN = 0.05  # of the frame, by which an annotated box may stick out of it
NO_PERSON = -1  # the id of a person in a file without ids
Moment = tuple[str, str]  # video, ``%.6f`` of its second


@dataclass(frozen=True, eq=False)
class Keyframe:
    """The persons of one moment of a video. N may be 0."""

    source: str  # "ava" or "kinetics"
    video: str
    timestamp: float  # seconds on the annotation clock (see AvaLayout.video_start)
    boxes: np.ndarray  # (N, 4) float32, x1 y1 x2 y2 as fractions of width and height
    actions: np.ndarray  # (N, num_actions) bool, columns as in LabelMap.ids
    person_ids: np.ndarray  # (N,) int64, -1 where the file gives none

    @property
    def moment(self) -> Moment:
        """Video and ``%.6f`` of the second, which tell keyframes apart: 0902 = 902.0."""
        return self.video, f"{self.timestamp:.6f}"

    @property
    def key(self) -> str:
        """The official evaluator's name of it: ``video,%.6f``."""
        return ",".join(self.moment)


class KeyframeColumns(Sequence[Keyframe]):
    """Keyframes as a few tensors, which a loader's workers share instead of copying objects."""

    def __init__(self, keyframes: Sequence[Keyframe]) -> None:
        numbers: dict[tuple[str, str], int] = {}
        videos = [numbers.setdefault((k.source, k.video), len(numbers)) for k in keyframes]
        self._names = list(numbers)
        self._videos = torch.tensor(videos, dtype=torch.int32)
        self._times = torch.tensor([k.timestamp for k in keyframes], dtype=torch.float64)
        self._ends = torch.tensor([0, *(len(k.boxes) for k in keyframes)]).cumsum(0)
        columns = zip(*((k.boxes, k.actions, k.person_ids) for k in keyframes), strict=True)
        self._persons = [torch.from_numpy(np.concatenate(column)) for column in columns]

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, index: int) -> Keyframe:
        index = range(len(self))[index]
        rows = slice(*self._ends[index : index + 2].tolist())
        persons = (column[rows].numpy() for column in self._persons)
        return Keyframe(*self._names[self._videos[index]], self._times[index].item(), *persons)


def read_annotations(
    path: Path, label_map: LabelMap, most: float = 1
) -> tuple[pd.DataFrame, Problems]:
    """The right rows of an annotation file as :func:`stadlib.data.rows.read` gives them.

    Boxes have an area; what sticks out of the frame by less than ``MARGIN`` is clipped. Corners
    have six decimals. Actions are those of the label map, and all of AVA's 80 if it is AVA's. An id
    that names two boxes of a keyframe is dropped there.
    """
    actions = {*label_map.ids, *(AVA_IDS if label_map.is_avas else ())}
    named = f"{Path(label_map.path).name or 'the label map'} lists"
    boxes = {"fractions": True, "margin": MARGIN, "area": True}
    columns, problems = read(path, Form(**boxes, actions=actions, named=named, last="person"), most)
    if columns.is_empty() and not problems.rows:
        raise InputError(f"{path}: empty file; add its rows or remove it")
    rows = to_pandas(columns)
    rows["micros"] = (rows["timestamp"] * 1e6).round().astype(np.int64)
    rows[list(BOX)] = rows[list(BOX)].round(6)
    person = ["video", "micros", "person"]
    boxes = rows[(rows["person"] >= 0) & rows["x1"].notna()].drop_duplicates([*person, *BOX])
    twice = boxes[boxes.duplicated(person, keep=False)]
    if len(twice):
        key = pd.MultiIndex.from_frame(rows[person])
        shared = key.isin(pd.MultiIndex.from_frame(twice[person]))
        rows["person"] = rows["person"].mask(shared, NO_PERSON)
        problem = f"{len(twice)} boxes share their person's id with another of the same keyframe"
        first = f"first row {twice['row'].iat[0]}; those ids are not used"
        problems.notes.append(f"{path}: {problem}, {first}")
    return rows, problems


def contradictions(tables: dict[Path, pd.DataFrame]) -> list[str]:
    """A line for each keyframe that two files (rows by path) label differently."""
    lines: list[str] = []
    seen: dict[tuple[str, int], tuple[str, frozenset]] = {}
    counts = Counter(video for table in tables.values() for video in table["video"].unique())
    shared = [video for video, files in counts.items() if files > 1]
    for path, table in tables.items():
        several = table[table["video"].isin(shared)]
        for key, rows in several.groupby(["video", "micros"], sort=False, observed=True):
            place = f"{path.name}:{rows['row'].iat[0]}"
            labels = rows.loc[rows["x1"].notna(), [*BOX, "action_id"]]
            content = frozenset(labels.itertuples(index=False, name=None))
            first, expected = seen.setdefault(key, (place, content))
            if content != expected:
                keyframe = f"keyframe {key[0]},{key[1] / 1e6:.6f}"
                problem = f"has other boxes or actions than in {first}; keep one of the two"
                lines.append(f"{path.with_name(place)}: {keyframe} {problem}")
    return lines


def require_agreement(layout: AvaLayout, source: str) -> None:
    """Refuse splits of a source that label the same keyframe differently."""
    paths = [layout.annotations(source, split) for split in SPLITS]
    label_map = layout.label_map()
    tables = {path: read_annotations(path, label_map)[0] for path in paths if path.is_file()}
    if lines := contradictions(tables):
        raise InputError(lines[0])


def read_annotation_file(path: Path | str, label_map: LabelMap, source: str) -> list[Keyframe]:
    """Keyframes and persons of one file, in the order of their first rows.

    A row with an action outside the label map still shows a person; two-column rows show none.
    """
    rows, problems = read_annotations(Path(path), label_map)
    problems.refuse()
    for note in problems.notes:
        tell_once(note)
    # Whole-table operations: files have up to a million rows.
    rows["keyframe"] = rows.groupby(["video", "micros"], sort=False, observed=True).ngroup()
    first = rows.drop_duplicates("keyframe")
    labelled = rows[rows["x1"].notna()].sort_values("keyframe", kind="stable")
    person_of_row = labelled.groupby(["keyframe", *BOX], sort=False).ngroup().to_numpy()
    persons = labelled.iloc[np.unique(person_of_row, return_index=True)[1]]
    actions = np.zeros((len(persons), label_map.num_actions), bool)
    evaluated = labelled["action_id"].isin(label_map.ids).to_numpy()
    columns = np.searchsorted(label_map.ids, labelled["action_id"].to_numpy()[evaluated])
    actions[person_of_row[evaluated], columns] = True
    boxes = persons[list(BOX)].to_numpy(np.float32)
    ids = persons["person"].to_numpy(np.int64)
    ends = np.searchsorted(persons["keyframe"].to_numpy(), np.arange(len(first)), side="right")
    moments = zip(first["video"].tolist(), first["timestamp"].tolist(), strict=True)
    return [
        Keyframe(source, video, timestamp, boxes[a:b], actions[a:b], ids[a:b])
        for (video, timestamp), a, b in zip(moments, [0, *ends[:-1]], ends, strict=True)
    ]


def read_keyframes(layout: AvaLayout, source: str, split: str) -> list[Keyframe]:
    """Keyframes of a split in file order, without its excluded timestamps."""
    path = layout.annotations(source, split)
    keyframes = read_annotation_file(path, layout.label_map(), source)
    excluded = layout.excluded(source, split)
    return [k for k in keyframes if k.moment not in excluded] if excluded else keyframes


def detections(
    layout: AvaLayout, source: str, split: str, detector: str, threshold: float
) -> dict[Moment, pd.DataFrame]:
    """A detector's boxes by moment, the highest score first."""
    boxes = read_person_boxes(layout.person_boxes(detector, source, split))
    boxes = boxes[boxes["score"] >= threshold].sort_values("score", ascending=False, kind="stable")
    times = boxes["timestamp"].map("{:.6f}".format)
    return dict(list(boxes.groupby([boxes["video"], times], sort=False)))


def meeting_threshold(layout: AvaLayout, sources: Iterable[str], detector: str) -> float:
    """The least score by which a detector's boxes on validation are as many as the persons there.

    Then precision and recall are equal: both are right boxes by that number.
    """
    persons, scores = 0, []
    for source in sources:
        boxes = detections(layout, source, "val", detector, 0.0)
        for keyframe in read_keyframes(layout, source, "val"):
            persons += len(keyframe.boxes)
            if keyframe.moment in boxes:
                scores += boxes[keyframe.moment]["score"].tolist()
    if not persons:
        remedy = "give a least score of the boxes, Detections(threshold=...)"
        raise InputError(f"{layout.annotation_folder}: no validation person; {remedy}")
    return min(sorted(scores, reverse=True)[:persons], default=0.0)


def detected_seconds(
    layout: AvaLayout, source: str, split: str, detector: str, threshold: float
) -> list[Keyframe]:
    """Every second in which the detector found a person, by video and time; actions are unknown."""
    boxes = detections(layout, source, split, detector, threshold)
    return sorted(_without_actions(layout, source, boxes), key=lambda k: (k.video, k.timestamp))


def detected_keyframes(
    layout: AvaLayout, source: str, split: str, detector: str, threshold: float
) -> list[Keyframe]:
    """The annotated moments with detected persons, in the order of the annotation file.

    A split without annotations has every second of AVA's movies that its list names.
    """
    boxes = detections(layout, source, split, detector, threshold)
    if layout.annotations(source, split).is_file():
        times = {k.moment: k.timestamp for k in read_keyframes(layout, source, split)}
    else:
        seconds = product(layout.videos(source, split), map(float, AVA_SECONDS))
        times = {(video, f"{t:.6f}"): t for video, t in seconds}
        for moment in layout.excluded(source, split):
            times.pop(moment, None)
    keyframes = _without_actions(layout, source, {m: boxes[m] for m in times if m in boxes})
    return [replace(k, timestamp=times[k.moment]) for k in keyframes]


def with_confident(keyframes: list[Keyframe], boxes: dict[Moment, pd.DataFrame]) -> list[Keyframe]:
    """Training keyframes with detected boxes beside the annotated persons (SlowFast, AlphAction).

    A box that overlaps a person by ``SAME`` takes that person's actions. One that overlaps all by
    less than ``OTHER`` is a person without an evaluated action. Others are left out.
    """
    mixed = []
    for keyframe in keyframes:
        rows = boxes.get(keyframe.moment)
        if rows is None or not len(keyframe.boxes):
            mixed.append(keyframe)
            continue
        corners = rows[list(BOX)].to_numpy(np.float32)
        iou = box_iou(torch.from_numpy(corners), torch.from_numpy(keyframe.boxes)).numpy()
        clear = (iou.max(axis=1) >= SAME) | (iou.max(axis=1) < OTHER)
        corners, iou = corners[clear], iou[clear]
        actions = keyframe.actions[iou.argmax(axis=1)] & (iou.max(axis=1) >= SAME)[:, None]
        boxes_of_all = np.concatenate([keyframe.boxes, corners])
        actions = np.concatenate([keyframe.actions, actions])
        ids = np.concatenate([keyframe.person_ids, np.full(len(corners), -1, np.int64)])
        mixed.append(replace(keyframe, boxes=boxes_of_all, actions=actions, person_ids=ids))
    return mixed


def every_second(layout: AvaLayout, source: str, split: str) -> list[Keyframe]:
    """The annotated keyframes with persons, and the seconds of the ground truth's box file.

    Sorted by video and time; without a box file, which AVA-Kinetics lacks, in file order.
    """
    annotated = {k.moment: k for k in read_keyframes(layout, source, split) if len(k.boxes)}
    if not layout.person_boxes("ground-truth", source, split).exists():
        return list(annotated.values())
    boxes = detections(layout, source, split, "ground-truth", -np.inf)
    keyframes = {k.moment: k for k in _without_actions(layout, source, boxes)} | annotated
    return sorted(keyframes.values(), key=lambda k: (k.video, k.timestamp))


def moments(layout: AvaLayout, source: str, split: str) -> list[tuple[str, float]]:
    """(video, second) of everything that a detector should see, in file order.

    These are the annotated moments and, whole seconds from them, all others of each video, without
    the excluded ones.
    """
    annotated: dict[str, list[float]] = {video: [] for video in layout.videos(source, split)}
    if layout.annotations(source, split).is_file():  # AVA's test split has none
        for keyframe in read_keyframes(layout, source, split):
            annotated.setdefault(keyframe.video, []).append(keyframe.timestamp)
    seconds, excluded = [], layout.excluded(source, split)
    for video, known in annotated.items():
        start = layout.video_start(source, video)
        end = start + probe(layout.video_file(source, video)).duration
        phase = known[0] % 1 if known else start % 1
        first = np.ceil(start - phase - 1e-6)
        others = [round(phase + second, 6) for second in np.arange(first, end - phase)]
        seconds += [(video, second) for second in sorted({*others, *known})]
    return [(video, t) for video, t in seconds if (video, f"{t:.6f}") not in excluded]


def _without_actions(
    layout: AvaLayout, source: str, boxes: dict[Moment, pd.DataFrame]
) -> list[Keyframe]:
    num_actions = layout.label_map().num_actions
    keyframes = []
    for (video, _), rows in boxes.items():
        corners, timestamp = rows[list(BOX)].to_numpy(np.float32), float(rows["timestamp"].iloc[0])
        actions, ids = np.zeros((len(rows), num_actions), bool), np.full(len(rows), -1, np.int64)
        keyframes.append(Keyframe(source, video, timestamp, corners, actions, ids))
    return keyframes

"""What one person's memory looks at: the attention of a trained head, second by second.

torch is imported only when a head is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stadlib.config import InputError, from_dict
from stadlib.labels import LASTING
from stadlib.progress import Progress
from stadlib.records import Record


@dataclass(frozen=True)
class Recollection:
    """A person on a keyframe, and how much it looks at whom and when.

    Attributes:
        title: says which keyframe it is.
        actions: ids of what the person does.
        seconds: (K,) of the pictures, relative to the keyframe, ascending; 0 is the keyframe.
        frames: K pictures, (H, W, 3) uint8.
        boxes: of each picture, (n, 4) in [0, 1].
        weights: of each picture, (n,), shares of the attention; all of them sum to 1.
        same: of each picture, (n,) whether a box is the person's own.
        present: place of the person among the boxes of the keyframe.
    """

    title: str
    actions: tuple[int, ...]
    seconds: np.ndarray
    frames: list[np.ndarray]
    boxes: list[np.ndarray]
    weights: list[np.ndarray]
    same: list[np.ndarray]
    present: int


def recollection(record: Record, skip: int = 0) -> Recollection:
    """Return what a run's head looks at in a validation movie.

    Which one does not depend on scores or attention: the middle keyframe of the first movie, after
    ``skip`` others, on which somebody of two or more does what lasts (``labels.LASTING``).

    Raises:
        InputError: the run is not on this machine, remembers nothing, or no movie is like that.
    """
    from stadlib import workspace  # noqa: PLC0415  (torch)
    from stadlib.data.video import read_frames  # noqa: PLC0415

    experiment = from_dict(record.experiment)
    if record.folder is None or not experiment.stages[-1].memory:
        raise InputError(f"record {record.digest}: give a run with memory that is on this machine")
    run = workspace.open_run(experiment, record.folder, Progress)
    layout = run.layout
    ids = np.array(layout.label_map().ids)
    keyframes = workspace.annotated(layout, ["ava"], "val")
    keyframe, person = _chosen(keyframes, ids, skip)
    memory, weights = _attention(run, keyframe, person)
    known = {round(k.timestamp): k for k in keyframes if k.video == keyframe.video}
    path = layout.video_file("ava", keyframe.video)
    start = layout.video_start("ava", keyframe.video)
    seconds = sorted({0, *memory.seconds_BM[0].tolist()})
    here = keyframe.boxes
    found = {"boxes": [], "weights": [], "same": []}
    for second in seconds:
        mine = memory.seconds_BM[0].numpy() == second
        boxes = memory.boxes_BM4[0].numpy()[mine] if second else here
        shares = weights[len(here) :][mine] if second else weights[: len(here)]
        found["boxes"].append(boxes)
        found["weights"].append(shares)
        there = known.get(round(keyframe.timestamp) + second)
        found["same"].append(_same(there, boxes, keyframe.person_ids[person]))
    times = [keyframe.timestamp - start + second for second in seconds]
    frames = [frame.permute(1, 2, 0).numpy() for frame in read_frames(path, times)]
    return Recollection(
        title=f"ava: {keyframe.video}, {keyframe.timestamp:g} s",
        actions=tuple(ids[keyframe.actions[person]].tolist()),
        seconds=np.array(seconds),
        frames=frames,
        present=person,
        **found,
    )


def _chosen(keyframes: list, ids: np.ndarray, skip: int) -> tuple:
    """A keyframe, and its first person that does what lasts."""
    videos: dict[str, list] = {}
    for keyframe in keyframes:
        videos.setdefault(keyframe.video, []).append(keyframe)
    for those in videos.values():
        middle = those[len(those) // 2]
        lasting = np.isin(ids, list(LASTING))
        able = np.flatnonzero((middle.actions & lasting).any(axis=1))
        if len(middle.boxes) > 1 and len(able):
            if not skip:
                return middle, int(able[0])
            skip -= 1
    raise InputError("no further validation movie with two persons and an action that lasts")


def _attention(run, keyframe, person: int) -> tuple:
    """What the keyframe remembers, and one person's mean attention over sequences and heads."""
    import torch  # noqa: PLC0415

    from stadlib import stages  # noqa: PLC0415
    from stadlib.features import feature_batch, second_key  # noqa: PLC0415
    from stadlib.memory import windows  # noqa: PLC0415
    from stadlib.remembered import nobody  # noqa: PLC0415

    experiment = run.experiment
    model = stages.trained_model(run)
    bank = run.banks(len(experiment.stages)).seconds(model, "ava", "val")
    keys = [(keyframe.source, keyframe.video, keyframe.timestamp)]
    empty = nobody(1, bank.width)
    past = windows({"ava": bank}, keys, experiment.span, experiment.remembered, empty)
    batch = feature_batch([keyframe], {"ava": bank}, past, second_key)
    with torch.inference_mode():
        attention = model.head.eval().attention_weights(
            batch.tokens_NLC, batch.boxes_N4, batch.counts_B, past
        )
    return past, attention[person].mean(dim=(0, 1)).numpy()


def _same(keyframe, boxes: np.ndarray, person_id: int) -> np.ndarray:
    """(n,) whether a box is that person's, by the annotations; unannotated seconds tell nothing."""
    if keyframe is None:
        return np.zeros(len(boxes), bool)
    own = keyframe.boxes[keyframe.person_ids == person_id]
    if not len(own):
        return np.zeros(len(boxes), bool)
    return np.abs(boxes - own[0]).max(axis=1) < 1e-4

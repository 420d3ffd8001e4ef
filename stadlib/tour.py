"""One clip's journey through a trained model, for notebook 00: pictures, boxes, every tensor.

torch is imported only when a journey is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stadlib.config import InputError, from_dict
from stadlib.labels import group
from stadlib.progress import Progress
from stadlib.records import Record

if TYPE_CHECKING:
    from stadlib.data.annotations import Keyframe
    from stadlib.remembered import Memory
    from stadlib.walk import Walk
    from stadlib.workspace import Run

PERSONS = 3  # on the keyframe: enough for relations, few enough to follow


@dataclass(frozen=True, eq=False)
class Journey:
    """A clip of T frames with N persons, and what the model made of them.

    Attributes:
        title: says which keyframe it is.
        times: (T,) seconds of the frames from the keyframe.
        frames: (T, H, W, 3) uint8, as the model sees them.
        boxes: (N, 4), x1 y1 x2 y2 as fractions of those frames.
        ids: action ids, the columns of ``actions`` and of the scores.
        actions: (N, A) bool, the annotated ones.
        walk: every step's tensor.
        memory: whom the clip remembers, M persons.
        recalled: a picture (H, W, 3) of every second that is remembered, relative to the keyframe.
    """

    title: str
    times: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    ids: tuple[int, ...]
    actions: np.ndarray
    walk: Walk
    memory: Memory
    recalled: dict[int, np.ndarray]

    @property
    def now(self) -> int:
        """Place of the keyframe among the frames."""
        return len(self.frames) // 2

    @property
    def attention(self) -> np.ndarray:
        """(N, N + M) how much a person looks at whom, mean over sequences and attention heads."""
        return self.walk.attention_NLES.mean(dim=(1, 2)).numpy()

    @property
    def related(self) -> int:
        """Place of the first person that acts on another."""
        return int(np.flatnonzero(_acts_on_others(self.actions, self.ids))[0])

    def truth(self, person: int) -> list[int]:
        """Ids of what a person does, by the annotations."""
        return [action for action, does in zip(self.ids, self.actions[person], strict=True) if does]


def journey(record: Record) -> Journey:
    """Take one validation clip through a run's model.

    Which one does not depend on scores: it is around the middle keyframe of the first movie on
    which three persons are and two or more of them act on others (AVA's person-person group).

    Raises:
        InputError: the run is not on this machine, has no relation head or remembers nothing, or no
            movie is like that.
    """
    from stadlib import build, stages, workspace  # noqa: PLC0415  (torch)
    from stadlib.data.annotations import read_keyframes  # noqa: PLC0415
    from stadlib.walk import walk  # noqa: PLC0415

    experiment = from_dict(record.experiment)
    if record.folder is None or not experiment.stages[-1].memory or experiment.head == "linear":
        raise InputError(f"record {record.digest}: give a run with memory that is on this machine")
    run = workspace.open_run(experiment, record.folder, Progress)
    ids = run.layout.label_map().ids
    keyframe = _chosen(read_keyframes(run.layout, "ava", "val"), ids)
    view = [build.plain_view(experiment)]
    ((batch,),) = build.test_batches(experiment, run.layout, [keyframe], view)
    model = stages.trained_model(run)
    memory = _memory(run, model, keyframe)
    return Journey(
        title=f"ava: {keyframe.video}, {keyframe.timestamp:g} s",
        times=np.array(build.sampling(experiment).times(0.0)),
        frames=batch.clips_BCTHW[0].permute(1, 2, 3, 0).numpy(),
        boxes=batch.boxes_N4.numpy() / np.tile(batch.clips_BCTHW.shape[:2:-1], 2),
        ids=ids,
        actions=keyframe.actions,
        walk=walk(model, batch, memory),
        memory=memory,
        recalled=_pictures(run, keyframe, sorted(set(memory.seconds_BM[0].tolist()))),
    )


def _chosen(keyframes: list[Keyframe], ids: tuple[int, ...]) -> Keyframe:
    """The middle keyframe of the first movie like that."""
    videos: dict[str, list[Keyframe]] = {}
    for keyframe in keyframes:
        videos.setdefault(keyframe.video, []).append(keyframe)
    for those in videos.values():
        middle = those[len(those) // 2]
        if len(middle.boxes) == PERSONS and _acts_on_others(middle.actions, ids).sum() > 1:
            return middle
    raise InputError(
        f"no validation movie whose middle keyframe shows {PERSONS} persons, two of whom act on "
        "others; add one"
    )


def _acts_on_others(actions: np.ndarray, ids: tuple[int, ...]) -> np.ndarray:
    """(N,) whether a person's actions are of AVA's person-person group."""
    return actions[:, [group(action) == "person" for action in ids]].any(axis=1)


def _memory(run: Run, model, keyframe: Keyframe) -> Memory:
    """Whom the keyframe remembers out of the bank of the validation split."""
    from stadlib.memory import windows  # noqa: PLC0415  (torch)
    from stadlib.remembered import nobody  # noqa: PLC0415

    experiment = run.experiment
    bank = run.banks(len(experiment.stages)).seconds(model, keyframe.source, "val")
    keys = [(keyframe.source, keyframe.video, keyframe.timestamp)]
    empty = nobody(1, bank.width)
    return windows({keyframe.source: bank}, keys, experiment.span, experiment.remembered, empty)


def _pictures(run: Run, keyframe: Keyframe, seconds: list[int]) -> dict[int, np.ndarray]:
    """A picture of some seconds relative to the keyframe."""
    from stadlib.data.video import read_frames  # noqa: PLC0415  (torch)

    layout = run.layout
    now = keyframe.timestamp - layout.video_start(keyframe.source, keyframe.video)
    path = layout.video_file(keyframe.source, keyframe.video)
    frames = read_frames(path, [now + second for second in seconds]) if seconds else []
    return {s: f.permute(1, 2, 0).numpy() for s, f in zip(seconds, frames, strict=True)}

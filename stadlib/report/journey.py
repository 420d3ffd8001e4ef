"""One clip's journey through a trained model: every tensor on the way.

Legend: B clips, N persons of the clip, M persons in memory, S = N + M, C channels, T time, H, W (of
a person's grid: h, w), L sequences, E attention heads, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stadlib.base import InputError
from stadlib.data.clips import Batch
from stadlib.data.keyframes import Keyframe
from stadlib.data.layout import LASTING, group
from stadlib.data.video import read_frames
from stadlib.models.action_detector import ActionDetector, ActionLoss
from stadlib.models.heads import MemoryTokens, RelationHead
from stadlib.models.roi_fusion import Places
from stadlib.recipes.experiment import from_dict
from stadlib.study import Record, open_run
from stadlib.training import build, stages


@dataclass(frozen=True, eq=False)
class Journey:
    """A clip of T frames with N persons, its memory, and what every step of a model makes of it."""

    title: str  # which keyframe it is
    times: np.ndarray  # (T,) seconds of the frames from the keyframe
    frames: np.ndarray  # (T, H, W, 3) uint8, as the model sees them
    boxes: np.ndarray  # (N, 4), x1 y1 x2 y2 as fractions of those frames
    boxes_N4: Tensor  # the same as fractions of the video's frame, as the head takes them
    places: Places  # of the N persons
    ids: tuple[int, ...]  # of the actions
    actions: np.ndarray  # (N, A) bool, the annotated ones
    person: int  # of the N, whose attention is followed
    memory: MemoryTokens  # M persons
    same_S: np.ndarray  # bool, whether it is that person, by the annotations
    pictures: dict[int, np.ndarray]  # by second from the keyframe: of 0 and of all in memory
    head: RelationHead  # of the model
    loss: ActionLoss  # turns its logits into scores
    map_BCTHW: Tensor  # the backbone's features
    persons_NCThw: Tensor  # a person's half of the fusion, which RoIAlign cuts out
    scene_BCThw: Tensor  # the scene's half, averaged down to a person's grid
    fused_NCThw: Tensor  # both in one
    attention_NLES: Tensor  # of the head; rows sum to 1
    logits_NA: Tensor

    @property
    def now(self) -> int:
        """Place of the keyframe among the frames."""
        return len(self.frames) // 2

    @property
    def moment(self) -> int:
        """The step in time of the features that the keyframe belongs to."""
        return self.now * self.map_BCTHW.shape[2] // len(self.frames)

    @property
    def attention(self) -> np.ndarray:
        """(N, N + M) how much a person attends to whom, mean over sequences and heads."""
        return self.attention_NLES.mean(dim=(1, 2)).numpy()

    def truth(self, person: int) -> list[int]:
        """Ids of what a person does, by the annotations."""
        return np.array(self.ids)[self.actions[person]].tolist()


@torch.no_grad()
def walk(model: ActionDetector, batch: Batch, memory: MemoryTokens) -> dict[str, Tensor]:
    """Run a model with a relation head once, and keep what its parts return (:class:`Journey`)."""
    kept: dict[str, Tensor] = {}
    parts = {"map_BCTHW": model.backbone, "persons_NCThw": model.roi}
    parts |= {"scene_BCThw": model.fusion.scene, "fused_NCThw": model.fusion}
    hooks = [
        part.register_forward_hook(lambda *call, name=name: kept.update({name: call[-1]}))
        for name, part in parts.items()
    ]
    hooks += [
        model.head.attention.register_forward_hook(
            lambda attention, inputs, _: kept.update(attention_NLES=attention.weights(*inputs))
        )
    ]
    kept["logits_NA"], _ = model.eval()(*stages.model_inputs(batch), memory)
    for hook in hooks:
        hook.remove()
    return kept


def open_journey(record: Record, shows: str = "relation") -> Journey:
    """Take one validation clip through a run's model, on the CPU.

    Scores do not choose it. It is the middle keyframe of the first movie with three persons, two or
    more of whom act on others. With ``shows="lasting"`` it has two persons or more, one of whom
    does what lasts (``labels.LASTING``). An InputError says that the run has no memory or is not
    here, or that no movie fits.
    """
    experiment = from_dict(record.experiment)
    if record.folder is None or not experiment.stages[-1].memory or experiment.head == "linear":
        raise InputError(f"record {record.digest}: give a run with memory that is on this machine")
    run = open_run(record)
    layout, ids = run.layout, run.layout.label_map().ids
    keyframes = stages.annotated(layout, ["ava"], "val")
    keyframe, person = _first(keyframes, ids, shows)
    # The clip in one plain view, and memory out of the bank of the validation split.
    view = [build.plain_view(experiment)]
    ((batch,),) = build.test_batches(experiment, layout, [keyframe], view)
    model = stages.trained_model(run)
    bank = run.banks(len(experiment.stages)).seconds(model, "ava", "val")
    remember = stages.remember_from(run, {"ava": bank})
    memory = remember([("ava", keyframe.video, keyframe.timestamp)]).to("cpu")
    seconds_M, boxes_M4 = memory.seconds_BM[0].tolist(), memory.boxes_BM4[0].numpy()
    # A picture of every second that is in memory.
    seconds = sorted({0, *seconds_M})
    now = keyframe.timestamp - layout.video_start("ava", keyframe.video)
    pictures = read_frames(layout.video_file("ava", keyframe.video), [now + s for s in seconds])
    # Who in memory is the followed person. A second without annotations tells nothing.
    others = {k.timestamp - keyframe.timestamp: k for k in keyframes if k.video == keyframe.video}
    same = [number == person for number in range(len(keyframe.boxes))]
    for second, box in zip(seconds_M, boxes_M4, strict=True):
        other = others.get(second)
        known = other.boxes[other.person_ids == keyframe.person_ids[person]] if other else []
        same.append(len(known) > 0 and np.abs(known[0] - box).max() < 1e-4)
    return Journey(
        title=f"ava: {keyframe.video}, {keyframe.timestamp:g} s",
        times=np.array(build.sampling(experiment).times(0.0)),
        frames=batch.clips_BCTHW[0].permute(1, 2, 3, 0).numpy(),
        boxes=batch.boxes_N4.numpy() / np.tile(batch.clips_BCTHW.shape[:2:-1], 2),
        boxes_N4=batch.boxes_norm_N4,
        places=Places.of(batch.counts_B),
        ids=ids,
        actions=keyframe.actions,
        person=person,
        memory=memory,
        same_S=np.array(same),
        pictures={s: f.permute(1, 2, 0).numpy() for s, f in zip(seconds, pictures, strict=True)},
        head=model.head.requires_grad_(False),
        loss=run.loss,
        **walk(model.cpu(), batch, memory),
    )


def _first(keyframes: Sequence[Keyframe], ids: Sequence[int], shows: str) -> tuple[Keyframe, int]:
    """The middle keyframe of the first movie that fits, and its first person that does."""
    relation = shows == "relation"
    wanted = [group(action) == "person" if relation else action in LASTING for action in ids]
    movies: dict[str, list[Keyframe]] = {}
    for keyframe in keyframes:
        movies.setdefault(keyframe.video, []).append(keyframe)
    for movie in movies.values():
        middle = movie[len(movie) // 2]
        persons, able = len(middle.boxes), np.flatnonzero(middle.actions[:, wanted].any(axis=1))
        if (persons == 3 and len(able) > 1) if relation else (persons > 1 and len(able)):
            return middle, int(able[0])
    raise InputError(f"no validation movie has a middle keyframe for {shows!r}; add one")

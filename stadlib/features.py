"""Features computed once: every second into a bank, views of a test clip, and what trains on them.

Legend: N persons of the batch, L sequences, C channels, A actions, B clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stadlib import processes
from stadlib.data.annotations import Keyframe
from stadlib.data.clips import Batch
from stadlib.data.sampling import GlobalBatches, Share
from stadlib.memory import FeatureBank, Key, second_of
from stadlib.models.action_detector import ActionDetector
from stadlib.progress import Report
from stadlib.remembered import Memory

# What the clips of a batch remember, by their keys (source, video, timestamp).
Remember = Callable[[Sequence[tuple[str, str, float]]], Memory]


def second_key(keyframe: Keyframe) -> Key:
    """Where a bank of memory keeps a keyframe: (video, second)."""
    return keyframe.video, second_of(keyframe.timestamp)


def view_key(keyframe: Keyframe) -> Key:
    """Where a bank of test views keeps it: two keyframes of one second are two."""
    return keyframe.key, 0


def one_a_second(keyframes: Sequence[Keyframe]) -> list[Keyframe]:
    """The first keyframe of every (video, second); AVA-Kinetics has a second with two."""
    first: dict[Key, Keyframe] = {}
    for keyframe in keyframes:
        first.setdefault(second_key(keyframe), keyframe)
    return list(first.values())


def open_bank(
    folder: Path, provenance: Mapping, size: tuple[int, int], rows: Sequence[tuple[str, int, int]]
) -> FeatureBank:
    """The bank at ``folder`` with room for ``rows``, made by the first process, open in all.

    Args:
        folder: where it lies or shall lie.
        provenance: see :class:`FeatureBank`.
        size: L and C of the tokens.
        rows: (video, second, number of persons).
    """
    if processes.rank() == 0:
        bank = FeatureBank.create(folder, provenance, length=size[0], width=size[1])
        bank.add(rows)
        if bank.lost:
            print(f"{folder.name}: {bank.lost} persons were in hand when a process ended; again")
    processes.barrier()
    bank = FeatureBank(folder, provenance, writable=True)
    processes.barrier()  # nobody writes while another still looks for slots left in hand
    return bank


@torch.inference_mode()
def extract(
    model: ActionDetector,
    batches: Iterable[Sequence[Batch]],
    banks: Sequence[FeatureBank],
    key: Callable[[tuple[str, str, float]], Key],
    *,
    total: int,
    progress: Report,
) -> None:
    """Write the tokens of every clip's persons, each view into its bank.

    Args:
        model: set to evaluation mode here.
        batches: each a sequence of views of the same clips, one a bank.
        banks: with room for the clips; interrupted, they know what they hold.
        key: of a clip's (source, video, timestamp).
        total: number of clips of this process, for the progress.
        progress: called with (clips done, total, text).
    """
    model.eval()
    where = next(model.parameters()).device
    done = 0
    for views in batches:
        for view, bank in zip(views, banks, strict=True):
            moved = view.to(where)
            tokens_NLC = model.tokens(moved.clips_BCTHW, moved.boxes_N4, moved.counts_B)
            keys = [key(clip) for clip in view.keys]
            bank.write(keys, view.counts_B, tokens_NLC, view.boxes_norm_N4)
        done += len(views[0].keys)
        progress(done, total, "clips")
    for bank in banks:
        bank.flush()
    processes.barrier()


@dataclass(frozen=True)
class FeatureBatch:
    """Persons whose tokens are known; the fields are those that a head takes, and the labels."""

    tokens_NLC: Tensor
    boxes_N4: Tensor
    counts_B: Tensor
    memory: Memory
    actions_NA: Tensor

    def to(self, device: torch.device | str) -> FeatureBatch:
        """The same batch with its tensors on ``device``."""
        return FeatureBatch(*(getattr(self, name).to(device) for name in self.__annotations__))


def feature_batch(
    keyframes: Sequence[Keyframe], banks: Mapping[str, FeatureBank], memory: Memory,
    key: Callable[[Keyframe], Key] = second_key,
) -> FeatureBatch:  # fmt: skip
    """Tokens of some keyframes, of several sources, beside what they remember."""
    tokens: list[Tensor] = [torch.empty(0)] * len(keyframes)
    for source, bank in banks.items():
        own = [place for place, keyframe in enumerate(keyframes) if keyframe.source == source]
        if own:
            found, counts = bank.read([key(keyframes[place]) for place in own])
            for place, part in zip(own, found.split(counts.tolist()), strict=True):
                tokens[place] = part
    return FeatureBatch(
        tokens_NLC=torch.cat(tokens),
        boxes_N4=torch.from_numpy(np.concatenate([k.boxes for k in keyframes])),
        counts_B=torch.tensor([len(k.boxes) for k in keyframes]),
        memory=memory,
        actions_NA=torch.from_numpy(np.concatenate([k.actions for k in keyframes])).float(),
    )


def feature_batches(
    keyframes: Sequence[Keyframe],
    order: GlobalBatches,
    banks: Mapping[str, FeatureBank],
    remember: Remember,
) -> Iterator[tuple[FeatureBatch, Share]]:
    """The batches of a stage that trains on features, this process's shares of each."""
    shares = order.shares([len(keyframe.boxes) for keyframe in keyframes])
    for batch, share in zip(order, shares, strict=True):
        those = [keyframes[index] for index, _ in batch]
        memory = remember([(k.source, k.video, k.timestamp) for k in those])
        yield feature_batch(those, banks, memory), share

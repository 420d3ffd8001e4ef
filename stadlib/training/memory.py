"""The memory banks of a run: kept while the network trains, or extracted after it (section 2.3).

The *online* memory holds the tokens of persons as the model last computed them; every checkpoint
has its copy. The *offline* memory holds what one trained backbone sees, once for all its heads.

Legend: N persons of the batch, L sequences, C channels, A actions, B clips.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stadlib.base import InputError, MakeProgress, digest
from stadlib.data.batches import GlobalBatches
from stadlib.data.clips import Batch
from stadlib.data.keyframes import Keyframe, detected_seconds, every_second
from stadlib.data.layout import AvaLayout
from stadlib.models.action_detector import ActionDetector, OnMaps
from stadlib.models.roi_fusion import to_device, with_clips
from stadlib.recipes.experiment import Experiment
from stadlib.training import build, processes
from stadlib.training.bank import FeatureBank, Key, second_of

FEATURE_BATCH = 64  # keyframes at a time where their features are known
ClipKey = tuple[str, str, float]  # source, video, timestamp


def clip_key(keyframe: Keyframe) -> ClipKey:
    """The name of a keyframe's clip in a batch."""
    return keyframe.source, keyframe.video, keyframe.timestamp


def second_key(keyframe: Keyframe) -> Key:
    """The key of a keyframe in a bank of memory: (video, second)."""
    return keyframe.video, second_of(keyframe.timestamp)


def view_key(keyframe: Keyframe) -> Key:
    """Its key in a bank of test views, where two keyframes of one second are two."""
    return keyframe.key, 0


def one_a_second(keyframes: Sequence[Keyframe]) -> dict[Key, Keyframe]:
    """The first keyframe of every (video, second); AVA-Kinetics has a second with two."""
    first: dict[Key, Keyframe] = {}
    for keyframe in keyframes:
        first.setdefault(second_key(keyframe), keyframe)
    return first


def by_source(keyframes: Sequence[Keyframe]) -> dict[str, list[Keyframe]]:
    """The keyframes of each source."""
    apart: dict[str, list[Keyframe]] = {}
    for keyframe in keyframes:
        apart.setdefault(keyframe.source, []).append(keyframe)
    return apart


def weights_digest(*modules: nn.Module) -> str:
    """Sixteen hex digits of all parameters and buffers."""
    sha = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def _of_node(folder: Path) -> Path:
    """The folder as this machine has it; the first one has it as it is."""
    return folder.with_name(f"{folder.name}@{processes.node()}") if processes.node() else folder


def _open_bank(
    folder: Path,
    made_of: Mapping,
    size: tuple[int, int],
    keyframes: Mapping[Key, Keyframe],
    *,
    own: bool,
    scenes: int = 0,
) -> FeatureBank:
    """A bank with room for the keyframes' persons, made if need be, open in all processes.

    Every machine writes into its ``own``: some shared file systems do not show another one what is
    written into a mapped file. The one for all takes what these have, and they are deleted.
    ``scenes`` is how many slots a keyframe has before its persons'.
    """
    if processes.first_of_node() if own else processes.rank() == 0:
        seconds = [(*key, scenes + len(keyframe.boxes)) for key, keyframe in keyframes.items()]
        words = {"length": size[0], "width": size[1]}
        bank = FeatureBank.create(_of_node(folder), made_of, seconds, **words)
        for part in [] if own else sorted(folder.parent.glob(f"{folder.name}@*")):
            bank.take(FeatureBank(part, made_of))
            shutil.rmtree(part)
    processes.barrier()
    return FeatureBank(_of_node(folder) if own else folder, made_of, writable=True)


class OnlineMemory:
    """One bank a source that fills while the model trains; ``folder`` has them and their copies.

    It has room for the training keyframes, of two in one second for the first. ``size`` is L and C.
    """

    def __init__(
        self, folder: Path, made_of: Mapping, size: tuple[int, int], keyframes: Mapping[str, list]
    ) -> None:
        self.folder, self.made_of, self.size = folder, made_of, size
        self.keyframes = {source: one_a_second(those) for source, those in keyframes.items()}
        self.kept = {clip_key(k) for those in self.keyframes.values() for k in those.values()}
        self.banks: dict[str, FeatureBank] = {}
        self.seen: list[tuple] = []  # in this iteration, by this process

    def restore(self, iteration: int) -> None:
        """Load the copy of an iteration; at 0 the memory is empty."""
        self.banks.clear()
        self.seen.clear()
        for source, keyframes in self.keyframes.items():
            live = _of_node(self.folder / source)
            if processes.first_of_node():
                shutil.rmtree(live, ignore_errors=True)
                if iteration:
                    copy = self.folder / f"{source}-{iteration:08d}"
                    FeatureBank(copy, self.made_of).copy(live)
            of = self.made_of, self.size, keyframes
            self.banks[source] = _open_bank(self.folder / source, *of, own=True)

    def keep(self, iteration: int) -> None:
        """Store a copy, before the checkpoint of that iteration is written.

        The copy before it stays, since the older checkpoint is good until the newer one is whole.
        """
        self.settle()
        if processes.rank() == 0:
            for source, bank in self.banks.items():
                copy = self.folder / f"{source}-{iteration:08d}"
                older = sorted(path for path in self.folder.glob(f"{source}-*") if path < copy)
                for stale in older[:-1]:
                    shutil.rmtree(stale)
                bank.copy(copy)
        processes.barrier()

    def update(
        self, keys: Sequence[ClipKey], counts_B: Tensor, tokens_NLC: Tensor, boxes_N4: Tensor
    ) -> None:
        """Note the tokens of a share's clips, for :meth:`settle`."""
        if self.banks:
            counts = counts_B.tolist()
            tokens, boxes = (x.detach().cpu().split(counts) for x in (tokens_NLC, boxes_N4))
            self.seen.append(tuple(zip(keys, counts_B, tokens, boxes, strict=True)))

    def settle(self) -> None:
        """Write the notes of all processes; the next iteration reads them."""
        if not self.banks:
            return
        shares = processes.gather(list(enumerate(self.seen)))
        self.seen.clear()
        shares = [clips for _, clips in sorted(shares, key=lambda share: share[0])]
        # Clip c of share s is number c * S + s of the global batch; of two the later one counts.
        for clip in chain.from_iterable(zip_longest(*shares)):
            if processes.first_of_node() and clip and clip[0] in self.kept:
                (source, video, timestamp), count, tokens_LC, boxes_4 = clip
                key = (video, second_of(timestamp))
                self.banks[source].write([key], count[None], tokens_LC, boxes_4)
        processes.barrier()


@dataclass(frozen=True)
class OfflineMemory:
    """The features of a trained backbone, extracted at first use; ``folder`` is of its stage.

    They are the head's tokens. Of a backbone that stays as it was pretrained they are its ``maps``
    (:meth:`.ActionDetector.maps`), once for all fusions and heads; ``source`` has the maps from
    which tokens are computed, instead of from clips.
    """

    layout: AvaLayout
    experiment: Experiment
    folder: Path
    progress: MakeProgress
    threshold: float  # least score of a detected box
    workers: int = 0  # that decode; 0: by scale and cores
    maps: bool = False
    source: OfflineMemory | None = None

    def seconds(self, model: ActionDetector, source: str, split: str) -> FeatureBank:
        """The memory of a split: all its seconds in which persons are known, annotated or not."""
        experiment, of = self.experiment, (self.layout, source, split)
        if experiment.detected:
            keyframes = detected_seconds(*of, experiment.boxes_name, self.threshold)
        else:
            keyframes = every_second(*of)
        view = {f"{source}_{split}": build.memory_view(experiment)}
        return self._extracted(model, view, one_a_second(keyframes), experiment.detected)[0]

    def trained_on(
        self, model: ActionDetector, keyframes: Sequence[Keyframe], views: int
    ) -> list[dict[str, FeatureBank]]:
        """The annotated training keyframes, for a head that is trained on features.

        A bank by source for each of the ``views`` (``Stage.views``), the plain one first.
        """
        experiment, banks = self.experiment, {}
        mixed = experiment.detected and experiment.detections.training != "ground-truth"
        named = build.augmented_views(experiment, views - 1)
        if self.maps:  # whose folder is of all seeds
            named = {f"{name}-seed{experiment.seed}": view for name, view in named.items()}
        # A row that remembers annotated persons has extracted all seconds, these among them.
        if alone := experiment.detected or not experiment.memory:
            named = {"annotated": build.plain_view(experiment)} | named
        for source, of_source in by_source(keyframes).items():
            banks[source] = [] if alone else [self.seconds(model, source, "train")]
            if named:
                shown = {f"{source}_{name}": view for name, view in named.items()}
                banks[source] += self._extracted(model, shown, one_a_second(of_source), mixed)
        return [dict(zip(banks, view, strict=True)) for view in zip(*banks.values(), strict=True)]

    def views(
        self, model: ActionDetector, keyframes: Sequence[Keyframe], split: str
    ) -> list[dict[str, FeatureBank]]:
        """The annotated keyframes as each test view shows them, a bank by source."""
        views, banks = build.views(self.experiment), {}
        for source, of_source in by_source(keyframes).items():
            shown = {f"{source}_{split}_{name}": view for name, view in views.items()}
            keys = {view_key(keyframe): keyframe for keyframe in of_source}
            banks[source] = self._extracted(model, shown, keys, self.experiment.detected)
        return [dict(zip(banks, view, strict=True)) for view in zip(*banks.values(), strict=True)]

    @torch.inference_mode()
    def _extracted(
        self, model: ActionDetector, views: dict, keyframes: dict[Key, Keyframe], detected: bool
    ) -> list[FeatureBank]:
        """A bank a view, by its name; a killed extraction resumes."""
        experiment, given = self.experiment, views
        if detected:  # there may be several sets of boxes, each with banks of its own
            boxes = f"{experiment.boxes_name}-{digest(asdict(experiment.detections))}"
            views = {f"{name}_{boxes}": view for name, view in views.items()}
        made_of = {
            "backbone": weights_digest(model.backbone, *[model.fusion] * (not self.maps)),
            "head": "maps" if self.maps else f"{experiment.head}, {experiment.aggregate}",
            "detector": experiment.boxes_name if detected else "ground-truth",
        }
        size = build.token_size(experiment, model, self.maps)
        of = {"made_of": made_of, "size": size, "keyframes": keyframes, "scenes": int(self.maps)}
        opened = partial(_open_bank, **of)
        folders = [self.folder / "banks" / name for name in views]
        banks = [opened(folder, own=False) for folder in folders]
        held = np.all([bank.has(list(keyframes)) for bank in banks], axis=0)
        missing = np.flatnonzero(~held).tolist()
        processes.barrier()  # all processes share one list
        if not missing:
            return banks
        own = [opened(folder, own=True) for folder in folders]
        model.eval()
        device = next(model.parameters()).device
        keys = {clip_key(keyframe): key for key, keyframe in keyframes.items()}
        every = list(keyframes.values())
        if self.source:
            known = self.source._extracted(model, given, keyframes, detected)
            share = missing[processes.rank() :: processes.num_processes()]
            of_bank = [{every[0].source: bank} for bank in known]
            seen = [every[place] for place in share]
            batches = feature_views(seen, of_bank, lambda k: keys[clip_key(k)])
            total = len(seen)
        else:
            of = experiment, self.layout, every, list(views.values()), missing
            batches = build.test_batches(*of, workers=self.workers)
            total = sum(map(len, batches.batch_sampler))
        done, more = 0, f" and {len(views) - 1} more views" if len(views) > 1 else ""
        progress = self.progress(f"extract {next(iter(views))}{more}")
        for of_views in batches:
            for batch, bank in zip(of_views, own, strict=True):
                clips = [keys[clip] for clip in batch.keys]
                bank.write(clips, *self._read(model, batch.to(device)))
            done += len(of_views[0].keys)
            progress(done, total, "clips")
        for bank in own:
            bank.flush()
        processes.barrier()
        banks = [opened(folder, own=False) for folder in folders]
        if not np.all([bank.has(list(keyframes)) for bank in banks]):
            raise InputError(
                f"{folders[0]}: not all that was written is there; the processes do not share this "
                "folder, so run them on one machine, or set STADLIB_RESULTS to a folder they share"
            )
        return banks

    def _read(self, model: ActionDetector, batch: Batch | FeatureBatch) -> tuple[Tensor, ...]:
        """What a bank holds of a batch: numbers of slots (B,), features and boxes of the slots."""
        counts_B, boxes_N4 = batch.counts_B, batch.boxes_norm_N4
        if self.source:
            return counts_B, OnMaps(model).tokens(batch.tokens_NLC, counts_B), boxes_N4
        clip = batch.clips_BCTHW, batch.boxes_N4, counts_B, batch.sizes
        if not self.maps:
            return counts_B, model.tokens(*clip), boxes_N4
        frames_B4 = boxes_N4.new_tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(counts_B), 4)
        return counts_B + 1, model.maps(*clip), with_clips(frames_B4, boxes_N4, counts_B)


class FeatureBatch(NamedTuple):
    """Persons' tokens, or maps of scenes and persons; the fields are named as those of clips."""

    tokens_NLC: Tensor
    boxes_norm_N4: Tensor
    counts_B: Tensor
    actions_NA: Tensor
    keys: list[ClipKey]

    def to(self, device: torch.device | str) -> FeatureBatch:
        """The same batch with its tensors on ``device``; ``counts_B`` stay, the host reads them."""
        names = ("tokens_NLC", "boxes_norm_N4", "actions_NA")
        return self._replace(**{name: to_device(getattr(self, name), device) for name in names})


def feature_batch(
    keyframes: Sequence[Keyframe],
    banks: Sequence[Mapping[str, FeatureBank]],
    key: Callable = second_key,
) -> FeatureBatch:
    """The tokens of keyframes, from each one's banks by source, where ``key`` names them."""
    tokens: list[Tensor] = [torch.empty(0)] * len(keyframes)
    of_bank = defaultdict(list)
    for clip, (keyframe, own) in enumerate(zip(keyframes, banks, strict=True)):
        of_bank[own[keyframe.source]].append(clip)
    for bank, clips in of_bank.items():
        read, counts = bank.read([key(keyframes[clip]) for clip in clips])
        for clip, part in zip(clips, read.split(counts.tolist()), strict=True):
            tokens[clip] = part
    return FeatureBatch(
        tokens_NLC=torch.cat(tokens),
        boxes_norm_N4=torch.from_numpy(np.concatenate([k.boxes for k in keyframes])),
        counts_B=torch.tensor([len(k.boxes) for k in keyframes]),
        actions_NA=torch.from_numpy(np.concatenate([k.actions for k in keyframes])).float(),
        keys=[clip_key(k) for k in keyframes],
    )


def feature_batches(
    keyframes: Sequence[Keyframe], order: GlobalBatches, views: Sequence[Mapping[str, FeatureBank]]
) -> Iterator[FeatureBatch]:
    """This process's shares of the batches of a stage that trains on features of some views."""
    for batch in order:
        drawn = [views[seed % len(views)] for _, seed in batch]
        yield feature_batch([keyframes[index] for index, _ in batch], drawn)


def feature_views(
    keyframes: Sequence[Keyframe],
    views: Sequence[Mapping[str, FeatureBank]],
    key: Callable = view_key,
) -> Iterator[list[FeatureBatch]]:
    """Batches from the banks of each view, which keep keyframes by ``key``."""
    for start in range(0, len(keyframes), FEATURE_BATCH):
        some = keyframes[start : start + FEATURE_BATCH]
        yield [feature_batch(some, [banks] * len(some), key) for banks in views]

"""Features computed once: every second into a bank, views of a test clip, and what trains on them.

Legend: N persons of the batch, L sequences, C channels, A actions, B clips.

The online bank: what persons looked like when the model last saw them, kept as it trains.

Paper section 2.3. Its content belongs to an iteration of the training, so a copy is put aside with
every checkpoint: a run that was killed goes on from the memory it had then, bit for bit.

The banks of a trained backbone: every second of a dataset, and the views of its test clips.

Both are extracted once and shared by all heads that are trained on that backbone. Interrupted, an
extraction goes on where it was: a bank knows what it holds. Several processes share the work.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from stadlib.base import MakeProgress, Report, digest
from stadlib.data.batches import GlobalBatches, Share
from stadlib.data.clips import Batch
from stadlib.data.keyframes import Keyframe, detected_seconds, every_second
from stadlib.data.layout import AvaLayout
from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import MemoryTokens
from stadlib.recipes.experiment import Experiment
from stadlib.training import build, processes
from stadlib.training.bank import FeatureBank, Key, second_of

# What the clips of a batch remember, by their keys (source, video, timestamp).
Remember = Callable[[Sequence[tuple[str, str, float]]], MemoryTokens]


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
    memory: MemoryTokens
    actions_NA: Tensor

    def to(self, device: torch.device | str) -> FeatureBatch:
        """The same batch with its tensors on ``device``."""
        return FeatureBatch(*(getattr(self, name).to(device) for name in self.__annotations__))


def feature_batch(
    keyframes: Sequence[Keyframe], banks: Mapping[str, FeatureBank], memory: MemoryTokens,
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


class OnlineBanks:
    """One growing bank a source.

    Args:
        folder: for the banks and their copies.
        provenance: see :class:`FeatureBank`.
        size: L and C of the tokens.
        keyframes: by source, those that training will show; there is room for them alone, and
            of two in one second for the first.
    """

    def __init__(
        self,
        folder: Path,
        provenance: Mapping,
        size: tuple[int, int],
        keyframes: Mapping[str, Sequence[Keyframe]],
    ) -> None:
        self.folder, self.provenance, self.size = folder, provenance, size
        first = {source: one_a_second(those) for source, those in keyframes.items()}
        self.rows = {
            source: [(*second_key(keyframe), len(keyframe.boxes)) for keyframe in those]
            for source, those in first.items()
        }
        self.kept = {(k.source, k.video, k.timestamp) for those in first.values() for k in those}
        self.banks: dict[str, FeatureBank] = {}
        self.seen: list[tuple] = []  # in this iteration, by this process

    def restore(self, iteration: int) -> None:
        """Go back to the copy of an iteration; 0 is before the first, when nobody is remembered."""
        self.banks.clear()
        self.seen.clear()
        for source, rows in self.rows.items():
            live, copy = self.folder / source, self._copy(source, iteration)
            if processes.rank() == 0:
                shutil.rmtree(live, ignore_errors=True)
                if iteration:
                    FeatureBank(copy, self.provenance).copy(live)
            self.banks[source] = open_bank(live, self.provenance, self.size, rows)

    def keep(self, iteration: int) -> None:
        """Put a copy aside, before the checkpoint of that iteration is written.

        The copy before it stays, since the older checkpoint is good until the newer one is whole.
        """
        self.settle()
        if processes.rank() == 0:
            for source, bank in self.banks.items():
                copies = self.folder.glob(f"{source}-*")
                for stale in sorted(copies, key=_iteration_of)[:-1]:
                    shutil.rmtree(stale)
                bank.copy(self._copy(source, iteration))
        processes.barrier()

    def update(
        self, keys: Sequence[tuple[str, str, float]], counts_B: Tensor, tokens_NLC: Tensor,
        boxes_N4: Tensor,
    ) -> None:  # fmt: skip
        """Note what was seen of a share's clips, for :meth:`settle`.

        Args:
            keys: (source, video, timestamp) a clip; those without room are passed over.
            counts_B: persons a clip.
            tokens_NLC: their tokens, those of clip 0 first.
            boxes_N4: as fractions of the frame.
        """
        if not self.banks:
            return
        counts = counts_B.tolist()
        tokens, boxes = (x.detach().cpu().split(counts) for x in (tokens_NLC, boxes_N4))
        self.seen.append(tuple(zip(keys, counts_B.cpu(), tokens, boxes, strict=True)))

    def settle(self) -> None:
        """Replace what is known of the clips of an iteration, those of all processes."""
        if not self.banks:
            return
        places = processes.gather([(place, own) for place, own in enumerate(self.seen)])
        self.seen.clear()
        shares = [share for _, share in sorted(places, key=lambda pair: pair[0])]
        # Clip c of share s is number c * S + s of the global batch; of two the later one counts.
        for clips in zip_longest(*shares):
            for clip in clips:
                if processes.rank() == 0 and clip and clip[0] in self.kept:
                    (source, video, timestamp), count, tokens_NLC, boxes_N4 = clip
                    key = (video, second_of(timestamp))
                    self.banks[source].write([key], count[None], tokens_NLC, boxes_N4)
        processes.barrier()

    def _copy(self, source: str, iteration: int) -> Path:
        return self.folder / f"{source}-{iteration:08d}"


def _iteration_of(copy: Path) -> int:
    return int(copy.name.rsplit("-", 1)[1])


class Banks:
    """Extracts a backbone's features, or opens what was extracted before.

    Args:
        layout: the dataset.
        experiment: how its clips are sampled and its boxes found.
        folder: of the stage that trained the backbone.
        progress: makes the progress of a named task.
    """

    def __init__(
        self, layout: AvaLayout, experiment: Experiment, folder: Path, progress: MakeProgress
    ) -> None:
        self.layout, self.experiment = layout, experiment
        self.folder, self.progress = folder / "banks", progress

    def seconds(self, model: ActionDetector, source: str, split: str) -> FeatureBank:
        """The memory of a split: all its seconds in which persons are known, annotated or not."""
        experiment = self.experiment
        if experiment.detected:
            found = detected_seconds(
                self.layout, source, split, experiment.boxes_name, experiment.detections.threshold
            )
        else:
            found = every_second(self.layout, source, split)
        names = {f"{source}_{split}": build.memory_view(experiment)}
        return self._filled(model, names, one_a_second(found), second_key, experiment.detected)[0]

    def trained_on(
        self, model: ActionDetector, source: str, keyframes: Sequence[Keyframe]
    ) -> FeatureBank:
        """Annotated training keyframes of a source, for a head that is trained on features.

        With ground-truth boxes their persons are among those of :meth:`seconds`.
        """
        if not self.experiment.detected:
            return self.seconds(model, source, "train")
        own = [keyframe for keyframe in keyframes if keyframe.source == source]
        mixed = self.experiment.detections.training != "ground-truth"
        names = {f"{source}_annotated": build.plain_view(self.experiment)}
        return self._filled(model, names, own, second_key, detected=mixed)[0]

    def views(
        self, model: ActionDetector, keyframes: Sequence[Keyframe], split: str
    ) -> list[dict[str, FeatureBank]]:
        """The annotated keyframes as each test view shows them, a bank by source."""
        transforms = build.views(self.experiment)
        found: list[dict[str, FeatureBank]] = [{} for _ in transforms]
        for source in dict.fromkeys(keyframe.source for keyframe in keyframes):
            own = [keyframe for keyframe in keyframes if keyframe.source == source]
            names = {f"{source}_{split}_{name}": view for name, view in transforms.items()}
            banks = self._filled(model, names, own, view_key, self.experiment.detected)
            for by_source, bank in zip(found, banks, strict=True):
                by_source[source] = bank
        return found

    def _filled(
        self,
        model: ActionDetector,
        views: Mapping[str, v2.Transform],
        keyframes: Sequence[Keyframe],
        key: Callable[[Keyframe], Key],
        detected: bool,
    ) -> list[FeatureBank]:
        """A bank a view, by its name, that holds all persons of the keyframes.

        Of detected persons there may be several sets of one backbone, each with banks of its own.
        """
        if detected:
            words = f"{self.experiment.boxes_name}-{digest(asdict(self.experiment.detections))}"
            views = {f"{name}_{words}": view for name, view in views.items()}
        keys = [key(keyframe) for keyframe in keyframes]
        rows = [(*k, len(keyframe.boxes)) for k, keyframe in zip(keys, keyframes, strict=True)]
        detector = self.experiment.boxes_name if detected else "ground-truth"
        banks = [self._open(model, name, rows, detector) for name in views]
        held = np.all([bank.has(keys) for bank in banks], axis=0)
        missing = [keyframe for keyframe, has in zip(keyframes, held, strict=True) if not has]
        if missing:
            keys_of = {(k.source, k.video, k.timestamp): key(k) for k in missing}
            transforms = list(views.values())
            batches = build.test_batches(self.experiment, self.layout, missing, transforms)
            extract(
                model,
                batches,
                banks,
                keys_of.__getitem__,
                total=sum(map(len, batches.batch_sampler)),
                progress=self.progress(f"extract {_words(list(views))}"),
            )
        return banks

    def _open(
        self, model: ActionDetector, name: str, rows: Sequence[tuple[str, int, int]], detector: str
    ) -> FeatureBank:
        provenance = {
            "backbone": weights_digest(model.backbone, model.fusion),
            "head": f"{self.experiment.head}, {self.experiment.aggregate}",
            "detector": detector,
        }
        size = build.token_size(self.experiment, model)
        return open_bank(self.folder / name, provenance, size, rows)


def _words(names: Sequence[str]) -> str:
    """``ava_train``, or ``ava_val_56 and 5 more views``."""
    return names[0] + (f" and {len(names) - 1} more views" if len(names) > 1 else "")


def weights_digest(*modules: nn.Module) -> str:
    """Sixteen hex digits of all parameters and buffers: what a bank was extracted with."""
    found = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]

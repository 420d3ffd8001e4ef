"""The banks of a trained backbone: every second of a dataset, and the views of its test clips.

Both are extracted once and shared by all heads that are trained on that backbone. Interrupted, an
extraction goes on where it was: a bank knows what it holds. Several processes share the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import nn
from torchvision.transforms import v2

from stadlib import build
from stadlib.config import Experiment, digest
from stadlib.data.annotations import Keyframe
from stadlib.data.detected import detected_seconds
from stadlib.data.layout import AvaLayout
from stadlib.data.seconds import every_second
from stadlib.features import extract, one_a_second, open_bank, second_key, view_key
from stadlib.memory import FeatureBank, Key
from stadlib.models.action_detector import ActionDetector
from stadlib.progress import MakeProgress


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

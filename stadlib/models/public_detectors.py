"""Public detectors of AVA's actions: the networks that the weights fit, and loading them.

They are the study's parts in the publishers' form: a backbone, its map pooled over time, RoIAlign,
the maximum over the person's cells, a classifier. pytorchvideo's are its ``models/slowfast.py``
and ``models/resnet.py`` (``create_..._with_roi_head``). mmaction2's is its configuration
``slowonly_k700-pre-r50_8xb8-16x4x1-10e-tricks_ava-kinetics-rgb``: a maximum over time, the scene
beside the person, a classifier of two layers.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from stadlib.base import Report as Progress
from stadlib.models import backbones, networks, published, weights
from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import LinearHead
from stadlib.models.roi_fusion import RoIAlign3d, TimePooled


def build(backbone: str, num_actions: int) -> ActionDetector:
    """The untrained network of a published detector's backbone, such as ``slowfast-50``."""
    body = backbones.build(backbone)
    mmaction2 = backbone.startswith("slowonly")
    fusion = TimePooled(body.out_channels, "max" if mmaction2 else "mean", context=mmaction2)
    roi = RoIAlign3d(8 if mmaction2 else 7, 1 / body.spatial_stride, aligned=mmaction2)
    head = LinearHead(fusion.width, num_actions)
    if mmaction2:
        first = nn.Linear(fusion.width, fusion.width)
        head.classifier = nn.Sequential(first, nn.ReLU(), head.classifier)
    model = ActionDetector(body, roi, fusion, head)
    networks.freeze_batchnorm(model)
    return model.eval()


def load(
    row: published.Published, actions: Sequence[int], progress: Progress
) -> tuple[ActionDetector, weights.Report]:
    """A published detector with its weights, which are downloaded if need be, and the report.

    Its logits are those of ``actions``, AVA's ids, in this order. A file that does not fit, or
    cannot be fetched, is an InputError.
    """
    if not row.path.is_file():
        published.download(row.url, row.path, row.sha256, progress)
    model = build(row.backbone, len(actions))
    state, report = weights.read_detector(model, row.path, row.statistics, actions)
    model.load_state_dict(state)
    return model, report

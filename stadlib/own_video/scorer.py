"""Persons of a running video found, followed and scored, second by second.

Legend: N persons of a second, A actions, T frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from stadlib.data.clips import Batch, Clip, Sampling, Transform, collate
from stadlib.data.streaming import Moment
from stadlib.labels import LabelMap
from stadlib.memory import second_of
from stadlib.models.action_detector import ActionDetector
from stadlib.models.gfocal import PERSON
from stadlib.own_video.past import Past
from stadlib.own_video.sightings import Look, Sighting
from stadlib.own_video.tracks import Tracks

LOOK = 0.25  # seconds from a look for persons to the next: they must overlap to be followed


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What looks at a video, ready for use.

    Attributes:
        detector: pictures to boxes, scores and labels.
        threshold: the least score of a person.
        model: clip and boxes to actions.
        labels: the actions' names, in the model's order.
        sampling: the frames of a clip.
        view: what the model sees of a clip.
        multiple: height and width of a padded clip are divisible by it.
        span: seconds of memory; 0: the model has none.
        remembered: persons a second in it.
        made_by: names detector and model in files.
        warning: said loudly wherever results are shown; empty where there is nothing to warn of.
    """

    detector: nn.Module
    threshold: float
    model: ActionDetector
    labels: LabelMap
    sampling: Sampling
    view: Transform
    multiple: int
    span: int = 0
    remembered: int = 0
    made_by: dict
    warning: str = ""


class Scorer:
    """Scores one second after the other of one video.

    Args:
        networks: set to evaluation mode here.
        every: seconds between scored ones.

    Attributes:
        offsets: seconds, from a scored second, of the pictures that it needs.
    """

    def __init__(self, networks: Networks, every: float) -> None:
        self.networks, self.every = networks, every
        count = max(1, round(every / LOOK))
        self._looks = [round(i * every / count, 6) for i in range(count)]
        self.offsets = [*self._looks, *networks.sampling.times(0.0)]
        self.tracks = Tracks()
        self.past = Past(networks.span, networks.remembered, networks.model.fusion.width)
        networks.detector.eval()
        networks.model.eval()

    @torch.inference_mode()
    def __call__(self, moment: Moment) -> Sighting:
        """Find, follow and score the persons of the next second, whose pictures are those of
        :attr:`offsets`."""
        second, end = moment.time, moment.end
        times = [second + offset for offset in self._looks if offset == 0 or second + offset <= end]
        found = self._persons(moment.pictures[: len(times)])
        looks = [
            Look(round(time, 6), self.tracks.update(time, boxes), boxes)
            for time, (boxes, _) in zip(times, found, strict=True)
        ]
        confidence = found[0][1]
        actions_NA = np.empty((0, self.networks.labels.num_actions))
        if len(confidence):
            actions_NA = self._actions(moment, looks[0].boxes)
        return Sighting(looks, confidence, actions_NA)

    def follow(self, sighting: Sighting) -> None:
        """Take note of who was where in a second that an earlier call scored."""
        for look in sighting.looks:
            self.tracks.replay(look.time, look.numbers, look.boxes)

    @torch.inference_mode()
    def remember(self, sighting: Sighting, moment: Moment) -> None:
        """Take note of what its persons looked like."""
        if len(sighting.numbers):
            self._tokens(moment, self._clip(moment, sighting.looks[0].boxes))

    def _persons(self, pictures: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Boxes (N, 4) as fractions of the frame and scores (N,), the surest first."""
        where = next(self.networks.detector.parameters()).device
        images = [_channels_first(picture[None])[0].to(where).float() / 255 for picture in pictures]
        return [
            self._sure(one, image)
            for one, image in zip(self.networks.detector(images), images, strict=True)
        ]

    def _sure(self, found: dict[str, Tensor], image: Tensor) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[1:]
        size_4 = found["boxes"].new_tensor([width, height, width, height])
        boxes_N4 = (found["boxes"] / size_4).clamp(0, 1)
        real_N = (boxes_N4[:, 2:] > boxes_N4[:, :2] + 1e-5).all(dim=1)  # six decimals are written
        least = self.networks.threshold
        keep_N = real_N & (found["labels"] == PERSON) & (found["scores"] >= least)
        order_N = found["scores"][keep_N].argsort(descending=True, stable=True)
        rows = (values[keep_N][order_N] for values in (boxes_N4, found["scores"]))
        boxes, scores = (values.cpu().double().numpy().round(6) for values in rows)
        return boxes, scores

    def _actions(self, moment: Moment, boxes: np.ndarray) -> np.ndarray:
        """(N, A) scores of the persons in the boxes."""
        batch, head = self._clip(moment, boxes), self.networks.model.head
        memory = self.past.before(second_of(moment.time))
        tokens_NLC = self._tokens(moment, batch)
        logits_NA = head(tokens_NLC, batch.boxes_norm_N4, batch.counts_B, memory)
        return logits_NA.sigmoid().cpu().double().numpy().round(6)

    def _tokens(self, moment: Moment, batch: Batch) -> Tensor:
        """What the head reads of the persons, who are remembered from now on."""
        model = self.networks.model
        tokens_NLC = model.tokens(batch.clips_BCTHW, batch.boxes_N4, batch.counts_B)
        self.past.keep(second_of(moment.time), tokens_NLC, batch.boxes_norm_N4)
        return tokens_NLC

    def _clip(self, moment: Moment, boxes: np.ndarray) -> Batch:
        """The clip of a second as the model takes it, on its device."""
        frames_TCHW = _channels_first(np.stack(moment.pictures[len(self._looks) :]))
        height, width = frames_TCHW.shape[2:]
        norm_N4 = torch.from_numpy(boxes.astype(np.float32))
        pixels_N4 = norm_N4 * torch.tensor([width, height, width, height])
        boxes_N4 = tv_tensors.BoundingBoxes(pixels_N4, format="XYXY", canvas_size=(height, width))
        video, boxes_N4 = self.networks.view(tv_tensors.Video(frames_TCHW), boxes_N4)
        clip = Clip(
            frames_TCHW=video.as_subclass(torch.Tensor),
            boxes_N4=boxes_N4.as_subclass(torch.Tensor),
            actions_NA=torch.zeros(len(boxes), self.networks.labels.num_actions),
            boxes_norm_N4=norm_N4,
            person_ids_N=torch.full((len(boxes),), -1),
            key=("", "", moment.time),
        )
        where = next(self.networks.model.parameters()).device
        return collate([clip], self.networks.multiple).to(where)


def _channels_first(pictures_THWC: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures_THWC.transpose(0, 3, 1, 2).copy())

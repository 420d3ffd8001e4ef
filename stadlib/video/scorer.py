"""People of a video found, followed and scored, second by second, by the networks of a run.

Legend: N persons of a second, A actions, T frames of a clip, C channels of tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stadlib import recipes, study
from stadlib.base import InputError, MakeProgress, data_dir
from stadlib.data.boxes import PersonBoxes
from stadlib.data.clips import Batch, Sampling, Transform, collate, one_clip
from stadlib.data.layout import AVA_ACTIONS, LabelMap
from stadlib.data.stream import Moment
from stadlib.data.transforms import resize_as_mmaction2, resize_as_pytorchvideo
from stadlib.evaluation.matching import overlaps
from stadlib.models import public_detectors, published
from stadlib.models.action_detector import ActionDetector, ActionLoss
from stadlib.models.heads import MemoryTokens, no_memory
from stadlib.models.roi_fusion import Places
from stadlib.recipes.experiment import Experiment, from_dict
from stadlib.recipes.scales import DETECTORS
from stadlib.training import build, processes, stages
from stadlib.training.bank import second_of
from stadlib.training.detector import Detector, look, open_detector
from stadlib.training.memory import weights_digest
from stadlib.training.pretraining import prepare_data
from stadlib.video.sightings import Look, Sighting

LEAST = 0.1  # IoU of a box with where its person was last: people walk between looks
GONE = 1.0  # seconds without a box, after which a person gets a new number


@dataclass
class Tracks:
    """The persons of a video so far; numbers count from 1 in the order of their first look.

    Greedy matching by IoU, as SORT without its motion model (Bewley et al. 2016). On thirty
    validation movies of the miniature world, four looks a second with v3's boxes, 7 of 100 people
    have another number than a second before. People who cross may swap numbers.
    """

    number: int = 0  # of the latest new person
    known: dict[int, tuple[float, np.ndarray]] = field(default_factory=dict)  # last seen: time, box

    def update(self, time: float, boxes: np.ndarray) -> list[int]:
        """Number the persons of a look by their boxes (N, 4); ``time`` grows from call to call."""
        self.known = {n: at for n, at in self.known.items() if time - at[0] <= GONE + 1e-6}
        numbers = np.zeros(len(boxes), int)  # 0: of nobody known
        if self.known and len(boxes):
            names, last = list(self.known), np.stack([box for _, box in self.known.values()])
            iou = overlaps(boxes[:, None], last)
            for pair in np.argsort(-iou, axis=None, kind="stable"):  # the largest overlap first
                place, number = pair // len(last), names[pair % len(last)]
                free = numbers[place] == 0 and number not in numbers
                if free and iou.flat[pair] >= LEAST:
                    numbers[place] = number
        new = np.flatnonzero(numbers == 0)
        numbers[new] = self.number + 1 + np.arange(len(new))
        self.replay(time, numbers.tolist(), boxes)
        return numbers.tolist()

    def replay(self, time: float, numbers: list[int], boxes: np.ndarray) -> None:
        """Store a look whose persons are known."""
        self.number = max([self.number, *numbers])
        self.known |= {n: (time, box) for n, box in zip(numbers, boxes, strict=True)}


class Past:
    """Tokens of the persons of the last ``span`` seconds, in the order of time; 0: no memory."""

    def __init__(self, span: int, max_persons: int, width: int) -> None:
        self.span, self.max_persons, self.width = span, max_persons, width
        self._seconds: deque[tuple[int, Tensor, Tensor]] = deque()

    def keep(self, second: int, tokens_NLC: Tensor, boxes_N4: Tensor) -> None:
        """Keep ``max_persons`` of a second's first moment, the surest, rounded as banks do."""
        if not self.span or (self._seconds and self._seconds[-1][0] == second):
            return
        some = slice(self.max_persons)
        self._seconds.append((second, tokens_NLC[some].half().float(), boxes_N4[some]))
        while self._seconds[0][0] < second - self.span:
            self._seconds.popleft()

    def before(self, second: int, own: bool = False) -> MemoryTokens:
        """The memory of a clip of that second, B = 1; with ``own`` that second is in it."""
        wanted = range(second - self.span, second + own)
        kept = [s for s in self._seconds if s[0] in wanted and len(s[2])]
        if not kept:
            return no_memory(1, self.width)
        seconds, tokens, boxes = zip(*kept, strict=True)
        offsets = [s - second for s, own in zip(seconds, boxes, strict=True) for _ in own]
        seconds_BM = torch.tensor([offsets]).to(boxes[0].device)
        mask_BM = torch.ones_like(seconds_BM, dtype=torch.bool)
        return MemoryTokens(torch.cat(tokens)[None], mask_BM, seconds_BM, torch.cat(boxes)[None])


DEFAULT, MINIATURE = "default", "miniature"  # instead of a run's name
DETECTOR = "torchvision:fasterrcnn_resnet50_fpn_v2"  # of public weights, unless another is given
# Least score of a person: AlphAction's and SlowFast's for torchvision's detectors and for files of
# boxes, FAIR's of AVA among them. For ours, which score lower, where v3's precision and recall meet
# at mini. A model that was scored on their boxes has its own.
SURE, SURE_OURS = 0.8, 0.35
_WORDS = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "head": "t-only"}
_FILES = (".pt", ".pth", ".pyth", ".pkl", ".safetensors")


def open_networks(
    weights: str, detector: str, scale: str, video: Path, progress: MakeProgress
) -> Networks:
    """Load the networks of a run or published ones; arguments as in :func:`.predict.predict`."""
    if weights == DEFAULT:
        here = [row for row in published.DETECTORS.values() if row.path.is_file()]
        best = max(here, key=lambda row: float(row.mAP), default=None)
        weights = best.name if best and not _is_drawn(video) else MINIATURE
    if weights in published.DETECTORS:
        experiment, own_detector = None, DETECTOR
        of_model = _published(published.DETECTORS[weights], progress)
    else:
        experiment, folder = _run(weights, scale)
        scale, own_detector = experiment.scale, "v3"
        run = stages.open_run(experiment, folder, progress)
        beside = [folder.parent / "stages" / stage.name for stage in run.stage_folders]
        model = stages.trained_model(replace(run, stage_folders=tuple(beside)))
        of_model = {
            "model": model,
            "labels": run.layout.label_map(),
            "sampling": build.sampling(experiment),
            "view": build.memory_view(experiment),
            "multiple": build.numbers(experiment).pad_multiple,
            "loss": run.loss,
            "made_by": {"model": folder.name, "weights": weights_digest(model)},
        }
        if experiment.stages[-1].memory:
            names = ("span", "remembered", "own_second")
            of_model |= {name: getattr(experiment, name) for name in names}
    detector = own_detector if detector == DEFAULT else detector
    finder, name = open_detector(detector, scale, progress)
    threshold = SURE_OURS if detector in DETECTORS or detector.endswith(".pt") else SURE
    if experiment and experiment.detected and detector == experiment.detector:
        threshold = run.threshold
    of_model["made_by"] |= {"detector": name, "threshold": threshold}
    said = warning(experiment, detector, video)
    return Networks(detector=finder, threshold=threshold, warning=said, **of_model)


def _published(row: published.Published, progress: MakeProgress) -> dict:
    """The fields of public weights, which see a clip as their publisher shows it.

    Clips are of frames at 30 a second, AVA's rate. Of the 80 outputs the 60 evaluated ones are
    kept; mmaction2's were trained on these alone.
    """
    labels = LabelMap(AVA_ACTIONS)
    model, _ = public_detectors.load(row, labels.ids, progress(f"download {row.name}"))
    num_frames, stride = map(int, row.frames.split("x"))
    digest = weights_digest(model)
    return {
        "model": model.to(processes.device()),
        "labels": labels,
        "sampling": Sampling(num_frames, stride / 30),
        "view": resize_as_mmaction2 if "mmaction2" in row.publisher else resize_as_pytorchvideo,
        "multiple": 1,  # they are not padded
        "loss": ActionLoss(),
        "made_by": {"model": f"{row.name}-{digest[:12]}", "weights": digest},
    }


def _run(weights: str, scale: str) -> tuple[Experiment, Path]:
    if weights == MINIATURE:
        (row,) = recipes.table1(scale=scale, memory="no", **_WORDS)
        return row, study.run(row).folder
    public = [source.name for source in published.PUBLISHED]
    if weights in public or Path(weights).suffix in _FILES or Path(weights).is_file():
        raise InputError(
            f"{weights}: a file of weights is read as a backbone alone, which scores no actions; "
            "give a run that was trained here (its folder or part of its name), or one of "
            + ", ".join(published.DETECTORS)
        )
    record = study.find_record(weights)
    return from_dict(record.experiment), record.folder


def a_movie(scale: str, progress: MakeProgress) -> Path:
    """The first validation movie of a miniature world, which is rendered if need be."""
    layout = prepare_data(Experiment(scale=scale), progress)
    return layout.video_file("ava", layout.videos("ava", "val")[0])


def warning(experiment: Experiment | None, detector: str, video: Path) -> str:
    """What stands wherever the results of a model and a detector on a video are shown.

    Public weights have no experiment.
    """
    miniature, public = _is_drawn(video), experiment is None
    if public and miniature:
        return "MODEL OF REAL PEOPLE ON DRAWN FIGURES: its actions mean nothing here."
    drawn = not public and experiment.scale != "paper" and not experiment.dataset
    finds_drawn = detector in DETECTORS and (public or experiment.scale != "paper")
    if not miniature and (drawn or finds_drawn):
        name, results = ("MODEL", "Its actions") if drawn else ("DETECTOR", "Its boxes")
        results = "Boxes and actions" if drawn and finds_drawn else results
        text = "it knows only drawn figures."
        return f"MINIATURE {name} ON REAL VIDEO: {text} {results} mean nothing here."
    if not public and experiment.scale == "smoke":
        return "SMOKE SCALE: trained for seconds, to try things out. The results mean nothing."
    return ""


def _is_drawn(video: Path) -> bool:
    """Whether a video is a movie of the miniature world."""
    home = data_dir().resolve()
    folders = [part for part in video.resolve().parents if part.parent == home]
    return any(folder.name.startswith("miniature-") for folder in folders)


LOOK = 0.25  # seconds from a look for persons to the next: they must overlap to be followed


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks that score a video, and how they are used."""

    detector: Detector
    threshold: float  # the least score of a person
    model: ActionDetector
    labels: LabelMap  # in the model's order
    loss: ActionLoss  # turns its logits into probabilities
    sampling: Sampling  # the frames of a clip
    view: Transform  # what the model sees of a clip
    multiple: int  # height and width of a padded clip are divisible by it
    span: int = 0  # seconds of memory; 0: the model has none
    remembered: int = 0  # persons a second in it
    own_second: bool = False  # whether the second itself is in it
    made_by: dict  # names detector and model in files
    warning: str = ""  # said wherever results are shown


class Scorer:
    """Scores one second after the other of one video, ``every`` so many seconds.

    It needs pictures at ``offsets`` (seconds) around each. Boxes of a file are those of ``video``
    and of the scored seconds, without any between them.
    """

    def __init__(self, networks: Networks, every: float, video: str = "") -> None:
        self.networks, self.every, self.video = networks, every, video
        of_file = isinstance(networks.detector, PersonBoxes)
        count = 1 if of_file else max(1, round(every / LOOK))
        self._looks = [round(i * every / count, 6) for i in range(count)]
        self.offsets = [*self._looks, *networks.sampling.times(0.0)]
        self.tracks = Tracks()
        self.past = Past(networks.span, networks.remembered, networks.model.fusion.width)
        if not of_file:
            networks.detector.eval()
        networks.model.eval()

    @torch.inference_mode()
    def __call__(self, moment: Moment, known: Sighting | None = None) -> Sighting:
        """Find, follow and score the persons of the next second, or score those that are known."""
        if known:
            looks, confidence = known.looks, known.confidence
        else:
            times = [moment.time + offset for offset in self._looks]
            times = [time for time in times if time <= max(moment.time, moment.end)]
            persons = self._persons(moment.pictures[: len(times)], times)
            confidence, looks = persons[0][:, 4], []
            for time, boxes in zip(times, (rows[:, :4] for rows in persons), strict=True):
                looks.append(Look(round(time, 6), self.tracks.update(time, boxes), boxes))
        if not looks[0].numbers:
            return Sighting(looks, np.empty(0), np.empty((0, self.networks.labels.num_actions)))
        networks, model = self.networks, self.networks.model
        batch = self._clip(moment, looks[0].boxes)
        tokens_NLC = model.tokens(batch.clips_BCTHW, batch.boxes_N4, batch.counts_B, batch.sizes)
        second = second_of(moment.time)
        self.past.keep(second, tokens_NLC, batch.boxes_norm_N4)
        memory = self.past.before(second, own=networks.own_second)
        memory = memory.to(tokens_NLC.device)  # at the beginning there is none, on the CPU
        places = Places.of(batch.counts_B, tokens_NLC.device)
        logits_NA = model.head(tokens_NLC, batch.boxes_norm_N4, places, memory)
        scores_NA = networks.loss.probabilities(logits_NA)
        actions_NA = scores_NA.cpu().double().numpy().round(6)
        return Sighting(looks, confidence, actions_NA)

    def _clip(self, moment: Moment, boxes: np.ndarray) -> Batch:
        """The clip as the model takes it, on its device."""
        networks = self.networks
        frames_TCHW = _channels_first(np.stack(moment.pictures[len(self._looks) :]))
        actions = np.zeros((len(boxes), networks.labels.num_actions), np.float32)
        key, boxes = ("", "", moment.time), boxes.astype(np.float32)
        clip = one_clip(frames_TCHW, boxes, actions, key, networks.view)
        return collate([clip], networks.multiple).to(next(networks.model.parameters()).device)

    def _persons(self, pictures: Sequence[np.ndarray], times: Sequence[float]) -> list[np.ndarray]:
        """Boxes as fractions of the frame, each with its score, (N, 5), the surest first."""
        detector, threshold = self.networks.detector, self.networks.threshold
        if isinstance(detector, PersonBoxes):
            looks = [detector.at(self.video, time) for time in times]
        else:
            looks = look(detector, _channels_first(np.stack(pictures)))
        rows = [np.reshape(persons, (-1, 5)) for persons in looks]  # also of nobody
        return [row_N5[row_N5[:, 4] >= threshold] for row_N5 in rows]


def _channels_first(pictures_THWC: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures_THWC.transpose(0, 3, 1, 2).copy())

"""Your own video: people found, followed and scored every second; files and figures that show it.

Memory does not grow with the length of the video, and an interrupted call resumes. torch is
imported after the words and the video were checked.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from IPython.display import Video

from stadlib import base, study
from stadlib.base import ConfigError, MakeProgress, Progress
from stadlib.data.boxes import PersonBoxes
from stadlib.data.layout import BOX_SUFFIXES
from stadlib.data.stream import Stream, around, picture_at
from stadlib.recipes.scales import DETECTORS, OTHER_DETECTORS
from stadlib.report.frames import Frame, Line, frame_grid, person_mark
from stadlib.report.style import NotebookFigure, shortened
from stadlib.video.drawing import Overlay, time_line, write_annotated, write_clip
from stadlib.video.sightings import Playback, Sighting, SightingFile, shown_actions, write_tables

_FILES = {
    "annotated.mp4": "the video, drawn on, without sound",
    "contact_sheet.png": "frames at even distances",
    "time_line.png": "when each person does what",
    "detections.csv": "all scores of all actions, in AVA's form",
    "tracks.csv": "which box is whose, the detector's scores",
    "seconds.jsonl": "all that was seen, a line a second",
}
SIDE = 240  # pixels of a contact sheet's pictures, the short side
ROWS, DESCRIBED = 3, 6  # of a contact sheet; persons that are described below a picture


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was seen in a video."""

    video: Path
    folder: Path  # of the results
    names: dict[int, str]  # of the actions, by id, in the order of the scores
    every: float  # seconds from one that was scored to the next
    warning: str  # what must be said about it; empty if nothing
    sightings: SightingFile  # second by second

    def clip(self, seconds: float = 12.0) -> Video:
        """The beginning of the drawn video, to be embedded in a notebook."""
        path = self.folder / "clip.mp4"
        write_clip(self.folder / "annotated.mp4", path, seconds)
        return Video(path.read_bytes(), embed=True, mimetype="video/mp4")

    def contact_sheet(self) -> NotebookFigure:
        """Frames at even distances, not picked; below, what each person does, with its score."""
        stream = Stream(self.video, largest=SIDE)
        columns = 3 if stream.size[1] >= stream.size[0] else 4
        count = sum(1 for _ in self.sightings)
        number = min(ROWS * columns, count)
        chosen = {int((i + 0.5) * count / number) for i in range(number)}
        frames = [self._frame(stream, s) for i, s in enumerate(self.sightings) if i in chosen]
        return frame_grid(frames, columns, warning=self.warning)

    def time_line(self) -> NotebookFigure:
        """The people seen longest, and when they do what."""
        return time_line(self.sightings, self.names, self.every, self.warning)

    def persons(self) -> pd.DataFrame:
        """First, last and number of scored seconds; the actions of the highest mean score."""
        rows, sums = {}, defaultdict(float)
        for sighting in self.sightings:
            for number, scores in zip(sighting.numbers, sighting.actions, strict=True):
                first, _, scored = rows.get(number, (sighting.second, None, 0))
                rows[number] = first, sighting.second, scored + 1
                sums[number] = sums[number] + scores
        columns = ["from second", "to", "scored"]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("person")
        means = (sums[number] / scored for number, scored in table["scored"].items())
        shown = [shown_actions(mean, list(self.names)) for mean in means]
        table["does"] = [", ".join(self._labels(actions)) for actions in shown]
        return table.sort_index()

    def files(self) -> pd.DataFrame:
        """The files of the folder, and what each is for."""
        sizes = [round((self.folder / name).stat().st_size / 1000, 1) for name in _FILES]
        index = pd.Index(_FILES, name="file")
        return pd.DataFrame({"kB": sizes, "holds": list(_FILES.values())}, index)

    def provenance(self) -> pd.DataFrame:
        """What the results were made of."""
        words = {k: v for k, v in self.sightings.made_by.items() if k != "actions"}
        words["model"], _, words["its digest"] = words["model"].rpartition("-")  # else cut in two
        words["stadlib"] = version("stadlib")
        return pd.DataFrame({"": words.values()}, index=pd.Index(words, name="made of"))

    def _frame(self, stream: Stream, sighting: Sighting) -> Frame:
        lines, marks = [], []
        for seen in sorted(sighting.persons(list(self.names)), key=lambda seen: seen.number):
            marks.append(person_mark(seen.number - 1, seen.box))
            words = [(label, "plain") for label in self._labels(seen.actions)]
            lines.append(Line(words or [("nothing sure", "faint")], seen.number - 1))
        if len(lines) > DESCRIBED + 1:
            more = [(f"and {len(lines) - DESCRIBED} more", "faint")]
            lines = [*lines[:DESCRIBED], Line(more)]
        picture = picture_at(stream, sighting.second)
        lines = lines or [Line([("no person found", "faint")])]
        return Frame(f"{sighting.second:g} s", picture, marks, lines)

    def _labels(self, shown: list[tuple[int, float]]) -> list[str]:
        return [f"{shortened(self.names[action])} {score:.2f}" for action, score in shown]


MINIATURE = "miniature"  # instead of a video's path, or of a run's name
DEFAULT = "default"  # weights, detector: what suits the video and what lies on this machine
EVERY = 1.0  # seconds from one that is scored to the next
SHORT_SIDES = (360, 720)  # pixels of the drawn video: text must be legible, 4K need not be
PARAMETERS = ("video", "weights", "detector", "every", "scale")


def check_parameters(namespace: dict[str, object]) -> None:
    """Refuse a notebook's unknown parameter, and what cannot be predicted, in one line."""
    study.refuse_unknown(namespace, PARAMETERS)
    _check(*(namespace[name] for name in ("video", "detector", "every", "scale")))


def _check(video: str, detector: str, every: float, scale: str) -> None:
    if type(every) not in (int, float) or not 0 < every < math.inf:
        raise ConfigError(f"every={every!r}; give seconds, more than 0")
    base.check_word("scale", scale, ("smoke", "mini"))
    path = detector.lower().endswith((".pt", *BOX_SUFFIXES))
    if not (detector.startswith("torchvision:") or path):
        base.check_word("detector", detector, (*DETECTORS, *OTHER_DETECTORS, DEFAULT))
    if video != MINIATURE:
        Stream(Path(video))


def predict(
    video: str = MINIATURE,
    *,
    out: Path | None = None,
    weights: str = DEFAULT,
    detector: str = DEFAULT,
    every: float = EVERY,
    scale: str = "mini",
    progress: MakeProgress = Progress,
) -> Prediction:
    """Watch a video (a path, or ``miniature``: a movie of that world) and write what is seen.

    ``out`` is the folder of the results. ``weights`` is a run (its folder, its name or part of it),
    a published detector of ``stadlib weights``, or ``miniature``, the study's t-only row, which is
    trained if need be; ``default`` takes the best published one that lies here for a real video.
    ``detector`` is ``v1``, ``v2`` or ``v3`` of the run's scale, ``torchvision:NAME``, a ``FILE.pt``
    or a file of boxes, of which those of the video's name, of the scored seconds, ``every`` so many
    apart, and of a score of 0.8 or more are used. ``default`` is ``v3``, with a published detector
    :data:`.scorer.DETECTOR`. ``scale`` is that of the miniature model and movie.

    A ConfigError or an InputError says in one line what to do.
    """
    _check(video, detector, every, scale)
    from stadlib.video import scorer  # noqa: PLC0415  (torch)

    path = scorer.a_movie(scale, progress) if video == MINIATURE else Path(video)
    networks = scorer.open_networks(weights, detector, scale, path, progress)
    return watch(path, networks, every=every, out=out, progress=progress)


def watch(
    path: Path, networks, *, every: float = EVERY, out: Path | None = None, progress: MakeProgress
) -> Prediction:
    """Do as :func:`predict` does, with open :class:`stadlib.video.scorer.Networks`."""
    from stadlib.video.scorer import Scorer  # noqa: PLC0415  (torch)

    stream = Stream(path, largest=SHORT_SIDES[1])
    if isinstance(networks.detector, PersonBoxes):
        networks.detector.require([path.stem], stream.duration)
    names = networks.labels.names
    made_by = {"video": path.name, "bytes": path.stat().st_size, "every": every}
    made_by |= networks.made_by | {"actions": {str(action): names[action] for action in names}}
    folder = out or base.results_dir() / "predictions" / f"{path.stem}-{base.digest(made_by)}"
    sightings = SightingFile(folder / "seconds.jsonl", made_by)
    prediction = Prediction(path, folder, names, every, networks.warning, sightings)
    if networks.warning:
        print(f"\n*** {networks.warning} ***\n", flush=True)
    annotated = folder / "annotated.mp4"
    if not sightings.complete:
        annotated.unlink(missing_ok=True)
        scorer = Scorer(networks, every, path.stem)
        _score_rest(stream, sightings, scorer, progress(f"watch {path.name}"))
    write_tables(sightings, path.stem, list(names))
    if not annotated.exists():
        stream, report = Stream(path, *SHORT_SIDES), progress(f"draw {path.name}")
        overlay = Overlay(stream.size, names, networks.warning)
        write_annotated(stream, overlay, Playback(sightings, list(names)), annotated, report)
    base.write_whole(folder / "contact_sheet.png", prediction.contact_sheet().png())
    base.write_whole(folder / "time_line.png", prediction.time_line().png())
    return prediction


def _score_rest(stream: Stream, sightings: SightingFile, scorer, report: base.Report) -> None:
    """Score the seconds that no earlier call scored; the memory is filled from those before."""
    span = scorer.networks.span
    done, recent = 0, deque(maxlen=math.ceil(span / scorer.every) if span else 0)
    for done, sighting in enumerate(sightings, 1):  # noqa: B007
        for look in sighting.looks:
            scorer.tracks.replay(look.time, look.numbers, look.boxes)
        recent.append(sighting)
    total, first = int((stream.duration - 1e-6) / scorer.every) + 1, done - len(recent)
    for moment in around(stream, scorer.every, scorer.offsets, first):
        if recent:
            scorer(moment, recent.popleft())
            continue
        sightings.append(scorer(moment))
        done += 1
        report(done, max(done, total), "moments")
    report(done, done, "moments")
    sightings.finish()
    if done < 0.9 * total - 1:
        length = f"the file's header says {stream.duration:.0f} s; it may be damaged"
        print(f"{stream.path}: the picture ends at {moment.end:.0f} s; {length}", flush=True)

"""Contact sheet of a watched video: frames at even distances, who is there and does what.

What was seen in a video, as notebooks show it: figures and tables out of the files.

Somebody's own video: persons found, followed and scored every second; files that show it.

Everything streams: memory does not grow with the length of the video, what is found goes to disk
as it comes, and an interrupted call goes on where it was. torch is imported only once the words
and the video are known to be sound.
"""

from __future__ import annotations

import math
import shutil
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Video
from matplotlib.axes import Axes

from stadlib import study
from stadlib.base import (
    ConfigError,
    MakeProgress,
    Progress,
    Report,
    check_word,
    digest,
    results_dir,
    write_whole,
)
from stadlib.data.stream import Stream, around, picture_at
from stadlib.recipes.scales import DETECTORS
from stadlib.report.style import GREY, STYLE, WIDTH, NotebookFigure, closed, shortened, unrun
from stadlib.video import sightings, time_line
from stadlib.video.drawing import parts_folder, write_annotated, write_clip
from stadlib.video.sightings import Seen, Sighting, SightingFile, shown_actions
from stadlib.video.time_line import color_of, warn

ROWS = 3
_LINE, _GAP = 0.13, 0.26  # inches of a caption's line; for a title and between rows
_FONT = 6.5
_MOST = 6  # persons that are described below a picture


def columns(size: tuple[int, int]) -> int:
    """Pictures of this (height, width) side by side."""
    return 3 if size[1] >= size[0] else 4


def contact_sheet(
    pictures: Sequence[tuple[float, np.ndarray, Sequence[Seen]]],
    names: Mapping[int, str],
    warning: str = "",
) -> NotebookFigure:
    """Show pictures with the persons in them; below, what each of them does, with its score.

    Args:
        pictures: seconds, (H, W, 3) uint8, and who is seen there; row by row.
        names: of the actions, by id.
        warning: stands in red above all.
    """
    if not pictures:
        return unrun()
    high, wide = pictures[0][1].shape[:2]
    count = columns((high, wide))
    cell = WIDTH / count
    tall = 0.97 * cell * high / wide
    rows = [pictures[start : start + count] for start in range(0, len(pictures), count)]
    heights = [tall + _GAP + _LINE * _lines(row) for row in rows]
    head = 0.25 if warning else 0.0
    total = sum(heights) + head
    with plt.rc_context({**STYLE, "axes.grid": False, "figure.constrained_layout.use": False}):
        figure = plt.figure(FigureClass=NotebookFigure, figsize=(WIDTH, total))
        warn(figure, warning)
        for index, row in enumerate(rows):
            bottom = total - head - sum(heights[:index]) - _GAP + 0.08 - tall
            for column, (second, picture, persons) in enumerate(row):
                box = ((column + 0.015) * cell, bottom, 0.97 * cell, tall)
                axes = figure.add_axes(
                    [a / b for a, b in zip(box, (WIDTH, total) * 2, strict=True)]
                )
                _picture(axes, picture, f"{second:g} s", persons)
                _describe(axes, persons, names)
        return closed(figure)


def _lines(row: Sequence[tuple]) -> int:
    """Lines of the longest caption of a row."""
    return max(1, *(min(len(persons), _MOST + 1) for _, _, persons in row))


def _picture(axes: Axes, picture: np.ndarray, title: str, persons: Sequence[Seen]) -> None:
    axes.imshow(picture, interpolation="bicubic", extent=(0, 1, 1, 0), aspect="auto")
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=_FONT, loc="left", pad=2, color=GREY)
    for seen in persons:
        x1, y1, x2, y2 = seen.box
        for line, width in (("black", 2.4), (color_of(seen.number), 1.3)):
            axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=line, lw=width)
        _tag(axes, seen.number, (min(max(x1, 0), 0.94), max(y1, 0)), "data", (1.5, -6.5))


def _describe(axes: Axes, persons: Sequence[Seen], names: Mapping[int, str]) -> None:
    """A line a person below the picture."""
    if not persons:
        _write(axes, (1, -8), "nobody found", GREY)
    for place, seen in enumerate(persons):
        y = -8 - place * _LINE * 72
        if place == _MOST and len(persons) > _MOST + 1:
            _write(axes, (1, y), f"and {len(persons) - place} more", GREY)
            return
        _tag(axes, seen.number, (0, 0), "axes fraction", (1.5, y))
        words = [f"{shortened(names[a])} {s:.2f}".replace(" 0.", " .") for a, s in seen.actions]
        if words:
            _write_fitting(axes, (13, y), words)
        else:
            _write(axes, (13, y), "nothing sure", GREY)


def _write_fitting(axes: Axes, place: tuple[float, float], words: list[str]) -> None:
    """Words in a row, as many as there is room for, the first at least."""
    text = _write(axes, place, "", "black")
    for count in range(len(words), 0, -1):
        text.set_text(", ".join(words[:count]))
        wide = text.get_window_extent().width * 72 / axes.figure.dpi
        if place[0] + wide <= axes.bbox.width * 72 / axes.figure.dpi:
            return


def _write(axes: Axes, place: tuple[float, float], text: str, color: str):
    where = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "baseline"}
    return axes.annotate(text, (0, 0), place, fontsize=_FONT, color=color, **where)


def _tag(
    axes: Axes, number: int, place: tuple[float, float], coords: str, offset: tuple[float, float]
) -> None:
    """A person's number on the person's colour, so many points from a place."""
    box = {"boxstyle": "square,pad=0.12", "facecolor": color_of(number), "edgecolor": "none"}
    where = {"xycoords": coords, "textcoords": "offset points", "bbox": box}
    axes.annotate(str(number), place, offset, fontsize=_FONT - 1, weight="bold", **where)


_FILES = {
    "annotated.mp4": "the video, drawn on, without sound",
    "contact_sheet.png": "frames at even distances",
    "time_line.png": "when each person does what",
    "detections.csv": "all scores of all actions, in AVA's form",
    "tracks.csv": "which box is whose, the detector's scores",
    "seconds.jsonl": "all that was seen, a line a second",
}
_SIDE = 240  # pixels of a contact sheet's pictures, the short side


@dataclass(frozen=True, eq=False)
class Prediction:
    """A video that was watched.

    Attributes:
        video: its file.
        folder: of the results.
        names: of the actions, by id, in the order of the scores.
        every: seconds from one that was scored to the next.
        warning: what must be said about it; empty if nothing.
        sightings: second by second.
    """

    video: Path
    folder: Path
    names: dict[int, str]
    every: float
    warning: str
    sightings: SightingFile

    @property
    def annotated(self) -> Path:
        """The video with boxes, numbers and actions."""
        return self.folder / "annotated.mp4"

    @property
    def detections(self) -> Path:
        """All scores in AVA's form: video, second, corners, action, score."""
        return self.folder / "detections.csv"

    @property
    def tracks(self) -> Path:
        """Whose box is whose: video, second, corners, person, the detector's score."""
        return self.folder / "tracks.csv"

    def clip(self, seconds: float = 12.0) -> Video:
        """The beginning of the drawn video, to be embedded in a notebook."""
        path = self.folder / "clip.mp4"
        write_clip(self.annotated, path, seconds)
        return Video(path.read_bytes(), embed=True, mimetype="video/mp4")

    def contact_sheet(self) -> NotebookFigure:
        """Frames at even distances, not picked, with their persons."""
        stream = Stream(self.video, largest=_SIDE)
        number = ROWS * columns(stream.size)
        count = sum(1 for _ in self.sightings)
        places = {int((i + 0.5) * count / min(number, count)) for i in range(min(number, count))}
        chosen = (s for place, s in enumerate(self.sightings) if place in places)
        pictures = [(s.second, picture_at(stream, s.second), self._seen(s)) for s in chosen]
        return contact_sheet(pictures, self.names, self.warning)

    def time_line(self) -> NotebookFigure:
        """The persons seen longest, and when they do what."""
        ids = list(self.names)
        found = time_line.read_time_line(lambda: self.sightings, len(ids), self.every)
        return time_line.time_line(found, ids, self.names, self.warning)

    def persons(self) -> pd.DataFrame:
        """Return the persons by number: first and last second, in how many they were scored, and
        what they do most, by the mean of their scores."""
        seconds, sums = defaultdict(list), defaultdict(float)
        for sighting in self.sightings:
            for number, scores in zip(sighting.numbers, sighting.actions, strict=True):
                first = seconds[number][:1] or [sighting.second]
                seen = seconds[number][2] if seconds[number] else 0
                seconds[number] = [*first, sighting.second, seen + 1]
                sums[number] = sums[number] + scores
        table = pd.DataFrame.from_dict(
            seconds, orient="index", columns=["from second", "to", "scored"]
        ).rename_axis("person")
        table["does"] = [self._words(sums[n] / scored) for n, scored in table["scored"].items()]
        return table.sort_index()

    def files(self) -> pd.DataFrame:
        """Return the files of the folder, and what each is for."""
        rows = {
            name: (round((self.folder / name).stat().st_size / 1000, 1), words)
            for name, words in _FILES.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["kB", "holds"]).rename_axis(
            "file"
        )

    def provenance(self) -> pd.DataFrame:
        """Return what the results were made of."""
        words = {k: v for k, v in self.sightings.made_by.items() if k != "actions"}
        words["model"], _, words["its digest"] = words["model"].rpartition("-")  # else cut in two
        words["stadlib"] = version("stadlib")
        return pd.DataFrame({"": words.values()}, index=pd.Index(words, name="made of"))

    def _seen(self, sighting: Sighting) -> list[Seen]:
        look, ids = sighting.looks[0], list(self.names)
        persons = zip(look.numbers, look.boxes, sighting.actions, strict=True)
        return sorted(
            (Seen(number, box, shown_actions(scores, ids)) for number, box, scores in persons),
            key=lambda seen: seen.number,
        )

    def _words(self, scores: np.ndarray) -> str:
        shown = shown_actions(scores, list(self.names))
        return ", ".join(f"{shortened(self.names[a])} {s:.2f}" for a, s in shown)


MINIATURE = "miniature"  # instead of a video's path, or of a run's name
EVERY = 1.0  # seconds from one that is scored to the next
SHORT_SIDES = (360, 720)  # pixels of the drawn video: text must be legible, 4K need not be
PARAMETERS = ("video", "weights", "detector", "every", "scale")


def check_parameters(namespace: Mapping[str, object]) -> None:
    """Refuse a notebook's unknown parameter, and what cannot be predicted.

    Args:
        namespace: the notebook's variables, with :data:`PARAMETERS` among them.

    Raises:
        ConfigError, InputError: one line that says what to do.
    """
    study.refuse_unknown(namespace, PARAMETERS)
    _check(*(namespace[name] for name in ("video", "detector", "every", "scale")))


def _check(video: str, detector: str, every: float, scale: str) -> None:
    """See that the words are words and the video is one, before anything slow is imported."""
    if type(every) not in (int, float) or not 0 < every < math.inf:
        raise ConfigError(f"every={every!r}; give seconds, more than 0")
    check_word("scale", scale, ("smoke", "mini"))
    if not (detector.startswith("torchvision:") or detector.endswith(".pt")):
        check_word("detector", detector, (*DETECTORS, "torchvision:NAME", "FILE.pt"))
    if video != MINIATURE:
        Stream(Path(video))


def predict(
    video: str = MINIATURE,
    *,
    out: Path | None = None,
    weights: str = MINIATURE,
    detector: str = "v3",
    every: float = EVERY,
    scale: str = "mini",
    progress: MakeProgress = Progress,
) -> Prediction:
    """Watch a video and write what is seen.

    Args:
        video: path of a file; ``miniature`` for a validation movie of the miniature world.
        out: folder of the results; by default one under ``results/predictions``.
        weights: a run's folder, its name or part of it; ``miniature`` for the study's t-only row,
            which is trained if need be.
        detector: ``v1``, ``v2``, ``v3`` of the run's scale, ``torchvision:NAME``, or a ``FILE.pt``.
        every: seconds from one that is scored to the next.
        scale: of the miniature model and movie: ``smoke`` or ``mini``.
        progress: makes the progress of a named task.

    Raises:
        ConfigError, InputError: one line that says what to do.
    """
    _check(video, detector, every, scale)
    from stadlib.video import scorer  # noqa: PLC0415  (torch)

    path = scorer.a_movie(scale, progress) if video == MINIATURE else Path(video)
    networks = scorer.open_networks(weights, detector, scale, path, progress)
    return watch(path, networks, every=every, out=out, progress=progress)


def watch(
    path: Path, networks, *, every: float = EVERY, out: Path | None = None, progress: MakeProgress
) -> Prediction:
    """The same with networks that are open (:class:`stadlib.own_video.scorer.Networks`)."""
    from stadlib.video.scorer import Scorer  # noqa: PLC0415  (torch)

    stream = Stream(path, largest=SHORT_SIDES[1])
    names = {action: networks.labels.name(action) for action in networks.labels.ids}
    made_by = {"video": path.name, "bytes": path.stat().st_size, "every": every}
    made_by |= networks.made_by | {"actions": {str(action): names[action] for action in names}}
    folder = out or results_dir() / "predictions" / f"{path.stem}-{digest(made_by)}"
    sightings = SightingFile(folder / "seconds.jsonl", made_by)
    found = Prediction(path, folder, names, every, networks.warning, sightings)
    if networks.warning:
        print(f"\n*** {networks.warning} ***\n", flush=True)
    if not sightings.complete:
        found.annotated.unlink(missing_ok=True)
        shutil.rmtree(parts_folder(found.annotated), ignore_errors=True)
        _look_on(stream, sightings, Scorer(networks, every), progress(f"watch {path.name}"))
    _write_files(found, progress)
    return found


def _look_on(stream: Stream, sightings: SightingFile, scorer, report: Report) -> None:
    """Score every second that no earlier call has scored; remember those before."""
    span = scorer.networks.span
    known, recent = 0, deque(maxlen=math.ceil(span / scorer.every) if span else 0)
    for sighting in sightings:
        scorer.follow(sighting)
        recent.append(sighting)
        known += 1
    first, done = known - len(recent), known
    total = int((stream.duration - 1e-6) / scorer.every) + 1
    for place, moment in enumerate(around(stream, scorer.every, scorer.offsets, first), first):
        if place < known:
            scorer.remember(recent.popleft(), moment)
            continue
        sightings.append(scorer(moment))
        done = place + 1
        report(done, max(done, total), "moments")
    report(done, done, "moments")
    sightings.finish()
    if done < 0.9 * total - 1:
        told = f"though the file tells of {stream.duration:.0f} s; it may be damaged"
        print(f"{stream.path}: the picture ends at {moment.end:.0f} s, {told}", flush=True)


def _write_files(found: Prediction, progress: MakeProgress) -> None:
    """Tables, the drawn video unless it is there, and figures."""
    ids, video = list(found.names), found.video.stem
    sightings.write_detections(found.sightings, video, ids, found.detections)
    sightings.write_tracks(found.sightings, video, found.tracks)
    if not found.annotated.exists():
        write_annotated(
            Stream(found.video, *SHORT_SIDES),
            found.sightings,
            found.names,
            found.annotated,
            warning=found.warning,
            progress=progress(f"draw {found.video.name}"),
        )
    write_whole(found.folder / "contact_sheet.png", found.contact_sheet().png())
    write_whole(found.folder / "time_line.png", found.time_line().png())

"""Somebody's own video: persons found, followed and scored every second; files that show it.

Everything streams: memory does not grow with the length of the video, what is found goes to disk
as it comes, and an interrupted call goes on where it was. torch is imported only once the words
and the video are known to be sound.
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from stadlib import study
from stadlib.config import ConfigError, check_word, digest
from stadlib.data.streaming import Stream, around
from stadlib.detector_recipes import DETECTORS
from stadlib.own_video import tables
from stadlib.own_video.annotated import parts_folder, write_annotated
from stadlib.own_video.prediction import Prediction
from stadlib.own_video.sightings import SightingFile
from stadlib.paths import results_dir, write_whole
from stadlib.progress import MakeProgress, Progress, Report

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
    from stadlib.own_video import networks as own  # noqa: PLC0415  (torch)

    path = own.a_movie(scale, progress) if video == MINIATURE else Path(video)
    networks = own.open_networks(weights, detector, scale, path, progress)
    return watch(path, networks, every=every, out=out, progress=progress)


def watch(
    path: Path, networks, *, every: float = EVERY, out: Path | None = None, progress: MakeProgress
) -> Prediction:
    """The same with networks that are open (:class:`stadlib.own_video.scorer.Networks`)."""
    from stadlib.own_video.scorer import Scorer  # noqa: PLC0415  (torch)

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
    tables.write_detections(found.sightings, video, ids, found.detections)
    tables.write_tracks(found.sightings, video, found.tracks)
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

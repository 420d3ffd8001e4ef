"""Prediction files of any system, measured: what ``stadlib evaluate`` says about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from stadlib.base import ConfigError, InputError
from stadlib.data import rows
from stadlib.data.boxes import read_person_boxes
from stadlib.data.layout import LabelMap, group, read_label_map
from stadlib.evaluation import average_precision, diagnosis, matching, persons, tubes

LONG = 20_000_000  # bytes of files that take seconds to read


def measure(
    groundtruth: Sequence[Path],
    detections: Sequence[Path],
    labels: Path,
    *,
    exclude: Sequence[Path] = (),
    compare: Sequence[Path] | None = None,
    protocol: str = "official",
    iou: float = 0.5,
    ties: str = "file",
    num_resamples: int = 0,
    diagnose: bool = False,
    shortest_tube: int = 0,
    progress: Callable[[str], Callable[[int, int, str], None]],
) -> dict:
    """Evaluate predictions jointly on all ground-truth files.

    Arguments are those of :mod:`stadlib.evaluation.matching`; ``exclude`` are files of keyframes.
    ``compare`` are other predictions, whose paired difference is added; ``num_resamples`` 0 leaves
    out intervals; ``diagnose`` adds what AP is lost to each kind of error (official rules only);
    ``shortest_tube`` above 0 adds video mAP.

    Returns ``mAP`` and ``AP`` by action id (fractions; None without ground truth), ``ties`` (the
    ends of what other orders of equal scores give), with several ground-truth files ``datasets``,
    and where asked for ``interval``, ``difference``, ``lost`` and ``tubes``.
    """
    matching.protocol(protocol)  # refuses a wrong word before long files are read
    if diagnose and protocol != "official":
        raise ConfigError(f"protocol={protocol!r} has no diagnosis; use official")
    label_map = read_label_map(labels)
    size = sum(path.stat().st_size for path in (*groundtruth, *detections) if path.is_file())
    tell = progress("evaluate") if size > LONG else lambda *_: None
    tell(0, 2, "reading ground truth")
    truth, excluded = rows.table(list(map(_ordered, groundtruth))), rows.read_excluded(exclude)
    tell(1, 2, f"reading and matching {size / 1e6:.0f} MB")
    found, options = rows.table(detections), {"iou": iou, "ties": ties, "excluded": excluded}
    matches = matching.match(truth, found, label_map, protocol, **options)
    tell(2, 2, "matched")
    report = _measured(matches, label_map, groundtruth) | {"protocol": protocol, "iou": iou}
    if not len(matches.scores) and (note := _elsewhere(truth, found)):
        report["note"] = note
    if report["mAP"] is None:
        return report
    if shortest_tube:
        report["tubes"] = tubes.video_map(truth, found, label_map, shortest_tube, excluded)
    if diagnose:
        lost = diagnosis.diagnose(truth, found, label_map, iou, excluded)
        report["lost"] = json.loads(lost.drop(columns="AP").to_json(orient="index"))
    if num_resamples and report["counts"]["videos"] < 2:
        report["note"] = "an interval is over videos, and a single one bounds nothing"
        num_resamples = 0
    other = matching.match(truth, compare, label_map, protocol, **options) if compare else None
    if other is not None:
        report["difference"] = {"mAP": report["mAP"] - average_precision.result(other).mAP}
    intervals = {"interval": None} | ({"difference": other} if compare else {})
    for name, minus in intervals.items() if num_resamples else ():
        draws = {"num_resamples": num_resamples, "progress": progress(f"bootstrap the {name}")}
        numbers = average_precision.bootstrap(matches, minus, **draws)
        report[name] = dict(zip(("mAP", "low", "high"), numbers, strict=True))
    return report


def _ordered(path: Path) -> pd.DataFrame:
    """Ground truth of one file; corners in the wrong order end the official evaluator, too."""
    truth = rows.read_rows(path)
    for low, high in (("x1", "x2"), ("y1", "y2")):
        if (wrong := truth[low] > truth[high]).any():
            row = int(wrong.to_numpy().argmax()) + 1
            raise InputError(f"{path}:{row}: {low} is above {high}; swap them or drop the row")
    return truth


def _elsewhere(truth: pd.DataFrame, found: pd.DataFrame) -> str:
    """A line that says so if no prediction lies on an annotated keyframe."""
    named, keys = rows.keyframe_keys(truth), rows.keyframe_keys(found)
    if not keys or not named or {*named} & {*keys}:
        return ""
    return (
        f"none of the {len(keys)} boxes lies on an annotated keyframe: they are of such as "
        f"{keys[0]}, annotated are such as {named[0]} (video, seconds)"
    )


def _measured(matches: matching.Matches, label_map: LabelMap, truth: Sequence[Path]) -> dict:
    result = average_precision.result(matches)
    aps = pd.Series(result.AP, dtype=float).dropna()
    report = result.to_json() | {
        "names": {str(action): name for action, name in label_map.names.items()},
        "groups": aps.groupby(group, sort=False).mean().to_dict() if label_map.is_avas else {},
        "counts": {
            "detections": len(matches.scores),
            "right": int(matches.hits.sum()),
            "boxes": len(matches.truth_class),
            "videos": len(set(matches.truth_video.tolist())),
        },
    }
    if report["mAP"] is None:
        return report
    report["ties"] = dict(
        zip(("low", "high"), average_precision.tie_interval(matches), strict=True)
    )
    if len(truth) > 1:  # the classes of a dataset are those that it has
        videos = {path.name: set(rows.read_rows(path)["video"].unique()) for path in truth}
        parts = {name: matches.of_videos(of_file) for name, of_file in videos.items()}
        results = {name: average_precision.result(part) for name, part in parts.items()}
        report["datasets"] = {name: found.to_json()["mAP"] for name, found in results.items()}
    return report


def lines(report: dict) -> list[str]:
    """The report of :func:`measure` as text, in %."""
    texts = [report["note"]] if "note" in report else []
    for action, ap in report["AP"].items():
        value = "-" if ap is None else f"{100 * ap:.2f}"
        texts.append(f"{action:>4}  {value:>6}  {report['names'][action]}")
    texts += [f"{name:>12}: {100 * ap:.2f}" for name, ap in report["groups"].items()]
    if report["mAP"] is None:
        return [*texts, "no ground truth of an evaluated class"]
    texts += [f"{name}: {100 * ap:.4f}" for name, ap in report.get("datasets", {}).items() if ap]
    texts.append(f"mAP@{report['iou']:g}, %: {100 * report['mAP']:.4f} ({report['protocol']})")
    low, high = (100 * report["ties"][end] for end in ("low", "high"))
    if high - low > 5e-5:
        texts.append(f"ties: other orders of equal scores give {low:.4f} to {high:.4f}")
    if made := report.get("tubes"):
        texts.append(f"{made['tubes']} tubes linked, {made['annotated']} annotated")
        for area in ("voc", "act"):
            means = (f"@{name} {100 * mean:.2f}" for name, mean in made[area].items())
            texts.append(f"video mAP, %: {', '.join(means)} ({area})")
    if "lost" in report:  # the largest loss first
        table = pd.DataFrame.from_dict(report["lost"], orient="index").rename(report["names"])
        points = (100 * table[list(diagnosis.KINDS)].astype(float)).round(2)
        order = points.max(axis=1).sort_values(ascending=False).index
        points = points.assign(instead=table["instead"]).rename_axis("action")
        texts += ["points of AP that mending one kind of error would bring:"]
        texts += points.loc[order].to_string().split("\n")
    for name in ("interval", "difference"):
        if numbers := report.get(name):
            text = f"{name}: {100 * numbers['mAP']:.4f}"
            if "low" in numbers:
                text += f" [{100 * numbers['low']:.2f}, {100 * numbers['high']:.2f}] over videos"
            texts.append(text)
    return texts


def measure_persons(groundtruth: Sequence[Path], boxes: Sequence[Path]) -> dict:
    """AP of person boxes or predictions (:func:`.persons.person_ap`), of all files jointly."""
    tables = []
    for path in boxes:
        only_boxes = path.suffix.lower() in (".json", ".pkl")
        if path.is_file() and not only_boxes:
            with path.open(errors="replace") as file:
                only_boxes = file.readline().split(",")[6:7] == [""]
        read = read_person_boxes if only_boxes else rows.read_rows
        tables.append(read(path).astype({"video": object}))
    found, truth = pd.concat(tables), rows.table(groundtruth)
    report = persons.person_ap(truth, found)
    note = "" if report["boxes"] else _elsewhere(truth, found)
    return report | ({"note": note} if note else {})


def person_lines(report: dict) -> list[str]:
    """The report on person boxes as text."""
    numbers = {name: value for name, value in report.items() if name != "note"}
    notes = [report["note"]] if "note" in report else []
    return notes + [
        f"{n:>12}: {v if isinstance(v, int) else f'{100 * v:.2f} %'}" for n, v in numbers.items()
    ]

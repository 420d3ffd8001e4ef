"""Detection files of any system, measured: what ``stadlib evaluate`` says about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from stadlib import metrics
from stadlib.config import ConfigError
from stadlib.labels import read_label_map

Progress = Callable[[int, int, str], None]


def measure(
    groundtruth: Sequence[Path],
    detections: Sequence[Path],
    labels: Path,
    *,
    exclude: Sequence[Path] = (),
    compare: Sequence[Path] | None = None,
    protocol: str = "official",
    iou: float = 0.5,
    num_resamples: int = 0,
    diagnose: bool = False,
    progress: Callable[[str], Progress],
) -> dict:
    """Evaluate detections jointly on all ground-truth files.

    Args:
        groundtruth: CSV files in AVA's layout.
        detections: CSV files with scores.
        labels: label map of the evaluated actions.
        exclude: files of keyframes that nobody scores.
        compare: other detections of the same ground truth; adds their paired difference.
        protocol: whose rules (:mod:`stadlib.metrics.protocols`).
        iou: the least IoU of a match.
        num_resamples: of the bootstrap over videos; 0: no intervals.
        diagnose: add what AP is lost to each kind of error (official rules only).
        progress: makes the progress of a named task.

    Returns:
        ``mAP`` and ``AP`` by action id (fractions; None without ground truth), ``names``,
        ``groups``, ``protocol``, ``iou``, ``counts``, and where asked for ``interval`` and
        ``difference`` with ``low`` and ``high``, the 95 % interval over videos, and ``lost``
        by action id (:func:`stadlib.metrics.diagnose`).

    Raises:
        InputError: a file cannot be read; names file, row and column.
        ConfigError: an unknown protocol, or a diagnosis by other than the official one.
    """
    metrics.protocol(protocol)  # a wrong word is refused before long files are read
    if diagnose and protocol != "official":
        raise ConfigError(f"protocol={protocol!r} has no diagnosis; use official")
    label_map = read_label_map(labels)
    truth = metrics.table(groundtruth)
    excluded = metrics.read_excluded(exclude)

    def matched(files: Sequence[Path]) -> metrics.Matches:
        return metrics.match(truth, files, label_map, protocol, iou=iou, excluded=excluded)

    matches = matched(detections)
    result = metrics.result(matches)
    report = {
        **result.to_json(),
        "names": {str(action): label_map.name(action) for action in label_map.ids},
        "groups": result.by_group(),
        "protocol": protocol,
        "iou": iou,
        "counts": matches.counts(),
    }
    if report["mAP"] is None:
        return report
    if diagnose:
        lost = metrics.diagnose(truth, detections, label_map, iou, excluded)
        report["lost"] = json.loads(lost.drop(columns=["name", "AP"]).to_json(orient="index"))
    if num_resamples:
        draw = metrics.bootstrap(
            matches, num_resamples=num_resamples, progress=progress("bootstrap")
        )
        report["interval"] = {"mAP": draw.estimate, "low": draw.low, "high": draw.high}
    if compare is not None:
        other = matched(compare)
        report["difference"] = {"mAP": result.mAP - metrics.result(other).mAP}
        if num_resamples:
            bar = progress("bootstrap the difference")
            draw = metrics.bootstrap(matches, other, num_resamples=num_resamples, progress=bar)
            report["difference"] |= {"low": draw.low, "high": draw.high}
    return report


def lost_table(report: dict) -> pd.DataFrame:
    """The diagnosis of a report in points, a row a class, the largest loss first."""
    table = pd.DataFrame.from_dict(report["lost"], orient="index")
    names = [report["names"][action] for action in table.index]
    points = (100 * table.drop(columns="instead").astype(float)).round(2)
    points = points.set_axis(pd.Index(names, name="action")).assign(
        instead=table["instead"].tolist()
    )
    return points.loc[points.drop(columns="instead").max(axis=1).sort_values(ascending=False).index]


def lines(report: dict) -> list[str]:
    """The report as text, in %."""
    texts = []
    for action, ap in report["AP"].items():
        value = "-" if ap is None else f"{100 * ap:.2f}"
        texts.append(f"{action:>4}  {value:>6}  {report['names'][action]}")
    texts += [f"{name:>12}: {100 * ap:.2f}" for name, ap in report["groups"].items()]
    if report["mAP"] is None:
        return [*texts, "no ground truth of an evaluated class"]
    texts.append(f"mAP@{report['iou']:g}, %: {100 * report['mAP']:.4f} ({report['protocol']})")
    if "lost" in report:
        texts += ["points of AP that mending one kind of error would bring:"]
        texts += lost_table(report).to_string().split("\n")
    for name in ("interval", "difference"):
        if name in report:
            texts.append(f"{name}: {_text(report[name])}")
    return texts


def _text(numbers: dict[str, float]) -> str:
    text = f"{100 * numbers['mAP']:.4f}"
    if "low" in numbers:
        text += f" [{100 * numbers['low']:.2f}, {100 * numbers['high']:.2f}] over videos"
    return text

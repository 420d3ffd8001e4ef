"""Detection files of any system, measured: what ``stadlib evaluate`` says about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from stadlib.base import ConfigError
from stadlib.data import rows
from stadlib.data.boxes import read_person_boxes
from stadlib.data.labels import read_label_map
from stadlib.evaluation import average_precision, diagnosis, matching, persons

LONG = 20_000_000  # bytes of files that take seconds to read
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
    ties: str = "file",
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
        protocol: whose rules (:mod:`stadlib.evaluation.matching`).
        iou: the least IoU of a match.
        ties: ``file`` or ``official`` (:mod:`stadlib.evaluation.matching`).
        num_resamples: of the bootstrap over videos; 0: no intervals.
        diagnose: add what AP is lost to each kind of error (official rules only).
        progress: makes the progress of a named task.

    Returns:
        ``mAP`` and ``AP`` by action id (fractions; None without ground truth), ``names``,
        ``groups``, ``protocol``, ``iou``, ``counts``, ``ties`` (between which mAPs other orders of
        equal scores could lead), with several ground-truth files ``datasets``, the mAP of each
        file's videos by its name, and where asked for ``interval`` and
        ``difference`` with ``low`` and ``high``, the 95 % interval over videos, and ``lost``
        by action id (:func:`stadlib.evaluation.diagnosis.diagnose`).

    Raises:
        InputError: a file cannot be read; names file, row and column.
        ConfigError: an unknown protocol, or a diagnosis by other than the official one.
    """
    matching.protocol(protocol)  # a wrong word is refused before long files are read
    if diagnose and protocol != "official":
        raise ConfigError(f"protocol={protocol!r} has no diagnosis; use official")
    label_map = read_label_map(labels)
    size = sum(path.stat().st_size for path in (*groundtruth, *detections) if path.is_file())
    tell = progress("evaluate") if size > LONG else lambda *_: None
    tell(0, 2, "reading ground truth")
    truth = rows.table(groundtruth)
    excluded = rows.read_excluded(exclude)
    tell(1, 2, f"reading and matching {size / 1e6:.0f} MB")

    def matched(files: Sequence[Path]) -> matching.Matches:
        how = {"iou": iou, "ties": ties, "excluded": excluded}
        return matching.match(truth, files, label_map, protocol, **how)

    matches = matched(detections)
    tell(2, 2, "matched")
    result = average_precision.result(matches)
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
    report["ties"] = dict(
        zip(("low", "high"), average_precision.tie_interval(matches), strict=True)
    )
    if len(groundtruth) > 1:
        report["datasets"] = _by_dataset(matches, groundtruth)
    if diagnose:
        lost = diagnosis.diagnose(truth, detections, label_map, iou, excluded)
        report["lost"] = json.loads(lost.drop(columns=["name", "AP"]).to_json(orient="index"))
    other = None if compare is None else matched(compare)
    return report | _uncertainty(matches, other, num_resamples, progress)


def _uncertainty(
    matches: matching.Matches,
    other: matching.Matches | None,
    num_resamples: int,
    progress: Callable[[str], Progress],
) -> dict:
    """``interval`` and ``difference`` of a report, as far as they were asked for."""
    found: dict = {}
    if num_resamples:
        bar = progress("bootstrap")
        draw = average_precision.bootstrap(matches, num_resamples=num_resamples, progress=bar)
        found["interval"] = {"mAP": draw.estimate, "low": draw.low, "high": draw.high}
    if other is not None:
        found["difference"] = {
            "mAP": average_precision.result(matches).mAP - average_precision.result(other).mAP
        }
        if num_resamples:
            bar = progress("bootstrap the difference")
            draw = average_precision.bootstrap(
                matches, other, num_resamples=num_resamples, progress=bar
            )
            found["difference"] |= {"low": draw.low, "high": draw.high}
    return found


def _by_dataset(matches: matching.Matches, groundtruth: Sequence[Path]) -> dict[str, float | None]:
    """The mAP of each file's videos alone; the classes are those that it has."""
    found = {}
    for path in groundtruth:
        videos = set(rows.read_rows(path)["video"].unique())
        found[path.name] = average_precision.result(matches.of_videos(videos)).to_json()["mAP"]
    return found


def measure_persons(groundtruth: Sequence[Path], boxes: Sequence[Path]) -> dict[str, float]:
    """AP of person boxes (:func:`stadlib.evaluation.persons.person_ap`), of all files jointly.

    Args:
        groundtruth: CSV files in AVA's layout.
        boxes: CSV files of boxes, their action column empty or not.
    """
    return persons.person_ap(groundtruth, pd.concat([_boxes(path) for path in boxes]))


def _boxes(path: Path) -> pd.DataFrame:
    if path.suffix.lower() in (".json", ".pkl"):
        return read_person_boxes(path)
    if path.is_file():
        with path.open(errors="replace") as file:
            if file.readline().split(",")[6:7] == [""]:
                return read_person_boxes(path)
    return rows.read_rows(path).astype({"video": object})


def person_lines(report: dict) -> list[str]:
    """The report on person boxes as text."""
    return [
        f"{n:>12}: {v if isinstance(v, int) else f'{100 * v:.2f} %'}" for n, v in report.items()
    ]


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
    texts += [f"{name}: {100 * ap:.4f}" for name, ap in report.get("datasets", {}).items() if ap]
    texts.append(f"mAP@{report['iou']:g}, %: {100 * report['mAP']:.4f} ({report['protocol']})")
    low, high = (100 * report["ties"][end] for end in ("low", "high"))
    if high - low > 5e-5:
        texts.append(f"ties: other orders of equal scores give {low:.4f} to {high:.4f}")
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

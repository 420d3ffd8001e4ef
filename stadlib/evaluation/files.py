"""Prediction files of any system, measured (``stadlib evaluate``) and averaged.

The paper's ensemble (last row of Table 1) is called "average voting" and no more. Here it is the
mean of the scores of every (video, timestamp, box, action), with equal weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import polars as pl

from stadlib.base import ConfigError, InputError, MakeProgress
from stadlib.data import rows as csv_rows
from stadlib.data.boxes import read_person_boxes
from stadlib.data.layout import LabelMap, group, read_label_map
from stadlib.data.rows import BOX, NO_LABEL, PART, Form
from stadlib.evaluation import average_precision, matching, tubes

LONG = 20_000_000  # bytes of files that take seconds to read
DIGITS = 10  # of a mean score: two more than members have
_KEY = ["video", "timestamp", *BOX]  # of a box
_REMEDY = "score all members on one box file"


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
    progress: MakeProgress,
) -> dict:
    """Evaluate predictions jointly on all ground-truth files, with the arguments of :func:`.match`.

    ``exclude`` are files of keyframes; ``compare`` are other predictions, whose paired difference
    is added; ``num_resamples`` 0 leaves out intervals; ``diagnose`` adds what AP is lost to each
    kind of error (official rules); ``shortest_tube`` > 0 adds video mAP.

    Returns ``mAP`` and ``AP`` by action id (fractions; None without ground truth), ``ties`` (the
    range over orders of equal scores), ``datasets`` of several ground-truth files, and where asked
    for ``interval``, ``difference``, ``lost`` and ``tubes``.
    """
    matching.protocol(protocol)  # refuses a wrong word before long files are read
    if diagnose and protocol != "official":
        raise ConfigError(f"protocol={protocol!r} has no diagnosis; use official")
    label_map = read_label_map(labels)
    size = sum(path.stat().st_size for path in (*groundtruth, *detections) if path.is_file())
    tell = progress("evaluate") if size > LONG else lambda *_: None
    tell(0, 2, "reading ground truth")
    truths = [(path.name, _ordered(path)) for path in groundtruth]
    truth, excluded = csv_rows.table([of for _, of in truths]), csv_rows.read_excluded(exclude)
    tell(1, 2, f"reading and matching {size / 1e6:.0f} MB")
    found, options = csv_rows.table(detections), {"iou": iou, "ties": ties, "excluded": excluded}
    matches = matching.match(truth, found, label_map, protocol, **options)
    tell(2, 2, "matched")
    report = _measured(matches, label_map, dict(truths)) | {"protocol": protocol, "iou": iou}
    if not len(matches.scores):
        report |= _elsewhere(truth, found)
    if report["mAP"] is None:
        return report
    if shortest_tube:
        report["tubes"] = tubes.video_map(truth, found, label_map, shortest_tube, excluded)
    if diagnose:
        lost = average_precision.diagnose(truth, found, label_map, iou, excluded)
        report["lost"] = json.loads(lost.drop(columns="AP").to_json(orient="index"))
    if num_resamples and report["counts"]["videos"] < 2:
        report["note"] = "an interval is over videos, and a single one bounds nothing"
        num_resamples = 0
    others = {"interval": None}
    if compare:
        other = matching.match(truth, compare, label_map, protocol, **options)
        report["difference"] = {"mAP": report["mAP"] - average_precision.result(other).mAP}
        others["difference"] = other
    for name, minus in others.items() if num_resamples else ():
        draws = {"num_resamples": num_resamples, "progress": progress(f"bootstrap the {name}")}
        numbers = average_precision.bootstrap(matches, minus, **draws)
        report[name] = dict(zip(("mAP", "low", "high"), numbers, strict=True))
    return report


def _ordered(path: Path) -> pd.DataFrame:
    """Ground truth of one file; corners in the wrong order end the official evaluator, too."""
    truth = csv_rows.read_rows(path)
    for low, high in (("x1", "x2"), ("y1", "y2")):
        if (wrong := truth[low] > truth[high]).any():
            row = int(wrong.to_numpy().argmax()) + 1
            raise InputError(f"{path}:{row}: {low} is above {high}; swap them or drop the row")
    return truth


def _elsewhere(truth: pd.DataFrame, found: pd.DataFrame) -> dict[str, str]:
    """A ``note`` that says so if no prediction lies on an annotated keyframe."""
    named, keys = csv_rows.keyframe_keys(truth), csv_rows.keyframe_keys(found)
    if not keys or not named or {*named} & {*keys}:
        return {}
    note = (
        f"none of the {len(keys)} boxes lies on an annotated keyframe: they are of such as "
        f"{keys[0]}, annotated are such as {named[0]} (video, seconds)"
    )
    return {"note": note}


def _measured(
    matches: matching.Matches, label_map: LabelMap, truths: dict[str, pd.DataFrame]
) -> dict:
    """Numbers of all ground truth and, of several files, of each."""
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
    low, high = average_precision.tie_interval(matches)
    report["ties"] = {"low": low, "high": high}
    if len(truths) > 1:  # the classes of a dataset are those that it has
        parts = {name: matches.of_videos({*of["video"].unique()}) for name, of in truths.items()}
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
        points = (100 * table[list(average_precision.KINDS)].astype(float)).round(2)
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
    """AP of person boxes or predictions (see :func:`.person_ap`), of all files jointly."""
    tables = []
    for path in boxes:
        only_boxes = path.suffix.lower() in (".json", ".pkl")
        if path.is_file() and not only_boxes:
            with path.open(errors="replace") as file:
                only_boxes = file.readline().split(",")[6:7] == [""]
        read = read_person_boxes if only_boxes else csv_rows.read_rows
        tables.append(read(path).astype({"video": object}))
    found, truth = pd.concat(tables), csv_rows.table(groundtruth)
    report = average_precision.person_ap(truth, found)
    return report if report["boxes"] else report | _elsewhere(truth, found)


def person_lines(report: dict) -> list[str]:
    """The report on person boxes as text."""
    numbers = {name: value for name, value in report.items() if name != "note"}
    notes = [report["note"]] if "note" in report else []
    return notes + [
        f"{n:>12}: {v if isinstance(v, int) else f'{100 * v:.2f} %'}" for n, v in numbers.items()
    ]


def average(files: Sequence[Path], out: Path) -> tuple[int, int]:
    """Write the mean of the members' scores to ``out``; returns the numbers of boxes and rows.

    Memory holds one member at a time. Boxes and timestamps are equal if they agree to six decimals;
    ``out`` has the boxes in the order of the first member. An action that a member leaves out on
    one of its boxes counts as score 0: the evaluator, too, ranks an absent row behind all others. A
    box that a member leaves out is an error, because it was not scored. So average whole files,
    then cut them to the rows that count (``stadlib submit``).
    """
    paths = [path.resolve() for path in files]
    if not files:
        raise InputError(f"{out}: no member; name the detection files to average")
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise InputError(f"{files[number]}: given twice; name it once")
    if out.resolve() in paths:
        raise InputError(f"{out}: is one of the members; give --out another name")
    boxes = None
    sums = pl.DataFrame(schema={"box": pl.UInt32, "action_id": pl.Int32, "score": pl.Float64})
    for path in files:
        rows = _member(path)
        if boxes is None:
            boxes = rows.unique(_KEY, keep="first", maintain_order=True)
            boxes = boxes.select(*_KEY, pl.col("row").alias("first")).with_row_index("box")
        scores = _on_boxes(path, rows, boxes, files[0])
        # One after the other, because floating-point sums depend on the order.
        sums = pl.concat([sums, scores]).group_by("box", "action_id").agg(pl.col("score").sum())
    sums = sums.sort("box", "action_id")
    return len(boxes), csv_rows.write_rows(out, _means(sums, boxes, len(files)))


def _member(path: Path) -> pl.DataFrame:
    """A member's rows; numbers of the box are whole, in millionths."""
    rows, problems = csv_rows.read(path, Form(widths=(8,), last="probability"))
    empty = rows.filter(pl.col("action_id") == NO_LABEL)
    problems.add("action", empty["row"], ["no action; drop the row"] * len(empty))
    problems.refuse()
    whole = [(pl.col(name) * 1e6).round(mode="half_to_even").cast(pl.Int64) for name in _KEY[1:]]
    return rows.with_columns(whole)


def _on_boxes(path: Path, rows: pl.DataFrame, boxes: pl.DataFrame, first: Path) -> pl.DataFrame:
    """A member's ``box``, ``action_id`` and ``score``; refuses other boxes than the first's."""
    rows = rows.join(boxes, on=_KEY, how="left", maintain_order="left")
    if rows["box"].null_count():
        row = rows["row"][rows["box"].is_null().arg_max()]
        raise InputError(f"{path}:{row}: a box that {first} does not have; {_REMEDY}")
    missed = boxes.filter(~pl.col("box").is_in(rows["box"].unique().implode()))
    if len(missed):
        words = f"lacks {len(missed)} boxes of {first}, first that of row {missed['first'][0]}"
        raise InputError(f"{path}: {words}; {_REMEDY}")
    cell = pl.col("box").cast(pl.Int64) * 2**32 + pl.col("action_id")
    again = rows.filter(~cell.is_first_distinct())
    if len(again):
        words = f"action {again['action_id'][0]} of this box stands in an earlier row too"
        raise InputError(f"{path}:{again['row'][0]}: {words}; keep one of the two")
    return rows.select("box", "action_id", "score")


def _means(sums: pl.DataFrame, boxes: pl.DataFrame, num_members: int) -> Iterator[pl.DataFrame]:
    """The means as rows of a prediction file, in parts."""
    times = boxes["timestamp"].unique()
    texts = pl.Series([f"{time / 1e6:.6f}" for time in times], dtype=pl.String)
    boxes = boxes.select("video", pl.col("timestamp").replace_strict(times, texts), *BOX)
    # numpy divides exactly; polars would multiply by the inverse.
    boxes = boxes.with_columns(**{name: boxes[name].to_numpy() / 1e6 for name in BOX})
    for part in sums.iter_slices(PART):
        means = (part["score"].to_numpy() / num_members).round(DIGITS)
        yield boxes[part["box"]].with_columns(part["action_id"], score=means)

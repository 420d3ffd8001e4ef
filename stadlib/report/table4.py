"""Table 4 and what better boxes bring: our numbers beside the paper's, differences by seed.

The paper's numbers, the committed reference and one's own runs never mix, and what nobody ran reads
"not run". AP@0.5 of persons and mAP@0.5 of actions in %, differences in points. A version of the
detector exists once, so the APs of its boxes have no interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan, nan

import pandas as pd

from stadlib import recipes, study
from stadlib.base import InputError, published_dir
from stadlib.evaluation import persons
from stadlib.recipes.scales import DETECTOR_SCALES, DETECTORS
from stadlib.report import scores
from stadlib.report.scores import NOT_RUN, interval, percent
from stadlib.study import Record, read_records

ROWS = {"det-v1": "v1", "det-v2": "v2", "det-v3": "v3", "GT": "ground-truth"}
PERSON_AP, PRECISE_AP, ACTION_AP = "AP@0.5", "AP@0.5:0.95", "mAP@0.5"
_PLACES = {"ava": "AVA", "kinetics": "Kinetics"}
_COLUMNS = [f"{place} {name}" for place in _PLACES.values() for name in (PERSON_AP, ACTION_AP)]
_USES = ("extended", "product of scores", "trained on both")
_COMPARED = (("v2", "v1"), ("v3", "v2"), ("v3", "v1"), ("GT", "v3"), *((u, "v3") for u in _USES))
_BOUNDS = ["mAP", "low", "high", "seeds"]


def paper_table() -> pd.DataFrame:
    """Return Table 4 as printed: text, with "-" where the paper has no number."""
    path = published_dir("paper") / "table4.csv"
    printed = pd.read_csv(path, dtype=str, keep_default_na=False).replace("", "-")
    return printed.set_index("detector").set_axis(_COLUMNS, axis=1)


def person_boxes(records: Mapping[str, Record] | None = None) -> pd.DataFrame:
    """Return what the versions are trained on, and how good their boxes are, at mini.

    Args:
        records: of detectors by version; the default is the committed reference.
    """
    records = _detectors(records)
    full = DETECTOR_SCALES["mini"].iterations
    rows = {}
    for version, stages in DETECTORS.items():
        texts = [f"{round(full * stage.share)} on {' + '.join(stage.data)}" for stage in stages]
        rows[version] = {"iterations": ", ".join(texts)}
        for source, place in _PLACES.items():
            for name in (PERSON_AP, "AP@0.75", PRECISE_AP):
                rows[version][f"{place} {name}"] = _box_text(records, version, source, name)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("detector")


def reference(
    records: Iterable[Record] | None = None,
    detectors: Mapping[str, Record] | None = None,
    backbone: str = "ir-csn-152",
) -> pd.DataFrame:
    """Return the committed mini records on Table 4's rows: mean over seeds and 95 % interval.

    Args:
        records: of the rows; the default is the committed reference.
        detectors: records of detectors by version; likewise.
        backbone: of the rows.
    """
    return _table(_found(records, backbone), _detectors(detectors))


def beside_paper(
    runs: Mapping[str, Record],
    records: Iterable[Record] | None = None,
    detectors: Mapping[str, Record] | None = None,
    backbone: str = "ir-csn-152",
) -> pd.DataFrame:
    """Return the paper's table, the reference and these runs side by side.

    Args:
        runs: of one scale and seed, by the words of ``recipes.table4``; rows may be missing. The
            boxes of their detectors are measured, or the record of having done so is read.
        records: as in :func:`reference`.
        detectors: likewise.
        backbone: of the reference.

    Raises:
        InputError: the runs are of several scales.
    """
    scales = sorted({run.scale for run in runs.values()})
    if len(scales) > 1:
        raise InputError(f"runs of {' and '.join(scales)} in one column; show them one by one")
    measured = {
        version: study.detector_record(version, run.scale)
        for version, run in runs.items()
        if version in DETECTORS
    }
    own = _table({name: [run] for name, run in runs.items()}, measured)
    parts = {
        "paper": paper_table(),
        "reference: mini": reference(records, detectors, backbone)[_COLUMNS],
        f"this run: {scales[0]}" if scales else "this run": own[_COLUMNS],
    }
    return pd.concat(parts, axis=1)


def differences(
    records: Iterable[Record] | None = None, backbone: str = "ir-csn-152"
) -> pd.DataFrame:
    """Return what better boxes bring, and what else can be done with v3's, paired by seed.

    Returns:
        By comparison and source: ``gain``, ``low``, ``high`` (points, 95 % over seeds), ``seeds``.
        What nobody ran is left out.
    """
    found = _found(records, backbone)
    tables = {
        f"{better} − {plain}": scores.gain_of_pairs(pairs)
        for better, plain in _COMPARED
        if (pairs := scores.paired_by_seed(found[better], found[plain]))
    }
    if not tables:
        return pd.DataFrame(columns=["gain", "low", "high", "seeds"])
    return pd.concat(tables, names=["comparison"]).round(2)


def by_detector(
    records: Iterable[Record] | None = None,
    detectors: Mapping[str, Record] | None = None,
    backbone: str = "ir-csn-152",
) -> pd.DataFrame:
    """Return mAP against how good the boxes are; ground truth's have an AP of 100.

    Returns:
        By source and detector (``v1``, ``v2``, ``v3``, ``GT``): ``AP``, ``mAP``, ``low``, ``high``
        (95 % over seeds), ``seeds``. What nobody ran or measured is left out.
    """
    found, boxes = _found(records, backbone), _detectors(detectors)
    rows = []
    for source, place in _PLACES.items():
        for name in (*DETECTORS, "GT"):
            ap = 100.0 if name == "GT" else _box_ap(boxes, name, source, PERSON_AP)
            if found[name] and not isnan(ap):
                where = {"source": place, "detector": name, "AP": ap}
                rows.append(where | _bounds(found[name], source))
    columns = ["source", "detector", "AP", *_BOUNDS]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:2])


def paper_by_detector() -> pd.DataFrame:
    """Return Table 4 in the form of :func:`by_detector`; the paper gives no intervals."""
    printed = paper_table().replace("-", "100").astype(float).set_axis([*DETECTORS, "GT"])
    tables = {
        place: printed[[f"{place} {PERSON_AP}", f"{place} {ACTION_AP}"]].set_axis(
            ["AP", "mAP"], axis=1
        )
        for place in _PLACES.values()
    }
    return pd.concat(tables, names=["source", "detector"]).assign(low=nan, high=nan)


def by_threshold(
    records: Iterable[Record] | None = None,
    detectors: Mapping[str, Record] | None = None,
    backbone: str = "ir-csn-152",
) -> pd.DataFrame:
    """Return what is found and what is scored if boxes of v3 below a score are left out.

    Returns:
        By source and threshold: ``recall`` and ``precision`` of the boxes at IoU 0.5 in %, and
        ``mAP``, ``low``, ``high`` (95 % over seeds), ``seeds``; NaN and 0 seeds where one of the
        two is not there, no row where nobody is found or neither is there.
    """
    found, boxes = _found(records, backbone), _detectors(detectors)
    rows = []
    for source, place in _PLACES.items():
        curve = boxes["v3"].metrics[source]["thresholds"] if "v3" in boxes else {}
        for least in persons.THRESHOLDS:
            at, runs = curve.get(str(least), {}), found.get(f"threshold {least}", [])
            if at.get("recall") or runs:
                row = {name: percent(at.get(name)) for name in ("recall", "precision")}
                row |= {"source": place, "threshold": least}
                rows.append(row | _bounds(runs, source))
    columns = ["source", "threshold", "recall", "precision", *_BOUNDS]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:2])


def class_losses(
    records: Iterable[Record] | None = None,
    backbone: str = "ir-csn-152",
    source: str = "ava+kinetics",
) -> pd.DataFrame:
    """Return the AP that v3's boxes cost each class, paired by seed, the largest loss first.

    Returns:
        By action id: ``name``, ``group``, ``gain`` of ground-truth boxes, ``low``, ``high``
        (points, 95 %), ``seeds``.
    """
    found = _found(records, backbone)
    pairs = scores.paired_by_seed(found["GT"], found["v3"])
    return scores.gain_of_pairs(pairs, "class", source).sort_values("gain", ascending=False)


def _found(records: Iterable[Record] | None, backbone: str) -> dict[str, list[Record]]:
    """The records of each row at mini and of each other use of v3's boxes, by short names."""
    records = read_records(published_dir("reference")) if records is None else list(records)
    rows = recipes.table4(backbone=backbone) | recipes.box_uses(backbone=backbone)
    found = {name: scores.of_experiment(row, records) for name, row in rows.items()}
    return found | {"GT": found["ground-truth"]}


def _detectors(records: Mapping[str, Record] | None) -> dict[str, Record]:
    """Detector records at mini."""
    records = study.reference_detectors() if records is None else records
    return {version: record for version, record in records.items() if record.scale == "mini"}


def _table(groups: Mapping[str, list[Record]], boxes: Mapping[str, Record]) -> pd.DataFrame:
    """Rows of Table 4 as text."""
    rows = {}
    for title, name in ROWS.items():
        records, row = groups.get(name, []), {}
        for source, place in _PLACES.items():
            for measure in (PERSON_AP, PRECISE_AP):
                row[f"{place} {measure}"] = _box_text(boxes, name, source, measure)
            row[f"{place} {ACTION_AP}"] = scores.mean_text(records, source)
        rows[title] = row | {"seeds": len({record.experiment["seed"] for record in records})}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("detector")


def _box_ap(boxes: Mapping[str, Record], version: str, source: str, name: str) -> float:
    return percent(boxes[version].metrics[source][name]) if version in boxes else nan


def _box_text(boxes: Mapping[str, Record], version: str, source: str, name: str) -> str:
    """An AP of a version's boxes; "-" for ground truth, as the paper prints."""
    if version == "ground-truth":
        return "-"
    ap = _box_ap(boxes, version, source, name)
    return NOT_RUN if isnan(ap) else f"{ap:.2f}"


def _bounds(records: list[Record], source: str) -> dict:
    mean, half = interval(percent(record.metrics[source]["mAP"]) for record in records)
    return {"mAP": mean, "low": mean - half, "high": mean + half, "seeds": len(records)}

"""What figures read from finished runs: logs, frames, single classes, lost AP, counts of a file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reading import make_record, require_readable, words

from stadlib import recipes, study
from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data import clips
from stadlib.data.keyframes import Keyframe
from stadlib.data.layout import AVA_ACTIONS, LabelMap
from stadlib.recipes.experiment import Detections, Experiment
from stadlib.report import frames, publish, runs
from stadlib.study import Record, write_record
from stadlib.training import predictions, stages

LABELS = LabelMap({action: AVA_ACTIONS[action] for action in (12, 79, 80)})
BOXES = np.array([[0.1, 0.2, 1 / 3, 0.9], [0.5, 0.2, 0.7, 0.9]], dtype=np.float32)


def keyframe(source: str, second: float, persons: int = 2) -> Keyframe:
    actions = np.array([[True, False, True], [False, True, False]])[:persons]
    ids = np.arange(persons)
    return Keyframe(source, f"{source}_movie", second, BOXES[:persons], actions, ids)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """A finished run over 8 keyframes of AVA, of one or two persons, and 4 of Kinetics."""
    data = {
        "ava": [keyframe("ava", 902 + i, 1 + i % 2) for i in range(8)],
        "kinetics": [keyframe("kinetics", 5.016949 + i) for i in range(4)],
    }

    def annotated(layout, sources, split):
        return [keyframe for source in sources for keyframe in data[source]]

    def read_frames(path, times):
        return torch.full((1, 3, 8, 12), int(times[0]), dtype=torch.uint8)

    monkeypatch.setattr(stages, "annotated", annotated)
    monkeypatch.setattr(clips, "read_frames", read_frames)
    monkeypatch.setattr(predictions, "scored_keyframes", lambda run: run.scored)
    layout = SimpleNamespace(
        label_map=lambda: LABELS,
        video_file=lambda source, video: Path(f"{video}.mp4"),
        video_start=lambda source, video: 900.0 if source == "ava" else 0.0,
    )
    run = SimpleNamespace(layout=layout, scored=[*data["ava"], *data["kinetics"]])
    monkeypatch.setattr(study, "open_run", lambda record: run)
    for source, keyframes in data.items():
        rows = [
            f"{k.key},{','.join(f'{value:.6f}' for value in box)},{action},0.{person}{action}\n"
            for k in keyframes
            for person, box in enumerate(k.boxes)
            for action in LABELS.ids
        ]
        (tmp_path / f"detections_{source}.csv").write_text("".join(rows))
    made = make_record(Experiment(), {}, {}, tmp_path)
    write_record(made, tmp_path / "record.json")
    return made


FIRST = [
    [("is: stand, watch a person", "plain")],
    [("watch a person .08", "strong"), ("talk to .08", "faint"), ("stand .01", "strong")],
]


def test_examples_show_every_persons_own_scores(record: Record):
    shown = runs.examples(record, count=4)
    assert [frame.title.split(":")[0] for frame in shown] == ["ava", "ava", "kinetics", "kinetics"]
    for frame in shown:
        assert [mark.text for mark in frame.marks] == ["1", "2"]
        assert [line.person for line in frame.lines] == [0, None, 1, None]
        assert [line.words for line in frame.lines[:2]] == FIRST
        assert frame.lines[2].words == [("is: talk to", "plain")]
        assert ("talk to .18", "strong") in frame.lines[3].words
    assert shown[0].picture.shape == (8, 12, 3)
    assert shown[0].picture[0, 0, 0] == 3  # 903 s on the clock of a movie cut at 900 s
    require_readable(frames.frame_grid(shown))


def test_a_detected_person_has_the_actions_of_the_one_it_overlaps(record: Record, monkeypatch):
    first = study.open_run(record).scored[1]
    moved = BOXES.copy()
    moved[0] += 0.01  # still the first person; the second box is moved away from all
    moved[1] = [0.8, 0.0, 0.9, 0.1]
    detected = replace(first, boxes=moved, actions=np.zeros((2, 3), bool))
    monkeypatch.setattr(predictions, "scored_keyframes", lambda run: [detected])
    (frame,) = runs.examples(record, count=1)
    assert frame.lines[0].words == FIRST[0]
    assert frame.lines[2].words == [("is: no label", "plain")]
    assert not frame.lines[1].words, "its detection file holds the annotated boxes"


def test_class_counts_are_persons_by_source(record: Record):
    counts = publish.class_counts(record)
    assert counts["ava"].to_dict() == {12: 8, 79: 4, 80: 8}
    assert counts["kinetics"].to_dict() == {12: 4, 79: 4, 80: 4}
    assert counts.loc[12, "name"] == "stand"


def test_training_log_of_the_last_stage(record: Record, tmp_path: Path):
    stage = tmp_path.parent / "stages" / Experiment().stage_digest(1)
    with pytest.raises(InputError, match=r"log\.jsonl: no such log"):
        runs.training_log(record)
    stage.mkdir(parents=True)
    lines = [{"iteration": i, "loss": 0.5, "lr": 0.01, "seconds": i} for i in (0, 5)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (stage / "log.jsonl").write_text(text)
    assert runs.training_log(record)["iteration"].tolist() == [0, 5]


READERS = {
    "examples": runs.examples,
    "box_examples": runs.box_examples,
    "lost": runs.lost,
    "training_log": runs.training_log,
    "training_ap": runs.training_ap,
    "precision_recall": lambda record: runs.precision_recall(record, [12]),
    "class_differences": lambda record: runs.class_differences(record, record),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_bare_record_has_no_run(read, tmp_path: Path):
    for folder in (None, tmp_path):
        bare = replace(make_record(Experiment(), {}, {}, tmp_path), folder=folder)
        with pytest.raises(InputError, match=r"record [0-9a-f]{12}: .* not on this machine"):
            read(bare)


@pytest.fixture(scope="module")
def pair():
    rows = recipes.table3(scale="smoke", detector="ground-truth")
    return study.run(rows["before"]), study.run(rows["after"])


def test_class_readers_agree_with_the_records(pair):
    before, after = pair
    table = runs.class_differences(after, before, num_resamples=50)
    for action, row in table.iterrows():
        aps = [record.metrics["ava"]["AP"][str(action)] for record in (after, before)]
        assert row["gain"] == pytest.approx(100 * (aps[0] - aps[1]), abs=1e-9)
        assert row["low"] <= row["high"]
    for recall, precision in runs.precision_recall(before, [12, 14]).values():
        assert (np.diff(recall) >= 0).all() and recall[-1] == 1  # ground-truth boxes: all found
        assert (precision <= 1).all()
    training, validation = runs.training_ap(before), before.metrics["ava"]["AP"]
    assert training.between(0, 100).sum() > 20
    assert any(abs(training[int(a)] - 100 * v) > 1 for a, v in validation.items() if v is not None)


def test_a_person_is_found_once():
    truth = np.array([[0, 0, 0.4, 1], [0.5, 0, 0.9, 1]], float)
    boxes = np.array([[0, 0, 0.4, 0.9], [0, 0, 0.4, 1], [0.7, 0, 0.9, 1], [0.45, 0, 0.5, 1]], float)
    hits, found = runs.match_persons(boxes, truth)
    assert hits.tolist() == [True, False, True, False]  # IoU 0.9, taken, 0.5, beside
    assert found.tolist() == [True, True]
    assert runs.match_persons(boxes, truth[:0])[0].tolist() == [False] * 4
    assert runs.match_persons(boxes[:0], truth)[1].tolist() == [False] * 2


@pytest.fixture
def detected(tiny_dataset: Path, tmp_path: Path) -> Record:
    """A finished run: AVA's person is found after a false box, Kinetics' is missed."""
    root, folder = shutil.copytree(tiny_dataset, tmp_path / "data"), tmp_path / "run"
    files = {
        root / "boxes/v3_ava_val.csv": "b,901,0.1,0.1,0.2,0.2,,0.9\n"
        "b,901,0.25,0.25,0.75,0.75,,0.8\nb,901,0,0,1,1,,0.3\n",
        root / "boxes/v3_kinetics_val.csv": "",
        folder / "detections_ava.csv": "b,901,0.1,0.1,0.2,0.2,14,0.9\n"
        "b,901,0.25,0.25,0.75,0.75,14,0.8\n",
        folder / "detections_kinetics.csv": "",
    }
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    used = {"detector": "v3", "detections": Detections(threshold=0.5)}
    made = make_record(Experiment(scale="smoke", dataset=str(root), **used), {}, {}, folder)
    write_record(made, folder / "record.json")
    return made


def test_box_examples_tell_found_false_and_missed_apart(detected: Record):
    ava, kinetics = runs.box_examples(detected, count=2)
    assert ava.title == "AVA: b, 901 s" and kinetics.title.startswith("Kinetics: c, 5.01")
    assert ava.picture.dtype == np.uint8 and ava.picture.shape == (48, 64, 3)
    shown = [(mark.color, mark.text) for mark in ava.marks]  # 0.3 is below the threshold
    assert shown == [("white", ""), (runs.FALSE, ".90"), (runs.FOUND, ".80")]
    assert [mark.color for mark in kinetics.marks] == [runs.MISSED]
    assert len(runs.box_examples(detected, count=9)) == 2  # no frame twice
    figure = frames.frame_grid([ava, kinetics], columns=3, legend=runs.BOX_LEGEND)
    require_readable(figure)
    assert {".90", ".80", "▪▪▪ annotated, missed"} <= words(figure)


def test_ground_truth_boxes_find_everybody(detected: Record):
    experiment = {k: v for k, v in detected.experiment.items() if k != "detections"}
    truth = replace(detected, experiment={**experiment, "detector": "ground-truth"})
    for frame in runs.box_examples(truth, count=2):
        shown = [(mark.color, mark.text) for mark in frame.marks]
        assert shown == [("white", ""), (runs.FOUND, "1.00")]


def test_lost_ap_is_a_mean_over_classes(detected: Record):
    table = runs.lost(detected)
    # The person's AP is 1/2 as a false box comes first; without it, 1.
    nothing = dict.fromkeys(runs.LOSSES, 0)
    assert table.loc["AVA"].to_dict() == pytest.approx(nothing | {"false boxes": 50})
    assert table.loc["Kinetics"].to_dict() == pytest.approx(nothing | {"missed persons": 100})


def test_classes_are_counted_and_samplers_shift_their_shares(tiny_dataset, tmp_path):
    counted = runs.class_statistics(tiny_dataset / "annotations" / "ava_train_v2.2.csv")
    assert counted.loc[12, ["persons", "keyframes"]].tolist() == [2, 2]
    assert counted.loc[80, ["persons", "keyframes"]].tolist() == [1, 1]
    assert counted["persons"].sum() == 3  # a class that is not evaluated is left out
    assert counted.index[0] == 12 and len(counted) == 60
    assert counted.loc[12, "instance"] == 1
    assert counted.loc[80, "instance"] == pytest.approx(0.5, abs=0.02)
    assert counted.loc[80, "class-balanced"] == pytest.approx(0.75, abs=0.02)
    assert (counted.loc[counted["persons"] == 0, "class-balanced"] == 0).all()
    (tmp_path / "none.csv").write_text("a,0902\n")
    with pytest.raises(InputError, match="no person of an evaluated class"):
        runs.class_statistics(tmp_path / "none.csv")


def test_the_command_prints_and_draws(tiny_dataset, tmp_path, capsys):
    file = str(tiny_dataset / "annotations" / "ava_train_v2.2.csv")
    assert main(["classes", file, "--out", str(tmp_path / "out.png")]) == 0
    assert "class-balanced" in capsys.readouterr().out
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert main(["classes", str(tmp_path / "nothing.csv")]) == 1
    assert "nothing.csv" in capsys.readouterr().err

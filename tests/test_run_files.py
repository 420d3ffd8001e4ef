"""What figures read from a run's folder: the log, the data's counts, scored keyframes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stadlib import study
from stadlib.base import InputError
from stadlib.data import video
from stadlib.data.keyframes import Keyframe
from stadlib.data.labels import AVA_ACTIONS, LabelMap
from stadlib.recipes.experiment import Experiment
from stadlib.report import runs
from stadlib.study import Record, make_record, write_record

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
    workspace = SimpleNamespace(
        SOURCES=("ava", "kinetics"),
        annotated=lambda layout, sources, split: [k for s in sources for k in data[s]],
        scored_keyframes=lambda run: scored,
    )
    layout = SimpleNamespace(
        label_map=lambda: LABELS,
        video_file=lambda source, video: Path(f"{video}.mp4"),
        video_start=lambda source, video: 900.0 if source == "ava" else 0.0,
    )
    scored = [k for keyframes in data.values() for k in keyframes]
    run = SimpleNamespace(layout=layout, scored=scored)
    monkeypatch.setattr(study, "open_run", lambda record: (workspace, run))
    monkeypatch.setattr(
        video,
        "read_frames",
        lambda path, times: torch.full((1, 3, 8, 12), int(times[0]), dtype=torch.uint8),
    )
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


def test_examples_show_every_persons_own_scores(record: Record) -> None:
    examples = runs.examples(record, count=4)
    assert [len(example.boxes) for example in examples] == [2] * 4
    sources = [example.title.split(":")[0] for example in examples]
    assert sources == ["ava", "ava", "kinetics", "kinetics"]
    for example in examples:
        assert example.truths == [[12, 80], [79]]
        assert example.scores[0] == pytest.approx({12: 0.012, 79: 0.079, 80: 0.08})
        assert example.scores[1] == pytest.approx({12: 0.112, 79: 0.179, 80: 0.18})
    assert examples[0].frame.shape == (8, 12, 3)
    assert examples[0].frame[0, 0, 0] == 3  # 903 s on the clock of a movie cut at 900 s


def test_a_detected_person_has_the_actions_of_whom_it_overlaps(record: Record, monkeypatch) -> None:
    _, run = study.open_run(record)
    moved = BOXES.copy()
    moved[0] += 0.01  # still the first person; the second box is moved away from everybody
    moved[1] = [0.8, 0.0, 0.9, 0.1]
    nothing = np.zeros((2, 3), dtype=bool)
    ids = np.full(2, -1)
    first = run.scored[1]
    found = Keyframe("ava", first.video, first.timestamp, moved, nothing, ids)
    monkeypatch.setattr(study.open_run(record)[0], "scored_keyframes", lambda run: [found])
    (example,) = runs.examples(record, count=1)
    assert example.truths == [[12, 80], []]
    assert example.scores == [{}, {}], "its detection file holds the annotated boxes"


def test_class_counts_are_persons_by_source(record: Record) -> None:
    counts = study.class_counts(record)
    assert counts["ava"].to_dict() == {12: 8, 79: 4, 80: 8}
    assert counts["kinetics"].to_dict() == {12: 4, 79: 4, 80: 4}
    assert counts.loc[12, "name"] == "stand"


def test_training_log_of_the_last_stage(record: Record, tmp_path: Path) -> None:
    stage = tmp_path.parent / "stages" / Experiment().stage_digest(1)
    with pytest.raises(InputError, match=r"log\.jsonl: no such log"):
        runs.training_log(record)
    stage.mkdir(parents=True)
    lines = [{"iteration": i, "loss": 0.5, "lr": 0.01, "seconds": i} for i in (0, 5)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (stage / "log.jsonl").write_text(text)
    log = runs.training_log(record)
    assert log["iteration"].tolist() == [0, 5]


def test_a_bare_record_has_no_run(record: Record, tmp_path: Path) -> None:
    (tmp_path / "record.json").unlink()
    with pytest.raises(InputError, match=r"record [0-9a-f]{12}: its run is not on this machine"):
        runs.examples(record)

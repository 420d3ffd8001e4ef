"""Trained detectors: what is shared, what a kill changes (nothing), whose boxes a file holds."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from stadlib.base import InputError, data_dir
from stadlib.data import clips
from stadlib.data.boxes import read_person_boxes
from stadlib.data.keyframes import moments
from stadlib.data.layout import AvaLayout
from stadlib.models.person_detector import GFocalV2, gfocal_mini
from stadlib.recipes.experiment import Experiment
from stadlib.recipes.scales import DETECTOR_SCALES, DETECTORS, detector_digest
from stadlib.training import detector, processes
from stadlib.training.detector import detection_loss
from stadlib.training.loop import Schedule, fit, read_weights
from stadlib.training.pretraining import prepare_data


class Interrupted(Exception):
    pass


class Watch:
    """Makes progress that notes which tasks ran, and how far; may interrupt one."""

    def __init__(self, task: str = "", stop_after: int = -1) -> None:
        self.task, self.stop_after = task, stop_after
        self.tasks: dict[str, int] = {}

    def __call__(self, task: str):
        def report(done: int, total: int, text: str = "") -> None:
            self.tasks[task] = self.tasks.get(task, 0) + 1
            if task == self.task and done == self.stop_after:
                raise Interrupted

        return report

    @property
    def trained(self) -> dict[str, int]:
        """Iterations by stage."""
        return {task: count for task, count in self.tasks.items() if task.startswith("train")}


def folder(version: str, number: int):
    return data_dir() / "detectors" / detector_digest(version, "smoke", number)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = (one.state_dict(), other.state_dict())
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.fixture(scope="module")
def first() -> GFocalV2:
    """The first version at smoke scale."""
    return detector.trained_detector("v1", "smoke", Watch())


def own_folder(monkeypatch, path) -> None:
    """Weights go there; rendered data stays where it is."""
    monkeypatch.setattr(detector, "data_dir", lambda: path)


# -------------------------------------------------------------------------------------- training


def test_a_second_call_reads_the_weights(first):
    watch = Watch()
    again = detector.trained_detector("v1", "smoke", watch)
    assert not watch.tasks and same(first, again)
    stages = DETECTORS["v1"]
    assert [stage.data for stage in stages] == [("stills",), ("ava",)]
    for number, stage in enumerate(stages, 1):
        content = read_weights(folder("v1", number) / "checkpoint.pt", folder("v1", number).name)
        expected = max(1, round(DETECTOR_SCALES["smoke"].iterations * stage.share))
        assert content["iteration"] == expected
        log = (folder("v1", number) / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["iteration"] for line in log] == [*range(expected)]


@pytest.fixture(scope="module")
def second(first, tmp_path_factory):
    """The second version, trained beside a copy of the stage that it begins with.

    Also where, which tasks ran, and from which lists the pictures were.
    """
    place, watch, seen = tmp_path_factory.mktemp("second"), Watch(), Counter()
    shutil.copytree(folder("v2", 1), place / "detectors" / folder("v2", 1).name)
    read = clips.PictureDataset.__getitem__

    def noted(self, key):
        seen[self.pictures[key[0]].path.parent.name] += 1
        return read(self, key)

    with pytest.MonkeyPatch.context() as patch:
        own_folder(patch, place)
        patch.setattr(clips.PictureDataset, "__getitem__", noted)
        return detector.trained_detector("v2", "smoke", watch), place, watch, seen


def test_versions_begin_alike_and_the_stage_on_stills_is_trained_once(first, second):
    assert len({folder(version, 1) for version in DETECTORS}) == 1
    assert len({folder(version, 2) for version in DETECTORS}) == 3
    other, place, watch, _ = second
    assert {*watch.trained} == {"train detector v2, stage 2"}
    shared = (root / "detectors" / folder("v1", 1).name for root in (data_dir(), place))
    before, after = ((of / "checkpoint.pt").read_bytes() for of in shared)
    assert before == after
    assert not same(first, other)


def test_every_parameter_learns_in_every_stage(first):
    torch.manual_seed(0)
    before = detector.build_detector("smoke").state_dict()
    for number in (1, 2):
        path = folder("v1", number) / "checkpoint.pt"
        after = read_weights(path, path.parent.name)["model"]
        names = [name for name, _ in first.named_parameters()]
        assert not [name for name in names if torch.equal(before[name], after[name])]
        before = after


@pytest.mark.parametrize(
    ("task", "stop_after"), [("train detector v1, stage 1", 13), ("train detector v1, stage 2", 5)]
)
def test_interrupted_equals_uninterrupted_bit_for_bit(
    first, tmp_path, monkeypatch, task, stop_after
):
    own_folder(monkeypatch, tmp_path)
    if task.endswith("stage 2"):
        shutil.copytree(folder("v1", 1), tmp_path / "detectors" / folder("v1", 1).name)
    watch = Watch(task, stop_after)
    with pytest.raises(Interrupted):
        detector.trained_detector("v1", "smoke", watch)
    assert watch.trained[task] == stop_after
    watch = Watch()
    again = detector.trained_detector("v1", "smoke", watch)
    assert 0 < watch.trained[task] < DETECTOR_SCALES["smoke"].iterations
    assert same(first, again)


def test_lists_are_drawn_in_turns(second):
    """Keyframes of AVA and Kinetics as often, although AVA has many more."""
    *_, drawn = second
    assert {*drawn} == {"ava", "kinetics"} and drawn["ava"] == drawn["kinetics"]
    numbers = DETECTOR_SCALES["smoke"]
    assert drawn.total() == numbers.batch * round(numbers.iterations * DETECTORS["v2"][1].share)


def few_steps(path) -> dict[str, torch.Tensor]:
    """Batches of four pictures with 3, 0, 1 and 0 persons, shared by the processes."""
    torch.manual_seed(0)
    model = gfocal_mini((64,), 96).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # a norm sees its own process's pictures alone
    persons = torch.tensor(
        [[2.0, 3.0, 40.0, 60.0], [30.0, 1.0, 63.0, 50.0], [5.0, 5.0, 44.0, 48.0]]
    )
    boxes = [persons, persons[:0], persons[1:2], persons[:0]]

    def batches(start: int):
        for iteration in range(start, 3):
            generator = torch.Generator().manual_seed(iteration)
            pictures = torch.randint(256, (4, 3, 64, 64), generator=generator)
            mine = slice(processes.rank(), None, processes.num_processes())
            yield list(pictures.to(torch.uint8))[mine], boxes[mine]

    schedule = Schedule(iterations=3, lr=0.01)
    watch = Watch()("few steps")
    fit(model, detection_loss, batches, schedule, folder=path, digest="d", progress=watch)
    return model.state_dict()


def test_two_processes_take_the_steps_of_one(tmp_path, pair):
    """Persons and weights are counted over both, however they are spread."""
    alone, (together, _) = few_steps(tmp_path / "one"), pair.run(few_steps, tmp_path / "two")
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-6)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    losses = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) == 3


# --------------------------------------------------------------------------------------- opening


def test_a_detector_is_named_by_how_it_was_made(first):
    model, name = detector.open_detector("v1", "smoke", Watch())
    assert name == f"v1-{detector_digest('v1', 'smoke')}" and same(model, first)
    path = folder("v1", 2) / "checkpoint.pt"
    of_file, name = detector.open_detector(str(path), "smoke", Watch())
    assert same(of_file, first)
    assert name.startswith("checkpoint.pt ") and name.endswith(" of smoke size")


def test_the_papers_size_needs_weights_of_imagenet(tmp_path, monkeypatch):
    own_folder(monkeypatch, tmp_path)
    with pytest.raises(InputError, match=r"pretrained/resnet101\.pth: no such file; put torch"):
        detector.trained_detector("v1", "paper", Watch())


# --------------------------------------------------------------------------------------- box files


def test_a_rendered_worlds_boxes_are_found_by_the_detector_of_that_digest(first):
    experiment = Experiment(scale="smoke", detector="v1")
    layout = prepare_data(experiment, Watch())
    path = layout.person_boxes(experiment.boxes_name, "kinetics", "val")
    assert path.name == f"v1-{detector_digest('v1', 'smoke')}_kinetics_val.csv"
    path.unlink(missing_ok=True)
    watch = Watch()
    detector.make_boxes(experiment, layout, "kinetics", "val", watch)
    assert {*watch.tasks} == {"detect kinetics_val"}
    seconds = moments(layout, "kinetics", "val")
    boxes = read_person_boxes(path)
    found = zip(boxes["video"], boxes["timestamp"], strict=True)
    assert {(video, f"{t:.6f}") for video, t in found} <= {(v, f"{t:.6f}") for v, t in seconds}


def test_of_two_runs_that_need_boxes_at_once_the_second_waits(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path))
    experiment, layout = Experiment(scale="smoke", detector="v2"), AvaLayout(tmp_path / "world")
    made = []

    def detect(model, frames, path, name, progress):
        made.append(path.name)
        time.sleep(0.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setattr(detector, "trained_detector", lambda *_: None)
    monkeypatch.setattr(detector, "frames_of_dataset", lambda *_: [])
    monkeypatch.setattr(detector, "detect_persons", detect)
    words = (experiment, layout, "ava", "val", lambda _: None)
    runs = [threading.Thread(target=detector.make_boxes, args=words) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert made == [f"{experiment.boxes_name}_ava_val.csv"]
    assert "another run makes it; waiting" in capsys.readouterr().out


def test_of_two_that_train_a_stage_at_once_the_second_waits(tmp_path, monkeypatch):
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path))
    inside, most = [], []

    def fit(*_, folder, **options):
        inside.append(folder)
        most.append(inside.count(folder))
        time.sleep(0.2)
        inside.remove(folder)

    monkeypatch.setattr(detector, "fit", fit)
    words = ("v1", "smoke", lambda _: None)
    runs = [threading.Thread(target=detector.trained_detector, args=words) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert most == [1] * 3 * len(DETECTORS["v1"])


def test_other_numbers_are_another_detector_with_files_of_its_own(monkeypatch):
    experiment = Experiment(scale="smoke", detector="v1")
    names = {replace(experiment, detector=version).boxes_name for version in DETECTORS}
    assert len(names) == 3
    changed = replace(DETECTOR_SCALES["smoke"], iterations=21)
    monkeypatch.setitem(DETECTOR_SCALES, "smoke", changed)
    assert experiment.boxes_name not in names and experiment.boxes_name.startswith("v1-")


def test_real_data_needs_its_box_file(tiny_dataset, tmp_path):
    """Nothing is trained for it: the answer names the file and how to make it."""
    root = shutil.copytree(tiny_dataset, tmp_path / "own")
    layout, watch = AvaLayout(root), Watch()
    experiment = Experiment(scale="smoke", detector="v2", dataset=str(root))
    with pytest.raises(InputError) as caught:
        detector.make_boxes(experiment, layout, "ava", "val", watch)
    line = str(caught.value)
    assert line.startswith(f"{root}/boxes/v2_ava_val.csv: no boxes of v2")
    assert f"stadlib detect --data {root} " in line and line.endswith("--as v2")
    assert not watch.tasks


def test_bfloat16_gives_nearly_the_same_and_boxes_and_losses_in_float32(first):
    """Autocast reaches the networks alone; without it no bit depends on its being there."""
    torch.manual_seed(0)
    pictures = list(torch.rand(2, 3, 72, 104))
    batch = pictures, [{"boxes": torch.tensor([[10.0, 8.0, 60.0, 70.0]])}] * 2
    sums, maps = [], []
    handle = first.body.register_forward_hook(lambda *of: maps.append(of[2]["0"].dtype))
    for half in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            sums.append(first.train()(*batch))
    handle.remove()
    assert maps == [torch.float32, torch.bfloat16]
    for exact, rounded in zip(sums[0][:3], sums[1][:3], strict=True):
        assert exact.dtype == rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)
    assert not detector._half(first)  # a small one, and not on a GPU

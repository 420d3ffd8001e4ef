"""Public detectors of AVA's actions give their publishers' logits; boxes of a file find people."""

from __future__ import annotations

import csv
import json
import math
import pickle
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import roi_align
from untrained_networks import silent

from stadlib.base import ConfigError, InputError
from stadlib.cli import main
from stadlib.data import boxes, prepare
from stadlib.data.clips import Sampling, collate, one_clip
from stadlib.data.keyframes import read_keyframes
from stadlib.data.layout import AVA_ACTIONS, AvaLayout
from stadlib.data.transforms import resize_as_mmaction2, resize_as_pytorchvideo
from stadlib.data.video import read_frames, write_video
from stadlib.models import networks, public_detectors, published
from stadlib.models.heads import no_memory
from stadlib.training import detector as training
from stadlib.video import predict, scorer

BOXES = [[0.1, 0.2, 0.45, 0.9], [0.4, 0.05, 1.0, 1.0], [0.0, 0.0, 0.3, 0.6]]  # some end at an edge
IDS = tuple(AVA_ACTIONS)
SIDE = 96  # instead of 256 pixels, which only takes longer


def random_values(state: dict, seed: int = 0) -> dict:
    """Values of a network that pass signals on; variances are positive."""
    generator, values = torch.Generator().manual_seed(seed), {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            values[name] = tensor
            continue
        draw = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            draw *= (2 / tensor[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            draw = 1 + 0.5 * draw.abs()
        elif name.endswith("weight"):
            draw = 0.5 + 0.1 * draw
        else:
            draw = 0.1 * draw
        values[name] = draw
    return values


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Two and a half seconds at 30 frames a second of a moving pattern, in an odd size."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    rows, columns = np.mgrid[:180, :250]
    frames = [
        np.stack(
            [128 + columns / 2 * np.sin((k * rows + columns + 5 * i) / 17) for k in (0, 1, 2)], -1
        )
        for i in range(75)
    ]
    write_video(path, np.stack(frames).astype(np.uint8), fps=30)
    return path


def clip_at(path: Path, row: published.Published, view) -> tuple:
    """Ours: the clip at second 1 and its boxes as the detector takes them; and all frames."""
    num_frames, stride = map(int, row.frames.split("x"))
    sampling = Sampling(num_frames, stride / 30)
    frames = read_frames(path, sampling.times(1.0))
    actions = np.zeros((len(BOXES), 60), np.float32)
    clip = one_clip(frames, np.array(BOXES, np.float32), actions, ("", "", 1.0), view)
    return collate([clip], multiple=1), read_frames(path, [i / 30 for i in range(75)])


def logits(model, batch) -> torch.Tensor:
    memory = no_memory(1, model.fusion.width)
    with torch.inference_mode():
        found, _ = model(
            batch.clips_BCTHW,
            batch.boxes_N4,
            batch.counts_B,
            batch.sizes,
            batch.boxes_norm_N4,
            memory,
        )
    return found


def frame_numbers(row: published.Published, centre: int, last: int) -> list[int]:
    """PySlowFast's ``get_sequence``, by which pytorchvideo's detectors were trained."""
    num_frames, stride = map(int, row.frames.split("x"))
    half = num_frames * stride // 2
    return [min(max(i, 0), last) for i in range(centre - half, centre + half, stride)]


def as_in_the_tutorial(frames_TCHW, boxes_N4, side: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """pytorchvideo's ``ava_inference_transform``, step by step."""
    clip = frames_TCHW.transpose(0, 1).float() / 255
    height, width = clip.shape[2:]
    rows = boxes_N4 * np.array([width, height] * 2)
    rows = np.minimum(rows, np.array([width, height] * 2) - 1.0)
    if width < height:
        size = math.floor(height / width * side), side
        rows *= size[0] / height
    else:
        size = side, math.floor(width / height * side)
        rows *= size[1] / width
    clip = F.interpolate(clip, size=size, mode="bilinear", align_corners=False)
    clip = (clip - 0.45) / 0.225
    rows = np.minimum(rows, np.array([size[1], size[0]] * 2) - 1.0)
    return clip[None], torch.cat([torch.zeros(len(rows), 1), torch.tensor(rows).float()], dim=1)


@pytest.mark.parametrize("name", ["slow-50-ava", "slowfast-50-ava"])
def test_logits_are_pytorchvideo_s(name, film, tmp_path, monkeypatch):
    from pytorchvideo.models.hub import slow_r50_detection, slowfast_r50_detection

    monkeypatch.setenv("STADLIB_DATA", str(tmp_path))
    row = published.DETECTORS[name]
    theirs = slow_r50_detection() if name == "slow-50-ava" else slowfast_r50_detection()
    theirs.load_state_dict(random_values(theirs.state_dict()))
    theirs.eval().detection_head.activation = None  # the sigmoid
    row.path.parent.mkdir()
    torch.save({"model_state": theirs.state_dict(), "epoch": 20}, row.path)

    model, report = public_detectors.load(row, IDS, silent(""))
    assert report.naming == "pytorchvideo" and report.left_over == () and report.head == 2
    batch, frames = clip_at(film, row, partial(resize_as_pytorchvideo, short_side=SIDE))
    clip, rois = as_in_the_tutorial(frames[frame_numbers(row, 30, 74)], np.array(BOXES), SIDE)
    if name == "slowfast-50-ava":
        slow = torch.linspace(0, clip.shape[2] - 1, clip.shape[2] // 4).long()
        clip = [clip[:, :, slow], clip]
    with torch.inference_mode():
        expected = theirs(clip, rois)
    # Output 0 is AVA's action 1 (PySlowFast: ``label_arrs[i][label - 1] = 1``).
    expected = expected[:, [action - 1 for action in IDS]]
    assert expected.std() > 0.1 and (expected[0] - expected[1]).abs().max() > 0.02
    torch.testing.assert_close(logits(model, batch), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("resize", "width"), [(resize_as_pytorchvideo, 355), (resize_as_mmaction2, 356)]
)
def test_clips_are_256_pixels_high(film, resize, width):
    batch, _ = clip_at(film, published.DETECTORS["slow-50-ava"], resize)
    assert batch.sizes == [(256, width)]


class Bottleneck(nn.Module):
    """A block of mmaction2's ``resnet3d.py`` under its names."""

    def __init__(self, inputs: int, width: int, stride: int, inflate: bool) -> None:
        super().__init__()
        kernel = (3, 1, 1) if inflate else 1
        self.conv1 = convolution(inputs, width, kernel, 1, (1, 0, 0) if inflate else 0)
        self.conv2 = convolution(width, width, (1, 3, 3), (1, stride, stride), (0, 1, 1))
        self.conv3 = convolution(width, 4 * width, 1, 1, 0)
        if stride != 1 or inputs != 4 * width:
            self.downsample = convolution(inputs, 4 * width, 1, (1, stride, stride), 0)

    def forward(self, x):
        identity = through(self.downsample, x) if hasattr(self, "downsample") else x
        out = through(self.conv2, through(self.conv1, x).relu()).relu()
        return (through(self.conv3, out) + identity).relu()


def convolution(inputs, outputs, kernel, stride, padding) -> nn.ModuleDict:
    conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.ModuleDict({"conv": conv, "bn": nn.BatchNorm3d(outputs)})


def through(module, x):
    return module["bn"](module["conv"](x))


class SlowOnly(nn.Module):
    """mmaction2's ``slowonly_..._16x4x1-10e-tricks_ava-kinetics-rgb``, from its own files."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv1 = convolution(3, 64, (1, 7, 7), (1, 2, 2), (0, 3, 3))
        inputs = 64
        for stage, (blocks, stride) in enumerate(zip((3, 4, 6, 3), (1, 2, 2, 1), strict=True)):
            width, layer = 64 * 2**stage, []
            for block in range(blocks):
                layer.append(Bottleneck(inputs, width, stride if block == 0 else 1, stage >= 2))
                inputs = 4 * width
            setattr(self.backbone, f"layer{stage + 1}", nn.Sequential(*layer))
        self.roi_head = nn.Module()
        self.roi_head.bbox_head = nn.Module()
        self.roi_head.bbox_head.fc_cls = nn.Sequential(
            nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 81)
        )

    def forward(self, clip, rois):
        x = through(self.backbone.conv1, clip).relu()
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for stage in (1, 2, 3, 4):
            x = getattr(self.backbone, f"layer{stage}")(x)
        x = x.max(dim=2).values
        persons = roi_align(x, rois, 8, 1 / 16, 0, aligned=True)
        scene = F.adaptive_avg_pool2d(x, 8)[rois[:, 0].long()]
        features = torch.cat([persons, scene], dim=1).amax(dim=(2, 3))
        return self.roi_head.bbox_head.fc_cls(features)


def test_logits_are_mmaction2_s(film, tmp_path, monkeypatch):
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path))
    row = published.DETECTORS["slowonly-50-ava-kinetics"]
    theirs = SlowOnly()
    theirs.load_state_dict(random_values(theirs.state_dict()))
    theirs.eval()
    row.path.parent.mkdir()
    torch.save({"state_dict": theirs.state_dict(), "meta": {"epoch": 10}}, row.path)

    model, report = public_detectors.load(row, IDS, silent(""))
    assert report.naming == "mmaction2" and report.left_over == () and report.head == 4
    assert report.eps is None, "its norms have the eps of ours"
    batch, frames = clip_at(film, row, partial(resize_as_mmaction2, short_side=SIDE))
    size = int(250 * SIDE / 180 + 0.5), SIDE  # width and height
    sized = [
        cv2.resize(np.ascontiguousarray(frame.permute(1, 2, 0).numpy()), size)
        for frame in frames[frame_numbers(row, 30, 74)]
    ]
    mean, std = (
        torch.tensor(numbers) for numbers in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    )
    clip = ((torch.from_numpy(np.stack(sized)).float() - mean) / std).permute(3, 0, 1, 2)
    rois = torch.tensor(BOXES) * torch.tensor([*size] * 2)
    rois = torch.cat([torch.zeros(len(rois), 1), rois], dim=1)
    with torch.inference_mode():
        expected = theirs(clip[None], rois)
    # Output 0 is the background, output 1 AVA's action 1 (``det2csv``: ``label + 1``).
    expected = expected[:, list(IDS)]
    assert expected.std() > 0.1 and (expected[0] - expected[1]).abs().max() > 0.02
    torch.testing.assert_close(logits(model, batch), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(256, 340), (90, 51), (480, 854)])
def test_upright_and_large_frames_are_scaled_as_in_the_tutorial(size):
    frames = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    actions, own = np.zeros((3, 60), np.float32), np.array(BOXES, np.float32)
    batch = collate([one_clip(frames, own, actions, ("", "", 0.0), resize_as_pytorchvideo)], 1)
    clip, rois = as_in_the_tutorial(frames, np.array(BOXES))
    normal = networks.Normalize()(batch.clips_BCTHW)
    torch.testing.assert_close(normal, clip, atol=1e-4, rtol=0)
    torch.testing.assert_close(batch.boxes_N4, rois[:, 1:], atol=1e-3, rtol=1e-5)


# A file of another network, and one that cannot be fetched.


@pytest.fixture(scope="module")
def slow_state() -> dict:
    from pytorchvideo.models.hub import slow_r50_detection

    state = random_values(slow_r50_detection().state_dict())
    state["detection_head.proj.bias"] -= 1  # some scores are shown, not all
    return state


@pytest.fixture
def slow_file(slow_state, tmp_path, monkeypatch) -> tuple[published.Published, dict]:
    """A file of random weights in the names and shapes of pytorchvideo's Slow, on this machine."""
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path / "results"))
    row = published.DETECTORS["slow-50-ava"]
    row.path.parent.mkdir(parents=True)
    torch.save({"model_state": slow_state}, row.path)
    return row, slow_state


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"detection_head.proj.bias": None}, "no value for 1: classifier.bias"),
        ({"detection_head.proj.weight": torch.zeros(60, 2048)}, "60 outputs, not 80; give a"),
        ({"detection_head.proj.weight": torch.zeros(80, 9)}, "another shape for 1: classifier.w"),
        ({"model.blocks.4.res_blocks.0.branch2.conv_b.weight": None}, "no value for 1: net.blocks"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(slow_file, change, answer, capsys):
    row, state = slow_file
    state = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    torch.save({"model_state": state}, row.path)
    assert main(["weights", row.name]) == 1
    error = capsys.readouterr().err
    assert str(row.path) in error and answer in error and error.count("\n") == 1


def test_nothing_in_a_pickle_is_run(slow_file, tmp_path):
    row, _ = slow_file

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    row.path.write_bytes(pickle.dumps({"model_state": Evil()}))
    with pytest.raises(InputError, match="refused"):
        public_detectors.load(row, IDS, silent(""))
    assert not (tmp_path / "run").exists()


def test_the_list_says_what_a_whole_detector_is(slow_file, capsys):
    row, _ = slow_file
    assert main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("slow-50-ava: ")]
    assert "detects AVA's actions from 4x16, 19.5 mAP" in line and "Apache-2.0" in line
    assert main(["weights", row.name]) == 0
    assert "2 values of the head, which scores AVA's actions" in capsys.readouterr().out


def test_without_network_one_line_says_which_file_to_put_where(tmp_path, monkeypatch, capsys, film):
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path))
    monkeypatch.setattr(
        published.urllib.request, "urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("off"))
    )
    assert main(["predict", str(film), "--weights", "slowfast-50-ava"]) == 1
    row, error = published.DETECTORS["slowfast-50-ava"], capsys.readouterr().err
    assert error == (
        f"stadlib: {row.url}: not fetched (off); try again later (it resumes), or fetch it "
        f"elsewhere and put it at {row.path}\n"
    )


# A file of boxes where a detector is expected.


@pytest.fixture
def box_file(tmp_path) -> Path:
    """Two persons of ``film`` at seconds 0 to 2, one of them unsure, and one of another video."""
    path = tmp_path / "boxes.csv"
    rows = [("film", t, *BOXES[0], 0.7) for t in (0, 1, 2)]
    rows += [("film", t, *BOXES[1], 0.9) for t in (0, 1, 2)] + [("other", 1, *BOXES[2], 0.9)]
    boxes.write_person_boxes(pd.DataFrame(rows, columns=boxes.BOX_COLUMNS), path)
    return path


def test_boxes_are_found_in_every_form_of_file(box_file, tmp_path):
    rows = boxes.read_person_boxes(box_file)
    coco, proposals = [], {}
    for video, t, *corners, score in rows.itertuples(index=False):
        x1, y1, x2, y2 = corners
        entry = {"video": video, "timestamp": t, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        coco.append(entry | {"score": score})
        proposals.setdefault(f"{video},{int(t):04d}", []).append([*corners, score])
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    arrays = {key: np.array(value) for key, value in proposals.items()}
    (tmp_path / "boxes.pkl").write_bytes(pickle.dumps(arrays))
    for suffix in (".csv", ".json", ".pkl"):
        detector, name = training.open_detector(str(box_file.with_suffix(suffix)), "mini", silent)
        found = detector.at("film", 1.0)
        np.testing.assert_allclose(found, [[*BOXES[1], 0.9], [*BOXES[0], 0.7]], atol=1e-6)
        assert len(detector.at("film", 1.5)) == 0 and name.startswith(f"boxes{suffix} ")


def test_predict_uses_public_weights_and_boxes_of_a_file(slow_file, box_file, film, capsys):
    row, _ = slow_file
    found = predict.predict(str(film), detector=str(box_file), progress=silent)
    assert found.warning == "" and "MINIATURE" not in capsys.readouterr().out
    made_by = found.sightings.made_by
    assert made_by["model"].startswith(row.name) and made_by["threshold"] == 0.8
    assert made_by["detector"].startswith(box_file.name)
    for sighting in found.sightings:
        np.testing.assert_allclose(sighting.looks[0].boxes, [BOXES[1]], atol=1e-6)
        assert sighting.numbers == [1] and sighting.confidence.tolist() == [0.9]
        assert sighting.actions.shape == (1, 60)
    assert found.names == AVA_ACTIONS
    rows = list(csv.reader((found.folder / "detections.csv").read_text().splitlines()))
    assert len(rows) == 3 * 60 and {int(row[6]) for row in rows} == set(AVA_ACTIONS)


def test_scores_are_the_sigmoid_of_the_logits(slow_file, film, tmp_path):
    row, _ = slow_file
    path = tmp_path / "boxes.csv"
    moments = [("film", t, *box, 0.9) for t in (0, 1, 2) for box in BOXES]
    boxes.write_person_boxes(pd.DataFrame(moments, columns=boxes.BOX_COLUMNS), path)
    found = predict.predict(str(film), weights=row.name, detector=str(path), progress=silent)
    (sighting,) = [s for s in found.sightings if s.second == 1]
    model, _ = public_detectors.load(row, IDS, silent(""))
    batch, _ = clip_at(film, row, resize_as_pytorchvideo)
    expected = logits(model, batch).sigmoid().numpy()
    np.testing.assert_allclose(sighting.actions, expected, atol=2e-2)  # the stream's own pictures
    np.testing.assert_allclose(sighting.actions.argmax(1), expected.argmax(1))


@pytest.mark.parametrize(
    ("video", "seconds", "answer"),
    [
        ("another", (0, 1), "no boxes of film, but of another; give the video's file the name"),
        ("film", (902, 1798), "boxes at seconds 902 to 1798 of a video of 2.5 s; count seconds"),
    ],
)
def test_boxes_of_something_else_are_refused(video, seconds, answer, slow_file, film, tmp_path):
    path = tmp_path / "boxes.csv"
    rows = [(video, second, *BOXES[0], 0.9) for second in seconds]
    boxes.write_person_boxes(pd.DataFrame(rows, columns=boxes.BOX_COLUMNS), path)
    with pytest.raises(InputError) as error:
        predict.predict(str(film), detector=str(path), progress=silent)
    assert str(error.value).startswith(f"{path}: {answer}") and "\n" not in str(error.value)


def test_default_weights_are_the_best_that_lie_here(slow_file, film, monkeypatch):
    row, _ = slow_file
    opened = []
    monkeypatch.setattr(scorer, "_published", lambda row, _: opened.append(row.name) or 1 / 0)
    monkeypatch.setattr(scorer, "_run", lambda name, _: opened.append(name) or 1 / 0)
    words = ("default", "smoke", film, silent)
    with pytest.raises(ZeroDivisionError):
        scorer.open_networks("default", *words)
    better = published.DETECTORS["slowonly-50-ava-kinetics"]
    better.path.write_bytes(b"")
    with pytest.raises(ZeroDivisionError):
        scorer.open_networks("default", *words)
    better.path.unlink()
    row.path.unlink()
    with pytest.raises(ZeroDivisionError):
        scorer.open_networks("default", *words)
    assert opened == [row.name, better.name, "miniature"]


def test_warnings_beside_public_weights(slow_file, film, monkeypatch):
    row, _ = slow_file
    asked = []

    def opened(word, *_):
        asked.append(word)
        return nn.Identity(), word

    monkeypatch.setattr(scorer, "open_detector", opened)
    drawn = row.path.parents[1] / "miniature-0123" / "v.mp4"
    for detector, video, words in (
        ("default", film, ""),
        ("v3", film, "MINIATURE DETECTOR ON REAL VIDEO"),
        ("torchvision:x", drawn, "MODEL OF REAL PEOPLE ON DRAWN FIGURES"),
    ):
        found = scorer.open_networks(row.name, detector, "mini", video, silent)
        assert found.warning.startswith(words) and bool(found.warning) == bool(words)
        assert len(found.warning) < 110 and found.threshold == (0.35 if detector == "v3" else 0.8)
    assert asked == ["torchvision:fasterrcnn_resnet50_fpn_v2", "v3", "torchvision:x"]


def test_a_wrong_detector_lists_files_of_boxes():
    with pytest.raises(ConfigError, match=r"FILE\.pt, BOXES\.csv, \.json or \.pkl, default"):
        predict.predict(detector="boxes.txt")


def test_detect_writes_a_dataset_s_boxes_from_a_file(tiny_dataset, tmp_path, capsys):
    layout = AvaLayout(tiny_dataset)
    (keyframe, *_) = read_keyframes(layout, "ava", "val")
    path, second = tmp_path / "fair.csv", round(keyframe.timestamp)
    path.write_text(
        f"{keyframe.video},{second:04d},0.1,0.1,0.5,0.9,,0.5\n"
        f"{keyframe.video},{second:04d},0.2,0.1,1.02,0.9,,0.95\n"
    )
    words = ["--data", str(tiny_dataset), "--source", "ava", "--detector", str(path), "--as", "f"]
    assert main(["detect", *words]) == 0
    rows = boxes.read_person_boxes(layout.person_boxes("f", "ava", "val"))
    assert rows["score"].tolist() == [0.95, 0.5], "all are kept; what reads them has a threshold"
    assert rows["x2"].tolist() == [1.0, 0.5] and set(rows["timestamp"]) == {second}
    path.write_text(path.read_text().replace(keyframe.video, "unknown"))
    assert main(["detect", *words[:-1], "g"]) == 1
    assert "but of unknown" in capsys.readouterr().err


def test_fair_s_boxes_of_ava_are_read_by_video_and_second(shared):
    path = shared / "data/ava/ava_val_predicted_boxes.zC5Fh2tTS1U_1775-1798.csv"
    detector, name = training.open_detector(str(path), "mini", silent)
    first = detector.at("zC5Fh2tTS1U", 1775.0)
    assert [0.136, 0.103, 0.276, 0.828, 0.995068] in first.tolist()
    assert (np.diff(first[:, 4]) <= 0).all() and len(detector.at("zC5Fh2tTS1U", 1775.5)) == 0
    assert name.startswith(path.name)


def test_prepare_lists_boxes_and_archives(tmp_path):
    text = prepare.what_to_fetch("ava-kinetics", tmp_path)
    assert "ava_train_predicted_boxes.csv" in text and f"{tmp_path}/boxes/v3_ava_train.csv" in text
    assert "k700_2020_train_path.txt" in text and "annotates K700 of 2019" in text


def test_a_public_detector_on_real_video(shared, slow_file, tmp_path):
    """Random weights on a real clip, with boxes of a file: every output is there, no warning."""
    source = shared / "data/videos/fencing.mp4"
    rows = [(source.stem, float(t), *BOXES[0], 0.9) for t in (0, 3)]
    path = tmp_path / "boxes.csv"
    boxes.write_person_boxes(pd.DataFrame(rows, columns=boxes.BOX_COLUMNS), path)
    found = predict.predict(str(source), detector=str(path), every=3.0, progress=silent)
    assert found.warning == "" and len(list(found.sightings)) >= 2
    assert (found.folder / "contact_sheet.png").stat().st_size > 10_000


def test_a_backbone_alone_is_no_detector(slow_file):
    row, state = slow_file
    trunk = {name: tensor for name, tensor in state.items() if name.startswith("model.")}
    torch.save({"model_state": trunk}, row.path)
    with pytest.raises(InputError, match=r"no value for 2: classifier\.weight, classifier\.bias"):
        public_detectors.load(row, IDS, silent(""))

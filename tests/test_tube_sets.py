"""UCF101-24, JHMDB-21 and MultiSports, small files in their published forms, become datasets."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data.boxes import read_pickle
from stadlib.data.check import check_dataset
from stadlib.data.keyframes import read_keyframes
from stadlib.data.layout import AvaLayout
from stadlib.data.prepare import DATASETS, prepare_tubes, read_annotations
from stadlib.data.video import probe, read_frames, write_video

WIDTH, HEIGHT, FRAMES = 64, 48, 9


def silent(*_: object) -> None: ...


def film(path: Path, rate: int = 25, frames: int = FRAMES) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    write_video(path, (picture for _ in range(frames)), fps=rate)


def pictures(folder: Path, numbers=range(1, FRAMES + 1), suffix: str = "png") -> None:
    """Pictures that grow brighter."""
    folder.mkdir(parents=True)
    for number in numbers:
        picture = np.full((HEIGHT + 1, WIDTH, 3), 20 * number, np.uint8)
        assert cv2.imwrite(str(folder / f"{number:05d}.{suffix}"), picture)


def save(path: Path, content: object, protocol: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def boxes(count: int, x: int = 8) -> np.ndarray:
    """Boxes x, y, width, height that move to the right, as UCF101-24's file has them."""
    return np.array([[x + i, 12, 16, 24] for i in range(count)], np.uint8)


def corrected(**changed: object) -> dict:
    """Names, numbers of frames and labels are NumPy's, as in the published file."""
    tube = {"label": 1, "sf": 2, "ef": 6, "boxes": boxes(4)}
    other = {"label": 1, "sf": 4, "ef": 9, "boxes": boxes(5, 40).astype(np.uint16)}
    videos = {
        np.str_("Dive/v_Dive_g01"): ([tube, other], 1),
        np.str_("Bike/v_Bike_g08"): ([tube | {"label": 0}], 0),
    }
    entries = {
        name: {"annotations": tubes, "numf": np.uint8(FRAMES), "label": label}
        for name, (tubes, label) in videos.items()
    }
    train = ["Bike/v_Bike_g08", "Bike/v_Bike_g09"]  # the published list has removed videos, too
    content = {"db": entries, "trainvideos": train, "classes": ["Bike", "Dive"]}
    return content | changed


def rows(first: int, count: int, x: float = 8) -> np.ndarray:
    """Rows frame (from 1), x1, y1, x2, y2."""
    moved = [[first + i, x + i, 12, x + i + 16, 36] for i in range(count)]
    return np.array(moved, np.float32)


def gttubes(**changed: object) -> dict:
    tubes = {
        "a/first": {1: [rows(1, 5)], 0: [rows(3, 3, 30), rows(7, 2)]},
        "b/second": {2: [rows(2, 8)]},
    }
    content = {
        "labels": ["throw", "aerobic kick jump", "catch"],
        "gttubes": tubes,
        "nframes": dict.fromkeys(tubes, FRAMES),
        "train_videos": [["b/second"], ["a/first"]],
        "test_videos": [["a/first"], ["b/second"]],
        "resolution": dict.fromkeys(tubes, (HEIGHT, WIDTH)),
    }
    return content | changed


def ucf(root: Path) -> Path:
    save(root / "annotations" / "pyannot_with_class_names.pkl", corrected(), 3)
    for name in ("Dive/v_Dive_g01", "Bike/v_Bike_g08"):
        film(root / "UCF-101" / f"{name}.mp4")
    return root


def test_ucf_tubes_become_keyframes_at_the_times_of_their_frames(tmp_path, capsys):
    assert main(["prepare", "ucf101-24", "--root", str(ucf(tmp_path))]) == 0
    assert f"now stadlib check {tmp_path / 'dataset'}" in capsys.readouterr().out
    layout = AvaLayout(tmp_path / "dataset")
    assert check_dataset(layout.root) == []
    assert layout.label_map().names == {1: "Bike", 2: "Dive"}
    assert layout.videos("ava", "train") == ["v_Bike_g08"]
    assert layout.videos("ava", "val") == ["v_Dive_g01"]
    assert layout.excluded("ava", "val") == set()
    keyframes = {round(k.timestamp * 25): k for k in read_keyframes(layout, "ava", "val")}
    assert sorted(keyframes) == list(range(FRAMES))  # those without a box are named, too
    assert [len(keyframes[n].boxes) for n in range(FRAMES)] == [0, 0, 1, 1, 2, 2, 1, 1, 1]
    for number in (4, 5):
        expected = [
            [(x + number - start) / WIDTH, 12 / HEIGHT, (x + 16 + number - start) / WIDTH, 0.75]
            for x, start in ((8, 2), (40, 4))
        ]
        np.testing.assert_allclose(keyframes[number].boxes, expected, atol=1e-6)
        assert keyframes[number].person_ids.tolist() == [0, 1]
        assert keyframes[number].actions.tolist() == [[False, True]] * 2
    train = read_keyframes(layout, "ava", "train")
    assert [round(k.timestamp * 25) for k in train] == [2, 3, 4, 5]  # none without a person


def test_every_k_frames_are_keyframes(tmp_path):
    (line,) = prepare_tubes("ucf101-24", ucf(tmp_path), tmp_path / "out", every=4, progress=silent)
    assert "1 train videos, 1 val videos, 4 boxes, 2 actions" in line
    keyframes = read_keyframes(AvaLayout(tmp_path / "out"), "ava", "val")
    assert {(round(k.timestamp * 25), len(k.boxes)) for k in keyframes} == {(0, 0), (4, 2), (8, 1)}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_jhmdb_pictures_are_encoded_once_and_splits_are_chosen(tmp_path, suffix):
    root = tmp_path / "JHMDB"
    save(root / "JHMDB-GT.pkl", gttubes())
    for name in ("a/first", "b/second"):
        pictures(root / "Frames" / name, suffix=suffix)
        pictures(root / "FlowBrox04" / name, range(1, 3))  # no pictures of the video
    prepare_tubes("jhmdb-21", root, tmp_path / "one", progress=silent)
    layout = AvaLayout(tmp_path / "one")
    assert check_dataset(layout.root) == []
    assert layout.videos("ava", "val") == ["first"]
    video = layout.video_file("ava", "first").resolve()
    info = probe(video)
    assert (len(info.pts), info.width, info.height) == (FRAMES, WIDTH, HEIGHT)
    shown = read_frames(video, [number / 30 for number in range(FRAMES)]).float().mean((1, 2, 3))
    np.testing.assert_allclose(shown, [20 * n for n in range(1, FRAMES + 1)], atol=3)
    made = video.stat().st_mtime_ns
    prepare_tubes("jhmdb-21", root, tmp_path / "two", fold=2, progress=silent)
    other = AvaLayout(tmp_path / "two")
    assert other.videos("ava", "val") == ["second"]
    assert other.video_file("ava", "first").resolve().stat().st_mtime_ns == made
    first = {round(k.timestamp * 30): k for k in read_keyframes(layout, "ava", "val")}
    at_third = first[2]  # frame 3 of the file
    assert len(at_third.boxes) == 2
    names = layout.label_map().names
    assert names == {1: "throw", 2: "aerobic kick jump", 3: "catch"}
    assert sorted(at_third.actions.argmax(axis=1).tolist()) == [0, 1]
    assert len({k for one in first.values() for k in one.person_ids.tolist()}) == 3  # tubes


def test_multisports_leaves_out_what_its_evaluator_does(tmp_path):
    save(tmp_path / "trainval" / "multisports_GT.pkl", gttubes())
    for name in ("a/first", "b/second"):
        film(tmp_path / "trainval" / f"{name}.mp4")
    prepare_tubes("multisports", tmp_path, tmp_path / "out", progress=silent)
    layout = AvaLayout(tmp_path / "out")
    assert check_dataset(layout.root) == []
    assert layout.label_map().names == {1: "throw", 3: "catch"}
    keyframes = {round(k.timestamp * 25): k for k in read_keyframes(layout, "ava", "val")}
    assert [len(keyframes[n].boxes) for n in range(FRAMES)] == [0, 0, 1, 1, 1, 0, 1, 1, 0]


def test_boxes_of_frames_that_a_video_lacks_are_left_out_and_said(tmp_path):
    root = ucf(tmp_path)
    film(root / "UCF-101/Dive/v_Dive_g01.mp4", frames=6)
    lines = prepare_tubes("ucf101-24", root, tmp_path / "out", progress=silent)
    assert "1 videos have more or fewer frames than annotated (v_Dive_g01" in lines[1]
    keyframes = read_keyframes(AvaLayout(tmp_path / "out"), "ava", "val")
    assert max(round(k.timestamp * 25) for k in keyframes) == 5


# ---------------------------------------------------------------------------- what is refused


def test_what_is_missing_is_said_with_where_it_is_published(tmp_path, capsys):
    for name in ("ucf101-24", "jhmdb-21", "multisports"):
        assert main(["prepare", name, "--root", str(tmp_path / name)]) == 1
        printed = capsys.readouterr()
        assert DATASETS[name]["fetch"] in printed.out and "http" in printed.out
        assert printed.err == (
            f"stadlib: {tmp_path / name}: no {DATASETS[name]['file']} in it; "
            "fetch it from the above\n"
        )
    (ucf(tmp_path / "u") / "UCF-101/Bike/v_Bike_g08.mp4").unlink()
    assert main(["prepare", "ucf101-24", "--root", str(tmp_path / "u")]) == 1
    assert "1 of 2 videos are missing: Bike/v_Bike_g08; fetch" in capsys.readouterr().err
    assert not (tmp_path / "u" / "dataset").exists()
    assert main(["prepare", "ucf101-24", "--root", str(tmp_path), "--every", "0"]) == 1
    assert "--every 0: give 1 or more" in capsys.readouterr().err
    assert main(["prepare", "ucf101-24", "--root", str(tmp_path), "--checksums"]) == 1
    assert "--checksums and --reencode are of ava-kinetics" in capsys.readouterr().err


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "refused"),
        (corrected(classes=["Bike"]), "'Dive/v_Dive_g01' has a tube without"),
        ({"db": {}}, "refused, no 'trainvideos'"),
        (gttubes(nframes={}), "refused, no 'b/second'"),
        (gttubes(gttubes={"a/first": {}}), "refused, no 'b/second'"),
        (gttubes(gttubes={"a/first": {}, "b/second": {1: [np.ones((2, 5))]}}), "has a tube"),
        (gttubes(gttubes={"a/first": {}, "b/second": {1: [np.ones((2, 3))]}}), "has a tube"),
        (gttubes(gttubes={"a/first": {}, "b/second": {7: [rows(1, 2)]}}), "has a tube"),
        (gttubes(gttubes={"a/first": {}, "b/second": {1: [rows(0, 2)]}}), "has a tube"),
        (gttubes(gttubes={"a/first": {}, "b/second": {1: [rows(1, 2, np.nan)]}}), "has a tube"),
        (gttubes(train_videos=[["a/first"]]), "'a/first' is in both splits"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, content, words):
    path = save(tmp_path / "file.pkl", content)
    with pytest.raises(InputError) as raised:
        read_annotations(path)
    line = str(raised.value)
    assert line.startswith(f"{path}: ") and words in line and "; fetch it again" in line
    assert "\n" not in line


def test_a_split_that_the_file_lacks(tmp_path):
    for content in (gttubes(), corrected()):
        with pytest.raises(InputError, match=r"no (split )?3; .*--fold"):
            read_annotations(save(tmp_path / "file.pkl", content), 3)


def test_a_call_in_a_published_file_is_refused_and_not_made(tmp_path):
    marker = tmp_path / "ran"
    for protocol in range(6):
        path = save(tmp_path / "file.pkl", gttubes(labels=Touch(marker)), protocol)
        with pytest.raises(InputError, match="it was not run"):
            read_annotations(path)
        assert not marker.exists()


def test_a_name_in_the_file_leads_nowhere_else(tmp_path):
    """A video that the file calls ``../secret`` is looked for below the root alone."""
    film(tmp_path / "secret.mp4")
    root = tmp_path / "root"
    content = gttubes()
    for name in ("gttubes", "nframes", "resolution"):
        content[name]["../secret"] = content[name].pop("a/first")
    content |= {"test_videos": [["../secret"]], "train_videos": [["b/second"]]}
    save(root / "JHMDB-GT.pkl", content)
    film(root / "b" / "second.mp4")
    with pytest.raises(InputError, match=r"1 of 2 videos are missing: \.\./secret"):
        prepare_tubes("jhmdb-21", root, root / "dataset", progress=silent)


@pytest.mark.parametrize(
    ("numbers", "broken", "words"),
    [((1, 2, 4), False, "first: picture 3 is missing"), ((1, 2), True, "00002.png: no picture")],
)
def test_pictures_that_cannot_be_used(tmp_path, numbers, broken, words):
    save(tmp_path / "JHMDB-GT.pkl", gttubes())
    pictures(tmp_path / "a" / "first", numbers)
    pictures(tmp_path / "b" / "second")
    if broken:
        (tmp_path / "a" / "first" / "00002.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=words):
        prepare_tubes("jhmdb-21", tmp_path, tmp_path / "out", progress=silent)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "encoded" / "first.mp4").exists()


def test_arrays_of_python_2_are_read(tmp_path):
    """As its pickle module wrote them, with data as a text (``S'...'``)."""
    array = np.array([[1, 250.5], [-3, 0.1]])
    data = repr(array.tobytes())[1:].encode()
    dtype = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    content = made + b"(I1\n(I2\nI2\nt" + dtype + b"I00\nS" + data + b"\ntb."
    path = tmp_path / "old.pkl"
    path.write_bytes(content)
    assert np.array_equal(read_pickle(path, lambda content: content, "none"), array)

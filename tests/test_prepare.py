"""What is missing is named; the manifest measures once; re-encoded frames keep their times."""

from __future__ import annotations

import errno
import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data import prepare
from stadlib.data.check import check_dataset
from stadlib.data.layout import AvaLayout
from stadlib.data.prepare import encode, missing_files, missing_videos, reencode, update_manifest
from stadlib.data.video import probe, read_frames


@pytest.fixture
def root(tiny_dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_dataset, tmp_path / "copy")


def silent(done: int, total: int, text: str) -> None:
    pass


def complete(root: Path) -> Path:
    """Add the annotation files that the tiny dataset does without."""
    folder = root / "annotations"
    (folder / "kinetics_train_v1.0.csv").write_text("d,3.5\n")
    (folder / "ava_val_excluded_timestamps_v2.2.csv").write_text("b,0905\n")
    shutil.copyfile(root / "videos/kinetics/c.mp4", root / "videos/kinetics/d.mp4")
    return root


def test_missing_things_are_named(root):
    layout = AvaLayout(root)
    lines = list(missing_files(layout))
    names = [line.split(": ")[0].rsplit("/", 1)[1] for line in lines]
    assert names == ["kinetics_train_v1.0.csv", "ava_val_excluded_timestamps_v2.2.csv"]
    assert all("https://" in line for line in lines)
    assert list(missing_videos(layout)) == []
    complete(root)
    assert list(missing_files(layout)) == list(missing_videos(layout)) == []
    (root / "annotations" / "ava_val_v2.2.txt").write_text("".join(f"v{i}\n" for i in range(9)))
    (line,) = missing_videos(layout)
    assert line.endswith("videos/ava: 9 of 9 val videos are missing: v0, v1, v2, ...")


def test_manifest_measures_what_is_new_or_changed(root, monkeypatch):
    layout, video = AvaLayout(root), root / "videos/ava/b.mp4"
    video.write_bytes(b"no video")
    (problem,) = update_manifest(layout, silent)
    assert problem.startswith(f"{video}: ")
    files = json.loads((root / "manifest.json").read_text())["files"]
    a = files["videos/ava/a.mp4"]
    assert (a["frames"], a["width"], a["height"], a["duration"]) == (40, 64, 48, 5.0)
    assert a["bytes"] == (root / "videos/ava/a.mp4").stat().st_size
    assert "annotations/ava_train_v2.2.csv" in files and files["videos/ava/b.mp4"]["problem"]

    asked = []
    monkeypatch.setattr(prepare, "probe", lambda path: asked.append(path) or probe(path))
    assert update_manifest(layout, silent) == [problem]
    assert asked == [], "nothing is measured again"
    shutil.copyfile(root / "videos/ava/a.mp4", video)
    assert update_manifest(layout, silent) == []
    assert asked == [video]


def test_checksums_find_a_changed_content(root):
    layout, video = AvaLayout(root), root / "videos/ava/a.mp4"
    assert update_manifest(layout, silent, checksums=True) == []
    content, modified = video.read_bytes(), video.stat().st_mtime_ns
    video.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(video, ns=(modified, modified))
    assert update_manifest(layout, silent) == []  # size and time are as noted
    for _ in range(2):
        (line,) = update_manifest(layout, silent, checksums=True)
        assert line == f"{video}: another content than noted; fetch it again"
    video.write_bytes(content)
    assert update_manifest(layout, silent, checksums=True) == []


def test_interrupted_manifest_resumes(root, monkeypatch):
    monkeypatch.setattr(prepare, "SAVE_EVERY", 1)

    def stop(done: int, total: int, text: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_manifest(AvaLayout(root), stop)
    assert len(json.loads((root / "manifest.json").read_text())["files"]) == 3
    (root / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match=r"manifest\.json: not a manifest .*; delete it"):
        update_manifest(AvaLayout(root), silent)


def movie(path: Path, seconds: np.ndarray) -> Path:
    """A video whose frames are at these times, each of a grey of its own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "50", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, second in enumerate(seconds):
            grey = np.full((48, 64, 3), 40 + 20 * (number % 8), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = round(second * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_movies_are_cut_and_frames_keep_their_times(tmp_path, monkeypatch, offset):
    """Uneven frame times, a cut between keyframes, a container that begins later than 0."""
    monkeypatch.setattr(prepare, "ANNOTATED", (902.0, 906.0))
    seconds = np.cumsum(np.random.default_rng(0).choice([0.04, 0.05, 0.2], 400))
    path = movie(tmp_path / "m.mkv", offset + seconds - seconds[0])
    begin = 890.0  # the clock at the first frame of the file
    target = tmp_path / "out" / "m.mp4"
    first = encode("ava", path, target, begin)
    clock = begin + probe(path).seconds
    kept = np.flatnonzero((clock >= 898) & (clock <= 910))
    assert first == pytest.approx(clock[kept[0]], abs=1e-9)
    np.testing.assert_allclose(first + probe(target).seconds, clock[kept], atol=1e-3)
    asked = np.linspace(899, 909, 23)
    before, after = read_frames(path, asked - begin), read_frames(target, asked - first)
    assert (before.float() - after.float()).abs().mean() < 3
    assert not list(target.parent.glob(".*"))


def test_a_real_clip_looks_the_same_and_a_large_one_becomes_small(shared, tmp_path):
    path, target = shared / "data" / "videos" / "salsa_spin.mp4", tmp_path / "s.mp4"
    assert encode("kinetics", path, target, 7.0) == 7.0
    old, new = probe(path), probe(target)
    assert (new.width, new.height) == (old.width, old.height), "it is not enlarged"
    assert np.diff(np.searchsorted(new.pts, new.keyframes[:, 0])).max() <= 30
    np.testing.assert_allclose(new.seconds, old.seconds, atol=1e-3)
    moments = old.seconds[::20].tolist()
    before, after = read_frames(path, moments), read_frames(target, moments)
    assert (before.float() - after.float()).abs().mean() < 4
    encode("kinetics", movie(tmp_path / "k.mp4", np.arange(9) / 25), target, 7.0, side=24)
    assert (probe(target).width, probe(target).height) == (32, 24)


def test_a_movie_without_the_annotated_time_or_room_for_it_is_told(tmp_path, monkeypatch):
    path = movie(tmp_path / "m.mp4", np.arange(20) / 10)
    with pytest.raises(InputError, match=r"lasts from 0 to 1\.9 s: no frame near AVA's keyframes"):
        encode("ava", path, tmp_path / "o.mp4", 0.0)

    def full(*args, **options) -> None:
        raise av.error.OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(prepare, "write_frames", full)
    with pytest.raises(OSError, match=r"No space left.*o\.mp4"):
        encode("kinetics", path, tmp_path / "o.mp4", 0.0)
    assert not (tmp_path / "o.mp4").exists()


def test_reencoded_dataset_is_sound_and_resumable(root, tmp_path, monkeypatch):
    complete(root)
    clip = root / "videos/kinetics"
    (clip / "d.mp4").rename(clip / "d_000002_000012.mp4")
    layout, out = AvaLayout(root), tmp_path / "small"
    assert prepare.found_videos(layout, "kinetics")["d"] == clip / "d_000002_000012.mp4"
    words = ["prepare", "ava-kinetics", "--root", str(root)]
    assert main([*words, "--reencode", str(out), "--workers", "1"]) == 0
    assert check_dataset(out) == []
    starts = (out / "annotations" / "video_starts.csv").read_text().splitlines()
    seconds = {"ava,a": 900, "ava,b": 900, "kinetics,c": 2.5, "kinetics,d": 2}
    rows = [f"{video},{second:.6f}" for video, second in seconds.items()]
    assert starts == ["source,video,seconds", *rows]
    made = {path: path.stat().st_mtime_ns for path in out.glob("videos/*/*")}
    (out / "videos/ava/b.mp4").unlink()
    (root / "videos/ava/b.mp4").write_bytes(b"no video")
    (line,) = reencode(layout, out, silent, workers=1)
    assert line.startswith(f"{root}/videos/ava/b.mp4: ") and "\n" not in line
    kept = {path: path.stat().st_mtime_ns for path in out.glob("videos/*/*")}
    assert kept == {path: time for path, time in made.items() if path.name != "b.mp4"}
    with pytest.raises(InputError, match="is the dataset itself"):
        reencode(layout, root, silent)


def test_command(root, tmp_path, capsys):
    words = ["prepare", "ava-kinetics", "--root", str(root)]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "ava_kinetics_v1_0.tar.gz" in printed.out
    assert printed.err == f"stadlib: {root}: 2 problems, listed above\n"
    complete(root)
    assert main([*words, "--checksums"]) == 0
    assert capsys.readouterr().out.endswith(f"{root}: complete; now stadlib check {root}\n")
    (root / "videos/kinetics/d.mp4").rename(root / "videos/kinetics/d_000002_000012.mp4")
    assert main(words) == 1
    assert "1 clips carry their seconds in their names" in capsys.readouterr().out
    for wrong, said in (
        (["prepare", "ava"], "dataset='ava'; choose from ava-kinetics"),
        (["prepare", "ava-kinetics", "--root", str(tmp_path / "none")], "none: no such folder"),
        ([*words, "--workers", "-1"], "--workers -1: give 0 or more"),
    ):
        assert main(wrong) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line

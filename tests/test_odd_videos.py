"""Odd files, each watched from end to end, or refused in one line."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_video import remux
from untrained_networks import networks, silent

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data.stream import Stream, picture_at
from stadlib.data.video import probe
from stadlib.report.style import NotebookFigure
from stadlib.video import predict

TICK = Fraction(1, 90_000)
RATE = 8


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):
    """Choosing 256 colours of a figure takes a second."""
    monkeypatch.setattr(NotebookFigure, "png", lambda figure: b"png")


def film(path, size=(64, 48), *, count=12, pix_fmt="yuv420p", turn=0, sound=False, uneven=False):
    """Frames that are red at the top; (width, height) as stored."""
    rng = np.random.default_rng(0)
    steps = rng.integers(1000, 40_000, count) if uneven else np.full(count, 90_000 // RATE)
    picture = rng.integers(0, 80, (size[1], size[0], 3), np.uint8)
    picture[: size[1] // 4] = (250, 0, 0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height = size
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, TICK
        if turn:
            stream.set_display_rotation(turn)
        if sound:
            tone = container.add_stream("aac", rate=48_000, layout="mono")
            beep = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            beep.sample_rate = 48_000
            container.mux(tone.encode(beep))
        for pts in (np.cumsum(steps) - steps[0]).tolist():
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = pts, TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def times(path: Path) -> list[float]:
    return [shown.time for shown in Stream(path).frames()]


@pytest.mark.parametrize(
    ("size", "how", "drawn"),
    [
        ((48, 64), {}, (480, 360)),
        ((64, 48), {"turn": -90}, (480, 360)),
        ((64, 48), {"turn": 180}, (360, 480)),
        ((64, 48), {"sound": True}, (360, 480)),
        ((64, 48), {"uneven": True, "count": 20}, (360, 480)),
        ((64, 48), {"count": 1}, (360, 480)),
        ((64, 48), {"pix_fmt": "yuv420p10le"}, (360, 480)),
        ((3840, 2160), {"count": 2}, (720, 1280)),
        ((63, 47), {"pix_fmt": "yuv444p"}, (360, 482)),
    ],
    ids=["portrait", "turned", "upside down", "sound", "uneven", "one", "ten bits", "4K", "odd"],
)
def test_an_odd_file_is_watched_and_drawn_as_a_player_shows_it(tmp_path, size, how, drawn):
    path = film(tmp_path / "odd.mp4", size, **how)
    found = predict.watch(path, networks(span=0), out=tmp_path / "out", progress=silent)
    annotated = found.folder / "annotated.mp4"
    high, wide = Stream(annotated).size
    banner = high - drawn[0]
    assert 0 < banner < 90 and wide > drawn[1], "a warning above, a panel at the side"
    np.testing.assert_allclose(times(annotated), times(path), atol=1e-4)
    seconds = [sighting.second for sighting in found.sightings]
    assert seconds == [float(second) for second in range(len(seconds))]
    assert len(seconds) == int(times(path)[-1]) + 1
    assert all(look.time <= times(path)[-1] for s in found.sightings for look in s.looks)
    picture = picture_at(Stream(annotated), 0.0)[banner:, : drawn[1]].astype(int)
    red = (picture[..., 0] > 180) & (picture[..., 1:].max(axis=2) < 70)
    up, right = slice(0, drawn[0] // 8), slice(-drawn[1] // 8, None)
    edges = {0: red[up], -90: red[:, right], 180: red[-drawn[0] // 8 :]}
    assert edges.pop(how.get("turn", 0)).mean() > 0.6, "red where a player shows it"
    assert all(edge.mean() < 0.5 for edge in edges.values())


def test_a_turn_swaps_the_sides_of_boxes_too(tmp_path):
    """What the networks see is what the boxes are fractions of."""
    stream = Stream(film(tmp_path / "turned.mp4", (64, 48), turn=90))
    picture = picture_at(stream, 0.0)
    assert picture.shape == (*stream.size, 3) == (64, 48, 3)
    assert picture[:, :10, 0].mean() > 200 and picture[:, -10:, 0].mean() < 100, "red at the left"


def test_a_cut_file_is_refused_in_one_line(tmp_path, capsys):
    path = film(tmp_path / "cut.mp4", count=30)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert main(["predict", str(path), "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and "file ends early" in line
    assert not (tmp_path / "out").exists()


def test_frames_without_times_follow_each_other_at_the_rate(tmp_path):
    """A raw stream has no clock."""
    path = remux(film(tmp_path / "film.mp4"), tmp_path / "raw.h264")
    found = predict.watch(path, networks(span=0), out=tmp_path / "out", progress=silent)
    steps = np.diff(times(path))
    assert len(steps) == 11 and np.allclose(steps, steps[0]) and steps[0] > 0
    assert len(list(found.sightings)) >= 1


def damaged(path: Path, begin: float, end: float) -> Path:
    """Zeros in place of this part of a film's bytes."""
    content = bytearray(film(path, count=60).read_bytes())
    there = slice(int(begin * len(content)), int(end * len(content)))
    content[there] = bytes(len(content[there]))
    path.write_bytes(content)
    return path


def test_damage_further_on_is_told_in_one_line(tmp_path):
    path = damaged(tmp_path / "film.mp4", 0.4, 0.6)
    with pytest.raises(InputError, match=r"film\.mp4: cannot be decoded .* damaged") as error:
        predict.watch(path, networks(span=0), out=tmp_path / "out", progress=silent)
    assert "\n" not in str(error.value)


def test_a_file_whose_picture_ends_before_its_time_is_watched_and_told_of(tmp_path, capsys):
    path = damaged(tmp_path / "film.mkv", 0.5, 1.0)
    found = predict.watch(path, networks(span=0), out=tmp_path / "out", progress=silent)
    assert len(list(found.sightings)) == int(times(path)[-1]) + 1 < 4
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "film.mkv" in line]
    assert "the picture ends at" in line and "it may be damaged" in line


def test_recordings_joined_end_to_end_are_the_same_read_from_the_middle(tmp_path):
    """Their clock begins again, so that no time can be found by seeking."""
    film_ts = remux(film(tmp_path / "film.mp4", count=24), tmp_path / "part.ts")
    path = tmp_path / "joined.ts"
    path.write_bytes(film_ts.read_bytes() * 2)
    stream = Stream(path)
    whole = [(shown.time, shown.picture()) for shown in stream.frames()]
    assert len(whole) > 40 and np.all(np.diff([time for time, _ in whole]) > 0)
    for start in (2.0, 4.0):
        later = [(shown.time, shown.picture()) for shown in stream.frames(start)]
        expected = whole[-len(later) :]
        assert later[0][0] <= start and [t for t, _ in later] == [t for t, _ in expected]
        assert all(np.array_equal(a[1], b[1]) for a, b in zip(later, expected, strict=True))
        (shown,) = [picture for time, picture in whole if time <= start][-1:]
        assert np.array_equal(picture_at(stream, start), shown)
    assert len(probe(tmp_path / "film.mp4").keyframes) and not len(probe(path).keyframes)


def test_a_name_that_is_not_utf8_is_refused_in_one_line(tmp_path, capsys):
    path = os.fsdecode(os.fsencode(film(tmp_path / "film.mp4").rename(tmp_path / "\udcff.mp4")))
    assert main(["predict", path, "--out", str(tmp_path / "out"), "--scale", "smoke"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("\\udcff.mp4': its name is not UTF-8; rename it")

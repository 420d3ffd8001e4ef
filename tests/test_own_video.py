"""Persons followed by overlap, and odd files streamed with the frames that a player shows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from pretended_gpu import Pretended, on_gpu
from untrained_networks import networks

from stadlib.base import InputError
from stadlib.data.stream import Moment, Stream, around
from stadlib.data.video import read_frames
from stadlib.video.scorer import GONE, Scorer, Tracks
from stadlib.video.sightings import Look, Sighting, SightingFile

TICK = Fraction(1, 90_000)
LEFT, RIGHT = [0.1, 0.2, 0.3, 0.9], [0.6, 0.2, 0.8, 0.9]


def write(path: Path, times: list[float], size=(64, 32), pix_fmt: str = "yuv420p") -> Path:
    """Grey frames, each brighter than the one before, shown from ``times`` on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height = size
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, TICK
        for i, time in enumerate(times):
            picture = np.full((size[1], size[0], 3), 20 + 5 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time / TICK), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


UNEVEN = list(np.cumsum(np.random.default_rng(0).uniform(0.02, 0.3, 30)))


def test_tracks_keep_numbers_in_any_order_of_boxes_until_a_person_is_gone_too_long():
    tracks = Tracks()
    assert tracks.update(0.0, np.array([LEFT, RIGHT])) == [1, 2]
    assert tracks.update(0.25, np.array([RIGHT, LEFT]) + 0.02) == [2, 1]
    assert tracks.update(0.25 + GONE, np.array([LEFT])) == [1]
    assert tracks.update(0.5 + 2 * GONE, np.array([LEFT])) == [3]


def test_replayed_tracks_go_on_as_those_that_never_stopped():
    boxes = [np.array([LEFT, RIGHT]), np.zeros((0, 4)), np.array([RIGHT])]
    through, replayed = Tracks(), Tracks()
    for i, found in enumerate(boxes):
        replayed.replay(i / 4, through.update(i / 4, found), found)
    last = np.array([LEFT, RIGHT, [0.4, 0.4, 0.5, 0.5]])
    assert through.update(0.75, last) == replayed.update(0.75, last)


@pytest.mark.parametrize(
    ("times", "options"),
    [
        (UNEVEN, {}),
        ([0.0], {}),
        ([i / 25 for i in range(40)], {"size": (32, 64)}),
        ([i / 25 for i in range(40)], {"pix_fmt": "yuv420p10le"}),
    ],
    ids=["variable rate", "one frame", "portrait", "ten bits"],
)
def test_streamed_pictures_are_those_read_by_time(tmp_path, times, options):
    path = write(tmp_path / "v.mp4", times, **options)
    offsets = [0.0, 0.25, -0.3, 0.1]
    stream = Stream(path)
    moments = list(around(stream, 0.5, offsets))
    assert len(moments) == int((times[-1] - times[0]) / 0.5 + 1e-6) + 1
    assert stream.size == options.get("size", (64, 32))[::-1]
    for moment in moments:
        expected = read_frames(path, [moment.time + offset for offset in offsets])
        expected = expected.permute(0, 2, 3, 1).numpy().mean(axis=(1, 2, 3))
        found = np.stack(moment.pictures).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(found, expected, atol=1.5)


def test_a_start_in_the_middle_gives_the_same_moments(tmp_path):
    stream = Stream(write(tmp_path / "v.mp4", UNEVEN))
    through = list(around(stream, 0.5, [0.0, -0.4, 0.2]))[3:]
    for one, other in zip(through, around(stream, 0.5, [0.0, -0.4, 0.2], first=3), strict=True):
        assert one.time == other.time
        np.testing.assert_array_equal(one.pictures, other.pictures)


def test_large_pictures_are_scaled_before_they_are_held(tmp_path):
    stream = Stream(write(tmp_path / "v.mp4", [0.0, 0.5], size=(640, 320)), largest=80)
    assert {shown.picture().shape for shown in stream.frames()} == {(80, 160, 3)}


def test_what_holds_no_video_is_refused_in_one_line(tmp_path):
    whole = write(tmp_path / "v.mp4", UNEVEN)
    cut, text = tmp_path / "cut.mp4", tmp_path / "text.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text.write_text("no video")
    for path in (cut, text, tmp_path / "missing.mp4"):
        with pytest.raises(InputError) as error:
            Stream(path)
        assert path.name in str(error.value) and "\n" not in str(error.value)


def test_a_line_cut_short_is_taken_off_and_another_model_refused(tmp_path):
    path, made_by = tmp_path / "s.jsonl", {"model": "a"}
    file = SightingFile(path, made_by)
    empty = Sighting([Look(0.0, [], np.zeros((0, 4)))], np.zeros(0), np.zeros((0, 3)))
    full = Sighting([Look(1.0, [4], np.array([LEFT]))], np.array([0.5]), np.array([[0.1, 0.2, 0]]))
    for sighting in (empty, full):
        file.append(sighting)
    with file.partial.open("a") as partial:
        partial.write('{"looks": [[2.0')
    first, second = SightingFile(path, made_by)
    assert (first.second, first.numbers, second.numbers) == (0.0, [], [4])
    np.testing.assert_array_equal(second.actions, full.actions)
    assert file.partial.read_bytes().endswith(b"\n")
    with pytest.raises(InputError, match="another video, model or detector"):
        SightingFile(path, {"model": "b"})


class Scored(Exception):
    pass


@pytest.mark.parametrize("span", [0, 2])
def test_a_video_is_scored_on_the_device_of_the_model(span):
    """The first second has no memory yet."""
    mode = Pretended()
    own = networks(span=span)
    scorer = Scorer(own, every=1.0)
    count = len(scorer.offsets)
    pictures = [np.zeros((48, 64, 3), np.uint8)] * count
    boxes = own.detector.boxes.detach().double().numpy()
    clip, seen = scorer._clip(Moment(0.0, pictures, 9.0), boxes), []
    on_gpu(own.model, mode)

    def probabilities(logits_NA):
        seen.append(logits_NA.device.type)
        raise Scored

    own.loss.probabilities = probabilities
    rows = np.column_stack([boxes, [0.9, 0.8]])
    scorer._persons = lambda pictures, times: [rows] * len(times)
    scorer._clip = lambda moment, boxes: clip.to("cuda")
    with mode, torch.no_grad():
        for second in range(2):
            with pytest.raises(Scored):
                Scorer.__call__.__wrapped__(scorer, Moment(float(second), pictures, 9.0))
    assert seen == ["cuda"] * 2

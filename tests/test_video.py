"""Frames are the exact ones, whatever the container says about rates, offsets and durations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from stadlib.base import InputError, OneLineError
from stadlib.data import video

BITS = 8
TICK = Fraction(1, 90_000)


def numbered(i: int) -> np.ndarray:
    """A frame that carries its number: eight flat grey blocks, one a bit."""
    bits = np.array([(i >> b) & 1 for b in range(BITS)], np.uint8).reshape(2, 4)
    return np.kron(bits, np.ones((16, 16), np.uint8))[..., None].repeat(3, 2) * np.uint8(255)


def number(frame_CHW: torch.Tensor) -> int:
    blocks = frame_CHW.float().mean(0).unfold(0, 16, 16).unfold(1, 16, 16).mean((-1, -2))
    return sum(int(v > 128) << b for b, v in enumerate(blocks.flatten().tolist()))


def timed(times: list[Fraction]) -> Iterator[av.VideoFrame]:
    """Frame i is shown from ``times[i]`` on."""
    for i, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(numbered(i), format="rgb24")
        frame.pts, frame.time_base = round(time / TICK), TICK
        yield frame


def write(path: Path, times: list[Fraction], codec: str = "libx264", **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.codec_context.time_base = TICK
        for frame in timed(times):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source: Path, target: Path, **options: str) -> Path:
    with av.open(str(source)) as old, av.open(str(target), "w", container_options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return target


def steady(rate: Fraction, count: int = 100, start: Fraction = Fraction(0)) -> list[Fraction]:
    return [start + i / rate for i in range(count)]


UNEVEN = [Fraction(int(s), 40) for s in np.cumsum(np.random.default_rng(3).integers(1, 9, 100))]
NTSC, PAL, TEN = Fraction(30_000, 1001), Fraction(25), Fraction(10)
FILES = {
    "29.97.mp4": (steady(NTSC), {"g": "12", "bf": "0"}),
    "b-frames.mp4": (steady(PAL), {"g": "24", "bf": "3", "x264-params": "b-adapt=0"}),
    "open-gop.mp4": (steady(PAL), {"g": "10", "bf": "2", "x264-params": "open-gop=1"}),
    "variable.mp4": (UNEVEN, {"g": "15", "bf": "2"}),
    "offset.mp4": (steady(TEN, start=Fraction(7, 3)), {"g": "10", "bf": "0"}),
    "offset.mkv": (steady(TEN, start=Fraction(21, 8)), {"g": "10", "bf": "2"}),
    "variable.mkv": (UNEVEN, {"g": "10", "bf": "2"}),
    "fragmented.mp4": (steady(PAL), {"g": "10", "bf": "2"}),
    "live.mkv": (steady(PAL), {"g": "10", "bf": "2"}),
    "transport.ts": (steady(PAL, start=Fraction(1)), {"g": "10", "bf": "2"}),
    "raw.h264": (steady(PAL), {"g": "10", "bf": "2"}),
    "packed.avi": (steady(PAL), {"g": "10", "bf": "2"}),
}


@pytest.fixture(scope="module", params=FILES)
def file(request, tmp_path_factory) -> tuple[Path, list[float]]:
    times, options = FILES[request.param]
    path = tmp_path_factory.mktemp("video") / request.param
    if request.param in ("fragmented.mp4", "live.mkv"):  # containers without a duration
        whole = write(path.with_name("whole.mp4"), times, **options)
        muxer = {"live.mkv": {"live": "1"}}
        remux(whole, path, **muxer.get(request.param, {"movflags": "frag_keyframe+empty_moov"}))
    else:
        write(path, times, **options)
    return path, [float(t - times[0]) for t in times]


def test_every_frame_is_found_by_its_own_time_and_others_show_the_last_one_before(file) -> None:
    path, starts = file
    # containers round times to as little as a millisecond; the middle of a frame is unambiguous
    ends = [*starts[1:], starts[-1] + 0.02]
    middles = [(a + b) / 2 for a, b in zip(starts, ends, strict=True)]
    for wanted in (range(100), [60], [97, 3, 41, 41], [0], [12, 14, 16, 18]):
        frames = video.read_frames(path, [middles[i] for i in wanted])
        assert [number(f) for f in frames] == list(wanted)
    info = video.probe(path)
    assert (len(info.pts), info.width, info.height) == (100, 64, 32)
    assert starts[-1] - 0.01 < info.duration < starts[-1] + 0.3

    times = np.random.default_rng(0).uniform(-0.5, starts[-1] + 0.5, 40)
    near = np.abs(times[:, None] - np.array(starts)).min(1) < 4e-3  # within a container's rounding
    frames = video.read_frames(path, times[~near])
    assert frames.dtype == torch.uint8 and frames.shape == ((~near).sum(), 3, 32, 64)
    assert len(frames) > 20 and frames.permute(0, 2, 3, 1).is_contiguous()
    before = [max([i for i, s in enumerate(starts) if s <= t], default=0) for t in times[~near]]
    assert [number(f) for f in frames] == before


def test_another_decoder_gives_the_same_frames(file, monkeypatch) -> None:
    try:
        import torchcodec  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec is optional: {str(error).splitlines()[0]}")
    path, times = file
    asked = [*times[::9], times[-1] + 1, times[5] - 0.001, -1.0]
    expected = video.read_frames(path, asked)
    monkeypatch.setenv("STADLIB_DECODER", "torchcodec")
    frames = video.read_frames(path, asked)
    assert torch.equal(frames, expected) and frames.stride() == expected.stride()


@pytest.mark.parametrize(
    ("word", "answer"), [("dali", "pyav, torchcodec, nvdec"), ("nvdec", "GPU")]
)
def test_a_decoder_that_is_not_here_is_refused(tmp_path, monkeypatch, word, answer) -> None:
    path = write(tmp_path / "a.mp4", steady(Fraction(25), 10))
    monkeypatch.setenv("STADLIB_DECODER", word)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OneLineError, match=answer) as error:
        video.read_frames(path, [0.0])
    assert "STADLIB_DECODER" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["fencing", "salsa_spin"])
def test_real_clips_agree_with_brute_force(shared: Path, name: str) -> None:
    path = shared / "data" / "videos" / f"{name}.mp4"
    with av.open(str(path)) as container:
        frames = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    first = frames[0][0]
    times = np.random.default_rng(0).uniform(-0.1, frames[-1][0] - first + 0.1, 6)
    for time, frame in zip(times, video.read_frames(path, times), strict=True):
        oracle = [rgb for t, rgb in frames if t - first <= time] or [frames[0][1]]
        assert np.array_equal(frame.permute(1, 2, 0), oracle[-1])


def test_wrong_packet_times_are_counted_instead(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "a.mp4", steady(TEN), g="10")
    honest = video._packet_times

    def shifted(*args):
        pts, keyframes = honest(*args)
        return pts + 1, keyframes

    monkeypatch.setattr(video, "_packet_times", shifted)
    frames = video.read_frames(path, [i / 10 + 0.05 for i in (5, 50, 77)])
    assert [number(f) for f in frames] == [5, 50, 77]


def test_written_video_reads_back_and_is_deterministic(tmp_path: Path) -> None:
    frames = np.stack([numbered(i) for i in range(40)])
    video.write_video(tmp_path / "a.mp4", frames, fps=8)
    video.write_video(tmp_path / "b.mp4", iter(frames), fps=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    back = video.read_frames(tmp_path / "a.mp4", [i / 8 for i in range(40)])
    assert np.abs(back.permute(0, 2, 3, 1).numpy().astype(int) - frames).mean() < 6
    assert video.probe(tmp_path / "a.mp4").duration == pytest.approx(5)


def test_frames_with_times_keep_them(tmp_path: Path) -> None:
    frames = timed([time - UNEVEN[0] for time in UNEVEN])
    video.write_video(tmp_path / "a.mp4", frames, fps=8, watched=True)
    expected = [float(time - UNEVEN[0]) for time in UNEVEN]
    np.testing.assert_allclose(video.probe(tmp_path / "a.mp4").seconds, expected, atol=1e-4)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "the index comes first"


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def frames():
        yield numbered(0)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        video.write_video(tmp_path / "a.mp4", frames(), fps=8)
    assert not list(tmp_path.iterdir())


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    for count in (4, 9):
        video.write_video(path, [numbered(count)] * count, fps=8)
        assert len(video.probe(path).pts) == count
        assert number(video.read_frames(path, [0])[0]) == count


def test_writing_needs_no_torch() -> None:
    """Processes that render are started by the dozen."""
    code = "import sys, stadlib.data.video; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["a.mp4", "fast.mp4", "a.mkv", "fragmented.mp4", "a.avi"])
def test_truncated_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path, times, options = tmp_path / name, steady(PAL), {"g": "10", "bf": "0"}
    if name == "a.avi":  # cannot take packets over from another container
        write(path, times, **options)
    else:
        flags = {"fast.mp4": "faststart", "fragmented.mp4": "frag_keyframe+empty_moov"}.get(name)
        whole = write(tmp_path / "whole.mkv", times, **options)
        remux(whole, path, **({"movflags": flags} if flags else {}))
    data = path.read_bytes()
    assert len(video.probe(path).pts) == 100
    for kept in (0.98, 0.6, 0.02):
        path.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(InputError, match=rf"{name}.* re-encode") as caught:
            video.read_frames(path, [0.1])
        assert "\n" not in str(caught.value)


def sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (lambda path: None, "no such video"),
        (lambda path: path.touch(), "empty file"),
        (lambda path: path.write_text("this is no video\n" * 99), "cannot be decoded"),
        (sound, "no video stream"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, make, answer: str) -> None:
    make(tmp_path / "a.mkv")
    with pytest.raises(InputError, match=rf"a\.mkv: {answer}"):
        video.probe(tmp_path / "a.mkv")

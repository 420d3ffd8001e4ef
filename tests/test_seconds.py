"""Every second in which persons are known: the annotated ones, and those of a box file."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from stadlib.base import InputError
from stadlib.data.keyframes import detected_seconds, every_second, moments, read_keyframes
from stadlib.data.layout import AvaLayout
from stadlib.training.memory import one_a_second, second_key, view_key


@pytest.fixture
def layout(tiny_dataset, tmp_path) -> AvaLayout:
    shutil.copytree(tiny_dataset, tmp_path / "own")
    return AvaLayout(tmp_path / "own")


def write_boxes(layout: AvaLayout, source: str, split: str, text: str, by="ground-truth") -> None:
    path = layout.person_boxes(by, source, split)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_without_a_file_only_annotated_seconds_are_there(layout):
    found = every_second(layout, "kinetics", "val")
    assert [(k.video, k.timestamp) for k in found] == [("c", 5.016949)]
    with pytest.raises(InputError, match=r"v1_kinetics_val\.csv: no such file"):
        detected_seconds(layout, "kinetics", "val", "v1", 0.5)


def test_annotations_stand_and_other_seconds_come_from_the_file(layout):
    write_boxes(
        layout, "kinetics", "val",
        "c,5.016949,0.1,0.1,0.2,0.2,,1.0\nc,4.016949,0.3,0.4,0.6,0.9,,1.0\n"
        "c,6.016949,0.3,0.4,0.6,0.9,,1.0\nc,6.016949,0.0,0.1,0.2,0.9,,1.0\n",
    )  # fmt: skip
    found = every_second(layout, "kinetics", "val")
    assert [round(k.timestamp, 6) for k in found] == [4.016949, 5.016949, 6.016949]
    annotated = read_keyframes(layout, "kinetics", "val")[0]
    assert np.array_equal(found[1].boxes, annotated.boxes) and found[1].actions.any()
    assert [len(k.boxes) for k in found] == [1, 1, 2]
    assert not found[0].actions.any() and not found[2].actions.any()


def test_two_keyframes_of_a_second_are_one_to_memory_and_two_to_testing(layout):
    """As ``lxlYez-CJYA`` has them at 459.032327 and 459.037917 in AVA-Kinetics' validation."""
    text = "c,5.016949,0.3,0.4,0.6,0.9,,1.0\nc,5.032,0.3,0.4,0.6,0.9,,1.0\n"
    write_boxes(layout, "kinetics", "val", text)
    found = every_second(layout, "kinetics", "val")
    assert len(found) == 2
    assert [second_key(k) for k in one_a_second(found)] == [("c", 5)]
    assert len({view_key(k) for k in found}) == 2


def test_the_miniature_world_tells_who_is_there_in_every_second(smoke_record):
    from stadlib.base import data_dir
    from stadlib.world import spec

    layout = AvaLayout(data_dir() / f"miniature-{spec.SMOKE.digest}" / "world")
    for source, seconds in (("ava", 12), ("kinetics", 10)):
        annotated = [k for k in read_keyframes(layout, source, "train") if len(k.boxes)]
        found = {(k.video, f"{k.timestamp:.6f}"): k for k in
                 every_second(layout, source, "train")}  # fmt: skip
        times = [float(t) for v, t in found if v == annotated[0].video]
        assert len(times) == seconds
        assert len({round(t % 1, 5) for t in times}) == 1  # counted from the annotated second
        path = layout.person_boxes("ground-truth", source, "train")
        rows = {line.rsplit(",,", 1)[0] for line in path.read_text().splitlines()}
        for keyframe in annotated:
            for box in keyframe.boxes:
                corners = ",".join(f"{value:.4f}" for value in box)
                written = (f"{keyframe.video},{t},{corners}" for t in _clocks(keyframe.timestamp))
                assert any(row in rows for row in written)


def _clocks(timestamp: float) -> tuple[str, str]:
    return f"{timestamp:04.0f}", f"{timestamp:.6f}"


# ------------------------------------------------------------------- what a detector should see


def test_every_second_of_a_video_is_counted_from_an_annotated_one(layout):
    """Video c shows 2.5 to 7.5 on the annotation clock, a and b 900 to 905."""
    seconds = [3.016949, 4.016949, 5.016949, 6.016949, 6.5, 7.016949]  # 6.5 is annotated too
    assert moments(layout, "kinetics", "val") == [("c", second) for second in seconds]
    assert moments(layout, "ava", "val") == [("b", 900.0 + k) for k in range(5)]


def test_videos_follow_the_list_and_those_without_annotations_are_seen(layout):
    layout.video_list("kinetics", "val").write_text("d\nc\n")
    for name in ("c", "d"):
        source = layout.root / "videos" / "kinetics" / "c.mp4"
        if name != "c":
            shutil.copyfile(source, source.with_name(f"{name}.mp4"))
    found = moments(AvaLayout(layout.root), "kinetics", "val")
    assert [v for v, _ in found] == ["d"] * 5 + ["c"] * 6
    assert [t for v, t in found if v == "d"] == [0.0, 1.0, 2.0, 3.0, 4.0]  # no start is given


def test_an_excluded_moment_is_nobodys(layout):
    assert moments(layout, "ava", "train") == [("a", t) for t in (900.0, 901.0, 902.0, 904.0)]

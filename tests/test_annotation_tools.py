"""Files of CVAT, VIA and COCO become datasets and lose no box; predictions become CVAT's files."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stadlib.base import InputError
from stadlib.cli import main
from stadlib.data import annotation_tools
from stadlib.data.annotation_tools import AnnotatedVideo, import_annotations
from stadlib.data.layout import AVA_ACTIONS, AvaLayout
from stadlib.data.video import write_video
from stadlib.video.sightings import Look, Sighting, SightingFile

WIDTH, HEIGHT, RATE, SECONDS = 64, 48, 8, 6
WALK = {"walk": "true", "talk": "false"}


def make_video(path: Path, rate=RATE, frames=RATE * SECONDS) -> Path:
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    write_video(path, (picture for _ in range(frames)), fps=rate)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return make_video(tmp_path_factory.mktemp("clips") / "clip.mp4")


def cvat(tracks: list[list[tuple]], source="clip.mp4", *, label="person", meta="") -> str:
    """CVAT's XML; a track is a list of (frame, outside, corners, attributes)."""
    text = f"<annotations><version>1.1</version><meta><task><source>{escape(source)}</source>"
    text = f'<?xml version="1.0" encoding="utf-8"?>\n{text}{meta}</task></meta>'
    for number, boxes in enumerate(tracks):
        text += f'<track id="{number}" label={quoteattr(label)} source="manual">'
        for frame, outside, corners, attributes in boxes:
            sides = zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True)
            sides = " ".join(f'{name}="{side:.2f}"' for name, side in sides)
            text += (
                f'<box frame="{frame}" outside="{int(outside)}" occluded="0" keyframe="1" {sides}>'
            )
            for name, value in attributes.items():
                text += f"<attribute name={quoteattr(name)}>{escape(value)}</attribute>"
            text += "</box>"
        text += "</track>"
    return text + "</annotations>"


def via(regions: list[tuple], fname="clip.mp4", attributes: dict | None = None) -> str:
    """VIA 3's JSON; a region is (times, xy, av)."""
    options = {"1": "walk", "2": "talk", "3": "sit"}
    attribute = {"aname": "action", "anchor_id": "FILE1_Z1_XY1", "type": 2, "options": options}
    metadata = {
        f"1_{number}": {"vid": "7", "flg": 0, "z": times, "xy": shape, "av": values}
        for number, (times, shape, values) in enumerate(regions)
    }
    file = {"3": {"fid": "3", "fname": fname, "type": 4, "loc": 1, "src": ""}}
    project = {"project": {"vid_list": ["7"]}, "config": {}, "file": file, "metadata": metadata}
    project |= {"attribute": attributes or {"1": attribute}, "view": {"7": {"fid_list": ["3"]}}}
    return json.dumps(project, ensure_ascii=False)


def coco(annotations: list[dict], frames=range(RATE * SECONDS), video: dict | None = None) -> dict:
    image = {"video_id": 4, "width": WIDTH, "height": HEIGHT}
    return {
        "videos": [{"id": 4, "name": "clip.mp4"} | (video or {})],
        "images": [{"id": 100 + frame, "frame_id": frame} | image for frame in frames],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "walk"}, {"id": 2, "name": "talk"}],
    }


def read(out: Path, split="train") -> list[tuple]:
    """Rows (video, second, corners in pixels of the test's frames, action, person) of a split."""
    layout, rows = AvaLayout(out), []
    names = layout.label_map().names
    for line in layout.annotations("ava", split).read_text(encoding="utf-8").splitlines():
        video, second, *corners, action, person = line.split(",")
        corners = [float(c) * s for c, s in zip(corners, (WIDTH, HEIGHT) * 2, strict=True)]
        corners = tuple(round(corner, 2) for corner in corners)
        rows.append((video, int(second), corners, names[int(action)], int(person)))
    return rows


def bring(tool: str, text: str, clip: Path, **options) -> Path:
    """Import one file of a tool; the dataset's folder."""
    folder = Path(tempfile.mkdtemp(dir=clip.parent.parent))
    file = folder / ("file.xml" if tool == "cvat" else "file.json")
    file.write_text(text, encoding="utf-8")
    options = {"videos": clip.parent} | options
    import_annotations(tool, file, folder / "out", **options)
    return folder / "out"


hundredths = st.integers(0, 100 * HEIGHT - 2).flatmap(
    lambda low: st.tuples(st.just(low), st.integers(low + 1, 100 * HEIGHT - 1))
)
boxes = st.tuples(hundredths, hundredths).map(
    lambda sides: tuple(n / 100 for n in (sides[0][0], sides[1][0], sides[0][1], sides[1][1]))
)
actions = st.sets(st.sampled_from(["walk", "talk", "answer phone"]), min_size=1)
seconds = st.dictionaries(st.integers(0, SECONDS - 1), st.tuples(boxes, actions), min_size=1)
calm = settings(max_examples=25, deadline=None)


def expected(tracks: list[dict], numbered=True) -> set[tuple]:
    return {
        ("clip", second, box, action, number if numbered else -1)
        for number, track in enumerate(tracks)
        for second, (box, done) in track.items()
        for action in done
    }


@calm
@given(st.lists(seconds, min_size=1, max_size=4))
def test_cvats_tracks_lose_no_box(clip, tracks):
    """Persons leave and return: they are outside in every second without a box."""
    written = []
    for track in tracks:
        shapes = []
        for second in range(SECONDS):
            box, done = track.get(second, ((0, 0, 9, 9), set()))
            named = {name: str(name in done).lower() for name in ("walk", "talk", "answer phone")}
            shapes.append((second * RATE, second not in track, box, named))
        written.append(shapes)
    out = bring("cvat", cvat(written), clip)
    assert set(read(out)) == expected(tracks)
    assert len(read(out)) == len(expected(tracks))


@calm
@given(st.lists(seconds, min_size=1, max_size=3), st.data())
def test_vias_boxes_lose_no_box(clip, tracks, data):
    options = ["walk", "talk", "answer phone"]
    checkbox = {"aname": "does", "type": 2, "options": {str(n): o for n, o in enumerate(options)}}
    late = data.draw(st.lists(st.floats(-0.49, 0.49), min_size=SECONDS, max_size=SECONDS))
    regions = []
    for track in tracks:
        for second, ((x1, y1, x2, y2), done) in track.items():
            time = second + (abs(late[second]) if second == 0 else late[second])
            value = ",".join(str(options.index(name)) for name in sorted(done))
            shape = [2, x1, y1, x2 - x1, y2 - y1]
            regions.append(([time], shape, {"1": value}))
    out = bring("via", via(regions, attributes={"1": checkbox}), clip)
    rows = expected(tracks, numbered=False)  # VIA has no tracks
    assert set(read(out)) == rows and len(read(out)) == len(rows)


def test_cvat_interpolates_and_stops_where_its_task_does(clip):
    moving = [(2, False, (0, 0, 10, 20), WALK), (34, False, (32, 16, 42, 36), {"talk": "true"})]
    rows = read(bring("cvat", cvat([moving]), clip))
    # Frame 8 n is shown at second n. An attribute that a box leaves out is as before it.
    at = {second: corners for _, second, corners, *_ in rows}
    assert at == {
        **{
            n: (8 * n - 2.0, (8 * n - 2) / 2, 8 * n + 8.0, (8 * n - 2) / 2 + 20)
            for n in (1, 2, 3, 4)
        },
        5: (32, 16, 42, 36),
    }
    assert {action for *_, action, _ in rows[:4]} == {"walk"}
    assert [action for _, second, _, action, _ in rows if second == 5] == ["talk", "walk"]
    rows = read(bring("cvat", cvat([moving[:1]], meta="<stop_frame>31</stop_frame>"), clip))
    assert [second for _, second, *_ in rows] == [1, 2, 3]  # frame 32 is after the task's last
    gone = [*moving[:1], (20, True, (10, 0, 20, 20), {}), (40, False, (1, 2, 3, 4), {})]
    rows = read(bring("cvat", cvat([gone]), clip))
    assert [(second, corners) for _, second, corners, *_ in rows] == [
        (1, (3.33, 0, 13.33, 20)),
        (2, (7.78, 0, 17.78, 20)),
        (5, (1, 2, 3, 4)),
    ]


def test_seconds_have_the_boxes_of_the_frame_that_is_shown(tmp_path):
    """At 29.97 frames a second, frame 30 comes a millisecond after second 1."""
    ntsc = make_video(tmp_path / "ntsc" / "clip.mp4", Fraction(30000, 1001), 95)
    shapes = [(frame, False, (0, 0, 1 + frame / 2, 5), WALK) for frame in range(95)]
    rows = read(bring("cvat", cvat([shapes]), ntsc))
    assert [(second, 2 * corners[2] - 2) for _, second, corners, *_ in rows] == [
        (0, 0), (1, 29), (2, 59), (3, 89)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "attributes", "chosen", "names"),
    [
        ("run", {}, (), {"run"}),
        ("person", {"action": "fall down", "team": "2", "talk": "true"}, (), {"fall down", "talk"}),
        ("person", {"action": "sit", "colour": "red"}, ("action",), {"sit"}),
        ("run", {"side": "left", "talk": "true"}, ("label", "talk"), {"run", "talk"}),
        ("person", {'say "hi"\n loud': "true"}, (), {"say 'hi' loud"}),
        ("person", {"walk": "true", "answer phone": "false"}, (), {"walk"}),
    ],
)
def test_actions_are_labels_checkboxes_or_values(clip, label, attributes, chosen, names):
    text = cvat([[(0, False, (1, 2, 3, 4), attributes)]], label=label)
    out = bring("cvat", text, clip, actions=chosen)
    assert {action for *_, action, _ in read(out)} == names


def test_label_maps(clip):
    """AVA's ids where all actions are AVA's, or else the actions by name."""
    avas = {AVA_ACTIONS[12]: "true", AVA_ACTIONS[80]: "true"}
    out = bring("cvat", cvat([[(0, False, (1, 2, 3, 4), avas)]]), clip)
    assert AvaLayout(out).label_map().names == AVA_ACTIONS
    both = cvat([[(0, False, (1, 2, 3, 4), {"walk": "true", "jump": "true"})]])
    assert AvaLayout(bring("cvat", both, clip)).label_map().names == {1: "jump", 2: "walk"}


def test_persons_without_an_action_and_undecided_seconds(clip):
    idle = {"walk": "false", "pose": ""}
    undecided = {"walk": "true", "pose": "__undefined__"}
    shapes = [(0, False, (1, 2, 3, 4), WALK), (8, False, (5, 6, 7, 8), idle)]
    shapes += [(16, False, (9, 9, 19, 19), undecided), (17, True, (9, 9, 19, 19), {})]
    out = bring("cvat", cvat([shapes]), clip)
    assert [row[1:4] for row in read(out)] == [
        (0, (1, 2, 3, 4), "walk"),
        (2, (9, 9, 19, 19), "walk"),
    ]
    layout = AvaLayout(out)
    assert layout.excluded("ava", "train") == {("clip", "2.000000")}
    stored = layout.person_boxes("ground-truth", "ava", "train").read_text().splitlines()
    assert [line.split(",")[1] for line in stored] == ["0.000000", "1.000000", "2.000000"]


def test_via_pictures_named_by_frame_are_seconds_of_their_video(clip):
    """The tutorials cut 30 pictures a second: clip_000061.jpg is at second 2."""
    regions = [([], [2, 6.4, 4.8, 12.8, 24], {"1": "1, 3"}), ([], [2, 0, 0, 64, 48], {"1": ""})]
    out = bring("via", via(regions, fname="frames/clip_000061.jpg"), clip)
    box = (6.4, 4.8, 19.2, 28.8)
    assert sorted(read(out)) == [("clip", 2, box, "sit", -1), ("clip", 2, box, "walk", -1)]


def test_via_takes_the_moment_nearest_to_a_second(clip, capsys):
    times = [0.6, 0.9, 1.2, 2.5, 2.9, 5.6]
    regions = [([t], [2, 1, 1, 10 * t, 5], {"1": "1"}) for t in times]
    regions.append(([0.5, 3.0], [], {"1": "2"}))  # a segment: what happens, not who does it
    file = clip.parent / "times.json"
    file.write_text(via(regions))
    out = clip.parent.parent / "times"
    assert main(["import", "via", str(file), "--out", str(out)]) == 0
    assert [(second, corners[2]) for _, second, corners, *_ in read(out)] == [(1, 10), (3, 30)]
    assert "2 of 6 boxes, by second" in capsys.readouterr().out
    file.unlink()


def test_coco_has_tracks_categories_and_frames_without_a_person(clip):
    rows = [
        {"image_id": 108, "bbox": [1, 2, 10, 20], "category_id": 1, "track_id": 77},
        {"image_id": 108, "bbox": [1, 2, 10, 20], "category_id": 2, "track_id": 77},
        {"image_id": 116, "bbox": [2, 2, 10, 20], "category_id": 1, "instance_id": 77},
        {"image_id": 123, "bbox": [3, 2, 10, 20], "category_id": 1},  # frame 24 shows nobody
        {"image_id": 132, "bbox": [-4, 40, 70, 20], "category_id": 1, "track_id": 5},
    ]
    out = bring("coco-video", json.dumps(coco(rows)), clip)
    assert sorted(read(out)) == [
        ("clip", 1, (1, 2, 11, 22), "talk", 0),
        ("clip", 1, (1, 2, 11, 22), "walk", 0),
        ("clip", 2, (2, 2, 12, 22), "walk", 0),
        ("clip", 4, (0, 40, 64, 48), "walk", 1),
    ]
    rows = [{"image_id": 103, "bbox": [1, 2, 10, 20], "category_id": 1, "track_id": 7}]
    sparse = coco(rows, range(6), {"name": "somewhere/clip", "fps": 1})
    assert read(bring("coco-video", json.dumps(sparse), clip)) == [
        ("clip", 3, (1, 2, 11, 22), "walk", 0)
    ]


def dataset(folder: Path, names: list[str]) -> Path:
    """A folder with a short video and CVAT's file for each name."""
    folder.mkdir()
    for number, name in enumerate(names):
        make_video(folder / name, frames=2 * RATE)
        text = cvat([[(0, False, (1, 2, 3 + number, 4), WALK)]], source=f"upload/{name}")
        (folder / f"{number}.xml").write_text(text, encoding="utf-8")
    return folder


def test_every_fifth_video_is_for_validation_unless_named(tmp_path):
    source = dataset(tmp_path / "five", [f"{letter}.mp4" for letter in "edcba"])

    def split(name: str, **options) -> dict:
        import_annotations("cvat", source, tmp_path / name, **options)
        layout = AvaLayout(tmp_path / name)
        return {s: "".join(layout.videos("ava", s)) for s in ("train", "val")}

    assert split("default") == {"train": "abcd", "val": "e"}
    assert split("named", val=["b.mp4", "d"]) == {"train": "ace", "val": "bd"}
    for chosen in (["f"], list("abcde")):
        with pytest.raises(InputError, match=r"--val .*a, b, c, d, e, not all"):
            split("wrong", val=chosen)
        assert not (tmp_path / "wrong").exists()
    for name in ("1.xml", "2.xml", "3.xml"):
        (source / name).unlink()
    assert split("two") == {"train": "a", "val": "e"}
    (source / "4.xml").unlink()
    import_annotations("cvat", source, tmp_path / "one")
    assert not AvaLayout(tmp_path / "one").annotations("ava", "val").exists()


def test_an_imported_folder_passes_check_whatever_its_videos_are_called(tmp_path, capsys):
    names = ["прыжок 1.mp4", 'a, b "c".MP4', "cafe\u0301 #2.mp4", "-x.v2.mp4"]
    source = dataset(tmp_path / "named", names)
    # The annotation has the composed letter, as a browser types it.
    third = source / "2.xml"
    third.write_text(
        third.read_text(encoding="utf-8").replace("e\u0301", "\u00e9"), encoding="utf-8"
    )
    for options in ([], ["--copy"]):
        out = tmp_path / f"out {len(options)}"
        assert main(["import", "cvat", str(source), "--out", str(out), *options]) == 0
        if not options:
            assert main(["check", str(out), "--strict"]) == 0, capsys.readouterr().out
        layout = AvaLayout(out)
        found = layout.videos("ava", "train") + layout.videos("ava", "val")
        assert sorted(found) == ["-x.v2", "a_ b _c_", "cafe\u0301 #2", "прыжок 1"]
        links = [layout.video_file("ava", video).is_symlink() for video in found]
        assert set(links) == {not options}
    assert main(["import", "cvat", str(source), "--out", str(out)]) == 1
    assert "exists; remove it" in capsys.readouterr().err


GOOD = [[(0, False, (1, 2, 3, 4), WALK)]]
BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "ha">]><annotations>&b;</annotations>'
CAR = {"1": {"aname": "action", "type": 2, "options": {"1": "walk"}}}


@pytest.mark.parametrize(
    ("tool", "text", "place", "words"),
    [
        ("cvat", cvat(GOOD)[:-9], "the file", "ParseError"),
        ("cvat", "", "the file", "ParseError"),
        ("cvat", BOMB, "the file", "DTDForbidden"),
        ("cvat", "<annotations><image id='0'/></annotations>", "the file", "CVAT for video 1.1"),
        ("cvat", cvat(GOOD, source="other.mp4"), "the file", "no video 'other.mp4' .*--videos"),
        ("cvat", cvat(GOOD, source="../secret.mp4"), "the file", "no video 'secret.mp4'"),
        ("cvat", cvat([[(48, False, (1, 2, 3, 4), {})]]), "track 0, box of frame 48", "48 frames"),
        ("cvat", cvat([[(-1, False, (1, 2, 3, 4), {})]]), "track 0, box of frame -1", "48 frames"),
        ("cvat", cvat(GOOD).replace("1.00", "one"), "track 0, box of frame 0", "'one'.*mend it"),
        ("cvat", cvat(GOOD).replace("1.00", "nan"), "track 0", "nan.*mend it"),
        ("cvat", cvat(GOOD).replace("xtl", "left"), "track 0, box of frame 0", "'xtl'"),
        ("cvat", cvat([GOOD[0] * 2]), "track 0, box of frame 0", "a second box"),
        ("cvat", cvat(GOOD).replace('keyframe="1"', 'rotation="9"'), "track 0", "rotated"),
        ("via", "{", "the file", "JSONDecodeError"),
        ("via", "[" * 100_000, "the file", "RecursionError|JSONDecodeError"),
        ("via", "[]", "the file", "a project of VIA 3"),
        ("via", via([([1.0], [7, 1, 2, 3, 4, 5, 6], {})]), "metadata 1_0", "shape 7"),
        ("via", via([([1.0], [2, 1, 2, 3], {})]), "metadata 1_0", "mend it"),
        ("via", via([([1.0], [2, 1, 2, 3, 4], {"1": "8"})]), "metadata 1_0", "'8'"),
        ("via", via([([1.0], [2, 1, 2, 3, 4], {"2": "1"})]), "metadata 1_0", "'2'"),
        ("via", via([([], [2, 1, 2, 3, 4], {"1": "1"})]), "metadata 1_0", "one moment"),
        ("via", via([([1], [2, 1, 2, 1e999, 4], {"1": "1"})]), "metadata 1_0", "inf"),
        ("via", via([([1], [2] * 5, {})], fname="/etc/x.mp4"), "metadata 1_0", "no video 'x.mp4'"),
        ("coco-video", "{}", "the file", "'videos'.*COCO with videos"),
        ("coco-video", json.dumps(coco([{"image_id": 1}])), r"annotations\[0\]", "mend it"),
        ("coco-video", json.dumps(coco([], [48])), r"images\[0\]", "48 frames"),
        ("coco-video", json.dumps(coco([], [0], {"id": 5})), r"images\[0\]", "KeyError 4"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_with_its_place_and_a_remedy(
    clip, tmp_path, tool, text, place, words
):
    (tmp_path / "secret.mp4").write_bytes(clip.read_bytes())
    folder = tmp_path / "in"
    folder.mkdir()
    file = folder / ("broken.xml" if tool == "cvat" else "broken.json")
    file.write_text(text)
    (folder / "clip.mp4").symlink_to(clip)
    with pytest.raises(InputError, match=rf"broken\.\w+: {place}.*: .*{words}") as raised:
        import_annotations(tool, file, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "secret.mp4"]


def test_videos_that_cannot_be_used(clip, tmp_path, capsys):
    def refused(words: str) -> None:
        assert (
            main(["import", "cvat", str(tmp_path / "a.xml"), "--out", str(tmp_path / "out")]) == 1
        )
        (line,) = capsys.readouterr().err.splitlines()
        assert "a.mp4" in line and words in line and not (tmp_path / "out").exists()

    (tmp_path / "a.xml").write_text(cvat(GOOD, source="a.mp4"))
    (tmp_path / "a.mp4").write_bytes(b"")
    refused("empty file; re-download")
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes()[:-100])
    refused("ends early; re-download")
    packets = tmp_path / "a.mp4"
    with av.open(str(clip)) as source, av.open(str(packets), "w") as turned:
        stream = turned.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                turned.mux(packet)
    assert AnnotatedVideo(packets).size == (HEIGHT, WIDTH)
    refused("re-encode it upright")


def test_a_file_without_a_labelled_box_is_said_to_be(clip, tmp_path, capsys):
    for number, tracks in enumerate(([], [[(0, False, (1, 2, 3, 4), {"walk": "false"})]])):
        (tmp_path / f"{number}.xml").write_text(cvat(tracks))
        words = ["import", "cvat", str(tmp_path), "--videos", str(clip.parent)]
        assert main([*words, "--out", str(tmp_path / "out")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"stadlib: {tmp_path}: no box") and "; give a video's task" in line
    make_video(clip.parent / "empty.mp4", frames=RATE)
    (tmp_path / "0.xml").write_text(cvat([], source="empty.mp4"))
    (tmp_path / "1.xml").write_text(cvat(GOOD))
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert AvaLayout(tmp_path / "out").videos("ava", "train") == ["clip"]
    assert "1 of 2 videos, 0 of them for validation" in capsys.readouterr().out
    (clip.parent / "empty.mp4").unlink()


def test_nothing_is_left_when_writing_fails(clip, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotation_tools, "write_person_boxes", full)
    file = tmp_path / "a.xml"
    file.write_text(cvat(GOOD))
    with pytest.raises(OSError, match="No space"):
        import_annotations("cvat", file, tmp_path / "out", videos=clip.parent)
    assert [path.name for path in tmp_path.iterdir()] == ["a.xml"]


def test_a_dataset_is_copied_where_links_cannot_be_made(clip, monkeypatch):
    monkeypatch.setattr(annotation_tools.os, "symlink", lambda *_: (_ for _ in ()).throw(OSError()))
    out = bring("cvat", cvat(GOOD), clip)
    video = AvaLayout(out).video_file("ava", "clip")
    assert not video.is_symlink() and video.read_bytes() == clip.read_bytes()


def predictions(folder: Path, clip: Path, sightings: list[Sighting], **other) -> Path:
    names = {"12": "stand", "80": 'watch "TV" & co'}
    made_by = {"video": clip.name, "bytes": clip.stat().st_size, "every": 1.0, "actions": names}
    file = SightingFile(folder / "seconds.jsonl", made_by | other)
    for sighting in sightings:
        file.append(sighting)
    file.finish()
    return folder


def sighting(second: float, persons: dict[int, tuple]) -> Sighting:
    boxes = np.array([box for box, _ in persons.values()]).reshape(-1, 4)
    scores = np.array([scores for _, scores in persons.values()]).reshape(-1, 2)
    looks = [Look(second, list(persons), boxes), Look(second + 0.5, [], np.zeros((0, 4)))]
    return Sighting(looks, np.ones(len(persons)), scores)


def test_predictions_go_to_cvat_and_come_back(clip, tmp_path, capsys):
    first, second = [0.125, 0.25, 0.5, 0.75], [0.5, 0.25, 0.75, 0.5]
    seen = [
        sighting(0, {1: (first, [0.9, 0.1]), 2: (second, [0.1, 0.3])}),
        sighting(1, {1: (second, [0.9, 0.8])}),
        sighting(2, {}),
        sighting(3, {2: (first, [0.7, 0.2]), 1: (second, [0.1, 0.1])}),
        sighting(4, {1: (first, [0.3, 0.1])}),
        sighting(5, {}),
    ]
    folder, out = predictions(tmp_path / "found", clip, seen), tmp_path / "clip.xml"
    assert main(["export", str(folder), str(clip), "--out", str(out)]) == 0
    assert "2 people" in capsys.readouterr().out
    (label,) = json.loads((tmp_path / "clip.labels.json").read_text())
    assert label["name"] == "person" and len(label["attributes"]) == 2
    words = ["import", "cvat", str(out), "--videos", str(clip.parent)]
    assert main([*words, "--out", str(tmp_path / "own")]) == 0
    a, b = (8, 12, 32, 36), (32, 12, 48, 24)
    assert sorted(row[1:] for row in read(tmp_path / "own")) == [
        (0, a, "stand", 0), (0, b, "watch 'TV' & co", 1), (1, b, "stand", 0),
        (1, b, "watch 'TV' & co", 0), (3, a, "stand", 1), (4, a, "stand", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (None, "seconds.jsonl: no predictions"),
        (
            {"bytes": 5, "video": "other.mp4"},
            "seconds.jsonl: of another video, other.mp4; name that",
        ),
    ],
)
def test_predictions_that_are_missing_or_of_another_video(clip, tmp_path, capsys, made, words):
    if made:
        predictions(tmp_path, clip, [], **made)
    assert main(["export", str(tmp_path), str(clip), "--out", str(tmp_path / "a.xml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and not (tmp_path / "a.xml").exists()


def test_the_commands_need_no_torch(clip, tmp_path):
    (tmp_path / "a.xml").write_text(cvat(GOOD))
    words = [
        "import",
        "cvat",
        str(tmp_path),
        "--videos",
        str(clip.parent),
        "--out",
        str(tmp_path / "o"),
    ]
    folder = predictions(tmp_path / "found", clip, [sighting(0, {})])
    more = ["export", str(folder), str(clip), "--out", str(tmp_path / "b.xml")]
    code = f"import sys; from stadlib.cli import main; print(main({words}), main({more}))\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["0 0", "False"]

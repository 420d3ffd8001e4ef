"""The miniature world: rendered the same by everyone, valid, long-tailed, and full of relations."""

import csv
import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from time import monotonic, sleep

import av
import numpy as np
import pytest

from stadlib.base import InputError, whole_folder
from stadlib.data.kinetics import listed_videos, missing_videos, read_annotations
from stadlib.data.layout import SOURCES, SPLITS, AvaLayout
from stadlib.data.video import write_video
from stadlib.world import MINI, PART_SPLITS, SMOKE, WorldSpec, actions, sets
from stadlib.world.actions import NAMES, pose_at
from stadlib.world.figures import bounds
from stadlib.world.render import Stage, annotate, joints_at, rows, visible
from stadlib.world.scenery import Shot
from stadlib.world.script import SIZE, close_up, deck, generator, plan_split, write_script
from stadlib.world.sets import render

ATTENTIVE, WATCHED = actions.ATTENTIVE, actions.WATCHED
LEFT, RIGHT, FRONT, BACK = actions.LEFT, actions.RIGHT, actions.FRONT, actions.BACK
LISTEN, WATCH, TALK = actions.LISTEN, actions.WATCH, actions.TALK
TINY = WorldSpec(movies=(2, 1, 1), movie_seconds=(5,), clips=(2, 1, 1), clip_seconds=6,
                 pretraining_clips=(4, 3), pretraining_seconds=1)  # fmt: skip
# Whose pixels are pinned below; smoke's own numbers may change.
PINNED = dataclasses.replace(SMOKE, movies=(20, 8, 2), clips=(30, 6, 2), clip_seconds=10)
PARTS = {
    "world": 6,
    "test": 2,
    "kinetics-700": 7,
    "coco": 7,
}  # with the number of their videos or pictures


def contents(root):
    """Digest of every file below ``root``, by its name."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {part: render(root / part, part, TINY, workers=1) for part in PARTS}


@pytest.fixture(scope="module")
def scripts():
    """Scripts and instances of MINI, without pixels: {(source, split): [(script, instances)]}."""
    made = {}
    for group in product(SOURCES, SPLITS):
        written = [write_script(MINI, plan) for plan in plan_split(MINI, *group)]
        made[group] = [(script, annotate(script)) for script in written]
    return made


def labelled(script, instances):
    left_out = {*script.silent, *script.excluded}
    return [one for one in instances if one.t not in left_out]


def counts(pairs):
    return Counter(label for pair in pairs for one in labelled(*pair) for label in one.labels)


@pytest.mark.parametrize(("part", "workers"), [("world", 2), ("coco", 1)])
def test_same_seed_same_bytes_for_any_number_of_workers(tiny, tmp_path, part, workers):
    seen = []
    count = lambda *done_and_total: seen.append(done_and_total)  # noqa: E731
    other = render(tmp_path / "w", part, TINY, workers=workers, progress=count)
    assert contents(other) == contents(tiny[part])
    assert seen == [(k, PARTS[part]) for k in range(1, PARTS[part] + 1)]


@pytest.mark.parametrize("part", PARTS)
def test_another_seed_gives_other_pictures(tiny, tmp_path, part):
    spec = dataclasses.replace(TINY, seed=1)
    one, other = contents(tiny[part]), contents(render(tmp_path / "w", part, spec, workers=1))
    pictures = {digest for name, digest in one.items() if name.endswith((".mp4", ".jpg"))}
    assert len(pictures) == PARTS[part] and not pictures & {*other.values()}


def test_a_complete_set_is_returned_at_once_and_another_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(sets, "in_parallel", lambda *a: pytest.fail("rendered again"))
    before = contents(tiny["world"])
    assert render(tiny["world"], "world", TINY) == tiny["world"]
    assert contents(tiny["world"]) == before
    with pytest.raises(InputError, match="not the miniature world"):
        render(tiny["world"], "world", dataclasses.replace(TINY, seed=5))
    with pytest.raises(InputError, match="not the miniature kinetics-700"):
        render(tiny["coco"], "kinetics-700", TINY)


def test_an_interrupted_rendering_leaves_no_folder(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    root = tmp_path / "world"
    machine = platform.node().replace(".", "-")
    dead = tmp_path / f".world.0.{machine}.4194999.part"  # beyond any process id: one killed
    dead.mkdir()
    with pytest.raises(KeyboardInterrupt):
        render(root, "world", TINY, workers=1, progress=interrupt)
    assert not list(tmp_path.iterdir())
    render(root, "world", TINY, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_the_first_of_two_writers_of_a_folder_wins(tmp_path):
    root = tmp_path / "world"
    with whole_folder(root) as late:
        (late / "mark").write_text("late")
        late.rename(late.with_name("aside"))  # so that this same process can write once more
        with whole_folder(root) as early:
            (early / "mark").write_text("early")
        (tmp_path / "aside").rename(late)
    assert (root / "mark").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_a_script_without_a_guard_is_told_so_in_one_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from stadlib.world import SMOKE, sets\n"
        f"sets.render({str(tmp_path / 'w')!r}, 'kinetics-700', SMOKE, workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    *traceback, message = done.stderr.splitlines()
    assert done.returncode == 1 and message.startswith("stadlib.base.InputError")
    assert 'if __name__ == "__main__":' in message
    assert sum(line.startswith("Traceback") for line in traceback) == 1  # of the script's process
    assert not (tmp_path / "w").exists()


def test_official_layout_and_valid_rows(tmp_path):
    spec = dataclasses.replace(TINY, movies=(6, 1, 1), clips=(30, 1, 1))
    root = render(tmp_path / "w", "world", spec, workers=1)
    layout, seen, kinds, boxes = AvaLayout(root), set(), Counter(), {}
    assert layout.label_map().names == NAMES
    assert {*PART_SPLITS["world"], *PART_SPLITS["test"]} == {*SPLITS}
    for source, split in product(SOURCES, PART_SPLITS["world"]):
        videos = layout.videos(source, split)
        assert videos and not seen & {*videos}
        seen |= {*videos}
        assert all(layout.video_file(source, video).stat().st_size > 1000 for video in videos)
        layout.excluded(source, split)
        with open(layout.annotations(source, split), newline="") as file:
            listed = [tuple(row) for row in csv.reader(file)]
        assert {row[0] for row in listed} <= {*videos} and len({*listed}) == len(listed)
        kinds.update((source, len(row)) for row in listed)
        for video, time, *rest in listed:
            start = layout.video_start(source, video)
            seconds = spec.movie_seconds[0] if source == "ava" else spec.clip_seconds
            assert start < float(time) < start + seconds and (source != "ava" or start == 900)
            assert len(time) == 4 if source == "ava" else len(time.split(".")[1]) == 6
            if rest:
                *corners, label, person = rest
                x1, y1, x2, y2 = map(float, corners)
                assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 and int(label) in NAMES
                assert boxes.setdefault((video, time, person), corners) == corners
    assert kinds["ava", 8] and kinds["kinetics", 8] and kinds["kinetics", 2]
    assert {*kinds} <= {("ava", 8), ("ava", 2), ("kinetics", 8), ("kinetics", 2)}
    assert json.loads((root / "world.json").read_text())["spec"]["version"] == TINY.version


def test_keyframes_of_both_sources(scripts):
    for (source, _), pairs in scripts.items():
        for script, _ in pairs:
            if source == "ava":
                assert script.keyframes == tuple(range(2, script.seconds - 1))
                assert script.start == 900
            else:
                assert len(script.keyframes) == 1 and 1 < script.keyframes[0] < 9
    clips = [script for script, _ in scripts["kinetics", "train"]]
    assert np.mean([s.keyframes[0] % 1 != 0 for s in clips]) == pytest.approx(0.41, abs=0.06)
    assert np.mean([bool(s.silent) for s in clips]) == pytest.approx(0.10, abs=0.04)
    movies = [script for script, _ in scripts["ava", "train"]]
    assert any(s.silent for s in movies) and any(s.excluded for s in movies)


def test_long_tail_and_quotas_of_one_pose_and_at_most_three_more(scripts):
    train = counts(scripts["ava", "train"])
    assert max(train.values()) >= 100 * min(train[label] for label in NAMES)
    for source in SOURCES:  # enough of every class for a verdict
        test = counts(scripts[source, "test"])
        assert min(test[label] for label in NAMES) >= 25
    boxes = [one for pair in scripts["ava", "train"] for one in labelled(*pair)]
    assert all(sum(label <= 14 for label in one.labels) == 1 for one in boxes)  # one pose
    assert all(len(one.labels) == len(set(one.labels)) <= 4 for one in boxes)
    related = sum(bool({LISTEN, WATCH, TALK} & {*one.labels}) for one in boxes)
    assert 0.35 <= related / len(boxes) <= 0.55


def test_labels_that_last_are_often_without_evidence(scripts):
    def evident(script, one):
        """Whether the label that lasts can be seen within the second around the keyframe."""
        heeds = {LISTEN, WATCH} & {*one.labels}
        person = script.persons[one.target if heeds else one.person]
        segment = pose_at(person.segments, one.t)[1]
        return sum(segment.evidence(one.t + k / 8) > 0.6 for k in range(-8, 7)) >= 3

    found = [(script, one) for script, many in scripts["ava", "train"] for one in many]
    for label in (TALK, LISTEN, 48, 15, 57):  # read, answer phone, text
        shown = np.mean([evident(*pair) for pair in found if label in pair[1].labels])
        assert 0.5 < shown < 0.75, NAMES[label]
    assert all(evident(*pair) for pair in found if 4 in pair[1].labels)  # dance


def test_who_listens_faces_who_talks_and_who_watches_someone_busy(scripts):
    seen, unseen = Counter(), 0
    for script, instances in scripts["ava", "val"]:
        by_moment = {(one.t, one.person): one for one in instances}
        doing = {
            (one.t, person.number): pose_at(person.segments, one.t)[1]
            for one, person in product(instances, script.persons)
        }
        for (t, person), one in by_moment.items():
            segment, listens, watches = doing[t, person], LISTEN in one.labels, WATCH in one.labels
            looks = one.target >= 0 and segment.action in ATTENTIVE
            if looks:
                other = doing[t, one.target]  # perhaps outside of the picture
                unseen += (t, one.target) not in by_moment
                assert segment.facing in (LEFT, RIGHT)
                assert (other.x(t) - segment.x(t)) * segment.facing > 0
            assert listens == (looks and other.action == "talk")
            assert watches == (looks and other.action in WATCHED)
            quiet = segment.action == "quiet" and segment.posture in ("stand", "sit")
            if quiet and segment.facing in (LEFT, RIGHT):
                seen[listens, watches] += 1
            assert one.target == -1 or segment.facing not in (FRONT, BACK)
    assert min(seen.values()) > 0.15 * seen.total() and len(seen) == 3  # listen, watch, neither
    assert unseen > 50


def test_every_giver_has_a_taker_and_the_thing_changes_hands(scripts):
    handed = 0
    for script, _ in scripts["ava", "train"]:
        for person in script.persons:
            for segment in person.segments:
                if segment.action != "give" or not segment.item:
                    continue
                taker = script.persons[segment.partner].segments
                other = pose_at(taker, (segment.start + segment.end) / 2)[1]
                assert other.action == "take" and other.partner == person.number
                assert other.facing == -segment.facing and not other.item
                assert pose_at(taker, segment.end + 0.2)[1].item == segment.item
                assert not pose_at(person.segments, segment.end + 0.2)[1].item
                handed += 1
    assert handed >= 15


def test_persons_keep_their_number_and_do_not_jump(scripts):
    steps = jumps = 0
    for script, _ in scripts["ava", "train"]:
        assert [person.number for person in script.persons] == [*range(len(script.persons))]
        assert len({person.look.shirt for person in script.persons}) == len(script.persons)
        for person in script.persons:
            for a, b in pairwise(person.segments):
                assert a.end == pytest.approx(b.start)
                steps += 1
                jumps += abs(a.x1 - b.x0) > 3
    assert steps > 1000 and jumps < 0.02 * steps


@pytest.mark.parametrize("source", SOURCES)
def test_a_box_holds_the_pixels_of_its_person(source):
    compared = 0
    for plan in plan_split(PINNED, source, "train")[:16]:
        script = write_script(PINNED, plan)
        stage = Stage(script)
        for t in (1.0, 2.5, 4.4, 6.1):
            for number, box in visible(script, t).items():
                doing = pose_at(script.persons[number].segments, t)[1].action
                if doing not in ("quiet", "talk", "dance", "martial", "bend", "fall"):
                    continue  # things in hand are not part of the box
                others = {p.number for p in script.persons} - {number}
                drawn, gone = (
                    stage.frame(t, who).astype(int) for who in (others, {*others, number})
                )
                ys, xs = np.nonzero(np.abs(drawn - gone).max(axis=2) > 12)
                pixels = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                zoom = script.camera.view(t)[0]
                assert np.abs(pixels - box).max() < 3.5 * zoom, (script.video, t, number)
                compared += 1
    assert compared >= 20


def test_a_hidden_or_absent_person_has_no_box(scripts):
    checked, size = 0, SIZE["ava"]
    for script, _ in scripts["ava", "val"]:
        for t in script.keyframes:
            boxes = visible(script, t)
            for person in script.persons:
                gone = pose_at(person.segments, t)[1].action == "absent"
                # mirrored or not, what lies beside the picture lies beside it
                x1, _, x2, _ = bounds(joints_at(person, t, script.camera, size), person.look)
                if gone or x2 < 0 or x1 > size[0]:
                    assert person.number not in boxes
                    checked += 1
    assert checked > 20


def test_who_stands_right_behind_another_has_no_box():
    plans = plan_split(MINI, "kinetics", "train")
    script = write_script(MINI, next(p for p in plans if p.units == (2,) and not p.events))
    a, b = script.persons
    shadow = dataclasses.replace(a, number=b.number, height=a.height * 0.97, ground=a.ground - 1)
    assert {*visible(script, 5.0)} == {0, 1}
    assert {*visible(dataclasses.replace(script, persons=(a, shadow)), 5.0)} == {0}


def test_deck_deals_quotas():
    cards = deck({"a": 0.7, "b": 0.25, "c": 0.05}, 41, generator(3))
    assert Counter(cards) == {"a": 29, "b": 10, "c": 2}


def test_classification_sets_in_kinetics_layout(tmp_path):
    spec = dataclasses.replace(TINY, pretraining_clips=(80, 40))
    found = {}
    for part, classes in (("kinetics-400", 20), ("kinetics-700", 40)):
        annotations = read_annotations(render(tmp_path / part, part, spec, workers=1))
        assert len(annotations.classes) == classes
        for split, a_class in (("train", 2), ("val", 1)):
            videos = listed_videos(annotations, split, tmp_path / f"{part}_{split}.csv")
            assert Counter(videos.labels.tolist()) == dict.fromkeys(range(classes), a_class)
            assert not missing_videos(annotations, split, videos)
            paths = map(videos.path, range(len(videos)))
            found[part, split] = {(path.parent.name, path.name) for path in paths}
    for split in ("train", "val"):  # the smaller set is part of the larger
        assert found["kinetics-400", split] < found["kinetics-700", split]


def test_cuts_move_people_in_the_picture(scripts):
    cut, still = [], []
    for script, instances in scripts["ava", "val"]:
        boxes = {(one.t, one.person): one.box for one in instances}
        for (t, person), box in boxes.items():
            if (later := boxes.get((t + 1, person))) is None:
                continue
            same = script.camera.shot(t) == script.camera.shot(t + 1)
            (still if same else cut).append(abs(sum(box[::2]) - sum(later[::2])) / 2)
    assert len(cut) > 200 and len(still) > 1000
    assert np.median(still) < 2 and np.median(cut) > 15  # pixels of 120


def test_a_mirrored_shot_shows_the_same_people_from_the_other_side():
    script = write_script(SMOKE, plan_split(SMOKE, "ava", "train")[0])
    plain, mirrored = (
        dataclasses.replace(script.camera, shots=(Shot(mirrored=side),)) for side in (False, True)
    )
    one, other = (dataclasses.replace(script, camera=c) for c in (plain, mirrored))
    assert np.array_equal(Stage(one).frame(3.0)[:, ::-1], Stage(other).frame(3.0))
    boxes, seen = visible(one, 3.0), visible(other, 3.0)
    width = SIZE["ava"][0]
    assert boxes and seen == {n: (width - c, b, width - a, d) for n, (a, b, c, d) in boxes.items()}
    assert [i.labels for i in annotate(one)] == [i.labels for i in annotate(other)]


def test_annotators_miss_things_and_never_poses(scripts):
    listed, true = Counter(), Counter()
    for script, instances in scripts["ava", "val"]:
        for row in rows(script):
            if len(cells := row.split(",")) == 8:
                listed[int(cells[6])] += 1
        for one in instances:
            true.update(one.labels if one.t not in script.silent else ())
    poses = [label for label in NAMES if label <= 14]
    assert all(listed[label] == true[label] for label in poses)
    others = [sum(seen[label] for label in NAMES if label > 14) for seen in (listed, true)]
    assert 0.87 < others[0] / others[1] < 0.93


PIXELS = {  # of three seconds of a script: as drawn, and as decoded from the file
    "ava": ("f707eb5b4f76", "37e18c87bf25"),
    "kinetics": ("006ce65684c4", "638601310d37"),
    "pretraining": ("a699a37f14ad", "5df83d9d3a22"),
}


@pytest.mark.parametrize("source", PIXELS)
def test_pixels_are_the_same_on_every_machine(source, tmp_path):
    """Seen to hold without AVX2, SSE4 and FMA (OpenCV's and NumPy's switches, x264's ``asm=0``)."""
    if source == "pretraining":
        script = close_up(SMOKE, "train", 0, 0)
    else:
        script = write_script(PINNED, plan_split(PINNED, source, "train")[0])
    stage, decoded = Stage(script), hashlib.sha256()
    frames = [stage.frame(number / 8) for number in range(3 * 8)]
    drawn = hashlib.sha256(b"".join(frame.tobytes() for frame in frames))
    path = tmp_path / "movie.mp4"
    write_video(path, frames, 8, qp=20, gop=8)
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            decoded.update(np.ascontiguousarray(frame.to_ndarray()))
    assert (drawn.hexdigest()[:12], decoded.hexdigest()[:12]) == PIXELS[source]


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
def test_processes_that_render_end_when_what_started_them_is_killed(tmp_path):
    """As a notebook's kernel is by its interface, or by a machine that runs out of memory."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\nfrom pathlib import Path\n"
        "from stadlib.world.sets import in_parallel\n"
        "def task(job):\n    (Path(sys.argv[1]) / str(os.getpid())).touch()\n    time.sleep(60)\n"
        'if __name__ == "__main__":\n    in_parallel(task, [1, 2], 2, None)\n'
    )
    (tmp_path / "begun").mkdir()
    with subprocess.Popen([sys.executable, script, tmp_path / "begun"]) as process:
        wait_for(lambda: len(list((tmp_path / "begun").iterdir())) == 2)
        numbers = [int(path.name) for path in (tmp_path / "begun").iterdir()]
        assert all(map(alive, numbers))
        process.kill()
    wait_for(lambda: not any(map(alive, numbers)))


def wait_for(done: Callable[[], bool], seconds: float = 120) -> None:
    end = monotonic() + seconds
    while not done():
        assert monotonic() < end
        sleep(0.05)

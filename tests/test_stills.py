"""The miniature's stills: COCO's layout, and boxes where people are."""

import dataclasses
import json
from collections import Counter

import cv2
import numpy as np
import pytest

from stadlib.data.coco import read_coco
from stadlib.world.actions import pose_at
from stadlib.world.render import Stage
from stadlib.world.sets import render
from stadlib.world.spec import SMOKE, WorldSpec
from stadlib.world.stills import MOMENT, compose, person_boxes, photograph

TINY = WorldSpec(movies=(1, 1, 1), clips=(1, 1, 1), pretraining_clips=(60, 20))
SPLITS = ("train", "val")


def instances(root, split):
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def plain(scene):
    """The scene as a faultless lens would see it."""
    return dataclasses.replace(scene, blur=0.0, noise=0.0, grey=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return render(tmp_path_factory.mktemp("stills") / "s", "stills", TINY, workers=1)


@pytest.fixture(scope="module")
def scenes():
    return [plain(compose(SMOKE, "train", k, 1 + k % 5)) for k in range(60)]


def test_layout_of_coco(tiny):
    images = [image for split in SPLITS for image in instances(tiny, split)["images"]]
    assert [image["id"] for image in images] == [*range(1, 81)]
    for split, count in zip(SPLITS, TINY.pretraining_clips, strict=True):
        data = instances(tiny, split)
        names = [image["file_name"] for image in data["images"]]
        assert names == [f"{image['id']:012d}.jpg" for image in data["images"]]
        assert sorted(path.name for path in (tiny / split).iterdir()) == names
        assert len(names) == count
        assert [a["id"] for a in data["annotations"]] == [*range(1, len(data["annotations"]) + 1)]
        assert data["categories"] == [{"id": 1, "name": "person"}]
        assert {a["category_id"] for a in data["annotations"]} == {1}


@pytest.mark.parametrize("split", SPLITS)
def test_pictures_and_boxes_are_of_the_size_that_the_json_says(tiny, split):
    data, sizes = instances(tiny, split), {}
    for image in data["images"]:
        picture = cv2.imread(str(tiny / split / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
        assert picture.std() > 2
        sizes[image["id"]] = (image["width"], image["height"])
    assert len({*sizes.values()}) > 15
    assert all(96 <= width <= 128 and 72 <= height <= 112 for width, height in sizes.values())
    for one in data["annotations"]:
        x, y, w, h = one["bbox"]
        width, height = sizes[one["image_id"]]
        assert x >= 0 and y >= 0 and w > 1 and h > 1
        assert x + w <= width + 1e-6 and y + h <= height + 1e-6
        assert one["area"] == pytest.approx(w * h, abs=0.01) and one["iscrowd"] == 0


def test_the_reader_finds_the_persons_in_the_numbers_that_are_dealt(tiny):
    data = instances(tiny, "train")
    read = read_coco(tiny / "annotations" / "instances_train.json", tiny / "train")
    persons = Counter(a["image_id"] for a in data["annotations"])
    assert [len(still.boxes) for still in read] == [persons[i["id"]] for i in data["images"]]
    assert all(still.path.is_file() for still in read)
    counts = Counter(len(still.boxes) for still in read)
    assert counts[0] >= 3 and set(counts) <= set(range(6))
    assert counts[1] > counts[2] > counts[4]


def test_a_box_holds_the_pixels_of_its_person(scenes):
    compared = 0
    for scene in scenes:
        for number, box in person_boxes(scene).items():
            person = scene.script.persons[number]
            doing = pose_at(person.segments, MOMENT)[1].action
            if doing not in ("quiet", "talk", "dance", "martial", "bend", "fall"):
                continue  # things in hand are not part of the box
            stage = Stage(dataclasses.replace(scene.script, persons=(person,)))
            there, gone = (photograph(scene, stage, who).astype(int) for who in ({number}, ()))
            ys, xs = np.nonzero(np.abs(there - gone).max(axis=2) > 12)
            drawn = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            wide, high = scene.window[2:]
            gap = (drawn - box) * [1, 1, -1, -1]  # how far the figure stays inside its box
            most = max(2.5, 0.08 * person.height * scene.script.camera.view(MOMENT)[0])
            assert gap.min() > -most, (scene.script.video, number, drawn, box)
            if box[0] > 0 and box[1] > 0 and box[2] < wide and box[3] < high:
                assert gap.max() < most, (scene.script.video, number, drawn, box)
                compared += 1
    assert compared >= 40


def test_whoever_is_in_the_picture_has_a_box(scenes):
    left_out = 0
    for scene in scenes:
        boxes = person_boxes(scene)
        everyone = {person.number for person in scene.script.persons}
        left_out += len(everyone - {*boxes})
        stage = Stage(scene.script)
        there, gone = (photograph(scene, stage, who).astype(int) for who in (boxes, ()))
        outside = np.abs(there - gone).max(axis=2) > 12
        for x1, y1, x2, y2 in boxes.values():  # with a margin for what is held or lies about
            margin = 0.45 * (y2 - y1) + 12
            rows = slice(max(0, int(y1 - margin)), int(y2 + margin))
            outside[rows, max(0, int(x1 - margin)) : int(x2 + margin)] = False
        assert not outside.any(), scene.script.video
    assert left_out > 3  # who is cut off or hidden, and therefore not drawn


def test_a_deserted_scene_keeps_its_furniture_alone():
    furnished = 0
    for index in range(30):
        scene = plain(compose(SMOKE, "train", index, 0))
        assert scene.deserted and person_boxes(scene) == {}
        bare = [dataclasses.replace(p, props=()) for p in scene.script.persons]
        empty = dataclasses.replace(scene, script=dataclasses.replace(scene.script, persons=bare))
        there, gone = (photograph(one, Stage(one.script), ()) for one in (scene, empty))
        furnished += (there != gone).any()
    assert furnished >= 3


def test_scenes_are_diverse(scenes):
    heights = [box[3] - box[1] for scene in scenes for box in person_boxes(scene).values()]
    assert np.percentile(heights, 5) < 32 and np.percentile(heights, 95) > 70
    postures = {
        pose_at(person.segments, MOMENT)[1].posture
        for scene in scenes
        for person in scene.script.persons
    }
    assert postures >= {"stand", "sit", "walk", "run", "crouch", "lie"}
    assert len({scene.script.camera.gain for scene in scenes}) == len(scenes)

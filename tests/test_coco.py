"""COCO's JSON: read as it is, and refused in one line that names what cannot be used."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from stadlib.base import InputError
from stadlib.data.coco import read_coco

FOLDER = Path("pictures")
DATA = {
    "info": {"year": 2017},
    "licenses": [],
    "images": [
        {"id": 139, "file_name": "000000000139.jpg", "width": 640, "height": 426, "license": 2},
        {"id": 7, "file_name": "000000000007.jpg", "width": 100, "height": 50},
        {"id": 8, "file_name": "000000000008.jpg", "width": 30, "height": 40},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20.5, 30, 20], "iscrowd": 0},
        {"id": 2, "image_id": 139, "category_id": 62, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 3, "image_id": 139, "category_id": 1, "bbox": [0, 0, 640, 426], "iscrowd": 0},
        {"id": 4, "image_id": 7, "category_id": 1, "bbox": [90, -4, 30, 20], "iscrowd": 0},
        {"id": 5, "image_id": 139, "category_id": 1, "bbox": [5, 5, 90, 90], "iscrowd": 1},
        {"id": 6, "image_id": 139, "category_id": 1, "bbox": [9, 9, 0, 12], "iscrowd": 0},
        {"id": 7, "image_id": 7, "category_id": 1, "bbox": [100, 10, 5, 5], "iscrowd": 0},
    ],
    "categories": [
        {"id": 62, "name": "chair", "supercategory": "furniture"},
        {"id": 1, "name": "person", "supercategory": "person"},
    ],
}


@pytest.fixture
def written(tmp_path):
    """Write what ``change`` makes of the sound file; returns the path."""

    def write(change=lambda data: None):
        data = copy.deepcopy(DATA)
        change(data)
        path = tmp_path / "instances_train2017.json"
        path.write_text(json.dumps(data))
        return path

    return write


def test_images_in_order_with_the_boxes_of_one_category(written):
    first, second, third = read_coco(written(), FOLDER)
    assert first.path == FOLDER / "000000000139.jpg"
    assert (first.width, first.height) == (640, 426)
    np.testing.assert_array_equal(first.boxes, [[0, 0, 640, 426]])
    np.testing.assert_array_equal(second.boxes, [[10, 20.5, 40, 40.5], [90, 0, 100, 16]])
    assert third.boxes.shape == (0, 4)
    assert {still.boxes.dtype for still in (first, second, third)} == {np.dtype(np.float32)}


def test_another_category(written):
    chairs = read_coco(written(), FOLDER, "chair")
    assert [still.boxes.tolist() for still in chairs] == [[[1, 2, 4, 6]], [], []]


def test_groups_and_boxes_without_area_are_left_out(written):
    def only(*names):
        def change(data):
            data["annotations"] = [a for a in data["annotations"] if a["id"] in names]

        return change

    for name in (5, 6, 7):  # a crowd, no width, outside
        assert not any(len(still.boxes) for still in read_coco(written(only(name)), FOLDER))


def test_a_file_without_iscrowd_has_no_groups(written):
    def change(data):
        for row in data["annotations"]:
            del row["iscrowd"]

    assert len(read_coco(written(change), FOLDER)[0].boxes) == 2


def test_pictures_may_lie_in_folders_of_the_folder(written):
    def change(data):
        data["images"][0]["file_name"] = "train2017/a..b.jpg"

    assert read_coco(written(change), FOLDER)[0].path == FOLDER / "train2017" / "a..b.jpg"


def test_a_file_without_images_is_an_empty_list(written):
    assert read_coco(written(lambda data: data.update(images=[], annotations=[])), FOLDER) == []


def put(key, index, **words):
    return lambda data: data[key][index].update(words)


def drop(key, index, word):
    return lambda data: data[key][index].pop(word)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("images"), "no list 'images'"),
        (lambda data: data.pop("annotations"), "no list 'annotations'"),
        (lambda data: data.update(categories={}), "no list 'categories'"),
        (drop("images", 1, "id"), r"images\[1\]: no 'id'; add it"),
        (drop("images", 1, "file_name"), r"images\[1\]: no 'file_name'"),
        (drop("images", 2, "width"), r"images\[2\]: no 'width'"),
        (drop("images", 2, "height"), r"images\[2\]: no 'height'"),
        (drop("annotations", 3, "image_id"), r"annotations\[3\]: no 'image_id'"),
        (drop("annotations", 3, "category_id"), r"annotations\[3\]: no 'category_id'"),
        (drop("annotations", 3, "bbox"), r"annotations\[3\]: no 'bbox'"),
        (drop("categories", 0, "name"), r"categories\[0\]: no 'name'"),
        (drop("categories", 1, "id"), r"categories\[1\]: no 'id'"),
        (lambda data: data["images"].append("a.jpg"), r"images\[3\]: no "),
        (put("images", 0, file_name="/etc/a.jpg"), r"images\[0\]: file_name '/etc/a.jpg' names no"),
        (put("images", 0, file_name="../a.jpg"), "file_name '../a.jpg' names no file inside"),
        (put("images", 0, file_name="a/../../b.jpg"), "names no file inside pictures"),
        (put("images", 0, file_name=""), "file_name '' names no"),
        (put("images", 0, file_name=5), "file_name 5 names no"),
        (put("images", 0, width=0), r"images\[0\]: \(0, 426\) is no width and height"),
        (put("images", 0, id=7), "images: id 7 occurs twice"),
        (put("images", 0, id=[7]), r"images\[0\]: id \[7\] is no number"),
        (put("annotations", 3, image_id=99), "annotations: id 4: image_id 99 is not listed"),
        (put("annotations", 3, image_id=None), r"annotations\[3\]: image_id None is no number"),
        (put("annotations", 3, bbox=[1, 2, 3]), r"id 4: bbox \[1, 2, 3\] is not x, y"),
        (put("annotations", 3, bbox=[1, 2, 3, "4"]), "id 4: bbox"),
        (put("annotations", 3, bbox=[1, 2, 3, float("nan")]), "id 4: bbox"),
        (put("annotations", 3, bbox=None), "id 4: bbox None"),
    ],
)
def test_what_cannot_be_used_is_named(written, change, message):
    path = written(change)
    with pytest.raises(InputError, match=message) as caught:
        read_coco(path, FOLDER)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_an_unknown_category_lists_those_that_are_there(written):
    with pytest.raises(InputError, match="no category 'people'; there are chair, person"):
        read_coco(written(), FOLDER, "people")
    with pytest.raises(InputError, match="there are none at all"):
        read_coco(written(lambda data: data.update(categories=[])), FOLDER)


def test_no_such_file_and_no_json(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: no such file; expected COCO"):
        read_coco(tmp_path / "gone.json", FOLDER)
    path = tmp_path / "a.json"
    for content in (b"", b"{", b"\xff\xfe\xff", b"x,y"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.json: no JSON \(.*\); replace it"):
            read_coco(path, FOLDER)
    path.write_text("[]")
    with pytest.raises(InputError, match="no list 'images'"):
        read_coco(path, FOLDER)

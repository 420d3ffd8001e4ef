"""COCO's JSON: read as it is, or refused in one line that names what cannot be used."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from stadlib.base import InputError
from stadlib.data.clips import read_coco

FOLDER = Path("pictures")
DATA = {
    "info": {"year": 2017},
    "images": [
        {"id": 139, "file_name": "000000000139.jpg", "width": 640, "height": 426, "license": 2},
        {"id": 7, "file_name": "train2017/a..b.jpg", "width": 100, "height": 50},
        {"id": 8, "file_name": "000000000008.jpg", "width": 30, "height": 40},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20.5, 30, 20], "iscrowd": 0},
        {"id": 2, "image_id": 139, "category_id": 62, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 3, "image_id": 139, "category_id": 1, "bbox": [0, 0, 640, 426]},
        {"id": 4, "image_id": 7, "category_id": 1, "bbox": [90, -4, 30, 20], "iscrowd": 0},
        # A crowd, a box without width and one outside of its picture.
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


def test_images_in_order_with_the_boxes_of_one_category(written, capsys):
    first, second, third = read_coco(written(), FOLDER)
    assert first.path == FOLDER / "000000000139.jpg"
    assert second.path == FOLDER / "train2017" / "a..b.jpg"
    np.testing.assert_array_equal(first.boxes, [[0, 0, 640, 426]])
    np.testing.assert_array_equal(second.boxes, [[10, 20.5, 40, 40.5], [90, 0, 100, 16]])
    assert third.boxes.shape == (0, 4)
    assert {still.boxes.dtype for still in (first, second, third)} == {np.dtype(np.float32)}
    chairs = read_coco(written(), FOLDER, "chair")
    assert [still.boxes.tolist() for still in chairs] == [[[1, 2, 4, 6]], [], []]
    assert read_coco(written(lambda data: data.update(images=[], annotations=[])), FOLDER) == []
    assert capsys.readouterr().out == ""


def put(key, index, **words):
    return lambda data: data[key][index].update(words)


def drop(key, index, word):
    return lambda data: data[key][index].pop(word)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("images"), "not COCO's JSON .*'images'"),
        (lambda data: data.update(categories=[]), "no category 'person'; there are none at all"),
        (put("categories", 1, name="people"), "no category 'person'; there are chair, people"),
        *(
            (drop(*entry), f"not COCO's JSON .*'{entry[2]}'")
            for entry in (
                ("images", 1, "id"),
                ("annotations", 1, "image_id"),
                ("annotations", 1, "category_id"),
                ("categories", 1, "name"),
            )
        ),
        *((drop("images", 1, key), rf"images\[1\]: '{key}'") for key in ("file_name", "width")),
        (drop("annotations", 0, "bbox"), r"images\[1\]: 'bbox'"),
        (lambda data: data["images"].append("a.jpg"), "not COCO's JSON .*TypeError"),
        *(
            (
                put("images", 0, file_name=name),
                r"images\[0\]: .*; mend file_name \(below pictures\)",
            )
            for name in ("/etc/a.jpg", "../a.jpg", "a/../../b.jpg", "", 5)
        ),
        (put("images", 0, width=0), r"images\[0\]: .* of \(0, 426\)"),
        (put("images", 0, id=7), "ids of images: one occurs twice"),
        (put("annotations", 3, image_id=99), "ids of images: 99 is missing"),
        *(
            (put("annotations", 3, bbox=bbox), r"images\[1\]: .*a bbox of 4 numbers")
            for bbox in ([1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, float("nan")], 5)
        ),
    ],
)
def test_what_cannot_be_used_is_named(written, change, message):
    path = written(change)
    with pytest.raises(InputError, match=message) as caught:
        read_coco(path, FOLDER)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_no_such_file_and_no_json(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: no such file; expected COCO"):
        read_coco(tmp_path / "gone.json", FOLDER)
    for content in (b"", b"{", b"\xff\xfe\xff", b"x,y", b"[]"):
        path = tmp_path / "a.json"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.json: not COCO's JSON \(.*\); it has"):
            read_coco(path, FOLDER)

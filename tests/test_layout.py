"""Files are found under their official names, label maps are read, and no id leaves the root."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from stadlib.base import ConfigError, InputError
from stadlib.data.layout import (
    AVA_ACTIONS,
    LABEL_MAP_FILE,
    AvaLayout,
    LabelMap,
    group,
    read_label_map,
    write_label_map,
)

NOT_EVALUATED = {2, 16, 18, 19, 21, 23, 25, 31, 32, 33, 35, 39, 40, 42, 44, 50, 53, 55, 71, 75}


def test_official_names(tmp_path):
    layout, folder = AvaLayout(tmp_path), tmp_path / "annotations"
    assert layout.annotations("ava", "train") == folder / "ava_train_v2.2.csv"
    assert layout.annotations("kinetics", "val") == folder / "kinetics_val_v1.0.csv"
    assert layout.video_list("ava", "test") == folder / "ava_test_v2.2.txt"
    excluded = layout.excluded_file("ava", "val")
    assert excluded == folder / "ava_val_excluded_timestamps_v2.2.csv"
    for words in (("avi", "train"), ("ava", "dev"), ("", "val")):
        with pytest.raises(ConfigError, match="choose from"):
            layout.annotations(*words)


def test_reads_the_small_files(tiny_dataset):
    layout = AvaLayout(tiny_dataset)
    assert layout.label_map().num_actions == 60
    assert layout.videos("ava", "train") == ["a"]
    assert layout.video_start("ava", "a") == 900
    assert layout.video_start("kinetics", "a") == 0
    assert layout.excluded("ava", "train") == {("a", "903.000000")}
    assert layout.excluded("kinetics", "val") == set()
    again = pickle.loads(pickle.dumps(layout))  # as workers get it
    assert again.root == layout.root and again.label_map() == layout.label_map()


def test_videos_come_from_the_annotations_without_a_list(tiny_dataset, tmp_path):
    root = shutil.copytree(tiny_dataset, tmp_path / "copy")
    (root / "annotations" / "kinetics_val_v1.0.txt").unlink()
    assert AvaLayout(root).videos("kinetics", "val") == ["c"]
    with pytest.raises(InputError, match=r"kinetics_train_v1\.0\.txt: no such list"):
        AvaLayout(root).videos("kinetics", "train")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".mov"])
def test_finds_a_video_in_any_container(tmp_path, suffix):
    path = tmp_path / "videos" / "ava" / f"-x.1{suffix}"
    path.parent.mkdir(parents=True)
    path.touch()
    assert AvaLayout(tmp_path).video_file("ava", "-x.1") == path
    with pytest.raises(InputError, match=r"none: no such video .*\.mp4, \.mkv"):
        AvaLayout(tmp_path).video_file("kinetics", "none")


@pytest.mark.parametrize(
    "video", ["../secret", "..", ".", "", "/etc/passwd", "a/b", "..\\secret", "a\0"]
)
def test_an_id_never_leads_out_of_the_folder(tmp_path, video):
    (tmp_path / "videos" / "ava").mkdir(parents=True)
    (tmp_path / "videos" / "secret.mp4").touch()
    with pytest.raises(InputError, match="is no video id"):
        AvaLayout(tmp_path).video_file("ava", video)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("video_starts.csv", "ava,a,1\nava,b\n", r"video_starts\.csv:2: .* is not source"),
        ("video_starts.csv", "ava,a,soon\n", r"video_starts\.csv:1: .*soon.* is not source"),
        ("ava_val_excluded_timestamps_v2.2.csv", "a,nan\n", r"v2\.2\.csv:1: timestamp 'nan'"),
        ("ava_val_excluded_timestamps_v2.2.csv", "a,1\na,1,2\n", r"v2\.2\.csv:2: 3 columns"),
    ],
)
def test_wrong_rows_are_named(tmp_path, name, text, complaint):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / name).write_text(text)
    layout = AvaLayout(tmp_path)
    with pytest.raises(InputError, match=complaint):
        layout.excluded("ava", "val") or layout.video_start("ava", "a")


# ------------------------------------------------------------------------------------ label maps


def test_the_shipped_names_are_the_official_ones(shared, tmp_path):
    folder = shared / "data" / "ava"
    assert read_label_map(folder / LABEL_MAP_FILE).names == AVA_ACTIONS
    whole = read_label_map(folder / "ava_action_list_v2.2.pbtxt")  # the other form
    assert whole.ids == tuple(range(1, 81))
    assert {i: whole.names[i] for i in whole.ids if i not in NOT_EVALUATED} == AVA_ACTIONS


def test_there_are_60_evaluated_classes_in_three_groups(tmp_path):
    assert set(range(1, 81)) - set(AVA_ACTIONS) == NOT_EVALUATED
    groups = [group(action_id) for action_id in sorted(AVA_ACTIONS)]
    assert [groups.count(word) for word in ("pose", "object", "person")] == [13, 32, 15]
    assert [group(i) for i in (14, 15, 63, 64)] == ["pose", "object", "object", "person"]
    write_label_map(tmp_path / "map.pbtxt", LabelMap(AVA_ACTIONS))
    assert read_label_map(tmp_path / "map.pbtxt").names == AVA_ACTIONS


def test_columns_ascend_in_any_order_of_names():
    label_map = LabelMap({80: "watch (a person)", 3: "crouch/kneel", 12: "stand"})
    assert label_map.ids == (3, 12, 80)


GOOD = 'item {\n  name: "stand"\n  id: 12\n}\n'


def test_blocks_on_one_line_and_in_both_forms_are_read(tmp_path):
    path = tmp_path / "map.pbtxt"
    label = 'label {\n  name: "d"\n  label_id: 3\n  label_type: PERSON_MOVEMENT\n}\n'
    path.write_text('item { name: "a (b, c)" id: 7 }\n' + label)
    assert read_label_map(path).names == {7: "a (b, c)", 3: "d"}
    with pytest.raises(InputError, match=r"nothing\.pbtxt"):
        read_label_map(tmp_path / "nothing.pbtxt")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ": no action"),
        (GOOD + 'item {\n  name: "walk"\n', ", row 5: no whole block"),
        (GOOD + 'thing {\n  name: "walk"\n  id: 14\n}\n', ", row 5"),
        (GOOD + "item {\n  id: 14\n}\n", ", row 5"),
        (GOOD + 'item {\n  name: "walk"\n}\n', ", row 5"),
        (GOOD + '\n\nitem {\n  name: "walk"\n  id: x\n}\n', ", row 7"),
        (GOOD + 'item {\n  name: "walk"\n  id: 12\n}\n', ", row 5"),
    ],
    ids=["empty", "cut", "kind", "no name", "no id", "id", "twice"],
)
def test_a_bad_label_map_is_refused_in_one_line_with_file_and_row(tmp_path: Path, text, place):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_label_map(path)
    message = str(error.value)
    assert "\n" not in message and message.startswith(f"{path}{place}")

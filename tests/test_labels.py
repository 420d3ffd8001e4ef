import pytest

from stadlib.base import InputError
from stadlib.data.labels import AVA_ACTIONS, LabelMap, group, read_label_map, write_label_map

NOT_EVALUATED = {2, 16, 18, 19, 21, 23, 25, 31, 32, 33, 35, 39, 40, 42, 44, 50, 53, 55, 71, 75}


def test_the_committed_names_are_the_official_ones(shared):
    official = shared / "data/ava/ava_action_list_v2.2_for_activitynet_2019.pbtxt"
    assert read_label_map(official).names == AVA_ACTIONS


def test_both_forms_of_the_official_file_agree(shared):
    whole = read_label_map(shared / "data/ava/ava_action_list_v2.2.pbtxt")
    assert whole.ids == tuple(range(1, 81))
    assert set(whole.ids) - set(AVA_ACTIONS) == NOT_EVALUATED
    assert all(whole.name(action_id) == name for action_id, name in AVA_ACTIONS.items())


def test_there_are_60_evaluated_classes_in_three_groups():
    assert set(range(1, 81)) - set(AVA_ACTIONS) == NOT_EVALUATED
    groups = [group(action_id) for action_id in sorted(AVA_ACTIONS)]
    assert [groups.count(word) for word in ("pose", "object", "person")] == [13, 32, 15]
    assert [group(i) for i in (14, 15, 63, 64)] == ["pose", "object", "object", "person"]


def test_columns_ascend_whatever_the_order_of_names():
    label_map = LabelMap({80: "watch (a person)", 3: "crouch/kneel", 12: "stand"})
    assert label_map.ids == (3, 12, 80)
    assert [label_map.column(i) for i in label_map.ids] == [0, 1, 2]
    with pytest.raises(KeyError):
        label_map.column(4)


def test_what_is_written_is_read(tmp_path):
    write_label_map(tmp_path / "map.pbtxt", LabelMap(AVA_ACTIONS))
    assert read_label_map(tmp_path / "map.pbtxt").names == AVA_ACTIONS


def test_blocks_on_one_line_and_in_both_forms_are_read(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(
        'item { name: "a (b, c)" id: 7 }\n'
        'label {\n  name: "d"\n  label_id: 3\n  label_type: PERSON_MOVEMENT\n}\n'
    )
    assert read_label_map(path).names == {7: "a (b, c)", 3: "d"}


GOOD = 'item {\n  name: "stand"\n  id: 12\n}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("no action",)),
        (GOOD + 'item {\n  name: "walk"\n', ("row 5", "'item'")),
        (GOOD + 'thing {\n  name: "walk"\n  id: 14\n}\n', ("row 5", "'thing'")),
        (GOOD + "item {\n  id: 14\n}\n", ("row 5", "'name'")),
        (GOOD + 'item {\n  name: "walk"\n}\n', ("row 5", "'id'")),
        (GOOD + '\n\nitem {\n  name: "walk"\n  id: x\n}\n', ("row 7", "'x'")),
        (GOOD + 'item {\n  name: "walk"\n  id: 12\n}\n', ("row 5", "12", "twice")),
    ],
    ids=["empty", "cut", "kind", "no name", "no id", "id", "twice"],
)
def test_a_bad_label_map_is_refused_in_one_line_with_file_and_row(tmp_path, text, words):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_label_map(path)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in (str(path), *words))


def test_a_missing_label_map_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.pbtxt"):
        read_label_map(tmp_path / "nothing.pbtxt")

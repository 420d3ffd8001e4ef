"""Files are found under their official names, and nothing outside the root ever is."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from stadlib.base import InputError
from stadlib.data.layout import AvaLayout


def test_official_names(tmp_path: Path) -> None:
    layout = AvaLayout(tmp_path)
    folder = tmp_path / "annotations"
    assert layout.annotations("ava", "train") == folder / "ava_train_v2.2.csv"
    assert layout.annotations("kinetics", "val") == folder / "kinetics_val_v1.0.csv"
    assert layout.video_list("ava", "test") == folder / "ava_test_v2.2.txt"
    excluded = layout.excluded_file("ava", "val")
    assert excluded == folder / "ava_val_excluded_timestamps_v2.2.csv"


@pytest.mark.parametrize(("source", "split"), [("avi", "train"), ("ava", "dev"), ("", "val")])
def test_unknown_words_name_the_choices(tmp_path: Path, source: str, split: str) -> None:
    with pytest.raises(InputError, match="choose from"):
        AvaLayout(tmp_path).annotations(source, split)


def test_reads_the_small_files(tiny_dataset: Path) -> None:
    layout = AvaLayout(tiny_dataset)
    assert layout.label_map().num_actions == 60
    assert layout.videos("ava", "train") == ["a"]
    assert layout.video_start("ava", "a") == 900
    assert layout.video_start("kinetics", "a") == 0
    assert layout.excluded("ava", "train") == {("a", "903.000000")}
    assert layout.excluded("kinetics", "val") == set()


def test_videos_come_from_the_annotations_without_a_list(tiny_dataset, tmp_path) -> None:
    root = shutil.copytree(tiny_dataset, tmp_path / "copy")
    (root / "annotations" / "kinetics_val_v1.0.txt").unlink()
    assert AvaLayout(root).videos("kinetics", "val") == ["c"]
    with pytest.raises(InputError, match=r"kinetics_train_v1\.0\.txt: no such list"):
        AvaLayout(root).videos("kinetics", "train")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".mov"])
def test_finds_a_video_in_any_container(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "videos" / "ava" / f"-x.1{suffix}"
    path.parent.mkdir(parents=True)
    path.touch()
    assert AvaLayout(tmp_path).video_file("ava", "-x.1") == path


@pytest.mark.parametrize(
    "video", ["../secret", "..", ".", "", "/etc/passwd", "a/b", "..\\secret", "a\0"]
)
def test_an_id_never_leads_out_of_the_folder(tmp_path: Path, video: str) -> None:
    (tmp_path / "videos" / "ava").mkdir(parents=True)
    (tmp_path / "videos" / "secret.mp4").touch()
    with pytest.raises(InputError, match="is no video id"):
        AvaLayout(tmp_path).video_file("ava", video)


def test_a_missing_video_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: no such video .*\.mp4, \.mkv"):
        AvaLayout(tmp_path).video_file("kinetics", "none")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("video_starts.csv", "ava,a,1\nava,b\n", "video_starts.csv:2: 2 columns, expected 3"),
        ("video_starts.csv", "ava,a,soon\n", "video_starts.csv:1: 'soon' is no number"),
        ("ava_val_excluded_timestamps_v2.2.csv", "a,nan\n", "v2.2.csv:1: 'nan' is no number"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / name).write_text(text)
    layout = AvaLayout(tmp_path)
    with pytest.raises(InputError) as caught:
        layout.excluded("ava", "val") or layout.video_start("ava", "a")
    assert complaint in str(caught.value)


def test_travels_to_workers(tiny_dataset: Path) -> None:
    layout = AvaLayout(tiny_dataset)
    layout.label_map()
    again = pickle.loads(pickle.dumps(layout))
    assert again.root == layout.root
    assert again.label_map() == layout.label_map()

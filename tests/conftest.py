"""Every test, papermill run and nbval run works at smoke scale in folders of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_FOLDER = Path(tempfile.gettempdir()) / f"stadlib-tests-{os.getpid()}"


def pytest_configure(config):
    os.environ["STADLIB_DATA"] = str(_FOLDER / "data")
    os.environ["STADLIB_RESULTS"] = str(_FOLDER / "results")
    os.environ["STADLIB_SCALE"] = "smoke"
    os.environ.setdefault("OMP_NUM_THREADS", "2")


def pytest_unconfigure(config):
    shutil.rmtree(_FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real AVA files and clips, which only the project's own machines have."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no shared/ folder beside the checkout: real AVA files are not shipped")
    return folder


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory) -> Path:
    """A sound dataset of three videos in the official layout; copy it before changing it."""
    import numpy as np

    from stadlib.data.layout import LABEL_MAP_FILE
    from stadlib.data.video import write_video
    from stadlib.labels import AVA_ACTIONS, LabelMap, write_label_map

    root = tmp_path_factory.mktemp("tiny")
    files = {
        "ava_train_v2.2.csv": "a,0902,0.1,0.2,0.5,0.9,12,0\na,0902,0.1,0.2,0.5,0.9,80,0\n"
        "a,0902,0.4,0.1,0.9,0.8,2,1\na,0903,0.1,0.2,0.5,0.9,12,0\n",
        "ava_val_v2.2.csv": "b,0901,0.25,0.25,0.75,0.75,14,0\n",
        "kinetics_val_v1.0.csv": "c,5.016949,0.3,0.4,0.6,0.9,11\nc,6.500000\n",
        "ava_train_v2.2.txt": "a\n",
        "ava_val_v2.2.txt": "b\n",
        "kinetics_val_v1.0.txt": "c\n",
        "ava_train_excluded_timestamps_v2.2.csv": "a,0903\n",
        "video_starts.csv": "source,video,seconds\nava,a,900\nava,b,900\nkinetics,c,2.5\n",
    }
    for name, text in files.items():
        path = root / "annotations" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    write_label_map(root / "annotations" / LABEL_MAP_FILE, LabelMap(AVA_ACTIONS))
    rows = np.linspace(0, 250, 48, dtype=np.uint8)[:, None, None]
    for source, video, width in (("ava", "a", 64), ("ava", "b", 64), ("kinetics", "c", 56)):
        frames = (np.broadcast_to(rows // 2 + 3 * i, (48, width, 3)) for i in range(40))
        write_video(root / "videos" / source / f"{video}.mp4", frames, fps=8)
    return root


@pytest.fixture(scope="session")
def smoke_record():
    """The record of the t-only row on ground-truth boxes at smoke scale, trained once a session."""
    from stadlib import recipes, study

    words = {"head": "t-only", "backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2"}
    (row,) = recipes.table1(scale="smoke", detector="ground-truth", memory="no", **words)
    return study.run(row)


@pytest.fixture(scope="session")
def with_memory():
    """The record of Table 2's third strategy at smoke scale."""
    from stadlib import recipes, study

    rows = recipes.table2(scale="smoke", backbone="ir-csn-152")
    return study.run(rows["A+K first, empty Kinetics bank"])

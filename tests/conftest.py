"""Every test, papermill run and nbval run works at smoke scale in folders of its own.

Two workers share the rendered data and the runs that several files of tests look at: the first one
that needs them makes them, under a lock.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib.util import cache_from_source, find_spec
from pathlib import Path

import pytest
import workers
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())  # one for all workers
_FOLDER = Path(tempfile.gettempdir()) / f"stadlib-tests-{_RUN}"
# Files are dealt to the workers in this order, so that no slow one is left for last. Those that run
# the same experiments stay on one worker, which trains each of them once.
_SLOWEST_FIRST = (
    "01_main", "test_papermill", "02_memory", "03_decoupled", "04_detector", "05_your_video",
    "06_your_data", "07_beyond",
    "00_tour", "test_readme", "test_jupyterlab",
    "test_processes", "test_stages", "test_detectors", "test_pretraining",
)  # fmt: skip
_SAME_EXPERIMENTS = _SLOWEST_FIRST[:11]
_SKIPPED = {
    "nightly": "an expensive repetition: pytest --nightly",
    "very_slow": "minutes of paper-size networks: pytest --very-slow",
}


def pytest_addoption(parser):
    parser.addoption("--very-slow", action="store_true", help="minutes of paper-size networks too")
    parser.addoption("--gpu", action="store_true", help="on this machine's GPU, if any")
    parser.addoption("--nightly", action="store_true", help="expensive repetitions too")


def pytest_collection_modifyitems(config, items):
    for word, reason in _SKIPPED.items():
        if not config.getoption(f"--{word.replace('_', '-')}"):
            for item in items:
                if word in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=reason))

    def place(item) -> int:
        first = [n for n, name in enumerate(_SLOWEST_FIRST) if item.path.name.startswith(name)]
        return first[0] if first else len(_SLOWEST_FIRST)

    items.sort(key=place)


class _ByFile(LoadScopeScheduling):
    """A file's tests stay on one worker; so do the files that run the same experiments."""

    def _split_scope(self, nodeid):
        path = nodeid.partition("::")[0]
        return "runs" if Path(path).name.startswith(_SAME_EXPERIMENTS) else path


def pytest_xdist_make_scheduler(config, log):
    return _ByFile(config, log)


def pytest_configure(config):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    if not config.getoption("--gpu"):  # two processes would need two, and numbers differ
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["STADLIB_DATA"] = str(_FOLDER / "data")
    os.environ["STADLIB_RESULTS"] = str(_FOLDER / worker / "results")
    os.environ["STADLIB_SCALE"] = "smoke"
    os.environ["OMP_NUM_THREADS"] = "1"  # of each worker and of every process that a test starts
    if sys.dont_write_bytecode and not Path(cache_from_source(find_spec("torch").origin)).exists():
        # Else each process compiles torch's sources anew, 12 seconds each; the first one does.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(_FOLDER / "bytecode")


def pytest_unconfigure(config):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(_FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def pair():
    """Two processes that run functions as the ranks of one group."""
    processes = workers.Pair()
    yield processes
    processes.close()


def shared_run(experiment):
    """The record of an experiment, run once for all workers; each has a copy of its files."""
    from stadlib import study

    copies = _FOLDER / "shared" / experiment.digest
    with FileLock(_FOLDER / "shared.lock"):
        if copies.is_dir():
            runs = study.run_folder(experiment).parent
            shutil.copytree(copies, runs, dirs_exist_ok=True)
        record = study.run(experiment)
        if not copies.is_dir():
            folders = [study.run_folder(experiment)]
            numbers = range(1, len(experiment.stages) + 1)
            folders += [study.stage_folder(experiment, number) for number in numbers]
            for folder in folders:
                shutil.copytree(folder, copies / folder.relative_to(record.folder.parent))
    return record


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

    from stadlib.data.layout import AVA_ACTIONS, LABEL_MAP_FILE, LabelMap, write_label_map
    from stadlib.data.video import write_video

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
    from stadlib import recipes

    words = {"head": "t-only", "backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2"}
    (row,) = recipes.table1(scale="smoke", detector="ground-truth", memory="no", **words)
    return shared_run(row)


@pytest.fixture(scope="session")
def with_memory():
    """The record of Table 2's third strategy at smoke scale."""
    from stadlib import recipes

    words = {"backbone": "ir-csn-152", "detector": "ground-truth"}
    rows = recipes.table2(scale="smoke", **words)
    return shared_run(rows["A+K first, empty Kinetics bank"])


@pytest.fixture(scope="session")
def tiny_kinetics(tmp_path_factory) -> Path:
    """Kinetics' layout: 8 training rows (one without a file, one damaged), 3 of validation.

    Videos of 3 s, 36x48 pixels, 8 frames a second; frames and columns grow brighter.
    """
    import numpy as np

    from stadlib.data.video import write_video

    root = tmp_path_factory.mktemp("tiny-kinetics")
    header = "label,youtube_id,time_start,time_end,split\n"
    listed = {}
    listed["train"] = [
        ("zumba", "aaaaaaaaaaa", 12, "train/zumba/aaaaaaaaaaa_000012_000022.mp4"),
        ("bee keeping", "-bbbbbbbbbb", 3, "videos/-bbbbbbbbbb.mp4"),
        ("making tea", "cccccccccc_", 0, "train/zumba/cccccccccc__000000_000010.mp4"),
        ("zumba", "gone1234567", 1, None),
        ("zumba", "eeeeeeeeeee", 0, "train/zumba/eeeeeeeeeee_000000_000010.mp4"),
        ("bee keeping", "fffffffffff", 5, "train/bee keeping/fffffffffff_000005_000015.mp4"),
        ("making tea", "ggggggggggg", 5, "train/making tea/ggggggggggg_000005_000015.mp4"),
        ("bee keeping", "hhhhhhhhhhh", 99, "train/bee keeping/hhhhhhhhhhh_000099_000109.mp4"),
    ]
    listed["val"] = [
        ("zumba", "iiiiiiiiiii", 7, "val/zumba/iiiiiiiiiii_000007_000017.mp4"),
        ("making tea", "jjjjjjjjjjj", 0, "val/making tea/jjjjjjjjjjj_000000_000010.mp4"),
        ("bee keeping", "kkkkkkkkkkk", 0, "videos/kkkkkkkkkkk_000000_000010.mp4"),
    ]
    columns = np.linspace(0, 60, 48, dtype=np.uint8)[None, :, None]
    for split, rows in listed.items():
        lines = (f"{label},{name},{start},{start + 10},{split}\n" for label, name, start, _ in rows)
        (root / f"{split}.csv").write_text(header + "".join(lines))
        for _, _, _, name in rows:
            frames = (np.broadcast_to(columns + 8 * i, (36, 48, 3)) for i in range(24))
            if name:
                write_video(root / name, frames, fps=8)
    damaged = root / "train/zumba/eeeeeeeeeee_000000_000010.mp4"
    damaged.write_bytes(damaged.read_bytes()[:200])
    return root

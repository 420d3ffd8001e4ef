"""A dataset of AVA-Kinetics' layout, sizes and rates, with seconds of video in it, not months.

340x256 pixels at 30 frames/s in H.264, as the field keeps AVA and Kinetics; two persons of drawn
rectangles that move. The test split has no annotations of AVA's, as the real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stadlib.data.layout import AVA_ACTIONS, LABEL_MAP_FILE, LabelMap, write_label_map
from stadlib.data.video import write_video

WIDTH, HEIGHT, RATE = 340, 256, 30
MOVIES = {"train": "trainmovie1", "val": "valmovie_1-", "test": "testmovie01"}
CLIPS = {"train": "-trainclip1", "val": "valclip__01", "test": "testclip_1-"}
START = 900  # of the movies' files on the annotation clock
PERSONS = ((0.10, 0.20, 0.42, 0.95), (0.55, 0.15, 0.88, 0.97))
ACTIONS = ((12, 80), (79, 17))  # of each person


def _frames(seconds: int, seed: int) -> Iterator[np.ndarray]:
    """A textured wall before which both persons sway."""
    rng = np.random.default_rng(seed)
    wall = rng.integers(40, 120, (HEIGHT // 8, WIDTH // 10, 3), np.uint8)
    wall = np.kron(wall, np.ones((8, 10, 1), np.uint8))
    for number in range(seconds * RATE):
        frame = wall.copy()
        for person, (x1, y1, x2, y2) in enumerate(PERSONS):
            sway = round(4 * np.sin(number / 5 + person))
            rows = slice(round(y1 * HEIGHT), round(y2 * HEIGHT))
            columns = slice(round(x1 * WIDTH) + sway, round(x2 * WIDTH) + sway)
            frame[rows, columns] = (200, 90 + 80 * person, 60)
        yield frame


def _labels(video: str, second: str) -> str:
    """Annotation rows of both persons at a keyframe."""
    rows = [
        f"{video},{second},{','.join(map(str, box))},{action},{number}"
        for number, (box, actions) in enumerate(zip(PERSONS, ACTIONS, strict=True))
        for action in actions
    ]
    return "\n".join(rows) + "\n"


def _boxes(video: str, seconds: list[str]) -> str:
    """A detector's rows of both persons."""
    rows = [
        f"{video},{second},{','.join(f'{side + 0.01:.4f}' for side in box)},,0.97"
        for second in seconds
        for box in PERSONS
    ]
    return "\n".join(rows) + "\n"


def write_standin(root: Path) -> Path:
    """Write the dataset, with v3's boxes, and return its root."""
    annotations, boxes = root / "annotations", root / "boxes"
    annotations.mkdir(parents=True)
    boxes.mkdir()
    write_label_map(annotations / LABEL_MAP_FILE, LabelMap(AVA_ACTIONS))
    keyframes = {"train": ["0902", "0903"], "val": ["0902"], "test": ["0902"]}
    for number, (split, movie) in enumerate(MOVIES.items()):
        clip = CLIPS[split]
        write_video(root / f"videos/ava/{movie}.mp4", _frames(5, number), RATE, gop=30)
        write_video(root / f"videos/kinetics/{clip}.mp4", _frames(4, 9 + number), RATE, gop=30)
        (annotations / f"ava_{split}_v2.2.txt").write_text(movie + "\n")
        (annotations / f"ava_{split}_excluded_timestamps_v2.2.csv").write_text("")
        labels = "".join(_labels(movie, second) for second in keyframes[split])
        if split != "test":
            (annotations / f"ava_{split}_v2.2.csv").write_text(labels)
        own = _labels(clip, "2.016949") if split != "test" else f"{clip},2.016949\n"
        (annotations / f"kinetics_{split}_v1.0.csv").write_text(own)
        seconds = ["902", "903"]
        (boxes / f"v3_ava_{split}.csv").write_text(_boxes(movie, seconds))
        (boxes / f"v3_kinetics_{split}.csv").write_text(_boxes(clip, ["2.016949"]))
    starts = [f"ava,{movie},{START}" for movie in MOVIES.values()]
    (annotations / "video_starts.csv").write_text(
        "\n".join(["source,video,second", *starts]) + "\n"
    )
    return root

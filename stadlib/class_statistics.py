"""How often the classes of an annotation file occur, and how often samplers would show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from stadlib.config import InputError
from stadlib.labels import AVA_ACTIONS, LabelMap, read_label_map

DRAWS, BATCH = 30_000, 64


def class_statistics(path: Path, labels: Path | None = None, seed: int = 0) -> pd.DataFrame:
    """Count the classes of one file in AVA's layout.

    Args:
        path: annotations; AVA's, Kinetics' or one's own.
        labels: label map of the evaluated classes; without it, AVA's 60.
        seed: of the samplers' draws.

    Returns:
        By ``action_id``, the most frequent first: ``name``, ``persons`` and ``keyframes`` with the
        class, and for every sampler the share of its draws that contain the class. Classes without
        a person are drawn by none.

    Raises:
        InputError: a file cannot be read, or no keyframe has a person of an evaluated class.
    """
    from stadlib.data.annotations import read_annotation_file  # noqa: PLC0415  (torch)
    from stadlib.data.balancing import SAMPLERS, make_draw  # noqa: PLC0415

    label_map = LabelMap(dict(AVA_ACTIONS)) if labels is None else read_label_map(labels)
    keyframes = [k for k in read_annotation_file(path, label_map, "any") if k.actions.any()]
    if not keyframes:
        raise InputError(f"{path}: no person of an evaluated class; give annotations with labels")
    contains = np.array([keyframe.actions.any(axis=0) for keyframe in keyframes])
    table = pd.DataFrame(
        {
            "name": [label_map.name(action) for action in label_map.ids],
            "persons": np.sum([keyframe.actions.sum(axis=0) for keyframe in keyframes], axis=0),
            "keyframes": contains.sum(axis=0),
        },
        index=pd.Index(label_map.ids, name="action_id"),
    )
    there = contains.any(axis=0)
    names = table["name"][there].tolist()
    for word in SAMPLERS:
        draw = make_draw(word, contains[:, there], names, seed)
        starts = range(0, DRAWS, BATCH)
        items = np.concatenate([draw(np.arange(start, start + BATCH)) for start in starts])
        table[word] = contains[items].mean(axis=0)
    return table.sort_values("persons", ascending=False, kind="stable")

"""Finished runs on the test split, and several of them together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stadlib import study
from stadlib.base import InputError
from stadlib.recipes.experiment import from_dict
from stadlib.training.predictions import detection_file


def scores(folder, split="val") -> pd.Series:
    rows = pd.read_csv(detection_file(folder, "ava", split), header=None)
    return rows.set_index(list(range(7)))[7].sort_index()


def test_the_test_split_has_a_record_of_its_own(smoke_record):
    found = study.score_split(smoke_record, "test")
    assert found.digest == smoke_record.digest and found.experiment == smoke_record.experiment
    assert set(found.metrics) == {"ava", "kinetics", "ava+kinetics"}
    videos = [
        set(pd.read_csv(detection_file(smoke_record.folder, "ava", split), header=None)[0])
        for split in ("val", "test")
    ]
    assert videos[0] and videos[1] and not videos[0] & videos[1]
    path = smoke_record.folder / "record_test.json"
    written = path.stat().st_mtime_ns
    assert study.score_split(smoke_record, "test") == found
    assert path.stat().st_mtime_ns == written
    assert study.score_split(smoke_record, "val") == smoke_record


def test_an_ensemble_votes_on_the_same_boxes(smoke_record, with_memory):
    members = [from_dict(record.experiment) for record in (smoke_record, with_memory)]
    found = study.ensemble(members)
    digests = {smoke_record.digest, with_memory.digest}
    assert set(found.experiment["members"].values()) == digests
    assert found.experiment["seed"] == 0 and found.scale == "smoke"
    mean = (scores(smoke_record.folder) + scores(with_memory.folder)) / 2
    assert np.abs(scores(found.folder) - mean).max() < 1e-7
    assert 0 < found.metrics["ava"]["mAP"] < 1


def test_a_member_that_was_not_run_is_named(smoke_record):
    absent = replace(from_dict(smoke_record.experiment), seed=99)
    with pytest.raises(InputError, match="no such file; train that member"):
        study.ensemble([from_dict(smoke_record.experiment), absent])
    assert not list(study.run_folder(absent).parent.glob("ensemble_2_smoke_seed0-*/*.tmp"))

"""What is drawn of a watched video, what its model remembers, and what is said of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageColor

from stadlib import recipes
from stadlib.base import ConfigError, InputError
from stadlib.data.stream import Stream
from stadlib.data.video import write_video
from stadlib.report.frames import person_color
from stadlib.training.bank import FeatureBank
from stadlib.video import drawing, predict, scorer
from stadlib.video.drawing import Overlay
from stadlib.video.scorer import Past
from stadlib.video.sightings import SHOWN, Look, Playback, Seen, Sighting, shown_actions

IDS = (11, 12, 80)
NAMES = {11: "sit", 12: "stand", 80: "watch (a person)"}
LEFT, RIGHT = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.6, 0.2, 0.8, 0.9])


def look(time: float, **persons: np.ndarray) -> Look:
    boxes = np.array(list(persons.values())).reshape(-1, 4)
    return Look(time, [int(name[1:]) for name in persons], boxes)


def sighting(looks: list[Look], *scores: tuple[float, ...]) -> Sighting:
    return Sighting(looks, np.ones(len(scores)), np.array(scores).reshape(len(scores), len(IDS)))


def test_a_box_goes_straight_from_look_to_look_and_labels_change_half_way_between_seconds():
    first = sighting([look(0.0, p1=LEFT), look(0.5, p1=LEFT)], (0.9, 0, 0))
    second = sighting([look(1.0, p1=RIGHT)], (0, 0.8, 0))
    playback = Playback([first, second], IDS)
    found = {time: playback.at(time)[0] for time in (0.0, 0.25, 0.6, 0.75, 1.0, 3.0)}
    np.testing.assert_allclose(found[0.25].box, LEFT)
    np.testing.assert_allclose(found[0.75].box, (LEFT + RIGHT) / 2)
    np.testing.assert_allclose(found[3.0].box, RIGHT)
    assert [seen.actions for seen in found.values()][:2] == [[(11, 0.9)]] * 2
    assert [seen.actions for seen in found.values()][2:] == [[(12, 0.8)]] * 4


def test_who_is_in_one_look_alone_is_shown_up_to_half_way_to_the_other():
    first = sighting([look(0.0, p1=LEFT), look(0.5, p1=LEFT, p2=RIGHT)], (0.9, 0, 0))
    playback = Playback([first, sighting([look(1.0, p2=RIGHT)], (0, 0, 0.7))], IDS)
    there = {time: [seen.number for seen in playback.at(time)] for time in (0, 0.2, 0.3, 0.7, 0.8)}
    assert there == {0: [1], 0.2: [1], 0.3: [1, 2], 0.7: [1, 2], 0.8: [2]}


def test_before_its_first_scored_second_a_person_has_the_scores_of_that_one():
    first = sighting([look(0.0), look(0.25, p5=LEFT)])
    playback = Playback([first, sighting([look(1.0, p5=LEFT)], (0, 0.6, 0))], IDS)
    assert playback.at(0.2)[0].actions == [(12, 0.6)]
    assert Playback([], IDS).at(0.0) == []


def test_what_is_shown_is_sure_enough_and_in_order():
    assert shown_actions(np.array([SHOWN, 0.9, SHOWN - 0.01]), IDS) == [(12, 0.9), (11, SHOWN)]


def seen(number: int, box: np.ndarray) -> Seen:
    return Seen(number, box, [(12, 0.9), (80, 0.4), (11, 0.3)])


def test_boxes_have_their_person_s_colour_and_scores_a_bar_as_long():
    overlay = Overlay((360, 480), NAMES, "")
    drawn = overlay.draw(np.full((360, 480, 3), 128, np.uint8), 65.0, [seen(2, RIGHT)])
    assert drawn.shape == (360, 684, 3)
    edge = drawn[200, int(0.6 * 479)]
    np.testing.assert_array_equal(edge, ImageColor.getrgb(person_color(1)))
    blank = overlay.draw(np.full((360, 480, 3), 128, np.uint8), 65.0, [])
    assert (blank[:, :480] == 128).all()
    wide = [(drawn[y, 480:] != blank[y, 480:]).any(axis=1).sum() for y in range(60)]
    assert max(wide[20:40]) > 1.5 * max(wide[40:55]) > 0


def test_a_warning_stands_above_every_frame_without_covering_it():
    picture = np.full((720, 400, 3), 128, np.uint8)
    plain = Overlay((720, 400), NAMES, "").draw(picture.copy(), 0.0, [])
    loud = Overlay((720, 400), NAMES, "DRAWN FIGURES ONLY " * 8).draw(picture.copy(), 0.0, [])
    high = len(loud) - len(plain)
    assert high % 2 == 0 and high > 30, "more than a line"
    np.testing.assert_array_equal(loud[high:], plain)
    red = (loud[:high] == (190, 20, 30)).all(axis=2)
    assert red.mean() > 0.5 and red.all(axis=1).any()


def test_a_crowd_at_the_edges_is_drawn():
    """Boxes that touch every edge, more persons than the panel has room for."""
    boxes = np.random.default_rng(0).uniform(0, 0.99, (60, 4))
    boxes[:, 2:] = 1
    crowd = [seen(number, box) for number, box in enumerate(boxes, 1)]
    overlay, black = Overlay((360, 360), NAMES, ""), np.zeros((360, 360, 3), np.uint8)
    few, many = (overlay.draw(black.copy(), 0.0, persons) for persons in (crowd[:2], crowd))
    assert many.shape == few.shape and (many[:, 360:] != few[:, 360:]).any()


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Five seconds of grey, each frame brighter than the one before."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    levels = np.arange(40, dtype=np.uint8)[:, None, None, None]
    write_video(path, np.broadcast_to(60 + 3 * levels, (40, 48, 64, 3)), fps=8)
    return path


def test_a_drawn_video_has_every_frame_at_its_time_and_appears_whole(film, tmp_path):
    stream, path = Stream(film), tmp_path / "annotated.mp4"
    overlay = Overlay(stream.size, NAMES, "")

    def killed(done: int, total: int, text: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawing.write_annotated(stream, overlay, Playback([], IDS), path, killed)
    assert not list(tmp_path.iterdir())
    drawing.write_annotated(stream, overlay, Playback([], IDS), path, lambda *_: None)
    shown = list(Stream(path).frames())
    assert [one.time for one in shown] == pytest.approx([i / 8 for i in range(40)])
    levels = [one.picture()[:48, :64].mean() for one in shown]
    np.testing.assert_allclose(levels, 60 + 3 * np.arange(40), atol=3)
    drawing.write_clip(film, tmp_path / "clip.mp4", 1.5)  # the beginning alone
    assert len(list(Stream(tmp_path / "clip.mp4").frames())) == 12


def test_a_long_video_has_no_longer_a_time_line():
    def sightings():
        for second in range(3000):
            scores = [(0.5 + 0.4 * (second >= 1500), 0.1, 0)]
            yield sighting([look(float(second), **{f"p{1 + second // 300}": LEFT})], *scores)

    seen = list(sightings())
    scores, others, size = drawing.read_scores(seen, 3)
    assert len(scores) == drawing.PERSONS and others == 10 - drawing.PERSONS
    for number, bins in scores.items():
        assert len(bins) <= drawing.BINS
        present = ~np.isnan(bins).all(axis=1)
        assert present.sum() * size == 300, "a bin for every five seconds it was there"
        assert np.nanmax(bins[:, 0]) == 0.5 + 0.4 * (number > 5)
    (axes,) = drawing.time_line(seen, NAMES, 1.0).axes
    assert axes.get_xlabel() == "minutes"
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels.count("sit") == drawing.PERSONS and "stand" not in labels


def texts(figure) -> str:
    return " ".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))


def prediction(film: Path, seen: Sighting, warning: str) -> predict.Prediction:
    return predict.Prediction(film, film.parent, NAMES, 1.0, warning, [seen])


def test_figures_say_that_no_person_was_found_and_the_warning(film):
    empty = prediction(film, sighting([look(0.0)]), "MINIATURE")
    for figure in (empty.contact_sheet(), empty.time_line()):
        assert "no person found" in texts(figure) and "MINIATURE" in texts(figure)


def test_a_contact_sheet_names_persons_and_what_they_do(film):
    crowd = {f"p{number}": LEFT for number in range(1, 12)}
    watched = prediction(film, sighting([look(3.0, **crowd)], *[(0.3, 0.9, 0.4)] * 11), "")
    words = texts(watched.contact_sheet())
    assert "stand 0.90" in words and "watch a person 0.40" in words
    assert "3 s" in words and "and 5 more" in words


def test_the_past_is_a_bank_s_window_without_its_future(tmp_path):
    rng = torch.Generator().manual_seed(0)
    seconds = [("v", second, 4) for second in range(9)]
    bank = FeatureBank.create(tmp_path / "bank", {}, seconds, length=2, width=8)
    past = Past(span=3, max_persons=2, width=8)
    for second, count in enumerate([1, 3, 0, 2, 4, 0, 0, 1, 2]):
        mine, theirs = past.before(second), bank.window([("v", second)], 3, 2)
        assert mine.mask_BM.shape == theirs.mask_BM.shape and mine.mask_BM.all()
        if mine.mask_BM.numel():
            for one, other in zip(mine, theirs, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=0)
        tokens = torch.randn(count, 2, 8, generator=rng)
        boxes = torch.rand(count, 4, generator=rng)
        bank.write([("v", second)], torch.tensor([count]), tokens, boxes)
        past.keep(second, tokens, boxes)
        past.keep(second, tokens + 1, boxes)  # a second moment in that second
    past = Past(span=0, max_persons=5, width=8)  # without a span no person is remembered
    past.keep(0, torch.ones(1, 2, 8), torch.ones(1, 4))
    assert past.before(1).mask_BM.shape == (1, 0)


(MINI,) = recipes.table1(
    scale="mini", head="t-only", backbone="ir-csn-152", pretrain="K700", frames="32x2", memory="no"
)


@pytest.mark.parametrize(
    ("experiment", "detector", "video", "words"),
    [
        (MINI, "v3", "data/v.mp4", ("MINIATURE MODEL ON REAL VIDEO", "Boxes and actions")),
        (MINI, "torchvision:x", "v.mp4", ("MINIATURE MODEL ON REAL VIDEO", "Its actions")),
        (replace(MINI, dataset="own"), "v3", "v.mp4", ("MINIATURE DETECTOR", "Its boxes")),
        (replace(MINI, dataset="own"), "own.pt", "v.mp4", ()),
        (recipes.at(MINI, "paper"), "v3", "v.mp4", ()),
        (MINI, "v3", "data/miniature-0123/world/v.mp4", ()),
        (MINI, "v3", "miniature-0123/v.mp4", ("MINIATURE MODEL ON REAL VIDEO",)),
        (recipes.at(MINI, "smoke"), "v3", "data/miniature-0123/v.mp4", ("SMOKE SCALE",)),
        (recipes.at(MINI, "smoke"), "v3", "v.mp4", ("MINIATURE MODEL ON REAL VIDEO",)),
    ],
)
def test_miniature_networks_are_warned_of_on_real_video_alone(
    experiment, detector, video, words, tmp_path, monkeypatch
):
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path / "data"))
    warning = scorer.warning(experiment, detector, tmp_path / video)
    assert all(word in warning for word in words) and bool(warning) == bool(words)
    assert len(warning) < 110, "it must fit above a picture"


GOOD = {"video": "miniature", "weights": "x", "detector": "v3", "every": 1, "scale": "mini"}


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("vidoe", "x.mp4", "unknown parameter 'vidoe'; choose from video, weights"),
        ("video", "nowhere.mp4", "nowhere.mp4: no such video"),
        ("every", 0, "every=0; give seconds, more than 0"),
        ("every", "1", "every='1'; give seconds, more than 0"),
        ("every", float("nan"), "every=nan; give seconds"),
        ("scale", "paper", "scale='paper'; choose from smoke, mini"),
        ("detector", "v9", "detector='v9'; choose from v1, v2, v3, torchvision:NAME, FILE.pt"),
    ],
)
def test_a_notebook_s_wrong_words_are_refused(name, value, answer):
    predict.check_parameters(GOOD)
    with pytest.raises((ConfigError, InputError)) as error:
        predict.check_parameters(GOOD | {name: value})
    assert answer in str(error.value)


@pytest.mark.parametrize(
    ("weights", "answer"),
    [
        ("ir-csn-101", "a file of weights is read as a backbone alone"),
        ("ir-csn-101", "or one of slowfast-50-ava, slow-50-ava, slowonly-50-ava-kinetics"),
        ("some/model.pyth", "a file of weights is read as a backbone alone"),
        ("no-such-run", "no run whose name contains 'no-such-run'"),
        (".", "no finished run (no record.json)"),
    ],
)
def test_weights_that_score_no_actions_are_refused(weights, answer, tmp_path, monkeypatch):
    monkeypatch.setenv("STADLIB_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        scorer.open_networks(weights, "v3", "smoke", Path("v.mp4"), lambda title: print)
    assert answer in str(error.value) and "\n" not in str(error.value)

"""The grid of frames: boxes, captions, legend and warning, with nothing cropped or covered."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from reading import require_apart, require_readable, texts, words

from stadlib.report.frames import Frame, Line, Mark, frame_grid, person_mark, show_person

SCORES = [("stand .91", "strong"), ("talk to .63", "faint"), ("watch a person .42", "strong")]


def frame(persons: int, height: int = 80, words=SCORES) -> Frame:
    shade = np.linspace(60, 200, 120).astype(np.uint8)
    boxes = [(0.05 + 0.18 * i, 0.2, 0.2 + 0.18 * i, 0.95) for i in range(persons)]
    return Frame(
        title=f"ava: movie{persons}, 905 s",
        picture=np.broadcast_to(shade[:, None], (height, 120, 3)),
        marks=[person_mark(person, box) for person, box in enumerate(boxes)],
        lines=[Line(words, person) for person in range(persons)],
    )


def test_grid_shows_boxes_titles_and_captions():
    frames = [frame(3), frame(1, height=90), frame(5), frame(0)]
    figure = frame_grid(frames)
    require_readable(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f.title for f in frames]
    for axes, shown in zip(figure.axes, frames, strict=True):
        outlines = [line for line in axes.lines if line.get_color() != "black"]
        corners = [(line.get_xdata()[0], line.get_ydata()[0]) for line in outlines]
        assert corners == [tuple(mark.box[:2]) for mark in shown.marks]
        numbers = [text.get_text() for text in axes.texts if text.get_text().isdigit()]
        assert sorted(numbers) == sorted(2 * [mark.text for mark in shown.marks])
        require_apart(axes.texts)
        assert axes.bbox.height / axes.bbox.width == pytest.approx(len(shown.picture) / 120)
    bold = {text.get_text() for text in texts(figure) if text.get_weight() == "bold"}
    assert {"stand .91", "watch a person .42"} <= bold and "talk to .63" in words(figure) - bold


def test_words_that_do_not_fit_are_left_out_but_the_first():
    long = ("play musical instrument " * 3, "plain")
    figure = frame_grid([frame(1, words=[long, ("stand .91", "plain")])], columns=3)
    assert long[0] in words(figure) and "stand .91" not in words(figure)


def test_legend_and_warning_stand_above_all():
    for options in ({"legend": [("found", "#56B4E9")]}, {"warning": "found"}):
        figure = frame_grid([frame(1)] * 3, columns=3, **options)
        require_readable(figure)
        (text,) = figure.texts
        assert text.get_text() == "found"
        titles = [axes.title.get_window_extent().y1 for axes in figure.axes]
        assert text.get_window_extent().y0 > max(titles)
    assert words(frame_grid([])) == {"not run"}


def test_text_of_a_mark_stands_inside_its_box():
    box = (0.2, 0.2, 0.6, 0.9)
    marks = [Mark(box, "white", ".91"), Mark(box, "white", ".42", bottom=True)]
    figure = frame_grid([Frame("", np.zeros((80, 120, 3), np.uint8), marks)], columns=1)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.transData.transform([(0.2, 0.9), (0.6, 0.2)])
    extents = [text.get_window_extent() for text in axes.texts]
    for extent in extents:
        assert low[0] <= extent.x0 and extent.x1 <= high[0]
        assert low[1] <= extent.y0 and extent.y1 <= high[1]
    assert extents[0].y0 > extents[1].y1


def test_a_shown_person_keeps_its_shape_and_holds_the_box():
    for box in ((0.1, 0.1, 0.2, 0.9), (0.8, 0.5, 1.0, 0.6), (0.0, 0.4, 1.0, 0.5)):
        axes = Figure().add_subplot()
        show_person(axes, np.zeros((100, 200, 3)), np.array(box), 0.5)
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert (right - left) * 200 / ((bottom - top) * 100) == pytest.approx(0.5)
        assert left <= box[0] and box[2] <= right
        assert top <= box[1] and box[3] <= bottom

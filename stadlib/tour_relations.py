"""Figures of one clip's journey: who looks at whom, whom the clip remembers, what comes out."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from stadlib.labels import group
from stadlib.person_marks import (
    mark_person,
    person_color,
    show_person,
    show_picture,
    tag_person,
)
from stadlib.sheets import INNER, Sheet, sheet
from stadlib.style import COLORS, GREY, GROUP_NAMES, NotebookFigure, short_name
from stadlib.tour import Journey

_SECONDS = 25  # columns of remembered persons at most
_ACTIONS = 6  # highest scores written a person


def attention(journey: Journey) -> NotebookFigure:
    """Show in the picture how much each person looks at whom: one panel a person."""
    N = len(journey.boxes)
    shares = 100 * journey.attention
    gap = 0.1
    width = (INNER - (N - 1) * gap) / N
    height = width * journey.frames.shape[1] / journey.frames.shape[2]
    shape = journey.walk.attention_NLES.shape
    with sheet(height + 1.02) as page:
        counts = "persons × sequences × attention heads × persons looked at"
        page.heading(0.04, "attention", shape, counts)
        for person in range(N):
            left = person * (width + gap)
            axes = page.panel(left, 0.75, width, height)
            show_picture(axes, 0.45 + 0.55 * journey.frames[journey.now] / 255)
            for other, box in enumerate(journey.boxes):
                mark_person(axes, other, box)
            _looks(axes, journey.boxes, person, shares[person])
            page.write(left, 0.32, f"person {person + 1} looks at", weight="bold")
            past = f"at the {shares.shape[1] - N} remembered: {shares[person, N:].sum():.0f} %"
            page.write(left, height + 0.8, past, color=GREY)
    return page.figure


def _looks(axes: Axes, boxes_N4: np.ndarray, person: int, shares: np.ndarray) -> None:
    """Arcs from a person to the others, as thick as the shares in %, which stand at their ends."""
    tops = np.column_stack([boxes_N4[:, ::2].mean(axis=1), boxes_N4[:, 1]])
    middles = boxes_N4.reshape(-1, 2, 2).mean(axis=1)
    above = {"textcoords": "offset points", "ha": "center", "va": "bottom", "weight": "bold"}
    above["path_effects"] = [withStroke(linewidth=2, foreground="white")]
    for other, (place, top) in enumerate(zip(middles, tops, strict=True)):
        words = f"{shares[other]:.0f} %"
        if other == person:
            words = f"itself\n{words}"
        else:
            bow = -0.35 * np.sign(place[0] - middles[person, 0])
            arc = {"arrowstyle": "-", "connectionstyle": f"arc3,rad={bow}", "shrinkA": 0}
            arc |= {"shrinkB": 0, "color": person_color(person), "lw": 0.25 * shares[other]}
            axes.annotate("", place, middles[person], arrowprops=arc)
        axes.annotate(words, (np.clip(top[0], 0.09, 0.91), top[1]), (0, 2), **above)


def remembered(journey: Journey) -> NotebookFigure:
    """Show whom the clip remembers, second by second, and where one person's attention goes."""
    person, N = journey.related, len(journey.boxes)
    shares = 100 * journey.attention[person]
    when = np.concatenate([np.zeros(N, int), journey.memory.seconds_BM[0].numpy()])
    boxes = np.concatenate([journey.boxes, journey.memory.boxes_BM4[0].numpy()])
    seconds, step = _columns(when)
    most = max(int((when == second).sum()) for second in seconds)
    width, height = INNER / len(seconds), 0.62
    with sheet(0.6 + most * height + 1.35) as page:
        counts = "remembered persons × sequences × channels; above them the second"
        page.heading(0.04, "memory", journey.memory.tokens_BMLC.shape[1:], counts)
        for column, second in enumerate(seconds):
            frame = journey.recalled.get(second, journey.frames[journey.now])
            for row, number in enumerate(np.flatnonzero(when == second)):
                where = column * width, 0.52 + row * height, width - 0.04, height - 0.05
                show_person(page.panel(*where), frame, boxes[number])
            words = "now" if second == 0 else f"{second:+d}"
            style = {"weight": "bold"} if second == 0 else {"color": GREY}
            page.write((column + 0.45) * width, 0.34, words, fontsize=7, ha="center", **style)
        top = 0.6 + most * height
        page.write(0, top, f"person {person + 1}'s attention, % of all, second by second")
        axes = page.panel(0, top + 0.22, INNER - 0.04, 0.85)
        _bars(axes, when, shares, person)
        axes.set_xlim(seconds[0] - 0.45 * step, seconds[-1] + 0.55 * step)
    return page.figure


def _columns(when: np.ndarray) -> tuple[list[int], int]:
    """Evenly spaced seconds from the first to the last, 0 among them, and their distance."""
    first, last = int(when.min()), int(when.max())
    step = -(-(last - first + 1) // _SECONDS)
    return list(range(first + -first % step, last + 1, step)), step


def _bars(axes: Axes, when: np.ndarray, shares: np.ndarray, person: int) -> None:
    """What goes to the persons of each second, all of them together."""
    seconds = sorted(set(when.tolist()))
    sums = [shares[when == second].sum() for second in seconds]
    axes.bar(seconds, sums, 0.7, color=person_color(person))
    for second, total in zip(seconds, sums, strict=True):
        if total >= 0.1 * max(sums):
            axes.annotate(f"{total:.0f}", (second, total), (0, 1), fontsize=7, ha="center",
                          textcoords="offset points")  # fmt: skip
    axes.set(xticks=[], yticks=[], ylim=(0, 1.2 * max(sums)))
    axes.spines["left"].set_visible(False)


def scores(journey: Journey) -> NotebookFigure:
    """Show the highest scores of every person; what the annotations say too is bold."""
    N = len(journey.boxes)
    width = INNER / N
    with sheet(1.25 + _ACTIONS * 0.3) as page:
        counts = "persons × actions; a full bar is 1"
        page.heading(0.04, "scores", journey.walk.scores_NA.shape, counts)
        for left, (name, color) in zip((4.6, 5.0, 5.95), COLORS.items(), strict=True):
            page.write(left, 0.05, GROUP_NAMES[name], color=color, weight="bold")
        for person in range(N):
            left = person * width
            portrait = page.panel(left, 0.36, 0.6, 0.72)
            show_person(portrait, journey.frames[journey.now], journey.boxes[person])
            tag_person(portrait, person, (2, -8), (0, 1))
            truth = ", ".join(map(short_name, journey.truth(person))) or "no action"
            page.write(left + 0.68, 0.36, "annotated:", color=GREY, fontsize=7)
            page.write(left + 0.68, 0.52, truth.replace(", ", ",\n"), weight="bold")
            _score_bars(page, journey, person, left, width - 0.15)
    return page.figure


def _score_bars(page: Sheet, journey: Journey, person: int, left: float, width: float) -> None:
    """A bar an action, the highest first; its name stands above it."""
    scores_A = journey.walk.scores_NA[person].numpy()
    axes = page.panel(left, 1.2, width, _ACTIONS * 0.3)
    for place, column in enumerate(np.argsort(-scores_A, kind="stable")[:_ACTIONS]):
        action, true = journey.ids[column], bool(journey.actions[person, column])
        axes.barh(place + 0.2, scores_A[column], 0.3, color=COLORS[group(action)])
        words = f"{short_name(action)} {scores_A[column]:.2f}" + " ✓" * true
        style = {"weight": "bold"} if true else {"color": GREY}
        axes.annotate(words, (0, place), (3, 1), textcoords="offset points", fontsize=7.5, **style)
    axes.set(xlim=(0, 1), ylim=(_ACTIONS - 0.5, -0.5), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.axvline(0, color=GREY, lw=0.8)

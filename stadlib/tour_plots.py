"""Figures of one clip's journey: frames, boxes, features, sequences. All show real tensors."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from stadlib.person_marks import (
    mark_person,
    person_color,
    show_person,
    show_picture,
    tag_person,
)
from stadlib.sheets import HEAT, INNER, Sheet, heat, sheet, strength
from stadlib.style import GREY, NotebookFigure, short_name
from stadlib.tour import Journey

_BLUE = "#0072B2"
_FRAMES, _COLUMNS = 8, 4  # shown of a clip at most; side by side
_GAP = 0.08  # inches between panels
_PARTS = ("person", "+ scene", "→ fused")
_SIGNED = "PuOr_r"  # colour-blind-safe; white is zero


def clip(journey: Journey) -> NotebookFigure:
    """Show the frames of the clip, and its keyframe with the persons and what they do."""
    high, wide = journey.frames.shape[1:3]
    shown = _evenly(len(journey.frames), journey.now)
    width = (INNER - (_COLUMNS - 1) * _GAP) / _COLUMNS
    height = width * high / wide
    below = 0.3 + -(-len(shown) // _COLUMNS) * (height + 0.24)
    large = 3.4 * high / wide
    with sheet(below + 0.35 + large) as page:
        page.heading(0.04, "clip", journey.frames.shape, "frames × height × width × colours")
        for place, number in enumerate(shown):
            row, column = divmod(place, _COLUMNS)
            where = (column * (width + _GAP), 0.44 + row * (height + 0.24), width, height)
            axes = page.panel(*where)
            show_picture(axes, journey.frames[number])
            words = f"{_seconds(journey.times[number])}"
            _title(axes, words + ": the keyframe" * (number == journey.now), number == journey.now)
        page.heading(below + 0.08, "boxes", journey.boxes.shape, "persons × corners")
        axes = page.panel(0, below + 0.3, 3.4, large)
        show_picture(axes, journey.frames[journey.now])
        for person, box in enumerate(journey.boxes):
            mark_person(axes, person, box)
            _describe(page, journey, person, below + 0.3 + 0.45 * person)
    return page.figure


def _describe(page: Sheet, journey: Journey, person: int, top: float) -> None:
    """Beside the keyframe: a person's number, what it does, and where."""
    x1, y1, x2, y2 = journey.boxes[person] * np.tile(journey.frames.shape[2:0:-1], 2)
    axes = page.panel(3.6, top, 0.2, 0.2)
    axes.axis("off")
    tag_person(axes, person, (2, 3), size=8)
    words = ", ".join(short_name(action) for action in journey.truth(person)) or "no action"
    page.write(3.85, top + 0.02, words, fontsize=9)
    where = f"x {x1:.0f} to {x2:.0f}, y {y1:.0f} to {y2:.0f} pixels"
    page.write(3.85, top + 0.2, where, color=GREY, fontsize=7)


def feature_map(journey: Journey, channels: int = 4) -> NotebookFigure:
    """Show where the backbone's map is strong at every moment, and some of its channels."""
    map_CTHW = journey.walk.map_BCTHW[0].numpy()
    frames = np.array_split(np.arange(len(journey.frames)), map_CTHW.shape[1])
    moment = _moment(journey)
    width = (INNER - (max(len(frames), channels) - 1) * _GAP) / max(len(frames), channels)
    height = width * journey.frames.shape[1] / journey.frames.shape[2]
    liveliest = np.argsort(-map_CTHW.std(axis=(1, 2, 3)), kind="stable")[:channels]
    with sheet(2 * height + 1.02) as page:
        counts = "channels × moments × rows × columns"
        page.heading(0.04, "feature map", map_CTHW.shape, counts)
        page.write(0, 0.24, "over the frames: strength of all channels together (bright is strong)")
        for step, strong_HW in enumerate(strength(map_CTHW, 0)):
            axes = page.panel(step * (width + _GAP), 0.56, width, height)
            show_picture(axes, journey.frames[frames[step]].mean(axis=0) / 255)
            _over(axes, strong_HW, 0.6)
            _outline(axes, journey)
            first, last = journey.times[frames[step][[0, -1]]]
            _title(axes, f"{_seconds(first)} to {_seconds(last)}", step == moment)
        words = f"below: {channels} of the channels alone, those that vary most, at the keyframe"
        page.write(0, height + 0.65, words)
        for place, channel in enumerate(liveliest):
            axes = page.panel(place * (width + _GAP), height + 0.97, width, height)
            _over(axes, map_CTHW[channel, moment] / map_CTHW[channel].max(), 1)
            _outline(axes, journey)
            _title(axes, f"channel {channel}")
    return page.figure


def persons(journey: Journey) -> NotebookFigure:
    """Show each person's features over time, and how the scene is fused with them."""
    own_NCThw = journey.walk.persons_NCThw.numpy()
    fused = journey.walk.fused_NCThw.numpy()
    parts = (own_NCThw, journey.walk.scene_BCThw.numpy().repeat(len(fused), axis=0), fused)
    T = own_NCThw.shape[2]
    cell = (0.56 * INNER - 0.9) / T
    left = 0.95 + T * cell + 0.3
    with sheet(0.46 + len(fused) * (cell + 0.2)) as page:
        counts = "persons × channels × moments × rows × columns"
        page.heading(0.04, "person features", own_NCThw.shape, counts)
        _above(page, 0.95, "strength of all channels, moment by moment")
        _above(page, left, f"the {own_NCThw.shape[1]} channels (orange above, purple below zero)")
        for person, strong_Thw in enumerate(strength(own_NCThw, 1)):
            top = 0.58 + person * (cell + 0.2)
            _portrait(page.panel(0, top, 0.8, cell), journey, person)
            for step, strong_hw in enumerate(strong_Thw):
                heat(page.panel(0.95 + step * cell, top, cell - 0.05, cell), strong_hw)
            for place, (name, part) in enumerate(zip(_PARTS, parts, strict=True)):
                line = part[person].mean(axis=(1, 2, 3))[None]
                axes = page.panel(
                    left + 0.5, top + place * cell / 3, INNER - left - 0.5, cell / 3 - 0.05
                )
                heat(axes, line, -np.abs(line).max(), np.abs(line).max(), _SIGNED)
                page.write(left, top + (place + 0.15) * cell / 3, name, fontsize=7)
    return page.figure


def sequences(journey: Journey) -> NotebookFigure:
    """Show which tokens s-only and t-only make of the fused features, and what a sequence is."""
    strong_NThw = strength(journey.walk.fused_NCThw.numpy(), 1)
    N, T, h, w = strong_NThw.shape
    s_only = strength(journey.walk.s_only_NLC.numpy(), 2).reshape(N, h, w)
    t_only = strength(journey.walk.t_only_NLC.numpy(), 2)[:, None]
    side, step = 0.72, 0.4
    lefts = 0.9, 0.9 + T * step + 0.6, INNER - T * side / 2 - 0.55
    rows = [0.5 + person * (side + 0.12) for person in range(N)]
    named = {"fused": "fused_NCThw", "S-only": "s_only_NLC", "T-only": "t_only_NLC"}
    counts = (
        f"{T} moments of {h} × {w} places",
        f"{h * w} places, mean over time",
        (f"{T} moments, mean over places"),
    )
    with sheet(rows[-1] + side + 0.32) as page:
        for left, (name, field), words in zip(lefts, named.items(), counts, strict=True):
            numbers = " × ".join(map(str, getattr(journey.walk, field).shape))
            page.write(left, 0.04, f"{name}: {numbers}", weight="bold", fontsize=9)
            page.write(left, 0.22, words, color=GREY, fontsize=7)
        for person, top in enumerate(rows):
            _portrait(page.panel(0, top, side, side), journey, person)
            for moment in range(T):
                where = lefts[0] + moment * step, top + side / 4, side / 2, side / 2
                heat(page.panel(*where), strong_NThw[person, moment])
            heat(page.panel(lefts[1], top, side, side), s_only[person])
            heat(page.panel(lefts[2], top + side / 4, T * side / 2, side / 2), t_only[person])
        row, column = h // 2, w // 2
        bottom = rows[-1] + side
        x, y = lefts[1] + (column + 0.5) * side / w, (row + 0.5) * side / h
        _sequence(page, x, [top + y for top in rows], bottom, "one sequence: one place")
        x = lefts[2] + (_moment(journey) + 0.5) * side / 2
        _sequence(page, x, [top + side / 2 for top in rows], bottom, "one sequence: one moment")
    return page.figure


def _sequence(page: Sheet, x: float, tops: list[float], bottom: float, words: str) -> None:
    """A line through the tokens of a sequence, one a person, and what it is below."""
    for color, width in (("black", 3.6), ("#56B4E9", 2)):
        page.line([(x, top) for top in tops], color=color, lw=width, marker="o", ms=2 + width)
    page.write(x, bottom + 0.1, words, color=_BLUE, weight="bold", ha="center")


def _over(axes: Axes, values_HW: np.ndarray, alpha: float) -> None:
    """Shares as colours over a picture, or alone."""
    how = {"vmin": 0, "vmax": 1, "interpolation": "nearest", "aspect": "auto"}
    axes.imshow(values_HW, HEAT, alpha=alpha, extent=(0, 1, 1, 0), **how)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _outline(axes: Axes, journey: Journey) -> None:
    """Where the persons are on the keyframe, as thin lines."""
    for person, (x1, y1, x2, y2) in enumerate(journey.boxes):
        axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=person_color(person), lw=1)


def _portrait(axes: Axes, journey: Journey, person: int) -> None:
    """A person on the keyframe, with the grid that RoIAlign lays into the box."""
    x1, y1, x2, y2 = journey.boxes[person]
    show_person(axes, journey.frames[journey.now], journey.boxes[person])
    rows, columns = journey.walk.fused_NCThw.shape[3:]
    style = {"colors": person_color(person), "lw": 0.8}
    axes.hlines(np.linspace(y1, y2, rows + 1), x1, x2, **style)
    axes.vlines(np.linspace(x1, x2, columns + 1), y1, y2, **style)
    tag_person(axes, person, (2, -8), (0, 1))


def _moment(journey: Journey) -> int:
    """The step in time of the features that the keyframe belongs to."""
    return journey.now * journey.walk.map_BCTHW.shape[2] // len(journey.frames)


def _above(page: Sheet, left: float, words: str) -> None:
    page.write(left, 0.36, words, color=GREY, fontsize=7)


def _title(axes: Axes, words: str, strong: bool = False) -> None:
    style = {"color": _BLUE, "weight": "bold"} if strong else {"color": GREY}
    axes.set_title(words, fontsize=7, loc="left", pad=2, **style)


def _seconds(time: float) -> str:
    return f"{time:+.2f} s" if abs(time) > 1e-6 else "0 s"


def _evenly(count: int, now: int) -> list[int]:
    """Places of the frames that are shown, ascending, ``now`` among them."""
    step = max(1, count // _FRAMES)
    return list(range(now % step, count, step))[:_FRAMES]

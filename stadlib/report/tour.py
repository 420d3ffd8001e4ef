"""The figures of one clip's journey through a trained model, with the legend of :mod:`.journey`."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import SVG
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch, Rectangle
from matplotlib.patheffects import withStroke

from stadlib.base import published_dir
from stadlib.data.layout import group
from stadlib.report import frames, style
from stadlib.report.journey import Journey, open_journey
from stadlib.report.style import COLORS, GREY, WIDTH, NotebookFigure, in_style, panels, short_name

journey = open_journey  # a notebook says ``report.tour.journey(run)``
FRAMES, ACTIONS, SECONDS = 8, 6, 25  # shown at most: of a clip, scores of a person, of memory
HEAT, SIGNED = "magma", "PuOr_r"  # colour-blind-safe; of SIGNED white is zero
BLUE, SAME, OTHER = "#0072B2", "#007A5A", "#E69F00"


def overview():
    """The system in one figure, as README shows it (``results/pipeline.svg``)."""
    return SVG(filename=published_dir("pipeline.svg"))


@in_style
def clip(journey: Journey) -> NotebookFigure:
    """Show the frames of the clip, and its keyframe with the persons and what they do."""
    T, H, W = journey.frames.shape[:3]
    step = max(1, T // FRAMES)
    shown = [*range(journey.now % step, T, step)[:FRAMES], ".", ".", "."]
    rows = [shown[first : first + 4] for first in range(0, len(shown) - 3, 4)]
    rows += 2 * [["boxes", "boxes", "persons", "persons"]]
    size = (WIDTH, len(rows) * (WIDTH / 4 * H / W + 0.12) + 0.5)
    figure, axes = plt.subplot_mosaic(rows, FigureClass=NotebookFigure, figsize=size)
    boxes, persons = axes.pop("boxes"), axes.pop("persons")
    for number, panel in axes.items():
        frames.show_picture(panel, journey.frames[number])
        now = number == journey.now
        _title(panel, _seconds(journey.times[number]) + ": the keyframe" * now, now)
    frames.show_picture(boxes, journey.frames[journey.now])
    _name(boxes, "boxes", journey.boxes.shape, "persons × corners")
    persons.axis("off")
    for person, box in enumerate(journey.boxes):
        frames.draw_mark(boxes, frames.person_mark(person, box))
        y, (x1, y1, x2, y2) = 0.9 - 0.2 * person, box * (W, H, W, H)
        frames.number_plate(persons, person, (0.03, y), xytext=(0, 0))
        does = ", ".join(map(short_name, journey.truth(person))) or "no action"
        persons.text(0.11, y, does, fontsize=9)
        pixels = f"x {x1:.0f} to {x2:.0f}, y {y1:.0f} to {y2:.0f} pixels"
        persons.text(0.11, y - 0.075, pixels, fontsize=7, color=GREY)
    _head(figure, "clip", journey.frames.shape, "frames × height × width × colours")
    return figure


@in_style
def feature_map(journey: Journey) -> NotebookFigure:
    """Show where the backbone's map is strong at every moment, and as many of its channels."""
    map_CTHW = journey.map_BCTHW[0].numpy()
    T, H, W = journey.frames.shape[:3]
    parts = np.array_split(np.arange(T), map_CTHW.shape[1])  # the frames of a moment
    figure, axes = panels(2 * (WIDTH / len(parts) * H / W + 0.1) + 0.4, 2, len(parts))
    look = {"cmap": HEAT, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    look |= {"extent": (0, 1, 1, 0), "aspect": "auto"}
    for step, strong_HW in enumerate(_strength(map_CTHW, 0)):
        frames.show_picture(axes[0, step], journey.frames[parts[step]].mean(axis=0) / 255)
        axes[0, step].imshow(strong_HW, alpha=0.6, **look)
        first, last = map(_seconds, journey.times[parts[step][[0, -1]]])
        _title(axes[0, step], f"{first} to {last}", step == journey.moment)
    liveliest = np.argsort(-map_CTHW.std(axis=(1, 2, 3)), kind="stable")
    for panel, channel in zip(axes[1], liveliest, strict=False):
        frames.show_picture(panel, journey.frames[journey.now])
        panel.imshow(map_CTHW[channel, journey.moment] / map_CTHW[channel].max(), **look)
        _title(panel, f"channel {channel}")
    for panel in axes.flat:
        for person, (x1, y1, x2, y2) in enumerate(journey.boxes):
            color = frames.person_color(person)
            panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, ec=color, fill=False))
    axes[0, 0].set_ylabel("all channels,\nbright is strong", fontsize=7)
    axes[1, 0].set_ylabel("the channels\nthat vary most", fontsize=7)
    _head(figure, "feature map", map_CTHW.shape, "channels × moments × rows × columns")
    return figure


@in_style
def persons(journey: Journey) -> NotebookFigure:
    """Show each person's features over time, and how the scene is fused with them."""
    persons_NCThw, fused_NCThw = journey.persons_NCThw, journey.fused_NCThw
    steps = (persons_NCThw, journey.scene_BCThw.expand(fused_NCThw.shape), fused_NCThw)
    strong_NThw = _strength(persons_NCThw.numpy(), 1)
    N, T = strong_NThw.shape[:2]
    figure, axes = panels(0.6 + N * 0.85, N, 3, width_ratios=(0.8, 0.75 * T, 2.7))
    for person, (portrait, places, channels) in enumerate(axes):
        _portrait(portrait, journey, person)
        _heat(places, _side_by_side(strong_NThw[person]))
        lines = np.stack([step[person].mean(dim=(1, 2, 3)).numpy() for step in steps])
        _heat(channels, lines / np.abs(lines).max(axis=1, keepdims=True), -1, SIGNED)
        channels.hlines((0.5, 1.5), *channels.get_xlim(), color="white", lw=4)
        channels.set_yticks((0, 1, 2), ("person", "+ scene", "→ fused"))
        channels.tick_params(length=0)
        channels.grid(visible=False)
    _title(axes[0, 1], "strength of all channels, moment by moment")
    _title(axes[0, 2], f"the {lines.shape[1]} channels (orange above, purple below zero)")
    counts = "persons × channels × moments × rows × columns"
    _head(figure, "person features", persons_NCThw.shape, counts)
    return figure


@in_style
def sequences(journey: Journey) -> NotebookFigure:
    """Show which tokens s-only and t-only make of the fused features, and what a sequence is."""
    fused_NCThw = journey.fused_NCThw
    s_only_NLC = fused_NCThw.mean(dim=2).flatten(2).transpose(1, 2)  # L = h * w
    t_only_NLC = fused_NCThw.mean(dim=(3, 4)).transpose(1, 2)  # L = T
    N, _, T, h, w = fused_NCThw.shape
    strong_NThw = _strength(fused_NCThw.numpy(), 1)
    places_Nhw = _strength(s_only_NLC.numpy(), 2).reshape(N, h, w)
    moments_NT = _strength(t_only_NLC.numpy(), 2)
    figure, axes = panels(0.9 + N * 0.8, N, 4, width_ratios=(0.8, 2, 1.6, 1.6))
    for person, row in enumerate(axes):
        _portrait(row[0], journey, person)
        _heat(row[1], _side_by_side(strong_NThw[person]))
        _heat(row[2], places_Nhw[person])
        _heat(row[3], moments_NT[person][None])
        for panel, shape in zip(row, (1, 1 / T, 1, 1 / T), strict=True):
            panel.set(box_aspect=shape, anchor="NW")
    _name(axes[0, 1], "fused", fused_NCThw.shape, f"{T} moments of {h} × {w} places")
    _name(axes[0, 2], "S-only", s_only_NLC.shape, f"{h * w} places, mean over time")
    _name(axes[0, 3], "T-only", t_only_NLC.shape, f"{T} moments, mean over places")
    # A line through the tokens of one sequence, one a person.
    tokens = {"place": (w // 2, h // 2), "moment": (journey.moment, 0)}
    for column, (name, token) in zip(axes.T[2:], tokens.items(), strict=True):
        ends = {"coordsA": column[0].transData, "coordsB": column[-1].transData}
        for color, width in (("black", 3.6), ("#56B4E9", 2)):
            figure.add_artist(ConnectionPatch(token, token, **ends, color=color, lw=width))
            for panel in column:
                panel.plot(*token, "o", color=color, ms=2 + width)
        column[-1].set_xlabel(f"one sequence: one {name}", color=BLUE, weight="bold")
    return figure


@in_style
def attention(journey: Journey) -> NotebookFigure:
    """Show in the picture how much each person attends to whom: one panel a person."""
    (H, W), N, shares = journey.frames.shape[1:3], len(journey.boxes), 100 * journey.attention
    figure, axes = panels(WIDTH / N * H / W + 1.0, 1, N, squeeze=False)
    middles = journey.boxes.reshape(-1, 2, 2).mean(axis=1)
    look = {"textcoords": "offset points", "ha": "center", "va": "bottom", "weight": "bold"}
    look["path_effects"] = [withStroke(linewidth=2, foreground="white")]
    for person, panel in enumerate(axes[0]):
        frames.show_picture(panel, 0.45 + 0.55 * journey.frames[journey.now] / 255)
        title = f"person {person + 1} looks at"
        panel.set_title(title, loc="left", weight="bold", pad=24, fontsize=8)
        for other, box in enumerate(journey.boxes):
            frames.draw_mark(panel, frames.person_mark(other, box))
            share = "itself\n" * (other == person) + f"{shares[person, other]:.0f} %"
            panel.annotate(share, (middles[other, 0].clip(0.09, 0.91), box[1]), (0, 2), **look)
            if other != person:  # an arc as thick as the share
                bow = -0.35 * np.sign(middles[other, 0] - middles[person, 0])
                arc = {"arrowstyle": "-", "connectionstyle": f"arc3,rad={bow}", "shrinkA": 0}
                arc |= {"shrinkB": 0, "color": frames.person_color(person)}
                arc["lw"] = 0.25 * shares[person, other]
                panel.annotate("", middles[other], middles[person], arrowprops=arc)
        past = f"at the {shares.shape[1] - N} in memory: {shares[person, N:].sum():.0f} %"
        panel.set_xlabel(past, color=GREY, loc="left")
    counts = "persons × sequences × attention heads × persons looked at"
    _head(figure, "attention", journey.attention_NLES.shape, counts)
    return figure


@in_style
def attention_timeline(journey: Journey) -> NotebookFigure:
    """Show who is in memory, second by second, and where the followed person's attention goes."""
    memory, shares_S = journey.memory, 100 * journey.attention[journey.person]
    seconds_S = np.array([0] * len(journey.boxes) + memory.seconds_BM[0].tolist())
    boxes_S4 = np.concatenate([journey.boxes, memory.boxes_BM4[0].numpy()])
    first, last = int(seconds_S.min()), int(seconds_S.max())
    step = -(-(last - first + 1) // SECONDS)
    shown = range(first + -first % step, last + 1, step)
    most = max(int((seconds_S == second).sum()) for second in shown)
    ratios = (0.62 * most, 1.1)
    figure, (above, below) = panels(0.62 * most + 1.9, 2, sharex=True, height_ratios=ratios)
    # Above a person a tile: its line is green or orange, and as thick as the attention.
    above.set(xlim=(first - 0.6 * step, last + 0.6 * step), ylim=(0, most))
    above.axis("off")
    wide, high = 0.86 * step, 0.9
    shape = wide / high * (WIDTH - 0.7) / (last - first + step) / 0.62
    for second in shown:
        for row, place in enumerate(np.flatnonzero(seconds_S == second)):
            bounds = (second - wide / 2, most - row - 0.95, wide, high)
            tile = above.inset_axes(bounds, transform=above.transData)
            tile.set_in_layout(False)
            frames.show_person(tile, journey.pictures[second], boxes_S4[place], shape)
            color = SAME if journey.same_S[place] else OTHER
            width = 0.5 + 3 * shares_S[place] / shares_S.max()
            tile.spines[:].set(visible=True, color=color, lw=width)
    does = ", ".join(map(short_name, journey.truth(journey.person)))
    _title(above, f"person {journey.person + 1} of {journey.title}, who does: {does}")
    # Below a bar a second: attention to the person itself, on it that to others.
    seconds = np.unique(seconds_S)
    total = np.array([shares_S[seconds_S == s].sum() for s in seconds])
    itself = np.array([shares_S[(seconds_S == s) & journey.same_S].sum() for s in seconds])
    below.bar(seconds, itself, 0.7, color=SAME)
    bars = below.bar(seconds, total - itself, 0.7, bottom=itself, color=OTHER)
    labels = [f"{value:.0f}" if value >= 0.1 * total.max() else "" for value in total]
    below.bar_label(bars, labels, fontsize=7)
    look = {"ha": "right", "weight": "bold", "transform": below.transAxes}
    below.text(1, 1.02, f"others {100 - itself.sum():.0f} %", color=OTHER, **look)
    below.text(0.86, 1.02, f"the person itself {itself.sum():.0f} %", color=SAME, **look)
    ticks = [f"{second:+d}" if second else "now" for second in shown]
    below.set_xticks(shown, ticks, fontsize=7)
    below.set(
        xlabel="seconds from the keyframe", ylabel="attention, %", ylim=(0, 1.15 * total.max())
    )
    below.grid(visible=False, axis="x")
    counts = "persons in memory × sequences × channels"
    _head(figure, "memory", memory.tokens_BMLC.shape[1:], counts)
    return figure


@in_style
def scores(journey: Journey) -> NotebookFigure:
    """Show the highest scores of every person; what the annotations say too is bold."""
    scores_NA = journey.loss.probabilities(journey.logits_NA).numpy()
    figure, axes = panels(3.2, 2, len(scores_NA), squeeze=False, height_ratios=(0.8, 2))
    for person, (portrait, bars) in enumerate(axes.T):
        _portrait(portrait, journey, person, grid=False)
        portrait.set_anchor("W")
        truth = ",\n".join(map(short_name, journey.truth(person))) or "no action"
        look = {"transform": portrait.transAxes, "va": "top", "in_layout": False}
        portrait.text(1.1, 1, "annotated:", fontsize=7, color=GREY, **look)
        portrait.text(1.1, 0.8, truth, weight="bold", **look)
        best = np.argsort(-scores_NA[person], kind="stable")[:ACTIONS]
        for place, (column, score) in enumerate(zip(best, scores_NA[person, best], strict=True)):
            action, true = journey.ids[column], journey.actions[person, column]
            bars.barh(place + 0.2, score, 0.3, color=COLORS[group(action)])
            look = {"weight": "bold"} if true else {"color": GREY}
            text = f"{short_name(action)} {score:.2f}" + " ✓" * bool(true)
            bars.annotate(text, (0, place), (3, 1), textcoords="offset points", **look)
        bars.set(xlim=(0, 1), ylim=(ACTIONS - 0.5, -0.5), xticks=[], yticks=[])
        bars.spines[["bottom"]].set_visible(False)
    for place, (name, color) in zip((0.66, 0.72, 0.86), COLORS.items(), strict=True):
        figure.text(place, 0.99, style.GROUP_NAMES[name], color=color, weight="bold", va="top")
    _head(figure, "scores", scores_NA.shape, "persons × actions; a full bar is 1")
    return figure


def _portrait(axes: Axes, journey: Journey, person: int, grid: bool = True) -> None:
    """A person on the keyframe, with the grid that RoIAlign lays into the box."""
    frames.show_person(axes, journey.frames[journey.now], journey.boxes[person])
    if grid:
        (x1, y1, x2, y2), (rows, columns) = journey.boxes[person], journey.fused_NCThw.shape[3:]
        look = {"colors": frames.person_color(person), "lw": 0.8}
        axes.hlines(np.linspace(y1, y2, rows + 1), x1, x2, **look)
        axes.vlines(np.linspace(x1, x2, columns + 1), y1, y2, **look)
    frames.number_plate(axes, person, (0, 1), xytext=(2, -8), xycoords="axes fraction")


def _heat(axes: Axes, values: np.ndarray, low: float = 0, cmap: str = HEAT) -> None:
    """A grid of numbers (rows, columns), at most 1, as colours without ticks."""
    axes.imshow(values, cmap, vmin=low, vmax=1, interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _strength(features: np.ndarray, axis: int) -> np.ndarray:
    """The length of the vector of all channels, as shares of the largest: 0 to 1."""
    length = np.linalg.norm(features, axis=axis)
    return length / max(float(length.max()), 1e-9)


def _side_by_side(values_Thw: np.ndarray) -> np.ndarray:
    """The grids of all moments in one, a gap of half a cell between two."""
    wide = np.pad(values_Thw.repeat(2, axis=2), ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
    return np.concatenate(wide, axis=1)[:, :-1]


def _head(figure: NotebookFigure, name: str, shape: Sequence[int], counts: str) -> None:
    """A tensor's name and shape above a figure, and what the numbers of the shape count."""
    name += f": {' × '.join(map(str, shape))}"
    title = figure.suptitle(name, x=0.008, ha="left", weight="bold", fontsize=9)
    look = {"xycoords": title, "textcoords": "offset points", "color": GREY, "in_layout": False}
    figure.get_layout_engine().set(h_pad=0.06)
    figure.axes[0].annotate(counts, (1, 0), (8, 1), **look)


def _name(axes: Axes, name: str, shape: Sequence[int], counts: str) -> None:
    """The same above a panel, in two lines."""
    _title(axes, counts)
    name += f": {' × '.join(map(str, shape))}"
    look = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 9}
    axes.annotate(name, (0, 1), (0, 13), weight="bold", **look)


def _title(axes: Axes, text: str, strong: bool = False) -> None:
    look = {"color": BLUE, "weight": "bold"} if strong else {"color": GREY}
    axes.set_title(text, fontsize=7, loc="left", pad=2, **look)


def _seconds(time: float) -> str:
    return f"{time:+.2f} s" if abs(time) > 1e-6 else "0 s"

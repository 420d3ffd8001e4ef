"""The figures of notebooks 01 to 04 and of ``stadlib classes``: one function a figure.

Colours mean AVA's groups of classes or, where no class is shown, the sources. Classes stand by
group, then by AVA's id, unless a figure sorts them by what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from stadlib.data.layout import LabelMap, group
from stadlib.recipes.experiment import choices
from stadlib.report import style
from stadlib.report.scores import by_class, interval
from stadlib.report.style import COLORS, GREY, NotebookFigure, in_style, panels, short_name
from stadlib.study import Record

Curves = Mapping[int, tuple[np.ndarray, np.ndarray]]

SOURCE_COLORS = {"AVA": "#0072B2", "Kinetics": "#C04A00", "A+K": "#333333"}
DARK = "#333333"


@in_style
def training_curve(log: pd.DataFrame, committed: Iterable[pd.DataFrame] = ()) -> NotebookFigure:
    """Plot a run's ``loss`` by ``iteration``, ``committed`` ones grey behind it, and its ``lr``."""
    figure, (upper, lower) = panels(3.2, 2, sharex=True, height_ratios=(3, 1))
    for curve, color in [*((other, GREY) for other in committed), (log, COLORS["pose"])]:
        steps, smooth = curve["iteration"], curve["loss"].ewm(span=max(2, len(curve) / 15)).mean()
        upper.plot(steps, curve["loss"], color=color, alpha=0.3, lw=0.8)
        upper.plot(steps, smooth, color=color, lw=1.8)
    upper.set(ylabel="loss (binary cross entropy)", ylim=(0, None))
    _name_ends(upper, [(steps.iloc[-1], smooth.iloc[-1], f"{smooth.iloc[-1]:.3f}", "black")])
    lower.plot(steps, log["lr"], color=GREY, lw=1.4)
    lower.set(ylabel="learning rate", xlabel="iteration", ylim=(0, None))
    return figure


@in_style
def ap_by_class(records: Iterable[Record]) -> NotebookFigure:
    """Plot the joint AP of every class as bars, one a head, with 95 % intervals over seeds."""
    rows = [
        (record.experiment["head"], action, ap)
        for record in records
        for action, ap in by_class(record.metrics, "ava+kinetics").items()
    ]
    if not rows:
        return style.unrun()
    values = pd.DataFrame(rows, columns=["head", "action", "AP"])
    bounds = values.groupby(["action", "head"])["AP"].agg(interval).unstack()
    bounds = bounds[[head for head in choices("head") if head in bounds]]
    actions = bounds.index.tolist()
    figure, axes = panels(0.8 + len(actions) * (0.12 + 0.085 * len(bounds.columns)))
    means, halves = (bounds.map(lambda bound, i=i: bound[i]) for i in (0, 1))
    _bars(axes, means, _colors(actions), "{:.0f}", named=1, halves=halves)
    _name_rows(axes, map(short_name, actions), _colors(actions))
    axes.set(xlim=(0, 108), xlabel="AP@0.5 on A+K, %")
    style.name_groups(axes, apart=0.19)
    return figure


@in_style
def gain_by_frequency(gains: pd.DataFrame, counts: Mapping[int, int]) -> NotebookFigure:
    """Plot ``gain``, ``low`` and ``high`` of classes against their training instances, by id."""
    gains = gains[[counts.get(action, 0) > 0 for action in gains.index]]
    if gains.empty:
        return style.unrun()
    figure, axes, xs, colors = _by_frequency(gains.index, counts, "gain in AP, points")
    axes.axhline(0, color="black", lw=0.8)
    axes.vlines(xs, gains["low"], gains["high"], colors=colors, alpha=0.25, lw=2)
    axes.scatter(xs, gains["gain"], c=colors, s=22, zorder=3)
    _name_classes(axes, xs, gains["gain"], gains[["low", "high"]])
    return figure


@in_style
def memory_amount(effect: pd.DataFrame) -> NotebookFigure:
    """Plot mAP against the seconds of memory, and against the persons of a second.

    ``effect`` has ``mAP``, ``low`` and ``high`` by ``span``, ``persons`` and ``source``. Each panel
    varies one of the tables' two numbers.
    """
    if effect.empty:
        return style.unrun()
    table = effect.reset_index()
    varied = {
        "span": ("seconds remembered to each side", table["persons"] == 5),
        "persons": ("persons remembered of a second", table["span"] == 30),
    }
    figure, axes = panels(3.0, 1, 2, sharey=True)
    for panel, (name, (xlabel, chosen)) in zip(axes, varied.items(), strict=True):
        shown = table[chosen | (table["span"] == 0)]
        amounts = sorted(shown[name].unique())
        panel.set_xticks(range(len(amounts)), [str(value) for value in amounts])
        panel.set(xlim=(-0.2, len(amounts) - 0.35), xlabel=xlabel, ylabel="mAP@0.5, %")
        places = [amounts.index(value) for value in shown[name]]
        _lines(panel, shown.assign(place=places), "place", {"mAP": "-"})
        panel.label_outer()
    return figure


@in_style
def before_and_after(changes: pd.DataFrame, counts: Mapping[int, int]) -> NotebookFigure:
    """Plot AP ``before`` (ring) and ``after`` (dot) of classes against their instances, by id."""
    changes = changes[[counts.get(action, 0) > 0 for action in changes.index]]
    if changes.empty:
        return style.unrun()
    figure, axes, xs, colors = _by_frequency(changes.index, counts, "AP@0.5, %")
    axes.vlines(xs, changes["before"], changes["after"], colors=colors, lw=1.4)
    axes.scatter(xs, changes["before"], facecolors="white", edgecolors=colors, s=18, zorder=3)
    axes.scatter(xs, changes["after"], c=colors, s=20, zorder=4)
    axes.text(0.0, 1.02, "○ before   ● after", transform=axes.transAxes, color=GREY)
    _name_classes(axes, xs, changes["after"])
    return figure


@in_style
def class_differences(table: pd.DataFrame, of="difference in AP@0.5, points") -> NotebookFigure:
    """Plot ``gain``, ``low`` and ``high`` of classes by id, sorted; ``of`` names the difference."""
    if table.empty:
        return style.unrun()
    table = table.sort_values("gain", ascending=False)
    rows = range(len(table))
    figure, axes = panels(1.0 + 0.17 * len(table))
    axes.barh(rows, table["gain"], color=_colors(table.index), alpha=0.75, height=0.72)
    axes.hlines(rows, table["low"], table["high"], color=DARK, lw=0.9)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_xlabel(of)
    _name_rows(axes, map(short_name, table.index), _colors(table.index))
    style.name_groups(axes, apart=0.19)
    return figure


@in_style
def precision_recall(before: Curves, after: Curves) -> NotebookFigure:
    """Plot precision against recall of a few classes, before in grey and after in black."""
    lines = -(-len(after) // 3)
    options = {"sharex": True, "sharey": True, "squeeze": False}
    figure, axes = panels(0.4 + 1.9 * lines, lines, 3, **options)
    for panel in axes.flat[len(after) :]:
        panel.set_axis_off()
    for panel, action in zip(axes.flat, after, strict=False):
        for curves, color in ((before, "#AAAAAA"), (after, "black")):
            recall, precision = curves[action]
            panel.plot(100 * recall, 100 * precision, color=color, lw=1.1)
        panel.set_title(short_name(action), color=COLORS[group(action)], fontsize=8)
        panel.set(xlim=(0, 100), ylim=(0, 102), xlabel="recall, %", ylabel="precision, %")
        panel.label_outer()
    look = {"transform": axes[0, 0].transAxes, "ha": "right"}
    axes[0, 0].text(0.97, 0.9, "after", **look)
    axes[0, 0].text(0.97, 0.78, "before", color="#888888", **look)
    return figure


@in_style
def overfitting(training: pd.Series, validation: pd.Series) -> NotebookFigure:
    """Plot what classes gain in AP on validation against what they gain on training data, by id.

    Below the dotted diagonal a class gains more on what it was trained on. In the lower right
    corner it gains there and loses on validation, which is overfitting.
    """
    points = pd.DataFrame({"x": training, "y": validation}).dropna()
    figure, axes = panels(4.6)
    axes.axhline(0, color="black", lw=0.8)
    axes.axvline(0, color="black", lw=0.8)
    axes.axline((0, 0), slope=1, color=GREY, lw=0.8, ls=":")
    axes.scatter(points["x"], points["y"], c=_colors(points.index), s=22, zorder=3)
    axes.set(xlabel="difference on training data, points", ylabel="on validation, points")
    axes.margins(0.12)
    style.name_groups(axes)
    _name_classes(axes, points["x"], points["y"])
    return figure


@in_style
def detector_curve(ours: pd.DataFrame, paper: pd.DataFrame) -> NotebookFigure:
    """Plot mAP of actions against AP of the person boxes, ours and the paper's numbers apart.

    Both tables have ``AP``, ``mAP``, ``low`` and ``high`` by ``source`` and ``detector``.
    """
    figure, axes = panels(3.3, 1, 2)
    titles = {"mini": ours, "paper (AVA-Kinetics)": paper}
    for panel, (title, table) in zip(axes, titles.items(), strict=True):
        panel.set_title(title, fontsize=8, weight="bold")
        panel.set(xlabel="AP@0.5 of person boxes, %", ylabel="mAP@0.5 of actions, %")
        if table.empty:
            panel.text(0.5, 0.5, "not run", color=GREY, ha="center", transform=panel.transAxes)
            continue
        rows = table.reset_index()
        for source, points in rows.groupby("source"):
            detected = points[points["detector"] != "GT"]  # the line to ground truth is dotted
            panel.plot(points["AP"], points["mAP"], color=SOURCE_COLORS[source], lw=1, ls=":")
            panel.plot(detected["AP"], detected["mAP"], color=SOURCE_COLORS[source], lw=1.6)
        colors = rows["source"].map(SOURCE_COLORS).tolist()
        panel.vlines(rows["AP"], rows["low"], rows["high"], colors=colors, alpha=0.3, lw=3)
        panel.scatter(rows["AP"], rows["mAP"], c=colors, s=20, zorder=3)
        panel.margins(0.12)
        last = ~rows["source"].duplicated(keep="last")
        names = rows["detector"].where(~last, rows["detector"] + ", " + rows["source"])
        label_points(panel, rows[["AP", "mAP"]].to_numpy(), names, colors, rows[["low", "high"]])
    return figure


@in_style
def box_thresholds(table: pd.DataFrame) -> NotebookFigure:
    """Plot recall and precision of v3's boxes against their least score, and mAP below.

    The table has ``recall``, ``precision``, ``mAP``, ``low`` and ``high`` in % by ``source`` and
    ``threshold``.
    """
    if table.empty:
        return style.unrun()
    table = table.reset_index()
    least = table["threshold"]
    figure, (upper, lower) = panels(4.8, 2, sharex=True)
    lower.set_xlim(least.min() - 0.02, least.max() + 0.17)
    upper.set_ylabel("at IoU 0.5, %")
    lower.set(ylabel="mAP@0.5 of actions, %", xlabel="least score of a used box of v3")
    gap = (table["recall"] - table["precision"]).abs().dropna()
    meet = least[gap.idxmin()] if len(gap) else np.nan
    for panel, columns in ((upper, {"recall": "-", "precision": "--"}), (lower, {"mAP": "-"})):
        panel.axvline(meet, color=GREY, lw=0.8, ls=":")
        _lines(panel, table, "threshold", columns)
    lower.text(meet, 0.02, " where they meet", color=GREY, transform=lower.get_xaxis_transform())
    return figure


@in_style
def lost_ap(tables: Mapping[str, pd.DataFrame]) -> NotebookFigure:
    """Plot what AP is lost to which kind of error, a panel a source, a bar a kind of boxes.

    A table for each kind of boxes, the best last, has a row a source and a column a kind of error.
    """
    if not tables:
        return style.unrun()
    tables = {("GT" if name == "ground-truth" else name): t for name, t in tables.items()}
    sources, kinds = next(iter(tables.values())).axes
    options = {"sharex": True, "sharey": True, "squeeze": False}
    height = 0.8 + len(kinds) * (0.12 + 0.15 * len(tables))
    figure, axes = panels(height, 1, len(sources), **options)
    for panel, source in zip(axes[0], sources, strict=True):
        gains = pd.DataFrame({name: table.loc[source] for name, table in tables.items()})
        _bars(panel, gains, SOURCE_COLORS[source], "{:.1f}", named=len(kinds))
        panel.set_title(source, color=SOURCE_COLORS[source], weight="bold", fontsize=8)
        _name_rows(panel, kinds)
        panel.set_xlabel("mAP@0.5 that mending it brings, points")
        panel.margins(x=0.3)
    return figure


@in_style
def class_frequencies(table: pd.DataFrame) -> NotebookFigure:
    """Plot ``runs.class_statistics``: how long-tailed a file is, and what samplers draw."""
    table = table[table["persons"] > 0]
    rows = range(len(table))
    figure, (left, right) = panels(1.0 + 0.15 * len(table), 1, 2, sharey=True)
    of_action = style.action_colors(LabelMap(table["name"].to_dict()))
    colors = [of_action[action] for action in table.index]
    left.barh(rows, table["persons"], color=colors, alpha=0.8)
    left.set(xscale="log", xlabel="persons with the label")
    left.xaxis.set_major_formatter("{x:,.0f}")
    for place, (name, color) in enumerate({"instance": GREY, "class-balanced": "black"}.items()):
        right.plot(100 * table[name], rows, "o", ms=3, color=color)
        right.text(0.02 + 0.28 * place, 1.01, f"● {name}", transform=right.transAxes, color=color)
    right.set(xscale="log", xlabel="draws that show the class, %")
    right.xaxis.set_major_formatter("{x:g}")
    for axes in (left, right):
        axes.xaxis.set_minor_formatter("")  # else a short range has many, on top of each other
    _name_rows(left, map(style.shortened, table["name"]), colors)
    return figure


def _colors(actions: Iterable[int]) -> list[str]:
    return [COLORS[group(action)] for action in actions]


def _by_frequency(actions: pd.Index, counts: Mapping[int, int], ylabel: str) -> tuple:
    """An empty plot against training instances, and the places and colours of the classes."""
    figure, axes = panels(4.6)
    axes.set(xscale="log", xlabel="training instances of the class", ylabel=ylabel)
    axes.margins(x=0.12, y=0.08)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    style.name_groups(axes)
    return figure, axes, [counts[action] for action in actions], _colors(actions)


def _name_classes(axes: Axes, xs: Sequence[float], ys: pd.Series, spans=None) -> None:
    names, colors = map(short_name, ys.index), _colors(ys.index)
    label_points(axes, np.column_stack([xs, ys]), names, colors, spans)


def _name_rows(axes: Axes, names: Iterable[str], colors: Iterable[str] = ()) -> None:
    """Names at the left of rows, from top to bottom."""
    names = list(names)
    axes.set_yticks(range(len(names)), names)
    for tick, color in zip(axes.get_yticklabels(), colors, strict=False):
        tick.set_color(color)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _bars(axes: Axes, values: pd.DataFrame, colors, text: str, *, named: int, halves=None) -> None:
    """Horizontal bars: a row a row from top to bottom, in it a bar a column, the last the darkest.

    Each carries its value, those of the first ``named`` rows their column's name, too.
    """
    size = 0.8 / len(values.columns)
    for place, name in enumerate(values):
        rows = np.arange(len(values)) - 0.4 + size * (place + 0.5)
        look = {"color": colors, "alpha": 0.25 + 0.6 * (place + 1) / len(values.columns)}
        errors = None if halves is None else halves[name].fillna(0)
        look |= {"xerr": errors, "error_kw": {"ecolor": DARK, "elinewidth": 0.8}}
        bars = axes.barh(rows, values[name], size * 0.92, **look)
        labels = [text.format(value) for value in values[name]]
        labels[:named] = [f"{label}  {name}" for label in labels[:named]]
        axes.bar_label(bars, labels, padding=3, fontsize=6.5)


def _lines(axes: Axes, table: pd.DataFrame, x: str, columns: Mapping[str, str]) -> None:
    """A line a source and column (a dash each), named at its end; around mAP the interval."""
    ends = []
    for column, dash in columns.items():
        for source, group_rows in table.dropna(subset=column).groupby("source", sort=False):
            rows, color = group_rows.sort_values(x), SOURCE_COLORS[source]
            look = {"ls": dash, "marker": "o", "ms": 3.5, "lw": 1.4, "mec": "none"}
            axes.plot(rows[x], rows[column], color=color, **look)
            if column == "mAP":
                axes.fill_between(rows[x], rows["low"], rows["high"], color=color, alpha=0.13, lw=0)
            name = source if len(columns) == 1 else f"{source}: {column}"
            ends.append((rows[x].iloc[-1], rows[column].iloc[-1], name, color))
    if ends:
        _name_ends(axes, ends)
    else:
        axes.text(0.25, 0.5, "not run", color=GREY, ha="center", transform=axes.transAxes)


def _name_ends(axes: Axes, ends: Iterable[tuple[float, float, str, str]]) -> None:
    """Names at the right of lines, pushed up where one would cover the one below."""
    axes.figure.draw_without_rendering()
    free = -np.inf
    for x, y, name, color in sorted(ends, key=lambda end: end[1]):
        height = axes.transData.transform((x, y))[1] * 72 / axes.figure.dpi
        free = max(height, free)
        look = {"textcoords": "offset points", "va": "center", "weight": "bold", "color": color}
        axes.annotate(name, (x, y), (6, free - height), **look)
        free += 9


def label_points(axes: Axes, points: np.ndarray, names, colors, spans=None) -> None:
    """Write each point's name at the nearest free place, or at that which is covered least.

    Crowded points come first. Names keep off the points (n, 2) and their intervals ``spans``
    (``low``, ``high`` along y). Limits and layout must be final.
    """
    points, names = np.asarray(points, float), list(names)
    axes.figure.draw_without_rendering()
    pixel = axes.figure.dpi / 72
    dots = axes.transData.transform(points)
    taken = [np.concatenate([dot - 3 * pixel, dot + 3 * pixel]) for dot in dots]
    if spans is not None and spans.notna().all(axis=None):
        for x, (low, high) in zip(points[:, 0], spans.to_numpy(), strict=True):
            ends = axes.transData.transform([(x, low), (x, high)])
            taken.append((ends + np.array([[-2, 0], [2, 0]])).ravel())
    # Ways round a point, the best first: right and left before above and below; near before far.
    angles = np.array([0, 8, 2, 6, 14, 10, 4, 12, 1, 7, 15, 9, 3, 5, 13, 11]) * np.pi / 8
    ways = np.column_stack([np.cos(angles), np.sin(angles)])
    radii = np.array([5.0, 9, 14, 20, 28, 38, 50, 64])  # points
    distances = np.linalg.norm(dots[:, None] - dots[None], axis=-1)
    crowded = np.sort(distances, axis=1)[:, :4].sum(axis=1)
    for index in np.argsort(crowded, kind="stable"):
        look = {"textcoords": "offset points", "fontsize": 7, "color": colors[index]}
        look |= {"va": "bottom", "path_effects": [withStroke(linewidth=1.8, foreground="white")]}
        text = axes.annotate(names[index], points[index], (0, 0), **look)
        size = np.array(text.get_window_extent().size)
        corners = dots[index] + radii[:, None, None] * pixel * ways + (ways - 1) / 2 * size
        places = np.concatenate([corners, corners + size], axis=-1).reshape(-1, 4)
        inside = _overlaps(places, axes.bbox.extents[None])
        covered = _overlaps(places, np.array(taken)) + 4 * (size.prod() - inside)
        best = int(np.argmin(covered.round(6)))
        taken.append(places[best])
        text.set_position((places[best, :2] - dots[index]) / pixel)
        if radii[best // len(ways)] > 12:  # a thin line leads from a far name to its point
            end = (dots[index].clip(places[best, :2], places[best, 2:]) - dots[index]) / pixel
            line = {"arrowstyle": "-", "lw": 0.5, "alpha": 0.6, "shrinkB": 3}
            line["color"] = colors[index]
            axes.annotate("", points[index], end, textcoords="offset points", arrowprops=line)


def _overlaps(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area of each place (n, 4), x0 y0 x1 y1, that others (m, 4) cover."""
    low = np.maximum(places[:, None, :2], others[None, :, :2])
    high = np.minimum(places[:, None, 2:], others[None, :, 2:])
    return np.prod((high - low).clip(0), axis=-1).sum(axis=1)

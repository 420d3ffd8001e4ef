"""One clip's journey through a trained model: every tensor on the way, drawn.

Legend: B clips, N persons of the clip, M persons in memory, S = N + M, C channels, T time, H, W (of
a person's grid: h, w), L sequences, E attention heads, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch, Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from stadlib.base import InputError, published_dir
from stadlib.data.clips import Batch
from stadlib.data.keyframes import Keyframe
from stadlib.data.labels import LASTING, group
from stadlib.data.video import read_frames
from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import MemoryTokens
from stadlib.recipes.experiment import from_dict
from stadlib.report.frames import (
    draw_mark,
    person_color,
    person_mark,
    plate,
    show_person,
    show_picture,
    view_of,
)
from stadlib.report.style import (
    COLORS,
    GREY,
    GROUP_NAMES,
    WIDTH,
    NotebookFigure,
    in_style,
    panels,
    short_name,
)
from stadlib.study import Record, open_run
from stadlib.training import build, stages

PERSONS = 3  # on the keyframe of "relation": enough for relations, few enough to follow
FRAMES, ACTIONS, SECONDS = 8, 6, 25  # shown at most: of a clip, scores of a person, of memory
HEAT, SIGNED = "magma", "PuOr_r"  # colour-blind-safe; of SIGNED white is zero
BLUE, SAME, OTHER = "#0072B2", "#007A5A", "#E69F00"


class Walk(NamedTuple):
    """What a model with a relation head computes on its way from a clip to scores.

    Attributes:
        map_BCTHW: the backbone's features.
        persons_NCThw: a person's half of the fusion, which RoIAlign cuts out.
        scene_BCThw: the scene's half, averaged down to a person's grid.
        fused_NCThw: both in one.
        attention_NLES: of the head; rows sum to 1.
        scores_NA: in [0, 1].
    """

    map_BCTHW: Tensor
    persons_NCThw: Tensor
    scene_BCThw: Tensor
    fused_NCThw: Tensor
    attention_NLES: Tensor
    scores_NA: Tensor


@torch.inference_mode()
def walk(model: ActionDetector, batch: Batch, memory: MemoryTokens) -> Walk:
    """Run a model once, in evaluation mode, and keep what its parts return, on the CPU."""
    kept: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda part, inputs, output: kept.update({name: output.cpu()})

    def keep_attention(attention, inputs, output):
        kept["attention_NLES"] = attention.weights(*inputs).cpu()

    parts = {
        "map_BCTHW": model.backbone,
        "persons_NCThw": model.roi,
        "scene_BCThw": model.fusion.scene,
        "fused_NCThw": model.fusion,
    }
    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    hooks.append(model.head.attention.register_forward_hook(keep_attention))
    device = next(model.parameters()).device
    batch, memory = batch.to(device), memory.to(device)
    inputs = (batch.clips_BCTHW, batch.boxes_N4, batch.counts_B, batch.boxes_norm_N4)
    logits_NA, _ = model.eval()(*inputs, memory)
    for hook in hooks:
        hook.remove()
    return Walk(**kept, scores_NA=logits_NA.sigmoid().cpu())


@dataclass(frozen=True, eq=False)
class Journey:
    """A clip of T frames with N persons, its memory, and what the model made of them.

    Attributes:
        title: says which keyframe it is.
        times: (T,) seconds of the frames from the keyframe.
        frames: (T, H, W, 3) uint8, as the model sees them.
        boxes: (N, 4), x1 y1 x2 y2 as fractions of those frames.
        ids: action ids, the columns of ``actions`` and of the scores.
        actions: (N, A) bool, the annotated ones.
        person: the one whose attention is followed, a place among the N.
        walk: every step's tensor.
        memory: M persons.
        same_S: (N + M,) bool, whether it is that person, by the annotations.
        pictures: (H, W, 3) of every second that is remembered, relative to the keyframe, and of 0.
    """

    title: str
    times: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    ids: tuple[int, ...]
    actions: np.ndarray
    person: int
    walk: Walk
    memory: MemoryTokens
    same_S: np.ndarray
    pictures: dict[int, np.ndarray]

    @property
    def now(self) -> int:
        """Place of the keyframe among the frames."""
        return len(self.frames) // 2

    @property
    def attention(self) -> np.ndarray:
        """(N, N + M) how much a person attends to whom, mean over sequences and heads."""
        return self.walk.attention_NLES.mean(dim=(1, 2)).numpy()

    def truth(self, person: int) -> list[int]:
        """Ids of what a person does, by the annotations."""
        return [action for action, does in zip(self.ids, self.actions[person], strict=True) if does]


def journey(record: Record, shows: Literal["relation", "lasting"] = "relation") -> Journey:
    """Take one validation clip through a run's model.

    Which one does not depend on scores: the middle keyframe of the first movie that fits.

    Args:
        record: of a run with a relation head and memory, on this machine.
        shows: ``relation``: three persons, two or more of whom act on others (AVA's person-person
            group); ``lasting``: two persons or more, one of whom does what lasts
            (``labels.LASTING``). The first such person is the one that is followed.

    Raises:
        InputError: the run is another one, or no movie fits.
    """
    experiment = from_dict(record.experiment)
    if record.folder is None or not experiment.stages[-1].memory or experiment.head == "linear":
        raise InputError(f"record {record.digest}: give a run with memory that is on this machine")
    run = open_run(record)
    layout, ids = run.layout, run.layout.label_map().ids
    keyframes = stages.annotated(layout, ["ava"], "val")
    keyframe, person = _first(keyframes, ids, shows)
    # The clip in one plain view, and memory out of the bank of the validation split.
    view = [build.plain_view(experiment)]
    ((batch,),) = build.test_batches(experiment, layout, [keyframe], view)
    model = stages.trained_model(run)
    bank = run.banks(len(experiment.stages)).seconds(model, "ava", "val")
    remember = stages.remember_from(run, {"ava": bank})
    memory = remember([("ava", keyframe.video, keyframe.timestamp)])
    # A picture of every second that is in memory, and who is the followed person in it.
    seconds = sorted({0, *memory.seconds_BM[0].tolist()})
    now = keyframe.timestamp - layout.video_start("ava", keyframe.video)
    pictures = read_frames(layout.video_file("ava", keyframe.video), [now + s for s in seconds])
    others = {k.timestamp - keyframe.timestamp: k for k in keyframes if k.video == keyframe.video}
    same = [
        _is_person(others.get(second), box, keyframe.person_ids[person])
        for second, box in zip(memory.seconds_BM[0].tolist(), memory.boxes_BM4[0], strict=True)
    ]
    return Journey(
        title=f"ava: {keyframe.video}, {keyframe.timestamp:g} s",
        times=np.array(build.sampling(experiment).times(0.0)),
        frames=batch.clips_BCTHW[0].permute(1, 2, 3, 0).numpy(),
        boxes=batch.boxes_N4.numpy() / np.tile(batch.clips_BCTHW.shape[:2:-1], 2),
        ids=ids,
        actions=keyframe.actions,
        person=person,
        walk=walk(model, batch, memory),
        memory=memory,
        same_S=np.array([*(np.arange(len(keyframe.boxes)) == person), *same]),
        pictures={s: f.permute(1, 2, 0).numpy() for s, f in zip(seconds, pictures, strict=True)},
    )


def _first(keyframes: Sequence[Keyframe], ids: Sequence[int], shows: str) -> tuple[Keyframe, int]:
    """The middle keyframe of the first movie that fits, and its first person that does."""
    videos: dict[str, list[Keyframe]] = {}
    for keyframe in keyframes:
        videos.setdefault(keyframe.video, []).append(keyframe)
    relation = shows == "relation"
    wanted = [group(action) == "person" if relation else action in LASTING for action in ids]
    for those in videos.values():
        middle = those[len(those) // 2]
        able, count = np.flatnonzero(middle.actions[:, wanted].any(axis=1)), len(middle.boxes)
        if (count == PERSONS and len(able) > 1) if relation else (count > 1 and len(able)):
            return middle, int(able[0])
    persons = f"{PERSONS} persons, two of whom act on others" if relation else "two persons"
    raise InputError(f"no validation movie whose middle keyframe shows {persons}; add one")


def _is_person(keyframe: Keyframe | None, box: Tensor, person_id: int) -> bool:
    """Whether a box is that person's on its keyframe; an unannotated second tells nothing."""
    own = keyframe.boxes[keyframe.person_ids == person_id] if keyframe else np.empty((0, 4))
    return len(own) > 0 and bool(np.abs(own[0] - box.numpy()).max() < 1e-4)


def overview():
    """The system in one figure, as README shows it (``results/pipeline.svg``)."""
    from IPython.display import SVG  # noqa: PLC0415

    return SVG(filename=published_dir("pipeline.svg"))


@in_style
def clip(journey: Journey) -> NotebookFigure:
    """Show the frames of the clip, and its keyframe with the persons and what they do."""
    step = max(1, len(journey.frames) // FRAMES)
    shown = list(range(journey.now % step, len(journey.frames), step))[:FRAMES]
    shown += ["."] * (-len(shown) % 4)
    rows = [shown[first : first + 4] for first in range(0, len(shown), 4)]
    rows += 2 * [["boxes", "boxes", "persons", "persons"]]
    shape = journey.frames.shape[2] / journey.frames.shape[1]
    size = (WIDTH, len(rows) * (WIDTH / 4 / shape + 0.12) + 0.5)
    figure, axes = plt.subplot_mosaic(rows, FigureClass=NotebookFigure, figsize=size)
    for number, panel in axes.items():
        if isinstance(number, int):
            show_picture(panel, journey.frames[number])
            words = _seconds(journey.times[number]) + ": the keyframe" * (number == journey.now)
            _title(panel, words, number == journey.now)
    show_picture(axes["boxes"], journey.frames[journey.now])
    _name(axes["boxes"], "boxes", journey.boxes.shape, "persons × corners")
    axes["persons"].axis("off")
    for person, box in enumerate(journey.boxes):
        draw_mark(axes["boxes"], person_mark(person, box))
        x1, y1, x2, y2 = box * np.tile(journey.frames.shape[2:0:-1], 2)
        corner, y = (0.03, 0.9 - 0.2 * person), 0.9 - 0.2 * person
        plate(axes["persons"], str(person + 1), person_color(person), corner, offset=(0, 0))
        words = ", ".join(map(short_name, journey.truth(person))) or "no action"
        axes["persons"].text(0.11, y, words, fontsize=9)
        words = f"x {x1:.0f} to {x2:.0f}, y {y1:.0f} to {y2:.0f} pixels"
        axes["persons"].text(0.11, y - 0.075, words, fontsize=7, color=GREY)
    _head(figure, "clip", journey.frames.shape, "frames × height × width × colours")
    return figure


@in_style
def feature_map(journey: Journey) -> NotebookFigure:
    """Show where the backbone's map is strong at every moment, and as many of its channels."""
    map_CTHW = journey.walk.map_BCTHW[0].numpy()
    frames = np.array_split(np.arange(len(journey.frames)), map_CTHW.shape[1])
    moment = _moment(journey)
    shape = journey.frames.shape[2] / journey.frames.shape[1]
    figure, axes = panels(2 * (WIDTH / len(frames) / shape + 0.1) + 0.4, 2, len(frames))
    style = {"cmap": HEAT, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    style |= {"extent": (0, 1, 1, 0), "aspect": "auto"}
    for step, strong_HW in enumerate(_strength(map_CTHW, 0)):
        show_picture(axes[0, step], journey.frames[frames[step]].mean(axis=0) / 255)
        axes[0, step].imshow(strong_HW, alpha=0.6, **style)
        first, last = journey.times[frames[step][[0, -1]]]
        _title(axes[0, step], f"{_seconds(first)} to {_seconds(last)}", step == moment)
    liveliest = np.argsort(-map_CTHW.std(axis=(1, 2, 3)), kind="stable")
    for panel, channel in zip(axes[1], liveliest, strict=False):
        show_picture(panel, journey.frames[journey.now])
        panel.imshow(map_CTHW[channel, moment] / map_CTHW[channel].max(), **style)
        _title(panel, f"channel {channel}")
    for panel in axes.flat:
        for person, (x1, y1, x2, y2) in enumerate(journey.boxes):
            panel.add_patch(
                Rectangle((x1, y1), x2 - x1, y2 - y1, ec=person_color(person), fill=False)
            )
    axes[0, 0].set_ylabel("all channels,\nbright is strong", fontsize=7)
    axes[1, 0].set_ylabel("the channels\nthat vary most", fontsize=7)
    _head(figure, "feature map", map_CTHW.shape, "channels × moments × rows × columns")
    return figure


@in_style
def persons(journey: Journey) -> NotebookFigure:
    """Show each person's features over time, and how the scene is fused with them."""
    steps = journey.walk
    parts = (steps.persons_NCThw, steps.scene_BCThw.expand(steps.fused_NCThw.shape), steps[3])
    strong_NThw = _strength(steps.persons_NCThw.numpy(), 1)
    N, T = strong_NThw.shape[:2]
    figure, axes = panels(0.6 + N * 0.85, N, 3, width_ratios=(0.8, 0.75 * T, 2.7))
    for person, (portrait, places, channels) in enumerate(axes):
        _portrait(portrait, journey, person)
        _heat(places, _side_by_side(strong_NThw[person]))
        lines = np.stack([part[person].mean(dim=(1, 2, 3)).numpy() for part in parts])
        _heat(channels, lines / np.abs(lines).max(axis=1, keepdims=True), -1, SIGNED)
        channels.hlines((0.5, 1.5), *channels.get_xlim(), color="white", lw=4)
        channels.set_yticks((0, 1, 2), ("person", "+ scene", "→ fused"))
        channels.tick_params(length=0)
        channels.grid(visible=False)
    _title(axes[0, 1], "strength of all channels, moment by moment")
    _title(axes[0, 2], f"the {lines.shape[1]} channels (orange above, purple below zero)")
    counts = "persons × channels × moments × rows × columns"
    _head(figure, "person features", steps.persons_NCThw.shape, counts)
    return figure


@in_style
def sequences(journey: Journey) -> NotebookFigure:
    """Show which tokens s-only and t-only make of the fused features, and what a sequence is."""
    fused_NCThw = journey.walk.fused_NCThw
    s_only_NLC = fused_NCThw.mean(dim=2).flatten(2).transpose(1, 2)  # L = h * w
    t_only_NLC = fused_NCThw.mean(dim=(3, 4)).transpose(1, 2)  # L = T
    N, _, T, h, w = fused_NCThw.shape
    strong_NThw = _strength(fused_NCThw.numpy(), 1)
    places_Nhw = _strength(s_only_NLC.numpy(), 2).reshape(N, h, w)
    moments_NT = _strength(t_only_NLC.numpy(), 2)
    figure, axes = panels(0.9 + N * 0.8, N, 4, width_ratios=(0.8, 2, 1.6, 1.6))
    for person, (portrait, fused, s_only, t_only) in enumerate(axes):
        _portrait(portrait, journey, person)
        _heat(fused, _side_by_side(strong_NThw[person]))
        _heat(s_only, places_Nhw[person])
        _heat(t_only, moments_NT[person][None])
        for panel, shape in ((portrait, 1), (fused, 1 / T), (s_only, 1), (t_only, 1 / T)):
            panel.set(box_aspect=shape, anchor="NW")
    _name(axes[0, 1], "fused", fused_NCThw.shape, f"{T} moments of {h} × {w} places")
    _name(axes[0, 2], "S-only", s_only_NLC.shape, f"{h * w} places, mean over time")
    _name(axes[0, 3], "T-only", t_only_NLC.shape, f"{T} moments, mean over places")
    _sequence(axes[:, 2], (w // 2, h // 2), "one sequence: one place")
    _sequence(axes[:, 3], (_moment(journey), 0), "one sequence: one moment")
    return figure


def _sequence(column: Sequence[Axes], token: tuple[float, float], words: str) -> None:
    """A line through the tokens of a sequence, one a person, and what it is below."""
    for color, width in (("black", 3.6), ("#56B4E9", 2)):
        ends = {"coordsA": column[0].transData, "coordsB": column[-1].transData}
        line = ConnectionPatch(token, token, **ends, color=color, lw=width)
        column[0].figure.add_artist(line)
        for axes in column:
            axes.plot(*token, "o", color=color, ms=2 + width)
    column[-1].set_xlabel(words, color=BLUE, weight="bold")


@in_style
def attention(journey: Journey) -> NotebookFigure:
    """Show in the picture how much each person attends to whom: one panel a person."""
    N, shares = len(journey.boxes), 100 * journey.attention
    shape = journey.frames.shape[2] / journey.frames.shape[1]
    figure, axes = panels(WIDTH / N / shape + 1.0, 1, N, squeeze=False)
    middles = journey.boxes.reshape(-1, 2, 2).mean(axis=1)
    style = {"textcoords": "offset points", "ha": "center", "va": "bottom", "weight": "bold"}
    style["path_effects"] = [withStroke(linewidth=2, foreground="white")]
    for person, panel in enumerate(axes[0]):
        show_picture(panel, 0.45 + 0.55 * journey.frames[journey.now] / 255)
        panel.set_title(
            f"person {person + 1} looks at", loc="left", weight="bold", pad=24, fontsize=8
        )
        for other, (x1, y1, x2, _) in enumerate(journey.boxes):
            draw_mark(panel, person_mark(other, journey.boxes[other]))
            words = "itself\n" * (other == person) + f"{shares[person, other]:.0f} %"
            panel.annotate(words, (np.clip((x1 + x2) / 2, 0.09, 0.91), y1), (0, 2), **style)
            if other != person:  # an arc as thick as the share
                bow = -0.35 * np.sign(middles[other, 0] - middles[person, 0])
                arc = {"arrowstyle": "-", "connectionstyle": f"arc3,rad={bow}", "shrinkA": 0}
                arc |= {"shrinkB": 0, "color": person_color(person)}
                arc["lw"] = 0.25 * shares[person, other]
                panel.annotate("", middles[other], middles[person], arrowprops=arc)
        past = f"at the {shares.shape[1] - N} in memory: {shares[person, N:].sum():.0f} %"
        panel.set_xlabel(past, color=GREY, loc="left")
    counts = "persons × sequences × attention heads × persons looked at"
    _head(figure, "attention", journey.walk.attention_NLES.shape, counts)
    return figure


@in_style
def attention_timeline(journey: Journey) -> NotebookFigure:
    """Show who is in memory, second by second, and where the followed person's attention goes."""
    person, memory = journey.person, journey.memory
    shares_S = 100 * journey.attention[person]
    seconds_S = np.array([0] * len(journey.boxes) + memory.seconds_BM[0].tolist())
    boxes_S4 = np.concatenate([journey.boxes, memory.boxes_BM4[0].numpy()])
    first, last = int(seconds_S.min()), int(seconds_S.max())
    step = -(-(last - first + 1) // SECONDS)
    shown = range(first + -first % step, last + 1, step)
    most = max(int((seconds_S == second).sum()) for second in shown)
    figure, (above, below) = panels(
        0.62 * most + 1.9, 2, sharex=True, height_ratios=(0.62 * most, 1.1)
    )
    # Above a person a tile: its line is green or orange, and as thick as the attention.
    tile = (0.86 * step, 0.9)
    shape = tile[0] / tile[1] * (WIDTH - 0.7) / (last - first + step) / 0.62
    for second in shown:
        for row, place in enumerate(np.flatnonzero(seconds_S == second)):
            corner = (second - tile[0] / 2, row + 0.05)
            picture = journey.pictures[second]
            left, top, width, height = view_of(picture, boxes_S4[place], shape)
            x, y = tile[0] / width, tile[1] / height
            ends = (corner[0] - left * x, corner[0] + (1 - left) * x)
            ends += (corner[1] + (1 - top) * y, corner[1] - top * y)
            color = SAME if journey.same_S[place] else OTHER
            line = 0.5 + 3 * shares_S[place] / shares_S.max()
            above.add_patch(Rectangle(corner, *tile, color="#EEEEEE", lw=0, zorder=-1))
            image = above.imshow(picture, extent=ends, aspect="auto", interpolation="nearest")
            image.set_clip_path(Rectangle(corner, *tile, transform=above.transData))
            above.add_patch(Rectangle(corner, *tile, fill=False, ec=color, lw=line, zorder=2))
    above.set(ylim=(most, 0), yticks=[])
    above.tick_params(length=0)
    above.grid(visible=False)
    above.spines[:].set_visible(False)
    does = ", ".join(map(short_name, journey.truth(person)))
    _title(above, f"person {person + 1} of {journey.title}, who does: {does}")
    # Below a bar a second: attention to the person itself, on it that to others.
    seconds = np.unique(seconds_S)
    own = np.array([shares_S[(seconds_S == s) & journey.same_S].sum() for s in seconds])
    total = np.array([shares_S[seconds_S == s].sum() for s in seconds])
    below.bar(seconds, own, 0.7, color=SAME)
    bars = below.bar(seconds, total - own, 0.7, bottom=own, color=OTHER)
    labels = [f"{value:.0f}" if value >= 0.1 * total.max() else "" for value in total]
    below.bar_label(bars, labels, fontsize=7)
    words = {"others": OTHER, "the person itself": SAME}
    for place, (name, color) in enumerate(words.items()):
        share = own.sum() if color == SAME else 100 - own.sum()
        style = {"ha": "right", "weight": "bold", "transform": below.transAxes}
        below.text(1, 0.85 - 0.2 * place, f"{name} {share:.0f} %", color=color, **style)
    ticks = [f"{second:+d}" if second else "now" for second in shown]
    below.set_xticks(shown, ticks, fontsize=7)
    below.set(xlabel="seconds from the keyframe", ylabel="attention, %")
    below.set(xlim=(first - 0.6 * step, last + 0.6 * step), ylim=(0, 1.15 * total.max()))
    below.grid(visible=False, axis="x")
    counts = "persons in memory × sequences × channels"
    _head(figure, "memory", memory.tokens_BMLC.shape[1:], counts)
    return figure


@in_style
def scores(journey: Journey) -> NotebookFigure:
    """Show the highest scores of every person; what the annotations say too is bold."""
    N = len(journey.boxes)
    figure, axes = panels(3.2, 2, N, squeeze=False, height_ratios=(0.8, 2))
    for person in range(N):
        portrait, bars = axes[:, person]
        _portrait(portrait, journey, person, grid=False)
        portrait.set_anchor("W")
        truth = ",\n".join(map(short_name, journey.truth(person))) or "no action"
        style = {"transform": portrait.transAxes, "va": "top", "in_layout": False}
        portrait.text(1.1, 1, "annotated:", fontsize=7, color=GREY, **style)
        portrait.text(1.1, 0.8, truth, weight="bold", **style)
        scores_A = journey.walk.scores_NA[person].numpy()
        for place, column in enumerate(np.argsort(-scores_A, kind="stable")[:ACTIONS]):
            action, true = journey.ids[column], bool(journey.actions[person, column])
            bars.barh(place + 0.2, scores_A[column], 0.3, color=COLORS[group(action)])
            words = f"{short_name(action)} {scores_A[column]:.2f}" + " ✓" * true
            look = {"weight": "bold"} if true else {"color": GREY}
            bars.annotate(words, (0, place), (3, 1), textcoords="offset points", **look)
        bars.set(xlim=(0, 1), ylim=(ACTIONS - 0.5, -0.5), xticks=[], yticks=[])
        bars.spines[["bottom"]].set_visible(False)
    for place, (name, color) in zip((0.66, 0.72, 0.86), COLORS.items(), strict=True):
        figure.text(place, 0.99, GROUP_NAMES[name], color=color, weight="bold", va="top")
    _head(figure, "scores", journey.walk.scores_NA.shape, "persons × actions; a full bar is 1")
    return figure


def _portrait(axes: Axes, journey: Journey, person: int, grid: bool = True) -> None:
    """A person on the keyframe, with the grid that RoIAlign lays into the box."""
    x1, y1, x2, y2 = journey.boxes[person]
    show_person(axes, journey.frames[journey.now], journey.boxes[person])
    rows, columns = journey.walk.fused_NCThw.shape[3:]
    style = {"colors": person_color(person), "lw": 0.8}
    if grid:
        axes.hlines(np.linspace(y1, y2, rows + 1), x1, x2, **style)
        axes.vlines(np.linspace(x1, x2, columns + 1), y1, y2, **style)
    plate(
        axes, str(person + 1), person_color(person), (0, 1), offset=(2, -8), coords="axes fraction"
    )


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


def _moment(journey: Journey) -> int:
    """The step in time of the features that the keyframe belongs to."""
    return journey.now * journey.walk.map_BCTHW.shape[2] // len(journey.frames)


def _head(figure: NotebookFigure, name: str, shape: Sequence[int], counts: str) -> None:
    """A tensor's name and shape above a figure, and what the numbers of the shape count."""
    words = f"{name}: {' × '.join(map(str, shape))}"
    title = figure.suptitle(words, x=0.008, ha="left", weight="bold", fontsize=9)
    style = {"xycoords": title, "textcoords": "offset points", "color": GREY, "in_layout": False}
    figure.get_layout_engine().set(h_pad=0.06)
    figure.axes[0].annotate(counts, (1, 0), (8, 1), **style)


def _name(axes: Axes, name: str, shape: Sequence[int], counts: str) -> None:
    """The same above a panel, in two lines."""
    _title(axes, counts)
    words = f"{name}: {' × '.join(map(str, shape))}"
    style = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 9}
    axes.annotate(words, (0, 1), (0, 13), weight="bold", **style)


def _title(axes: Axes, words: str, strong: bool = False) -> None:
    style = {"color": BLUE, "weight": "bold"} if strong else {"color": GREY}
    axes.set_title(words, fontsize=7, loc="left", pad=2, **style)


def _seconds(time: float) -> str:
    return f"{time:+.2f} s" if abs(time) > 1e-6 else "0 s"

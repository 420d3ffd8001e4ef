"""One clip's journey through a trained model, for notebook 00: pictures, boxes, every tensor.

torch is imported only when a journey is made.

The model's forward pass one step after the other, every tensor kept.

Legend: B clips, N persons of the batch, M remembered, S = P + M, C channels, T time, H, W (of a
person's grid: h, w), L sequences, E attention heads, A actions.

Figures of one clip's journey: frames, boxes, features, sequences. All show real tensors.

Figures of one clip's journey: who looks at whom, whom the clip remembers, what comes out.

What one person's memory looks at: the attention of a trained head, second by second.

torch is imported only when a head is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from torch import Tensor
from torch.nn import functional as F

from stadlib.base import InputError, Progress
from stadlib.data.clips import Batch
from stadlib.data.labels import LASTING, group
from stadlib.models.action_detector import ActionDetector
from stadlib.models.heads import MemoryTokens, RelationHead
from stadlib.recipes.experiment import from_dict
from stadlib.report.frames import (
    HEAT,
    INNER,
    Sheet,
    heat,
    mark_person,
    person_color,
    sheet,
    show_person,
    show_picture,
    strength,
    tag_person,
)
from stadlib.report.style import COLORS, GREY, GROUP_NAMES, NotebookFigure, short_name
from stadlib.study import Record
from stadlib.training.build import AVERAGED

if TYPE_CHECKING:
    from stadlib.data.keyframes import Keyframe
    from stadlib.training.stages import Run

PERSONS = 3  # on the keyframe: enough for relations, few enough to follow


@dataclass(frozen=True, eq=False)
class Journey:
    """A clip of T frames with N persons, and what the model made of them.

    Attributes:
        title: says which keyframe it is.
        times: (T,) seconds of the frames from the keyframe.
        frames: (T, H, W, 3) uint8, as the model sees them.
        boxes: (N, 4), x1 y1 x2 y2 as fractions of those frames.
        ids: action ids, the columns of ``actions`` and of the scores.
        actions: (N, A) bool, the annotated ones.
        walk: every step's tensor.
        memory: whom the clip remembers, M persons.
        recalled: a picture (H, W, 3) of every second that is remembered, relative to the keyframe.
    """

    title: str
    times: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    ids: tuple[int, ...]
    actions: np.ndarray
    walk: Walk
    memory: MemoryTokens
    recalled: dict[int, np.ndarray]

    @property
    def now(self) -> int:
        """Place of the keyframe among the frames."""
        return len(self.frames) // 2

    @property
    def attention(self) -> np.ndarray:
        """(N, N + M) how much a person looks at whom, mean over sequences and attention heads."""
        return self.walk.attention_NLES.mean(dim=(1, 2)).numpy()

    @property
    def related(self) -> int:
        """Place of the first person that acts on another."""
        return int(np.flatnonzero(_acts_on_others(self.actions, self.ids))[0])

    def truth(self, person: int) -> list[int]:
        """Ids of what a person does, by the annotations."""
        return [action for action, does in zip(self.ids, self.actions[person], strict=True) if does]


def journey(record: Record) -> Journey:
    """Take one validation clip through a run's model.

    Which one does not depend on scores: it is around the middle keyframe of the first movie on
    which three persons are and two or more of them act on others (AVA's person-person group).

    Raises:
        InputError: the run is not on this machine, has no relation head or remembers nothing, or no
            movie is like that.
    """
    from stadlib.data.keyframes import read_keyframes  # noqa: PLC0415
    from stadlib.training import build, stages  # noqa: PLC0415  (torch)

    experiment = from_dict(record.experiment)
    if record.folder is None or not experiment.stages[-1].memory or experiment.head == "linear":
        raise InputError(f"record {record.digest}: give a run with memory that is on this machine")
    run = stages.open_run(experiment, record.folder, Progress)
    ids = run.layout.label_map().ids
    keyframe = _chosen(read_keyframes(run.layout, "ava", "val"), ids)
    view = [build.plain_view(experiment)]
    ((batch,),) = build.test_batches(experiment, run.layout, [keyframe], view)
    model = stages.trained_model(run)
    memory = _memory(run, model, keyframe)
    return Journey(
        title=f"ava: {keyframe.video}, {keyframe.timestamp:g} s",
        times=np.array(build.sampling(experiment).times(0.0)),
        frames=batch.clips_BCTHW[0].permute(1, 2, 3, 0).numpy(),
        boxes=batch.boxes_N4.numpy() / np.tile(batch.clips_BCTHW.shape[:2:-1], 2),
        ids=ids,
        actions=keyframe.actions,
        walk=walk(model, batch, memory),
        memory=memory,
        recalled=_pictures(run, keyframe, sorted(set(memory.seconds_BM[0].tolist()))),
    )


def _chosen(keyframes: list[Keyframe], ids: tuple[int, ...]) -> Keyframe:
    """The middle keyframe of the first movie like that."""
    videos: dict[str, list[Keyframe]] = {}
    for keyframe in keyframes:
        videos.setdefault(keyframe.video, []).append(keyframe)
    for those in videos.values():
        middle = those[len(those) // 2]
        if len(middle.boxes) == PERSONS and _acts_on_others(middle.actions, ids).sum() > 1:
            return middle
    raise InputError(
        f"no validation movie whose middle keyframe shows {PERSONS} persons, two of whom act on "
        "others; add one"
    )


def _acts_on_others(actions: np.ndarray, ids: tuple[int, ...]) -> np.ndarray:
    """(N,) whether a person's actions are of AVA's person-person group."""
    return actions[:, [group(action) == "person" for action in ids]].any(axis=1)


def _memory(run: Run, model, keyframe: Keyframe) -> MemoryTokens:
    """Whom the keyframe remembers out of the bank of the validation split."""
    from stadlib.models.heads import no_memory  # noqa: PLC0415
    from stadlib.training.bank import windows  # noqa: PLC0415  (torch)

    experiment = run.experiment
    bank = run.banks(len(experiment.stages)).seconds(model, keyframe.source, "val")
    keys = [(keyframe.source, keyframe.video, keyframe.timestamp)]
    empty = no_memory(1, bank.width)
    return windows({keyframe.source: bank}, keys, experiment.span, experiment.remembered, empty)


def _pictures(run: Run, keyframe: Keyframe, seconds: list[int]) -> dict[int, np.ndarray]:
    """A picture of some seconds relative to the keyframe."""
    from stadlib.data.video import read_frames  # noqa: PLC0415  (torch)

    layout = run.layout
    now = keyframe.timestamp - layout.video_start(keyframe.source, keyframe.video)
    path = layout.video_file(keyframe.source, keyframe.video)
    frames = read_frames(path, [now + second for second in seconds]) if seconds else []
    return {s: f.permute(1, 2, 0).numpy() for s, f in zip(seconds, frames, strict=True)}


class Walk(NamedTuple):
    """What a model with a relation head computes on its way from a clip to scores.

    Attributes:
        map_BCTHW: the backbone's features.
        persons_NCThw: cut out of the projected map by RoIAlign: a person's half of the fusion.
        scene_BCThw: the scene's half, averaged down to a person's grid.
        fused_NCThw: both in one.
        s_only_NLC: the fused features as s-only's sequences read them, L = h*w.
        t_only_NLC: the same for t-only, L = T.
        attention_NLES: of the model's own head; rows sum to 1.
        scores_NA: in [0, 1].
    """

    map_BCTHW: Tensor
    persons_NCThw: Tensor
    scene_BCThw: Tensor
    fused_NCThw: Tensor
    s_only_NLC: Tensor
    t_only_NLC: Tensor
    attention_NLES: Tensor
    scores_NA: Tensor


@torch.inference_mode()
def walk(model: ActionDetector, batch: Batch, memory: MemoryTokens) -> Walk:
    """Run a model step by step; the scores are those of its ``forward``.

    Args:
        model: its head must be a relation head; set to evaluation mode here.
        batch: clips and persons.
        memory: what the clips remember.

    Returns:
        Every step's tensor, on the CPU.
    """
    model.eval()
    where = next(model.parameters()).device
    batch, memory = batch.to(where), memory.to(where)
    fusion, head, counts_B = model.fusion, model.head, batch.counts_B
    map_BCTHW = model.backbone(model.normalize(batch.clips_BCTHW))
    persons_NCThw = model.roi(fusion.project(map_BCTHW), batch.boxes_N4, counts_B)
    grid = persons_NCThw.shape[2:]
    fused_NCThw = fusion(persons_NCThw, map_BCTHW, counts_B)
    inputs = (head.tokens(fused_NCThw), batch.boxes_norm_N4, counts_B, memory)
    found = Walk(
        map_BCTHW=map_BCTHW,
        persons_NCThw=persons_NCThw,
        scene_BCThw=fusion.scene(F.adaptive_avg_pool3d(map_BCTHW, grid)),
        fused_NCThw=fused_NCThw,
        s_only_NLC=_tokens("s-only", fused_NCThw),
        t_only_NLC=_tokens("t-only", fused_NCThw),
        attention_NLES=head.attention_weights(*inputs),
        scores_NA=head(*inputs).sigmoid(),
    )
    return Walk(*(tensor.cpu() for tensor in found))


def _tokens(head: str, fused_NCThw: Tensor) -> Tensor:
    """The sequences of a head by its word, whichever the model has; they need no weights."""
    width = fused_NCThw.shape[1]
    return RelationHead(width, 1, AVERAGED[head], num_heads=1).tokens(fused_NCThw)


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


@dataclass(frozen=True)
class Recollection:
    """A person on a keyframe, and how much it looks at whom and when.

    Attributes:
        title: says which keyframe it is.
        actions: ids of what the person does.
        seconds: (K,) of the pictures, relative to the keyframe, ascending; 0 is the keyframe.
        frames: K pictures, (H, W, 3) uint8.
        boxes: of each picture, (n, 4) in [0, 1].
        weights: of each picture, (n,), shares of the attention; all of them sum to 1.
        same: of each picture, (n,) whether a box is the person's own.
        present: place of the person among the boxes of the keyframe.
    """

    title: str
    actions: tuple[int, ...]
    seconds: np.ndarray
    frames: list[np.ndarray]
    boxes: list[np.ndarray]
    weights: list[np.ndarray]
    same: list[np.ndarray]
    present: int


def recollection(record: Record, skip: int = 0) -> Recollection:
    """Return what a run's head looks at in a validation movie.

    Which one does not depend on scores or attention: the middle keyframe of the first movie, after
    ``skip`` others, on which somebody of two or more does what lasts (``labels.LASTING``).

    Raises:
        InputError: the run is not on this machine, remembers nothing, or no movie is like that.
    """
    from stadlib.data.video import read_frames  # noqa: PLC0415
    from stadlib.training import stages  # noqa: PLC0415  (torch)

    experiment = from_dict(record.experiment)
    if record.folder is None or not experiment.stages[-1].memory:
        raise InputError(f"record {record.digest}: give a run with memory that is on this machine")
    run = stages.open_run(experiment, record.folder, Progress)
    layout = run.layout
    ids = np.array(layout.label_map().ids)
    keyframes = stages.annotated(layout, ["ava"], "val")
    keyframe, person = _chosen_person(keyframes, ids, skip)
    memory, weights = _attention(run, keyframe, person)
    known = {round(k.timestamp): k for k in keyframes if k.video == keyframe.video}
    path = layout.video_file("ava", keyframe.video)
    start = layout.video_start("ava", keyframe.video)
    seconds = sorted({0, *memory.seconds_BM[0].tolist()})
    here = keyframe.boxes
    found = {"boxes": [], "weights": [], "same": []}
    for second in seconds:
        mine = memory.seconds_BM[0].numpy() == second
        boxes = memory.boxes_BM4[0].numpy()[mine] if second else here
        shares = weights[len(here) :][mine] if second else weights[: len(here)]
        found["boxes"].append(boxes)
        found["weights"].append(shares)
        there = known.get(round(keyframe.timestamp) + second)
        found["same"].append(_same(there, boxes, keyframe.person_ids[person]))
    times = [keyframe.timestamp - start + second for second in seconds]
    frames = [frame.permute(1, 2, 0).numpy() for frame in read_frames(path, times)]
    return Recollection(
        title=f"ava: {keyframe.video}, {keyframe.timestamp:g} s",
        actions=tuple(ids[keyframe.actions[person]].tolist()),
        seconds=np.array(seconds),
        frames=frames,
        present=person,
        **found,
    )


def _chosen_person(keyframes: list, ids: np.ndarray, skip: int) -> tuple:
    """A keyframe, and its first person that does what lasts."""
    videos: dict[str, list] = {}
    for keyframe in keyframes:
        videos.setdefault(keyframe.video, []).append(keyframe)
    for those in videos.values():
        middle = those[len(those) // 2]
        lasting = np.isin(ids, list(LASTING))
        able = np.flatnonzero((middle.actions & lasting).any(axis=1))
        if len(middle.boxes) > 1 and len(able):
            if not skip:
                return middle, int(able[0])
            skip -= 1
    raise InputError("no further validation movie with two persons and an action that lasts")


def _attention(run, keyframe, person: int) -> tuple:
    """What the keyframe remembers, and one person's mean attention over sequences and heads."""
    import torch  # noqa: PLC0415

    from stadlib.models.heads import no_memory  # noqa: PLC0415
    from stadlib.training import stages  # noqa: PLC0415
    from stadlib.training.bank import windows  # noqa: PLC0415
    from stadlib.training.memory import feature_batch, second_key  # noqa: PLC0415

    experiment = run.experiment
    model = stages.trained_model(run)
    bank = run.banks(len(experiment.stages)).seconds(model, "ava", "val")
    keys = [(keyframe.source, keyframe.video, keyframe.timestamp)]
    empty = no_memory(1, bank.width)
    past = windows({"ava": bank}, keys, experiment.span, experiment.remembered, empty)
    batch = feature_batch([keyframe], {"ava": bank}, past, second_key)
    with torch.inference_mode():
        attention = model.head.eval().attention_weights(
            batch.tokens_NLC, batch.boxes_N4, batch.counts_B, past
        )
    return past, attention[person].mean(dim=(0, 1)).numpy()


def _same(keyframe, boxes: np.ndarray, person_id: int) -> np.ndarray:
    """(n,) whether a box is that person's, by the annotations; unannotated seconds tell nothing."""
    if keyframe is None:
        return np.zeros(len(boxes), bool)
    own = keyframe.boxes[keyframe.person_ids == person_id]
    if not len(own):
        return np.zeros(len(boxes), bool)
    return np.abs(boxes - own[0]).max(axis=1) < 1e-4

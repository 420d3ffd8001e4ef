"""The script of a world: which videos there are, who is in them and what everyone does when.

No pixels here. ``plan_split`` deals the split's cards (units, performances, events) to its videos,
so that frequencies are quotas. ``write_script`` turns one video's plan into persons with segments.

``close_up`` scripts what networks learn first: one activity of one or two people for a moment.
Forty classes cross activities with postures, objects and who faces whom. The first twenty stand for
K400, all of them for K700.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.random import Generator

from stadlib.data.layout import SOURCES, SPLITS
from stadlib.world import WORLD, WorldSpec, actions
from stadlib.world.actions import FRONT, LEFT, RIGHT, ROAM, Person, Span
from stadlib.world.figures import random_looks
from stadlib.world.scenery import Camera, Shot, random_camera, random_shots

# width, height in pixels
SIZE = {"ava": (120, 80), "kinetics": (104, 80), "pretraining": (96, 80)}
AVA_START = 900.0  # AVA's cut movies begin at this second of the original
PHASE = 10  # seconds of a movie in which everyone plays one card, about
LIKELY = 0.7  # share of performances that suit the setting, as long as there are some
PAIR_EVENTS = ("give", "shake", "hug", "wave")
_NEEDS_PERFORMANCE = ("show", "apart", "side", "crossed", "alone")
CLASSES = WORLD["pretraining"]["classes"]  # (activity, posture); "+" marks two persons
_CLIPS = 11  # random streams of the world begin with other numbers


@dataclass
class Plan:
    """One video's cards: for every phase and unit (kind, performance), and its events."""

    source: str
    split: str
    index: int
    seconds: int
    setting: str
    units: tuple[int, ...]
    behind: int  # of the units, the last: single persons far away
    cards: list[list[tuple[str, str]]]
    events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Script:
    """Everything that is needed to draw and to annotate one video."""

    source: str
    video: str
    seconds: int
    start: float  # the annotation clock at the first frame
    keyframes: tuple[float, ...]  # seconds since the first frame
    silent: tuple[float, ...]  # keyframes that are listed without labels
    excluded: tuple[float, ...]
    persons: tuple[Person, ...]
    camera: Camera
    setting: str
    seed: tuple[int, ...]

    def from_the_back(self) -> list[Person]:
        """The persons in painter's order, the farthest first."""
        return sorted(self.persons, key=lambda p: (p.ground, p.number))


def generator(*seed: int) -> Generator:
    """The random stream of a video or a deck, independent of the order of drawing."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def deck(shares: dict, size: int, rng: Generator) -> list:
    """``size`` shuffled cards in the proportions of ``shares`` by largest remainder."""
    exact = np.array([*shares.values()]) / sum(shares.values()) * size
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: size - counts.sum()]
    counts[rest] += 1
    cards = [name for name, count in zip(shares, counts, strict=True) for _ in range(count)]
    rng.shuffle(cards)
    return cards


def plan_split(spec: WorldSpec, source: str, split: str) -> list[Plan]:
    """Deal the cards of one split."""
    rng = generator(spec.seed, SOURCES.index(source), SPLITS.index(split), 0)
    count = (spec.movies if source == "ava" else spec.clips)[SPLITS.index(split)]
    lengths = spec.movie_seconds if source == "ava" else (spec.clip_seconds,)
    shares = (
        {seconds: lengths.count(seconds) for seconds in lengths},
        dict(enumerate(WORLD["person_shares"][source], 1)),
        WORLD["crowd_shares"][source],
        {name: setting["share"] for name, setting in WORLD["settings"].items()},
    )
    dealt = zip(*(deck(of_kind, count, rng) for of_kind in shares), strict=True)
    plans = []
    for index, (seconds, persons, crowd, setting) in enumerate(dealt):
        layouts, behind = WORLD["units"][str(persons)], int(crowd)
        units = (*layouts[int(rng.integers(len(layouts)))], *[1] * behind)
        phases = max(1, round(seconds / PHASE)) if source == "ava" else 1
        cards = [[] for _ in range(phases)]
        plans.append(Plan(source, split, index, seconds, setting, units, behind, cards))
    # a story for every unit in every phase
    slots = [size for plan in plans for _ in plan.cards for size in plan.units]
    decks = {
        int(size): deck(shares, slots.count(int(size)), rng)
        for size, shares in WORLD["unit_shares"][source].items()
    }
    needed = sum(kind in _NEEDS_PERFORMANCE for cards in decks.values() for kind in cards)
    performances = deck(WORLD["perform_shares"][source], needed, rng)
    for plan in plans:
        likely = WORLD["settings"][plan.setting]["likely"]
        for cards, size in product(plan.cards, plan.units):
            kind, what = decks[size].pop(), ""
            if kind in _NEEDS_PERFORMANCE:  # more often one that is likely where the video is set
                fits = [k for k, performance in enumerate(performances) if performance in likely]
                what = performances.pop(fits[-1] if fits and rng.random() < LIKELY else -1)
            cards.append((kind, what))
    # every event to the next video in turn that has room and, for pair events, a pair
    rates = {k: rate[split != "train"] for k, rate in WORLD["event_rates"][source].items()}
    events = [kind for kind, rate in rates.items() for _ in range(round(rate * len(plans)))]
    rng.shuffle(events)
    places = [plan for plan in plans for _ in range(max(1, plan.seconds // 10))]
    order = [places[i] for i in rng.permutation(len(places))]
    for kind in events:
        fits = (k for k, p in enumerate(order) if kind not in PAIR_EVENTS or max(p.units) > 1)
        if (place := next(fits, None)) is not None:
            order.pop(place).events.append(kind)
    return plans


def write_script(spec: WorldSpec, plan: Plan) -> Script:
    """Play one video's cards."""
    ava = plan.source == "ava"
    seed = (spec.seed, SOURCES.index(plan.source), SPLITS.index(plan.split), plan.index + 1)
    rng = generator(*seed)
    seconds = plan.seconds
    units = _cast(plan, rng)
    moment = _play(plan, units, rng)
    # what is annotated: every second of a movie, one moment of a clip
    start, keyframes = AVA_START, tuple(float(t) for t in range(2, seconds - 1))
    if not ava:
        t = moment if moment is not None else rng.uniform(2.5, seconds - 2.5)
        start = float(rng.integers(0, 200))
        keyframes = (round(t, 6) if rng.random() < 0.41 else float(round(t)),)
    silent = tuple(t for t in keyframes if rng.random() < (0.012 if ava else 0.1))
    excluded = tuple(t for t in keyframes if ava and rng.random() < 0.006)
    persons = dress([person for unit in units for person in unit], rng)
    video = f"{plan.source}_{plan.split}_{plan.index:04d}"
    shots = (Shot(),)
    if rng.random() < WORLD["shot_shares"][plan.source]:
        near = units[: len(units) - plan.behind]
        heads = [(p.home, p.ground - 0.85 * p.height) for unit in near for p in unit]
        shots = random_shots(seconds, heads, SIZE[plan.source], rng)
        shots = shots if ava else shots[:1]
    camera = random_camera(plan.source, seconds, rng, shots)
    times = (start, keyframes, silent, excluded)
    return Script(plan.source, video, seconds, *times, persons, camera, plan.setting, seed)


def dress(persons: list[Person], rng: Generator) -> tuple[Person, ...]:
    """Give persons whose story is written clothes and the chairs that they sit on."""
    for person, look in zip(persons, random_looks(len(persons), rng), strict=True):
        person.look = look
        if any(segment.posture == "sit" for segment in person.segments):
            person.props.add("chair")
    return tuple(persons)


def _cast(plan: Plan, rng: Generator) -> list[list[Person]]:
    """Heights and places, from left to right; members of a unit stand at one depth."""
    u, width = rng.uniform, SIZE[plan.source][0]
    near = plan.units[: len(plan.units) - plan.behind]
    low, high = {1: (44, 58), 2: (43, 57), 3: (41, 52), 4: (37, 45), 5: (35, 40)}[sum(near)]
    eye, far = u(14, 23), rng.random() < WORLD["far_shares"][plan.source]
    if plan.source == "kinetics":
        low, high, eye = low + 5, high + 6, eye - 3
    if far:
        low, high = low * 0.4, high * 0.6
    units, row, x = [], [], 0.0
    for size in near:
        height = u(low, high)
        ground = u(56, 68) if far else max(54.0, eye + height + (54 - height) * 0.08)
        for _ in range(size):
            posture = "sit" if rng.random() < 0.36 else "stand"
            row.append(Person(len(row), x, height * u(0.97, 1.03), ground, posture, width))
            x += height * u(0.66, 0.92)
        x += height * u(0.0, 0.25)
        units.append(row[-size:])
    # squeeze the row into the frame, and put it anywhere in it
    span = row[-1].x
    squeeze = min(1.0, (width - 24) / span) if span else 1.0
    left = u(12, max(12.1, width - 12 - span * squeeze))
    for person in row:
        person.x = person.home = left + person.x * squeeze
    for _ in range(plan.behind):  # far away, on the farthest strip of the floor
        x, height, ground = u(4, width - 4), u(9, 26), u(46, 51)
        row.append(Person(len(row), x, height, ground, "stand", width, home=x))
        units.append(row[-1:])
    return units


def _play(plan: Plan, units: list[list[Person]], rng: Generator) -> float | None:
    """Play the cards, then the events that interrupt them; returns a moment in the last event."""
    # who takes part in an event stands in this video
    pairs = [unit[k : k + 2] for unit in units for k in range(len(unit) - 1)]
    roamers = {k for cards in plan.cards for k, (kind, _) in enumerate(cards) if kind in ROAM}
    settled = [[person] for k, unit in enumerate(units) for person in unit if k not in roamers]
    singles = settled or [[person] for unit in units for person in unit]
    casts = []
    for kind in plan.events:
        choices = pairs if kind in PAIR_EVENTS else singles
        casts.append(choices[int(rng.integers(len(choices)))])
        for person in casts[-1]:
            person.posture = "stand"
    # the cards of every phase
    cuts = np.linspace(0, plan.seconds, len(plan.cards) + 1)
    cuts[1:-1] += rng.uniform(-1.5, 1.5, len(plan.cards) - 1)
    for start, end, cards in zip(cuts.tolist(), cuts[1:].tolist(), plan.cards, strict=False):
        for members, (kind, what) in zip(units, cards, strict=True):
            card = actions.single if len(members) == 1 else actions.ensemble
            card(kind, what, members, (start, end), rng)
    # the events, spread over the video
    moment, room = None, (plan.seconds - 6) / max(1, len(plan.events))
    for place, (kind, members) in enumerate(zip(plan.events, casts, strict=True)):
        start = 3.0 + place * room + rng.uniform(0, max(0.1, room - 4))
        if plan.source == "ava":
            start = round(start) - rng.uniform(0.3, 0.6)
        actions.play(kind, members, start, rng)
        moment = start + rng.uniform(0.5, 1.6)
    return moment


def deal_clips(num_classes: int, spec: WorldSpec) -> list[tuple[str, int, int]]:
    """Split, number in it and class of the clips of the first classes; all come equally often."""
    clips = []
    for place, split in enumerate(("train", "val")):
        rng = generator(spec.seed, _CLIPS, place)
        labels = deck(dict.fromkeys(range(len(CLASSES)), 1), spec.pretraining_clips[place], rng)
        clips += [(split, k, label) for k, label in enumerate(labels) if label < num_classes]
    return clips


def close_up(spec: WorldSpec, split: str, index: int, label: int) -> Script:
    """The script of clip number ``index`` of a split, of class ``label``."""
    seed = (spec.seed, _CLIPS, SPLITS.index(split), index + 1)
    rng = generator(*seed)
    u, seconds, (width, frame_height) = rng.uniform, spec.pretraining_seconds, SIZE["pretraining"]
    activity, posture = CLASSES[label]
    height = u(46, 68)
    ground = min(frame_height + 4.0, height + u(8, 20))
    distance = height * u(0.62, 0.9)
    middle = width / 2 + u(-10, 10)
    places = [middle - distance / 2, middle + distance / 2] if activity.endswith("+") else [middle]
    persons = [
        Person(k, x, height * u(0.96, 1.04), ground, posture, width) for k, x in enumerate(places)
    ]
    span = (-2.0, float(seconds))
    if len(persons) == 2:
        _act_pair(activity[:-1], persons, span, rng)
    else:
        _act_alone(activity, persons[0], span, rng)
        if rng.random() < 0.25:  # somebody at the edge
            x = float(rng.choice([u(0, 14), u(width - 14, width)]))
            persons.append(Person(1, x, height * 0.85, ground - 6, "stand", width))
            actions.quiet(persons[1], span, int(rng.choice([LEFT, RIGHT, FRONT])))
    clothed = dress(persons, rng)
    camera = random_camera("kinetics" if rng.random() < 0.5 else "ava", seconds, rng)
    video, times = f"{split}_{index:05d}", (seconds, 0.0, (), (), ())
    setting = str(rng.choice([*WORLD["settings"]]))
    return Script("pretraining", video, *times, clothed, camera, setting, seed)


def _act_pair(what: str, pair: list[Person], span: Span, rng: Generator) -> None:
    first = int(rng.integers(2))
    sides = {"parting": (LEFT, RIGHT), "following": ((LEFT, RIGHT)[first],) * 2}
    for person, side in zip(pair, sides.get(what, (RIGHT, LEFT)), strict=True):
        if what == "fight" or (what == "talk" and person is pair[first]):
            person.do(*span, what, facing=side, phase=rng.uniform(0, 6))
        else:
            actions.quiet(person, span, side)
    if what in ("hug", "give", "shake"):
        actions.play(what, pair, rng.uniform(-0.2, 0.5), rng)


def _act_alone(what: str, person: Person, span: Span, rng: Generator) -> None:
    side = int(rng.choice([LEFT, RIGHT, FRONT], p=[0.4, 0.4, 0.2]))
    x, posture = person.x, person.posture
    if posture in ("walk", "run"):
        side = int(rng.choice([LEFT, RIGHT]))
        item = str(rng.choice(actions.ITEMS)) if what == "hold" else ""
        way = side * (12.0 if posture == "walk" else 26.0)
        phase = rng.uniform(0, 6)
        person.do(0.0, span[1], what, facing=side, x0=x - way, x1=x + way, item=item, phase=phase)
    elif what in ("bend", "fall", "getup", "wave"):
        side, start = int(rng.choice([LEFT, RIGHT])), rng.uniform(-0.3, 0.4)
        actions.quiet(person, span, side)
        item = str(rng.choice(["lie", "crouch", "sit"])) if what == "getup" else ""
        if item:
            person.insert(span[0], start, "quiet", side, x, posture=item)
        person.insert(start, span[1], what, side, x, item=item)
    elif posture == "lie":
        actions.quiet(person, span, int(rng.choice([LEFT, RIGHT])))
        person.props.add("mat")
    elif what == "quiet":
        actions.quiet(person, span, side)
    else:
        actions.perform(person, span, what, side, rng, steady=True)

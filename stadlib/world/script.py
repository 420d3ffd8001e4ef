"""The script of a world: which videos there are, who is in them and what everyone does when.

No pixels here. ``plan_split`` deals the split's cards (units, performances, events) to its videos,
so that frequencies are quotas. ``write_script`` turns one video's plan into persons with segments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stadlib.data.layout import SOURCES, SPLITS
from stadlib.world import WORLD, WorldSpec, story
from stadlib.world.actions import deck
from stadlib.world.figures import random_looks
from stadlib.world.scenery import Camera, random_camera
from stadlib.world.story import Person

# width, height in pixels
SIZE = {"ava": (120, 80), "kinetics": (104, 80), "pretraining": (96, 80)}
AVA_START = 900.0  # AVA's cut movies begin at this second of the original
PAIR_EVENTS = ("give", "shake", "hug", "wave")
_NEEDS_PERFORMANCE = ("show", "apart", "side", "crossed", "alone")


@dataclass
class Plan:
    """One video's cards: for every phase and unit (kind, performance), and its events."""

    source: str
    split: str
    index: int
    units: tuple[int, ...]
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
    seed: tuple[int, ...]

    def from_the_back(self) -> list[Person]:
        """The persons in painter's order, the farthest first."""
        return sorted(self.persons, key=lambda p: (p.ground, p.number))


def generator(*seed: int) -> np.random.Generator:
    """The random stream of a video or a deck, independent of the order of drawing."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def plan_split(spec: WorldSpec, source: str, split: str) -> list[Plan]:
    """Deal the cards of one split."""
    rng = generator(spec.seed, SOURCES.index(source), SPLITS.index(split), 0)
    count = (spec.movies if source == "ava" else spec.clips)[SPLITS.index(split)]
    shares = {str(k + 1): s for k, s in enumerate(WORLD["person_shares"][source])}
    plans = []
    for index, number in enumerate(deck(shares, count, rng)):
        layouts = WORLD["units"][number]
        units = layouts[int(rng.integers(len(layouts)))]
        long = source == "ava" and spec.movie_seconds > 20
        phases = 1 + (source == "ava") + int(long and rng.random() < 0.4)
        plans.append(Plan(source, split, index, tuple(units), [[] for _ in range(phases)]))
    # a story for every unit in every phase
    slots = [size for plan in plans for _ in plan.cards for size in plan.units]
    decks = {
        int(size): deck(shares, slots.count(int(size)), rng)
        for size, shares in WORLD["unit_shares"][source].items()
    }
    needed = sum(kind in _NEEDS_PERFORMANCE for cards in decks.values() for kind in cards)
    performances = deck(WORLD["perform_shares"][source], needed, rng)
    for plan in plans:
        for cards in plan.cards:
            kinds = [decks[size].pop() for size in plan.units]
            what = [performances.pop() if kind in _NEEDS_PERFORMANCE else "" for kind in kinds]
            cards.extend(zip(kinds, what, strict=True))
    # every event to the next video in turn that has room and, for pair events, a pair
    rates = {k: rate[split != "train"] for k, rate in WORLD["event_rates"][source].items()}
    events = [kind for kind, rate in rates.items() for _ in range(round(rate * len(plans)))]
    rng.shuffle(events)
    order = [plans[i] for i in rng.permutation(len(plans))]
    room = 3 if source == "ava" else 1
    for kind in events:
        fits = (p for p in order if kind not in PAIR_EVENTS or max(p.units) > 1)
        if plan := next((p for p in fits if len(p.events) < room), None):
            plan.events.append(kind)
            order.remove(plan)
            order.append(plan)
    return plans


def write_script(spec: WorldSpec, plan: Plan) -> Script:
    """Play one video's cards."""
    ava = plan.source == "ava"
    seed = (spec.seed, SOURCES.index(plan.source), SPLITS.index(plan.split), plan.index + 1)
    rng = generator(*seed)
    seconds = spec.movie_seconds if ava else spec.clip_seconds
    units = _cast(plan, rng)
    moment = _play(plan, units, seconds, rng)
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
    camera = random_camera(plan.source, seconds, rng)
    times = (start, keyframes, silent, excluded)
    return Script(plan.source, video, seconds, *times, persons, camera, seed)


def dress(persons: list[Person], rng: np.random.Generator) -> tuple[Person, ...]:
    """Give persons whose story is written clothes and the chairs that they sit on."""
    for person, look in zip(persons, random_looks(len(persons), rng), strict=True):
        person.look = look
        if any(segment.posture == "sit" for segment in person.segments):
            person.props.add("chair")
    return tuple(persons)


def _cast(plan: Plan, rng: np.random.Generator) -> list[list[Person]]:
    """Heights and places, from left to right; members of a unit stand at one depth."""
    u, width = rng.uniform, SIZE[plan.source][0]
    low, high = {1: (44, 58), 2: (43, 57), 3: (41, 52), 4: (37, 45), 5: (35, 40)}[sum(plan.units)]
    eye = u(14, 23)
    if plan.source == "kinetics":
        low, high, eye = low + 5, high + 6, eye - 3
    units, row, x = [], [], 0.0
    for size in plan.units:
        height = u(low, high)
        ground = eye + height + (54 - height) * 0.08
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
    return units


def _play(plan: Plan, units: list[list[Person]], seconds: int,
          rng: np.random.Generator) -> float | None:  # fmt: skip
    """Play the cards, then the events that interrupt them; returns a moment in the last event."""
    # who takes part in an event stands in this video
    pairs = [unit[k : k + 2] for unit in units for k in range(len(unit) - 1)]
    roamers = {k for cards in plan.cards for k, (kind, _) in enumerate(cards) if kind in story.ROAM}
    settled = [[person] for k, unit in enumerate(units) for person in unit if k not in roamers]
    singles = settled or [[person] for unit in units for person in unit]
    casts = []
    for kind in plan.events:
        choices = pairs if kind in PAIR_EVENTS else singles
        casts.append(choices[int(rng.integers(len(choices)))])
        for person in casts[-1]:
            person.posture = "stand"
    # the cards of every phase
    cuts = np.linspace(0, seconds, len(plan.cards) + 1)
    cuts[1:-1] += rng.uniform(-1.5, 1.5, len(plan.cards) - 1)
    for start, end, cards in zip(cuts.tolist(), cuts[1:].tolist(), plan.cards, strict=False):
        for members, (kind, what) in zip(units, cards, strict=True):
            card = story.single if len(members) == 1 else story.ensemble
            card(kind, what, members, (start, end), rng)
    # the events, spread over the video
    moment, room = None, (seconds - 6) / max(1, len(plan.events))
    for place, (kind, members) in enumerate(zip(plan.events, casts, strict=True)):
        start = 3.0 + place * room + rng.uniform(0, max(0.1, room - 4))
        if plan.source == "ava":
            start = round(start) - rng.uniform(0.3, 0.6)
        story.play(kind, members, start, rng)
        moment = start + rng.uniform(0.5, 1.6)
    return moment

"""The script of a world: which videos there are, who is in them and what everyone does when.

No pixels here. ``plan_split`` deals the split's cards (units, performances, events) to its videos,
so that frequencies are quotas; ``write_script`` turns one video's plan into persons with segments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stadlib.world import actions, story
from stadlib.world.actions import Segment
from stadlib.world.figures import Look, random_looks
from stadlib.world.scenery import Camera, random_camera
from stadlib.world.spec import WorldSpec

SOURCES, SPLITS = ("ava", "kinetics"), ("train", "val", "test")
# width, height in pixels; a still picture is cut out of its scene
SIZE = {"ava": (120, 80), "kinetics": (104, 80), "pretraining": (96, 80), "still": (128, 112)}
AVA_START = 900.0  # AVA's cut movies begin at this second of the original
_UNITS = {
    1: ((1,),), 2: ((2,), (2,), (2,), (1, 1)), 3: ((2, 1), (1, 2), (3,), (3,)),
    4: ((2, 2), (2, 2), (2, 2), (3, 1), (1, 3)), 5: ((2, 2, 1), (2, 1, 2), (3, 2)),
}  # fmt: skip
_NEEDS_PERFORMANCE = ("show", "apart", "side", "crossed", "alone")


@dataclass
class Plan:
    """One video's cards: for every phase and unit (kind, performance), and its events."""

    source: str
    split: str
    index: int
    units: tuple[int, ...]
    num_phases: int
    cards: list[list[tuple[str, str]]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Person:
    """One person of a video; ``height`` (standing) and ``ground`` (feet) in pixels."""

    number: int
    height: float
    ground: float
    look: Look
    segments: tuple[Segment, ...]
    props: tuple[str, ...]
    prop_x: float
    prop_side: int


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


def generator(*words: int) -> np.random.Generator:
    """The random stream of a video or a deck; independent of who draws what when."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def plan_split(spec: WorldSpec, source: str, split: str) -> list[Plan]:
    """Deal the cards of one split."""
    rng = generator(spec.seed, SOURCES.index(source), SPLITS.index(split), 0)
    count = (spec.movies if source == "ava" else spec.clips)[SPLITS.index(split)]
    shares = {str(k + 1): s for k, s in enumerate(actions.PERSON_SHARES[source])}
    plans = []
    for index, number in enumerate(actions.deck(shares, count, rng)):
        layouts = _UNITS[int(number)]
        units = layouts[int(rng.integers(len(layouts)))]
        phases = 1
        if source == "ava":
            phases = 2 + int(spec.movie_seconds > 20 and rng.random() < 0.4)
        plans.append(Plan(source, split, index, units, phases))
    _deal_stories(plans, rng)
    _deal_events(plans, rng)
    return plans


def _deal_stories(plans: list[Plan], rng: np.random.Generator) -> None:
    slots = [size for plan in plans for _ in range(plan.num_phases) for size in plan.units]
    decks = {
        size: actions.deck(shares, slots.count(size), rng)
        for size, shares in actions.UNIT_SHARES[plans[0].source].items()
    }
    kinds = sum(kind in _NEEDS_PERFORMANCE for cards in decks.values() for kind in cards)
    performances = actions.deck(actions.PERFORM_SHARES[plans[0].source], kinds, rng)
    for plan in plans:
        for _ in range(plan.num_phases):
            drawn = [decks[size].pop() for size in plan.units]
            plan.cards.append(
                [(kind, performances.pop() if kind in _NEEDS_PERFORMANCE else "") for kind in drawn]
            )


def _deal_events(plans: list[Plan], rng: np.random.Generator) -> None:
    rates = actions.EVENT_RATES[plans[0].source]
    column = 0 if plans[0].split == "train" else 1
    cards = [kind for kind, rate in rates.items() for _ in range(round(rate[column] * len(plans)))]
    rng.shuffle(cards)
    order = [plans[i] for i in rng.permutation(len(plans))]
    room = 3 if plans[0].source == "ava" else 1
    for kind in cards:
        fits = (p for p in order if kind not in actions.PAIR_EVENTS or max(p.units) > 1)
        plan = next((p for p in fits if len(p.events) < room), None)
        if plan is not None:
            plan.events.append(kind)
            order.remove(plan)
            order.append(plan)


def write_script(spec: WorldSpec, plan: Plan) -> Script:
    """Play one video's cards."""
    words = (spec.seed, SOURCES.index(plan.source), SPLITS.index(plan.split), plan.index + 1)
    rng = generator(*words)
    width, _ = SIZE[plan.source]
    seconds = spec.movie_seconds if plan.source == "ava" else spec.clip_seconds
    actors = _cast(plan, width, rng)
    taking_part = _cast_events(plan, actors, rng)
    _play_phases(plan, actors, seconds, width, rng)
    moment = _play_events(plan, taking_part, seconds, width, rng)
    keyframes, start = _keyframes(plan, seconds, moment, rng)
    silent = tuple(t for t in keyframes if rng.random() < (0.012 if plan.source == "ava" else 0.1))
    excluded = tuple(t for t in keyframes if plan.source == "ava" and rng.random() < 0.006)
    looks = random_looks(sum(plan.units), rng)
    flat = (actor for unit in actors for actor in unit)
    persons = tuple(map(finish_person, flat, looks))
    video = f"{plan.source}_{plan.split}_{plan.index:04d}"
    camera = random_camera(plan.source, seconds, rng)
    return Script(
        plan.source, video, seconds, start, keyframes, silent, excluded, persons, camera, words
    )


def finish_person(actor: story.Actor, look: Look) -> Person:
    """An actor whose story is written, dressed, and with the furniture that the story needs."""
    seated = any(s.posture == "sit" for s in actor.segments)
    props = actor.props | ({"chair"} if seated else set())
    place = actor.segments[0].x0
    return Person(
        actor.number, actor.height, actor.ground, look, tuple(actor.segments), tuple(sorted(props)),
        place, actor.prop_side,
    )  # fmt: skip


def _cast(plan: Plan, width: int, rng: np.random.Generator) -> list[list[story.Actor]]:
    """Heights and places, from left to right; members of a unit stand at one depth."""
    total = sum(plan.units)
    low, high = {1: (44, 58), 2: (43, 57), 3: (41, 52), 4: (37, 45), 5: (35, 40)}[total]
    if plan.source == "kinetics":
        low, high = low + 5, high + 6
    eye = float(rng.uniform(14, 23)) - (3 if plan.source == "kinetics" else 0)
    units: list[list[story.Actor]] = []
    x = 0.0
    number = 0
    for size in plan.units:
        height = float(rng.uniform(low, high))
        ground = eye + height + (54 - height) * 0.08
        members = []
        for _ in range(size):
            posture = "sit" if rng.random() < 0.36 else "stand"
            own = height * float(rng.uniform(0.97, 1.03))
            members.append(story.Actor(number, x, own, ground, posture))
            number += 1
            x += height * float(rng.uniform(0.66, 0.92))
        x += height * float(rng.uniform(0.0, 0.25))
        units.append(members)
    actors = [actor for unit in units for actor in unit]
    span = actors[-1].x
    squeeze = min(1.0, (width - 24) / span) if span else 1.0
    left = float(rng.uniform(12, max(12.1, width - 12 - span * squeeze)))
    for actor in actors:
        actor.x = actor.home = left + actor.x * squeeze
    return units


def _play_phases(plan: Plan, units: list[list[story.Actor]], seconds: int, width: int,
                 rng: np.random.Generator) -> None:  # fmt: skip
    cuts = np.linspace(0, seconds, plan.num_phases + 1)
    cuts[1:-1] += rng.uniform(-1.5, 1.5, plan.num_phases - 1)
    for phase, cards in enumerate(plan.cards):
        span = (float(cuts[phase]), float(cuts[phase + 1]))
        for members, (kind, what) in zip(units, cards, strict=True):
            if len(members) == 1:
                back = story.walk_home(members[0], *span)
                rest = (back, span[1])
                story.single(kind, what, members[0], rest, width=width, rng=rng)
            elif len(members) == 2:
                story.duo(kind, what, members, span, rng)
            else:
                story.trio(kind, what, members, span, rng)


def _cast_events(plan: Plan, units: list[list[story.Actor]],
                 rng: np.random.Generator) -> list[list[story.Actor]]:  # fmt: skip
    """Who takes part in each event; whoever does stands in this video."""
    pairs = [unit[k : k + 2] for unit in units for k in range(len(unit) - 1)]
    roamers = {k for cards in plan.cards for k, (kind, _) in enumerate(cards) if kind in story.ROAM}
    settled = [[actor] for k, unit in enumerate(units) for actor in unit if k not in roamers]
    singles = settled or [[actor] for unit in units for actor in unit]
    cast = []
    for kind in plan.events:
        choices = pairs if kind in actions.PAIR_EVENTS else singles
        cast.append(choices[int(rng.integers(len(choices)))])
        for actor in cast[-1]:
            actor.posture = "stand"
    return cast


def _play_events(plan: Plan, cast: list[list[story.Actor]], seconds: int, width: int,
                 rng: np.random.Generator) -> float | None:  # fmt: skip
    """Insert the events; returns a moment inside the last one."""
    moment = None
    room = (seconds - 6) / max(1, len(plan.events))
    for place, (kind, members) in enumerate(zip(plan.events, cast, strict=True)):
        start = 3.0 + place * room + float(rng.uniform(0, max(0.1, room - 4)))
        if plan.source == "ava":
            start = round(start) - float(rng.uniform(0.3, 0.6))
        story.play(kind, members, start, width, rng)
        moment = start + float(rng.uniform(0.5, 1.6))
    return moment


def _keyframes(plan: Plan, seconds: int, moment: float | None,
               rng: np.random.Generator) -> tuple[tuple[float, ...], float]:  # fmt: skip
    if plan.source == "ava":
        return tuple(float(t) for t in range(2, seconds - 1)), AVA_START
    t = moment if moment is not None else float(rng.uniform(2.5, seconds - 2.5))
    start = float(rng.integers(0, 200))
    t = round(t, 6) if rng.random() < 0.41 else float(round(t))
    return (t,), start

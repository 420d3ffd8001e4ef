"""Short events that interrupt a story: hand over, shake hands, hug, wave, fall, bend, leave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stadlib.data.miniature.activities import LEFT, RIGHT, Segment
from stadlib.data.miniature.objects import ITEMS
from stadlib.data.miniature.story import EMBRACE, REACH, Actor

APPROACH = 0.8  # seconds
LENGTH = 2.1  # seconds: two keyframes


def play(
    kind: str, members: list[Actor], start: float, width: float, rng: np.random.Generator
) -> None:
    """Insert event ``kind`` at ``start`` seconds; ``members`` are one or two from left to right."""
    if kind == "give":
        _give(members, start, rng)
    elif kind in ("shake", "hug"):
        places = _meet(members, start, EMBRACE if kind == "hug" else REACH)
        for actor, place, side in zip(members, places, (RIGHT, LEFT), strict=True):
            phase = 0.0  # both hands move together
            actor.insert(_stay(start, start + LENGTH, kind, side, place, phase=phase))
    elif kind == "wave":
        _wave(members, start, rng)
    elif kind in ("leave", "dash"):
        _leave(members[0], start, width, "run" if kind == "dash" else "walk")
    else:
        _alone(kind, members[0], start, rng)


def _stay(start: float, end: float, action: str, side: int, x: float, **more: object) -> Segment:
    return Segment(start, end, action, facing=side, x0=x, x1=x, **more)  # type: ignore[arg-type]


def _meet(pair: list[Actor], start: float, distance: float) -> tuple[float, float]:
    """Both step up to each other before ``start`` and back after the event; returns the places."""
    a, b = pair
    height = (a.height + b.height) / 2
    ax, bx = a.at(start).x(start), b.at(start).x(start)
    middle, half = (ax + bx) / 2, distance * height / 2
    places = (middle - half, middle + half)
    for actor, x, place, side in ((a, ax, places[0], RIGHT), (b, bx, places[1], LEFT)):
        if abs(place - x) < 2:
            continue
        step = Segment(
            start - APPROACH, start, "quiet", "walk", RIGHT if place > x else LEFT, x, place
        )
        after = start + LENGTH
        back = Segment(after, after + APPROACH, "quiet", "walk", -step.facing, place, x)
        actor.insert(replace(step))
        actor.insert(replace(back, facing=side if abs(place - x) < 6 else back.facing))
    return places


def _give(pair: list[Actor], start: float, rng: np.random.Generator) -> None:
    """One has a thing in hand, both reach out, the other has it afterwards."""
    item = str(rng.choice(ITEMS))
    first = int(rng.integers(2))
    giver, taker = pair[first], pair[1 - first]
    side = (RIGHT, LEFT)[first]
    places = _meet(pair, start, REACH)
    gx, tx = places[first], places[1 - first]
    pass_on = start + LENGTH / 2
    for old in [s for s in giver.segments if start - APPROACH <= s.start < start]:
        giver.insert(replace(old, action="hold", item=item))
    begin = start - APPROACH
    before = giver.at(begin - 0.01)
    x = before.x(begin)
    giver.insert(_stay(begin - 1.2, begin, "hold", side, x, item=item))
    if giver.at(start - 0.01).posture != "walk":
        giver.insert(_stay(begin, start, "hold", side, gx, item=item))
    giver.insert(_stay(start, pass_on, "give", side, gx, item=item, partner=taker.number))
    giver.insert(_stay(pass_on, start + LENGTH, "give", side, gx, partner=taker.number))
    taker.insert(_stay(start, pass_on, "take", -side, tx, partner=giver.number))
    taker.insert(_stay(pass_on, start + LENGTH, "take", -side, tx, item=item, partner=giver.number))
    after = start + LENGTH
    for old in [s for s in taker.segments if after <= s.start < after + APPROACH]:
        if old.posture == "walk":
            taker.insert(replace(old, action="hold", item=item))
            after = old.end
    x = taker.at(after).x(after)
    taker.insert(_stay(after, after + float(rng.uniform(2, 4)), "hold", -side, x, item=item))


def _wave(pair: list[Actor], start: float, rng: np.random.Generator) -> None:
    first = int(rng.integers(2))
    actor, side = pair[first], (RIGHT, LEFT)[first]
    x, posture = actor.at(start).x(start), actor.at(start).posture
    posture = posture if posture in ("stand", "sit") else "stand"
    actor.insert(_stay(start, start + LENGTH, "wave", side, x, posture=posture))


def _leave(actor: Actor, start: float, width: float, posture: str) -> None:
    """Out at the nearer edge, away for a while, back to the old place."""
    x = actor.at(start).x(start)
    speed = 36.0 if posture == "run" else 15.0
    target = -0.3 * actor.height if x < width / 2 else width + 0.3 * actor.height
    if posture == "run":  # the longer way, so that the run is seen
        target = width + 0.3 * actor.height if x < width / 2 else -0.3 * actor.height
    way = max(1.0, abs(target - x) / speed)
    side = RIGHT if target > x else LEFT
    back = start + way + 1.5
    actor.insert(Segment(start, start + way, "quiet", posture, side, x, target))
    actor.insert(Segment(start + way, back, "absent", "stand", side, target, target))
    actor.insert(Segment(back, back + way, "quiet", posture, -side, target, x))


def _alone(kind: str, actor: Actor, start: float, rng: np.random.Generator) -> None:
    x = actor.at(start).x(start)
    side = int(rng.choice([LEFT, RIGHT]))
    end = start + LENGTH
    if kind == "bend":
        actor.insert(_stay(start, end, "bend", side, x))
    elif kind == "fall":
        low = end + float(rng.uniform(1.0, 2.5))
        actor.insert(_stay(start, end, "fall", side, x))
        actor.insert(_stay(end, low, "quiet", side, x, posture="lie"))
        actor.insert(_stay(low, low + LENGTH, "getup", side, x, item="lie"))
    else:
        actor.insert(
            _stay(start - float(rng.uniform(2, 3.5)), start, "quiet", side, x, posture="crouch")
        )
        actor.insert(_stay(start, end, "getup", side, x, item="crouch"))

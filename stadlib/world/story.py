"""Short events that interrupt a story: hand over, shake hands, hug, wave, fall, bend, leave.

What the members of one unit (a single, a pair, a trio) do: story cards become segments.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from stadlib.world.actions import BACK, BURSTS, FRONT, LEFT, RIGHT, Segment
from stadlib.world.objects import ITEMS

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


ROAM = ("wander", "passer")  # cards of one who walks about
REACH, EMBRACE = 0.72, 0.25  # distance of two persons whose hands meet, who hug; of a height


@dataclass
class Actor:
    """One person while the story is written; distances in pixels, times in seconds."""

    number: int
    x: float
    height: float
    ground: float
    posture: str
    segments: list[Segment] = field(default_factory=list)
    props: set[str] = field(default_factory=set)
    prop_side: int = RIGHT
    home: float = 0.0  # the place in the row of persons

    def do(self, start: float, end: float, action: str, **more: object) -> None:
        """Append a segment that begins and ends at the actor's place unless told otherwise."""
        base = {"posture": self.posture, "x0": self.x, "x1": self.x}
        self.segments.append(Segment(start, end, action, **{**base, **more}))

    def insert(self, new: Segment) -> None:
        """Let ``new`` take the place of whatever was to happen in its time."""
        kept: list[Segment] = []
        for old in self.segments:
            if old.start < new.start:
                end = min(old.end, new.start)
                kept.append(replace(old, end=end, x1=old.x(end)))
            if old.end > new.end:
                start = max(old.start, new.end)
                late = start - old.start
                kept.append(replace(old, start=start, x0=old.x(start), phase=old.phase + late))
        self.segments = sorted([*kept, new], key=lambda s: s.start)

    def at(self, t: float) -> Segment:
        """The segment that holds ``t``."""
        return next((s for s in self.segments if s.start <= t < s.end), self.segments[-1])


def _bursts(action: str, rng: np.random.Generator) -> dict[str, float]:
    if action not in BURSTS:
        return {"phase": float(rng.uniform(0, 6))}
    (b0, b1), (g0, g1) = BURSTS[action]
    return {
        "burst": float(rng.uniform(b0, b1)),
        "gap": float(rng.uniform(g0, g1)),
        "phase": float(rng.uniform(0, 6)),
    }


def perform(actor: Actor, span: tuple[float, float], what: str, side: int,
            rng: np.random.Generator, *, steady: bool = False) -> None:  # fmt: skip
    """``actor`` does ``what`` during ``span``, facing ``side`` where the activity leaves a choice.

    ``steady`` shows it all the time instead of in bursts.
    """
    start, end = span
    extra: dict[str, object] = dict(_bursts(what, rng), facing=side)
    action = what
    if what in ("dance", "martial", "cut") or (what == "touch" and actor.posture == "sit"):
        extra["posture"] = "stand"
    if what in ("crouch", "lie"):
        extra["posture"], action = what, "quiet"
        extra["facing"] = side if side in (LEFT, RIGHT) else RIGHT
    if what == "crouch" and rng.random() < 0.4:
        action = "touch"
    if what == "computer":
        extra["posture"] = "sit"
    if what == "hold":
        extra["item"] = str(rng.choice(ITEMS))
    if steady or (what == "hold" and rng.random() < 0.5):
        extra["gap"] = 0.0
    if what in ("computer", "cut", "touch", "instrument", "crouch", "lie"):
        extra["facing"] = side if side in (LEFT, RIGHT) else int(rng.choice([LEFT, RIGHT]))
    actor.do(start, end, action, **extra)
    prop = {"computer": "desk", "cut": "worktop", "lie": "mat", "touch": "shelf"}.get(what)
    if prop:
        actor.props.add(prop)
        actor.prop_side = int(extra["facing"])  # type: ignore[call-overload]


def quiet(actor: Actor, span: tuple[float, float], side: int) -> None:
    """``actor`` only stands or sits, and looks to ``side``."""
    actor.do(*span, "quiet", facing=side, phase=actor.number * 0.7)


def talk(actor: Actor, span: tuple[float, float], side: int, rng: np.random.Generator) -> None:
    """``actor`` talks to whoever is at ``side``, in bursts."""
    actor.do(*span, "talk", facing=side, **_bursts("talk", rng))


def _aside(rng: np.random.Generator, outward: int) -> int:
    return int(rng.choice([outward, outward, FRONT, BACK]))


def duo(kind: str, what: str, pair: list[Actor], span: tuple[float, float],
        rng: np.random.Generator) -> None:  # fmt: skip
    """Play a card of two: ``pair`` is ordered from left to right."""
    sides = (RIGHT, LEFT)
    first = int(rng.integers(2))
    a, b = pair[first], pair[1 - first]
    to_b, to_a = sides[first], sides[1 - first]
    if kind == "talk":
        talk_in_turns(a, b, (to_b, to_a), span, rng)
    elif kind == "show":
        perform(a, span, what, int(rng.choice([to_b, -to_b, FRONT])), rng)
        quiet(b, span, to_a)
    elif kind == "apart":
        perform(a, span, what, int(rng.choice([to_b, -to_b, FRONT])), rng)
        quiet(b, span, _aside(rng, -to_a))
    elif kind == "fight":
        for actor, side in ((a, to_b), (b, to_a)):
            actor.do(*span, "fight", posture="stand", facing=side, phase=float(rng.uniform(0, 6)))
    else:
        quiet(a, span, to_b)
        quiet(b, span, to_a if rng.random() < 0.6 else _aside(rng, -to_a))


def talk_in_turns(a: Actor, b: Actor, sides: tuple[int, int], span: tuple[float, float],
                  rng: np.random.Generator) -> None:  # fmt: skip
    """``a`` talks and ``b`` listens; in half of the talks that are long enough they change over."""
    start, end = span
    turn = end
    if end - start > 11 and rng.random() < 0.5:
        turn = (start + end) / 2
    talk(a, (start, turn), sides[0], rng)
    quiet(b, (start, turn), sides[1])
    if turn < end:
        quiet(a, (turn, end), sides[0])
        talk(b, (turn, end), sides[1], rng)


def trio(kind: str, what: str, three: list[Actor], span: tuple[float, float],
         rng: np.random.Generator) -> None:  # fmt: skip
    """Play a card of three: ``three`` is ordered from left to right."""
    left, middle, right = three
    side = int(rng.choice([LEFT, RIGHT]))
    near, far = (left, right) if side == LEFT else (right, left)
    if kind == "talk":  # both hear the one in the middle
        talk(middle, span, side, rng)
        quiet(near, span, -side)
        quiet(far, span, side)
    elif kind == "show":
        perform(middle, span, what, int(rng.choice([LEFT, RIGHT, FRONT])), rng)
        quiet(near, span, -side)
        quiet(far, span, side if rng.random() < 0.6 else _aside(rng, -side))
    elif kind == "side":  # a talk, and next to it someone busy whom the middle does not see
        talk(near, span, -side, rng)
        quiet(middle, span, side)
        perform(far, span, what, int(rng.choice([side, -side, FRONT])), rng)
    elif kind == "crossed":  # one talks to the middle, which is busy; the other watches it
        talk(near, span, -side, rng)
        perform(middle, span, what, int(rng.choice([side, -side, FRONT])), rng)
        quiet(far, span, side)
    elif kind == "behind":  # one talks to the middle; the other looks at the quiet listener
        talk(near, span, -side, rng)
        quiet(middle, span, side)
        quiet(far, span, side)
    else:  # the middle talks to one side; the other looks away
        talk(middle, span, side, rng)
        quiet(near, span, -side)
        quiet(far, span, _aside(rng, -side))


def single(kind: str, what: str, actor: Actor, span: tuple[float, float], *, width: float,
           rng: np.random.Generator) -> None:  # fmt: skip
    """Play a card of one."""
    side = int(rng.choice([LEFT, RIGHT, FRONT, BACK], p=[0.35, 0.35, 0.2, 0.1]))
    if kind == "alone":
        perform(actor, span, what, side if side != BACK else FRONT, rng)
    elif kind == "quiet":
        quiet(actor, span, side)
    else:
        _roam(actor, span, width, rng, leave=kind == "passer")


def walk_home(actor: Actor, start: float, end: float) -> float:
    """Walk back to the actor's own place if need be; returns when that is reached."""
    if abs(actor.x - actor.home) < 1:
        return start
    return walk(actor, start, actor.home, end - 1, speed=20)


def _roam(actor: Actor, span: tuple[float, float], width: float, rng: np.random.Generator,
          leave: bool) -> None:  # fmt: skip
    """Stand, walk elsewhere (out of the frame if ``leave``), and come back, in turns."""
    t, end = span
    home = actor.home
    item = str(rng.choice(ITEMS)) if rng.random() < 0.25 else ""
    while t < end:
        stop = min(end, t + float(rng.uniform(2, 4.5)))
        gone = actor.x < 0 or actor.x > width
        pause = "absent" if gone else "hold" if item else "quiet"
        more = {"item": item} if pause == "hold" else {}
        actor.do(
            t, stop, pause, posture="stand", facing=int(rng.choice([LEFT, RIGHT, FRONT])), **more
        )
        if stop >= end:
            return
        target = home
        if abs(actor.x - home) < 1:
            out = float(rng.choice([-0.35 * actor.height, width + 0.35 * actor.height]))
            target = out if leave else float(rng.uniform(0.15, 0.85) * width)
        t = walk(actor, stop, target, end, action="hold" if item else "quiet", item=item)


def walk(actor: Actor, start: float, target: float, limit: float, *, speed: float = 14.0,
         action: str = "quiet", item: str = "") -> float:  # fmt: skip
    """Walk to ``target`` at ``speed`` (pixels a second) until ``limit``; returns the end."""
    seconds = max(0.8, abs(target - actor.x) / speed)
    end = min(limit, start + seconds)
    reached = actor.x + (target - actor.x) * (end - start) / seconds
    facing = RIGHT if target > actor.x else LEFT
    actor.do(start, end, action, posture="walk", facing=facing, x1=reached, item=item)
    actor.x = reached
    return end

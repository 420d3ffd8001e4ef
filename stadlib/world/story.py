"""What the members of a unit (a single, a pair, a trio) do: story cards and events as segments."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from stadlib.world import WORLD
from stadlib.world.actions import BACK, FRONT, LEFT, RIGHT, Segment
from stadlib.world.objects import ITEMS

Span = tuple[float, float]  # start and end in seconds
ROAM = ("wander", "passer")  # cards of one who walks about
APPROACH = 0.8  # seconds
LENGTH = 2.1  # seconds of an event: two keyframes
REACH, EMBRACE = 0.72, 0.25  # distance of two people whose hands meet, who hug; of a height


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
        """Append a segment that begins and ends at the actor's place unless ``more`` differs."""
        base = {"posture": self.posture, "x0": self.x, "x1": self.x}
        self.segments.append(Segment(start, end, action, **{**base, **more}))

    def insert(self, new: Segment) -> None:
        """Put ``new`` in place of what was to happen in its time."""
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


def _stay(start: float, end: float, action: str, side: int, x: float, **more: object) -> Segment:
    return Segment(start, end, action, facing=side, x0=x, x1=x, **more)  # type: ignore[arg-type]


# Activities


def quiet(actor: Actor, span: Span, side: int) -> None:
    """Only stand or sit, and look to ``side``."""
    actor.do(*span, "quiet", facing=side, phase=actor.number * 0.7)


def talk(actor: Actor, span: Span, side: int, rng: np.random.Generator) -> None:
    """Talk to ``side``, in bursts."""
    actor.do(*span, "talk", facing=side, **_bursts("talk", rng))


def _bursts(action: str, rng: np.random.Generator) -> dict[str, float]:
    if action not in WORLD["bursts"]:
        return {"phase": rng.uniform(0, 6)}
    burst, gap = WORLD["bursts"][action]
    return {"burst": rng.uniform(*burst), "gap": rng.uniform(*gap), "phase": rng.uniform(0, 6)}


def perform(actor: Actor, span: Span, what: str, side: int, rng: np.random.Generator,
            *, steady: bool = False) -> None:  # fmt: skip
    """Do ``what``, facing ``side`` where the activity leaves a choice; steadily or in bursts."""
    options: dict[str, object] = dict(_bursts(what, rng), facing=side)
    action = what
    if what in ("dance", "martial", "cut") or (what == "touch" and actor.posture == "sit"):
        options["posture"] = "stand"
    if what in ("crouch", "lie"):
        options["posture"], action = what, "quiet"
        options["facing"] = side if side in (LEFT, RIGHT) else RIGHT
    if what == "crouch" and rng.random() < 0.4:
        action = "touch"
    if what == "computer":
        options["posture"] = "sit"
    elif what == "hold":
        options["item"] = str(rng.choice(ITEMS))
    if steady or (what == "hold" and rng.random() < 0.5):
        options["gap"] = 0.0
    if what in ("computer", "cut", "touch", "instrument", "crouch", "lie"):
        options["facing"] = side if side in (LEFT, RIGHT) else int(rng.choice([LEFT, RIGHT]))
    actor.do(*span, action, **options)
    prop = {"computer": "desk", "cut": "worktop", "lie": "mat", "touch": "shelf"}.get(what)
    if prop:
        actor.props.add(prop)
        actor.prop_side = options["facing"]  # type: ignore[assignment]


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


def walk_home(actor: Actor, start: float, end: float) -> float:
    """Walk back to the actor's place in the row if need be; returns when it is reached."""
    if abs(actor.x - actor.home) < 1:
        return start
    return walk(actor, start, actor.home, end - 1, speed=20)


# Cards


def _aside(rng: np.random.Generator, outward: int) -> int:
    return int(rng.choice([outward, outward, FRONT, BACK]))


def single(kind: str, what: str, actor: Actor, span: Span, *, width: float,
           rng: np.random.Generator) -> None:  # fmt: skip
    """Play a card of one."""
    side = int(rng.choice([LEFT, RIGHT, FRONT, BACK], p=[0.35, 0.35, 0.2, 0.1]))
    if kind == "alone":
        perform(actor, span, what, side if side != BACK else FRONT, rng)
    elif kind == "quiet":
        quiet(actor, span, side)
    else:
        _roam(actor, span, width, rng, leave=kind == "passer")


def _roam(actor: Actor, span: Span, width: float, rng: np.random.Generator, leave: bool) -> None:
    """Stand, walk elsewhere (out of the frame if ``leave``), and come back, in turns."""
    t, end = span
    item = str(rng.choice(ITEMS)) if rng.random() < 0.25 else ""
    action = "hold" if item else "quiet"
    while t < end:
        stop = min(end, t + rng.uniform(2, 4.5))
        facing = int(rng.choice([LEFT, RIGHT, FRONT]))
        if actor.x < 0 or actor.x > width:
            actor.do(t, stop, "absent", posture="stand", facing=facing)
        else:
            actor.do(t, stop, action, posture="stand", facing=facing, item=item)
        if stop >= end:
            return
        target = actor.home
        if abs(actor.x - actor.home) < 1:
            out = float(rng.choice([-0.35 * actor.height, width + 0.35 * actor.height]))
            target = out if leave else rng.uniform(0.15, 0.85) * width
        t = walk(actor, stop, target, end, action=action, item=item)


def duo(kind: str, what: str, pair: list[Actor], span: Span, rng: np.random.Generator) -> None:
    """Play a card of two: ``pair`` is ordered from left to right."""
    first = int(rng.integers(2))
    a, b = pair[first], pair[1 - first]
    to_b = (RIGHT, LEFT)[first]
    to_a = -to_b
    if kind == "talk":  # a talks and b listens; in half of the long talks they change over
        start, end = span
        takes_turns = end - start > 11 and rng.random() < 0.5
        turn = (start + end) / 2 if takes_turns else end
        talk(a, (start, turn), to_b, rng)
        quiet(b, (start, turn), to_a)
        if turn < end:
            quiet(a, (turn, end), to_b)
            talk(b, (turn, end), to_a, rng)
    elif kind in ("show", "apart"):  # b watches what a does, or looks away
        perform(a, span, what, int(rng.choice([to_b, -to_b, FRONT])), rng)
        quiet(b, span, to_a if kind == "show" else _aside(rng, -to_a))
    elif kind == "fight":
        for actor, side in ((a, to_b), (b, to_a)):
            actor.do(*span, "fight", posture="stand", facing=side, phase=rng.uniform(0, 6))
    else:
        quiet(a, span, to_b)
        quiet(b, span, to_a if rng.random() < 0.6 else _aside(rng, -to_a))


def trio(kind: str, what: str, three: list[Actor], span: Span, rng: np.random.Generator) -> None:
    """Play a card of three: ``three`` is ordered from left to right."""
    left, middle, right = three
    side = int(rng.choice([LEFT, RIGHT]))
    near, far = (left, right) if side == LEFT else (right, left)
    if kind in ("talk", "split"):  # both hear the one in the middle, or one looks away
        talk(middle, span, side, rng)
        quiet(near, span, -side)
        quiet(far, span, side if kind == "talk" else _aside(rng, -side))
    elif kind == "show":
        perform(middle, span, what, int(rng.choice([LEFT, RIGHT, FRONT])), rng)
        quiet(near, span, -side)
        quiet(far, span, side if rng.random() < 0.6 else _aside(rng, -side))
    else:  # one talks to the middle
        talk(near, span, -side, rng)
        if kind == "crossed":  # the middle is busy; the other watches it
            perform(middle, span, what, int(rng.choice([side, -side, FRONT])), rng)
        else:
            quiet(middle, span, side)
        if kind == "side":  # the other is busy, and the middle does not see it
            perform(far, span, what, int(rng.choice([side, -side, FRONT])), rng)
        else:  # "behind": the other looks at the quiet listener
            quiet(far, span, side)


# Events: they interrupt a story


def play(
    kind: str, members: list[Actor], start: float, width: float, rng: np.random.Generator
) -> None:
    """Insert event ``kind`` at ``start`` seconds; ``members`` are one or two from left to right."""
    end, actor = start + LENGTH, members[0]
    x = actor.at(start).x(start)
    if kind == "give":
        _give(members, start, rng)
    elif kind in ("shake", "hug"):
        places = _meet(members, start, EMBRACE if kind == "hug" else REACH)
        for member, place, side in zip(members, places, (RIGHT, LEFT), strict=True):
            member.insert(_stay(start, end, kind, side, place))  # both hands move together
    elif kind == "wave":
        first = int(rng.integers(2))
        actor, side = members[first], (RIGHT, LEFT)[first]
        now = actor.at(start)
        posture = now.posture if now.posture in ("stand", "sit") else "stand"
        actor.insert(_stay(start, end, "wave", side, now.x(start), posture=posture))
    elif kind in ("leave", "dash"):
        _leave(actor, start, width, "run" if kind == "dash" else "walk")
    else:
        side = int(rng.choice([LEFT, RIGHT]))
        if kind == "getup":
            low = start - rng.uniform(2, 3.5)
            actor.insert(_stay(low, start, "quiet", side, x, posture="crouch"))
        actor.insert(_stay(start, end, kind, side, x, item="crouch" if kind == "getup" else ""))
        if kind == "fall":  # lie there for a while, then get up
            low = end + rng.uniform(1.0, 2.5)
            actor.insert(_stay(end, low, "quiet", side, x, posture="lie"))
            actor.insert(_stay(low, low + LENGTH, "getup", side, x, item="lie"))


def _meet(pair: list[Actor], start: float, distance: float) -> Span:
    """Both step up to each other before ``start`` and back after the event; returns the places."""
    a, b = pair
    height = (a.height + b.height) / 2
    ax, bx = a.at(start).x(start), b.at(start).x(start)
    middle, half = (ax + bx) / 2, distance * height / 2
    places = (middle - half, middle + half)
    for actor, x, place, side in ((a, ax, places[0], RIGHT), (b, bx, places[1], LEFT)):
        if abs(place - x) < 2:
            continue
        ahead, after = RIGHT if place > x else LEFT, start + LENGTH
        back = side if abs(place - x) < 6 else -ahead  # a short step back is taken backwards
        actor.insert(Segment(start - APPROACH, start, "quiet", "walk", ahead, x, place))
        actor.insert(Segment(after, after + APPROACH, "quiet", "walk", back, place, x))
    return places


def _give(pair: list[Actor], start: float, rng: np.random.Generator) -> None:
    """One has a thing in hand, both reach out, the other has it afterwards."""
    item = str(rng.choice(ITEMS))
    first = int(rng.integers(2))
    giver, taker = pair[first], pair[1 - first]
    side = (RIGHT, LEFT)[first]
    places = _meet(pair, start, REACH)
    gx, tx = places[first], places[1 - first]
    # the giver has it before, also on the way to the taker
    begin, pass_on, end = start - APPROACH, start + LENGTH / 2, start + LENGTH
    for old in [s for s in giver.segments if begin <= s.start < start]:
        giver.insert(replace(old, action="hold", item=item))
    x = giver.at(begin - 0.01).x(begin)
    giver.insert(_stay(begin - 1.2, begin, "hold", side, x, item=item))
    if giver.at(start - 0.01).posture != "walk":
        giver.insert(_stay(begin, start, "hold", side, gx, item=item))
    # it changes hands
    giver.insert(_stay(start, pass_on, "give", side, gx, item=item, partner=taker.number))
    giver.insert(_stay(pass_on, end, "give", side, gx, partner=taker.number))
    taker.insert(_stay(start, pass_on, "take", -side, tx, partner=giver.number))
    taker.insert(_stay(pass_on, end, "take", -side, tx, item=item, partner=giver.number))
    # the taker has it afterwards, also on the way back
    after = end
    for old in [s for s in taker.segments if after <= s.start < after + APPROACH]:
        if old.posture == "walk":
            taker.insert(replace(old, action="hold", item=item))
            after = old.end
    x = taker.at(after).x(after)
    taker.insert(_stay(after, after + rng.uniform(2, 4), "hold", -side, x, item=item))


def _leave(actor: Actor, start: float, width: float, posture: str) -> None:
    """Walk out at the nearer edge or run out at the farther one, stay away, come back."""
    x = actor.at(start).x(start)
    left, right = -0.3 * actor.height, width + 0.3 * actor.height
    running = posture == "run"  # the longer way, so that the run is seen
    target = left if (x < width / 2) != running else right
    way = max(1.0, abs(target - x) / (36.0 if running else 15.0))
    side = RIGHT if target > x else LEFT
    back = start + way + 1.5
    actor.insert(Segment(start, start + way, "quiet", posture, side, x, target))
    actor.insert(Segment(start + way, back, "absent", "stand", side, target, target))
    actor.insert(Segment(back, back + way, "quiet", posture, -side, target, x))

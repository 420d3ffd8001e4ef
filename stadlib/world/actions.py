"""What people do: segments of time and how they move the body, cards and events of a story.

Motions are slow (periods of 0.7 s and more) and wide, so that they stay legible at four frames a
second. Labels that last show their evidence in bursts: see ``Segment.evidence``. Distances are
pixels, times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import pi, sin

from numpy.random import Generator

from stadlib.data.layout import AVA_ACTIONS
from stadlib.world import WORLD
from stadlib.world.figures import Look, Pose, blend

LEFT, RIGHT, FRONT, BACK = -1, 1, 0, 2
# Pose.facing and Pose.back of a direction; sides show a little of the front
FACING = {LEFT: (-0.9, 0.0), RIGHT: (0.9, 0.0), FRONT: (0.0, 0.0), BACK: (0.0, 1.0)}
RAMP = 0.35  # seconds from one pose to the next
LISTEN, WATCH, TALK = 74, 80, 79
_POSE_OF_ACTION, _POSE_OF_POSTURE = WORLD["pose_of_action"], WORLD["pose_of_posture"]
_OTHER = WORLD["other"]
_IDS = {*_POSE_OF_ACTION.values(), *_POSE_OF_POSTURE.values(), *_OTHER.values(), LISTEN, WATCH}
#: AVA's names of the world's actions, by id
NAMES = {action_id: AVA_ACTIONS[action_id] for action_id in sorted(_IDS)}
WATCHED = frozenset(_OTHER) - {"talk"} | {"dance", "martial", "bend"}
ATTENTIVE = frozenset({"quiet", "hold"})  # may listen or watch; both look alike
ITEMS = ("box", "bag", "ball", "flowers", "tray")  # things to carry or hand over
ROAM = ("wander", "passer")  # cards of one who walks about
_PROPS = {"computer": "desk", "cut": "worktop", "lie": "mat", "touch": "shelf"}
_APPROACH = 0.8  # seconds
_LENGTH = 2.1  # seconds of an event: two keyframes
_REACH, _EMBRACE = 0.72, 0.25  # distance of two people whose hands meet, who hug; of a height
Span = tuple[float, float]  # start and end in seconds


@dataclass(frozen=True)
class Segment:
    """What one person does from ``start`` to ``end`` (seconds since the video's first frame)."""

    start: float
    end: float
    action: str
    posture: str = "stand"
    facing: int = FRONT
    x0: float = 0.0  # pixels, at the start
    x1: float = 0.0  # pixels, at the end
    burst: float = 0.0  # seconds of visible evidence in turn with
    gap: float = 0.0  # seconds without any; 0 = always visible
    phase: float = 0.0
    item: str = ""
    partner: int = -1

    @property
    def labels(self) -> tuple[int, ...]:
        """Action ids that follow from the segment alone: one pose, then what is done."""
        pose = _POSE_OF_ACTION.get(self.action, _POSE_OF_POSTURE[self.posture])
        return (pose, _OTHER[self.action]) if self.action in _OTHER else (pose,)

    def x(self, t: float) -> float:
        """Position at ``t`` in pixels."""
        share = min(1.0, max(0.0, (t - self.start) / (self.end - self.start)))
        return self.x0 + (self.x1 - self.x0) * share

    def evidence(self, t: float) -> float:
        """How visible the activity is at ``t``, 0 to 1, ramped at both ends of a burst."""
        if self.gap <= 0:
            return 1.0
        into = (t - self.start + self.phase) % (self.burst + self.gap)
        return max(0.0, min(1.0, into / RAMP, (self.burst - into) / RAMP))


def _wave(t: float, period: float, phase: float = 0.0) -> float:
    return sin(2 * pi * t / period + phase)


def _posture(posture: str, facing: int, phase: float, t: float) -> Pose:
    """Body and legs at ``t``, and arms that hang or swing."""
    sway = _wave(t, 3.1, phase * 5)
    pose = Pose(*FACING[facing], lean=1.5 * sway, ra_fore=12 + 4 * sway, la_fore=12 - 3 * sway)
    if posture not in WORLD["gaits"]:
        return pose._replace(**WORLD["postures"].get(posture, {}))
    period, wide, bend, lean = WORLD["gaits"][posture]
    swing = wide * _wave(t, period, phase)
    return pose._replace(
        l_thigh=swing, l_shin=swing * 0.6 - wide * 0.5,
        r_thigh=-swing, r_shin=-swing * 0.6 - wide * 0.5,
        la_upper=-swing, la_fore=-swing + bend + 8, ra_upper=swing, ra_fore=swing + bend + 8,
        lean=lean,
    )  # fmt: skip


def _busy(pose: Pose, action: str, t: float, phase: float) -> Pose:
    """The posture's ``pose`` with the limbs of ``action`` at full evidence."""
    if action in ("martial", "fight"):  # punches in turns, and a kick now and then
        swing = _wave(t, 1.1, phase)
        near, far = max(0.0, swing), max(0.0, -swing)
        kick = max(0.0, _wave(t, 3.3, phase) - 0.75) * 4
        return pose._replace(
            ra_upper=42 + 48 * near, ra_fore=138 - 48 * near,
            la_upper=42 + 48 * far, la_fore=138 - 48 * far,
            l_thigh=24 + 62 * kick, l_shin=-4 + 85 * kick, r_thigh=-22, r_shin=-26,
            lean=7 * near - 9 * kick + 4, spread=0.3,
        )  # fmt: skip
    fields = dict(WORLD["activities"].get(action, {}))
    for name, value in fields.items():
        if isinstance(value, list):
            mean, wide, period, *shift = value
            fields[name] = mean + wide * _wave(t, period, phase + sum(shift))
    if action == "dance":
        fields["bob"] = 0.02 * abs(_wave(t, 1.2, phase))
    return pose._replace(**fields)


def _unblended(segment: Segment, t: float) -> Pose:
    """The pose of a segment at ``t``, without the blend from the segment before."""
    pose = _posture(segment.posture, segment.facing, segment.phase, t)
    since = max(0.0, t - segment.start)
    if segment.action == "fall":
        down = pose._replace(roll=1.0, ra_upper=120, ra_fore=130, la_upper=100, la_fore=95)
        return blend(pose._replace(lean=0), down, min(1.0, since / 0.9) ** 2)
    if segment.action == "getup":  # from the low posture over a crouch
        share = min(1.0, since / (0.75 * (segment.end - segment.start)))
        low, crouched = (_posture(p, segment.facing, 0.0, t) for p in (segment.item, "crouch"))
        crouched = crouched._replace(ra_fore=70, la_fore=70, lean=40)
        if share < 0.5:
            return blend(low, crouched, share * 2)
        return blend(crouched, pose, share * 2 - 1)
    shown = segment.evidence(t)
    if shown <= 0 or segment.action == "quiet":
        return pose
    busy = _busy(pose, segment.action, t, segment.phase)
    return busy if shown >= 1 else blend(pose, busy, shown)


def pose_at(segments: Sequence[Segment], t: float) -> tuple[Pose, Segment]:
    """The blended pose and the current segment of a person at ``t``."""
    index = next((k for k, s in enumerate(segments) if t < s.end), len(segments) - 1)
    now = segments[index]
    pose, since = _unblended(now, t), t - now.start
    if index and since < RAMP and now.action not in ("getup", "fall"):
        pose = blend(_unblended(segments[index - 1], now.start), pose, since / RAMP)
    return pose, now


@dataclass
class Person:
    """One person of a video, and what happens to it."""

    number: int
    x: float  # where the story has brought it
    height: float  # standing
    ground: float  # of the feet
    posture: str
    width: float  # of the frame
    home: float = 0.0  # the place in the row of persons
    look: Look | None = None
    segments: list[Segment] = field(default_factory=list)
    props: set[str] = field(default_factory=set)  # furniture, at the first place
    prop_side: int = RIGHT

    def do(self, start: float, end: float, action: str, **more: object) -> None:
        """Append a segment that begins and ends at the person's place unless ``more`` differs."""
        base = {"posture": self.posture, "x0": self.x, "x1": self.x}
        self.segments.append(Segment(start, end, action, **{**base, **more}))

    def insert(self, start: float, end: float, action: str, facing: int, x: float,
               *, to: float | None = None, **more: object) -> None:  # fmt: skip
        """Put a segment in place of what was to happen in its time; without ``to`` it stays."""
        segments = []
        for old in self.segments:
            if old.start < start:
                until = min(old.end, start)
                segments.append(replace(old, end=until, x1=old.x(until)))
            if old.end > end:
                since = max(old.start, end)
                late = since - old.start
                segments.append(replace(old, start=since, x0=old.x(since), phase=old.phase + late))
        more |= {"facing": facing, "x0": x, "x1": x if to is None else to}
        segments.append(Segment(start, end, action, **more))
        self.segments = sorted(segments, key=lambda s: s.start)

    def at(self, t: float) -> Segment:
        """The segment that holds ``t``."""
        return next((s for s in self.segments if s.start <= t < s.end), self.segments[-1])


def quiet(person: Person, span: Span, side: int) -> None:
    """Only stand or sit, and look to ``side``."""
    person.do(*span, "quiet", facing=side, phase=person.number * 0.7)


def perform(person: Person, span: Span, what: str, side: int, rng: Generator,
            *, steady: bool = False) -> None:  # fmt: skip
    """Do ``what``, facing ``side`` where the activity leaves a choice; steadily or in bursts."""
    action, posture, item, burst, gap = what, person.posture, "", 0.0, 0.0
    if what in WORLD["bursts"]:
        burst, gap = (rng.uniform(*seconds) for seconds in WORLD["bursts"][what])
    phase = rng.uniform(0, 6)
    if not (what == "touch" and posture != "sit"):
        posture = WORLD["posture_of"].get(what, posture)
    if what in ("crouch", "lie"):
        action = "touch" if what == "crouch" and rng.random() < 0.4 else "quiet"
    elif what == "hold":
        item = str(rng.choice(ITEMS))
    if steady or (what == "hold" and rng.random() < 0.5):
        gap = 0.0
    if what in (*_PROPS, "instrument", "crouch") and side not in (LEFT, RIGHT):
        side = int(rng.choice([LEFT, RIGHT]))
    evidence = {"burst": burst, "gap": gap, "phase": phase}
    person.do(*span, action, posture=posture, facing=side, item=item, **evidence)
    if what in _PROPS:
        person.props.add(_PROPS[what])
        person.prop_side = side


def _walk(person: Person, span: Span, target: float, *, speed: float = 14.0,
          action: str = "quiet", item: str = "") -> float:  # fmt: skip
    """Walk to ``target`` at ``speed`` (pixels a second) while ``span`` lasts; returns the end."""
    start, limit = span
    seconds = max(0.8, abs(target - person.x) / speed)
    end = min(limit, start + seconds)
    reached = person.x + (target - person.x) * (end - start) / seconds
    facing = RIGHT if target > person.x else LEFT
    person.do(start, end, action, posture="walk", facing=facing, x1=reached, item=item)
    person.x = reached
    return end


# Cards. The members of a unit are ordered from left to right.


def single(kind: str, what: str, unit: list[Person], span: Span, rng: Generator) -> None:
    """Play a card of one: first return to the place in the row, then act, rest or roam."""
    (person,), (t, end) = unit, span
    if abs(person.x - person.home) >= 1:
        t = _walk(person, (t, end - 1), person.home, speed=20)
    side = int(rng.choice([LEFT, RIGHT, FRONT, BACK], p=[0.35, 0.35, 0.2, 0.1]))
    if kind == "alone":
        return perform(person, (t, end), what, side if side != BACK else FRONT, rng)
    if kind == "quiet":
        return quiet(person, (t, end), side)
    # stand, walk elsewhere (a passer: out of the frame) and come back, in turns
    item = str(rng.choice(ITEMS)) if rng.random() < 0.25 else ""
    action = "hold" if item else "quiet"
    while t < end:
        stop = min(end, t + rng.uniform(2, 4.5))
        look = {"posture": "stand", "facing": int(rng.choice([LEFT, RIGHT, FRONT]))}
        if 0 <= person.x <= person.width:
            person.do(t, stop, action, item=item, **look)
        else:
            person.do(t, stop, "absent", **look)
        if stop >= end:
            break
        target = person.home
        if abs(person.x - person.home) < 1:
            beyond = 0.35 * person.height
            out = float(rng.choice([-beyond, person.width + beyond]))
            target = out if kind == "passer" else rng.uniform(0.15, 0.85) * person.width
        t = _walk(person, (stop, end), target, action=action, item=item)
    return None


def ensemble(kind: str, what: str, unit: list[Person], span: Span, rng: Generator) -> None:
    """Play a card of two or three by its directions in ``world.toml``."""
    start, end = span
    unit, ahead = (unit[::-1], LEFT) if rng.integers(2) else (unit, RIGHT)
    # in half of the long talks of two the listener talks later
    takes_turns = kind == "talk" and len(unit) == 2 and end - start > 11 and rng.random() < 0.5
    turn = (start + end) / 2 if takes_turns else end
    for index, does, looks in WORLD["directions"][str(len(unit))][kind]:
        inward = -ahead if index else ahead
        if looks == "mostly inward":
            looks = "inward" if rng.random() < 0.6 else "aside"  # noqa: PLW2901
        sides = {
            "inward": [inward],
            "aside": [-inward, -inward, FRONT, BACK],
            "either": [inward, -inward, FRONT],
            "anywhere": [LEFT, RIGHT, FRONT],
        }[looks]
        side = inward if looks == "inward" else int(rng.choice(sides))
        if does == "quiet":
            quiet(unit[index], (start, turn), side)
        else:
            perform(unit[index], (start, turn), does or what, side, rng)
    if takes_turns:
        quiet(unit[0], (turn, end), ahead)
        perform(unit[1], (turn, end), "talk", -ahead, rng)


# Events interrupt a story.


def play(kind: str, members: list[Person], start: float, rng: Generator) -> None:
    """Insert event ``kind`` at ``start`` seconds; ``members`` are one or two from left to right."""
    end, person = start + _LENGTH, members[0]
    x = person.at(start).x(start)
    if kind == "give":
        _give(members, start, rng)
    elif kind in ("shake", "hug"):
        places = _meet(members, start, _EMBRACE if kind == "hug" else _REACH)
        for member, place, side in zip(members, places, (RIGHT, LEFT), strict=True):
            member.insert(start, end, kind, side, place)  # both hands move together
    elif kind == "wave":
        first = int(rng.integers(2))
        person, side = members[first], (RIGHT, LEFT)[first]
        now = person.at(start)
        posture = now.posture if now.posture in ("stand", "sit") else "stand"
        person.insert(start, end, "wave", side, now.x(start), posture=posture)
    elif kind in ("leave", "dash"):  # walk out at the nearer edge or run out at the farther one
        posture, speed = ("run", 36.0) if kind == "dash" else ("walk", 15.0)
        beyond = 0.3 * person.height
        to_left = (x < person.width / 2) != (kind == "dash")
        target = -beyond if to_left else person.width + beyond
        way, side = max(1.0, abs(target - x) / speed), RIGHT if target > x else LEFT
        back = start + way + 1.5
        person.insert(start, start + way, "quiet", side, x, to=target, posture=posture)
        person.insert(start + way, back, "absent", side, target)
        person.insert(back, back + way, "quiet", -side, target, to=x, posture=posture)
    else:
        side = int(rng.choice([LEFT, RIGHT]))
        if kind == "getup":
            low = start - rng.uniform(2, 3.5)
            person.insert(low, start, "quiet", side, x, posture="crouch")
        person.insert(start, end, kind, side, x, item="crouch" if kind == "getup" else "")
        if kind == "fall":  # lie there for a while, then get up
            low = end + rng.uniform(1.0, 2.5)
            person.insert(end, low, "quiet", side, x, posture="lie")
            person.insert(low, low + _LENGTH, "getup", side, x, item="lie")


def _meet(pair: list[Person], start: float, distance: float) -> Span:
    """Both step up to each other before ``start`` and back after the event; returns the places."""
    a, b = pair
    ax, bx = a.at(start).x(start), b.at(start).x(start)
    middle, half = (ax + bx) / 2, distance * ((a.height + b.height) / 2) / 2
    places = (middle - half, middle + half)
    for person, x, place, side in ((a, ax, places[0], RIGHT), (b, bx, places[1], LEFT)):
        if abs(place - x) >= 2:
            ahead, after = RIGHT if place > x else LEFT, start + _LENGTH
            back = side if abs(place - x) < 6 else -ahead  # a short step back is taken backwards
            person.insert(start - _APPROACH, start, "quiet", ahead, x, to=place, posture="walk")
            person.insert(after, after + _APPROACH, "quiet", back, place, to=x, posture="walk")
    return places


def _give(pair: list[Person], start: float, rng: Generator) -> None:
    """One has a thing in hand, both reach out, the other has it afterwards."""
    item = str(rng.choice(ITEMS))
    first = int(rng.integers(2))
    giver, taker, side = pair[first], pair[1 - first], (RIGHT, LEFT)[first]
    places = _meet(pair, start, _REACH)
    gx, tx = places[first], places[1 - first]
    # the giver has it before, also on the way to the taker
    begin, pass_on, end = start - _APPROACH, start + _LENGTH / 2, start + _LENGTH
    for k, old in enumerate(giver.segments):
        if begin <= old.start < start:
            giver.segments[k] = replace(old, action="hold", item=item)
    x = giver.at(begin - 0.01).x(begin)
    giver.insert(begin - 1.2, begin, "hold", side, x, item=item)
    if giver.at(start - 0.01).posture != "walk":
        giver.insert(begin, start, "hold", side, gx, item=item)
    # it changes hands
    giver.insert(start, pass_on, "give", side, gx, item=item, partner=taker.number)
    giver.insert(pass_on, end, "give", side, gx, partner=taker.number)
    taker.insert(start, pass_on, "take", -side, tx, partner=giver.number)
    taker.insert(pass_on, end, "take", -side, tx, item=item, partner=giver.number)
    # the taker has it afterwards, also on the way back
    after = end
    for k, old in enumerate(taker.segments):
        if end <= old.start < end + _APPROACH and old.posture == "walk":
            taker.segments[k] = replace(old, action="hold", item=item)
            after = old.end
    x = taker.at(after).x(after)
    taker.insert(after, after + rng.uniform(2, 4), "hold", -side, x, item=item)

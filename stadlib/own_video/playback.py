"""Who is where, and does what, at any time between the looks: what a drawn frame shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stadlib.own_video.sightings import Look, Sighting, shown_actions


@dataclass(frozen=True, eq=False)
class Seen:
    """A person in a frame: number, box (4,) as fractions, (action, score) from the highest down."""

    number: int
    box: np.ndarray
    actions: list[tuple[int, float]]


class Playback:
    """Goes through the sightings of a video once, in step with its frames.

    Args:
        sightings: all of them, in order; one is held at a time, and the next.
        ids: the actions of the scores.
    """

    def __init__(self, sightings: Iterable[Sighting], ids: Sequence[int]) -> None:
        self._left, self.ids = iter(sightings), ids
        self._now, self._next = next(self._left, None), next(self._left, None)

    def at(self, time: float) -> list[Seen]:
        """The persons of a frame; ``time`` must not go back.

        The nearest look says who is there, with boxes on the straight line from look to look;
        the nearest second says what they do, or the one on the other side of persons it lacks.
        """
        while self._next is not None and self._next.second <= time:
            self._now, self._next = self._next, next(self._left, None)
        if self._now is None:
            return []
        looks = self._now.looks + ([self._next.looks[0]] if self._next else [])
        earlier = [look for look in looks if look.time <= time] or looks[:1]
        before, after = earlier[-1], looks[min(len(earlier), len(looks) - 1)]
        share = (time - before.time) / max(after.time - before.time, 1e-6)
        nearest = before if share < 0.5 or after is before else after
        return [
            Seen(number, _between(before, after, share, number), self._actions(time, number))
            for number in sorted(nearest.numbers)
        ]

    def _actions(self, time: float, number: int) -> list[tuple[int, float]]:
        seconds = [sighting for sighting in (self._now, self._next) if sighting is not None]
        seconds.sort(key=lambda sighting: abs(sighting.second - time))
        scores = (sighting.scores(number) for sighting in seconds)
        found = next((own for own in scores if own is not None), None)
        return [] if found is None else shown_actions(found, self.ids)


def _between(before: Look, after: Look, share: float, number: int) -> np.ndarray:
    """A box on the way from a look to the next, or where one of them found it."""
    first, last = before.box(number), after.box(number)
    if first is None or last is None:
        return last if first is None else first
    return first + min(max(share, 0.0), 1.0) * (last - first)

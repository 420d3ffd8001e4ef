"""Who is who from one look to the next: boxes joined to tracks by overlap.

Greedy matching by IoU, as SORT without its motion model (Bewley et al. 2016). On thirty validation
movies of the miniature world, four looks a second with v3's boxes, 7 of 100 people have another
number than a second before. People who cross may swap numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stadlib.evaluation.matching import overlaps

LEAST = 0.1  # IoU of a box with where its person was last: people walk between looks
GONE = 1.0  # seconds without a box, after which a person gets a new number


@dataclass
class Tracks:
    """The persons of a video so far; numbers count from 1 in the order of their first look."""

    number: int = 0  # of the latest new person
    known: dict[int, tuple[float, np.ndarray]] = field(default_factory=dict)  # last seen: time, box

    def update(self, time: float, boxes: np.ndarray) -> list[int]:
        """Number the persons of a look by their boxes (N, 4); ``time`` grows from call to call."""
        self.known = {n: at for n, at in self.known.items() if time - at[0] <= GONE + 1e-6}
        joined: dict[int, int] = {}  # place of a box: number
        if self.known and len(boxes):
            names, last = list(self.known), np.stack([box for _, box in self.known.values()])
            iou = overlaps(np.repeat(boxes, len(last), axis=0), np.tile(last, (len(boxes), 1)))
            for pair in np.argsort(-iou, kind="stable"):  # the largest overlap first
                place, number = int(pair) // len(last), names[pair % len(last)]
                free = place not in joined and number not in joined.values()
                if free and iou[pair] >= LEAST:
                    joined[place] = number
        new = [place for place in range(len(boxes)) if place not in joined]
        joined |= {place: self.number + count for count, place in enumerate(new, 1)}
        numbers = [joined[place] for place in range(len(boxes))]
        self.number = max([self.number, *numbers])
        self.known |= {n: (time, box) for n, box in zip(numbers, boxes, strict=True)}
        return numbers

"""Who is who from one look to the next: boxes joined to tracks by overlap.

Greedy matching by IoU, as SORT without its motion model (Bewley et al. 2016), for looks that come
several times a second. On thirty validation movies of the miniature world, with v3's boxes four
times a second, 7 of 100 people have another number than a second before. A model of velocity or the
use of low-scoring boxes changed that by less than one. People who cross may swap numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stadlib.evaluation.matching import overlaps

LEAST = 0.1  # IoU of a box with where its person was last: people walk between looks
GONE = 1.0  # seconds without a box, after which a person gets a new number


@dataclass
class Tracks:
    """The persons of a video so far; numbers count from 1 in the order of their first look.

    Attributes:
        number: of the latest new person.
        known: by number, when a person was last seen and where: (seconds, box (4,)).
    """

    number: int = 0
    known: dict[int, tuple[float, np.ndarray]] = field(default_factory=dict)

    def update(self, time: float, boxes: np.ndarray) -> list[int]:
        """Give every box of a look the number of its person.

        Args:
            time: seconds, later than at the call before.
            boxes: (N, 4), x1 y1 x2 y2 as fractions of the frame.

        Returns:
            N numbers, all different.
        """
        self.known = {n: at for n, at in self.known.items() if time - at[0] <= GONE + 1e-6}
        joined: dict[int, int] = {}  # place of a box: number
        if self.known and len(boxes):
            names, last = list(self.known), np.stack([box for _, box in self.known.values()])
            pairs = np.repeat(boxes, len(last), axis=0), np.tile(last, (len(boxes), 1))
            iou = overlaps(*pairs)
            for pair in np.argsort(-iou, kind="stable"):  # the largest overlap first
                place, number = int(pair) // len(last), names[pair % len(last)]
                free = place not in joined and number not in joined.values()
                if free and iou[pair] >= LEAST:
                    joined[place] = number
        new = [place for place in range(len(boxes)) if place not in joined]
        joined |= {place: self.number + count for count, place in enumerate(new, 1)}
        numbers = [joined[place] for place in range(len(boxes))]
        self.replay(time, numbers, boxes)
        return numbers

    def replay(self, time: float, numbers: list[int], boxes: np.ndarray) -> None:
        """Take note of a look whose persons are known, as an interrupted call left it."""
        self.number = max([self.number, *numbers])
        self.known |= {n: (time, box) for n, box in zip(numbers, boxes, strict=True)}

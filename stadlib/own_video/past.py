"""What a model remembers while a video runs: persons of the seconds before the present.

The study's banks also know the seconds after (:mod:`stadlib.memory`); a video that is being
watched has none yet.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from stadlib.remembered import Memory, nobody


class Past:
    """Tokens of the persons of the last seconds, in the order of time.

    Args:
        span: seconds back; 0 remembers nobody.
        max_persons: of a second.
        width: C of the tokens.
    """

    def __init__(self, span: int, max_persons: int, width: int) -> None:
        self.span, self.max_persons, self.width = span, max_persons, width
        self._seconds: deque[tuple[int, Tensor, Tensor]] = deque()

    def keep(self, second: int, tokens_NLC: Tensor, boxes_N4: Tensor) -> None:
        """Remember the persons of a second, the surest first; of two moments in it, the first's.

        Tokens are rounded as banks round them.
        """
        if not self.span or (self._seconds and self._seconds[-1][0] == second):
            return
        some = slice(self.max_persons)
        self._seconds.append((second, tokens_NLC[some].half().float(), boxes_N4[some]))
        while self._seconds[0][0] < second - self.span:
            self._seconds.popleft()

    def before(self, second: int) -> Memory:
        """What a clip of that second remembers, B = 1."""
        those = [s for s in self._seconds if second - self.span <= s[0] < second and len(s[2])]
        if not those:
            return nobody(1, self.width)
        seconds, tokens, boxes = zip(*those, strict=True)
        when = [s - second for s, own in zip(seconds, boxes, strict=True) for _ in own]
        seconds_BM = torch.tensor([when], device=boxes[0].device)
        mask_BM = torch.ones_like(seconds_BM, dtype=torch.bool)
        return Memory(torch.cat(tokens)[None], mask_BM, seconds_BM, torch.cat(boxes)[None])

"""The online bank: what persons looked like when the model last saw them, kept as it trains.

Paper section 2.3. Its content belongs to an iteration of the training, so a copy is put aside with
every checkpoint: a run that was killed goes on from the memory it had then, bit for bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from torch import Tensor

from stadlib import processes
from stadlib.data.annotations import Keyframe
from stadlib.features import one_a_second, open_bank, second_key
from stadlib.memory import FeatureBank, second_of


class OnlineBanks:
    """One growing bank a source.

    Args:
        folder: for the banks and their copies.
        provenance: see :class:`FeatureBank`.
        size: L and C of the tokens.
        keyframes: by source, those that training will show; there is room for them alone, and
            of two in one second for the first.
    """

    def __init__(
        self,
        folder: Path,
        provenance: Mapping,
        size: tuple[int, int],
        keyframes: Mapping[str, Sequence[Keyframe]],
    ) -> None:
        self.folder, self.provenance, self.size = folder, provenance, size
        first = {source: one_a_second(those) for source, those in keyframes.items()}
        self.rows = {
            source: [(*second_key(keyframe), len(keyframe.boxes)) for keyframe in those]
            for source, those in first.items()
        }
        self.kept = {(k.source, k.video, k.timestamp) for those in first.values() for k in those}
        self.banks: dict[str, FeatureBank] = {}
        self.seen: list[tuple] = []  # in this iteration, by this process

    def restore(self, iteration: int) -> None:
        """Go back to the copy of an iteration; 0 is before the first, when nobody is remembered."""
        self.banks.clear()
        self.seen.clear()
        for source, rows in self.rows.items():
            live, copy = self.folder / source, self._copy(source, iteration)
            if processes.rank() == 0:
                shutil.rmtree(live, ignore_errors=True)
                if iteration:
                    FeatureBank(copy, self.provenance).copy(live)
            self.banks[source] = open_bank(live, self.provenance, self.size, rows)

    def keep(self, iteration: int) -> None:
        """Put a copy aside, before the checkpoint of that iteration is written.

        The copy before it stays, since the older checkpoint is good until the newer one is whole.
        """
        self.settle()
        if processes.rank() == 0:
            for source, bank in self.banks.items():
                copies = self.folder.glob(f"{source}-*")
                for stale in sorted(copies, key=_iteration_of)[:-1]:
                    shutil.rmtree(stale)
                bank.copy(self._copy(source, iteration))
        processes.barrier()

    def update(
        self, keys: Sequence[tuple[str, str, float]], counts_B: Tensor, tokens_NLC: Tensor,
        boxes_N4: Tensor,
    ) -> None:  # fmt: skip
        """Note what was seen of a share's clips, for :meth:`settle`.

        Args:
            keys: (source, video, timestamp) a clip; those without room are passed over.
            counts_B: persons a clip.
            tokens_NLC: their tokens, those of clip 0 first.
            boxes_N4: as fractions of the frame.
        """
        if not self.banks:
            return
        counts = counts_B.tolist()
        tokens, boxes = (x.detach().cpu().split(counts) for x in (tokens_NLC, boxes_N4))
        self.seen.append(tuple(zip(keys, counts_B.cpu(), tokens, boxes, strict=True)))

    def settle(self) -> None:
        """Replace what is known of the clips of an iteration, those of all processes."""
        if not self.banks:
            return
        places = processes.gather([(place, own) for place, own in enumerate(self.seen)])
        self.seen.clear()
        shares = [share for _, share in sorted(places, key=lambda pair: pair[0])]
        # Clip c of share s is number c * S + s of the global batch; of two the later one counts.
        for clips in zip_longest(*shares):
            for clip in clips:
                if processes.rank() == 0 and clip and clip[0] in self.kept:
                    (source, video, timestamp), count, tokens_NLC, boxes_N4 = clip
                    key = (video, second_of(timestamp))
                    self.banks[source].write([key], count[None], tokens_NLC, boxes_N4)
        processes.barrier()

    def _copy(self, source: str, iteration: int) -> Path:
        return self.folder / f"{source}-{iteration:08d}"


def _iteration_of(copy: Path) -> int:
    return int(copy.name.rsplit("-", 1)[1])

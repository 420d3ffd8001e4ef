"""Average voting: one detection file out of several that score the same boxes.

The paper's ensemble (last row of Table 1) is called "average voting" and no more; here it is the
mean of the scores of every (video, timestamp, box, action), all members counting alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from stadlib.base import InputError
from stadlib.data.rows import NO_LABEL, PART, read_rows, spelled, write_rows

BOX = ["x1", "y1", "x2", "y2"]
KEY = ["video", "timestamp", *BOX]  # of a box, all whole numbers
DIGITS = 10  # of a mean score: two more than members have
_REMEDY = "score all members on one box file"


def average(files: Sequence[Path], out: Path) -> tuple[int, int]:
    """Write the mean of the members' scores to ``out``, box by box and action by action.

    Members are read one after the other into a running sum, so that memory holds one of them,
    whatever their number; their rows may stand in any order. Boxes and timestamps are equal if
    they agree to six decimals, as detection files are written.

    An action that a member does not name on a box that it does name counts there as score 0: the
    evaluator, too, ranks an absent row behind all others, and files often leave low scores out. A
    box that a member does not name at all is an error, because it was not scored: that happens
    where members have other boxes, or were already cut to the rows of an image that count. Average
    whole files, then cut (``stadlib submit``).

    Args:
        files: detection files, 8 columns, scores in [0, 1].
        out: the file to write: boxes in the order of the first member, actions ascending.

    Returns:
        How many boxes and rows were written.

    Raises:
        InputError: a file cannot be read, is given twice, names a row twice or has a score outside
            [0, 1], or the members do not have the same boxes; names file, row and remedy.
    """
    paths = [path.resolve() for path in files]
    if not files:
        raise InputError(f"{out}: no member; name the detection files to average")
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise InputError(f"{files[number]}: given twice; name it once")
    if out.resolve() in paths:
        raise InputError(f"{out}: is one of the members; give --out another name")
    sums = _Sums(files[0])
    for path in files:
        sums.add(path)
    rows = write_rows(out, sums.parts(len(files)))
    return len(sums.boxes), rows


@dataclass
class _Sums:
    """The running sum. P boxes, A actions.

    Attributes:
        first: the file that says which boxes there are.
        videos: their names; ``boxes`` has their positions.
        boxes: P rows of :data:`KEY`, of ``box``, their position, and of the file's ``row``.
        actions: ids in the order of the columns.
        scores: (P, A) sums.
        named: (P, A) whether any member names the action on the box.
    """

    first: Path
    videos: dict[str, int] = field(default_factory=dict)
    boxes: pl.DataFrame | None = None
    actions: list[int] = field(default_factory=list)
    scores: np.ndarray | None = None
    named: np.ndarray | None = None

    def add(self, path: Path) -> None:
        """Add one member's scores."""
        table = _read(path)
        keys = self._keys(table)
        if self.boxes is None:
            self.boxes = keys.with_row_index("row").unique(KEY, keep="first", maintain_order=True)
            self.boxes = self.boxes.with_row_index("box")
            self.scores = np.zeros((len(self.boxes), 0))
            self.named = np.zeros((len(self.boxes), 0), bool)
        box = self._places(path, keys)
        del keys
        column = self._columns(table["action_id"].to_numpy())
        cell = box * len(self.actions) + column
        seen = np.zeros(self.scores.size, bool)
        seen[cell] = True
        if np.count_nonzero(seen) < len(cell):
            row = int(np.flatnonzero(pd.Series(cell).duplicated())[0])
            words = f"action {self.actions[column[row]]} of this box stands in an earlier row too"
            raise InputError(f"{path}, row {row + 1}: {words}; keep one of the two")
        self.scores.reshape(-1)[cell] += table["score"].to_numpy()
        self.named |= seen.reshape(self.named.shape)

    def _keys(self, table: pd.DataFrame) -> pl.DataFrame:
        """:data:`KEY` of every row; a video that the first member lacks is -1."""
        names = table["video"].cat.categories
        if self.boxes is None:
            self.videos = {str(name): number for number, name in enumerate(names)}
        numbers = np.array([self.videos.get(str(name), -1) for name in names], np.int32)
        columns = {"video": numbers[table["video"].cat.codes.to_numpy()]}
        for name in KEY[1:]:
            columns[name] = np.rint(table[name].to_numpy() * 1e6).astype(np.int64)
        return pl.DataFrame(columns)

    def _places(self, path: Path, keys: pl.DataFrame) -> np.ndarray:
        """Which box each row is of; refuses other boxes than the first member's."""
        found = keys.join(self.boxes.select(*KEY, "box"), on=KEY, how="left", maintain_order="left")
        if found["box"].null_count():
            row = int(found["box"].is_null().to_numpy().argmax())
            words = f"a box that {self.first} does not have"
            raise InputError(f"{path}, row {row + 1}: {words}; {_REMEDY}")
        box = found["box"].to_numpy().astype(np.int64)
        missed = np.bincount(box, minlength=len(self.boxes)) == 0
        if missed.any():
            row = self.boxes["row"][int(missed.argmax())] + 1
            words = f"lacks {missed.sum()} boxes of {self.first}, first that of row {row}"
            raise InputError(f"{path}: {words}; {_REMEDY}")
        return box

    def _columns(self, actions: np.ndarray) -> np.ndarray:
        """The column of every row's action; new actions get new ones."""
        known, place = np.unique(actions, return_inverse=True)
        self.actions += [int(action) for action in known if action not in self.actions]
        added = ((0, 0), (0, len(self.actions) - self.scores.shape[1]))
        self.scores, self.named = np.pad(self.scores, added), np.pad(self.named, added)
        return np.array([self.actions.index(action) for action in known], np.int64)[place]

    def parts(self, num_members: int) -> Iterator[pl.DataFrame]:
        """The means as rows of a detection file, in parts."""
        columns = np.argsort(self.actions)
        ids, videos = np.array(self.actions, np.int32)[columns], list(self.videos)
        step = max(1, PART // max(1, len(ids)))
        for start in range(0, len(self.boxes), step):
            own = slice(start, start + step)
            box, place = np.nonzero(self.named[own][:, columns])
            keys = self.boxes[own].select(KEY)[box]
            codes, moments = pd.factorize(keys["timestamp"].to_numpy())
            texts = [f"{moment / 1e6:.6f}" for moment in moments]
            means = self.scores[own][:, columns][box, place] / num_members
            yield pl.DataFrame(
                {
                    "video": spelled(videos, keys["video"].to_numpy()),
                    "timestamp": spelled(texts, codes),
                    **{name: keys[name].to_numpy() / 1e6 for name in BOX},
                    "action_id": ids[place],
                    "score": means.round(DIGITS),
                }
            )


def _read(path: Path) -> pd.DataFrame:
    """A member's rows, every one with an action and a score."""
    table = read_rows(path)
    with path.open(errors="replace") as file:
        width = next((line.count(",") + 1 for line in file if line.strip()), 0)
    if len(table) and width < 8:
        raise InputError(f"{path}, row 1: {width} columns; a detection has 8, the last its score")
    score = table["score"].to_numpy()
    for wrong, words in (
        (table["action_id"].to_numpy() == NO_LABEL, "no action; drop the row"),
        ((score < 0) | (score > 1), "a score outside [0, 1]; apply the sigmoid"),
    ):
        if wrong.any():
            raise InputError(f"{path}, row {int(wrong.argmax()) + 1}: {words}")
    return table

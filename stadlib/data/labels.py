"""Action names and ids: AVA's 60 evaluated classes, and label maps on disk.

Floor 0: no torch, so that words and files are refused before anything slow is imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from stadlib.base import InputError

Group = Literal["pose", "object", "person"]
AVA_ACTIONS: dict[int, str] = {
    1: "bend/bow (at the waist)",
    3: "crouch/kneel",
    4: "dance",
    5: "fall down",
    6: "get up",
    7: "jump/leap",
    8: "lie/sleep",
    9: "martial art",
    10: "run/jog",
    11: "sit",
    12: "stand",
    13: "swim",
    14: "walk",
    15: "answer phone",
    17: "carry/hold (an object)",
    20: "climb (e.g., a mountain)",
    22: "close (e.g., a door, a box)",
    24: "cut",
    26: "dress/put on clothing",
    27: "drink",
    28: "drive (e.g., a car, a truck)",
    29: "eat",
    30: "enter",
    34: "hit (an object)",
    36: "lift/pick up",
    37: "listen (e.g., to music)",
    38: "open (e.g., a window, a car door)",
    41: "play musical instrument",
    43: "point to (an object)",
    45: "pull (an object)",
    46: "push (an object)",
    47: "put down",
    48: "read",
    49: "ride (e.g., a bike, a car, a horse)",
    51: "sail boat",
    52: "shoot",
    54: "smoke",
    56: "take a photo",
    57: "text on/look at a cellphone",
    58: "throw",
    59: "touch (an object)",
    60: "turn (e.g., a screwdriver)",
    61: "watch (e.g., TV)",
    62: "work on a computer",
    63: "write",
    64: "fight/hit (a person)",
    65: "give/serve (an object) to (a person)",
    66: "grab (a person)",
    67: "hand clap",
    68: "hand shake",
    69: "hand wave",
    70: "hug (a person)",
    72: "kiss (a person)",
    73: "lift (a person)",
    74: "listen to (a person)",
    76: "push (another person)",
    77: "sing to (e.g., self, a person, a group)",
    78: "take (an object) from (a person)",
    79: "talk to (e.g., self, a person, a group)",
    80: "watch (a person)",
}
"""The 60 classes of AVA v2.2 that the ActivityNet challenge evaluates, by AVA's own id."""
AVA_IDS = range(1, 81)
"""Every id that AVA's files may use; the 20 that ``AVA_ACTIONS`` lacks are not evaluated."""
_BLOCK = re.compile(
    r"\s*(?P<kind>item|label)\s*\{(?P<body>(?:\s*\w+\s*:\s*(?:\"[^\"\n]*\"|\w+))*)\s*\}"
)
_FIELD = re.compile(r"(\w+)\s*:\s*(?:\"([^\"\n]*)\"|(\w+))")
_ID_FIELD = {"item": "id", "label": "label_id"}


def group(action_id: int) -> Group:
    """AVA's group of an action: the pose of a person, a person with an object, two persons."""
    if action_id <= 14:
        return "pose"
    return "object" if action_id <= 63 else "person"


LASTING = frozenset({15, 17, 27, 29, 48, 57, 74, 79, 80})
"""Actions that last while they show only now and then, in the miniature world: answering a phone,
holding, drinking, eating, reading, texting, talking, and listening to or watching who does so."""


@dataclass(frozen=True)
class LabelMap:
    """Which actions exist, and in which column of an action array each of them stands.

    Attributes:
        names: the action's name by its id, for instance ``{12: "stand"}``.
    """

    names: dict[int, str]

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Ids in ascending order: the column order of every action array."""
        return tuple(sorted(self.names))

    @cached_property
    def _columns(self) -> dict[int, int]:
        return {action_id: column for column, action_id in enumerate(self.ids)}

    @property
    def num_actions(self) -> int:
        """Columns of every action array."""
        return len(self.names)

    def column(self, action_id: int) -> int:
        """Column of an action in every action array; KeyError where the map lacks the id."""
        return self._columns[action_id]

    def name(self, action_id: int) -> str:
        """The action's name; KeyError where the map lacks the id."""
        return self.names[action_id]


def read_label_map(path: str | Path) -> LabelMap:
    """Read a label map in either public form.

    The 60-class file says ``item { name id }``, the 80-class one ``label { name label_id
    label_type }`` (AVA v2.2 downloads).

    Raises:
        InputError: the file is missing or empty, a block cannot be read, or an id comes twice;
            the line names file and row.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read this label map ({error}); check the path") from error
    names: dict[int, str] = {}
    position, end = 0, len(text.rstrip())
    while position < end:
        row = text.count("\n", 0, _skip_blank(text, position)) + 1
        block = _BLOCK.match(text, position)
        if block is None:
            word = text[position:end].split(maxsplit=1)[0]
            raise InputError(f"{path}, row {row}: cannot read {word!r}; expected a whole {_FORMS}")
        action_id, name = _parse_block(path, row, block)
        if action_id in names:
            raise InputError(f"{path}, row {row}: id {action_id} comes twice; keep one block")
        names[action_id] = name
        position = block.end()
    if not names:
        raise InputError(f"{path}: no action in this label map; expected blocks {_FORMS}")
    return LabelMap(names)


_FORMS = 'item { name: "stand" id: 12 } or label { name: "stand" label_id: 12 label_type: ... }'


def _skip_blank(text: str, position: int) -> int:
    return position + len(text[position:]) - len(text[position:].lstrip())


def _parse_block(path: Path, row: int, block: re.Match[str]) -> tuple[int, str]:
    found = {key: quoted or bare for key, quoted, bare in _FIELD.findall(block["body"])}
    id_field = _ID_FIELD[block["kind"]]
    for key in ("name", id_field):
        if not found.get(key):
            raise InputError(f"{path}, row {row}: no {key!r} in this block; expected {_FORMS}")
    if not found[id_field].isdecimal() or int(found[id_field]) < 1:
        raise InputError(
            f"{path}, row {row}: {id_field} {found[id_field]!r} is not a whole number from 1"
        )
    return int(found[id_field]), found["name"]


def write_label_map(path: str | Path, label_map: LabelMap) -> None:
    """Write a label map in the ``item { name id }`` form of AVA's 60-class file."""
    blocks = [f'item {{\n  name: "{label_map.name(i)}"\n  id: {i}\n}}\n' for i in label_map.ids]
    Path(path).write_text("".join(blocks), encoding="utf-8")

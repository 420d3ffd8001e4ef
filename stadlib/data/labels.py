"""Action names and ids: AVA's 60 evaluated classes, and label maps on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from stadlib.base import InputError

LABEL_MAP_FILE = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
AVA_IDS = range(1, 81)  # every id that AVA's files may use; 20 of them are not evaluated
# Actions that last while they show only now and then, in the miniature world: answering a phone,
# holding, drinking, eating, reading, texting, talking, and listening to or watching such a person.
LASTING = frozenset({15, 17, 27, 29, 48, 57, 74, 79, 80})
_QUOTED = r""""[^"\n]*"|'[^'\n]*'"""
_COMMENT = re.compile(rf"({_QUOTED})|#[^\n]*")  # a quoted number sign begins none
# A block, or any other text.
_BLOCK = re.compile(rf"""\b(?:item|label)\s*\{{((?:{_QUOTED}|[^{{}}"'])*)\}}|\S.*""")
_NAME = re.compile(rf"\bname\s*:\s*({_QUOTED})")
_ID = re.compile(r"\b(?:label_)?id\s*:\s*(\d+)(?!\S)")
_FORMS = 'item { name: "stand" id: 12 } or label { name: "stand" label_id: 12 label_type: ... }'


def group(action_id: int) -> Literal["pose", "object", "person"]:
    """AVA's group of an action: the pose of a person, a person with an object, two persons."""
    if action_id <= 14:
        return "pose"
    return "object" if action_id <= 63 else "person"


@dataclass(frozen=True)
class LabelMap:
    """Which actions exist, and in which column of an action array each of them stands."""

    names: dict[int, str]  # by id, such as {12: "stand"}; it is sorted
    path: str = field(default="", compare=False)  # of its file

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", dict(sorted(self.names.items())))

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Ids in ascending order: the column order of every action array."""
        return tuple(self.names)

    @property
    def num_actions(self) -> int:
        """Columns of every action array."""
        return len(self.names)

    @cached_property
    def is_avas(self) -> bool:
        """Whether ids mean what they mean in AVA: only then have actions AVA's groups."""
        return all(
            action in AVA_IDS and AVA_ACTIONS.get(action, name) == name
            for action, name in self.names.items()
        )

    def group(self, action_id: int) -> str:
        """AVA's group of an action; ``other`` in a map of one's own."""
        return group(action_id) if self.is_avas else "other"


def read_label_map(path: str | Path) -> LabelMap:
    """Read a label map in either public form, 60 classes (``item``) or 80 (``label``)."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no label map ({error}); copy AVA's list there") from error
    names: dict[int, str] = {}
    text = _COMMENT.sub(lambda found: found[1] or "", text)
    for block in _BLOCK.finditer(text):
        name, number = _NAME.search(block[1] or ""), _ID.search(block[1] or "")
        if not name or not name[1][1:-1] or not number or int(number[1]) in names:
            row = text.count("\n", 0, block.start()) + 1
            problem = f"no whole block with a name and an id of its own; expected {_FORMS}"
            raise InputError(f"{path}, row {row}: {problem}")
        names[int(number[1])] = name[1][1:-1]
    if not names:
        raise InputError(f"{path}: no action in this label map; expected blocks {_FORMS}")
    return LabelMap(names, str(path))


def write_label_map(path: str | Path, label_map: LabelMap) -> None:
    """Write a label map in the ``item { name id }`` form of AVA's 60-class file."""
    blocks = [f'item {{\n  name: "{name}"\n  id: {i}\n}}\n' for i, name in label_map.names.items()]
    Path(path).write_text("".join(blocks), encoding="utf-8")


AVA_ACTIONS = read_label_map(Path(__file__).with_name(LABEL_MAP_FILE)).names
"""The 60 classes of AVA v2.2 that the ActivityNet challenge evaluates, by AVA's own id."""

"""What ``stadlib readme`` writes from ``results/`` into Markdown files."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from stadlib.base import InputError, write_whole
from stadlib.report import scores, tables

START, END = "<!-- results:start -->", "<!-- results:end -->"


def readme_table() -> str:
    """Return Table 1 in Markdown, the paper's numbers and the reference side by side."""
    paper, ours = tables.paper(1).drop(columns="A+K test"), tables.reference(1)
    header = [*tables.ROW, *(f"paper {name}" for name in paper), *(f"mini {name}" for name in ours)]
    lines = [" | ".join(header), " | ".join(["---"] * len(header))]
    for key in paper.index:
        lines.append(" | ".join([*key, *paper.loc[key], *map(str, ours.loc[key])]))
    return "\n".join([*(f"| {line} |" for line in lines), *_ensemble_members()])


def _ensemble_members() -> list[str]:
    """A line with the models that the committed ensembles average; none without one."""
    if not tables.reference_ensembles():
        return []
    groups = defaultdict(list)
    for record in tables.reference_records("ensembles/members"):
        words = [record.experiment[name] for name in ("backbone", "pretrain", "frames", "head")]
        memory = any(stage["memory"] for stage in record.experiment["stages"])
        groups[" ".join([*words, *["+M"] * memory])].append(record)
    alone = (f"{name} {scores.mean_text(runs, 'ava+kinetics')}" for name, runs in groups.items())
    text = f"Our ensemble averages {len(groups)} models of one seed, alone (A+K): "
    return ["", text + ", ".join(alone) + "."]


def update_readme(path: Path) -> None:
    """Rewrite what stands between the two ``results`` marks of a Markdown file.

    Raises:
        InputError: the file lacks the marks.
    """
    rewrite(path, (START, END), readme_table())


def rewrite(path: Path, marks: tuple[str, str], section: str) -> None:
    """Put a section between two marks of a Markdown file.

    Raises:
        InputError: the file lacks the marks.
    """
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (start and end):
        raise InputError(f"{path}: the lines {' and '.join(marks)} are missing; put them back")
    write_whole(path, f"{before}{marks[0]}\n{section}\n{marks[1]}{after}")

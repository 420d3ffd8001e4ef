"""What ``stadlib readme`` writes from ``results/``: sections of Markdown files and a chart."""

from __future__ import annotations

from collections import defaultdict
from math import isnan
from pathlib import Path

from stadlib.base import InputError, write_whole
from stadlib.report import claims, scores, tables

BEST = ("ir-CSN-152", "K700")  # whose rows the README shows


def update(root: Path) -> list[Path]:
    """Write every file that is made from ``results/`` below a checkout's root; returns them."""
    measured = claims.measured()
    sections = {
        root / "README.md": {"fact": fact(), "results": short_table()},
        root / "results" / "table1.md": {"results": full_table()},
        root / "results" / "claims.md": {"claims": claims.markdown(measured)},
    }
    for path, parts in sections.items():
        for name, text in parts.items():
            rewrite(path, name, text)
    files = {
        root / "results" / "claims.csv": claims.csv(measured),
        root / "results" / "pictures" / "gain.png": gain_chart().png(),
    }
    for path, content in files.items():
        write_whole(path, content)
    return [*sections, *files]


def rewrite(path: Path, name: str, section: str) -> None:
    """Put a section between the marks ``<!-- name:start -->`` and ``<!-- name:end -->``."""
    marks = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (start and end):
        raise InputError(f"{path}: the lines {' and '.join(marks)} are missing; put them back")
    write_whole(path, f"{before}{marks[0]}\n{section}\n{marks[1]}{after}")


def section_of(path: Path, name: str) -> str:
    """The text between the marks."""
    text = path.read_text(encoding="utf-8")
    return text.split(f"<!-- {name}:start -->")[1].split(f"<!-- {name}:end -->")[0].strip()


def fact() -> str:
    """What the relation head gains, in a sentence."""
    gain, low, high, seeds = tables.paired_difference(
        "t-only", detector="v3", backbone="ir-csn-152", pretrain="K700"
    ).loc["A+K"]
    return (
        f"- **Attention between people helps.** In the miniature world T-only is {gain:.1f} points "
        f"of mAP above the linear head ({low:.1f} to {high:.1f}: 95 % over {seeds:.0f} seeds on "
        "one backbone)."
    )


def short_table() -> str:
    """The best backbone's rows of Table 1, on both datasets together."""
    paper, ours = tables.paper(1), tables.reference(1)
    header = ["input", "head", "memory", "paper, AVA-Kinetics", "ours, miniature", "seeds"]
    rows = [
        [*key[2:], paper.loc[key, "A+K"], *ours.loc[key, ["A+K", "seeds"]]]
        for key in paper.index
        if key[:2] == BEST
    ]
    return tables.markdown(header, rows)


def full_table() -> str:
    """Table 1 with the reference beside it, and the models that the ensemble averages."""
    paper, ours = tables.paper(1).drop(columns="A+K test"), tables.reference(1)
    header = [*tables.ROW, *(f"paper {name}" for name in paper), *(f"mini {name}" for name in ours)]
    rows = [[*key, *paper.loc[key], *ours.loc[key]] for key in paper.index]
    if not tables.reference_ensembles():
        return tables.markdown(header, rows)
    groups = defaultdict(list)
    for record in tables.reference_records("ensembles/members"):
        words = [record.experiment[name] for name in ("backbone", "pretrain", "frames", "head")]
        memory = any(stage["memory"] for stage in record.experiment["stages"])
        groups[" ".join([*words, *["+M"] * memory])].append(record)
    alone = (f"{name} {scores.mean_text(runs, 'ava+kinetics')}" for name, runs in groups.items())
    text = f"Our ensemble averages {len(groups)} models of one seed, alone (A+K): "
    return tables.markdown(header, rows) + "\n\n" + text + ", ".join(alone) + "."


def gain_chart():
    """Gains over the linear head on both datasets together, the paper's and ours, each to scale."""
    from stadlib.report.style import COLORS, GREY, in_style, panels  # noqa: PLC0415  (matplotlib)

    def points(head: str, memory: str) -> tuple[float, tuple[float, float, float]]:
        printed = tables.paper(1)["A+K"].astype(float)
        paper = printed[(*BEST, "32x2", head, memory)] - printed[(*BEST, "32x2", "Linear", "×")]
        groups = tables.records_of(1)
        key = ("ir-csn-152", "k700", "32x2")
        pairs = scores.paired_by_seed(
            groups[(*key, head.lower(), memory)], groups[(*key, "linear", "×")]
        )
        return paper, tuple(scores.gain_of_pairs(pairs).loc["A+K", ["gain", "low", "high"]])

    @in_style
    def draw():
        bars = {"S-only": ("S-only", "×"), "T-only": ("T-only", "×")}
        bars["T-only, memory"] = ("T-only", "✓")
        figure, both = panels(2.2, 1, 2, sharey=True)
        values = [points(*words) for words in bars.values()]
        titles = ("paper, AVA-Kinetics", "ours, miniature world")
        for axes, title, color in zip(both, titles, (GREY, COLORS["person"]), strict=True):
            for place, (paper, (gain, low, high)) in enumerate(values):
                ours = axes is both[1]
                width = gain if ours else paper
                axes.barh(place, width, color=color, height=0.55)
                if ours and not isnan(low):
                    axes.plot([low, high], [place, place], color="black", lw=1.2)
                axes.annotate(
                    f"+{width:.2f}", (max(width, high) if ours else width, place), (4, 0),
                    textcoords="offset points", va="center",
                )  # fmt: skip
            axes.set(yticks=range(len(bars)), yticklabels=list(bars), title=title)
            axes.set(xlabel="gain over the linear head, points of mAP@0.5")
            axes.margins(x=0.2)
            axes.set_xlim(left=0)
            axes.grid(axis="y", visible=False)
        both[0].invert_yaxis()
        return figure

    return draw()

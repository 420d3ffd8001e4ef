"""What becomes part of the study, and what is written from it.

Runs of this machine are copied to ``results/reference``, to be committed. ``stadlib readme`` writes
sections of Markdown files and a chart, ``stadlib report`` the committed notebooks and the ledger as
pages that ask for nothing online.
"""

from __future__ import annotations

import gzip
import json
import re
import tomllib
from collections import Counter, defaultdict
from html import escape
from itertools import product
from math import isnan, nan
from pathlib import Path
from string import Template

import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from stadlib import base, recipes, study
from stadlib.base import InputError, published_dir, whole_folder, write_whole
from stadlib.data.layout import SOURCES, SPLITS
from stadlib.recipes.experiment import Experiment
from stadlib.report import claims, runs, scores, style, tables
from stadlib.study import Record, read_record, write_record
from stadlib.training import stages
from stadlib.training.pretraining import Pretraining, world_hash

NOTEBOOKS = published_dir("paper").parents[1] / "notebooks"
BEST = ("ir-CSN-152", "K700")  # whose rows the README shows


def publish(record: Record, kind: str = "", name: str = "") -> None:
    """Copy a record to ``results/reference/KIND``; one of uncommitted code is refused.

    Without a kind it is a row of a table. If it is not of somebody's own data, the class counts of
    its training data are written too, and its backbone, its boxes and the hash of its world become
    part of the study, as those of a row beyond the paper do. The row of README's first command
    leaves its losses in ``curves``. A digest names one outcome: when it is published already, this
    run becomes a line of ``results/machines.csv``, which says what the same experiment gave where.
    """
    name = name or record.folder.name
    if record.provenance["dirty"] is not False:
        raise InputError(f"{name}: made with uncommitted code; commit and run again")
    if base.provenance("", 0)["dirty"]:  # what is counted below would be of other code
        raise InputError(f"{name}: the code was edited since; commit or undo that")
    folder = base.published_dir("reference") / kind
    path = folder / f"{name}.json"
    if path.is_file() and read_record(path).to_json() != record.to_json():
        _note_machine(record, folder.parents[bool(kind)] / "machines.csv")
        return
    write_record(record, path)
    if kind in ("", "beyond") and not record.experiment["dataset"]:
        _publish_inputs(study.open_run(record))
    if not kind and not record.experiment["dataset"]:
        write_whole(folder / "class_counts.csv", class_counts(record).to_csv())
    if record.digest == _first_row(record).digest:
        curve = runs.training_log(record)[["iteration", "loss"]]
        write_whole(folder / "curves" / f"{record.digest}.csv", curve.to_csv(index=False))


def class_counts(record: Record) -> pd.DataFrame:
    """Training instances of every action in the data of a run: ``name``, ``ava``, ``kinetics``."""
    layout = study.open_run(record).layout
    labels = layout.label_map()
    index = pd.Index(labels.ids, name="action_id")
    counts = pd.DataFrame({"name": list(labels.names.values())}, index=index)
    for source in SOURCES:
        keyframes = stages.annotated(layout, [source], "train")
        counts[source] = sum(keyframe.actions.sum(axis=0) for keyframe in keyframes)
    return counts


def _first_row(record: Record) -> Experiment:
    """What README's first command runs, at the scale of a record and with its seed."""
    words = {"head": "t-only", "backbone": "ir-csn-152", "pretrain": "K700", "memory": "no"}
    (row,) = recipes.table1(scale=record.scale, seed=record.experiment["seed"], **words)
    return row


def _publish_inputs(opened: stages.Run) -> None:
    """Make the backbone that a run started from, and its detector's boxes, the study's own."""
    experiment, folder = opened.experiment, base.published_dir("reference")
    if experiment.scale == "paper" or experiment.weights == "anew":
        return
    plan, root = Pretraining(experiment), opened.layout.root
    copies = {plan.weights: plan.published}
    copies[plan.record] = plan.published.with_suffix(".accuracy.json")
    # Not the boxes of training, ten times as large, which memory alone needs.
    scored = [split for split in SPLITS if split != "train"]
    for split in product(SOURCES, scored) if experiment.detected else ():
        boxes = opened.layout.person_boxes(experiment.boxes_name, *split)
        copies[boxes] = folder / "boxes" / f"{boxes.name}.gz"
    for old, new in copies.items():
        if old.is_file() and not new.is_file():
            content = old.read_bytes()
            write_whole(new, gzip.compress(content, mtime=0) if new.suffix == ".gz" else content)
    worlds = folder / "weights" / "worlds.json"
    known = json.loads(worlds.read_text()) if worlds.is_file() else {}
    known.setdefault(f"{root.parent.name}/{root.name}", world_hash(root))
    write_whole(worlds, json.dumps(known, indent=1, sort_keys=True) + "\n")


def _note_machine(record: Record, path: Path) -> None:
    """Append what a published experiment gave in a later run to the table of machines."""
    origin = record.provenance
    values = {name: origin[name] for name in ("finished", "processor", "threads", "seconds")}
    values |= {"memory_mb": origin["peak_memory_mb"], "world": origin.get("world", "")}
    values |= {"run": f"{record.experiment['head']} seed {record.experiment['seed']}"}
    values |= {"digest": record.digest}
    values |= {name: round(100 * found["mAP"], 2) for name, found in record.metrics.items()}
    lines = path.read_text().splitlines() if path.is_file() else [",".join(values)]
    line = ",".join(str(value).replace(",", " ") for value in values.values())
    write_whole(path, "\n".join([*lines, *[line] * (line not in lines)]) + "\n")


def update(root: Path) -> list[Path]:
    """Write every file that is made from ``results/`` below a checkout's root; returns them."""
    measured = claims.measured()
    sections = {
        "README.md fact": fact(),
        "README.md results": short_table(),
        "results/table1.md results": full_table(),
        "results/claims.md claims": claims.markdown(measured),
        "results/paper/fidelity.md rows": fidelity(),
        "results/guide.md rungs": rungs(),
    }
    for place, text in sections.items():
        path, name = place.split()
        rewrite(root / path, name, text)
    files = {"results/claims.csv": claims.csv(measured)}
    files["results/pictures/gain.png"] = gain_chart().png()
    for path, content in files.items():
        write_whole(root / path, content)
    return [root / path for path in dict.fromkeys(p.split()[0] for p in [*sections, *files])]


def rewrite(path: Path, name: str, section: str) -> None:
    """Put a section between the marks ``<!-- name:start -->`` and ``<!-- name:end -->``."""
    marks = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (start and end):
        raise InputError(f"{path}: the lines {' and '.join(marks)} are missing; put them back")
    write_whole(path, f"{before}{marks[0]}\n{section}\n{marks[1]}{after}")


def fact() -> str:
    """What the relation head gains over the linear head, and what memory adds to it."""
    same = {"detector": "v3", "backbone": "ir-csn-152", "pretrain": "K700"}
    gains = tables.paired_difference("t-only", **same).loc["A+K"]
    chosen = scores.choice_records()
    memory, ours = (
        scores.gain_of_pairs(scores.paired_by_seed(chosen[field, better], chosen[field, plain]))
        for field, better, plain in (("memory", "yes", "no"), ("recall", "geometry", "none"))
    )
    return (
        "- **Attention between people**: in the miniature world T-only differs from the field's "
        f"linear head by this many points of mAP: {_in_words(*gains)}.\n"
        "- **Memory**: concatenated as the paper says, it differs from none at equal training by "
        f"{_in_words(*memory.loc['A+K'])}. With a learned bias of when and where remembered "
        "people were, which is ours, it differs from plain memory by "
        f"{_in_words(*ours.loc['A+K'])} (annotated boxes)."
    )


def _in_words(gain: float, low: float, high: float, seeds: float) -> str:
    """A difference in points, its interval if there is one, and of how many seeds it is."""
    text = f"{scores.difference_text(gain, low, high)}, {seeds:.0f} seed" + "s" * (seeds != 1)
    return text if seeds else "not run"


def short_table() -> str:
    """The best backbone's rows of Table 1, on both datasets together."""
    paper, ours = tables.paper(1), tables.reference(1)
    header = ["input", "head", "memory", "paper, AVA-Kinetics", "ours, miniature", "seeds"]
    rows = [
        [*key[2:], paper.loc[key, "A+K"], *ours.loc[key, ["A+K", "seeds"]]]
        for key in paper.index
        if key[:2] == BEST
    ]
    return scores.markdown(header, rows)


def full_table() -> str:
    """Table 1 with the reference beside it, and the models that the ensemble averages."""
    paper, ours = tables.paper(1).drop(columns="A+K test"), tables.reference(1)
    header = [*tables.ROW, *(f"paper {name}" for name in paper), *(f"mini {name}" for name in ours)]
    rows = [[*key, *paper.loc[key], *ours.loc[key]] for key in paper.index]
    if not scores.reference_records("ensembles"):
        return scores.markdown(header, rows)
    groups = defaultdict(list)
    for record in scores.reference_records("ensembles/members"):
        words = [record.experiment[name] for name in ("backbone", "pretrain", "frames", "head")]
        memory = any(stage["memory"] for stage in record.experiment["stages"])
        groups[" ".join([*words, *["+M"] * memory])].append(record)
    alone = (f"{name} {scores.mean_text(runs, 'ava+kinetics')}" for name, runs in groups.items())
    text = f"Our ensemble averages {len(groups)} models of one seed, alone (A+K): "
    return scores.markdown(header, rows) + "\n\n" + text + ", ".join(alone) + "."


def rungs() -> str:
    """What others published on UCF101-24, JHMDB-21 and MultiSports, beside what was run here."""
    table = pd.read_csv(published_dir("paper") / "rungs.csv", dtype=str).fillna("")
    table = table.rename(columns=lambda name: name.replace("_", " ")).assign(stadlib="not run")
    return scores.markdown([*table], table.to_numpy())


def fidelity_rows() -> list[dict]:
    """Every statement of the paper's sections 2.1 to 3.1, and what this study does."""
    path = published_dir("paper") / "fidelity.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["row"]


def fidelity() -> str:
    """The same as a table, after the number of rows of each status."""
    rows = fidelity_rows()
    tally = Counter(row["status"] for row in rows)
    numbers = ", ".join(f"{number} {status}" for status, number in tally.items())
    header = ["", "the paper", "code", "here", "status", "whose choice", "changed by", "at mini"]
    effects = defaultdict(list)  # of other words, by field
    for (field, word), effect in scores.choice_effects().xs("A+K", level="source").iterrows():
        effects[field.split(":")[0]].append(f"{word}: {_in_words(*effect)}")
    table = []
    for row in rows:
        code = " ".join(f"`{name.removeprefix('stadlib.')}`" for name in row["code"])
        words = [row[key] for key in ("ours", "status", "origin", "change")]
        mini = "; ".join(effects[row.get("mini")])
        table.append([row["section"], row["says"], code, *words, mini])
    return f"Of {len(rows)} statements: {numbers}.\n\n{scores.markdown(header, table)}"


@style.in_style
def gain_chart():
    """Gains over the linear head on both datasets together, the paper's and ours, each to scale."""
    printed, groups = tables.paper(1)["A+K"].astype(float), tables.records_of(1)
    bars = {"S-only": ("S-only", "×"), "T-only": ("T-only", "×"), "T-only, memory": ("T-only", "✓")}
    linear, paper, ours = (*BEST, "32x2", "Linear", "×"), [], []
    for words in bars.values():
        row = (*BEST, "32x2", *words)
        paper.append((printed[row] - printed[linear], nan, nan))
        records = (groups[tuple(map(str.lower, key))] for key in (row, linear))
        gains = scores.gain_of_pairs(scores.paired_by_seed(*records))
        ours.append(tuple(gains.loc["A+K", ["gain", "low", "high"]]))
    figure, (left, right) = style.panels(2.2, 1, 2, sharey=True)
    panels = (
        (left, paper, style.GREY, "paper, AVA-Kinetics"),
        (right, ours, style.COLORS["person"], "ours, miniature world"),
    )
    for axes, values, color, title in panels:
        for place, (gain, low, high) in enumerate(values):
            axes.barh(place, gain, color=color, height=0.55)
            if not isnan(low):
                axes.plot([low, high], [place, place], color="black", lw=1.2)
            end = (max(0.0, gain, high), place)
            offset = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate("not run" if isnan(gain) else f"{gain:+.2f}", end, **offset)
        axes.set(yticks=range(len(bars)), yticklabels=list(bars), title=title)
        axes.set(xlabel="gain over the linear head, points of mAP@0.5")
        axes.axvline(0, color="black", lw=0.8)
        axes.margins(x=0.25)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]), right=max(0.5, axes.get_xlim()[1]))
        axes.grid(axis="y", visible=False)
    left.invert_yaxis()
    return figure


def write_pages(out: Path, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Render the committed notebooks (two digits and a name) into the new folder ``out``."""
    if out.exists():
        raise InputError(f"{out}: exists already; name a new folder")
    pages = {path.stem: _read(path) for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))}
    if not pages:
        raise InputError(f"{notebooks}: no notebook; run this command from a checkout")
    titles = {name: page.cells[0].source.split("\n")[0][2:] for name, page in pages.items()}
    links = "\n".join(f"- [{title}]({name}.html)" for name, title in titles.items())
    parts = {"links": links, "ledger": claims.markdown(), "table": full_table()}
    cells = [nbformat.v4.new_markdown_cell(_filled("index.md", **parts))]
    pages = {"index": nbformat.v4.new_notebook(cells=cells), **pages}
    exporter = HTMLExporter(template_name="basic", embed_images=True)
    with whole_folder(out) as folder:
        for name, page in pages.items():
            body, _ = exporter.from_notebook_node(page)
            html = _filled("page.html", title=escape(titles.get(name, "stadlib")), body=body)
            (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return [out / f"{name}.html" for name in pages]


def _filled(name: str, **parts: str) -> str:
    """A text file beside this one with its ``$parts`` filled in."""
    return Template(Path(__file__).with_name(name).read_text(encoding="utf-8")).substitute(parts)


def _read(path: Path) -> nbformat.NotebookNode:
    """A notebook whose links to other notebooks lead to pages, and whose links to code are text."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError, AttributeError) as error:
        raise InputError(f"{path}: not a notebook ({error}); restore it") from error
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\(([\w./-]+)\.ipynb", r"](\1.html", cell.source)
            cell.source = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", cell.source)
    return notebook

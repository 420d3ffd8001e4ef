"""The miniature world's annotations beside real ones: ``python tests/benchmarks/bench_world.py``.

Writes ``results/world.md``. No pixel is drawn. The world was made to resemble these numbers, and
nothing of it was chosen by a result. Real annotations are AVA-Kinetics' (Google, CC BY 4.0): nearly
all of Kinetics' validation, and two minutes of one movie of AVA's, from the folder that is named
(default: none, and the columns of real data stay as they are written below).
"""

import io
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from stadlib.data.layout import AVA_ACTIONS
from stadlib.world import MINI
from stadlib.world.render import rows
from stadlib.world.script import plan_split, write_script

COLUMNS = ["video", "time", "x1", "y1", "x2", "y2", "action", "person"]
PAGE = Path(__file__).parents[2] / "results" / "world.md"
REAL = {  # column of the table: file of annotations
    "AVA, 113 s of one movie": "ava_val_v2.2.1j20qq1JyX4_0902-1014.csv",
    "Kinetics, validation": "kinetics_val_v1.0.csv",
}
# What those files gave; a folder as argument measures them anew.
MEASURED = PAGE.with_suffix(".csv")


def read(text) -> pd.DataFrame:
    return pd.read_csv(text, names=COLUMNS, dtype={"video": str, "person": str})


def statistics(table: pd.DataFrame) -> dict[str, str]:
    """Of one file of annotations."""
    keyframes = table.groupby(["video", "time"], sort=False)
    labelled = table.dropna(subset="action")
    box = ["video", "time", "x1", "y1", "x2", "y2"]
    persons = labelled.drop_duplicates(box)
    heights = persons["y2"] - persons["y1"]
    crowd = persons.groupby(["video", "time"]).size()
    labels = labelled.groupby(box).size()
    actions = labelled["action"].astype(int)
    known = actions[actions.isin(list(AVA_ACTIONS))].value_counts(normalize=True)
    kinds = {"pose": known.index <= 14, "object": (known.index > 14) & (known.index < 64)}
    shares = " / ".join(f"{100 * known[of].sum():.0f}" for of in kinds.values())
    lasting = _runs(labelled)
    return {
        "keyframes": f"{keyframes.ngroups:,}",
        "without labels, %": f"{100 * (1 - len(crowd) / keyframes.ngroups):.1f}",
        "persons a labelled keyframe": f"{crowd.mean():.2f}",
        "one / two / five or more persons, %": " / ".join(
            f"{100 * share:.0f}"
            for share in ((crowd == 1).mean(), (crowd == 2).mean(), (crowd > 4).mean())
        ),
        "height of a box, 5 / 25 / 50 / 75 / 95 % quantile": " / ".join(
            f"{q:.2f}" for q in heights.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
        ),
        "labels a person": f"{labels.mean():.2f}",
        "poses / objects, % of labels (the rest: persons)": shares,
        "most frequent class, % of labels": f"{100 * known.iloc[0]:.0f}",
        "the ten most frequent, %": f"{100 * known.iloc[:10].sum():.0f}",
        "classes": str(len(known)),
        "seconds that a label lasts, mean": f"{lasting:.1f}" if lasting else "-",
    }


def _runs(table: pd.DataFrame) -> float:
    """How many seconds in a row a person has a label, where persons have ids in several seconds."""
    seconds = Counter()
    seen = {(v, int(t), p, a) for v, t, p, a in table[["video", "time", "person", "action"]].values}
    for video, time, person, action in seen:
        if (video, time - 1, person, action) in seen:
            continue
        length = 1
        while (video, time + length, person, action) in seen:
            length += 1
        seconds[length] += 1
    return sum(n * k for n, k in seconds.items()) / seconds.total() if max(seconds) > 1 else 0.0


def main() -> None:
    columns = {}
    for title, name in REAL.items() if sys.argv[1:] else ():
        columns[title] = statistics(read(Path(sys.argv[1]) / name))
    if not columns:
        known = pd.read_csv(MEASURED, index_col=0, dtype=str)
        columns = {title: known[title].to_dict() for title in REAL}
    for source, title in (("ava", "mini, movies"), ("kinetics", "mini, clips")):
        scripts = [write_script(MINI, plan) for plan in plan_split(MINI, source, "train")]
        lines = [row for script in scripts for row in rows(script)]
        columns[title] = statistics(read(io.StringIO("\n".join(lines))))
    table = pd.DataFrame(columns)
    table.to_csv(MEASURED)
    order = ["AVA, 113 s of one movie", "mini, movies", "Kinetics, validation", "mini, clips"]
    lines = ["| | " + " | ".join(order) + " |", "| --- " * 5 + "|"]
    lines += [f"| {name} | " + " | ".join(row[order]) + " |" for name, row in table.iterrows()]
    PAGE.write_text(
        "# The miniature world beside real annotations\n\n"
        "Training data of the world's second edition, and AVA-Kinetics' own annotations as far as\n"
        "they were at hand (Google, CC BY 4.0). Written by `tests/benchmarks/bench_world.py`.\n\n"
        + "\n".join(lines)
        + "\n\n"
        "What differs on purpose: thirty classes instead of sixty; an unlabelled clip costs as\n"
        "much rendering as a labelled one, so there are fewer; movies last 12, 24 or 72 seconds,\n"
        "not 15 minutes. Seven movies of ten are cut, every two to six seconds; a cut changes the\n"
        "part of the scene, and in four of ten cases the side that it is seen from.\n"
    )
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

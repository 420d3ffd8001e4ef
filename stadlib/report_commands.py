"""The commands that show what results/ holds: readme, report."""

from __future__ import annotations

import argparse
from pathlib import Path

from stadlib.paths import published_dir


def add(commands: argparse._SubParsersAction) -> None:
    """Add them to the command line."""
    readme = commands.add_parser(
        "readme", help="write results/ into the README's tables, claims.csv and pipeline.svg"
    )
    readme.add_argument(
        "--path", type=Path, default=published_dir("paper").parents[1] / "README.md"
    )
    readme.set_defaults(command=_readme)

    report = commands.add_parser("report", help="the committed notebooks and claims as web pages")
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    report.set_defaults(command=_report)


def _readme(options: argparse.Namespace) -> None:
    from stadlib import claims, pipeline_figure, report  # noqa: PLC0415  (pandas)

    report.update_readme(options.path)
    claims.update(options.path)
    pipeline_figure.update()


def _report(options: argparse.Namespace) -> None:
    from stadlib.site import pages  # noqa: PLC0415  (nbconvert)

    written = pages.build(options.out)
    print(f"{written[0]}: open it in a browser; {len(written)} pages")

"""The command for somebody's own video: predict."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    """Add it to the command line."""
    parser = commands.add_parser("predict", help="who does what in a video: watch and draw it")
    parser.add_argument(
        "video", nargs="?", default="miniature", help="a file; default: a drawn movie"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for the results; default: results/predictions/..."
    )
    parser.add_argument(
        "--weights",
        default="miniature",
        metavar="RUN",
        help="a run's folder, its name or part of it; default: the miniature t-only row",
    )
    parser.add_argument(
        "--detector", default="v3", help="v1, v2, v3 of the run's scale; torchvision:NAME; FILE.pt"
    )
    parser.add_argument("--every", type=float, default=1.0, help="seconds between scored ones")
    parser.add_argument("--scale", default="mini", help="of the miniature model: smoke, mini")
    parser.set_defaults(command=_predict)


def _predict(options: argparse.Namespace) -> None:
    from stadlib import predict  # noqa: PLC0415  (matplotlib, IPython)

    found = predict.predict(
        options.video,
        out=options.out,
        weights=options.weights,
        detector=options.detector,
        every=options.every,
        scale=options.scale,
    )
    table = found.persons()
    print(table.head(20).to_string() if len(table) else "nobody found")
    for path in sorted(found.folder.iterdir()):
        print(path)
    if found.warning:
        print(f"*** {found.warning} ***")

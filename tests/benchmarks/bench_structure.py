"""How much of the package a reader crosses: modules of one row of Table 1, and its deepest chain.

The row (t-only, smoke) is run twice in a folder of its own: the first time makes its data, its
backbone and its detector, the second time (another seed) trains and scores the row alone.

    python tests/benchmarks/bench_structure.py
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "stadlib"


class Trace:
    """The functions of the package that are called, and their deepest chain, in all threads."""

    def __init__(self) -> None:
        self.called: set[tuple[str, str]] = set()  # (file, function)
        self.chain: list[str] = []

    def __enter__(self) -> Trace:
        threading.setprofile(self._event)
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _event(self, frame, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        imported = not frame.f_code.co_flags & inspect.CO_OPTIMIZED  # a module's body or a class's
        if event != "call" or imported or not name.startswith(str(ROOT)):
            return
        self.called.add((name, frame.f_code.co_qualname))
        chain, above = [], frame
        while above is not None:
            path = Path(above.f_code.co_filename)
            if str(path).startswith(str(ROOT)) and "<" not in above.f_code.co_name:
                chain.append(f"{path.relative_to(ROOT).with_suffix('')}.{above.f_code.co_name}")
            above = above.f_back
        if len(chain) > len(self.chain):
            self.chain = chain[::-1]


def run_row(title: str, seed: int) -> None:
    """Run the row and print what it crossed."""
    from stadlib import recipes, study

    words = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "head": "t-only"}
    (row,) = recipes.table1(scale="smoke", memory="no", seed=seed, **words)
    with Trace() as trace:
        study.run(row)
    files = sorted({str(Path(name).relative_to(ROOT)) for name, _ in trace.called})
    imported = [name for name in sys.modules if name.startswith("stadlib.")]
    print(
        f"{title}: {len(trace.called)} functions in {len(files)} modules, {len(imported)} imported"
    )
    print(f"  {', '.join(files)}")
    print(f"  deepest chain, {len(trace.chain)}: {' > '.join(trace.chain)}")


def main() -> None:
    """Run it cold and warm, each in a process of its own."""
    if len(sys.argv) > 1:
        run_row(sys.argv[1], int(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        folders = {"STADLIB_RESULTS": f"{folder}/results", "STADLIB_DATA": f"{folder}/data"}
        for title, seed in (("cold", "0"), ("warm", "1")):
            command = [sys.executable, __file__, title, seed]
            subprocess.run(command, env=os.environ | folders, check=True)


if __name__ == "__main__":
    main()

"""Records of runs into ``results/reference``, where reports look for them and git keeps them."""

from __future__ import annotations

from stadlib.config import InputError
from stadlib.paths import published_dir, write_whole
from stadlib.records import Record


def publish(record: Record, kind: str = "", name: str = "") -> None:
    """Copy a run's record to ``results/reference`` or a folder in it.

    The class counts of a run's training data go beside it, for the figures against frequency.

    Args:
        record: of a run, an ensemble or a detector on this machine.
        kind: ``test``, ``ensembles``, ``ensembles/members``, ``detectors``; empty: a row of a
            table.
        name: of the file; empty: that of the run's folder.

    Raises:
        InputError: it was made with uncommitted code, so nobody could make it again.
    """
    name = name or record.folder.name
    if record.provenance["dirty"] is not False:
        raise InputError(f"{name}: made with uncommitted code; commit and run again")
    folder = published_dir("reference") / kind
    write_whole(folder / f"{name}.json", record.to_json())
    if not kind:
        from stadlib import run_files  # noqa: PLC0415  (torch)

        write_whole(folder / "class_counts.csv", run_files.class_counts(record).to_csv())

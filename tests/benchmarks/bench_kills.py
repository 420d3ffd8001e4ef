"""Kill -9 at random moments: does the same call, made again, end with the same bytes?

Training (with memory and the extraction that it needs), extraction, detection, rendering and
publishing at smoke scale, alone and in two processes that exchange through gloo. Every trial begins
in empty folders, is killed at a moment drawn evenly from the time that the job takes, and is run
again to its end. Then its files are compared with those of a run that nobody killed: records
without their provenance, logs without their times, weights tensor by tensor, all others byte by
byte; and no temporary file may be left. Of two processes one is killed, and the other one has to
end by itself with one line, or both are.

Processes are forked from this one, which has loaded everything: most moments fall into the work.
A trial that ends before its moment is no kill and is not counted. From a clean checkout:

    uv run python tests/benchmarks/bench_kills.py [--kills 100] [--minutes 25] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

TEMPORARY = (".tmp", ".part", ".old")
PATIENCE = 120  # seconds that the other process may take to end
TIMES = {"seconds", "data_seconds"}  # of a log's line


@dataclass(frozen=True)
class Work:
    """What all trials start from: a cut dataset, a backbone, a detector, a finished run."""

    root: Path

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    def row(self, start: str = "pretrained"):
        """A row with memory on few clips; from features for extraction."""
        from stadlib import recipes

        words = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2", "head": "t-only"}
        words |= {"detector": "ground-truth", "scale": "smoke"}
        memory = "yes" if start == "pretrained" else "no"
        (row,) = recipes.table1(**words, memory=memory)
        row = recipes.started(row, start)
        stages = tuple(replace(stage, iterations=6, batch=2) for stage in row.stages)
        return replace(row, stages=stages, dataset=str(self.dataset), scales=(64,), flip=False)


def train(work: Work) -> None:
    from stadlib import study
    from stadlib.recipes.experiment import Execution

    study.run(work.row(), execution=Execution(save_every=2))


def extract(work: Work) -> None:
    from stadlib import study

    study.extract(work.row("features"))


def detect(work: Work) -> None:
    from stadlib.base import Progress, results_dir
    from stadlib.data.layout import AvaLayout
    from stadlib.training import detector

    model, name = detector.open_detector(str(work.root / "detector.pt"), "smoke", Progress)
    frames = detector.frames_of_dataset(AvaLayout(work.dataset), "ava", "train")
    path = results_dir() / "boxes" / "found.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    detector.detect_persons(model, frames, path, name, progress=Progress("detect"))


def render(work: Work) -> None:
    from stadlib.base import Progress, results_dir
    from stadlib.recipes.experiment import Experiment
    from stadlib.training import pretraining

    os.environ["STADLIB_DATA"] = str(results_dir() / "data")
    few = {"movies": (3, 2, 1), "movie_seconds": (6,), "clips": (4, 2, 1), "clip_seconds": 6}
    pretraining.WORLDS["smoke"] = replace(pretraining.WORLDS["smoke"], **few)
    pretraining.render(Experiment(scale="smoke"), "world", Progress)


def publish(work: Work) -> None:
    from stadlib import base, study
    from stadlib.training import processes

    base._CHECKOUT = base.results_dir() / "checkout"
    (base._CHECKOUT / "results").mkdir(parents=True, exist_ok=True)
    (base._CHECKOUT / "pyproject.toml").touch()
    if processes.rank() == 0:
        from stadlib.report.publish import publish as publish_record

        os.environ["STADLIB_RESULTS"] = str(work.root / "finished")
        publish_record(study.find(work.row()))


JOBS: dict[str, Callable[[Work], None]] = {
    "train": train,
    "extract": extract,
    "detect": detect,
    "render": render,
    "publish": publish,
}


def start(job: str, work: Work, results: Path, count: int) -> list[int]:
    """Fork the processes of a job; returns their numbers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    pids = []
    for rank in range(count):
        words = {"STADLIB_RESULTS": str(results)}
        if count > 1:
            words |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            words |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        if (pid := os.fork()) == 0:
            _run(job, work, results, words)
        pids.append(pid)
    return pids


def _run(job: str, work: Work, results: Path, words: dict[str, str]) -> None:
    """Be one process of a job; what it says goes to a file beside its results."""
    os.setsid()  # with all that it starts, a group to be killed
    os.environ |= words
    said = os.open(f"{results}.rank{words.get('RANK', '0')}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    status = 1
    try:
        from stadlib.base import OneLineError
        from stadlib.training import processes

        processes.HANG = timedelta(seconds=PATIENCE / 2)  # for those that never join
        try:
            with processes.group():
                JOBS[job](work)
            status = 0
        except OneLineError as error:
            print(f"stadlib: {error}", flush=True)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(pids: list[int], until: float) -> dict[int, int]:
    """The exit statuses of those that end before a moment."""
    found: dict[int, int] = {}
    while len(found) < len(pids) and (not found or time.monotonic() < until or until == 0):
        for pid in set(pids) - set(found):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                found[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until > 0:
            break
        time.sleep(0.01)
    return found


def prints(results: Path) -> dict[str, str]:
    """A hash of the meaning of every file."""
    import torch

    found = {}
    for path in sorted(path for path in results.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(results)), path.read_bytes()
        if path.suffix == ".lock":
            continue
        if path.suffix == ".pt":
            state = torch.load(path, weights_only=True)
            content = str((state["digest"], state["iteration"])).encode()
            state["momentum"] = {
                str(key): part["momentum_buffer"]
                for key, part in state["optimizer"]["state"].items()
            }
            for part in ("model", "momentum"):
                for key, tensor in state[part].items():
                    content += key.encode() + tensor.contiguous().numpy().tobytes()
        elif path.suffix == ".jsonl":
            lines = (json.loads(line) for line in content.splitlines())
            content = str([{k: v for k, v in line.items() if k not in TIMES} for line in lines])
            content = content.encode()
        elif path.suffix == ".json" and b'"provenance"' in content:
            whole = json.loads(content)
            content = json.dumps({k: v for k, v in whole.items() if k != "provenance"}).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def left_over(results: Path) -> list[str]:
    """Temporary files, and what a detection had begun."""
    return [
        str(path.relative_to(results))
        for path in results.rglob("*")
        if path.suffix in TEMPORARY or ".partial" in path.name
    ]


def prepare(work: Work) -> None:
    """In a process of its own: this one must stay as it is to be forked."""
    if (pid := os.fork()) == 0:
        status = 1
        try:
            _prepare(work)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the trials could not be prepared")


def _prepare(work: Work) -> None:
    import torch

    from stadlib import study
    from stadlib.base import Progress
    from stadlib.data.layout import AvaLayout
    from stadlib.recipes.experiment import Experiment
    from stadlib.training import detector, pretraining

    world = pretraining.prepare_data(Experiment(scale="smoke"), Progress)
    cut = AvaLayout(work.dataset)
    shutil.copytree(world.annotation_folder, cut.annotation_folder)
    for split, movies in (("train", 2), ("val", 1)):
        videos = world.videos("ava", split)[:movies]
        cut.video_list("ava", split).write_text("".join(f"{video}\n" for video in videos))
        boxes = cut.person_boxes("ground-truth", "ava", split)
        boxes.parent.mkdir(exist_ok=True)
        shutil.copy(world.person_boxes("ground-truth", "ava", split), boxes)
        for path, seconds in ((cut.annotations("ava", split), 5), (boxes, 8)):
            rows = [row.split(",", 2) for row in path.read_text().splitlines()]
            times = {v: sorted({float(row[1]) for row in rows if row[0] == v}) for v in videos}
            kept = [r for r in rows if r[0] in videos and float(r[1]) in times[r[0]][:seconds]]
            path.write_text("".join(",".join(row) + "\n" for row in kept))
        for video in videos:
            target = cut.root / "videos" / "ava" / f"{video}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(world.video_file("ava", video), target)
        for path in (cut.annotations("kinetics", split), cut.video_list("kinetics", split)):
            path.unlink()
    torch.manual_seed(0)
    model = detector.build_detector("smoke")
    torch.nn.init.constant_(model.head.score.bias, 1.0)  # untrained, it finds nobody
    torch.save({"model": model.state_dict()}, work.root / "detector.pt")
    os.environ["STADLIB_RESULTS"] = str(work.root / "finished")
    study.run(work.row())


@dataclass(frozen=True)
class Whole:
    """A run that nobody killed."""

    seconds: float
    prints: dict[str, str]


def whole(job: str, work: Work, count: int) -> Whole:
    results, begun = work.root / f"whole-{job}-{count}", time.monotonic()
    pids = start(job, work, results, count)
    statuses = ended(pids, 0)
    if any(statuses.values()):
        raise SystemExit(f"{job} failed without a kill: {Path(f'{results}.rank0').read_text()}")
    seconds = time.monotonic() - begun
    if left := left_over(results):
        raise SystemExit(f"{job}: {left} left without a kill")
    return Whole(seconds, prints(results))


def trial(job: str, work: Work, count: int, expected: Whole, rng: random.Random) -> dict:
    """Kill a job once and run it again; what came out."""
    results, moment = Path(tempfile.mkdtemp(dir=work.root)), rng.uniform(0, expected.seconds)
    victims = rng.choice([[0], [1], [0, 1]]) if count > 1 else [0]
    answer = {"job": job, "processes": count, "moment": round(moment, 2), "killed": victims}
    pids = start(job, work, results, count)
    early = ended(pids, time.monotonic() + moment)
    if len(early) == count:
        shutil.rmtree(results)
        return answer | {"result": "ended before its moment"}
    for rank in victims:
        if pids[rank] not in early:
            os.kill(pids[rank], signal.SIGKILL)
    others = [pid for pid in pids if pid not in early]
    statuses = ended(others, time.monotonic() + PATIENCE)
    answer["begun"] = sum(path.is_file() for path in results.rglob("*"))
    problems = []
    if len(statuses) < len(others):
        problems.append("a process did not end")
    for rank in set(range(count)) - set(victims):
        said = Path(f"{results}.rank{rank}").read_text().splitlines()
        if statuses.get(pids[rank]) != 0 and (not said or not said[-1].startswith("stadlib: ")):
            problems.append(f"no line: {said[-1:]}")
        if any(line.startswith("Traceback") for line in said):
            problems.append("a traceback")
    again = ended(start(job, work, results, count), 0)
    if any(again.values()):
        said = Path(f"{results}.rank0").read_text().splitlines()
        problems.append(f"did not resume: {said[-1:]}")
    found = prints(results)
    differ = [n for n in {*found, *expected.prints} if found.get(n) != expected.prints.get(n)]
    problems += [f"other bytes: {sorted(differ)}"] * bool(differ)
    problems += [f"left: {left}" for left in [left_over(results)] if left]
    shutil.rmtree(results)
    return answer | {"result": "; ".join(problems) or "same"}


def main() -> None:
    """Print a line a trial and their count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", choices=tuple(JOBS), default=list(JOBS))
    parser.add_argument("--out", type=Path, help="the lines as a file, too")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    end = time.monotonic() + 60 * options.minutes
    import stadlib.training.detector
    import stadlib.training.predictions
    import stadlib.world.sets  # noqa: F401

    counts: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        os.environ.setdefault("STADLIB_DATA", str(work.root / "data"))
        prepare(work)
        print(f"prepared after {time.monotonic() - end + 60 * options.minutes:.0f} s", flush=True)
        kinds = [(job, count) for count in (1, 2) for job in options.jobs]
        unkilled: dict[tuple[str, int], Whole] = {}
        for number in range(10 * options.kills):
            if (
                sum(n for (_, _, r), n in counts.items() if not r.startswith("ended"))
                >= options.kills
            ):
                break
            if time.monotonic() > end:
                break
            kind = kinds[number % len(kinds)]
            if kind not in unkilled:
                unkilled[kind] = whole(kind[0], work, kind[1])
            rng = random.Random(f"{options.seed} {number}")
            answer = trial(kind[0], work, kind[1], unkilled[kind], rng)
            counts[*kind, answer["result"]] += 1
            line = json.dumps(answer)
            print(line, flush=True)
            if options.out:
                with open(options.out, "a") as file:
                    file.write(f"{line}\n")
    for (job, count, result), times in sorted(counts.items()):
        print(f"{job}, {count} process{'es' * (count > 1)}: {times} x {result}")
    kills = sum(n for (*_, result), n in counts.items() if not result.startswith("ended"))
    same = sum(n for (*_, result), n in counts.items() if result == "same")
    print(f"{kills} kills, {same} with the same bytes and nothing left over")
    sys.exit(kills != same)


if __name__ == "__main__":
    main()

"""Four processes on two machines: the same losses, also with one killed and with a slow one.

The machines are network namespaces of this one, joined by a cable of the kernel's (Linux, root,
iproute2). Each starts two processes through torchrun; results and data lie in shared folders. A
smoke row with memory is trained by one process, by four, by four of which one is killed, then
resumed by two on one machine, and by four of which one stands still for 30 seconds. Losses differ
by 5e-5 at most. From the root of a checkout; it takes some five minutes:

    uv run python tests/benchmarks/bench_machines.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROW = "train --head t-only --memory yes --backbone ir-csn-152 --pretrain K700"
ROW += " --detector ground-truth --scale smoke --save-every 1"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
STUDY = ["-m", "stadlib", *ROW.split()]
PAUSE = 30  # seconds


def cable() -> None:
    """Two namespaces, each with an end of one virtual cable."""
    for number in (1, 2):
        if Path(f"/run/netns/stad{number}").exists():  # of a run before
            ip("netns", "del", f"stad{number}")
        ip("netns", "add", f"stad{number}")
    ip("link", "add", "end1", "type", "veth", "peer", "name", "end2")
    for number in (1, 2):
        ip("link", "set", f"end{number}", "netns", f"stad{number}")
        ip("-n", f"stad{number}", "addr", "add", f"10.9.0.{number}/24", "dev", f"end{number}")
        for device in ("lo", f"end{number}"):
            ip("-n", f"stad{number}", "link", "set", device, "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def start(command: list[str], results: Path, data: Path, **more: str) -> subprocess.Popen:
    """A process with these folders; what it prints goes to a file beside them."""
    folders = {"STADLIB_RESULTS": str(results), "STADLIB_DATA": str(data), "OMP_NUM_THREADS": "1"}
    with results.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command, env=os.environ | folders | more, stdout=log, stderr=log)


def machines(results: Path, data: Path) -> list[subprocess.Popen]:
    """Torchrun on both machines, two processes each."""
    meet = ["--nnodes", "2", "--nproc-per-node", "2", "--master-addr", "10.9.0.1"]
    return [
        start(
            [
                "ip",
                "netns",
                "exec",
                f"stad{n}",
                *TORCHRUN,
                *meet,
                "--node-rank",
                f"{n - 1}",
                *STUDY,
            ],
            results,
            data,
            GLOO_SOCKET_IFNAME=f"end{n}",
        )
        for n in (1, 2)
    ]


def losses(results: Path) -> list[float]:
    """Of all stages, as logged."""
    logs = sorted((results / "runs" / "stages").glob("*/log.jsonl"))
    return [json.loads(line)["loss"] for log in logs for line in log.read_text().splitlines()]


def rank(number: int, results: Path) -> int:
    """The process of this rank, once two losses are logged."""
    while len(losses(results)) < 2:
        time.sleep(0.1)
    wanted = {f"RANK={number}".encode(), f"STADLIB_RESULTS={results}".encode()}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted <= set((process / "environ").read_bytes().split(b"\0")):
                found.append(int(process.name))
        except OSError:  # it ended, or is somebody else's
            continue
    if found:
        return min(found)  # the others are its workers
    raise SystemExit(f"no process of rank {number}; see {results.with_suffix('.log')}")


def ended(processes: list[subprocess.Popen]) -> float:
    """Seconds until all have ended."""
    begin = time.monotonic()
    for process in processes:
        process.wait()
    return time.monotonic() - begin


def require(name: str, found: list[float], expected: list[float]) -> None:
    """The losses of one process."""
    pairs = zip(found, expected, strict=False)
    if len(found) != len(expected) or any(abs(a - b) > 5e-5 for a, b in pairs):
        raise SystemExit(f"{name}: losses {found} are not {expected}")
    print(f"{name}: the same {len(found)} losses", flush=True)


def main() -> None:
    """Run all four cases; any difference ends it."""
    root = Path(tempfile.mkdtemp())
    data = root / "data"
    cable()
    ended([start([sys.executable, *STUDY], root / "one", data)])
    expected = losses(root / "one")
    print(f"one process: {len(expected)} losses, in {root}", flush=True)

    ended(machines(root / "four", data))
    require("four processes on two machines", losses(root / "four"), expected)

    killed = root / "killed"
    processes = machines(killed, data)
    os.kill(rank(3, killed), signal.SIGKILL)
    print(f"one of four killed: the others ended after {ended(processes):.0f} s", flush=True)
    ended([start([*TORCHRUN, "--nproc-per-node", "2", *STUDY], killed, data)])
    require("resumed by two on one machine", losses(killed), expected)

    slow = root / "slow"
    processes = machines(slow, data)
    still = rank(2, slow)
    os.kill(still, signal.SIGSTOP)
    time.sleep(PAUSE)
    os.kill(still, signal.SIGCONT)
    ended(processes)
    require(f"one of four stood still for {PAUSE} s", losses(slow), expected)


if __name__ == "__main__":
    main()

"""Where lsviz saturates: runs on disk, a sweep's driver, waiting runs, and browsers, each at several sizes.

Nothing here is held against a peer: points are measured, and a line is fitted through those of a part, from
which docs/SCALE.md goes on to sizes that no one machine has. Takes about five minutes on two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from benchmarks.browsing import APP, REPOSITORY, server
from benchmarks.pages import write_many
from benchmarks.sessions import open_session
from benchmarks.timing import RESULTS
from lsviz.jobs.doctor import machine
from lsviz.jobs.queue import places
from lsviz.jobs.sweep import is_whole
from lsviz.runs.exchange import export_zip, import_zip
from lsviz.runs.inspector import Inspector
from lsviz.runs.store import RunStore

RUNS: Final = (100, 1_000, 10_000)
WAITING: Final = (10, 100, 1_000)
SESSIONS: Final = (10, 30, 60, 120)
CLASS: Final = 500
TASKS: Final = (10, 100, 1_000)
IMPORTS: Final = 30
LENGTHS: Final = {"30 s": 30.0, "5 min": 300.0, "1 h": 3600.0}
ROUNDS: Final = 3

LISTING = """
import json, psutil, sys, time
from pathlib import Path
from lsviz.analysis.listing import runs_frame, search_runs
from lsviz.runs.store import RunStore
before = psutil.Process().memory_info().rss
taken = {}
for _ in range(3):
    for name, act in (
        ("list", lambda: RunStore.at(Path(sys.argv[1])).list_runs()),
        ("frame", lambda: runs_frame(runs)[0]),
        ("search", lambda: search_runs(frame, "gradscaler digits finished")),
    ):
        began = time.perf_counter()
        made = act()
        taken.setdefault(name, []).append(time.perf_counter() - began)
        if name == "list":
            runs = made
        elif name == "frame":
            frame = made
grown = (psutil.Process().memory_info().rss - before) / 1024
print(json.dumps({**{k: min(v) for k, v in taken.items()}, "first list": taken["list"][0], "KiB": grown}))
"""
"""In a process of its own, whose memory is then that of the runs."""


def seconds(act: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the least seconds of an act, which other work on the machine adds least to."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return min(taken)


def line(points: dict[int, float]) -> dict[str, float]:
    """Return the line of least squares through points: what is there at 0, and what each one adds."""
    each, fixed = np.polyfit(list(points), list(points.values()), 1)
    return {"fixed": float(fixed), "each": float(each)}


def measure_runs(folder: Path) -> dict[str, Any]:
    """List, put into a table and search so many runs, of the small files that listing reads."""
    told: dict[str, Any] = {}
    for number in RUNS:
        root = folder / str(number)
        write_many(root, number)
        done = subprocess.run(
            [sys.executable, "-c", LISTING, str(root)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        told[str(number)] = json.loads(done.stdout)
        print(f"  {number:6,} runs {told[str(number)]}", flush=True)
    return told


def measure_waiting(folder: Path, beside: int) -> dict[str, float]:
    """Ask for the places in the queue of so many waiting runs, beside so many that have ended."""
    told = {}
    for number in WAITING:
        root = folder / f"waiting-{number}-{beside}"
        write_many(root, number + beside)
        for status in sorted(root.glob("*/status.json"))[:number]:
            _put(status, state="queued", pid=None, waiting=False)
            _put(status.with_name("run.json"), queued=time.time(), owner=f"visitor {len(told)}")
        assert len(places(root)) == number
        told[str(number)] = seconds(lambda root=root: places(root))
        print(f"  {number:6,} waiting beside {beside:,} ended: {told[str(number)]:.4f} s", flush=True)
    return told


def _put(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def measure_driver(folder: Path) -> dict[str, Any]:
    """Take in runs as a driver does, into a folder that has few and one that has many."""
    samples = RunStore.at(REPOSITORY / "sample_runs").list_runs()
    sizes = sorted(samples, key=lambda run: sum(path.stat().st_size for path in run.path.iterdir()))
    told: dict[str, Any] = {"imports": {}}
    for name, run in (("smallest", sizes[0]), ("middle", sizes[len(sizes) // 2]), ("largest", sizes[-1])):
        packed = io.BytesIO()
        export_zip(run, packed)
        for beside in (0, RUNS[-1]):
            root = folder / (str(beside) if beside else f"empty-{name}")
            with Inspector() as inspector:
                taken, middle = _import_many(packed.getvalue(), RunStore.at(root), inspector)
            told["imports"][f"{name} sample, {beside:,} runs beside"] = {
                "seconds": taken,
                "median": middle,
                "zip KiB": round(len(packed.getvalue()) / 1024),
                "task": run.config.task,
            }
            print(f"  import, {name} sample, {beside:,} beside: {taken * 1e3:.0f} ms", flush=True)
    return told


def _import_many(packed: bytes, store: RunStore, inspector: Inspector) -> tuple[float, float]:
    taken = []
    for _ in range(IMPORTS):
        began = time.perf_counter()
        run = import_zip(io.BytesIO(packed), store, "a run", inspector)
        assert is_whole(run)
        taken.append(time.perf_counter() - began)
    return min(taken), statistics.median(taken)


def measure_ray() -> dict[str, dict[str, float]]:
    """Ask a real Ray for the state of tasks that wait, and for the steps of as many on a sweep's board."""
    import ray

    from lsviz.jobs.raynode import Board

    # A cluster of its own: another one of this machine is none of ours.
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        board = ray.remote(Board).options(num_cpus=0).remote()
        ray.get(board.read.remote([]))
        never = ray.remote(lambda: None).options(resources={"nowhere": 1})
        told: dict[str, dict[str, float]] = {"submit": {}, "wait": {}, "board": {}}
        for number in TASKS:
            began = time.perf_counter()
            tasks = [never.remote() for _ in range(number)]
            told["submit"][str(number)] = (time.perf_counter() - began) / number
            told["wait"][str(number)] = seconds(lambda tasks=tasks: ray.wait(tasks, timeout=0), 20)
            for key in range(number):
                board.note.remote(key, 1)
            keys = list(range(number))
            told["board"][str(number)] = seconds(lambda keys=keys: ray.get(board.read.remote(keys)), 20)
            for task in tasks:
                ray.cancel(task)
        print(f"  ray: {told}", flush=True)
        return told
    finally:
        ray.shutdown()


def driven(each: float) -> dict[str, int]:
    """Return how many GPUs one driver keeps busy, which takes so long a run, by the length of runs."""
    return {name: int(length / each) for name, length in LENGTHS.items()}


def measure_sessions() -> dict[str, Any]:
    """Open so many sessions at once and hold them; the seconds of the last one, and what the server holds."""
    told: dict[str, Any] = {}
    for number in SESSIONS:
        told[str(number)] = asyncio.run(_opened(number, 1))
        print(f"  {number:4} sessions: {told[str(number)]}", flush=True)
    told["60 on two servers"] = asyncio.run(_opened(60, 2))
    print(f"  60 sessions on two servers: {told['60 on two servers']}", flush=True)
    return told


async def _opened(number: int, servers: int) -> dict[str, float]:
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(server(APP)) for _ in range(servers)]
        files = stack.enter_context(ThreadPoolExecutor(number))
        before, used = _memory(urls), _processor(urls)
        there, leave = 0, asyncio.Event()
        held: dict[str, float] = {}

        async def stay() -> None:
            nonlocal there
            there += 1
            if there == number:
                held["MiB"] = _memory(urls) - before
                held["processor seconds"] = _processor(urls) - used
                leave.set()
            await leave.wait()

        opened = [open_session(urls[i % servers], files, stay=stay) for i in range(number)]
        done = await asyncio.gather(*opened)
        assert all(seen for _, seen in done)
        taken: Sequence[float] = [each for each, _ in done]
        return {"last": max(taken), "half": statistics.median(taken), "MiB before": before, **held}


def _servers(urls: Sequence[str]) -> list[psutil.Process]:
    ports = {int(url.rpartition(":")[2]) for url in urls}
    ours = psutil.Process().children(recursive=True)
    listening = lambda process: {c.laddr.port for c in process.net_connections() if c.status == "LISTEN"}  # noqa: E731
    return [process for process in ours if ports & listening(process)]


def _memory(urls: Sequence[str]) -> float:
    return sum(process.memory_info().rss for process in _servers(urls)) / 2**20


def _processor(urls: Sequence[str]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _servers(urls))


def main() -> None:
    """Measure all, fit, print and save."""
    began = os.getloadavg()[0]
    sessions = measure_sessions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = measure_runs(folder)
        waiting = {f"{n:,} ended beside": measure_waiting(folder, n) for n in (0, RUNS[-1])}
        driver = measure_driver(folder)
    last = line({n: sessions[str(n)]["last"] for n in SESSIONS})
    used = line({n: sessions[str(n)]["processor seconds"] for n in SESSIONS})
    held = line({n: sessions[str(n)]["MiB"] for n in SESSIONS})
    fitted: dict[str, Any] = {
        "list": line({n: runs[str(n)]["list"] for n in RUNS}),
        "frame": line({n: runs[str(n)]["frame"] for n in RUNS}),
        "search": line({n: runs[str(n)]["search"] for n in RUNS}),
        "KiB a run": line({n: runs[str(n)]["KiB"] for n in RUNS}),
        "sessions, the last one": last,
        "sessions, processor seconds": used,
        "sessions, MiB": held,
        f"{CLASS} sessions, the last one": last["fixed"] + CLASS * last["each"],
        f"{CLASS} sessions, MiB": held["fixed"] + CLASS * held["each"],
        "GPUs that one driver keeps busy": {
            name: driven(told["seconds"]) for name, told in driver["imports"].items()
        },
    }
    print(json.dumps(fitted, indent=1))
    document = {
        "machine": machine(),
        "load before and after": [began, os.getloadavg()[0]],
        "python": sys.version.split()[0],
        "measured": {"runs": runs, "waiting": waiting, "driver": driver, "sessions": sessions},
        "fitted": fitted,
    }
    for ray in (None, measure_ray):  # what is measured so far is kept
        driver["ray"] = ray() if ray else {}
        (RESULTS / "scale.json").write_text(json.dumps(_rounded(document), indent=2) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()

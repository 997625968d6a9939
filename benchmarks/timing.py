"""Timing several ways of doing a thing in turn, so that a drifting machine hits all of them."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def median_seconds(
    ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3, at_once: int = 1
) -> dict[str, float]:
    """Return the median seconds of each way, run in turn ``rounds`` times after ``warm_up`` rounds.

    Args:
        ways: What is timed.
        rounds: How often it is each one's turn.
        warm_up: Turns before those that count.
        at_once: Runs a turn; from the second on a way finds the caches as it left them itself.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + rounds):
        for name, way in ways.items():
            for run in range(at_once):
                started = time.perf_counter()
                way()
                if turn >= warm_up and (run or at_once == 1):
                    taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def report(title: str, peer: str, seconds: Mapping[str, float]) -> dict[str, float]:
    """Print a table of times and their ratios to the peer, and return the ratios."""
    print(f"\n{title}, against {peer}")
    ratios = {name: taken / seconds[peer] for name, taken in seconds.items()}
    for name, taken in seconds.items():
        print(f"  {name:38s} {taken * 1e3:10.3f} ms  {ratios[name]:7.2f} x")
    return ratios


def save(name: str, tables: Mapping[str, Mapping[str, float]]) -> None:
    """Write ratios with machine and versions to ``benchmarks/results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "ratios": {title: {k: round(v, 3) for k, v in table.items()} for title, table in tables.items()},
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")

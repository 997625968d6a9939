"""Real jobs for tests of faults: what stands in for a server, and looking at all runs of a folder."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from lsviz.jobs.processes import carriers
from lsviz.jobs.settling import live_status
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.runs.schema import RunStatus
from lsviz.runs.store import RunStore
from tests.conftest import PATIENCE, REPOSITORY, clean_environment

SERVER = """
import signal, sys, time
from pathlib import Path
from lsviz.jobs.manager import cancel_run, live_status, submit_run
from lsviz.jobs.queue import tend
from lsviz.runs.config import RunConfig
from lsviz.runs.store import RunStore

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
root, owner = Path(sys.argv[1]), sys.argv[2]
for text in sys.argv[3:]:
    submit_run(root, RunConfig.model_validate_json(text), owner=owner)
print("ready", flush=True)
while True:
    tend(root)
    for run in RunStore.at(root).list_runs():
        live_status(run)
    time.sleep(0.2)
"""
"""Submits runs and looks after them as pages do, until it dies. Workers are its children, as a server's."""


def tiny(seed: int = 0, **settings: object) -> RunConfig:
    values = {"steps": 6, "record_every": 0, "reference_every": 0, **settings}
    return RunConfig.build(task="digits-mlp", seed=seed, **values)


def start_server(
    root: Path, *configs: RunConfig, owner: str = "page", slots: int = 2
) -> subprocess.Popen[str]:
    """Start it and return it as soon as it has submitted the runs."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(root), owner, *(config.model_dump_json() for config in configs)],
        cwd=REPOSITORY,
        env=clean_environment(LSVIZ_SLOTS=str(slots)),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


def stop_server(server: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> None:
    """End it in that way, if it has not ended."""
    server.send_signal(number)
    server.wait(PATIENCE)
    assert server.stdout is not None
    server.stdout.close()


def end_all(root: Path) -> None:
    """Leave nothing behind of a test that failed."""
    for run in all_runs(root):
        for process in carriers(run.run_id):
            with contextlib.suppress(psutil.Error):
                process.kill()


def all_runs(root: Path) -> list[Run]:
    """All runs, in the order of asking."""
    return sorted(RunStore.at(root).list_runs(), key=lambda run: (run.record.queued or 0, run.run_id))


def training(root: Path) -> list[RunStatus]:
    """Those that train, by what their folders say."""
    states = [run.status for run in RunStore.at(root).list_runs()]
    return [status for status in states if status.state == "running"]


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def assert_settled(root: Path) -> None:
    """No run is live, each has whole rows from its first step on, and no process is left of any."""
    for run in all_runs(root):
        status = live_status(run)
        assert not status.live, (run.run_id, status)
        assert run.steps()["step"].tolist() == list(range(status.step)), (run.run_id, status)
        assert not run.problems, run.problems
        wait_until(lambda run=run: not carriers(run.run_id), 30)
    assert not list(root.glob(".*.tmp"))

"""Starting, watching and cancelling detached runs. A run's truth is its folder; no torch here."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import psutil
import pyarrow as pa
from filelock import FileLock, Timeout

from lsviz.jobs.launching import worker_command, worker_environment
from lsviz.runs.compaction import compact
from lsviz.runs.config import RunConfig
from lsviz.runs.files import RunFolderError, write_json
from lsviz.runs.reader import Run, open_run
from lsviz.runs.schema import OWN_LOOP, PAUSE, RunStatus, State
from lsviz.runs.writer import create_run

START_SECONDS: Final = 60.0
"""A queued run whose process has not reported by then never will."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Workers that this process started: kept so that a dead one is reaped and does not stay a zombie."""


def submit_run(root: Path, config: RunConfig) -> Run:
    """Make a run's folder and start it in a process of its own, which outlives this one.

    Raises:
        RunFolderError: The folder can't be written.
    """
    path = create_run(root, config)
    with (path / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            worker_command(str(path.resolve())),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=worker_environment(LSVIZ_RUN_ID=path.name),
            start_new_session=True,
        )
    _children[child.pid] = child
    return open_run(path)


def live_status(run: Run) -> RunStatus:
    """Return the run's status, corrected where its process has died without saying so.

    A run found dead is marked ``interrupted`` on disk, and its parts are put together.
    """
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]
    status = run.status
    if not status.live or not _lost(status):
        return status
    fresh = run.status  # it may have ended between the two looks
    if not fresh.live:
        return fresh
    never_started = fresh.pid is None
    error = (
        "its process never started; log.txt tells why"
        if never_started
        else "its process died without a word (killed, out of memory, or the machine restarted)"
    )
    return settle_run(run, "interrupted", error)


def settle_run(run: Run, state: State, error: str | None) -> RunStatus:
    """Mark a run whose process is gone as ended, put its parts together and return its status.

    Raises:
        RunError: Its status can't be read.
    """
    settled = run.status.model_copy(
        update={
            "state": state,
            "error": error,
            "paused": False,
            "updated": time.time(),
            "pid": None,
            "process_start": None,
            "host": None,
        }
    )
    with contextlib.suppress(OSError, Timeout), FileLock(run.path / ".settle.lock", timeout=0):
        write_json(run.path / "status.json", settled.model_dump())
        (run.path / PAUSE).unlink(missing_ok=True)
        with contextlib.suppress(pa.ArrowException, RunFolderError):  # a torn part stays; reading names it
            compact(run.path)
    return settled


def is_ours(run: Run) -> bool:
    """Return whether lsviz trains this run. Of a recorded loop it only writes down what the loop does."""
    return run.record.engine != OWN_LOOP


def cancel_run(run: Run) -> bool:
    """Ask a live run to stop after the step in hand; it then marks itself cancelled.

    Returns:
        Whether there was a process to ask. There is none of a recorded loop: that process is its user's.
    """
    status = live_status(run)
    if not is_ours(run) or not status.live or status.pid is None or status.host != socket.gethostname():
        return False
    try:
        os.kill(status.pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def _lost(status: RunStatus) -> bool:
    if status.pid is None:
        return time.time() - status.updated > START_SECONDS
    if status.host != socket.gethostname():
        return False  # another machine's process can't be seen from here
    try:
        process = psutil.Process(status.pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        same = status.process_start is None or abs(process.create_time() - status.process_start) < 1.0
    except psutil.NoSuchProcess:
        return True
    return not (alive and same)

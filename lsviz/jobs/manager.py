"""Starting, watching and cancelling detached runs. A run's truth is its folder; no torch here."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import Final

from lsviz.jobs.launching import module_command, worker_environment
from lsviz.jobs.processes import keep
from lsviz.jobs.queue import Job, check_room, enqueue, withdraw
from lsviz.jobs.settling import START_SECONDS, is_ours, live_status, settle_run
from lsviz.runs.config import RunConfig
from lsviz.runs.limits import RunLimits
from lsviz.runs.process import is_here, send_signal
from lsviz.runs.reader import Run
from lsviz.runs.schema import CANCEL

__all__ = [
    "PATIENCE_SECONDS",
    "START_SECONDS",
    "cancel_run",
    "check_room",
    "is_ending",
    "is_ours",
    "live_status",
    "settle_run",
    "submit_run",
]

PATIENCE_SECONDS: Final = 30.0
"""So long a run that was asked to stop may take over the step in hand; then it is killed."""


def submit_run(
    root: Path, config: RunConfig, *, owner: str | None = None, limits: RunLimits | None = None
) -> Run:
    """Make a run's folder and have it trained by a process of its own, which outlives this one.

    It starts at once where a slot is free (`lsviz.jobs.slots`), and waits for its turn otherwise.

    Args:
        root: Folder that holds the runs; made if missing.
        config: What to train.
        owner: Who launches it: owners take turns. None: who types commands.
        limits: What it may take; None: those of the environment.

    Raises:
        QueueFullError: Too many wait already.
        RunFolderError: The folder can't be written.
        UserError: It asks for more than a run may.
    """
    return enqueue(root, config, owner=owner, limits=limits)


def is_ending(run: Run) -> bool:
    """Return whether a live run was asked to end: it may have a step to finish first."""
    return (run.path / CANCEL).exists()


def cancel_run(run: Run, *, patience: float = PATIENCE_SECONDS) -> bool:
    """End a live run: at once where it waits, else after the step in hand; it marks itself cancelled.

    One that does not stop is killed after some seconds, with all that it started, by a small process of its
    own: also where who asked has gone.

    Args:
        run: The run.
        patience: Seconds until then.

    Returns:
        Whether there was something to end. There is not of a recorded loop: that process is its user's.

    Raises:
        RunError: It can't be read.
    """
    status = live_status(run)
    if not is_ours(run) or not status.live:
        return False
    if Job(run, run.record, status).waits and withdraw(run):
        return True
    status = run.status
    if not status.live or status.pid is None or not is_here(status):
        return False
    with contextlib.suppress(OSError):  # on a full disk it is interrupted rather than cancelled
        (run.path / CANCEL).touch()
    if not send_signal(status, signal.SIGTERM):
        return False
    keep(
        subprocess.Popen(
            module_command("lsviz.jobs.ending", str(run.path.resolve()), str(status.pid), str(patience)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=worker_environment(),
            start_new_session=True,
        )
    )
    return True

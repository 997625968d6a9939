"""What became of a run: its status, corrected where its process died without a word."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import pyarrow as pa
from filelock import FileLock, Timeout

from lsviz.jobs.processes import end_carriers, reap
from lsviz.runs.compaction import compact
from lsviz.runs.files import RunFolderError, write_json
from lsviz.runs.locking import is_being_written
from lsviz.runs.process import NOBODY, is_alive, is_here
from lsviz.runs.reader import Run
from lsviz.runs.schema import CANCEL, OWN_LOOP, PAUSE, RunStatus, State

START_SECONDS: Final = 60.0
"""A run that waits in no queue and whose process has not reported by then never will."""
KILLED: Final = "it did not stop when it was asked to, and was killed"


def live_status(run: Run) -> RunStatus:
    """Return the run's status, corrected where its process has died without saying so.

    A run found dead is marked ``interrupted`` on disk (``cancelled`` where it had been asked to end), its
    parts are put together, and what it left running is ended. One that waits in a queue has no process yet.

    Raises:
        RunError: Its folder can't be read.
    """
    reap()
    status = run.status
    if not status.live or not _lost(run, status):
        return status
    fresh = run.status  # it may have ended or begun between the two looks
    if not fresh.live or (fresh is not status and not _lost(run, fresh)):
        return fresh
    if fresh.pid is not None and is_ours(run):
        end_carriers(run.run_id, patience=0)
    cancel = run.path / CANCEL
    if cancel.exists():
        return settle_run(run, "cancelled", KILLED if was_killed(cancel) else None)
    if fresh.waiting:
        error = "the command that waited for its turn has ended"
    elif fresh.state == "queued":
        error = "its process never started; log.txt tells why"
    else:
        error = "its process died without a word (killed, out of memory, or the machine restarted)"
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
            "waiting": False,
            "updated": time.time(),
            **NOBODY,
        }
    )
    with contextlib.suppress(OSError, Timeout), FileLock(run.path / ".settle.lock", timeout=0):
        write_json(run.path / "status.json", settled.model_dump())
        for asked in (PAUSE, CANCEL):
            (run.path / asked).unlink(missing_ok=True)
        with contextlib.suppress(pa.ArrowException, RunFolderError):  # a torn part stays; reading names it
            compact(run.path)
    return settled


def is_ours(run: Run) -> bool:
    """Return whether lsviz trains this run. Of a recorded loop it only writes down what the loop does."""
    return run.record.engine != OWN_LOOP


def was_killed(cancel: Path) -> bool:
    """Return whether the run of that cancel file was killed in the end."""
    try:
        return cancel.read_text("utf-8")[:10] == "killed"
    except (OSError, UnicodeDecodeError):
        return False


def _lost(run: Run, status: RunStatus) -> bool:
    if status.pid is None:
        return run.record.queued is None and time.time() - status.updated > START_SECONDS
    if not is_here(status):
        return False  # another machine's process can't be seen from here
    # Two witnesses: the lock is seen where the process can't be (another container), and the process where
    # the file system has no locks, or before it locks.
    return not is_alive(status) and not is_being_written(run.path)

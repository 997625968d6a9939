"""Seeing to it that a cancelled run ends: ``python -m lsviz.jobs.ending RUN PID SECONDS``.

A process of its own, since who asked may go away. It waits, kills what does not end, marks the run and starts
the next one in the queue.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Final

from lsviz.errors import UserError
from lsviz.jobs.processes import POLL_SECONDS, carriers, end_carriers, kill_writer, wait_until_gone
from lsviz.jobs.queue import start_due
from lsviz.jobs.settling import is_ours, live_status
from lsviz.runs.reader import Run, RunError
from lsviz.runs.schema import CANCEL

CHILDREN_SECONDS: Final = 3.0
"""So long what a run has started may take to end by itself once the run has."""


def see_to_its_end(run: Run, pid: int, patience: float) -> None:
    """Wait for a run that was asked to stop, kill it if it does not, and end what it leaves behind.

    Args:
        run: The run.
        pid: Of the process that was asked.
        patience: Seconds.
    """
    if not is_ours(run):
        return
    end = time.monotonic() + patience
    while (status := live_status(run)).live and status.pid == pid and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    if status.live and status.pid == pid:
        with contextlib.suppress(OSError):
            (run.path / CANCEL).write_text("killed", "utf-8")
        kill_writer(status)
        wait_until_gone(status, 10.0)
    live_status(run)  # which marks it
    end = time.monotonic() + CHILDREN_SECONDS
    while carriers(run.run_id) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    end_carriers(run.run_id, patience=CHILDREN_SECONDS)


def main(argv: list[str]) -> int:
    """See to the end of the run in the given folder."""
    path = Path(argv[0])
    with contextlib.suppress(RunError, UserError):  # its folder may have gone
        see_to_its_end(Run(path), int(argv[1]), float(argv[2]))
    start_due(path.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

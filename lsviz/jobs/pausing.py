"""Pausing a live run between two steps, by a file in its folder: it also reaches other machines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from lsviz.jobs.settling import is_ours, live_status
from lsviz.runs.files import RunFolderError
from lsviz.runs.reader import Run
from lsviz.runs.schema import PAUSE
from lsviz.runs.writer import RunWriter

LOOK_SECONDS: Final = 0.1
"""How often a run looks for its pause file: seldom enough to cost nothing on a file system far away."""


def pause_run(run: Run) -> bool:
    """Ask a live run to wait after the step in hand.

    Returns:
        Whether it was live and lsviz trains it; a recorded loop waits for nobody.

    Raises:
        RunFolderError: Its folder can't be written.
    """
    if not is_ours(run) or not live_status(run).live:
        return False
    try:
        (run.path / PAUSE).touch()
    except OSError as error:
        raise RunFolderError(f"can't pause {run.run_id} ({error.strerror or error})") from None
    return True


def resume_run(run: Run) -> None:
    """Let a paused run go on; one that is not paused is left alone.

    Raises:
        RunFolderError: Its folder can't be written.
    """
    try:
        (run.path / PAUSE).unlink(missing_ok=True)
    except OSError as error:
        raise RunFolderError(f"can't resume {run.run_id} ({error.strerror or error})") from None


def is_pausing(run: Run) -> bool:
    """Return whether a run was asked to wait: it may have a step to end first."""
    return (run.path / PAUSE).exists()


class PauseGate:
    """Where a run stands between two steps, for as long as it is asked to.

    Args:
        writer: The run's.
        stopped: Whether it is to end instead.
    """

    def __init__(self, writer: RunWriter, stopped: Callable[[], bool]) -> None:
        self._writer = writer
        self._stopped = stopped
        self._looked_at = time.monotonic()

    def wait(self) -> None:
        """Return at once, or when the pause file has gone or the run is to end."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        if not self._writer.asked_to_pause:
            return
        self._writer.mark_paused(True)
        while self._writer.asked_to_pause and not self._stopped():
            time.sleep(LOOK_SECONDS)
        self._writer.mark_paused(False)

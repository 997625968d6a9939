"""Holding a run to its limits, from its own process, between two steps."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import psutil

from lsviz.errors import UserError
from lsviz.runs.limits import VARIABLES, RunLimits

LOOK_SECONDS: Final = 0.5
MACHINE_SHARE: Final = 0.9
"""Of the machine's memory: what a run may take that is told nothing else."""
_GIB: Final = 2**30


class LimitError(UserError):
    """A run has taken all that it may; the message says of what."""


class LimitWatch:
    """Looks at what a run takes, seldom enough to cost nothing.

    Args:
        limits: What it may take.
        log: Its log.txt.
    """

    def __init__(self, limits: RunLimits, log: Path) -> None:
        self._limits = limits
        self._log = log
        self._began = self._looked_at = time.monotonic()
        self._memory = limits.memory_gib or MACHINE_SHARE * _machine_memory() / _GIB
        self._log_end: int | None = None

    def check(self) -> None:
        """Cut the log where it is too long.

        Raises:
            LimitError: The run has to end.
        """
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        with suppress(OSError):
            self._hold_log()
        hours = (now - self._began) / 3600
        if hours > self._limits.hours:
            raise LimitError(
                f"it has run for {_time(hours)}, and {_time(self._limits.hours)} is the longest that it may "
                f"({VARIABLES['hours']}, or --max-hours)"
            )
        taken = psutil.Process().memory_info().rss / _GIB
        if taken > self._memory:
            raise LimitError(
                f"its process takes {taken:.2f} GiB of memory, and {self._memory:.2f} GiB is the most "
                f"that it may ({VARIABLES['memory_gib']}, or --max-memory)"
            )

    def _hold_log(self) -> None:
        """Write no more to a log that is too long; what children still write to it is cut off again."""
        size = self._log.stat().st_size
        if self._log_end is not None:
            if size > self._log_end:
                os.truncate(self._log, self._log_end)
            return
        most = int(self._limits.log_mib * 2**20)
        if size <= most or not os.path.samestat(self._log.stat(), os.fstat(1)):
            return  # of a run in a terminal the log is no file
        sys.stdout.flush()
        sys.stderr.flush()
        os.truncate(self._log, most)
        with self._log.open("ab") as file:
            file.write(
                f"\n{datetime.now():%Y-%m-%d %H:%M:%S}  the log has reached {self._limits.log_mib:g} MiB, "
                f"the most that it may ({VARIABLES['log_mib']}): nothing more is written to it\n".encode()
            )
        self._log_end = self._log.stat().st_size
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        os.close(nowhere)


def _machine_memory() -> int:
    """Return the bytes of memory that there are, in this container where it has fewer."""
    total: int = psutil.virtual_memory().total
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    return total


def _time(hours: float) -> str:
    return (
        f"{hours * 3600:.0f} s"
        if hours < 1 / 30
        else f"{hours * 60:.0f} min"
        if hours < 2
        else f"{hours:.1f} h"
    )

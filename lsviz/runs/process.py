"""Which process writes a run: told so that its death, and another one under its number, are noticed.

A number alone is used again. On Linux the boot and the clock ticks from it to the process's start tell a
process from every other one, whatever the clock on the wall does; elsewhere its start time has to do.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

NOBODY: Final[dict[str, Any]] = {
    **{"pid": None, "process_start": None, "start_ticks": None, "boot_id": None, "host": None}
}
"""What the status of an ended run says: on which machine it was made is nobody's business."""


class Mark(Protocol):
    """What a status tells of a process."""

    pid: int | None
    process_start: float | None
    start_ticks: int | None
    boot_id: str | None
    host: str | None


@functools.cache
def boot_id() -> str | None:
    """Return the name of this boot of the machine; None where the system gives it none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def mark_of(pid: int) -> dict[str, Any]:
    """Return the fields of a status that name a living process of this machine.

    Raises:
        psutil.NoSuchProcess: It is gone.
    """
    return {
        "pid": pid,
        "process_start": psutil.Process(pid).create_time(),
        "start_ticks": (_stat(pid) or (None, None))[1],
        "boot_id": boot_id(),
        "host": socket.gethostname(),
    }


def own_mark() -> dict[str, Any]:
    """Return the fields of a status that name this process."""
    return mark_of(os.getpid())


def is_here(mark: Mark) -> bool:
    """Return whether the process that a status names belongs to this machine, where it can be looked for."""
    return mark.host == socket.gethostname()


def is_alive(mark: Mark) -> bool:
    """Return whether the very process that a status names still runs on this machine: no zombie, no other."""
    if mark.pid is None or (mark.boot_id and boot_id() and mark.boot_id != boot_id()):
        return False
    found = _stat(mark.pid)
    if found is not None and mark.start_ticks is not None:
        state, ticks = found
        return state not in "ZX" and ticks == mark.start_ticks
    try:  # a status of an older lsviz, or a system without /proc
        process = psutil.Process(mark.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return mark.process_start is None or abs(process.create_time() - mark.process_start) < 1.0
    except psutil.NoSuchProcess:
        return False


def send_signal(mark: Mark, number: signal.Signals) -> bool:
    """Send a signal to the very process that a status names, to no other; return whether it was there.

    Raises:
        PermissionError: It is another user's.
    """
    if mark.pid is None:
        return False
    try:
        if not hasattr(os, "pidfd_open"):
            if is_alive(mark):
                os.kill(mark.pid, number)
                return True
            return False
        handle = os.pidfd_open(mark.pid)  # held before the look, so that no other can take the number between
    except ProcessLookupError:
        return False
    try:
        if not is_alive(mark):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def _stat(pid: int) -> tuple[str, int] | None:
    """Return a process's state and start in ticks since the boot, from Linux's own file."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
        fields = text[text.rindex(")") + 1 :].split()  # its name, before that, may hold anything
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None

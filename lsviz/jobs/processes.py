"""The processes of a run: its own, its group's, and all that were started from it, wherever they went."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from typing import Final

import psutil

from lsviz.jobs.launching import RUN_ID
from lsviz.runs.process import Mark, is_alive, is_here, send_signal

POLL_SECONDS: Final = 0.05

_children: dict[int, subprocess.Popen[bytes]] = {}


def keep(child: subprocess.Popen[bytes]) -> None:
    """Remember a process that this one started, so that it is reaped once dead and stays no zombie."""
    reap()
    _children[child.pid] = child


def reap() -> None:
    """Let go of the kept processes that have ended."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def carriers(run_id: str) -> list[psutil.Process]:
    """Return the living processes that have a run's id in their environment, without this one.

    Children inherit it, also those that are in a session of their own or whose parent is gone.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            # Its environment is kept by a zombie on no system, and told of others' processes to nobody.
            if process.pid != os.getpid() and process.environ().get(RUN_ID) == run_id:
                found.append(process)
    return found


def end_carriers(run_id: str, patience: float) -> None:
    """End what carries a run's id: SIGTERM, and SIGKILL for what is still there after some seconds.

    Args:
        run_id: The run's.
        patience: Seconds; 0 kills at once.
    """
    asked = carriers(run_id) if patience else []
    for process in asked:
        with contextlib.suppress(psutil.Error):
            process.terminate()  # psutil looks first whether the number is still the same process's
    psutil.wait_procs(asked, timeout=patience)
    for _ in range(5):  # one that is killed may have started another just before
        left = carriers(run_id)
        if not left:
            return
        _kill(left)
        psutil.wait_procs(left, timeout=1)


def kill_writer(mark: Mark) -> None:
    """Kill the very process that writes a run, and its group where it leads a session of its own."""
    if mark.pid is None or not is_here(mark) or not is_alive(mark):
        return
    group: list[psutil.Process] = []
    with contextlib.suppress(OSError):
        if os.getsid(mark.pid) == mark.pid:
            group = _members(mark.pid)
    with contextlib.suppress(OSError):
        send_signal(mark, signal.SIGKILL)
    _kill(group)


def wait_until_gone(mark: Mark, seconds: float) -> bool:
    """Wait for a process to end; return whether it did."""
    end = time.monotonic() + seconds
    while is_alive(mark):
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
        reap()
    return True


def _members(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in (group, os.getpid()) and os.getpgid(process.pid) == group:
                found.append(process)
    return found


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()

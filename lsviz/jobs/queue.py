"""The queue of a folder of runs: how many train at once, who is next, and starting what is due.

It is nowhere but in the run folders: a run waits as long as its status is ``queued``, it has a place
(``queued`` in run.json) and no process. Whoever looks starts what is due, under one lock: pages, commands and
every worker as its last act, so that it goes on without a server. Owners take turns, each in the order of
asking.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import psutil

from lsviz.errors import UserError
from lsviz.jobs.holding import held
from lsviz.jobs.launching import RUN_ID, worker_command, worker_environment
from lsviz.jobs.processes import keep
from lsviz.jobs.settling import is_ours, live_status, settle_run
from lsviz.jobs.slots import max_queued, slots
from lsviz.runs.config import RunConfig
from lsviz.runs.files import write_json
from lsviz.runs.limits import RunLimits
from lsviz.runs.process import is_here, mark_of
from lsviz.runs.reader import Run, RunError, open_run
from lsviz.runs.schema import RunRecord, RunStatus
from lsviz.runs.store import RunStore
from lsviz.runs.writer import create_run

LOCK: Final = ".queue.lock"
TURNS: Final = ".queue.json"
"""Whose turn it was, in that order; without it the owners' turns begin anew."""
LOCK_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 1.0
"""How often a page or a command that waits looks after the queue."""
MAX_TURNS: Final = 100

_looked: dict[Path, float] = {}


class QueueFullError(UserError):
    """No more runs can wait; the message says how many do and what would help."""


@dataclass(frozen=True, slots=True)
class Job:
    """A live run: one that trains, or waits for its turn."""

    run: Run
    record: RunRecord
    status: RunStatus

    @property
    def waits(self) -> bool:
        """Whether it waits for its turn."""
        placed = self.status.state == "queued" and self.record.queued is not None
        return placed and (self.status.pid is None or self.status.waiting)

    @property
    def place(self) -> tuple[float, str]:
        """What orders the runs of an owner."""
        return self.record.queued or 0.0, self.run.run_id


def default_owner() -> str:
    """Return how the queue calls who types commands; opaque, as it stands in run.json."""
    return f"cli-{os.getuid()}" if hasattr(os, "getuid") else "cli"


def enqueue(
    root: Path,
    config: RunConfig,
    *,
    owner: str | None = None,
    limits: RunLimits | None = None,
    here: bool = False,
) -> Run:
    """Put a run in the queue of a folder, and start what is due there.

    Args:
        root: Folder that holds the runs; made if missing.
        config: What to train.
        owner: Who launches it; None: `default_owner`.
        limits: What it may take; None: those of the environment.
        here: Whether this process trains it when it is its turn (`wait_for_turn`); else one of its own does.

    Raises:
        QueueFullError: So many wait already.
        RunFolderError: The folder can't be written.
        UserError: It asks for more than a run may, or a setting of the environment is wrong.
    """
    limits = limits or RunLimits.build()
    limits.check(config)
    slots()
    with _locked(root):
        jobs = live_jobs(root)
        _refuse_full(root, jobs, 1)
        # Later than all that wait, also where the clock was set back.
        last = max((job.record.queued or 0.0 for job in jobs), default=0.0)
        place = max(time.time(), last + 1e-5)
        owner = owner or default_owner()
        path = create_run(root, config, waiting=here, queued=place, owner=owner, limits=limits)
        run = open_run(path)
        _start(root, [*jobs, Job(run, run.record, run.status)])
    return run


def check_room(root: Path, number: int) -> None:
    """Refuse so many more runs where they could not all wait.

    Raises:
        QueueFullError: They could not.
    """
    _refuse_full(root, live_jobs(root), number)


def start_due(root: Path) -> None:
    """Start what is due in a folder's queue; what can't be is left to the next look."""
    with contextlib.suppress(OSError, UserError):
        if any(job.waits for job in live_jobs(root)):
            with _locked(root):
                _start(root, live_jobs(root))


def tend(root: Path) -> None:
    """Do `start_due`, once in LOOK_SECONDS at most, however many pages ask."""
    now = time.monotonic()
    if now - _looked.get(root, -LOOK_SECONDS) >= LOOK_SECONDS:
        _looked[root] = now
        start_due(root)


def live_jobs(root: Path) -> list[Job]:
    """Return the live runs of a folder, those that wait and those that train."""
    jobs = []
    for folder in RunStore.at(root).folders():
        run = Run(folder)
        with contextlib.suppress(RunError):
            status = run.status
            if status.live and (status := live_status(run)).live:
                jobs.append(Job(run, run.record, status))
    return jobs


def places(root: Path) -> dict[str, int]:
    """Return the place, from 1, of every run that waits in a folder's queue."""
    waiting = [job for job in live_jobs(root) if job.waits]
    return {job.run.run_id: at for at, job in enumerate(in_turn(waiting, _turns(root)), 1)}


def in_turn(waiting: Sequence[Job], turns: Sequence[str]) -> list[Job]:
    """Return the order in which waiting runs start: owners in turn, each owner's in the order of asking.

    Args:
        waiting: Those that wait.
        turns: The owners that had their turn, the last one last; who had none yet comes before them.
    """
    by_owner: dict[str, list[Job]] = {}
    for job in sorted(waiting, key=lambda job: job.place):
        by_owner.setdefault(job.record.owner or "", []).append(job)
    had = [owner for owner in turns if owner in by_owner]
    owners = [*(owner for owner in by_owner if owner not in had), *had]
    ordered = []
    for turn in range(max(map(len, by_owner.values()), default=0)):
        ordered += [by_owner[owner][turn] for owner in owners if turn < len(by_owner[owner])]
    return ordered


def wait_for_turn(run: Run, stopped: Callable[[], bool], tell: Callable[[int], None]) -> bool:
    """Wait until a run that this process is to train (``enqueue(here=True)``) has its turn.

    Args:
        run: The run.
        stopped: Whether to leave the queue; the run is cancelled then.
        tell: Called with its place, whenever that changes.

    Returns:
        Whether it is its turn; else it was cancelled.
    """
    root, told, looked = run.path.parent, 0, 0.0
    while (status := run.status).live and status.waiting:
        if stopped():
            withdraw(run)
            continue
        if time.monotonic() - looked > LOOK_SECONDS:
            start_due(root)
            place = places(root).get(run.run_id, told)
            if place != told:
                tell(place)
            told, looked = place, time.monotonic()
        time.sleep(0.1)
    return status.live


def withdraw(run: Run) -> bool:
    """Cancel a run that still waits for its turn; return whether it did."""
    with _locked(run.path.parent):
        status = run.status
        if not status.live or not Job(run, run.record, status).waits:
            return False
        settle_run(run, "cancelled", None)
    return True


def claim(run: Run) -> bool:
    """Take a queued run for this process, which was started for it; False where another one has it."""
    with _locked(run.path.parent):  # who started this process has by now written down which one it is
        status = run.status
        if status.state != "queued" or status.pid not in (None, os.getpid()):
            return False
        if status.pid is None:
            _write_status(run, status, **mark_of(os.getpid()))
    return True


def _start(root: Path, jobs: Sequence[Job]) -> None:
    """Start what is due; the lock is held."""
    waiting = [job for job in jobs if job.waits]
    if not waiting:
        return
    here = [job for job in jobs if not job.waits and is_ours(job.run)]
    here = [job for job in here if job.status.host is None or is_here(job.status)]
    free = slots() - len(here)
    # A sweep takes as many slots as it was told to; beside it the queue goes on, one run at a time.
    moves = any(job.record.queued is not None for job in here)
    turns = _turns(root)
    for job in in_turn(waiting, turns):
        if free <= 0 and moves:
            break
        try:
            if job.status.waiting:
                _write_status(job.run, job.status, waiting=False)
            else:
                _launch(job)
        except OSError:  # no process to be had, or a full disk: it waits on
            break
        free, moves = free - 1, True
        owner = job.record.owner or ""
        turns = [*(other for other in turns if other != owner), owner][-MAX_TURNS:]
        with contextlib.suppress(OSError):
            write_json(root / TURNS, {"turns": turns})


def _launch(job: Job) -> None:
    path = job.run.path
    with contextlib.ExitStack() as stack:
        log: IO[bytes] | int = subprocess.DEVNULL
        with contextlib.suppress(OSError):
            log = stack.enter_context((path / "log.txt").open("ab"))
        child = subprocess.Popen(
            worker_command(str(path.resolve())),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=worker_environment(**{RUN_ID: path.name}),
            start_new_session=True,
        )
    keep(child)
    with contextlib.suppress(psutil.Error):
        _write_status(job.run, job.status, **mark_of(child.pid))


def _write_status(run: Run, status: RunStatus, **changes: object) -> None:
    changed = status.model_copy(update={**changes, "updated": time.time()})
    write_json(run.path / "status.json", changed.model_dump())


def _refuse_full(root: Path, jobs: Sequence[Job], more: int) -> None:
    waiting, most = sum(job.waits for job in jobs), max_queued()
    if waiting + more <= most:
        return
    asked = "another" if more == 1 else f"{more:,} more"
    wait = "1 run waits" if waiting == 1 else f"{waiting:,} runs wait"
    raise QueueFullError(
        f"{wait} in {str(root)!r} already, and {most:,} may (LSVIZ_MAX_QUEUED): no room for "
        f"{asked}; wait until some have started, or cancel some"
    )


def _turns(root: Path) -> list[str]:
    try:
        turns = json.loads((root / TURNS).read_text("utf-8")[:50_000])["turns"]
        return [str(owner) for owner in turns][-MAX_TURNS:]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _locked(root: Path) -> AbstractContextManager[None]:
    busy = UserError(f"the queue in {str(root)!r} is busy; try again in a moment")
    return held(root, LOCK, LOCK_SECONDS, busy)

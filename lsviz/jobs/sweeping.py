"""Sweeps that a page starts on a Ray cluster, each with a driver process of its own: it outlives the server.

Neither Ray nor torch here. A sweep's truth is its folder, hidden in the folder of runs: ``sweep.json``, which
its driver (`lsviz.jobs.raydriver`) writes, and ``log.txt``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from lsviz.errors import UserError
from lsviz.jobs.holding import held
from lsviz.jobs.launching import RAY_ADDRESS, module_command, worker_environment
from lsviz.jobs.processes import keep, kill_writer, reap
from lsviz.runs.config import RunConfig
from lsviz.runs.files import unwritable
from lsviz.runs.limits import RunLimits
from lsviz.runs.process import NOBODY, is_alive, is_here, send_signal
from lsviz.runs.reader import log_tail
from lsviz.runs.schema import CANCEL
from lsviz.runs.sweeps import FILE_NAME, MAX_PARTS, Part, SweepFileError, SweepRecord, read_sweep, write_sweep

FOLDER: Final = ".sweeps"
LOG: Final = "log.txt"
LOCK: Final = ".sweeps.lock"
LOCK_SECONDS: Final = 10.0
MAX_UNDER_WAY: Final = 8
"""Each has a process, which waits while another sweep is at work in the folder."""
START_SECONDS: Final = 60.0
"""A driver that has not reported by then never will."""
KILL_SECONDS: Final = 60.0
"""A driver that was asked to stop so long ago is killed when it is asked again."""
KEPT_SECONDS: Final = 86_400.0
"""So long a sweep that came to its end is listed."""


class SweepActError(UserError):
    """What was asked of a sweep can't be done; the message says why."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep as it was found.

    Attributes:
        path: Its folder.
        record: What that tells, corrected where its driver died without a word.
        ending: Whether it was asked to end and has not yet.
    """

    path: Path
    record: SweepRecord
    ending: bool

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.path.name

    def log_tail(self) -> str:
        """Return the last lines that its driver printed."""
        return log_tail(self.path / LOG)


def has_ray() -> bool:
    """Return whether Ray is installed; it is not imported."""
    return importlib.util.find_spec("ray") is not None


def cluster_address() -> str:
    """Return the cluster that this machine's owner named; ``local`` where none is."""
    return os.environ.get(RAY_ADDRESS) or "local"


def start_sweep(root: Path, configs: Sequence[RunConfig]) -> Sweep:
    """Have configs trained on the Ray cluster of the environment by a driver that outlives this process.

    Args:
        root: Folder that holds the runs; made if missing.
        configs: What to train; what is finished there already is not trained again.

    Raises:
        SweepActError: Too many configs, or too many sweeps are under way.
        RunFolderError: The folder can't be written.
        UserError: A run asks for more than one may.
    """
    wanted = list(dict.fromkeys(configs))
    if not 1 <= len(wanted) <= MAX_PARTS:
        raise SweepActError(f"a sweep from here has 1 to {MAX_PARTS} runs, not {len(wanted):,}")
    limits = RunLimits.build()
    for config in wanted:
        limits.check(config)
    with _acting(root):
        _refuse_full(root)
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        path = root / FOLDER / name
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise unwritable(root, error) from None
        now = time.time()
        parts = [Part(config=config) for config in wanted]
        _start(path, SweepRecord(created=now, updated=now, cluster=cluster_address(), parts=parts))
    return _found(path)


def list_sweeps(root: Path) -> tuple[list[Sweep], list[str]]:
    """Return the sweeps of a folder, newest first, and a line for each that can't be read.

    Those that came to their end a day ago are left out; one that failed, or whose driver died, stays until
    somebody dismisses it.
    """
    reap()
    sweeps, broken = [], []
    for path in sorted((root / FOLDER).glob("*/"), reverse=True):
        if path.name.startswith(".") or path.is_symlink() or not (path / FILE_NAME).exists():
            continue
        try:
            sweep = _found(path)
        except SweepFileError as error:
            broken.append(str(error))
            continue
        if not _is_past(sweep.record):
            sweeps.append(sweep)
    return sweeps, broken


def cancel_sweep(sweep: Sweep) -> None:
    """End a sweep: what has finished stays, what is under way is cancelled and leaves nothing.

    Asked once more, its driver kills the workers that still train; asked a minute later, it is killed itself.
    """
    asked = sweep.path / CANCEL
    with contextlib.suppress(OSError):
        since = time.time() - asked.stat().st_mtime
        if since > KILL_SECONDS:
            kill_writer(read_sweep(sweep.path))
            return
    with contextlib.suppress(OSError):  # a driver that has not begun sees it when it does
        asked.open("x").close()
    record = read_sweep(sweep.path)
    if record.live and is_here(record):
        send_signal(record, signal.SIGTERM)


def resume_sweep(sweep: Sweep) -> None:
    """Start a driver again for a sweep that ended before all its runs had finished.

    Raises:
        SweepActError: It is under way, or there is nothing left to train.
        RunFolderError: Its folder can't be written.
    """
    root = sweep.path.parents[1]
    with _acting(root):
        found = _found(sweep.path)
        if found.record.live:
            raise SweepActError("this sweep is under way already")
        if found.record.whole:
            raise SweepActError("all runs of this sweep have finished")
        _refuse_full(root)
        (sweep.path / CANCEL).unlink(missing_ok=True)
        parts = [part if part.run_id else Part(config=part.config) for part in found.record.parts]
        fresh = {"state": "starting", "error": None, "notes": [], "parts": parts, "updated": time.time()}
        _start(sweep.path, found.record.model_copy(update={**fresh, "cluster": cluster_address(), **NOBODY}))


def dismiss_sweep(sweep: Sweep) -> None:
    """Forget a sweep that has ended; its runs stay.

    Raises:
        SweepActError: It is under way.
    """
    with _acting(sweep.path.parents[1]):
        with contextlib.suppress(SweepFileError):  # somebody was faster, or it is damaged
            if _found(sweep.path).record.live:
                raise SweepActError("this sweep is under way: cancel it first")
        _remove(sweep.path)


def _found(path: Path) -> Sweep:
    record = read_sweep(path)
    asked = (path / CANCEL).exists()
    if record.live and _lost(record):
        record = read_sweep(path)  # it may have ended between the two looks
        if record.live and _lost(record):
            died = "its process died without a word (killed, out of memory, or the machine restarted)"
            if record.pid is None:
                died = "its process never started; its log tells why"
            ended = {"state": "cancelled"} if asked else {"state": "interrupted", "error": died}
            record = record.model_copy(update=ended)
    return Sweep(path, record, asked and record.live)


def _lost(record: SweepRecord) -> bool:
    if record.pid is None:
        return time.time() - record.updated > START_SECONDS
    return is_here(record) and not is_alive(record)


def _is_past(record: SweepRecord) -> bool:
    over = record.state == "cancelled" or (record.state == "finished" and record.whole)
    return over and time.time() - record.updated > KEPT_SECONDS


def _refuse_full(root: Path) -> None:
    """Take away what is past, and refuse one more sweep where too many are under way."""
    for path in (root / FOLDER).glob("*/"):
        with contextlib.suppress(SweepFileError):
            if _is_past(_found(path).record):
                _remove(path)
    going = sum(sweep.record.live for sweep in list_sweeps(root)[0])
    if going >= MAX_UNDER_WAY:
        raise SweepActError(f"{going} sweeps are under way already: wait for one, or cancel it")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        (path / FILE_NAME).unlink()  # first, so that half of it is never listed
    shutil.rmtree(path, ignore_errors=True)


def _acting(root: Path) -> contextlib.AbstractContextManager[None]:
    return held(root, LOCK, LOCK_SECONDS, SweepActError("another sweep is being started: try again"))


def _start(path: Path, record: SweepRecord) -> None:
    write_sweep(path, record)
    try:
        with (path / LOG).open("ab") as log:
            driver = subprocess.Popen(
                module_command("lsviz.jobs.raydriver", str(path.resolve())),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=worker_environment(),
                start_new_session=True,
            )
    except OSError as error:
        _remove(path)
        raise SweepActError(f"can't start a process for the sweep: {error.strerror}") from None
    keep(driver)

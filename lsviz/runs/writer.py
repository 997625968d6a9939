"""Writing a run folder: whole parts renamed into place while it lives, put together at the end."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pydantic import BaseModel

from lsviz.runs.compaction import compact
from lsviz.runs.config import MAX_STEPS, RunConfig
from lsviz.runs.files import RunFolderError, not_written, unwritable, write_json, write_parquet
from lsviz.runs.locking import RunBusyError, lock_run, unlock_run
from lsviz.runs.process import NOBODY, own_mark
from lsviz.runs.reader import load_document
from lsviz.runs.schema import (
    CANCEL,
    PAUSE,
    ExponentRow,
    RunRecord,
    RunStatus,
    State,
    StepRow,
    exponents_table,
    steps_table,
)
from lsviz.runs.series import AmaxRows, OutcomeRow, amax_table, outcomes_table
from lsviz.runs.updatecheck import UpdateRow, updates_table

FLUSH_SECONDS: Final = 0.5
"""A live chart needs no more than two new parts a second."""
MAX_FLUSH_SECONDS: Final = 10.0
MAX_NAMES: Final = 1000
"""Folders tried where one of that name is there already."""
MAX_ROWS: Final = 20_000

_TABLES: Final[dict[str, Callable[[Any], pa.Table]]] = {
    "exponents": exponents_table,
    "amax": amax_table,
    "outcomes": outcomes_table,
    "updates": updates_table,
    "steps": steps_table,
}
"""The steps last: who sees a step finds the rest of it."""

_RESERVE: Final = ".reserve.tmp"
_RESERVED: Final = 16_384
"""Bytes that a live run keeps, so that on a disk that is full by then it can still note how it ended."""

PICTURE_PX: Final = 256
"""Smaller pictures are enlarged to about that, pixel by pixel, so that a browser does not blur them."""


class RunExistsError(RunFolderError):
    """A new run can't have that name: something has it."""


def create_run(
    root: Path, config: RunConfig, run_id: str | None = None, *, waiting: bool = False, **known: Any
) -> Path:
    """Make the folder of a new run, in state queued, and return its path.

    The folder appears under its name only when run.json and status.json are in it.

    Args:
        root: Folder that holds runs.
        config: What the run is asked to do.
        run_id: Its name; one of its own by default.
        waiting: Whether this process waits for the run's turn in a queue, to train it then.
        known: More fields of run.json.

    Raises:
        RunExistsError: The root has something of that name.
        RunFolderError: It can't be made or written.
    """
    now = datetime.now(UTC)
    run_id = run_id or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    record = RunRecord(run_id=run_id, created=now.isoformat(timespec="seconds"), config=config, **known)
    process = own_mark() if waiting else {}
    hidden = root / f".{run_id}.{secrets.token_hex(4)}.tmp"
    try:
        str(root).encode()
    except UnicodeEncodeError:
        raise RunFolderError(
            f"can't write runs to {str(root)!r}: its name is no UTF-8, as Parquet needs it; choose another"
        ) from None
    try:
        root.mkdir(parents=True, exist_ok=True)
        hidden.mkdir()
        write_json(hidden / "run.json", record.model_dump())
        write_json(
            hidden / "status.json",
            RunStatus(
                state="queued", steps=config.steps, updated=time.time(), waiting=waiting, **process
            ).model_dump(),
        )
        hidden.rename(root / run_id)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and (root / run_id).exists():
            raise RunExistsError(f"there is something called {str(root / run_id)!r} already") from None
        raise unwritable(root, error) from None
    return root / run_id


class RunWriter:
    """Writes one run. Use as a context manager: an exception that leaves it marks the run failed.

    It is the run's only writer: a second one is refused as it is entered, before it has changed anything,
    and so is one of a run that has begun. What `flush` has returned from outlives the process.

    Args:
        path: A folder made by `create_run`.
        open_ended: Whether nobody knows how many steps it will have: as many as there are.
    """

    def __init__(self, path: Path, *, open_ended: bool = False) -> None:
        self.path = path
        self._open_ended = open_ended
        self.record = RunRecord.model_validate_json((path / "run.json").read_text(encoding="utf-8"))
        self._waiting: dict[str, list[Any]] = {name: [] for name in _TABLES}
        self._last: StepRow | None = None
        self._metric: float | None = None
        self._skipped = 0
        self._parts = 0
        self._interval = FLUSH_SECONDS
        self._flushed_at = time.monotonic()
        self._ended = False
        self._paused = False
        self._process = os.getpid()

    def __enter__(self) -> Self:
        try:
            lock_run(self.path)
        except OSError as error:
            raise RunFolderError(f"can't write {self.path.name} ({error.strerror or error})") from None
        try:
            state = load_document(self.path / "status.json", RunStatus).state
            if state != "queued" or any(self.path.glob("*.parquet")):
                raise RunBusyError(f"{self.path.name} has begun already ({state}): a run is written once")
            (self.path / _RESERVE).write_bytes(b"\1" * _RESERVED)
            self._write_status("running")
        except OSError as error:
            unlock_run(self.path)
            raise not_written(self.path / _RESERVE, error) from None
        except BaseException:
            unlock_run(self.path)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._ended or os.getpid() != self._process:  # a forked child leaves its parent's run alone
            return
        if error is None:
            self.end("finished")
        elif isinstance(error, KeyboardInterrupt):
            self.end("cancelled")
        else:
            self.end("failed", f"{type(error).__name__}: {error}")

    def describe(
        self,
        *,
        versions: dict[str, str],
        device: str,
        device_name: str,
        engine: str,
        metric_name: str | None,
        whole: bool = True,
    ) -> None:
        """Add to run.json what is known only where the run executes."""
        self._rewrite(
            versions=versions,
            device=device,
            device_name=device_name,
            engine=engine,
            metric_name=metric_name,
            whole=whole,
        )

    def reconfigure(self, config: RunConfig) -> None:
        """Replace the config in run.json: of a recorded loop it shows only as it runs."""
        self._rewrite(config=config)

    def append(
        self,
        step: StepRow,
        exponents: Sequence[ExponentRow],
        *,
        amax: Sequence[AmaxRows] = (),
        outcomes: Sequence[OutcomeRow] = (),
        updates: Sequence[UpdateRow] = (),
    ) -> None:
        """Take one step's rows; they reach the disk within a moment."""
        waiting = self._waiting
        waiting["steps"].append(step)
        waiting["exponents"].extend(exponents)
        waiting["amax"].extend(amax)
        waiting["outcomes"].extend(outcomes)
        waiting["updates"].extend(updates)
        self._last = step
        if step.metric is not None:
            self._metric = step.metric
        self._skipped += step.skipped
        # A recording hands over many steps at a time, and says itself when they are to be written.
        waited = 0.0 if self._open_ended else time.monotonic() - self._flushed_at
        if waited >= self._interval or len(waiting["exponents"]) >= MAX_ROWS:
            self.flush()

    def draw(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Write a picture of shape (height, width) or (height, width, 3) as a PNG file of that name."""
        times = max(1, PICTURE_PX // max(pixels.shape[:2]))
        enlarged = pixels.repeat(times, axis=0).repeat(times, axis=1)
        temporary = self.path / f".{name}.tmp"
        Image.fromarray(enlarged).save(temporary, format="PNG", optimize=True)
        temporary.replace(self.path / name)

    @property
    def asked_to_pause(self) -> bool:
        """Whether somebody put a pause file into the run's folder (`lsviz.jobs.pausing`)."""
        return (self.path / PAUSE).exists()

    def mark_paused(self, paused: bool) -> None:
        """Write all that was taken, and say that the run waits or goes on."""
        self._paused = paused
        self.flush()

    def flush(self) -> None:
        """Write what was taken since the last time as new parts, then the status.

        Raises:
            RunFolderError: Not all of the rows could be written: then none of them are, and they are still
                held. Or the status could not.
        """
        self._flush_rows()
        self._write_status("running")
        # Parts get rarer as the run gets longer, so that their number stays small.
        self._interval = min(MAX_FLUSH_SECONDS, FLUSH_SECONDS * (1 + self._parts / 20))
        self._flushed_at = time.monotonic()

    def _flush_rows(self) -> None:
        if os.getpid() != self._process:
            raise RunFolderError(f"{self.path.name} is written by the process that this one was forked from")
        written: list[Path] = []
        try:
            for name, table in _TABLES.items():
                if rows := self._waiting[name]:
                    written.append(self._part(name))
                    write_parquet(self._part(name), table(rows))
        except BaseException:
            for part in written:  # which leaves room on a full disk to tell how the run ended
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
            raise
        self._parts += bool(written)
        self._waiting = {name: [] for name in _TABLES}

    def end(self, state: State, error: str | None = None) -> None:
        """Write the rest, put the parts together and set the final state.

        Where the rest can't be written the run has failed for that reason, and what was written stays.

        Args:
            state: How it ended.
            error: Why it failed.

        Raises:
            RunFolderError: The rest can't be written, and there is no other error; or its status can't.
        """
        self._ended, self._paused = True, False
        unwritten: Exception | None = None
        try:
            self._flush_rows()
        except Exception as reason:
            if os.getpid() != self._process:
                raise
            self._waiting = {name: [] for name in _TABLES}
            unwritten = None if error else reason
            state, error = "failed", error or str(reason)
        try:
            with contextlib.suppress(OSError):
                for asked in (PAUSE, CANCEL):
                    (self.path / asked).unlink(missing_ok=True)
            if self._open_ended and self._last is not None:
                steps = min(self._last.step + 1, MAX_STEPS)
                with contextlib.suppress(RunFolderError):
                    self._rewrite(config=self.record.config.model_copy(update={"steps": steps}))
            # Of a corrupt part, or a full disk, the parts stay; reading names what is wrong with them.
            with contextlib.suppress(pa.ArrowException, OSError, RunFolderError):
                compact(self.path)
            with contextlib.suppress(OSError):
                (self.path / _RESERVE).unlink(missing_ok=True)
            self._write_status(state, error)
        finally:
            unlock_run(self.path)
        if unwritten is not None:
            raise unwritten

    def _rewrite(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        self._write_json("run.json", self.record)

    def _part(self, table: str) -> Path:
        return self.path / f"{table}-{self._parts:06d}.parquet"

    def _write_status(self, state: State, error: str | None = None) -> None:
        # Only a live run has a process; an ended one need not tell on which machine it was made.
        process = own_mark() if state in ("queued", "running") else NOBODY
        last = self._last
        done = last.step + 1 if last else 0
        status = RunStatus(
            state=state,
            step=done,
            steps=done if self._open_ended else self.record.config.steps,
            error=error,
            loss=_finite(last.loss) if last else None,
            metric=_finite(self._metric),
            loss_scale=_finite(last.loss_scale) if last else None,
            skipped_steps=self._skipped,
            paused=self._paused,
            updated=time.time(),
            **process,
        )
        self._write_json("status.json", status)

    def _write_json(self, name: str, document: BaseModel) -> None:
        try:
            write_json(self.path / name, document.model_dump())
        except OSError as error:
            raise not_written(self.path / name, error) from None


def _finite(value: float | None) -> float | None:
    """JSON has no word for NaN and Inf."""
    return value if value is not None and math.isfinite(value) else None


def free_path(path: Path) -> Path:
    """Return the path, or the first of path-2, path-3, ... at which there is nothing."""
    for number in range(2, MAX_NAMES):
        if not path.exists():
            return path
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()  # an empty folder was made for it
            return path
        path = path.with_name(f"{re.sub(r'-[0-9]+$', '', path.name) if number > 2 else path.name}-{number}")
    raise RunExistsError(f"there are {MAX_NAMES} runs of the name {path.name!r}; give another")

"""Writing a run folder: whole parts renamed into place while it lives, put together at the end."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from lsviz.runs.compaction import compact
from lsviz.runs.config import MAX_STEPS, RunConfig
from lsviz.runs.files import RunFolderError, write_json, write_parquet
from lsviz.runs.process import NOBODY, own_mark
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
MAX_ROWS: Final = 20_000

_TABLES: Final[dict[str, Callable[[Any], pa.Table]]] = {
    "exponents": exponents_table,
    "amax": amax_table,
    "outcomes": outcomes_table,
    "updates": updates_table,
    "steps": steps_table,
}
"""The steps last: who sees a step finds the rest of it."""

PICTURE_PX: Final = 256
"""Smaller pictures are enlarged to about that, pixel by pixel, so that a browser does not blur them."""


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
        RunFolderError: The root can't be made or written, or has something of that name.
    """
    now = datetime.now(UTC)
    run_id = run_id or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    record = RunRecord(run_id=run_id, created=now.isoformat(timespec="seconds"), config=config, **known)
    process = own_mark() if waiting else {}
    hidden = root / f".{run_id}.tmp"
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
        reason = error.strerror or type(error).__name__
        raise RunFolderError(
            f"can't write runs to {str(root)!r} ({reason}); choose a folder that you can write to"
        ) from None
    return root / run_id


class RunWriter:
    """Writes one run. Use as a context manager: an exception that leaves it marks the run failed.

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

    def __enter__(self) -> Self:
        self._write_status("running")
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._ended:
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
        """Write what was taken since the last time as new parts, then the status."""
        for name, table in _TABLES.items():
            if rows := self._waiting[name]:
                write_parquet(self._part(name), table(rows))
        self._parts += bool(self._waiting["steps"])
        self._waiting = {name: [] for name in _TABLES}
        self._write_status("running")
        # Parts get rarer as the run gets longer, so that their number stays small.
        self._interval = min(MAX_FLUSH_SECONDS, FLUSH_SECONDS * (1 + self._parts / 20))
        self._flushed_at = time.monotonic()

    def end(self, state: State, error: str | None = None) -> None:
        """Write the rest, put the parts together and set the final state."""
        self._ended, self._paused = True, False
        self.flush()
        with contextlib.suppress(OSError):
            for asked in (PAUSE, CANCEL):
                (self.path / asked).unlink(missing_ok=True)
        if self._open_ended and self._last is not None:
            steps = min(self._last.step + 1, MAX_STEPS)
            self._rewrite(config=self.record.config.model_copy(update={"steps": steps}))
        with contextlib.suppress(
            pa.ArrowException, OSError, RunFolderError
        ):  # a corrupt part stays; reading names it
            compact(self.path)
        self._write_status(state, error)

    def _rewrite(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        write_json(self.path / "run.json", self.record.model_dump())

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
        write_json(self.path / "status.json", status.model_dump())


def _finite(value: float | None) -> float | None:
    """JSON has no word for NaN and Inf."""
    return value if value is not None and math.isfinite(value) else None

"""Writing a run folder: whole parts renamed into place while it lives, one file a table at the end."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from lsviz.errors import UserError
from lsviz.runs.config import MAX_STEPS, RunConfig
from lsviz.runs.schema import (
    EXPONENTS_SCHEMA,
    STEPS_SCHEMA,
    ExponentRow,
    RunRecord,
    RunStatus,
    State,
    StepRow,
    exponents_table,
    steps_table,
)

FLUSH_SECONDS: Final = 0.5
"""A live chart needs no more than two new parts a second."""
MAX_FLUSH_SECONDS: Final = 10.0
MAX_ROWS: Final = 20_000

PICTURE_PX: Final = 256
"""Smaller pictures are enlarged to about that, pixel by pixel, so that a browser does not blur them."""

_BETWEEN: Final = "\0"

_PARQUET: Final[dict[str, Any]] = {
    "compression": "zstd",
    "compression_level": 3,
    "write_page_checksum": True,
    # Counts are nearly all zeros: a dictionary of them costs more time than it saves room.
    "use_dictionary": ["tensor", "kind"],
    "write_statistics": ["step"],
}
ROWS_AT_ONCE: Final = 400_000
"""Rows of exponents that are put together in memory at a time: half a kilobyte each."""


class RunFolderError(UserError):
    """A run folder can't be made or written; the message says why and what would help."""


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write strict JSON and rename it into place, so that a reader never sees half of it."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def create_run(root: Path, config: RunConfig, run_id: str | None = None) -> Path:
    """Make the folder of a new run, in state queued, and return its path.

    The folder appears under its name only when run.json and status.json are in it.

    Args:
        root: Folder that holds runs.
        config: What the run is asked to do.
        run_id: Its name; one of its own by default.

    Raises:
        RunFolderError: The root can't be made or written, or has something of that name.
    """
    now = datetime.now(UTC)
    run_id = run_id or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    record = RunRecord(run_id=run_id, created=now.isoformat(timespec="seconds"), config=config)
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
            RunStatus(state="queued", steps=config.steps, updated=time.time()).model_dump(),
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
        self._steps: list[StepRow] = []
        self._exponents: list[ExponentRow] = []
        self._last: StepRow | None = None
        self._metric: float | None = None
        self._skipped = 0
        self._parts = 0
        self._interval = FLUSH_SECONDS
        self._flushed_at = time.monotonic()
        self._ended = False

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
        self, *, versions: dict[str, str], device: str, device_name: str, engine: str, metric_name: str | None
    ) -> None:
        """Add to run.json what is known only where the run executes."""
        self._rewrite(
            versions=versions,
            device=device,
            device_name=device_name,
            engine=engine,
            metric_name=metric_name,
        )

    def reconfigure(self, config: RunConfig) -> None:
        """Replace the config in run.json: of a recorded loop it shows only as it runs."""
        self._rewrite(config=config)

    def append(self, step: StepRow, exponents: Sequence[ExponentRow]) -> None:
        """Take one step's rows; they reach the disk within a moment."""
        self._steps.append(step)
        self._exponents.extend(exponents)
        self._last = step
        if step.metric is not None:
            self._metric = step.metric
        self._skipped += step.skipped
        waited = time.monotonic() - self._flushed_at
        if waited >= self._interval or len(self._exponents) >= MAX_ROWS:
            self.flush()

    def draw(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Write a picture of shape (height, width) or (height, width, 3) as a PNG file of that name."""
        times = max(1, PICTURE_PX // max(pixels.shape[:2]))
        enlarged = pixels.repeat(times, axis=0).repeat(times, axis=1)
        temporary = self.path / f".{name}.tmp"
        Image.fromarray(enlarged).save(temporary, format="PNG", optimize=True)
        temporary.replace(self.path / name)

    def flush(self) -> None:
        """Write what was taken since the last time as new parts, then the status."""
        if self._exponents:
            _write_parquet(self._part("exponents"), exponents_table(self._exponents))
        if self._steps:
            _write_parquet(self._part("steps"), steps_table(self._steps))
            self._parts += 1
        self._steps, self._exponents = [], []
        self._write_status("running")
        # Parts get rarer as the run gets longer, so that their number stays small.
        self._interval = min(MAX_FLUSH_SECONDS, FLUSH_SECONDS * (1 + self._parts / 20))
        self._flushed_at = time.monotonic()

    def end(self, state: State, error: str | None = None) -> None:
        """Write the rest, put the parts together and set the final state."""
        self._ended = True
        self.flush()
        if self._open_ended and self._last is not None:
            steps = min(self._last.step + 1, MAX_STEPS)
            self._rewrite(config=self.record.config.model_copy(update={"steps": steps}))
        with contextlib.suppress(pa.ArrowException, OSError):  # a corrupt part stays; reading names it
            compact(self.path)
        self._write_status(state, error)

    def _rewrite(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        write_json(self.path / "run.json", self.record.model_dump())

    def _part(self, table: str) -> Path:
        return self.path / f"{table}-{self._parts:06d}.parquet"

    def _write_status(self, state: State, error: str | None = None) -> None:
        # Only a live run has a process; an ended one need not tell on which machine it was made.
        process = psutil.Process() if state in ("queued", "running") else None
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
            updated=time.time(),
            pid=process.pid if process else None,
            process_start=process.create_time() if process else None,
            host=socket.gethostname() if process else None,
        )
        write_json(self.path / "status.json", status.model_dump())


def _finite(value: float | None) -> float | None:
    """JSON has no word for NaN and Inf."""
    return value if value is not None and math.isfinite(value) else None


def compact(path: Path) -> None:
    """Put a run's parts together: steps in one file, exponents with one row group a tensor.

    Both files stand at the end, empty where nothing was recorded. The parts are removed only when the
    whole file stands in their place; a whole file that is there already is complete, and parts beside
    it are leftovers of a removal that was cut short.
    """
    steps = sorted(path.glob("steps-*.parquet"))
    if not (path / "steps.parquet").exists():
        _write_parquet(path / "steps.parquet", _together(steps, STEPS_SCHEMA))
    parts = sorted(path.glob("exponents-*.parquet"))
    if not (path / "exponents.parquet").exists():
        _write_by_tensor(path / "exponents.parquet", parts)
    for part in [*steps, *parts]:
        part.unlink()


def _together(parts: Sequence[Path], schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    # Verified here: a corrupt page would else get a fresh, valid checksum in the whole file.
    wanted = pa.schema([schema.field(name) for name in columns]) if columns else schema
    tables = [
        pq.read_table(part, columns=columns, page_checksum_verification=True).cast(wanted) for part in parts
    ]
    return pa.concat_tables([wanted.empty_table(), *tables])


def _write_by_tensor(path: Path, parts: Sequence[Path]) -> None:
    keys = _keys(_together(parts, EXPONENTS_SCHEMA, ["tensor", "kind"]))
    numbers = pc.value_counts(keys)  # in the order of first appearance
    names, rows = numbers.field("values"), numbers.field("counts").to_numpy()
    groups = [tuple(key.rsplit(_BETWEEN, 1)) for key in names.to_pylist()]
    metadata = {b"lsviz.row_groups": json.dumps(groups).encode()}
    temporary = path.with_name(f".{path.name}.tmp")
    with pq.ParquetWriter(temporary, EXPONENTS_SCHEMA.with_metadata(metadata), **_PARQUET) as writer:
        for first, last in _batches(rows, ROWS_AT_ONCE):
            table = _sorted(parts, names, first, last, whole=last - first == len(rows))
            start = 0
            for number in rows[first:last].tolist():
                writer.write_table(table.slice(start, number), row_group_size=max(1, number))
                start += number
    _publish(temporary, path)


def _sorted(parts: Sequence[Path], names: pa.Array, first: int, last: int, *, whole: bool) -> pa.Table:
    """Return the rows of some tensors, tensor by tensor, the reference's after its own."""
    tables = []
    for part in parts:
        table = _together([part], EXPONENTS_SCHEMA)
        if not whole:
            table = table.filter(pc.is_in(_keys(table), value_set=names[first:last]))
        tables.append(table)
    table = pa.concat_tables([EXPONENTS_SCHEMA.empty_table(), *tables]).combine_chunks()
    place = pc.index_in(_keys(table), value_set=names).to_numpy()
    order = np.lexsort((table["step"].to_numpy(), table["reference"].to_numpy(), place))
    return table.take(pa.array(order)) if (np.diff(order) != 1).any() else table


def _keys(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["tensor"], table["kind"], _BETWEEN)


def _batches(rows: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of consecutive tensors that have at most so many rows together, or one alone."""
    first, held = 0, 0
    for i, number in enumerate(rows.tolist()):
        if held and held + number > most:
            yield first, i
            first, held = i, 0
        held += number
    if held:
        yield first, len(rows)


def _write_parquet(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary, **_PARQUET)
    _publish(temporary, path)


def _publish(temporary: Path, path: Path) -> None:
    # A full disk can shorten a write without an exception: the footer proves that all of it is there.
    try:
        pq.read_metadata(temporary)
    except (pa.ArrowInvalid, OSError):
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RunFolderError(f"can't write {path.name}: is the disk full?") from None
    temporary.replace(path)

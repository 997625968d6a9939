"""The tables and documents of a run folder: their columns, types and versions.

Plain Parquet and strict JSON on purpose: pandas, polars and DuckDB read a run without lsviz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from lsviz.exponents import BINS, ROUNDING_FORMATS, ExponentHistogram
from lsviz.runs.config import RunConfig
from lsviz.runs.limits import RunLimits

SCHEMA_VERSION: Final = 1

PICTURE: Final = "picture.png"
"""What the model drew when the metric was last measured, of a task whose result can be seen."""
ORIGINAL: Final = "original.png"
"""What such a task's model should draw."""

BY_STEP: Final = "by_step.parquet"
"""The exponents of a long, ended run once more, step after step, so that one step is read in a moment."""
ROW_GROUPS: Final = b"lsviz.row_groups"
"""Where exponents.parquet tells each row group's tensor and kind, as JSON."""
TENSORS: Final = b"lsviz.tensors"
"""Where the file by step tells the order of tensors and kinds, as JSON."""

PAUSE: Final = "pause"
"""While a live run's folder has a file of that name, the run waits between two steps."""

CANCEL: Final = "cancel"
"""A live run's folder has a file of that name once somebody asked it to end."""

OWN_LOOP: Final = "recorded from a loop of its own"
"""The engine of a run that lsviz did not train."""

State = Literal["queued", "running", "finished", "failed", "cancelled", "interrupted"]
Kind = Literal["activation_grad", "weight_grad"]
KINDS: Final[tuple[Kind, Kind]] = ("activation_grad", "weight_grad")


class RunRecord(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(extra="allow")

    schema_version: int = SCHEMA_VERSION
    run_id: str
    created: str = Field(description="UTC time, ISO 8601.")
    config: RunConfig
    versions: dict[str, str] = {}
    device: str | None = None
    device_name: str | None = None
    engine: str | None = None
    metric_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9 _./-]{1,40}$")
    whole: bool = Field(default=True, description="Whether gradients of the whole model are recorded.")
    queued: float | None = Field(
        default=None, description="Its place among those that wait in a queue; None where it never did."
    )
    owner: str | None = Field(default=None, max_length=100, description="Who launched it; opaque.")
    limits: RunLimits | None = None
    source: str | None = Field(
        default=None, max_length=4000, description="Which other program's log it was made of, and how."
    )


class RunStatus(BaseModel):
    """The content of status.json, replaced as a whole at every change.

    ``pid``, ``process_start``, ``start_ticks``, ``boot_id`` and ``host`` tell which process writes, so that
    its death is noticed (`lsviz.runs.process`). A queued run has one as soon as it starts, or where a command
    waits for its turn.
    The four figures of the last step spare a list of many runs from opening their tables.
    """

    model_config = ConfigDict(extra="allow")

    state: State
    step: int = Field(default=0, ge=0, description="Number of steps done.")
    steps: int = Field(ge=0, description="Number of steps asked for.")
    error: str | None = None
    loss: float | None = Field(default=None, description="Loss of the last step, if finite.")
    metric: float | None = Field(default=None, description="Metric as last measured, if finite.")
    loss_scale: float | None = Field(default=None, description="S in force during the last step.")
    skipped_steps: int = Field(default=0, ge=0)
    paused: bool = Field(default=False, description="Whether it waits for its pause file to go.")
    waiting: bool = Field(default=False, description="Whether its process waits for its turn in the queue.")
    updated: float = Field(default=0.0, description="Seconds since 1970 at the last change.")
    pid: int | None = None
    process_start: float | None = None
    start_ticks: int | None = Field(default=None, description="From the boot to the process's start.")
    boot_id: str | None = None
    host: str | None = None

    @property
    def shown_state(self) -> str:
        """The state as people are told it: a run that waits between two steps is ``paused``."""
        return "paused" if self.live and self.paused else self.state

    @property
    def live(self) -> bool:
        """Whether the run may still write."""
        return self.state in ("queued", "running")


@dataclass(frozen=True, slots=True)
class StepRow:
    """One row of the steps table.

    Attributes:
        step: Number of the step, from 0.
        loss: Unscaled loss; None where a recorded loop does not tell.
        metric: The task's metric on held-out data; None where it was not measured.
        loss_scale: S that the loss was multiplied by; of a retried step, at the last try.
        finite: Whether all scaled gradients were finite, at the first try; None where nothing tells.
        skipped: Whether the update was not applied. Not finite and not skipped: retried with success.
        lr: Learning rate of the first parameter group, before 1/S is folded into it; None where no
            optimizer stepped in a recorded loop.
        grad_norm: L2 norm of all unscaled weight gradients; None where they were not recorded.
        ms: Milliseconds of training, without recording.
        ms_recording: Milliseconds spent on recording and on the reference.
    """

    step: int
    loss: float | None
    metric: float | None
    loss_scale: float
    finite: bool | None
    skipped: bool
    lr: float | None
    grad_norm: float | None
    ms: float
    ms_recording: float


@dataclass(frozen=True, slots=True)
class ExponentRow:
    """One row of the exponents table: one tensor at one step.

    The histogram is scaled, as the values were in backward; ``loss_scale`` says by how much (1 for a
    reference row).
    """

    step: int
    tensor: str
    kind: Kind
    reference: bool
    loss_scale: float
    histogram: ExponentHistogram


_COUNT = pa.field("element", pa.uint32(), nullable=False)
_BIN_COUNTS = pa.list_(_COUNT, BINS)
"""Without room for nulls: they would cost a third of the time to read."""
_OPTIONAL_COUNTS = pa.list_(pa.uint32())
"""Of 128 counts too, or null: a null of a list of fixed size is written as all its 128 values."""
PAST_COLUMNS: Final[tuple[str, ...]] = tuple(f"past_{f.name}" for f in ROUNDING_FORMATS)

STEPS_SCHEMA: Final = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("metric", pa.float64()),
        ("loss_scale", pa.float64()),
        ("finite", pa.bool_()),
        ("skipped", pa.bool_()),
        ("lr", pa.float64()),
        ("grad_norm", pa.float64()),
        ("ms", pa.float64()),
        ("ms_recording", pa.float64()),
    ]
)

EXPONENTS_SCHEMA: Final = pa.schema(
    [
        ("step", pa.int64()),
        ("tensor", pa.string()),
        ("kind", pa.string()),
        ("reference", pa.bool_()),
        ("loss_scale", pa.float64()),
        ("numel", pa.int64()),
        ("zero", pa.int64()),
        ("inf", pa.int64()),
        ("nan", pa.int64()),
        ("amax", pa.float64()),
        pa.field("counts", _BIN_COUNTS, nullable=False),
        ("ones", _OPTIONAL_COUNTS),
        *((name, _OPTIONAL_COUNTS) for name in PAST_COLUMNS),
    ]
)


def steps_table(rows: Sequence[StepRow]) -> pa.Table:
    """Return the rows as an Arrow table of STEPS_SCHEMA."""
    columns = [
        pa.array([getattr(row, field.name) for row in rows], field.type, from_pandas=False)
        for field in STEPS_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=STEPS_SCHEMA)


def exponents_table(rows: Sequence[ExponentRow]) -> pa.Table:
    """Return the rows as an Arrow table of EXPONENTS_SCHEMA."""
    histograms = [row.histogram for row in rows]
    counts = _stacked([h.counts for h in histograms])
    zero = np.array([h.zero for h in histograms], np.int64)
    inf = np.array([h.inf for h in histograms], np.int64)
    nan = np.array([h.nan for h in histograms], np.int64)
    past = [h.past for h in histograms]
    known = any(p is not None for p in past)
    columns: dict[str, Any] = {
        "step": np.array([row.step for row in rows], np.int64),
        "tensor": [row.tensor for row in rows],
        "kind": [row.kind for row in rows],
        "reference": np.array([row.reference for row in rows], bool),
        "loss_scale": np.array([row.loss_scale for row in rows], np.float64),
        "numel": counts.sum(axis=1, dtype=np.int64) + zero + inf + nan,
        "zero": zero,
        "inf": inf,
        "nan": nan,
        "amax": np.array([h.amax for h in histograms], np.float64),
        "counts": pa.FixedSizeListArray.from_arrays(pa.array(counts.ravel()), type=_BIN_COUNTS),
        "ones": _optional([h.ones for h in histograms]),
        **{
            f"past_{f.name}": _optional([None if p is None else p.get(f.name) for p in past])
            if known
            else pa.nulls(len(rows), _OPTIONAL_COUNTS)
            for f in ROUNDING_FORMATS
        },
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in zip(EXPONENTS_SCHEMA, columns.values(), strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=EXPONENTS_SCHEMA)


def _stacked(counts: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    if not counts:
        return np.zeros((0, BINS), np.uint32)
    stacked = np.concatenate(counts, dtype=np.uint32, casting="unsafe")
    return stacked.reshape(-1, BINS)


def _optional(counts: Sequence[Any]) -> pa.Array:
    """Pack per-bin counts (or None) into one list array without a Python list of numbers."""
    present = np.array([c is not None for c in counts], bool)
    if not present.any():
        return pa.nulls(len(counts), _OPTIONAL_COUNTS)
    values = pa.array(_stacked([c for c in counts if c is not None]).ravel())
    ends = np.concatenate([[0], np.cumsum(present * BINS)]).astype(np.int32)
    missing = None if present.all() else pa.array(~present)
    return pa.ListArray.from_arrays(pa.array(ends), values, type=_OPTIONAL_COUNTS, mask=missing)

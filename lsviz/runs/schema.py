"""The tables and documents of a run folder: their columns, types and versions.

Plain Parquet and strict JSON on purpose: pandas, polars and DuckDB read a run without lsviz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from lsviz.exponents import BINS, ROUNDING_FORMATS, ExponentHistogram
from lsviz.runs.config import RunConfig

SCHEMA_VERSION: Final = 1

PICTURE: Final = "picture.png"
"""What the model drew when the metric was last measured, of a task whose result can be seen."""
ORIGINAL: Final = "original.png"
"""What such a task's model should draw."""

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


class RunStatus(BaseModel):
    """The content of status.json, replaced as a whole at every change.

    ``pid``, ``process_start`` and ``host`` tell which process writes, so that its death is noticed.
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
    updated: float = Field(default=0.0, description="Seconds since 1970 at the last change.")
    pid: int | None = None
    process_start: float | None = None
    host: str | None = None

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


_BIN_COUNTS = pa.list_(pa.uint32(), BINS)
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
        ("counts", _BIN_COUNTS),
        ("ones", _BIN_COUNTS),
        *((name, _BIN_COUNTS) for name in PAST_COLUMNS),
    ]
)


def steps_table(rows: Sequence[StepRow]) -> pa.Table:
    """Return the rows as an Arrow table of STEPS_SCHEMA."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=STEPS_SCHEMA)


def exponents_table(rows: Sequence[ExponentRow]) -> pa.Table:
    """Return the rows as an Arrow table of EXPONENTS_SCHEMA."""
    histograms = [row.histogram.to_dict() for row in rows]
    columns: list[Any] = []
    for name in EXPONENTS_SCHEMA.names:
        if name in ("step", "tensor", "kind", "reference", "loss_scale"):
            values: list[Any] = [getattr(row, name) for row in rows]
        else:
            values = [histogram[name] for histogram in histograms]
        column_type = EXPONENTS_SCHEMA.field(name).type
        columns.append(_bins_array(values) if column_type == _BIN_COUNTS else pa.array(values, column_type))
    return pa.Table.from_arrays(columns, schema=EXPONENTS_SCHEMA)


def _bins_array(values: Sequence[Any]) -> pa.Array:
    """Pack per-bin counts (or None) into one fixed-size-list array without a Python list of numbers."""
    missing = np.array([v is None for v in values], dtype=bool)
    flat = np.zeros((len(values), BINS), dtype=np.uint32)
    for i, value in enumerate(values):
        if value is not None:
            flat[i] = value
    return pa.FixedSizeListArray.from_arrays(
        pa.array(flat.ravel()), type=_BIN_COUNTS, mask=pa.array(missing) if missing.any() else None
    )

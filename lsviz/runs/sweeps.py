"""A sweep that a driver process trains: what was asked for and how far it is, as one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lsviz.errors import UserError
from lsviz.runs.config import RunConfig
from lsviz.runs.documents import MAX_BYTES, save_document

FILE_NAME: Final = "sweep.json"
MAX_PARTS: Final = 100
"""Runs of one such sweep; `lsviz sweep` takes more."""
MAX_NOTES: Final = 20

SweepState = Literal["starting", "waiting", "running", "finished", "cancelled", "failed", "interrupted"]
LIVE: Final[tuple[SweepState, ...]] = ("starting", "waiting", "running")


class SweepFileError(UserError):
    """A sweep's file can't be read; the message says why."""


class Part(BaseModel):
    """One run of a sweep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: RunConfig
    state: Literal["waiting", "running", "finished", "failed"] = "waiting"
    step: int = Field(default=0, ge=0, description="Steps done.")
    run_id: str | None = Field(default=None, description="The finished run in the folder of runs.")
    metric_name: str | None = None
    metric: float | None = Field(default=None, allow_inf_nan=False, description="As last measured.")
    error: str | None = Field(default=None, description="Why it did not finish.")


class SweepRecord(BaseModel):
    """A sweep; only its driver writes it for as long as that lives."""

    model_config = ConfigDict(extra="forbid")

    created: float = Field(description="When it was asked for, in seconds since 1970.")
    updated: float = Field(description="When this was written.")
    cluster: str = Field(description="Address of the Ray cluster; local: one of this machine alone.")
    state: SweepState = Field(
        default="starting",
        description="waiting: for another sweep in the folder. interrupted: its driver died; never written.",
    )
    error: str | None = Field(default=None, description="Why the sweep as a whole ended.")
    notes: list[str] = Field(
        default=[], max_length=MAX_NOTES, description="What a person should know, a line each."
    )
    parts: list[Part] = Field(min_length=1, max_length=MAX_PARTS)
    pid: int | None = None
    process_start: float | None = None
    start_ticks: int | None = None
    boot_id: str | None = None
    host: str | None = None

    @property
    def live(self) -> bool:
        """Whether its driver is at work, or about to be."""
        return self.state in LIVE

    @property
    def landed(self) -> list[str]:
        """The ids of its finished runs."""
        return [part.run_id for part in self.parts if part.run_id is not None]

    @property
    def whole(self) -> bool:
        """Whether every run that it was asked for has finished."""
        return len(self.landed) == len(self.parts)


def read_sweep(folder: Path) -> SweepRecord:
    """Return what a sweep's folder tells of it.

    Raises:
        SweepFileError: Nothing that can be read.
    """
    path = folder / FILE_NAME
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SweepFileError(f"{str(path)!r} is larger than any sweep: remove its folder")
        return SweepRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise SweepFileError(f"can't read {str(path)!r}: {failure.strerror}") from None
    except (ValidationError, ValueError):
        raise SweepFileError(f"{str(path)!r} holds no sweep: remove its folder") from None


def write_sweep(folder: Path, record: SweepRecord) -> None:
    """Write it, replacing what was there as a whole.

    Raises:
        RunFolderError: It can't be written.
    """
    save_document(folder / FILE_NAME, record)

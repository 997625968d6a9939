"""What ``lsviz reproduce`` came to, as one JSON file: results, machine and versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, computed_field

from lsviz.errors import UserError
from lsviz.runs.documents import load_document, save_document

FILE_NAME: Final = "reproduce.json"


class ReproductionError(UserError):
    """A file of results can't be read; the message says why."""


class RunResult(BaseModel):
    """One run of a sweep in a row. None stands for what is not finite or was not measured."""

    model_config = ConfigDict(frozen=True)

    experiment: str = Field(description="Which finding it belongs to.")
    variant: str = Field(description="fp32, none, constant, gradscaler or fp16-weights.")
    run_id: str
    task: str
    policy: str
    precision: str
    seed: int
    steps: int
    metric_name: str | None = None
    metric: float | None = Field(default=None, description="As last measured.")
    final_loss: float | None = None
    final_loss_scale: float | None = None
    skipped_steps: int = 0
    flushed: float | None = Field(
        default=None, description="Share flushed at all layers' outputs, mean over the recorded steps."
    )
    layers: dict[str, float] = Field(
        default={}, description="Layer -> share flushed at its output, mean over the recorded steps."
    )
    history: list[tuple[int, float]] = Field(default=[], description="(step, metric) as measured.")
    error: str | None = Field(default=None, description="Why the run did not finish or can't be read.")

    @computed_field(description="The layer that loses most.")  # type: ignore[prop-decorator]
    @property
    def worst_layer(self) -> str | None:
        """The layer that loses most; None where none was recorded."""
        return max(self.layers, key=self.layers.__getitem__, default=None)

    @computed_field(description="Its share.")  # type: ignore[prop-decorator]
    @property
    def worst_flushed(self) -> float | None:
        """The share flushed at the layer that loses most."""
        return max(self.layers.values(), default=None)


class Reproduction(BaseModel):
    """All results, with where and with what they were made."""

    schema_version: int = 1
    created: str = Field(description="UTC time, ISO 8601.")
    quick: bool
    seconds: float = Field(description="Wall time of the call that made it.")
    reused: int = Field(default=0, description="Runs that were there already when that call began.")
    stopped: bool = Field(default=False, description="Whether that call was interrupted: runs are missing.")
    machine: dict[str, Any] = {}
    versions: dict[str, str] = {}
    results: list[RunResult] = []
    curve: list[RunResult] = []


def save_reproduction(path: Path, document: Reproduction) -> None:
    """Write the document, replacing an older one as a whole.

    Raises:
        RunFolderError: It can't be written.
    """
    save_document(path, document)


def load_reproduction(path: Path) -> Reproduction | None:
    """Return the document in a file; None where there is no file.

    Raises:
        ReproductionError: The file is no such document.
    """
    return load_document(path, Reproduction, ReproductionError, "lsviz reproduce")

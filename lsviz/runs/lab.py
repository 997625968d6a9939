"""What ``lsviz lab`` came to, as one JSON file: every way to update the weights, beside float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from lsviz.errors import UserError
from lsviz.runs.documents import load_document, save_document
from lsviz.runs.updatecheck import RATIO_BINS

FILE_NAME: Final = "lab.json"


class LabError(UserError):
    """A file of results can't be read; the message says why."""


class VariantResult(BaseModel):
    """One way to update the weights. None stands for what is not finite or was not measured."""

    model_config = ConfigDict(frozen=True)

    name: str
    group: str = Field(description="What it is compared with.")
    shows: str = Field(description="What it does to the gradients, in one sentence.")
    settings: dict[str, str | float | int | bool] = Field(description="What sets its run apart.")
    run_id: str = ""
    steps: int
    skipped_steps: int = 0
    metric_name: str | None = None
    metric: float | None = None
    weight_error: float | None = Field(
        default=None, description="Distance from float64's weights at the end, as a share of their way."
    )
    norm_ratio: float | None = Field(
        default=None, description="Norm that clipping sees over the true one, median over the updates."
    )
    strictness: float | None = Field(
        default=None, description="That ratio over the threshold's: how many times too strict clipping is."
    )
    clipped: float | None = Field(default=None, description="Share of updates that were clipped.")
    step_ratio: float | None = Field(
        default=None, description="Size of the step over float64's, median over the updates."
    )
    stalled: float | None = Field(
        default=None, description="Share of all updates that left their weight as it was."
    )
    below: float | None = Field(
        default=None, description="Share of all updates below half of the last digit of FP16 (2^-11)."
    )
    curve: list[tuple[int, float]] = Field(default=[], description="(step, weight_error), thinned out.")
    counts: list[int] = Field(
        default=[], max_length=RATIO_BINS, description="Updates by floor(log2(|update|/|weight|)), from -40."
    )
    moved: list[int] = Field(
        default=[], max_length=RATIO_BINS, description="How many of them changed their weight."
    )
    verdict: str = Field(default="", description="What the numbers say, in one sentence.")
    error: str | None = Field(default=None, description="Why the run did not finish or can't be read.")


class Lab(BaseModel):
    """All variants, with where and with what they were made."""

    schema_version: int = 1
    created: str = Field(description="UTC time, ISO 8601.")
    task: str
    policy: str
    seed: int
    clip: float
    l2: float
    seconds: float = Field(description="Wall time of the call that made it.")
    reused: int = Field(default=0, description="Runs that were there already when that call began.")
    stopped: bool = Field(default=False, description="Whether that call was interrupted: runs are missing.")
    machine: dict[str, Any] = {}
    versions: dict[str, str] = {}
    variants: list[VariantResult] = []


def save_lab(path: Path, document: Lab) -> None:
    """Write the document, replacing an older one as a whole.

    Raises:
        RunFolderError: It can't be written.
    """
    save_document(path, document)


def load_lab(path: Path) -> Lab | None:
    """Return the document in a file; None where there is no file.

    Raises:
        LabError: The file is no such document.
    """
    return load_document(path, Lab, LabError, "lsviz lab")

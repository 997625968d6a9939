"""What a run may take at most: steps, time, memory and log. Kept in run.json, held by who trains it."""

from __future__ import annotations

import os
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lsviz.errors import UserError
from lsviz.runs.config import MAX_STEPS, RunConfig

VARIABLES: Final = {
    "steps": "LSVIZ_MAX_STEPS",
    "hours": "LSVIZ_MAX_HOURS",
    "memory_gib": "LSVIZ_MAX_MEMORY_GIB",
    "log_mib": "LSVIZ_MAX_LOG_MIB",
}
"""Where a machine's owner sets each for all runs that are started there."""


class RunLimits(BaseModel):
    """The most that one run may take. Time, memory and log are looked at between two steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=MAX_STEPS, ge=1, le=MAX_STEPS, description="Steps that may be asked for.")
    hours: float = Field(default=24.0, gt=0, le=8760, description="Hours from its start, pauses included.")
    memory_gib: float | None = Field(
        default=None, gt=0, le=65536, description="Its process's memory; None: 90 % of the machine's."
    )
    log_mib: float = Field(default=10.0, gt=0, le=1024, description="Size of log.txt.")

    @classmethod
    def build(cls, **values: Any) -> Self:
        """Return the limits of these values over those of the environment; None leaves one as it is.

        Raises:
            UserError: One line naming what is wrong and what would be right.
        """
        given = {key: value for key, value in values.items() if value is not None}
        named = {key: os.environ[name] for key, name in VARIABLES.items() if os.environ.get(name)}
        try:
            return cls.model_validate({**named, **given})
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0])
            name = key if key in given else VARIABLES.get(key, key)
            words = first["msg"].removeprefix("Input ")
            raise UserError(f"{name}: {words}, got {first['input']!r}") from None

    def check(self, config: RunConfig) -> None:
        """Refuse a run that asks for more steps than may be.

        Raises:
            UserError: It does.
        """
        if config.steps > self.steps:
            raise UserError(
                f"steps: {config.steps:,} are more than the {self.steps:,} that one run may have here "
                f"({VARIABLES['steps']}); ask for fewer"
            )

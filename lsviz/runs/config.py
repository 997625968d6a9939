"""What a run is asked to do: one frozen, validated value that CLI, pages and run.json share.

Every bound stands here, since a URL or the command line bypasses widgets.
"""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lsviz.errors import UserError
from lsviz.policies import Policy, PolicyError, format_policy, parse_policy

Precision = Literal["fp16", "bf16", "fp32"]
Device = Literal["auto", "cpu", "cuda"]

PRECISIONS: tuple[str, ...] = get_args(Precision)
DEVICES: tuple[str, ...] = get_args(Device)

MAX_STEPS = 1_000_000
MAX_SEED = 2**32 - 1


class ConfigError(UserError):
    """A run was asked for that can't be; the message says what is wrong and what would be right."""


class RunConfig(BaseModel):
    """The settings of one training run.

    The task's name is checked where tasks are known (`lsviz.training.catalog`), so that runs of other
    people's loops can be stored too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$", description="What is trained.")
    policy: str = Field(default="none", description="Loss-scaling policy, in its string form.")
    precision: Precision = Field(
        default="fp16", description="Number format of the forward and backward pass."
    )
    device: Device = Field(default="auto", description="Where it runs; auto takes a GPU where there is one.")
    steps: int = Field(default=1000, ge=1, le=MAX_STEPS, description="Number of training steps.")
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Seed of weights, batches and dropout.")
    record_every: int = Field(
        default=10, ge=0, le=MAX_STEPS, description="Record gradients every N steps; 0 turns it off."
    )
    reference_every: int = Field(
        default=10,
        ge=0,
        le=MAX_STEPS,
        description="Compute the FP32 reference every N steps; 0 turns it off.",
    )

    @field_validator("policy")
    @classmethod
    def _canonical_policy(cls, text: str) -> str:
        return format_policy(parse_policy(text))

    @property
    def initial_policy(self) -> Policy:
        """The policy value before the first step."""
        return parse_policy(self.policy)

    @classmethod
    def build(cls, **values: Any) -> Self:
        """Return the config of these values.

        Raises:
            ConfigError: One line naming the first wrong value and what would be right.
            PolicyError: Likewise for the policy's string form.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            cause = (first.get("ctx") or {}).get("error")
            if isinstance(cause, PolicyError):
                raise cause from None
            raise ConfigError(_one_line(first)) from None


def _one_line(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "literal_error":
        known = error["ctx"]["expected"].replace("'", "")
        return f"unknown {key} {error['input']!r}; choose one of: {known}"
    if error["type"] == "extra_forbidden":
        return f"unknown setting {key!r}; known are: {', '.join(RunConfig.model_fields)}"
    if error["type"] == "missing":
        return f"{key} is missing"
    return f"{key}: {error['msg'].removeprefix('Input ')}, got {error['input']!r}"

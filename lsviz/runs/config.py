"""What a run is asked to do: one frozen, validated value that CLI, pages and run.json share.

Every bound stands here, since a URL or the command line bypasses widgets.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lsviz.errors import UserError
from lsviz.policies import Policy, format_policy, parse_policy
from lsviz.runs.injection import Injection, format_injections, parse_injections
from lsviz.runs.updates import OnOverflow, OptimizerName, Order, Update, update_warnings

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
    loss_weight: float = Field(
        default=1.0,
        ge=2.0**-20,
        le=1.0,
        description="Factor on the loss, 2^-20 to 1: an auxiliary loss has a small one, and small gradients.",
    )
    init_gain: float = Field(
        default=1.0,
        ge=2.0**-6,
        le=2.0**6,
        description="Factor on the initial weights (not biases), 2^-6 to 2^6.",
    )
    optimizer: OptimizerName = Field(default="task", description="Optimizer; task takes the task's own.")
    lr: float | None = Field(
        default=None, gt=0, le=1e6, allow_inf_nan=False, description="Learning rate; empty: the task's own."
    )
    update: Update = Field(default="unscale", description="How the update undoes S.")
    clip: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        allow_inf_nan=False,
        description="Largest gradient norm; larger ones are scaled down to it. Empty: no clipping.",
    )
    clip_order: Order = Field(
        default="after",
        description="Clip after unscaling, before it, or before it at threshold x S (scaled).",
    )
    l2: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="Coupled L2 penalty: this times the weight is added to its gradient.",
    )
    l2_order: Order = Field(
        default="after",
        description="L2 joins after unscaling, before it, or before it times S (scaled).",
    )
    on_overflow: OnOverflow = Field(
        default="skip", description="What becomes of a step with Inf or NaN: skip it, or retry its batch."
    )
    master_weights: bool = Field(
        default=True,
        description="Keep weights in FP32; off, every update rounds them to the run's half format.",
    )
    check_update: bool = Field(
        default=False, description="Hold every weight update against the right one in float64."
    )
    record_every: int = Field(
        default=10, ge=0, le=MAX_STEPS, description="Record gradients every N steps; 0 turns it off."
    )
    reference_every: int = Field(
        default=10,
        ge=0,
        le=MAX_STEPS,
        description="Compute the FP32 reference every N steps; 0 turns it off.",
    )
    inject: str = Field(
        default="",
        description="Faults for teaching, each step:layer:kind with kind inf, nan or huge: 20:layer3:inf.",
    )

    @field_validator("policy")
    @classmethod
    def _canonical_policy(cls, text: str) -> str:
        return _canonical(text)

    @field_validator("inject")
    @classmethod
    def _canonical_faults(cls, text: str) -> str:
        return format_injections(parse_injections(text))

    @model_validator(mode="after")
    def _combines(self) -> Self:
        scaled = self.update != "unscale" or self.clip_order != "after" or self.l2_order != "after"
        if scaled and self.initial_policy.per_layer:
            raise ValueError(
                f"policy {self.initial_policy.name} undoes every layer's own S before the update: it takes "
                "update=unscale, clip_order=after and l2_order=after"
            )
        if not self.master_weights and self.precision == "fp32":
            raise ValueError("master_weights=false needs precision fp16 or bf16: fp32 has no other weights")
        for late in (fault for fault in self.injections if fault.step >= self.steps):
            last = self.steps - 1
            raise ValueError(f"inject: {late} comes after the last step; choose one from 0 to {last}")
        return self

    @property
    def initial_policy(self) -> Policy:
        """The policy value before the first step."""
        return parse_policy(self.policy)

    @property
    def injections(self) -> tuple[Injection, ...]:
        """The faults that the run is to suffer, in order of steps."""
        return parse_injections(self.inject)

    def warnings(self, task_optimizer: str) -> list[str]:
        """Return one sentence for everything in the chosen update that S makes wrong.

        Args:
            task_optimizer: What ``optimizer=task`` means for this task.
        """
        return update_warnings(
            optimizer=task_optimizer if self.optimizer == "task" else self.optimizer,
            update=self.update,
            clip=self.clip,
            clip_order=self.clip_order,
            l2=self.l2,
            l2_order=self.l2_order,
            policy=self.policy,
        )

    @classmethod
    def build(cls, **values: Any) -> Self:
        """Return the config of these values.

        Raises:
            ConfigError: One line naming the first wrong value and what would be right.
            UserError: Likewise for a setting that has a string form.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            cause = (first.get("ctx") or {}).get("error")
            if isinstance(cause, UserError):
                raise cause from None
            raise ConfigError(_one_line(first)) from None


@functools.lru_cache(maxsize=4096)
def _canonical(policy: str) -> str:
    """Of a thousand runs that are listed, most have one of a few policies."""
    return format_policy(parse_policy(policy))


def _one_line(error: Any) -> str:
    if not error["loc"]:  # of several settings together: the text names them
        return str(error["msg"]).removeprefix("Value error, ")
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "literal_error":
        known = error["ctx"]["expected"].replace("'", "")
        return f"unknown {key} {error['input']!r}; choose one of: {known}"
    if error["type"] == "extra_forbidden":
        return f"unknown setting {key!r}; known are: {', '.join(RunConfig.model_fields)}"
    if error["type"] == "missing":
        return f"{key} is missing"
    return f"{key}: {error['msg'].removeprefix('Input ')}, got {error['input']!r}"

"""Run a policy's state machine alone, with no training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lsviz.errors import UserError
from lsviz.formats import FP16
from lsviz.policies.base import Outcome, Policy, PolicyStoppedError, format_number, fp32, parse_number


@dataclass(frozen=True, slots=True)
class Trace:
    """What a policy did over a series of steps (numbered from 0).

    A policy that gives up ends the trace: the lists of scales then cover the steps before that one.

    Attributes:
        scales: S in force after each step.
        skipped: The steps that overflowed, so that their update is left out.
        raised_at: The step at which the policy gave up with an error; None if it never did.
        reason: What that error says; empty if there was none.
        counters: What the policy remembered after each step, besides S.
        unsafe_at: The first clean step whose S has no finite inverse in FP32 (S = 0, or 2^-128 and below):
            there torch.amp.GradScaler and others unscale by Inf and write Inf or NaN into the weights
            without skipping, where lsviz ends a run. None if there is none.
        unsafe_scale: S at that step.
    """

    scales: list[float]
    skipped: list[int]
    raised_at: int | None = None
    reason: str = ""
    counters: list[dict[str, Any]] = field(default_factory=list)
    unsafe_at: int | None = None
    unsafe_scale: float = 1.0

    @property
    def warning(self) -> str:
        """One sentence on `unsafe_at`; empty where there is nothing to warn of."""
        if self.unsafe_at is None:
            return ""
        return (
            f"at step {self.unsafe_at} S is {format_number(self.unsafe_scale)} and 1/S is infinite: the real "
            "scaler would write Inf or NaN into the weights here without skipping the step; lsviz ends a run "
            "instead"
        )


def inverse_scale(loss_scale: float) -> float:
    """Return 1/S as FP32 has it, in which gradients are unscaled: Inf for S = 0, and for 2^-128 and below."""
    return fp32(1.0 / loss_scale) if loss_scale else math.inf


def parse_amax(text: str) -> list[float]:
    """Return the numbers of a list such as ``0.5 2^-10, inf``, parted by spaces, commas or lines.

    Raises:
        UserError: One is no number.
    """
    values = []
    for part in text.replace(",", " ").split():
        try:
            values.append(float(parse_number(part)))
        except ValueError:
            raise UserError(
                f"largest gradients are numbers such as 0.5, 2^-10 or inf, got {part[:40]!r}"
            ) from None
    return values


def trace_overflows(policy: Policy, pattern: str) -> Trace:
    """Drive a policy by a pattern of steps: ``O`` is an overflow, ``.`` a clean step.

    Raises:
        UserError: The pattern holds another character.
    """
    for position, char in enumerate(pattern):
        if char not in "O.":
            raise UserError(
                f"an overflow pattern holds only O (overflow) and . (clean), "
                f"got {char!r} at position {position}"
            )
    return _trace(policy, ((char == ".", None) for char in pattern))


def trace_amax(policy: Policy, amax: Iterable[float]) -> Trace:
    """Drive a policy by the largest unscaled |gradient| of each step.

    A step overflows when amax x S rounds out of FP16 (65,520 and above), or amax is inf or nan. For a
    policy that asks for a histogram, the largest value stands for all of them.

    Raises:
        UserError: A value is negative.
    """
    values = [float(v) for v in amax]
    for step, value in enumerate(values):
        if value < 0:
            raise UserError(f"amax can't be negative, got {value} at step {step}")
    return _trace(policy, ((None, value) for value in values))


def _trace(policy: Policy, steps: Iterable[tuple[bool | None, float | None]]) -> Trace:
    scales: list[float] = []
    counters: list[dict[str, Any]] = []
    skipped: list[int] = []
    unsafe_at: int | None = None
    unsafe_scale = 1.0
    for step, (finite, amax) in enumerate(steps):
        scaled = math.nan if amax is None else amax * policy.loss_scale  # nan counts as an overflow
        if finite is None:
            finite = scaled < FP16.overflow_limit
        if not finite:
            skipped.append(step)
        elif unsafe_at is None and math.isinf(inverse_scale(policy.loss_scale)):
            unsafe_at, unsafe_scale = step, policy.loss_scale
        large = None
        if amax is not None and policy.large_value is not None:
            large = 0.0 if scaled < policy.large_value else 1.0
        try:
            policy = policy.update(Outcome(finite=finite, amax=amax, large_share=large))
        except PolicyStoppedError as stop:
            return Trace(scales, skipped, step, str(stop), counters, unsafe_at, unsafe_scale)
        scales.append(policy.loss_scale)
        counters.append(policy.counters())
    return Trace(scales, skipped, counters=counters, unsafe_at=unsafe_at, unsafe_scale=unsafe_scale)

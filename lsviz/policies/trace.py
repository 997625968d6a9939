"""Run a policy's state machine alone, with no training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lsviz.errors import UserError
from lsviz.formats import FP16
from lsviz.policies.base import Outcome, Policy


@dataclass(frozen=True, slots=True)
class Trace:
    """What a policy did over a series of steps (numbered from 0).

    Attributes:
        scales: S in force after each step.
        skipped: The steps whose update was skipped.
        raised_at: The step at which the policy gave up with an error; None if it never did.
    """

    scales: list[float]
    skipped: list[int]
    raised_at: int | None = None


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

    A step overflows when amax x S rounds out of FP16 (65,520 and above), or amax is inf or nan.

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
    skipped: list[int] = []
    for step, (finite, amax) in enumerate(steps):
        if finite is None:
            # Written so that nan counts as an overflow.
            finite = (
                amax is not None and math.isfinite(amax) and amax * policy.loss_scale < FP16.overflow_limit
            )
        if not finite:
            skipped.append(step)
        policy = policy.update(Outcome(finite=finite, amax=amax))
        scales.append(policy.loss_scale)
    return Trace(scales, skipped)

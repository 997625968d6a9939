"""Policies whose scale never changes."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from lsviz.policies.base import Outcome, Policy, Scale


class NoScaling(Policy):
    """S = 1: the loss goes into backward as it is."""

    name: ClassVar[str] = "none"
    rule: ClassVar[str] = (
        "S = 1: the loss is not scaled. A step with Inf or NaN is skipped all the same, "
        "which plain PyTorch would not do."
    )
    source: ClassVar[str] = "the baseline of Mixed Precision Training, arXiv 1710.03740, section 3.2"

    @property
    def loss_scale(self) -> float:
        """S, always 1."""
        return 1.0

    def update(self, outcome: Outcome) -> Self:
        """Return itself: nothing is learned from a step."""
        return self


class Constant(Policy):
    """S is a number chosen once (arXiv 1710.03740, section 3.2; US 2024/0078433 A1)."""

    name: ClassVar[str] = "constant"
    rule: ClassVar[str] = "S stays at the given scale."
    source: ClassVar[str] = "Mixed Precision Training, arXiv 1710.03740, section 3.2"
    short_key: ClassVar[str | None] = "scale"

    scale: Scale = Field(default=1024.0, description="The loss scale S.")

    @property
    def loss_scale(self) -> float:
        """S, as given."""
        return self.scale

    def update(self, outcome: Outcome) -> Self:
        """Return itself: an overflow skips the step and changes nothing."""
        return self

"""Back-off and growth: halve the scale at an overflow, raise it after enough clean steps."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from lsviz.policies.base import Outcome, Policy, Scale


def fp32(value: float) -> float:
    """Round to FP32, the type in which the libraries keep their scale; too large gives Inf."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(value))


class GradScaler(Policy):
    """The rule of ``torch.amp.GradScaler``.

    From torch 2.13 (``torch/amp/grad_scaler.py`` and the ``_amp_update_scale_`` kernel): at an
    overflow S is multiplied by ``backoff_factor`` and the count of clean steps starts again; after
    ``growth_interval`` consecutive clean steps S is multiplied by ``growth_factor``, unless that
    would leave FP32's range. There is no floor: after enough overflows S reaches 0.
    """

    name: ClassVar[str] = "gradscaler"
    rule: ClassVar[str] = "S is halved at every overflow and doubled after 2,000 clean steps in a row."
    source: ClassVar[str] = "torch.amp.GradScaler, torch 2.13, torch/amp/grad_scaler.py"
    state_fields: ClassVar[tuple[str, ...]] = ("scale", "clean_steps")

    init_scale: Scale = Field(default=2.0**16, description="S at the first step.")
    growth_factor: float = Field(
        default=2.0, gt=1, le=2.0**16, description="Factor on S after enough clean steps."
    )
    backoff_factor: float = Field(default=0.5, gt=0, lt=1, description="Factor on S at an overflow.")
    growth_interval: int = Field(
        default=2000, ge=1, le=10**9, description="Clean steps in a row before S grows."
    )
    scale: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="S now; empty at the start."
    )
    clean_steps: int = Field(default=0, ge=0, description="Clean steps in a row so far.")

    @property
    def loss_scale(self) -> float:
        """S now."""
        return fp32(self.init_scale) if self.scale is None else self.scale

    def update(self, outcome: Outcome) -> Self:
        """Return the policy after one step: backed off, grown, or one clean step further."""
        if not outcome.finite:
            backed_off = fp32(self.loss_scale * self.backoff_factor)
            return self.model_copy(update={"scale": backed_off, "clean_steps": 0})
        clean_steps = self.clean_steps + 1
        if clean_steps < self.growth_interval:
            return self.model_copy(update={"scale": self.loss_scale, "clean_steps": clean_steps})
        grown = fp32(self.loss_scale * self.growth_factor)
        scale = grown if math.isfinite(grown) else self.loss_scale
        return self.model_copy(update={"scale": scale, "clean_steps": 0})

"""Policies that choose S from what the gradients look like, not only from their overflows."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from lsviz.formats import FP16
from lsviz.policies.base import MAX_SCALE, MIN_SCALE, Outcome, Policy, Scale, format_number, fp32

_Share = Annotated[float, Field(ge=0, le=1)]
_Decay = Annotated[float, Field(ge=0, lt=1)]
_State = Annotated[float, Field(allow_inf_nan=False)]

TOP_EXPONENT: Final = FP16.max_exponent
"""15: the exponent of FP16's largest values."""


class Patent(Policy):
    """S puts the largest gradient of the last step just under FP16's top.

    From US 2024/0078433 A1 and US 11842280 B2 (a scaling factor from the largest gradient of the
    iteration before). With ``margin`` 0 the largest gradient lands in (2^14, 2^15], so it has to more
    than double to overflow. Before the first step S is ``init_scale``. An Inf or NaN hides the largest
    gradient: S is halved, as back-off does; a gradient of zeros leaves S as it is.
    """

    name: ClassVar[str] = "patent"
    rule: ClassVar[str] = (
        "S = 2^(floor(15 - log2 max|g|) - margin), from the largest unscaled weight gradient of the step "
        "before; an Inf halves S."
    )
    source: ClassVar[str] = "US 2024/0078433 A1 and US 11842280 B2"
    needs_amax: ClassVar[bool] = True
    state_fields: ClassVar[tuple[str, ...]] = ("scale",)

    init_scale: Scale = Field(default=1.0, description="S at the first step.")
    margin: int = Field(
        default=0, ge=0, le=40, description="Binades kept free above the largest gradient of the last step."
    )
    scale: Scale | None = Field(default=None, description="S now; empty at the start.")

    @property
    def loss_scale(self) -> float:
        """S now."""
        return fp32(self.init_scale) if self.scale is None else self.scale

    def update(self, outcome: Outcome) -> Self:
        """Return the policy with S from this step's largest gradient."""
        scale = self.loss_scale
        if outcome.amax is not None and math.isfinite(outcome.amax):
            if outcome.amax > 0:
                # Exact: floor(15 - log2 a) = 15 - ceil(log2 a), and frexp has a = m 2^e, 1/2 <= m < 1.
                mantissa, exponent = math.frexp(outcome.amax)
                ceiling = exponent - 1 if mantissa == 0.5 else exponent
                scale = _bounded(math.ldexp(1.0, min(TOP_EXPONENT - ceiling - self.margin, 1000)))
        elif not outcome.finite or outcome.amax is not None:
            scale = _bounded(scale / 2)
        return self.model_copy(update={"scale": scale})


class LogMax(Policy):
    """S keeps the largest gradient, taken as log-normal, under FP16's top.

    OpenSeq2Seq (open_seq2seq/optimizers/automatic_loss_scaler.py, LogMaxScaler): x = log2 max|g| of
    the unscaled weight gradients; its mean from an EMA with ``beta1``; its deviation from EMAs of x and
    x squared with ``beta2``; all bias-corrected; S = 2^(16 - (mean + deviations x deviation)), kept
    between ``min_scale`` and ``max_scale``. There an Inf enters as x = 2^16, which reads like a slip
    for its logarithm, and pins S to 1 for some 12,600 steps: ``inf_rule=published`` does that, the
    default enters x = 16. OpenSeq2Seq computes in FP32; here it is FP64, which differs in the first
    steps, where the bias corrections are small differences. A gradient of zeros has no logarithm and is
    passed over, as is a step whose largest gradient nobody measured.
    """

    name: ClassVar[str] = "logmax"
    rule: ClassVar[str] = (
        "S = 2^(16 - (mean + 3.09 deviations)) of log2 max|g|, from moving averages over the steps before."
    )
    source: ClassVar[str] = (
        "OpenSeq2Seq, open_seq2seq/optimizers/automatic_loss_scaler.py, LogMaxScaler (computed in FP64)"
    )
    needs_amax: ClassVar[bool] = True
    state_fields: ClassVar[tuple[str, ...]] = ("scale", "x", "slow_x", "x_squared", "steps")

    init_scale: Scale | None = Field(
        default=None, description="S at the first step; empty: 1, kept between floor and ceiling."
    )
    beta1: _Decay = Field(default=0.99, description="Decay of the mean's moving average.")
    beta2: _Decay = Field(default=0.999, description="Decay of the deviation's moving averages.")
    deviations: float = Field(
        default=3.09, ge=0, le=100, description="Standard deviations kept free above the mean."
    )
    min_scale: Scale = Field(default=1.0, description="Floor of S.")
    max_scale: Scale = Field(default=2.0**14, description="Ceiling of S.")
    inf_rule: Literal["log2", "published"] = Field(
        default="log2", description="An Inf enters as x = 16 (log2), or as x = 65,536 (published)."
    )
    scale: Scale | None = Field(default=None, description="S now; empty at the start.")
    x: _State = Field(default=0.0, description="Moving average of x with beta1, not bias-corrected.")
    slow_x: _State = Field(default=0.0, description="Moving average of x with beta2, not bias-corrected.")
    x_squared: _State = Field(default=0.0, description="Moving average of x squared, not bias-corrected.")
    steps: int = Field(default=0, ge=0, description="Steps taken into the averages.")

    @property
    def loss_scale(self) -> float:
        """S now."""
        if self.scale is not None:
            return self.scale
        start = min(max(1.0, self.min_scale), self.max_scale) if self.init_scale is None else self.init_scale
        return fp32(start)

    def update(self, outcome: Outcome) -> Self:
        """Return the policy with this step's largest gradient in its averages."""
        if not outcome.finite or (outcome.amax is not None and not math.isfinite(outcome.amax)):
            x = 2.0**16 if self.inf_rule == "published" else 16.0
        elif outcome.amax:
            x = math.log2(outcome.amax)
        else:
            return self.model_copy(update={"scale": self.loss_scale})
        steps = self.steps + 1
        mean_now = self.beta1 * self.x + (1 - self.beta1) * x
        slow = self.beta2 * self.slow_x + (1 - self.beta2) * x
        squared = self.beta2 * self.x_squared + (1 - self.beta2) * x * x
        mean = mean_now / (1 - self.beta1**steps)
        correction = 1 - self.beta2**steps
        deviation = math.sqrt(max(squared / correction - (slow / correction) ** 2, 0.0))
        exponent = 16 - (mean + self.deviations * deviation)
        # Clamped before the power too: 2^65,536 is no number.
        scale = fp32(2.0 ** min(max(exponent, -127.0), 127.0))
        return self.model_copy(
            update={
                "scale": min(max(scale, fp32(self.min_scale)), fp32(self.max_scale)),
                "x": mean_now,
                "slow_x": slow,
                "x_squared": squared,
                "steps": steps,
            }
        )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        low, high = fp32(self.min_scale), fp32(self.max_scale)
        for key in ("init_scale", "scale"):
            value = getattr(self, key)
            if low > high or (value is not None and not low <= fp32(value) <= high):
                raise ValueError(
                    f"{key} should lie between min_scale ({format_number(self.min_scale)}) and max_scale "
                    f"({format_number(self.max_scale)})"
                )
        return self


class Histogram(Policy):
    """S follows the share of large gradient values and needs no Inf.

    Graphcore's PopTorch and PopART (automatic loss scaling): a histogram of two bins over the scaled
    gradients, parted at ``bin_edge`` times FP16's largest value; where the upper bin's share is above
    ``threshold`` S is halved, else doubled, every step. Inf and NaN count as large.
    """

    name: ClassVar[str] = "histogram"
    rule: ClassVar[str] = (
        "S is halved where more than 1e-7 of the scaled weight gradients are at or above 0.125 x 65,504, "
        "else doubled, every step."
    )
    source: ClassVar[str] = "PopTorch 3.3 and PopART 3.3, automatic loss scaling"
    state_fields: ClassVar[tuple[str, ...]] = ("scale",)

    init_scale: Scale = Field(default=1.0, description="S at the first step.")
    bin_edge: float = Field(
        default=0.125, gt=0, le=1, description="From this share of FP16's largest value on, it is large."
    )
    threshold: _Share = Field(default=1e-7, description="Share of large values above which S is halved.")
    scale: Scale | None = Field(default=None, description="S now; empty at the start.")

    @property
    def large_value(self) -> float:
        """The upper bin's lower edge, a scaled magnitude."""
        return self.bin_edge * FP16.max

    @property
    def loss_scale(self) -> float:
        """S now."""
        return fp32(self.init_scale) if self.scale is None else self.scale

    def update(self, outcome: Outcome) -> Self:
        """Return the policy with S halved or doubled."""
        share = outcome.large_share
        if share is None:
            share = 0.0 if outcome.finite else 1.0
        factor = 0.5 if share > self.threshold else 2.0
        return self.model_copy(update={"scale": _bounded(self.loss_scale * factor)})


def _bounded(scale: float) -> float:
    return min(max(fp32(scale), MIN_SCALE), MAX_SCALE)
